//! IA³: keys, values and the inner activations of the feed-forward layer are scaled by trained vectors that begin at one.
//!
//! Source: Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning, arXiv:2205.05638,
//! §3.3. Names as in PEFT 0.21.

use rhetor_catalog::{About, Source, Values};
use rhetor_tensor::{Parameter, Tensor, Vector, Weight, ops};
use serde_json::{Map, Value};
use std::sync::Arc;

use super::base_tensors::{BaseTensors, PREFIX};
use super::stored::{Saved, SavedTensor, Stored};
use super::targets::{Kind, Targets};
use super::{Adapter, AdapterError, AdapterOptions, LinearHook, Method, Names, Purpose, Site};
use super::{order, peft_config};
use crate::layers::Pass;

/// Trained factors of keys, values and inner activations.
pub(super) static IA3: Method = Method {
    about: About {
        name: "ia3",
        summary: "trained factors for keys, values and the inner activations of the feed-forward layers",
        source: Source::Paper {
            title: "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
            id: "arXiv:2205.05638",
            section: "§3.3",
        },
        options: &[],
    },
    build,
};

fn build(_: &Values, options: &AdapterOptions) -> Result<Box<dyn Adapter>, AdapterError> {
    options.check_used("ia3", &["targets", "exclude", "layers", "modules-to-save"])?;
    let targets =
        |kind| Targets::new(options.targets.clone(), options.exclude.clone(), options.layers.clone(), kind);
    let base = BaseTensors::new(&options.modules_to_save, Default::default());
    let settings =
        Ia3Settings { outputs: targets(Kind::Ia3)?, inputs: targets(Kind::Ia3Inputs)?, is_split: false };
    Ok(Box::new(Ia3::new(settings, base, None, Map::new(), Purpose::Training)))
}

/// Which layers are scaled, and on which side.
pub(super) struct Ia3Settings {
    /// Layers whose output is scaled.
    pub outputs: Targets,
    /// Layers whose input is scaled.
    pub inputs: Targets,
    /// Whether `outputs` are all targets and `inputs` says which of them are scaled at their input, as in PEFT's files.
    /// Else the last matrix of a feed-forward layer is, wherever targets are named.
    pub is_split: bool,
}

/// The adapter.
pub(super) struct Ia3 {
    settings: Ia3Settings,
    base: BaseTensors,
    stored: Option<Stored>,
    config: Map<String, Value>,
    purpose: Purpose,
    layers: Vec<Arc<Scaled>>,
    met: Vec<String>,
}

/// The factors of one layer.
struct Scaled {
    name: String,
    /// [in] or [out], in the base's order.
    factors: Parameter,
    side: Side,
    order: order::RowOrder,
    is_transposed: bool,
    n_in: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Input,
    Output,
}

impl Ia3 {
    pub fn new(
        settings: Ia3Settings,
        base: BaseTensors,
        stored: Option<Stored>,
        config: Map<String, Value>,
        purpose: Purpose,
    ) -> Ia3 {
        Ia3 { settings, base, stored, config, purpose, layers: Vec::new(), met: Vec::new() }
    }

    /// Where the layer is scaled, if it is.
    fn side(&self, site: &Site) -> Option<Side> {
        let Ia3Settings { outputs, inputs, is_split } = &self.settings;
        let is_input = match (&inputs.names, is_split) {
            (Names::Default, _) | (_, true) => inputs.has(site, true),
            _ => site.ours == "blk.{i}.ffn_down",
        };
        let is_target = outputs.has(site, true) || (is_input && !is_split && inputs.has(site, true));
        let is_module = self.base.is_module(site);
        let side = if is_input { Side::Input } else { Side::Output };
        (is_target && !is_module).then_some(side)
    }
}

