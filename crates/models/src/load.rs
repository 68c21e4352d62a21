//! From a checkpoint's tensors to packed weights: every name and shape is checked here, so that mathematics needs no `?`.
//!
//! [`Weights`] keeps the account; single tensors are in `tensors`, what families build of them in `bricks`.

mod bricks;
mod error;
mod tensors;

use rhetor_formats::{Checkpoint, Kind, TensorEntry};
use rhetor_kernels::gemm::Precision;
use rhetor_kernels::rope::{RopeOptions, RopeTable};
use rhetor_tensor::{Parameter, Weight};
use std::collections::HashSet;
use std::sync::Arc;

use crate::adapters::{Adapter, AdapterError, Site};
use crate::config::{Keys, ModelConfig, Part};
use crate::families::Family;
use crate::four_bit::Nf4;
use crate::misfits::{self, Misfits, Misshapen};
use crate::model::LoadOptions;
use crate::names::TensorName;
use crate::places::{Piece, Place};

pub(crate) use bricks::join;
pub use error::LoadError;
pub(crate) use tensors::transpose;

/// Buffers that old files carry and that no model needs.
const LEGACY_BUFFERS: &[&str] = &[
    ".attn.bias",
    ".attn.masked_bias",
    ".attn.causal_mask",
    ".attention.bias",
    ".attention.masked_bias",
    "rotary_emb.inv_freq",
    "rotary_pos_emb.inv_freq",
    "maybe_rotary.inv_freq",
    ".position_ids",
    // What hides patches in DINOv2's pre-training.
    "embeddings.mask_token",
    "EncDecAttention.relative_attention_bias.weight",
];

/// Hands out a checkpoint's tensors by our names, checked, and keeps account of which were taken.
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    family: &'static Family,
    /// The sizes that shapes are checked against.
    pub config: &'a ModelConfig,
    /// `model.` or empty: Hugging Face files may leave it out.
    prefix: &'static str,
    /// The part of the model whose tensors are handed out, if it is one.
    part: Option<&'a Part>,
    taken: HashSet<String>,
    misfits: Misfits,
    n_parameters: usize,
    n_bytes: usize,
    rope_tables: Vec<(RopeOptions, Arc<RopeTable>)>,
    adapters: &'a mut [Box<dyn Adapter>],
    /// Of products with trained weights, and of gradients that pass frozen ones.
    precision: Precision,
    quantize: Option<Nf4>,
    /// Frozen linear layers are held in bfloat16 where the file has 32 bits.
    in_bf16: bool,
    /// The seed of a new head, if one is asked for.
    head_seed: Option<u64>,
    parameters: Vec<Parameter>,
}

/// What [`Weights::finish`] has counted and collected.
pub(crate) struct Account {
    /// Elements of all weights of the base, tied ones counted once.
    pub n_parameters: usize,
    /// Their bytes in memory.
    pub n_bytes: usize,
    /// The trained tensors of the base.
    pub parameters: Vec<Parameter>,
    /// The names of the tensors that a graph builds upon the model.
    pub beside: Vec<String>,
}

