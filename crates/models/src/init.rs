//! New models: random weights for a `config.json`, written as the checkpoint that training starts from.
//!
//! Matrices are drawn from N(0, σ) with σ = `initializer_range`, or as the family's table says ([`Spread`]); norms begin at
//! 1, biases at 0. GPT-2 divides σ of the layers that write to the residual stream by √(2L) (Language Models are
//! Unsupervised Multitask Learners, §2.3).

use rhetor_formats::{Checkpoint, ElementType, TensorToWrite, safetensors};
use rhetor_kernels::DType;
use std::path::Path;

use crate::config::ModelConfig;
use crate::families::Family;
use crate::load::LoadError;
use crate::model::Model;
use crate::names::Spread;

/// Writes `model.safetensors` for the `config.json` in `dir`; the same seed gives the same bytes.
///
/// Errors: a config that no family reads, or that contradicts itself; a directory that cannot be written.
pub fn write(dir: &Path, seed: u64) -> Result<ModelConfig, LoadError> {
    let path = dir.join("model.safetensors");
    // A checkpoint without tensors, through which the keys are read like any others.
    safetensors::write(&path, &[("format", "pt")], &[], |_, _| Ok(()))?;
    let checkpoint = Checkpoint::open(dir)?;
    let family = Family::of(&checkpoint)?;
    let config = Model::config_of(&checkpoint)?;
    let sigma = checkpoint.metadata().get_f32("initializer_range")?.unwrap_or(0.02);
    let factor = checkpoint.metadata().get_f32("initializer_factor")?.unwrap_or(1.0);
    let mut tensors = tensors(family.prefix, family, &config, (sigma, factor));
    for part in &config.parts {
        let family = Family::of_part(part);
        let prefix = format!("{}|{}", part.root, family.prefix);
        tensors.extend(self::tensors(&prefix, family, &part.config, (sigma, factor)));
    }
    let to_write: Vec<TensorToWrite> = tensors.iter().map(|(tensor, _)| tensor.clone()).collect();
    drop(checkpoint);
    safetensors::write(&path, &[("format", "pt")], &to_write, |i, out| {
        let (tensor, draw) = &tensors[i];
        let mut normal = Normal::new(seed, i as u64);
        let n: usize = tensor.shape.iter().product();
        (0..n).try_for_each(|_| {
            let value = match draw {
                Draw::Constant(value) => *value,
                Draw::Normal(sigma) => normal.next() * sigma,
                Draw::Even(bound) => (2.0 * normal.uniform() as f32 - 1.0) * bound,
            };
            out.write_all(&value.to_le_bytes())
        })
    })?;
    Ok(config)
}

/// How a tensor begins.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Draw {
    Constant(f32),
    Normal(f32),
    /// Between −bound and bound.
    Even(f32),
}

/// Every tensor of a new model, or of a part of it, under its Hugging Face name.
fn tensors(
    prefix: &str,
    family: &'static Family,
    config: &ModelConfig,
    (sigma, factor): (f32, f32),
) -> Vec<(TensorToWrite, Draw)> {
    let mut tensors = Vec::new();
    for row in family.tensors.iter().filter(|row| row.is_new_in(config)) {
        for i in row.places(config) {
            let mut shape = row.extents(config, i);
            let is_vector = shape.len() == 1;
            if row.is_biased(config) {
                let name = row.hugging_face_name(prefix, i, ".bias");
                tensors.push((tensor(name, vec![shape[0]]), Draw::Constant(0.0)));
            }
            if row.is_only_bias() {
                continue;
            }
            let draw = if is_vector {
                Draw::Constant(1.0 - row.offset(".weight"))
            } else if row.is_residual {
                Draw::Normal(sigma / (2.0 * config.n_layers as f32).sqrt())
            } else {
                let deviation = row.spread.deviation(&shape, config, sigma, factor);
                match row.spread {
                    Spread::Xavier => Draw::Even(deviation * 3f32.sqrt()),
                    Spread::Given | Spread::Over(_) => Draw::Normal(deviation),
                }
            };
            if row.is_transposed() {
                shape.reverse();
            }
            tensors.push((tensor(row.hugging_face_name(prefix, i, ".weight"), shape), draw));
        }
    }
    tensors
}

fn tensor(name: String, shape: Vec<usize>) -> TensorToWrite {
    TensorToWrite { name, dtype: ElementType::Known(DType::F32), shape }
}

/// Numbers from N(0, 1): the stream `stream` of `seed`, by Box and Muller from SplitMix64.
pub(crate) struct Normal {
    state: u64,
    spare: Option<f64>,
}

impl Normal {
    pub(crate) fn new(seed: u64, stream: u64) -> Normal {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03);
        Normal { state, spare: None }
    }

    /// A number from 0 to 1, neither included.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// A number from N(0, 1).
    pub(crate) fn next(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare as f32;
        }
        let (radius, angle) = ((-2.0 * self.uniform().ln()).sqrt(), std::f64::consts::TAU * self.uniform());
        self.spare = Some(radius * angle.sin());
        (radius * angle.cos()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut normal = Normal::new(1, 2);
        let draws: Vec<f64> = (0..20_000).map(|_| f64::from(normal.next())).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert_ne!(Normal::new(1, 3).next(), Normal::new(1, 2).next());
    }
}
