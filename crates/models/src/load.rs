//! From a checkpoint's tensors to packed weights: every name and shape is checked here, so that mathematics needs no `?`.

use rhetor_formats::{Checkpoint, ElementType, Kind, TensorEntry};
use rhetor_kernels::DType;
use rhetor_kernels::gemm::{Precision, Rows};
use rhetor_kernels::matmul::Packed;
use rhetor_kernels::quant;
use rhetor_kernels::rope::{RopeOptions, RopeScaling, RopeTable};
use rhetor_tensor::ops::head_norm::NormKind;
use rhetor_tensor::ops::lstm::Lstm;
use rhetor_tensor::ops::scored_attention::Scores;
use rhetor_tensor::{Parameter, Tensor, Vector, Weight};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::adapters::{Adapter, AdapterError, Site, order};
use crate::config::{Keys, ModelConfig, Part};
use crate::families::Family;
use crate::four_bit::{self, FourBit, Nf4};
use crate::head::Task;
use crate::layers::{
    Attached, Attention, CrossAttention, Embedding, HeadNorm, LayerNorm, Linear, Norm, RmsNorm,
};
use crate::misfits::{self, Misfits, Misshapen};
use crate::model::LoadOptions;
use crate::names::{Stored, TensorName};
use crate::places::{Piece, Place};
use crate::row_order;

