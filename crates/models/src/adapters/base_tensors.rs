//! Tensors of the base that train in full beside an adapter: modules to save, and biases.

use rhetor_tensor::Parameter;
use std::collections::HashMap;

use super::stored::{SavedTensor, Stored};
use super::{AdapterError, Bias, Purpose, Site, order};

/// What PEFT puts before the names of a model's modules.
pub(crate) const PREFIX: &str = "base_model.model.";

/// Our name of the head of a task: of classes, or of the ends of answers.
pub(crate) const HEAD: &str = "cls.output";

/// Which tensors of the base train in full, and what has become of them.
#[derive(Default)]
pub(crate) struct BaseTensors {
    /// PEFT's `modules_to_save`: modules whose name ends so.
    pub modules: Vec<String>,
    pub bias: Bias,
    /// Whether an embedding and its tied output layer stay one (PEFT's `ensure_weight_tying`).
    pub keeps_ties: bool,
    /// Tensors of our names that have one of these in them: kept in a file of their own, under Hugging Face's names.
    pub ours: &'static [&'static str],
    /// That file, if the adapter was read.
    pub file: Option<Stored>,
    kept: Vec<Kept>,
    by_name: HashMap<String, usize>,
}

/// A tensor of the base that trains, or whose values come from the adapter's file.
struct Kept {
    /// Its name in the file.
    key: String,
    /// Whether that is the file of the base's tensors.
    is_bare: bool,
    is_head: bool,
    /// In the base's order: `[out, in]` or `[n]`.
    shape: Vec<usize>,
    is_transposed: bool,
    order: order::RowOrder,
    offset: f32,
    /// In the base's order.
    value: Value,
}

enum Value {
    Read(Vec<f32>),
    Trained(Parameter),
}

impl BaseTensors {
    pub fn new(modules: &[String], bias: Bias) -> BaseTensors {
        BaseTensors { modules: modules.to_vec(), bias, ..BaseTensors::default() }
    }

    /// Whether this tensor is one of them; `is_adapted` says whether the adapter changes its layer.
    pub fn has(&self, site: &Site, is_adapted: bool) -> bool {
        let is_bias = site.suffix == ".bias";
        let by_bias = match self.bias {
            Bias::None => false,
            Bias::All => is_bias,
            Bias::Adapted => is_bias && is_adapted,
        };
        by_bias || self.is_bare(site) || self.is_module(site)
    }

    /// Whether it belongs to a module that trains in full: one that is named, or the head of a task, which is new.
    pub fn is_module(&self, site: &Site) -> bool {
        // As PEFT has it, and not only at a dot.
        site.ours == HEAD || self.modules.iter().any(|module| site.name.ends_with(module.as_str()))
    }

