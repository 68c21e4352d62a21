//! The cross-entropy of next tokens, fused with the output layer.

use rhetor_kernels::add;
use rhetor_kernels::cross_entropy::{self, CrossEntropy};
use rhetor_kernels::gemm::{self, Operand, View};

use super::linear::{input_gradient, multiply};
use crate::{Tensor, Weight, tape};

pub use rhetor_kernels::cross_entropy::IGNORE;

/// Logits that are in memory at once; more gain nothing, fewer read the output layer more often.
const LOGITS_MAX: usize = 16 << 20;

/// What the rows' tokens should have been.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// The token that each row must predict, or [`IGNORE`]. `[N]`
    pub tokens: &'a [u32],
    /// Factor of each row's loss; `None` = 1. `[N]`
    pub weights: Option<&'a [f32]>,
    /// Factor of the sum: one over the number of targets of a whole step.
    pub scale: f32,
}

/// A loss and its parts.
pub struct Loss {
    /// `scale · Σ weight · loss` over all rows, as one tracked number.
    pub total: Tensor,
    /// The loss of each row in nats, unscaled; 0 where the target is ignored. `[N]`
    pub rows: Vec<f32>,
}

/// −log softmax(x Wᵀ)[target], summed. x: [N, D], output: [V, D]
///
/// The logits are computed for some rows at a time and at once turned into their gradient, so no more than 64 MiB of
/// them ever exist, and nothing is computed twice. The gradient of `output` is therefore added during the forward pass: the
/// loss must be an end of the tape, or a summand of it. Label smoothing and z-loss as in `options`.
#[track_caller]
pub fn linear_cross_entropy(x: &Tensor, output: &Weight, targets: Targets, options: CrossEntropy) -> Loss {
    let (n_rows, vocab_size) = (x.n_rows(), output.n_out());
    assert_eq!(targets.tokens.len(), n_rows, "targets of {:?}", x.shape());
    let chunk_len = (LOGITS_MAX / vocab_size).clamp(1, n_rows.max(1));
    let wanted = output.wanted().cloned();
    let is_recorded = tape::is_recording() && (x.is_tracked() || wanted.is_some());
    let (mut rows, mut gradients) = (vec![0.0; n_rows], Vec::new());
    for first in (0..n_rows).step_by(chunk_len) {
        let n = chunk_len.min(n_rows - first);
        let range = first..first + n;
        let x_chunk = &x.data()[first * x.row_len()..][..n * x.row_len()];
        let (tokens, weights) = (&targets.tokens[range.clone()], targets.weights.map(|w| &w[range.clone()]));
        let losses = &mut rows[range];
        let logits = Tensor::build([n, vocab_size], |logits| {
            multiply(x_chunk, std::slice::from_ref(output), None, logits);
            if is_recorded {
                cross_entropy::rows(logits, vocab_size, tokens, weights, targets.scale, options, losses);
            } else {
                cross_entropy::losses_only(logits, vocab_size, tokens, options, losses);
            }
        });
        if !is_recorded {
            continue;
        }
        if let Some(parameter) = &wanted {
            let d_logits = View::new(logits.data(), n, vocab_size).transposed();
            let x = Operand::View(View::new(x_chunk, n, x.row_len()));
            parameter.update_gradient(|update, sum| {
                gemm::gemm(parameter.precision(), 1.0, d_logits, x, update, None, sum, output.n_in())
            });
        }
        if x.is_tracked() {
            gradients.push(input_gradient(&logits, std::slice::from_ref(output)));
        }
    }
    let total = total(&rows, targets);
    if !is_recorded {
        return Loss { total, rows };
    }
    let (to, shape) = (x.tracked(), [n_rows, x.row_len()]);
    let total = tape::push(total, move |d, gradients_of| {
        assert_eq!(d.data(), [1.0], "this loss must be a summand of the end of the tape");
        if to.is_wanted() {
            gradients_of.add(&to, join(gradients, shape));
        }
    });
    Loss { total, rows }
}

/// −log softmax(logits)[target], summed: where logits are at hand. logits: [N, V]
#[track_caller]
pub fn cross_entropy(logits: Tensor, targets: Targets, options: CrossEntropy) -> Loss {
    let (n_rows, vocab_size) = (logits.n_rows(), logits.row_len());
    assert_eq!(targets.tokens.len(), n_rows, "targets of {:?}", logits.shape());
    let (to, mut rows) = (logits.tracked(), vec![0.0; n_rows]);
    let mut gradient = logits.into_unique();
    let Targets { tokens, weights, scale } = targets;
    cross_entropy::rows(gradient.unique_data(), vocab_size, tokens, weights, scale, options, &mut rows);
    let total = total(&rows, targets);
    if !to.is_wanted() {
        return Loss { total, rows };
    }
    let total = tape::push(total, move |d, gradients| {
        let mut gradient = gradient.into_unique();
        add::scale(gradient.unique_data(), d.data()[0]);
        gradients.add(&to, gradient);
    });
    Loss { total, rows }
}

