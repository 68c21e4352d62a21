//! From a checkpoint's tensors to packed weights: every name and shape is checked here, so that mathematics needs no `?`.

use rhetor_formats::{Checkpoint, ElementType, Kind, TensorEntry};
use rhetor_kernels::DType;
use rhetor_kernels::matmul::Packed;
use rhetor_kernels::quant;
use rhetor_kernels::rope::{RopeScaling, RopeTable};
use rhetor_tensor::{Tensor, Weight};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::ModelConfig;
use crate::families::Family;
use crate::layers::{Attention, Embedding, LayerNorm, Linear, RmsNorm};
use crate::names::{Stored, TensorName};

/// Why a checkpoint cannot become a model.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself is broken or a key has the wrong type.
    #[error(transparent)]
    Format(#[from] rhetor_formats::Error),
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
    #[error("{}: the file names no architecture (`general.architecture` in GGUF, `architectures` or `model_type` in config.json)", file.display())]
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
    /// More positions asked for than the model was made for.
    #[error("a context of {asked} tokens was asked for; the model was made for 1 to {trained}")]
    ContextTooLong {
        /// What was asked for.
        asked: usize,
        /// What the file says.
        trained: usize,
    },
    /// A tensor that the architecture needs is absent.
    #[error("{}: tensor `{name}` is missing", file.display())]
    MissingTensor {
        /// The file or directory.
        file: PathBuf,
        /// The tensor's name in this kind of file.
        name: String,
    },
    /// A tensor's shape contradicts the sizes in the file's keys.
    #[error("{}: tensor `{name}` has shape {got:?}; {family} with these sizes expects {expected:?} ({letters})", file.display())]
    Shape {
        /// The file or directory.
        file: PathBuf,
        /// The tensor's name in this kind of file.
        name: String,
        /// The family.
        family: &'static str,
        /// What the file holds.
        got: Vec<usize>,
        /// What the keys say.
        expected: Vec<usize>,
        /// The expected shape in letters.
        letters: &'static str,
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
    /// A tensor that this architecture does not have.
    #[error("{}: tensor `{name}` is not known to {family}: running without it would give wrong answers", file.display())]
    UnexpectedTensor {
        /// The file or directory.
        file: PathBuf,
        /// The tensor's name in this kind of file.
        name: String,
        /// The family.
        family: &'static str,
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
const LEGACY_BUFFERS: &[&str] =
    &[".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"];

/// Hands out a checkpoint's tensors by our names, checked, and keeps account of which were taken.
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    family: &'static Family,
    /// The sizes that shapes are checked against.
    pub config: &'a ModelConfig,
    /// `model.` or empty: Hugging Face files may leave it out.
    prefix: &'static str,
    taken: HashSet<String>,
    n_parameters: usize,
    n_bytes: usize,
    rope_table: Option<Arc<RopeTable>>,
}

impl<'a> Weights<'a> {
    /// The tensors of `checkpoint`, read by the names of `family`.
    pub fn new(
        checkpoint: &'a Checkpoint,
        family: &'static Family,
        config: &'a ModelConfig,
    ) -> Result<Weights<'a>, LoadError> {
        let has_prefix = checkpoint.tensors().iter().any(|tensor| tensor.name.starts_with(family.prefix));
        let prefix = if has_prefix { family.prefix } else { "" };
        Ok(Weights {
            checkpoint,
            family,
            config,
            prefix,
            taken: HashSet::new(),
            n_parameters: 0,
            n_bytes: 0,
            rope_table: None,
        })
    }

    fn speaks_gguf(&self) -> bool {
        matches!(self.checkpoint.kind(), Kind::Gguf | Kind::Llama2C)
    }

    fn row(&self, ours: &str) -> &'static TensorName {
        let row = self.family.tensors.iter().find(|row| row.ours == ours);
        row.unwrap_or_else(|| panic!("`{ours}` is not in the table of {}", self.family.about.name))
    }

    /// The name in this file of our tensor `ours` in layer `i`.
    fn file_name(&self, row: &TensorName, i: usize, suffix: &str) -> String {
        if self.speaks_gguf() {
            row.gguf_name(i, suffix)
        } else {
            row.hugging_face_name(self.prefix, i, suffix)
        }
    }

    /// Finds a tensor, checks its shape, and counts it as taken.
    fn take(
        &mut self,
        row: &'static TensorName,
        i: usize,
        suffix: &str,
        expected: &[usize],
    ) -> Result<Option<&'a TensorEntry>, LoadError> {
        let name = self.file_name(row, i, suffix);
        let Some(entry) = self.checkpoint.find(&name) else { return Ok(None) };
        if entry.shape != expected {
            return Err(LoadError::Shape {
                file: self.checkpoint.path().to_path_buf(),
                name,
                family: self.family.about.name,
                got: entry.shape.clone(),
                expected: expected.to_vec(),
                letters: row.shape,
            });
        }
        self.n_parameters += expected.iter().product::<usize>();
        self.taken.insert(name);
        Ok(Some(entry))
    }

    fn missing(&self, row: &TensorName, i: usize, suffix: &str) -> LoadError {
        LoadError::MissingTensor {
            file: self.checkpoint.path().to_path_buf(),
            name: self.file_name(row, i, suffix),
        }
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

    /// The vector `ours` with suffix `.weight` or `.bias`; the first extent of the row's shape is its length.
    fn vector(&mut self, ours: &str, i: usize, suffix: &str) -> Result<Option<Vec<f32>>, LoadError> {
        let row = self.row(ours);
        let len = row.extents(self.config)[0];
        let Some(entry) = self.take(row, i, suffix, &[len])? else { return Ok(None) };
        self.values(entry).map(Some)
    }

    fn required_vector(&mut self, ours: &str, i: usize, suffix: &str) -> Result<Tensor, LoadError> {
        match self.vector(ours, i, suffix)? {
            Some(values) => {
                let len = values.len();
                Ok(Tensor::from_vec(values, [len]))
            }
            None => Err(self.missing(self.row(ours), i, suffix)),
        }
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

    /// The matrix `ours` of layer `i`, packed; `None` if the file has none.
    fn matrix(&mut self, ours: &str, i: usize) -> Result<Option<Weight>, LoadError> {
        let row = self.row(ours);
        let extents = row.extents(self.config);
        let transposed = row.stored == Stored::Transposed && !self.speaks_gguf();
        let in_file = if transposed { vec![extents[1], extents[0]] } else { extents.clone() };
        let Some(entry) = self.take(row, i, ".weight", &in_file)? else { return Ok(None) };
        let dtype = self.dtype_of(entry)?;
        let bytes = self.checkpoint.bytes(entry);
        if dtype == DType::F32 {
            self.check_finite(entry, bytes)?;
        }
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
        Ok(Some(Weight::from(packed)))
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
    pub fn linear(&mut self, ours: &[&str], i: usize) -> Result<Linear, LoadError> {
        let mut weights = Vec::with_capacity(ours.len());
        let mut bias = Vec::new();
        for &name in ours {
            let weight = self.matrix(name, i)?.ok_or_else(|| self.missing(self.row(name), i, ".weight"))?;
            let n_before: usize = weights.iter().map(Weight::n_out).sum();
            match self.vector(name, i, ".bias")? {
                Some(values) if bias.len() == n_before => bias.extend(values),
                None if bias.is_empty() => {}
                _ => return Err(self.missing(self.row(name), i, ".bias")),
            }
            weights.push(weight);
        }
        let len = bias.len();
        Ok(Linear { weights, bias: (len > 0).then(|| Tensor::from_vec(bias, [len])) })
    }

    /// The table of embeddings.
    pub fn embedding(&mut self, ours: &str) -> Result<Embedding, LoadError> {
        let weight = self.matrix(ours, 0)?.ok_or_else(|| self.missing(self.row(ours), 0, ".weight"))?;
        Ok(Embedding { weight })
    }

    /// The output layer `ours`, or `embedding` again if the file holds none and the model may tie them.
    pub fn output(&mut self, ours: &str, embedding: &Embedding) -> Result<Linear, LoadError> {
        let row = self.row(ours);
        if self.checkpoint.find(&self.file_name(row, 0, ".weight")).is_some() {
            return self.linear(&[ours], 0);
        }
        // GGUF leaves the output layer out exactly when it is tied.
        if self.config.tied || self.speaks_gguf() {
            return Ok(Linear { weights: vec![embedding.weight.clone()], bias: None });
        }
        Err(self.missing(row, 0, ".weight"))
    }

    /// Attention of layer `i` with the tensors `qkv` (fused, or query, key and value) and `output`.
    pub fn attention(&mut self, qkv: &[&str], output: &str, i: usize) -> Result<Attention, LoadError> {
        let qkv = self.linear(qkv, i)?;
        let output = self.linear(&[output], i)?;
        let rope = match &self.config.rope {
            Some(_) => Some(self.rope_table()?),
            None => None,
        };
        let config = self.config;
        Ok(Attention {
            qkv,
            output,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            scale: config.attention_scale_of(i),
            window: config.window,
            rope,
        })
    }

    /// The table of rotations, made once for all layers; with GGUF's per-pair factors if the file has them.
    fn rope_table(&mut self) -> Result<Arc<RopeTable>, LoadError> {
        if let Some(table) = &self.rope_table {
            return Ok(table.clone());
        }
        let mut options = self.config.rope.clone().expect("asked for only with rope");
        let has_factors =
            self.family.tensors.iter().any(|row| row.ours == "rope_freqs") && self.speaks_gguf();
        let factors = if has_factors { self.vector("rope_freqs", 0, ".weight")? } else { None };
        if let Some(factors) = factors {
            options.scaling = RopeScaling::Factors(factors);
        }
        let table = Arc::new(RopeTable::new(options));
        self.rope_table = Some(table.clone());
        Ok(table)
    }

    /// Ends the account: a tensor that nobody took is refused. Returns parameters and bytes in memory.
    pub fn finish(self) -> Result<(usize, usize), LoadError> {
        for tensor in self.checkpoint.tensors() {
            let is_legacy = LEGACY_BUFFERS.iter().any(|buffer| tensor.name.ends_with(buffer));
            if !is_legacy && !self.taken.contains(&tensor.name) {
                return Err(LoadError::UnexpectedTensor {
                    file: self.checkpoint.path().to_path_buf(),
                    name: tensor.name.clone(),
                    family: self.family.about.name,
                });
            }
        }
        Ok((self.n_parameters, self.n_bytes))
    }
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
