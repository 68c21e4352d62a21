//! Merging: adapters become part of the weights, so that the model needs them no more; and the way back.
//!
//! Adapters are attached to a model of the same base first ([`crate::Model::load_adapted`]), freshly read or just
//! trained. Sums are computed in `f32` and rounded once. A quantized base is decoded, changed and quantized again, and
//! the largest difference that makes is reported. Source: LoRA, arXiv:2106.09685, §4.1, "No Additional Inference Latency".

use rhetor_formats::{Checkpoint, ElementType, Kind, TensorToWrite, gguf, safetensors};
use rhetor_kernels::{DType, quant};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::{Adapter, AdapterError, Site, order};
use crate::config::ModelConfig;
use crate::convert::{self, ConvertError};
use crate::families::Family;
use crate::load::LoadError;
use crate::model::Model;
use crate::names::TensorName;
use crate::places::{Piece, Place};
use crate::row_order;

/// Why a merge fails.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// An adapter cannot be merged.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The base cannot be read or the new model not be written.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The base is of another kind than the file that is asked for.
    #[error("{}: a merge into {expected} needs a base of that kind: convert it first", file.display())]
    Kind {
        /// The base.
        file: std::path::PathBuf,
        /// What the new model would be.
        expected: &'static str,
    },
    /// A layer would get a bias that its family has no place for.
    #[error("`{name}` has no bias in the base, and the adapter adds one")]
    NewBias {
        /// The layer.
        name: String,
    },
}

impl From<LoadError> for MergeError {
    fn from(error: LoadError) -> MergeError {
        MergeError::Convert(error.into())
    }
}

impl From<rhetor_formats::Error> for MergeError {
    fn from(error: rhetor_formats::Error) -> MergeError {
        MergeError::Convert(error.into())
    }
}

/// What a merge did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    /// Tensors that adapters changed.
    pub n_changed: usize,
    /// The largest difference between a changed element and what is stored of it.
    pub error_max: f32,
    /// The tensor that has it.
    pub error_of: String,
}

/// One tensor of the new file.
struct Planned {
    row: &'static TensorName,
    /// What it is made of: one matrix, or those of all experts. Rows of the table, and their places.
    parts: Vec<(&'static TensorName, Place)>,
    suffix: &'static str,
    /// Its name in the base; for a new output layer, the embedding's.
    source: String,
    /// `[out, in]` or `[n]` of each part, as adapters meet it.
    shape: Vec<usize>,
    to: TensorToWrite,
    dtype: DType,
    /// The tied output layer that gets a tensor of its own.
    is_untied: bool,
}

struct Merge<'a> {
    base: &'a Checkpoint,
    family: &'static Family,
    config: ModelConfig,
    adapters: &'a mut [Box<dyn Adapter>],
    speaks_gguf: bool,
}

/// Writes `base` with `adapters` merged to the directory `dir`, weights stored as `dtype` (a dense type), with the files
/// of the tokenizer and the configuration of a Hugging Face base.
pub fn to_hugging_face(
    base: &Checkpoint,
    adapters: &mut [Box<dyn Adapter>],
    dir: &Path,
    dtype: DType,
) -> Result<Merged, MergeError> {
    let speaks_gguf = matches!(base.kind(), Kind::Gguf | Kind::Llama2C);
    if speaks_gguf || base.kind() == Kind::Onnx || dtype.is_quantized() {
        return Err(MergeError::Kind {
            file: base.path().to_path_buf(),
            expected: "a Hugging Face directory",
        });
    }
    let mut merge = Merge::new(base, adapters, speaks_gguf)?;
    let planned = merge.plan(|_| dtype)?;
    convert::copy_files(base, dir)?;
    let to_write: Vec<TensorToWrite> = planned.iter().map(|plan| plan.to.clone()).collect();
    let mut merged = Merged::default();
    safetensors::write(&dir.join("model.safetensors"), &[("format", "pt")], &to_write, |i, out| {
        merge.write(&planned[i], &mut merged, out)
    })?;
    let mut config = convert::own_config(base, dtype)?;
    if planned.iter().any(|plan| plan.is_untied) {
        config["tie_word_embeddings"] = false.into();
    }
    convert::set_rope(&mut config, &merge.config, base)?;
    let text = serde_json::to_string_pretty(&config).expect("a JSON value can be written") + "\n";
    rhetor_formats::write_bytes(&dir.join("config.json"), text.as_bytes())?;
    Ok(merged)
}