impl<'a> Weights<'a> {
    /// The tensors of `checkpoint`, read by the names of `family`, with `adapters` attached.
    pub(crate) fn new(
        checkpoint: &'a Checkpoint,
        family: &'static Family,
        config: &'a ModelConfig,
        adapters: &'a mut [Box<dyn Adapter>],
        options: LoadOptions,
    ) -> Result<Weights<'a>, LoadError> {
        let has_prefix = checkpoint.tensors().iter().any(|tensor| tensor.name.starts_with(family.prefix));
        let prefix = if has_prefix { family.prefix } else { "" };
        Ok(Weights {
            checkpoint,
            family,
            config,
            prefix,
            part: None,
            taken: HashSet::new(),
            misfits: Misfits::default(),
            n_parameters: 0,
            n_bytes: 0,
            rope_tables: Vec::new(),
            adapters,
            precision: options.precision,
            quantize: options.quantize,
            in_bf16: options.in_bf16,
            head_seed: options.head.map(|new| new.seed),
            parameters: Vec::new(),
        })
    }

    /// The file's own keys.
    pub fn keys(&self) -> Keys<'a> {
        let keys = Keys::new(self.checkpoint, self.family.gguf);
        match self.part {
            Some(part) => keys.section(part.section),
            None => keys,
        }
    }

    /// What `load` makes of part `number` of the model: in it the names, the shapes and the keys are the part's.
    pub fn part<T>(
        &mut self,
        number: usize,
        load: impl FnOnce(&mut Weights<'a>) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let part = &self.config.parts[number];
        let family = Family::of_part(part);
        let before = (self.family, self.config, self.prefix, self.part);
        let with_prefix = format!("{}{}", part.root, family.prefix);
        let has_prefix = self.checkpoint.tensors().iter().any(|tensor| tensor.name.starts_with(&with_prefix));
        (self.family, self.config, self.part) = (family, &part.config, Some(part));
        self.prefix = if has_prefix { family.prefix } else { "" };
        let loaded = load(self);
        (self.family, self.config, self.prefix, self.part) = before;
        loaded
    }

    /// What the names of all tensors of the part begin with.
    fn root(&self) -> &'static str {
        self.part.map_or("", |part| part.root)
    }

    /// The name that a tensor goes by outside the files: that of Hugging Face, in full.
    fn known_name(&self, row: &TensorName, i: impl Into<Place>, suffix: &str) -> String {
        format!("{}{}", self.root(), row.hugging_face_name(self.family.prefix, i, suffix))
    }

    /// Whether the file has the weight or the bias of `ours` in layer `i`.
    pub fn is_in_file(&self, ours: &str, i: usize, suffix: &str) -> bool {
        self.family.find(self.checkpoint, &self.file_name(self.row(ours), i, suffix)).is_some()
    }

    fn speaks_gguf(&self) -> bool {
        matches!(self.checkpoint.kind(), Kind::Gguf | Kind::Llama2C)
    }

    fn row(&self, ours: &str) -> &'static TensorName {
        let is_here = |row: &&TensorName| row.ours == ours && row.is_in(self.config);
        let row = self.family.tensors.iter().find(is_here);
        row.unwrap_or_else(|| panic!("`{ours}` is not in the table of {}", self.family.about.name))
    }

    /// Whether models of this family, with these sizes and this head, have the tensor `ours`.
    pub fn has(&self, ours: &str) -> bool {
        self.family.tensors.iter().any(|row| row.ours == ours && row.is_in(self.config))
    }

    /// The extents of the weight `ours` in layer `i`, outermost first.
    pub fn extents(&self, ours: &str, i: usize) -> Vec<usize> {
        self.row(ours).extents(self.config, i)
    }

    /// The name in this file of our tensor `ours` in layer `i`.
    fn file_name(&self, row: &TensorName, i: impl Into<Place>, suffix: &str) -> String {
        if self.speaks_gguf() {
            row.gguf_name(i, suffix)
        } else {
            format!("{}{}", self.root(), row.hugging_face_name(self.prefix, i, suffix))
        }
    }

    /// Finds a tensor, checks its shape, and counts it as taken.
    fn take(
        &mut self,
        row: &'static TensorName,
        i: impl Into<Place>,
        suffix: &str,
        expected: &[usize],
    ) -> Result<Option<&'a TensorEntry>, LoadError> {
        let name = self.file_name(row, i, suffix);
        // Old files of BERT's call weight and bias of a norm so.
        let old = |from, to| name.strip_suffix(from).map(|name| format!("{name}{to}"));
        let found = self.family.find(self.checkpoint, &name);
        let found = found.or_else(|| self.checkpoint.find(&old(".LayerNorm.weight", ".LayerNorm.gamma")?));
        let found = found.or_else(|| self.checkpoint.find(&old(".LayerNorm.bias", ".LayerNorm.beta")?));
        let Some(entry) = found else { return Ok(None) };
        let name = entry.name.clone();
        let fits = row.fits(&entry.shape, expected);
        if !fits && self.head_seed.is_some() && row.is_head() {
            // Of another number of labels: a new one takes its place.
            self.taken.insert(name);
            return Ok(None);
        }
        if !fits {
            let (got, expected) = (entry.shape.clone(), expected.to_vec());
            self.taken.insert(name.clone());
            self.misfits.misshapen.push(Misshapen { name, got, expected, letters: row.shape });
            return Ok(None);
        }
        self.n_parameters += expected.iter().product::<usize>();
        self.taken.insert(name);
        Ok(Some(entry))
    }

    /// As [`take`](Weights::take), of a matrix that stands in one tensor with others: its elements there.
    fn take_of_stack(&mut self, row: &'static TensorName, i: Place) -> Result<Option<Piece<'a>>, LoadError> {
        let is_gguf = self.speaks_gguf();
        for (stack, expected, (part, n_parts)) in row.stacks_in(is_gguf, i, self.config) {
            let name = format!("{}{}", self.root(), stack.name_in(self.prefix, i.layer));
            let Some(entry) = self.checkpoint.find(&name) else { continue };
            self.taken.insert(name.clone());
            if entry.shape != expected {
                let (misshapen, got) = (&mut self.misfits.misshapen, entry.shape.clone());
                if misshapen.iter().all(|other| other.name != name) {
                    misshapen.push(Misshapen { name, got, expected, letters: row.shape });
                }
                return Ok(None);
            }
            self.n_parameters += row.extents(self.config, i).iter().product::<usize>();
            return Ok(Some(Piece { entry, part, n_parts }));
        }
        Ok(None)
    }

    /// What stands for a matrix that the file lacks until all others are looked at.
    fn absent(&mut self, row: &'static TensorName, i: Place) -> Weight {
        self.misfits.lacks(self.file_name(row, i, ".weight"));
        misfits::matrix(&row.extents(self.config, i))
    }

    /// The refusal of a file whose tensors do not fit, as far as they were looked at.
    fn refusal(&mut self) -> LoadError {
        let misfits = Box::new(std::mem::take(&mut self.misfits));
        let file = self.checkpoint.path().to_path_buf();
        LoadError::Tensors { file, family: self.family.about.name, misfits }
    }

    /// Calls `f` with each adapter, its number, and the tensor `ours` of layer `i` as adapters meet it.
    fn for_each_adapter(
        &mut self,
        row: &'static TensorName,
        i: impl Into<Place>,
        suffix: &'static str,
        shape: &[usize],
        mut f: impl FnMut(usize, &mut dyn Adapter, &Site) -> Result<(), AdapterError>,
    ) -> Result<(), LoadError> {
        if self.adapters.is_empty() {
            return Ok(());
        }
        let i = i.into();
        let order = row.order(self.config, i.layer, self.speaks_gguf());
        let site = Site {
            ours: row.ours,
            name: &self.known_name(row, i, ""),
            suffix,
            layer: i.layer,
            shape,
            is_transposed: row.is_transposed(),
            order: order.map(Arc::from),
            offset: row.offset(suffix),
            config: self.config,
        };
        for (number, adapter) in self.adapters.iter_mut().enumerate() {
            f(number, &mut **adapter, &site)?;
        }
        Ok(())
    }

    /// What adapters make of the tensor `ours` of layer `i`: its values if they replace them, and whether it trains.
    fn adapted(
        &mut self,
        row: &'static TensorName,
        i: impl Into<Place>,
        suffix: &'static str,
        shape: &[usize],
    ) -> Result<(Option<Vec<f32>>, bool), LoadError> {
        let (mut values, mut trains) = (None, false);
        self.for_each_adapter(row, i, suffix, shape, |_, adapter, site| {
            trains |= adapter.trains(site);
            values = adapter.replaces(site)?.or(values.take());
            Ok(())
        })?;
        Ok((values, trains))
    }

    /// A trained tensor of the base.
    fn parameter(
        &mut self,
        row: &'static TensorName,
        i: impl Into<Place>,
        suffix: &'static str,
        shape: &[usize],
        values: Vec<f32>,
    ) -> Result<Parameter, LoadError> {
        let i = i.into();
        let name = self.known_name(row, i, suffix);
        let parameter = Parameter::new(name, shape, values, self.precision);
        self.parameters.push(parameter.clone());
        self.for_each_adapter(row, i, suffix, shape, |_, adapter, site| {
            if adapter.trains(site) {
                adapter.trained(site, &parameter);
            }
            Ok(())
        })?;
        Ok(parameter)
    }

    /// Whether a tensor belongs to a head that the model does not have.
    fn is_of_another_head(&self, name: &str) -> bool {
        let task = self.config.head.task;
        let others = self.family.tensors.iter().filter(|row| !row.belongs_to(task));
        let mut names = others.flat_map(|row| [".weight", ".bias"].map(|s| self.file_name(row, 0, s)));
        names.any(|other| other == name)
    }

    /// Counts a tensor as taken whose numbers others say already.
    pub(crate) fn pass_over(&mut self, name: &str) {
        self.taken.insert(name.to_string());
    }

    /// Ends the account: a file with tensors that nobody took, or without some that were asked for, is refused.
    pub(crate) fn finish(mut self) -> Result<Account, LoadError> {
        let mut beside = Vec::new();
        for tensor in self.checkpoint.tensors() {
            let is_beside = self.family.beside.iter().any(|start| tensor.name.starts_with(start));
            if is_beside && self.checkpoint.kind() == Kind::Onnx {
                beside.push(tensor.name.clone());
                continue;
            }
            let is_legacy = LEGACY_BUFFERS.iter().any(|buffer| tensor.name.ends_with(buffer));
            let is_other_head = || self.is_of_another_head(&tensor.name);
            let is_twin =
                || self.taken.iter().any(|taken| (self.family.other_names)(taken).contains(&tensor.name));
            if !is_legacy && !self.taken.contains(&tensor.name) && !is_other_head() && !is_twin() {
                self.misfits.unexpected.push(tensor.name.clone());
            }
        }
        if !self.misfits.is_empty() {
            return Err(self.refusal());
        }
        for adapter in self.adapters.iter_mut() {
            adapter.finish()?;
        }
        let Weights { n_parameters, n_bytes, parameters, .. } = self;
        Ok(Account { n_parameters, n_bytes, parameters, beside })
    }
}