/// KL(teacher ‖ student) · T² of softmax(logits / T), summed and scaled. logits, teacher: [N, V]
///
/// The teacher gets no gradient. Source: arXiv:1503.02531, section 2.
#[track_caller]
pub fn distill(logits: Tensor, teacher: &Tensor, temperature: f32, scale: f32) -> Loss {
    assert_eq!(logits.shape(), teacher.shape(), "logits of student and teacher");
    let (to, vocab_size) = (logits.tracked(), logits.row_len());
    let mut rows = vec![0.0; logits.n_rows()];
    let mut gradient = logits.into_unique();
    let student = gradient.unique_data();
    cross_entropy::distill(student, teacher.data(), vocab_size, temperature, None, scale, &mut rows);
    let total = total(&rows, Targets { tokens: &[], weights: None, scale });
    if !to.is_wanted() {
        return Loss { total, rows };
    }
    let total = tape::push(total, move |d, gradients| {
        let mut gradient = gradient.into_unique();
        add::scale(gradient.unique_data(), d.data()[0]);
        gradients.add(&to, gradient);
    });
    Loss { total, rows }
}

/// scale · Σ weight · loss
fn total(rows: &[f32], targets: Targets) -> Tensor {
    let sum: f64 = match targets.weights {
        Some(weights) => rows.iter().zip(weights).map(|(&l, &w)| f64::from(l) * f64::from(w)).sum(),
        None => rows.iter().map(|&loss| f64::from(loss)).sum(),
    };
    Tensor::from_vec(vec![(sum * f64::from(targets.scale)) as f32], [1])
}

/// Tensors of rows, one after another.
fn join(mut parts: Vec<Tensor>, shape: [usize; 2]) -> Tensor {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    Tensor::build(shape, |out| {
        let mut start = 0;
        for part in parts {
            out[start..start + part.data().len()].copy_from_slice(part.data());
            start += part.data().len();
        }
    })
}

/// log softmax(logits)[target] of each row, 0 where the target is ignored. logits: [N, V] → [N]
#[track_caller]
pub fn log_probs(logits: Tensor, targets: &[u32]) -> Tensor {
    let (n_rows, vocab_size) = (logits.n_rows(), logits.row_len());
    assert_eq!(targets.len(), n_rows, "targets of {:?}", logits.shape());
    let mut lse = vec![0.0; n_rows];
    let out = Tensor::build([n_rows], |out| {
        cross_entropy::log_probs(logits.data(), vocab_size, targets, out, &mut lse)
    });
    if !logits.is_tracked() {
        return out;
    }
    let (to, logits, targets) = (logits.tracked(), logits.detached(), targets.to_vec());
    tape::push(out, move |d, gradients| {
        let mut d_logits = logits.into_unique();
        cross_entropy::log_prob_gradient(d_logits.unique_data(), vocab_size, &targets, &lse, d.data());
        gradients.add(&to, d_logits);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise, parameter};

    #[test]
    fn gradients_equal_central_differences() {
        let (x, w) = (noise(&[4, 3], 1), parameter("w", &[5, 3], noise(&[5, 3], 2).data().to_vec()));
        let weight = Weight::Trained(w.clone());
        let targets = [3, IGNORE, 0, 4];
        let options = CrossEntropy { smoothing: 0.1, z_loss: 0.01 };
        // The check multiplies the loss by a random number, which this loss does not allow: by hand, then.
        let loss = |x: &Tensor| {
            let targets = Targets { tokens: &targets, weights: Some(&[1.0, 1.0, 0.5, 2.0]), scale: 0.5 };
            linear_cross_entropy(x, &weight, targets, options).total
        };
        w.clear_gradient();
        let ((leaf, total), tape) = crate::tape::record(|| {
            let leaf = x.detached().with_var(Some(crate::tape::fresh()));
            let total = loss(&leaf);
            (leaf, total)
        });
        let dx = tape.backward_from(&total, Tensor::from_vec(vec![1.0], [1]), &[leaf]).remove(0).unwrap();
        let step = 1e-2;
        for j in 0..12 {
            let at = |step: f32| {
                let mut values = x.data().to_vec();
                values[j] += step;
                loss(&Tensor::from_vec(values, [4, 3])).data()[0]
            };
            let expected = (at(step) - at(-step)) / (2.0 * step);
            assert!((dx.data()[j] - expected).abs() < 1e-3, "{} {expected}", dx.data()[j]);
        }
        let gradient = w.gradient().clone();
        for (j, &got) in gradient.iter().enumerate() {
            let at = |step: f32| {
                w.write()[j] += step;
                let result = loss(&x).data()[0];
                w.write()[j] -= step;
                result
            };
            let expected = (at(step) - at(-step)) / (2.0 * step);
            assert!((got - expected).abs() < 1e-3, "{got} {expected}");
        }
        check(&[noise(&[4, 5], 7)], &[], |x| log_probs(x[0].clone(), &targets));
    }

    #[test]
    fn the_loss_of_a_uniform_guess_is_the_logarithm_of_the_vocabulary() {
        let weight = Weight::Trained(parameter("w", &[8, 2], vec![0.0; 16]));
        let targets = Targets { tokens: &[1, 7, IGNORE], weights: None, scale: 0.5 };
        let loss = linear_cross_entropy(&noise(&[3, 2], 1), &weight, targets, CrossEntropy::default());
        assert!((loss.total.data()[0] - 8f32.ln()).abs() < 1e-6);
        assert_eq!(loss.rows[2], 0.0);
    }
}