/// Writes the GGUF file `base` with `adapters` merged to the GGUF file `path`; every tensor keeps its stored type.
pub fn to_gguf(
    base: &Checkpoint,
    adapters: &mut [Box<dyn Adapter>],
    path: &Path,
) -> Result<Merged, MergeError> {
    if base.kind() != Kind::Gguf {
        return Err(MergeError::Kind { file: base.path().to_path_buf(), expected: "a GGUF file" });
    }
    let mut merge = Merge::new(base, adapters, true)?;
    let planned = merge.plan(|dtype| dtype)?;
    let mut metadata = base.metadata().clone();
    convert::set_gguf_rope(&mut metadata, &merge.config, merge.family, base)?;
    let to_write: Vec<TensorToWrite> = planned.iter().map(|plan| plan.to.clone()).collect();
    let mut merged = Merged::default();
    gguf::write(path, &metadata, &to_write, |i, out| merge.write(&planned[i], &mut merged, out))?;
    Ok(merged)
}

impl<'a> Merge<'a> {
    fn new(
        base: &'a Checkpoint,
        adapters: &'a mut [Box<dyn Adapter>],
        speaks_gguf: bool,
    ) -> Result<Merge<'a>, MergeError> {
        let mut config = Model::config_of(base)?;
        for adapter in adapters.iter_mut() {
            adapter.check_mergeable()?;
            adapter.prepare(&mut config)?;
        }
        Ok(Merge { base, family: Family::of(base)?, config, adapters, speaks_gguf })
    }

    /// Every tensor of the base, stored as `dtype_of` its type; and an output layer where adapters part it from the
    /// embedding.
    fn plan(&mut self, dtype_of: impl Fn(DType) -> DType) -> Result<Vec<Planned>, MergeError> {
        let has_prefix = self.base.tensors().iter().any(|tensor| tensor.name.starts_with(self.family.prefix));
        let prefix = if has_prefix { self.family.prefix } else { "" };
        let mut planned = Vec::new();
        for row in self.family.tensors {
            for place in row.places(&self.config) {
                for suffix in [".weight", ".bias"] {
                    let name = if self.speaks_gguf {
                        row.gguf_name(place, suffix)
                    } else {
                        row.hugging_face_name(prefix, place, suffix)
                    };
                    let is_untied =
                        row.ours == "output" && suffix == ".weight" && self.base.find(&name).is_none();
                    let mut source = name.clone();
                    if is_untied {
                        let embedding = self.family.tensors.iter().find(|row| row.ours == "token_embd");
                        let Some(embedding) = embedding.filter(|_| self.parts_output(row)) else { continue };
                        source = if self.speaks_gguf {
                            embedding.gguf_name(0, suffix)
                        } else {
                            embedding.hugging_face_name(prefix, 0, suffix)
                        };
                    }
                    let mut parts = vec![(row, place)];
                    let mut n_parts = 1;
                    if !is_untied
                        && let Some(piece) = row.find(
                            self.family,
                            self.base,
                            (!self.speaks_gguf).then_some(prefix),
                            place,
                            suffix,
                            &self.config,
                        )
                        && piece.n_parts > 1
                    {
                        // Planned with the first of its parts.
                        source = piece.entry.name.clone();
                        n_parts = piece.n_parts;
                        parts = self.parts_of(&source, prefix, place.layer);
                        if parts[0].1 != place || parts[0].0.ours != row.ours {
                            continue;
                        }
                    }
                    let Some(entry) = self.family.find(self.base, &source) else { continue };
                    let source = entry.name.clone();
                    let name = if n_parts > 1 { source.clone() } else { name };
                    let stored = entry.dtype.known().ok_or_else(|| LoadError::ElementType {
                        file: self.base.path().to_path_buf(),
                        name: entry.name.clone(),
                        got: entry.dtype.to_string(),
                        expected: "f32, f16, bf16 or a quantized type",
                    })?;
                    let dtype = dtype_of(stored);
                    let mut shape = Piece { entry, part: 0, n_parts }.shape();
                    if self.is_turned(row) && shape.len() == 2 {
                        shape.reverse();
                    }
                    let to =
                        TensorToWrite { name, dtype: ElementType::Known(dtype), shape: entry.shape.clone() };
                    planned.push(Planned { row, parts, suffix, source, shape, to, dtype, is_untied });
                }
            }
        }
        Ok(planned)
    }

    /// The matrices that stand in a stack of the base, in their order.
    fn parts_of(&self, stack: &str, prefix: &str, layer: usize) -> Vec<(&'static TensorName, Place)> {
        let mut parts = Vec::new();
        for row in self.family.tensors.iter().filter(|row| !row.stacks.is_empty()) {
            for place in row.places(&self.config).filter(|place| place.layer == layer) {
                let all = row.stacks_in(self.speaks_gguf, place, &self.config);
                let own = all.filter(|(own, _, _)| own.name_in(prefix, layer) == stack);
                parts.extend(own.map(|(_, _, (part, _))| (part, row, place)));
            }
        }
        parts.sort_by_key(|&(part, _, _)| part);
        parts.into_iter().map(|(_, row, place)| (row, place)).collect()
    }

    /// Whether this base stores the weight as `[in, out]`.
    fn is_turned(&self, row: &TensorName) -> bool {
        row.is_transposed() && !self.speaks_gguf
    }

    /// What is added to a value that this base stores, to get ours.
    fn offset(&self, plan: &Planned) -> f32 {
        if self.speaks_gguf { 0.0 } else { plan.row.offset(plan.suffix) }
    }

    /// Whether a tied output layer is no longer the embedding.
    fn parts_output(&mut self, output: &'static TensorName) -> bool {
        let embedding = self.family.tensors.iter().find(|row| row.ours == "token_embd");
        let name = |row: &TensorName| row.hugging_face_name(self.family.prefix, 0, "");
        let (output_name, embedding_name) = (name(output), embedding.map(name).unwrap_or_default());
        self.adapters.iter().any(|adapter| {
            adapter.attached(&output_name).is_some()
                || adapter.attached_embedding(&embedding_name).is_some()
                || adapter.unties()
        })
    }

    /// The merged elements, as adapters meet them, and whether there was anything to merge.
    fn values(&mut self, plan: &Planned) -> Result<(Vec<f32>, bool), MergeError> {
        let entry = self.base.find(&plan.source).expect("planned from it");
        let dtype = entry.dtype.known().expect("checked by the plan");
        let mut values = vec![0.0; entry.shape.iter().product()];
        quant::dequantize(dtype, self.base.bytes(entry), &mut values);
        self.base.release(entry);
        if self.is_turned(plan.row) && entry.shape.len() == 2 {
            values = order::transposed(&values, entry.shape[0], entry.shape[1]);
        }
        if let [(row, place)] = plan.parts[..] {
            return self.part_values(plan, row, place, values);
        }
        let len = values.len() / plan.parts.len();
        let (mut all, mut is_changed) = (Vec::with_capacity(values.len()), false);
        for (&(row, place), part) in plan.parts.iter().zip(values.chunks_exact(len)) {
            let (values, is_other) = self.part_values(plan, row, place, part.to_vec())?;
            all.extend(values);
            is_changed |= is_other;
        }
        Ok((all, is_changed))
    }

    /// What adapters make of one matrix, and whether there was anything to merge.
    fn part_values(
        &mut self,
        plan: &Planned,
        row: &'static TensorName,
        place: Place,
        mut values: Vec<f32>,
    ) -> Result<(Vec<f32>, bool), MergeError> {
        let name = row.hugging_face_name(self.family.prefix, place, "");
        let order = row.order(&self.config, place.layer, self.speaks_gguf);
        if let Some(order) = order.as_ref().filter(|_| !self.speaks_gguf) {
            values = row_order::in_order(&values, order);
        }
        let site = Site {
            ours: row.ours,
            name: &name,
            suffix: plan.suffix,
            layer: place.layer,
            shape: &plan.shape,
            is_transposed: plan.row.is_transposed(),
            order: order.map(Arc::from),
            offset: plan.row.offset(plan.suffix),
            config: &self.config,
        };
        let (has_bias, offset) = (self.has_bias(plan), self.offset(plan));
        let mut is_changed = false;
        for adapter in self.adapters.iter_mut() {
            if (!plan.is_untied || adapter.unties())
                && let Some(replaced) = adapter.replaces(&site)?
            {
                (values, is_changed) = (replaced, true);
                values.iter_mut().for_each(|value| *value -= offset);
            }
            if let Some(hook) = adapter.attached(&name) {
                let (mut weight, mut bias) = (Vec::new(), Vec::new());
                if plan.suffix == ".bias" {
                    std::mem::swap(&mut bias, &mut values);
                    hook.merge_bias(&mut bias);
                    values = bias;
                } else {
                    std::mem::swap(&mut weight, &mut values);
                    hook.merge(&mut weight);
                    values = weight;
                    if hook.adds_bias() && !has_bias {
                        return Err(MergeError::NewBias { name });
                    }
                }
                is_changed = true;
            }
            if let Some(hook) = adapter.attached_embedding(&name) {
                hook.merge(&mut values);
                is_changed = true;
            }
        }
        Ok((values, is_changed))
    }

    fn has_bias(&self, plan: &Planned) -> bool {
        let bias = plan.source.strip_suffix(".weight").map(|name| format!("{name}.bias"));
        bias.is_some_and(|bias| self.base.find(&bias).is_some())
    }

    /// Writes one tensor as it is stored.
    fn write(&mut self, plan: &Planned, merged: &mut Merged, out: &mut dyn Write) -> io::Result<()> {
        let (mut values, is_changed) = self.values(plan).map_err(io::Error::other)?;
        if self.is_turned(plan.row) && plan.shape.len() == 2 {
            values = order::transposed(&values, plan.shape[0], plan.shape[1]);
        }
        if let Some(order) =
            plan.row.order(&self.config, plan.parts[0].1.layer, false).filter(|_| !self.speaks_gguf)
        {
            values = row_order::in_order(&values, &row_order::inverse(&order));
        }
        let entry = self.base.find(&plan.source).expect("planned from it");
        if !is_changed && entry.dtype.known() == Some(plan.dtype) {
            return out.write_all(self.base.bytes(entry));
        }
        let mut bytes = vec![0; plan.dtype.bytes_of(values.len()).unwrap_or(0)];
        quant::quantize(plan.dtype, &values, None, &mut bytes);
        if is_changed {
            merged.n_changed += 1;
            let mut stored = vec![0.0; values.len()];
            quant::dequantize(plan.dtype, &bytes, &mut stored);
            let error = values.iter().zip(&stored).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            if error > merged.error_max {
                (merged.error_max, merged.error_of) = (error, plan.to.name.clone());
            }
        }
        out.write_all(&bytes)
    }
}

/// Takes an attached adapter out of weights that it was merged into. weight: [out, in], in the order of `site`'s base
///
/// Only LoRA and IA³ can be taken out; DoRA has forgotten the length of the rows. Rounding stays.
pub fn unmerge(adapter: &dyn Adapter, name: &str, weight: &mut [f32]) -> Result<(), AdapterError> {
    match adapter.attached(name) {
        Some(hook) if !hook.unmerge(weight) => Err(AdapterError::NotMergeable {
            method: adapter.about().name,
            reason: "what it did to the weights cannot be undone",
        }),
        _ => Ok(()),
    }
}
