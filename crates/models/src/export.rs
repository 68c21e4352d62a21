//! A trained model as a Hugging Face directory: `config.json` and `model.safetensors`.

use rhetor_formats::{Checkpoint, ElementType, TensorToWrite, safetensors};
use rhetor_kernels::{DType, quant};
use rhetor_tensor::Parameter;
use std::collections::HashMap;
use std::path::Path;

use crate::families::Family;
use crate::head::Labelled;
use crate::load::{LoadError, transpose};
use crate::model::Model;
use crate::row_order;

/// Writes the model of `base`, a Hugging Face directory, to `dir`: trained tensors from `values`, which gives them in the
/// order of `parameters`, the others as they are in the base; all as `dtype` (a dense type). What belongs to another head
/// than `labelled` is left out.
///
/// Errors: a base that cannot be read, a directory that cannot be written.
pub fn write(
    base: &Checkpoint,
    parameters: &[Parameter],
    values: &dyn Fn(usize) -> Vec<f32>,
    dtype: DType,
    labelled: &Labelled,
    dir: &Path,
) -> Result<(), LoadError> {
    assert!(!dtype.is_quantized(), "safetensors hold no {dtype}");
    let (family, config) = (Family::of(base)?, Model::config_of(base)?);
    let by_name: HashMap<&str, usize> =
        parameters.iter().enumerate().map(|(i, parameter)| (parameter.name(), i)).collect();
    let (mut to_write, mut origins) = (Vec::new(), Vec::new());
    let parts = config.parts.iter().map(|part| (part.root, Family::of_part(part), &part.config));
    for (i, (root, family, config)) in std::iter::once(("", family, &config)).chain(parts).enumerate() {
        let is_part = i > 0;
        let with_prefix = format!("{root}{}", family.prefix);
        let has_prefix = base.tensors().iter().any(|tensor| tensor.name.starts_with(&with_prefix));
        let prefix_in = format!("{root}|{}", if has_prefix { family.prefix } else { "" });
        let prefix = format!("{root}|{}", family.prefix);
        let task = if is_part { config.head.task } else { labelled.head.task };
        for row in family.tensors.iter().filter(|row| row.is_on(config) && row.belongs_to(task)) {
            for (i, suffix) in row.places(config).flat_map(|i| [(i, ".weight"), (i, ".bias")]) {
                if row.is_head() && suffix == ".bias" && !row.has_bias {
                    // What another head of the same name has is not this one's.
                    continue;
                }
                let entry = row.find(family, base, Some(&prefix_in), i, suffix, config);
                let known = row.hugging_face_name(&prefix, i, suffix);
                let trained = by_name.get(&*known).copied();
                // A part keeps the names that it has: they may say what it is.
                let name = match &entry {
                    Some(piece) if is_part => piece.entry.name.clone(),
                    _ => known,
                };
                if to_write.iter().any(|tensor: &TensorToWrite| tensor.name == name) {
                    continue;
                }
                let is_turned = row.is_transposed() && suffix == ".weight";
                let shape = match (trained, &entry) {
                    // The extents of a convolution are the file's.
                    (Some(_), Some(piece)) if row.is_folded => piece.entry.shape.clone(),
                    (Some(i), _) if is_turned => parameters[i].shape().iter().rev().copied().collect(),
                    (Some(i), _) => parameters[i].shape().to_vec(),
                    (None, Some(piece)) => piece.shape(),
                    (None, None) => continue,
                };
                to_write.push(TensorToWrite { name, dtype: ElementType::Known(dtype), shape });
                let order = row.order(config, i.layer, false).map(|order| row_order::inverse(&order));
                origins.push((trained, entry, is_turned, order, row.offset(suffix)));
            }
        }
    }
    let mut settings = base.json("config.json")?.unwrap_or_else(|| serde_json::json!({}));
    if labelled.head != config.head || !labelled.labels.is_empty() {
        labelled.write_to(family, &mut settings);
    }
    settings["torch_dtype"] = match dtype {
        DType::BF16 => "bfloat16".into(),
        DType::F16 => "float16".into(),
        _ => "float32".into(),
    };
    std::fs::create_dir_all(dir).map_err(rhetor_formats::Error::create(dir))?;
    safetensors::write(&dir.join("model.safetensors"), &[("format", "pt")], &to_write, |i, out| {
        let values = match &origins[i] {
            (Some(i), _, is_turned, order, offset) => {
                let (mut values, shape) = (values(*i), parameters[*i].shape());
                values.iter_mut().for_each(|value| *value -= offset);
                match order {
                    Some(order) => row_order::in_order(&values, order),
                    None if *is_turned => turn(&values, shape[0], shape[1]),
                    None => values,
                }
            }
            (None, Some(piece), ..) => {
                let mut values = vec![0.0; piece.shape().iter().product()];
                let stored = piece.entry.dtype.known().expect("the model was loaded from it");
                quant::dequantize(stored, piece.bytes(base), &mut values);
                values
            }
            (None, None, ..) => unreachable!("left out above"),
        };
        let mut bytes = vec![0; values.len() * dtype.block_bytes()];
        quant::quantize(dtype, &values, None, &mut bytes);
        out.write_all(&bytes)
    })?;
    let text = serde_json::to_string_pretty(&settings).expect("a JSON value can be written") + "\n";
    Ok(rhetor_formats::write_bytes(&dir.join("config.json"), text.as_bytes())?)
}

/// `[n_rows, n_columns] → [n_columns, n_rows]`
fn turn(values: &[f32], n_rows: usize, n_columns: usize) -> Vec<f32> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let turned = transpose(&bytes, 4, n_rows, n_columns);
    turned.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