/// Why a checkpoint cannot become a model.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself is broken or a key has the wrong type.
    #[error(transparent)]
    Format(#[from] rhetor_formats::Error),
    /// An adapter does not fit.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// No family of the table reads this architecture.
    #[error("{}: architecture `{architecture}` is not supported; supported are {supported}", file.display())]
    UnknownArchitecture {
        /// The file or directory.
        file: PathBuf,
        /// What it says.
        architecture: String,
        /// What the table holds.
        supported: String,
    },
    /// The file does not say which architecture it holds.
    #[error("{}: the file names no architecture (`general.architecture` in GGUF, `architectures` or `model_type` in config.json; in ONNX the tensors of a dinov2 under `backbone.`)", file.display())]
    NoArchitecture {
        /// The file or directory.
        file: PathBuf,
    },
    /// A key that the architecture needs is absent.
    #[error("{}: key `{key}` is missing", file.display())]
    MissingKey {
        /// The file or directory.
        file: PathBuf,
        /// The key's name in this kind of file.
        key: String,
    },
    /// A key's value is outside what the architecture allows or rhetor supports.
    #[error("{}: key `{key}` is {got}, expected {expected}", file.display())]
    BadValue {
        /// The file or directory.
        file: PathBuf,
        /// The key's name in this kind of file.
        key: String,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// Query heads cannot be shared out evenly.
    #[error("{n_heads} query heads cannot share {n_kv_heads} key and value heads evenly")]
    Heads {
        /// H
        n_heads: usize,
        /// K
        n_kv_heads: usize,
    },
    /// A head that models of this family do not have.
    #[error("{}: models of the family {family} have no head for {task:?}", file.display())]
    NoHead {
        /// The file or directory.
        file: PathBuf,
        /// The family.
        family: &'static str,
        /// What was asked for.
        task: Task,
    },
    /// More positions asked for than the model was made for.
    #[error("a context of {asked} tokens was asked for; the model was made for 1 to {trained}")]
    ContextTooLong {
        /// What was asked for.
        asked: usize,
        /// What the file says.
        trained: usize,
    },
    /// Tensors are missing, unknown or of wrong shape.
    #[error("{}: the tensors are not those of {family} with the sizes that the file gives{misfits}", file.display())]
    Tensors {
        /// The file or directory.
        file: PathBuf,
        /// The family.
        family: &'static str,
        /// Which.
        misfits: Box<Misfits>,
    },
    /// A part of a matrix in four bits is absent.
    #[error("{}: tensor `{name}` is missing", file.display())]
    MissingTensor {
        /// The file or directory.
        file: PathBuf,
        /// The tensor's name in this kind of file.
        name: String,
    },
    /// A tensor's elements are of a type that weights cannot have.
    #[error("{}: tensor `{name}` has elements of type {got}; weights are {expected}", file.display())]
    ElementType {
        /// The file or directory.
        file: PathBuf,
        /// The tensor's name in this kind of file.
        name: String,
        /// What the file holds.
        got: String,
        /// What would do.
        expected: &'static str,
    },
    /// A weight holds NaN or infinite values.
    #[error("{}: tensor `{name}` holds a value that is not finite (element {element})", file.display())]
    NotFinite {
        /// The file or directory.
        file: PathBuf,
        /// The tensor's name in this kind of file.
        name: String,
        /// Which element.
        element: usize,
    },
}

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

    fn dtype_of(&self, entry: &TensorEntry) -> Result<DType, LoadError> {
        match &entry.dtype {
            ElementType::Known(dtype) => Ok(*dtype),
            ElementType::Other(other) => Err(LoadError::ElementType {
                file: self.checkpoint.path().to_path_buf(),
                name: entry.name.clone(),
                got: other.to_string(),
                expected: "f32, f16, bf16 or a quantized type",
            }),
        }
    }

    /// The elements of a small tensor in `f32`, all finite. `[n]`
    fn values(&mut self, entry: &TensorEntry) -> Result<Vec<f32>, LoadError> {
        let dtype = self.dtype_of(entry)?;
        let mut values = vec![0.0; entry.shape.iter().product()];
        quant::dequantize(dtype, self.checkpoint.bytes(entry), &mut values);
        if let Some(element) = values.iter().position(|value| !value.is_finite()) {
            let file = self.checkpoint.path().to_path_buf();
            return Err(LoadError::NotFinite { file, name: entry.name.clone(), element });
        }
        self.n_bytes += values.len() * size_of::<f32>();
        Ok(values)
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

    /// The file's row of each row that we want, where the two differ.
    fn order_in_file(&self, row: &TensorName, i: usize) -> Option<Vec<usize>> {
        if self.speaks_gguf() { None } else { row.order(self.config, i, false) }
    }

    /// The vector `ours` with suffix `.weight` or `.bias`; the first extent of the row's shape is its length.
    fn values_of(
        &mut self,
        ours: &str,
        i: impl Into<Place>,
        suffix: &str,
    ) -> Result<Option<Vec<f32>>, LoadError> {
        let i = i.into();
        let row = self.row(ours);
        let len = row.extents(self.config, i)[0];
        let Some(entry) = self.take(row, i, suffix, &[len])? else { return Ok(None) };
        let mut values = self.values(entry)?;
        if let Some(order) = self.order_in_file(row, i.layer) {
            values = row_order::in_order(&values, &order);
        }
        let offset = if self.speaks_gguf() { 0.0 } else { row.offset(suffix) };
        if offset != 0.0 {
            values.iter_mut().for_each(|value| *value += offset);
        }
        Ok(Some(values))
    }

    /// As [`values_of`](Weights::values_of), trained or replaced where an adapter says so.
    fn vector(
        &mut self,
        ours: &str,
        i: impl Into<Place>,
        suffix: &'static str,
    ) -> Result<Option<Vector>, LoadError> {
        let i = i.into();
        let values = match self.values_of(ours, i, suffix)? {
            Some(values) => values,
            None => match self.drawn(self.row(ours), i, suffix) {
                Some(values) => values,
                None => return Ok(None),
            },
        };
        let (row, shape) = (self.row(ours), [values.len()]);
        let (replaced, trains) = self.adapted(row, i, suffix, &shape)?;
        let values = replaced.unwrap_or(values);
        Ok(Some(if trains {
            Vector::Trained(self.parameter(row, i, suffix, &shape, values)?)
        } else {
            Vector::Fixed(Tensor::from_vec(values, shape))
        }))
    }

    /// The vector `ours` of layer `i`, which must be there.
    pub fn required_vector(
        &mut self,
        ours: &str,
        i: usize,
        suffix: &'static str,
    ) -> Result<Vector, LoadError> {
        if let Some(vector) = self.vector(ours, i, suffix)? {
            return Ok(vector);
        }
        let row = self.row(ours);
        let (name, len) = (self.file_name(row, i, suffix), row.extents(self.config, i)[0]);
        if self.misfits.is_hopeless(name, len) { Err(self.refusal()) } else { Ok(misfits::vector(len)) }
    }

    /// The root-mean-square norm called `ours` in layer `i`.
    pub fn rms_norm(&mut self, ours: &str, i: usize) -> Result<RmsNorm, LoadError> {
        Ok(RmsNorm { weight: self.required_vector(ours, i, ".weight")?, eps: self.config.norm_eps })
    }

    /// The layer norm called `ours` in layer `i`.
    pub fn layer_norm(&mut self, ours: &str, i: usize) -> Result<LayerNorm, LoadError> {
        let weight = self.required_vector(ours, i, ".weight")?;
        Ok(LayerNorm { weight, bias: self.required_vector(ours, i, ".bias")?, eps: self.config.norm_eps })
    }

    /// The norm called `ours` in layer `i`, of the model's kind.
    pub fn norm(&mut self, ours: &str, i: usize) -> Result<Norm, LoadError> {
        Ok(match self.config.norm_kind {
            NormKind::Layer => Norm::Layer(self.layer_norm(ours, i)?),
            NormKind::Rms => Norm::Rms(self.rms_norm(ours, i)?),
        })
    }

    /// The norm of each head called `ours` in layer `i`, if such models have it: of the model's kind, without a bias.
    fn head_norm(&mut self, ours: &str, i: usize) -> Result<Option<HeadNorm>, LoadError> {
        if !self.has(ours) {
            return Ok(None);
        }
        let weight = self.required_vector(ours, i, ".weight")?;
        Ok(Some(HeadNorm { kind: self.config.norm_kind, weight, eps: self.config.norm_eps }))
    }

    /// The matrix `ours` of layer `i`, packed.
    fn required_matrix(&mut self, ours: &str, i: impl Into<Place>) -> Result<Weight, LoadError> {
        let i = i.into();
        Ok(match self.matrix(ours, i)? {
            Some(weight) => weight,
            None => self.absent(self.row(ours), i),
        })
    }

    /// The matrix `ours` of layer `i`, packed; `None` if the file has none.
    fn matrix(&mut self, ours: &str, i: impl Into<Place>) -> Result<Option<Weight>, LoadError> {
        let i = i.into();
        let row = self.row(ours);
        let extents = row.extents(self.config, i);
        let transposed = row.is_transposed() && !self.speaks_gguf();
        let in_file = if transposed { vec![extents[1], extents[0]] } else { extents.clone() };
        if let Some(weight) = self.four_bit(row, i, &extents)? {
            return Ok(Some(weight));
        }
        let found = match self.take(row, i, ".weight", &in_file)? {
            Some(entry) => Some(Piece::whole(entry)),
            None => self.take_of_stack(row, i)?,
        };
        let Some(piece) = found else {
            let Some(drawn) = self.drawn(row, i, ".weight") else { return Ok(None) };
            let (replaced, trains) = self.adapted(row, i, ".weight", &extents)?;
            return self.unstored(row, i, replaced.unwrap_or(drawn), trains).map(Some);
        };
        let (entry, bytes) = (piece.entry, piece.bytes(self.checkpoint));
        let dtype = self.dtype_of(entry)?;
        if dtype == DType::F32 {
            self.check_finite(entry, bytes)?;
        }
        let ordered = self.order_in_file(row, i.layer).map(|order| row_order::in_order(bytes, &order));
        let bytes = ordered.as_deref().unwrap_or(bytes);
        let (replaced, trains) = self.adapted(row, i, ".weight", &extents)?;
        if replaced.is_some() || trains || (row.is_exact && dtype != DType::F32) {
            let mut values = vec![0.0; extents.iter().product()];
            match replaced {
                Some(replaced) => values = replaced,
                None if transposed => {
                    let size = dtype.block_bytes();
                    let bytes = transpose(bytes, size, in_file[0], in_file[1]);
                    quant::dequantize(dtype, &bytes, &mut values);
                }
                None => quant::dequantize(dtype, bytes, &mut values),
            }
            self.checkpoint.release(entry);
            return self.unstored(row, i, values, trains).map(Some);
        }
        let is_table = matches!(row.ours, "token_embd" | "position_embd" | "token_types")
            || row.ours.ends_with("attn_rel_b");
        // What looks at pictures stays as it is stored.
        let is_kept = is_table || row.is_exact || row.ours.starts_with("v.");
        let is_linear = !is_kept && row.ours != "output";
        if let Some(how) = self.quantize.filter(|_| is_linear) {
            let mut values = vec![0.0; extents.iter().product()];
            quant::dequantize(dtype, bytes, &mut values);
            if transposed {
                values = order::transposed(&values, in_file[0], in_file[1]);
            }
            self.checkpoint.release(entry);
            let matrix = FourBit::quantize(&values, extents[0], extents[1], how);
            self.n_bytes += matrix.n_bytes();
            return Ok(Some(Weight::Rows(Arc::new(matrix), self.precision)));
        }
        let mut rounded = Vec::new();
        let (dtype, bytes) = if self.in_bf16 && is_linear && dtype == DType::F32 {
            let mut values = vec![0.0; extents.iter().product()];
            quant::dequantize(dtype, bytes, &mut values);
            rounded.resize(2 * values.len(), 0);
            quant::quantize(DType::BF16, &values, None, &mut rounded);
            (DType::BF16, &rounded[..])
        } else {
            (dtype, bytes)
        };
        let packed = if transposed {
            if dtype.is_quantized() {
                return Err(LoadError::ElementType {
                    file: self.checkpoint.path().to_path_buf(),
                    name: entry.name.clone(),
                    got: dtype.to_string(),
                    expected: "f32, f16 or bf16 where they are stored [in, out]",
                });
            }
            Packed::pack(
                dtype,
                extents[0],
                extents[1],
                &transpose(bytes, dtype.block_bytes(), in_file[0], in_file[1]),
            )
        } else {
            Packed::pack(dtype, extents[0], extents[1], bytes)
        };
        self.checkpoint.release(entry);
        self.n_bytes += packed.n_bytes();
        Ok(Some(Weight::Packed(Arc::new(packed), self.precision)))
    }

    /// The matrix, if bitsandbytes has written it in four bits.
    fn four_bit(
        &mut self,
        row: &'static TensorName,
        i: Place,
        extents: &[usize],
    ) -> Result<Option<Weight>, LoadError> {
        let name = self.file_name(row, i, ".weight");
        let mut taken = Vec::new();
        let Some(matrix) = four_bit::read(self.checkpoint, &name, extents, &mut taken)? else {
            return Ok(None);
        };
        let matrix = matrix.in_order(self.order_in_file(row, i.layer));
        self.taken.extend(taken);
        self.n_parameters += extents.iter().product::<usize>();
        let (replaced, trains) = self.adapted(row, i, ".weight", extents)?;
        if replaced.is_none() && !trains {
            self.n_bytes += matrix.n_bytes();
            return Ok(Some(Weight::Rows(Arc::new(matrix), self.precision)));
        }
        let values = replaced.unwrap_or_else(|| {
            let mut values = vec![0.0; extents[0] * extents[1]];
            values.chunks_exact_mut(extents[1]).enumerate().for_each(|(i, row)| matrix.read(i, row));
            values
        });
        self.unstored(row, i, values, trains).map(Some)
    }

    /// A matrix of values that are not the file's, or that train.
    fn unstored(
        &mut self,
        row: &'static TensorName,
        i: Place,
        values: Vec<f32>,
        trains: bool,
    ) -> Result<Weight, LoadError> {
        let extents = row.extents(self.config, i);
        self.n_bytes += values.len() * size_of::<f32>();
        if trains {
            return Ok(Weight::Trained(self.parameter(row, i, ".weight", &extents, values)?));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let packed = Packed::pack(DType::F32, extents[0], extents[1], &bytes);
        Ok(Weight::Packed(Arc::new(packed), self.precision))
    }

    /// The first values of a tensor that a new head needs and the file does not have: a matrix from N(0, 0.02), norms 1, biases 0.
    /// Source: BERT's `run_classifier.py`.
    fn drawn(&mut self, row: &'static TensorName, i: Place, suffix: &str) -> Option<Vec<f32>> {
        let seed = self.head_seed.filter(|_| !row.tasks.is_empty() && row.ours != "output")?;
        let extents = row.extents(self.config, i);
        let values = match (suffix, extents.len()) {
            (".bias", _) if row.is_biased(self.config) => vec![0.0; extents[0]],
            (".bias", _) => return None,
            (_, 1) => vec![1.0; extents[0]],
            _ => {
                let name = self.known_name(row, i, suffix);
                let deviation = row.spread.deviation(&extents, self.config, 0.02, 1.0);
                crate::adapters::normal(seed, &name, extents.iter().product(), deviation)
            }
        };
        self.n_parameters += values.len();
        Some(values)
    }

    fn check_finite(&self, entry: &TensorEntry, bytes: &[u8]) -> Result<(), LoadError> {
        let is_broken =
            |b: &[u8]| (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7f80_0000) == 0x7f80_0000;
        match bytes.chunks_exact(4).position(is_broken) {
            Some(element) => {
                let file = self.checkpoint.path().to_path_buf();
                Err(LoadError::NotFinite { file, name: entry.name.clone(), element })
            }
            None => Ok(()),
        }
    }

    /// The linear layers `ours` of layer `i`, which share their input. Biases are taken where the file has them: all or none.
    pub fn linear(&mut self, ours: &[&str], i: impl Into<Place>) -> Result<Linear, LoadError> {
        let i = i.into();
        let mut weights: Vec<Weight> = Vec::with_capacity(ours.len());
        let (mut biases, mut hooks) = (Vec::new(), Vec::new());
        for &name in ours {
            let weight = self.required_matrix(name, i)?;
            let bias = self.vector(name, i, ".bias")?;
            let start = weights.iter().map(Weight::n_out).sum();
            hooks.extend(self.hooks(name, i, start, &weight, bias.as_ref())?);
            match bias {
                Some(values) if biases.len() == weights.len() => biases.push(values),
                None if biases.is_empty() => {}
                // Some of them have a bias and others not.
                _ => {
                    let lacking = if biases.is_empty() { ours[0] } else { name };
                    let lacking = self.file_name(self.row(lacking), i, ".bias");
                    self.misfits.lacks(lacking);
                }
            }
            weights.push(weight);
        }
        Ok(Linear { weights, bias: join(biases), hooks, soft_cap: None })
    }

    /// What adapters do to the linear layer `ours` of layer `i`, whose outputs begin at column `start`.
    fn hooks(
        &mut self,
        ours: &str,
        i: impl Into<Place>,
        start: usize,
        weight: &Weight,
        bias: Option<&Vector>,
    ) -> Result<Vec<Attached>, LoadError> {
        let mut hooks = Vec::new();
        let shape = [weight.n_out(), weight.n_in()];
        self.for_each_adapter(self.row(ours), i, ".weight", &shape, |adapter, kind, site| {
            hooks.extend(kind.linear(site, weight, bias)?.map(|hook| Attached { adapter, start, hook }));
            Ok(())
        })?;
        Ok(hooks)
    }

    /// The recurrent layer `i` with weights from inputs and from the step before. No adapter changes it but those that train it.
    pub fn lstm(&mut self, inputs: &str, step: &str, i: usize) -> Result<Lstm, LoadError> {
        let mut weight = |ours: &str| {
            let weight = self.required_matrix(ours, i)?;
            Ok::<_, LoadError>((weight, self.required_vector(ours, i, ".bias")?))
        };
        let ((w_ih, b_ih), (w_hh, b_hh)) = (weight(inputs)?, weight(step)?);
        Ok(Lstm { w_ih, w_hh, b_ih, b_hh })
    }

    /// The table of embeddings.
    pub fn embedding(&mut self, ours: &str) -> Result<Embedding, LoadError> {
        let weight = self.required_matrix(ours, 0)?;
        let mut hooks = Vec::new();
        let shape = [weight.n_out(), weight.n_in()];
        self.for_each_adapter(self.row(ours), 0, ".weight", &shape, |adapter, kind, site| {
            hooks.extend(kind.embedding(site, &weight)?.map(|hook| (adapter, hook)));
            Ok(())
        })?;
        Ok(Embedding { weight, hooks })
    }

    /// The output layer of the model's head; over the vocabulary it is `embedding` again if the file holds none and the
    /// model may tie them. Without a head it changes nothing.
    pub fn output(&mut self, embedding: &Embedding) -> Result<Linear, LoadError> {
        match self.config.head.task {
            Task::Vocabulary => {}
            Task::Hidden | Task::Pooled => return Ok(Linear::identity()),
            _ => return self.linear(&["cls.output"], 0),
        }
        let ours = "output";
        let row = self.row(ours);
        if self.checkpoint.find(&self.file_name(row, 0, ".weight")).is_some() {
            return self.linear(&[ours], 0);
        }
        // GGUF leaves the output layer out exactly when it is tied.
        if self.config.tied || self.speaks_gguf() {
            let weight = self.untied(row, embedding)?;
            let hooks = self.hooks(ours, 0, 0, &weight, None)?;
            return Ok(Linear { hooks, ..Linear::of(weight) });
        }
        let weight = self.absent(row, 0.into());
        Ok(Linear::of(weight))
    }

    /// The weight of a tied output layer: the embedding, or a tensor of its own where an adapter has or trains one, or
    /// has changed the embedding alone.
    fn untied(&mut self, row: &'static TensorName, embedding: &Embedding) -> Result<Weight, LoadError> {
        let shape = [embedding.weight.n_out(), embedding.weight.n_in()];
        let (mut values, mut trains, mut is_apart) = (None, false, false);
        let embedding_row = self.row("token_embd");
        self.for_each_adapter(embedding_row, 0, ".weight", &shape, |_, adapter, site| {
            is_apart |= adapter.unties() && (adapter.trains(site) || adapter.replaces(site)?.is_some());
            Ok(())
        })?;
        self.for_each_adapter(row, 0, ".weight", &shape, |_, adapter, site| {
            if adapter.unties() {
                trains |= adapter.trains(site);
                values = adapter.replaces(site)?.or(values.take());
            }
            Ok(())
        })?;
        if values.is_none() && !trains {
            // What stays of the file's table when an adapter has another embedding.
            let entry = self.checkpoint.find(&self.file_name(embedding_row, 0, ".weight"));
            let Some(entry) = entry.filter(|_| is_apart) else { return Ok(embedding.weight.clone()) };
            let packed =
                Packed::pack(self.dtype_of(entry)?, shape[0], shape[1], self.checkpoint.bytes(entry));
            self.n_bytes += packed.n_bytes();
            return Ok(Weight::Packed(Arc::new(packed), self.precision));
        }
        let values = values.unwrap_or_else(|| {
            let mut values = vec![0.0; shape[0] * shape[1]];
            let rows = values.chunks_exact_mut(shape[1]).enumerate();
            rows.for_each(|(i, row)| embedding.weight.row(i, row));
            values
        });
        self.n_bytes += values.len() * size_of::<f32>();
        self.n_parameters += values.len();
        if trains {
            return Ok(Weight::Trained(self.parameter(row, 0, ".weight", &shape, values)?));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(Weight::Packed(Arc::new(Packed::pack(DType::F32, shape[0], shape[1], &bytes)), self.precision))
    }

    /// Attention of layer `i` to the source, with the tensors `q`, `kv` (keys and values) and `output`.
    pub fn cross_attention(
        &mut self,
        q: &str,
        kv: &[&str],
        output: &str,
        i: usize,
    ) -> Result<CrossAttention, LoadError> {
        Ok(CrossAttention {
            q: self.linear(&[q], i)?,
            kv: self.linear(kv, i)?,
            output: self.linear(&[output], i)?,
            n_heads: self.config.n_heads,
            n_kv_heads: self.config.kv_heads_of(i),
            head_dim: self.config.head_dim,
            scale: self.config.attention_scale_of(i),
            precision: self.precision,
        })
    }

    /// Attention of layer `i` with the tensors `qkv` (fused, or query, key and value) and `output`.
    pub fn attention(&mut self, qkv: &[&str], output: &str, i: usize) -> Result<Attention, LoadError> {
        let qkv = self.linear(qkv, i)?;
        let stem = output.strip_suffix("output").unwrap_or(output);
        let (q_norm, k_norm) = (format!("{stem}q_norm"), format!("{stem}k_norm"));
        let (q_norm, k_norm) = (self.head_norm(&q_norm, i)?, self.head_norm(&k_norm, i)?);
        let output = self.linear(&[output], i)?;
        let rope = self.config.rope_of(i).map(|options| self.rope_table(options)).transpose()?;
        let config = self.config;
        let mut hooks = Vec::new();
        let is_interleaved = self.speaks_gguf()
            && config.rope.is_some()
            && self.family.tensors.iter().any(|row| matches!(row.stored, Stored::HeadRows));
        for (number, adapter) in self.adapters.iter_mut().enumerate() {
            let hook = adapter.attention(i, config, is_interleaved.then_some(config.head_dim))?;
            hooks.extend(hook.map(|hook| (number, hook)));
        }
        Ok(Attention {
            layer: i,
            qkv,
            output,
            n_heads: config.n_heads,
            n_kv_heads: config.kv_heads_of(i),
            head_dim: config.head_dim,
            scale: config.attention_scale_of(i),
            window: config.window_of(i),
            precision: self.precision,
            q_norm,
            k_norm,
            rope,
            scores: Scores {
                alibi: (!config.alibi_slopes.is_empty()).then(|| config.alibi_slopes.as_slice().into()),
                alibi_bf16: config.alibi_bf16,
                soft_cap: config.score_cap,
                ..Scores::default()
            },
            hooks,
        })
    }

    /// The table of rotations, made once for all layers with these; with GGUF's per-pair factors if the file has them.
    fn rope_table(&mut self, wanted: &RopeOptions) -> Result<Arc<RopeTable>, LoadError> {
        if let Some((_, table)) = self.rope_tables.iter().find(|(options, _)| options == wanted) {
            return Ok(table.clone());
        }
        let mut options = wanted.clone();
        let is_local = self.config.local_rope.as_ref() == Some(wanted);
        let has_factors = self.has("rope_freqs") && self.speaks_gguf() && !is_local;
        let factors = if has_factors { self.values_of("rope_freqs", 0, ".weight")? } else { None };
        if let Some(factors) = factors {
            options.scaling = RopeScaling::Factors(factors);
        }
        let table = Arc::new(RopeTable::new(options));
        self.rope_tables.push((wanted.clone(), table.clone()));
        Ok(table)
    }

    /// Whether a tensor belongs to a head that the model does not have.
    fn is_of_another_head(&self, name: &str) -> bool {
        let task = self.config.head.task;
        let others = self.family.tensors.iter().filter(|row| !row.belongs_to(task));
        let mut names = others.flat_map(|row| [".weight", ".bias"].map(|s| self.file_name(row, 0, s)));
        names.any(|other| other == name)
    }

    /// The whole numbers called `name` in a Hugging Face file, `len` of them; `None` if there are none.
    pub(crate) fn integers(&mut self, name: &str, len: usize) -> Result<Option<Vec<i64>>, LoadError> {
        let Some(entry) = self.checkpoint.find(name) else { return Ok(None) };
        self.taken.insert(entry.name.clone());
        if entry.shape != [len] {
            let (name, got) = (entry.name.clone(), entry.shape.clone());
            self.misfits.misshapen.push(Misshapen { name, got, expected: vec![len], letters: "n" });
            return Ok(None);
        }
        if entry.dtype != ElementType::Other("i64") {
            return Err(LoadError::ElementType {
                file: self.checkpoint.path().to_path_buf(),
                name: entry.name.clone(),
                got: entry.dtype.to_string(),
                expected: "i64",
            });
        }
        let (numbers, _) = self.checkpoint.bytes(entry).as_chunks::<8>();
        Ok(Some(numbers.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()))
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

/// Biases of layers that share their input, side by side in one vector if none of them trains.
pub(crate) fn join(biases: Vec<Vector>) -> Vec<Vector> {
    if biases.len() < 2 || biases.iter().any(|bias| matches!(bias, Vector::Trained(_))) {
        return biases;
    }
    let values: Vec<f32> = biases.iter().flat_map(|bias| bias.with(<[f32]>::to_vec)).collect();
    let len = values.len();
    vec![Vector::Fixed(Tensor::from_vec(values, [len]))]
}

/// `[n_rows, n_columns]` elements of `size` bytes → `[n_columns, n_rows]`
pub(crate) fn transpose(bytes: &[u8], size: usize, n_rows: usize, n_columns: usize) -> Vec<u8> {
    let mut out = vec![0; bytes.len()];
    for row in 0..n_rows {
        for column in 0..n_columns {
            let (from, to) = ((row * n_columns + column) * size, (column * n_rows + row) * size);
            out[to..to + size].copy_from_slice(&bytes[from..from + size]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_swaps_rows_and_columns() {
        assert_eq!(transpose(&[1, 2, 3, 4, 5, 6], 1, 2, 3), [1, 4, 2, 5, 3, 6]);
        assert_eq!(transpose(&[1, 1, 2, 2], 2, 1, 2), [1, 1, 2, 2]);
    }
}