    /// PEFT's `modules_to_save`, heads that were met included.
    pub fn module_names(&self) -> Vec<String> {
        let mut names = self.modules.clone();
        for kept in self.kept.iter().filter(|kept| kept.is_head) {
            let module = kept.key.strip_prefix(PREFIX).unwrap_or(&kept.key);
            let module = module.rsplit_once('.').map_or(module, |(module, _)| module);
            let name = module.rsplit('.').next().unwrap_or(module).to_string();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn is_bare(&self, site: &Site) -> bool {
        self.ours.iter().any(|part| site.ours.contains(part))
    }

    /// The tensor's name in the file: of layers that an adapter wraps, the base has a name of its own.
    fn key(&self, site: &Site, is_adapted: bool) -> String {
        if self.is_bare(site) {
            return format!("{}{}", site.name, site.suffix);
        }
        let base = if is_adapted { ".base_layer" } else { "" };
        format!("{PREFIX}{}{base}{}", site.name, site.suffix)
    }

    /// The values from the adapter's file, in the base's order.
    pub fn replaces(
        &mut self,
        site: &Site,
        is_adapted: bool,
        stored: Option<&mut Stored>,
    ) -> Result<Option<Vec<f32>>, AdapterError> {
        let key = self.key(site, is_adapted);
        if let Some(&i) = self.by_name.get(&key) {
            return Ok(Some(match &self.kept[i].value {
                Value::Read(values) => values.clone(),
                Value::Trained(parameter) => parameter.read().clone(),
            }));
        }
        if !self.has(site, is_adapted) {
            return Ok(None);
        }
        let stored = if self.is_bare(site) { self.file.as_mut() } else { stored };
        let Some(stored) = stored else { return Ok(None) };
        let mut in_file = site.shape.to_vec();
        if site.is_transposed && in_file.len() == 2 {
            in_file.reverse();
        }
        let Some(values) = stored.take(&key, &in_file)? else { return Ok(None) };
        let values = if site.is_transposed && in_file.len() == 2 {
            order::transposed(&values, in_file[0], in_file[1])
        } else {
            values
        };
        let mut values = order::to_base(&site.order, values);
        values.iter_mut().for_each(|value| *value += site.offset);
        self.keep(key, site, Value::Read(values.clone()));
        Ok(Some(values))
    }

    /// Takes notice of the parameter that the tensor has become.
    pub fn trained(&mut self, site: &Site, is_adapted: bool, parameter: &Parameter) {
        let key = self.key(site, is_adapted);
        let value = Value::Trained(parameter.clone());
        match self.by_name.get(&key) {
            Some(&i) => self.kept[i].value = value,
            None => self.keep(key, site, value),
        }
    }

    fn keep(&mut self, key: String, site: &Site, value: Value) {
        self.by_name.insert(key.clone(), self.kept.len());
        self.kept.push(Kept {
            is_bare: self.is_bare(site),
            is_head: site.ours == HEAD,
            key,
            shape: site.shape.to_vec(),
            is_transposed: site.is_transposed && site.shape.len() == 2,
            order: site.order.clone(),
            offset: site.offset,
            value,
        });
    }

    /// Whether an adapter with them replaces tensors of the base.
    pub fn is_any(&self) -> bool {
        !self.modules.is_empty() || self.bias != Bias::None || !self.ours.is_empty() || !self.kept.is_empty()
    }

    /// Whether none has been met.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether all of its own file was taken.
    pub fn finish(&self) -> Result<(), AdapterError> {
        self.file.as_ref().map_or(Ok(()), Stored::finish)
    }

    /// As [`super::Adapter::unties`].
    pub fn unties(&self) -> bool {
        !self.modules.is_empty() && !self.keeps_ties
    }

    /// Whether a tensor trains: not if the adapter is there for inference.
    pub fn trains(&self, site: &Site, is_adapted: bool, purpose: Purpose) -> bool {
        purpose == Purpose::Training && self.has(site, is_adapted)
    }

    /// What is written beside the adapter's own tensors, as Hugging Face stores it.
    pub fn save(&self) -> impl Iterator<Item = SavedTensor> {
        self.saved(false)
    }

    /// What is written to a file of its own, as Hugging Face stores it.
    pub fn save_bare(&self) -> impl Iterator<Item = SavedTensor> {
        self.saved(true)
    }

    fn saved(&self, is_bare: bool) -> impl Iterator<Item = SavedTensor> {
        self.kept.iter().filter(move |kept| kept.is_bare == is_bare).map(|kept| {
            let values = match &kept.value {
                Value::Read(values) => values.clone(),
                Value::Trained(parameter) => parameter.read().clone(),
            };
            let mut values = order::to_file(&kept.order, values);
            values.iter_mut().for_each(|value| *value -= kept.offset);
            if kept.is_transposed {
                let (n_rows, n_columns) = (kept.shape[0], kept.shape[1]);
                let values = order::transposed(&values, n_rows, n_columns);
                return SavedTensor::new(&kept.key, &[n_columns, n_rows], values);
            }
            SavedTensor::new(&kept.key, &kept.shape, values)
        })
    }
}
