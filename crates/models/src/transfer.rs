//! Another vocabulary for a trained model: tokens that both have keep their rows, new ones begin with the mean row.
//!
//! Source: ULMFiT, arXiv:1801.06146, section 3.2, as fastai does it (`match_embeds`): of the embedding, the output layer
//! and its bias alike.

use rhetor_formats::{Checkpoint, ElementType, TensorToWrite, safetensors};
use rhetor_kernels::{DType, quant};
use std::path::Path;

use crate::families::Family;
use crate::load::LoadError;
use crate::model::Model;

/// Writes the model of `base`, a Hugging Face directory, to `dir` for another vocabulary, as `f32`: its token `i` has the row `rows[i]` of
/// the old one, or the mean of all rows.
///
/// Errors: a base that no family reads, a directory that cannot be written. Panics if a row is none of the old vocabulary.
#[track_caller]
pub fn write(base: &Checkpoint, rows: &[Option<u32>], dir: &Path) -> Result<(), LoadError> {
    let (family, config) = (Family::of(base)?, Model::config_of(base)?);
    let n_old = config.vocab_size;
    assert!(rows.iter().flatten().all(|&row| (row as usize) < n_old), "rows of a vocabulary of {n_old}");
    let of_vocabulary = |name: &str| {
        let mut own = family.tensors.iter().filter(|row| row.shape.starts_with('V'));
        own.any(|row| {
            [".weight", ".bias"].iter().any(|suffix| {
                let full = row.hugging_face_name(family.prefix, 0, suffix);
                full == name || full.strip_prefix(family.prefix) == Some(name)
            })
        })
    };
    let new_shape = |name: &str, shape: &[usize]| {
        let mut shape = shape.to_vec();
        if of_vocabulary(name) && shape.first() == Some(&n_old) {
            shape[0] = rows.len();
        }
        shape
    };
    let tensors = base.tensors();
    let to_write: Vec<TensorToWrite> = tensors
        .iter()
        .map(|entry| TensorToWrite {
            name: entry.name.clone(),
            dtype: ElementType::Known(DType::F32),
            shape: new_shape(&entry.name, &entry.shape),
        })
        .collect();
    for entry in tensors {
        if entry.dtype.known().is_none() {
            return Err(LoadError::ElementType {
                file: base.path().to_path_buf(),
                name: entry.name.clone(),
                got: entry.dtype.to_string(),
                expected: "f32, f16, bf16 or a quantized type",
            });
        }
    }
    std::fs::create_dir_all(dir).map_err(rhetor_formats::Error::create(dir))?;
    safetensors::write(&dir.join("model.safetensors"), &[("format", "pt")], &to_write, |i, out| {
        let entry = &tensors[i];
        let mut values = vec![0.0; entry.shape.iter().product()];
        quant::dequantize(entry.dtype.known().expect("checked above"), base.bytes(entry), &mut values);
        if to_write[i].shape != entry.shape
            || of_vocabulary(&entry.name) && entry.shape.first() == Some(&n_old)
        {
            values = moved(&values, n_old, rows);
        }
        values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
    })?;
    let mut settings = base.json("config.json")?.unwrap_or_else(|| serde_json::json!({}));
    settings["vocab_size"] = rows.len().into();
    let text = serde_json::to_string_pretty(&settings).expect("a JSON value can be written") + "\n";
    Ok(rhetor_formats::write_bytes(&dir.join("config.json"), text.as_bytes())?)
}

/// Rows of a table of `n_old` rows in a new order, the mean row where there is none.
fn moved(values: &[f32], n_old: usize, rows: &[Option<u32>]) -> Vec<f32> {
    let len = values.len() / n_old;
    let mut mean = vec![0f64; len];
    for row in values.chunks_exact(len) {
        mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    let mean: Vec<f32> = mean.iter().map(|sum| (sum / n_old as f64) as f32).collect();
    let row = |row: &Option<u32>| row.map_or(&mean[..], |row| &values[row as usize * len..][..len]);
    rows.iter().flat_map(row).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Batch, LoadOptions};

    #[test]
    fn a_new_token_has_the_mean_row() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0];
        assert_eq!(moved(&values, 3, &[Some(2), None, Some(0)]), [5.0, 9.0, 3.0, 5.0, 1.0, 2.0]);
        assert_eq!(moved(&[1.0, 2.0, 6.0], 3, &[None, Some(1)]), [3.0, 2.0]);
    }

    #[test]
    fn a_model_says_the_same_about_tokens_that_kept_their_rows() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/train");
        for case in ["llama", "llama_tied", "gpt2"] {
            let folder = tempfile::tempdir().unwrap();
            let base = Checkpoint::open(&fixtures.join(case)).unwrap();
            // Turned round, with two new tokens at the end.
            let rows: Vec<Option<u32>> = (0..48).rev().map(Some).chain([None, None]).collect();
            write(&base, &rows, folder.path()).unwrap();
            let old = Model::load(&base, LoadOptions::default()).unwrap();
            let new = Checkpoint::open(folder.path()).unwrap();
            let new = Model::load(&new, LoadOptions::default()).unwrap();
            assert_eq!(new.config().vocab_size, 50);
            let before = old.forward(&Batch::whole(&[1, 2, 3]), None);
            let after = new.forward(&Batch::whole(&[46, 45, 44]), None);
            for token in 0..48 {
                let (a, b) = (before.row(2)[token], after.row(2)[47 - token]);
                assert!((a - b).abs() < 1e-5, "{case}: {a} {b}");
            }
        }
    }
}