impl Adapter for Ia3 {
    fn about(&self) -> &'static About {
        &IA3.about
    }

    fn trains(&self, site: &Site) -> bool {
        self.base.trains(site, false, self.purpose)
    }

    fn trained(&mut self, site: &Site, parameter: &Parameter) {
        self.base.trained(site, false, parameter);
    }

    fn replaces(&mut self, site: &Site) -> Result<Option<Vec<f32>>, AdapterError> {
        self.base.replaces(site, false, self.stored.as_mut())
    }

    fn unties(&self) -> bool {
        self.base.unties()
    }

    fn replaces_base(&self) -> bool {
        self.base.is_any()
    }

    fn linear(
        &mut self,
        site: &Site,
        base: &Weight,
        _bias: Option<&Vector>,
    ) -> Result<Option<Box<dyn LinearHook>>, AdapterError> {
        if let Some(layer) = self.layers.iter().find(|layer| layer.name == site.name) {
            return Ok(Some(Box::new(layer.clone())));
        }
        if self.met.len() < 8 {
            self.met.push(site.name.to_string());
        }
        let Some(side) = self.side(site) else { return Ok(None) };
        let key = format!("{PREFIX}{}.ia3_l", site.name);
        let (n, shape) = match side {
            Side::Input => (base.n_in(), [1, base.n_in()]),
            Side::Output => (base.n_out(), [base.n_out(), 1]),
        };
        let order = site.order.clone().filter(|_| side == Side::Output);
        let factors = match &mut self.stored {
            Some(stored) => {
                let values = stored.require(&key, &shape)?;
                order::to_base(&order, values)
            }
            None => vec![1.0; n],
        };
        let factors = Parameter::new(key, [n], factors, base.precision());
        factors.set_frozen(self.purpose == Purpose::Inference);
        let name = site.name.to_string();
        let (n_in, is_transposed) = (base.n_in(), site.is_transposed);
        let layer = Arc::new(Scaled { name, factors, side, order, is_transposed, n_in });
        self.layers.push(layer.clone());
        Ok(Some(Box::new(layer)))
    }

    fn finish(&mut self) -> Result<(), AdapterError> {
        if self.layers.is_empty() {
            let (targets, examples) = (self.settings.outputs.describe(), self.met.join(", "));
            return Err(AdapterError::NoTarget { method: IA3.about.name, targets, examples });
        }
        self.stored.as_ref().map_or(Ok(()), Stored::finish)
    }

    fn attached(&self, name: &str) -> Option<Box<dyn LinearHook>> {
        let layer = self.layers.iter().find(|layer| layer.name == name)?;
        Some(Box::new(layer.clone()))
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.layers.iter().map(|layer| layer.factors.clone()).collect()
    }

    fn save(&self) -> Saved {
        let of_layers = self.layers.iter().map(|layer| {
            let values = order::to_file(&layer.order, layer.factors.read().clone());
            let n = values.len();
            let shape = if layer.side == Side::Input { [1, n] } else { [n, 1] };
            SavedTensor::new(layer.factors.name(), &shape, values)
        });
        let tensors = of_layers.chain(self.base.save()).collect();
        let config = if self.config.is_empty() { self.new_config() } else { self.config.clone() };
        Saved { config, tensors, base: Vec::new() }
    }
}

impl Ia3 {
    fn new_config(&self) -> Map<String, Value> {
        let of = |side: Option<Side>| -> Value {
            let layers = self.layers.iter().filter(|layer| side.is_none_or(|side| layer.side == side));
            layers.map(|layer| layer.name.as_str()).collect()
        };
        peft_config::with_common(
            "IA3",
            vec![
                ("exclude_modules", Value::Null),
                ("fan_in_fan_out", self.layers.iter().any(|layer| layer.is_transposed).into()),
                ("feedforward_modules", of(Some(Side::Input))),
                ("init_ia3_weights", true.into()),
                ("modules_to_save", peft_config::list_or_null(&self.base.module_names())),
                ("target_modules", of(None)),
            ],
        )
    }
}

impl LinearHook for Arc<Scaled> {
    fn changes_input(&self) -> bool {
        self.side == Side::Input
    }

    fn input(&self, x: Tensor) -> Tensor {
        match self.side {
            Side::Input => ops::columns::scale_columns(x, 0, &Vector::Trained(self.factors.clone()), None),
            Side::Output => x,
        }
    }

    fn output(&self, _x: &Tensor, y: Tensor, start: usize, _pass: &Pass) -> Tensor {
        match self.side {
            Side::Input => y,
            Side::Output => {
                ops::columns::scale_columns(y, start, &Vector::Trained(self.factors.clone()), None)
            }
        }
    }

    fn merge(&self, weight: &mut [f32]) {
        self.scale(weight, |value, factor| *value *= factor);
    }

    fn unmerge(&self, weight: &mut [f32]) -> bool {
        let is_possible = self.factors.read().iter().all(|factor| *factor != 0.0);
        if is_possible {
            self.scale(weight, |value, factor| *value /= factor);
        }
        is_possible
    }

    fn merge_bias(&self, bias: &mut [f32]) {
        if self.side == Side::Output {
            bias.iter_mut().zip(self.factors.read().iter()).for_each(|(value, factor)| *value *= factor);
        }
    }
}

impl Scaled {
    /// Calls `f` with each element of the weight and its factor. weight: [out, in]
    fn scale(&self, weight: &mut [f32], f: impl Fn(&mut f32, f32)) {
        let factors = self.factors.read();
        for (i, row) in weight.chunks_exact_mut(self.n_in).enumerate() {
            match self.side {
                Side::Input => {
                    row.iter_mut().zip(factors.iter()).for_each(|(value, factor)| f(value, *factor))
                }
                Side::Output => row.iter_mut().for_each(|value| f(value, factors[i])),
            }
        }
    }
}
