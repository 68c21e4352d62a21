//! Linear maps.

use rhetor_kernels::add;
use rhetor_kernels::gemm::{self, Operand, Update, View};
use rhetor_kernels::matmul::{self, Packed};

use crate::tape::{self, Saved};
use crate::weight::Turn;
use crate::{Tensor, Vector, Weight};

/// The most weights that [`linear`] takes at once: query, key, value and one to spare.
const WEIGHTS_MAX: usize = 4;

/// `y = x Wᵀ + b` for several weights that share `x`, outputs side by side. x: [T, in] → [T, Σ out]
///
/// `bias` is empty, one vector over all outputs, or one for each weight. Gradients: dx = dy W, dW = dyᵀ x, db = Σ dy. Through packed weights of 8 bits and less they pass as if `x` had
/// not been rounded for the product.
#[track_caller]
pub fn linear(x: &Tensor, weights: &[Weight], bias: &[Vector]) -> Tensor {
    assert!((1..=WEIGHTS_MAX).contains(&weights.len()), "{} weights at once", weights.len());
    for weight in weights {
        let [n_out, n_in] = [weight.n_out(), weight.n_in()];
        assert_eq!(x.row_len(), n_in, "x {:?} against a weight [{n_out}, {n_in}]", x.shape());
    }
    let n_out: usize = weights.iter().map(Weight::n_out).sum();
    if !bias.is_empty() {
        assert_eq!(bias.iter().map(Vector::len).sum::<usize>(), n_out, "shape of the bias");
    }
    let out = Tensor::build([x.n_rows(), n_out], |out| match bias {
        [] => multiply(x.data(), weights, None, out),
        [bias] => bias.with(|bias| multiply(x.data(), weights, Some(bias), out)),
        several => {
            let joined: Vec<f32> = several.iter().flat_map(|bias| bias.with(<[f32]>::to_vec)).collect();
            multiply(x.data(), weights, Some(&joined), out)
        }
    });
    let trains = weights.iter().any(|weight| weight.wanted().is_some());
    let trains_bias = bias.iter().any(Vector::is_wanted);
    if !(trains || trains_bias || x.is_tracked()) || !tape::is_recording() {
        return out;
    }
    let bias = if trains_bias { bias.to_vec() } else { Vec::new() };
    let (to, weights) = (x.tracked(), weights.to_vec());
    let saved = trains.then(|| Saved::of(x));
    tape::push(out, move |dy, gradients| {
        if !bias.is_empty() {
            let mut sums = vec![0.0; n_out];
            add::column_sums(dy.data(), &mut sums);
            let mut rest = &sums[..];
            for bias in &bias {
                let (own, after) = rest.split_at(bias.len());
                rest = after;
                if let Some(parameter) = bias.trained() {
                    parameter.add_gradient(|sum| add::add(sum, own));
                }
            }
        }
        let x = saved.map(Saved::get);
        for (weight, start) in weights.iter().zip(starts(&weights)) {
            if let (Weight::Trained(parameter), Some(x)) = (weight, &x) {
                let dy = columns(&dy, start, weight.n_out()).transposed();
                let x = View::new(x.data(), x.n_rows(), x.row_len());
                let n_in = weight.n_in();
                parameter.update_gradient(|update, sum| {
                    let x = Operand::View(x);
                    gemm::gemm(parameter.precision(), 1.0, dy, x, update, None, sum, n_in)
                });
            }
        }
        if to.is_wanted() {
            gradients.add(&to, input_gradient(&dy, &weights));
        }
    })
}

/// The first output column of each weight.
fn starts(weights: &[Weight]) -> impl Iterator<Item = usize> {
    weights.iter().scan(0, |next, weight| {
        let start = *next;
        *next += weight.n_out();
        Some(start)
    })
}

/// Columns of a gradient `[T, Σ out]` as a matrix.
fn columns(dy: &Tensor, start: usize, len: usize) -> View<'_> {
    View::strided(&dy.data()[start.min(dy.data().len())..], dy.n_rows(), len, dy.row_len())
}

/// dx = Σ dy W. dy: [T, Σ out] → [T, in]
pub(crate) fn input_gradient(dy: &Tensor, weights: &[Weight]) -> Tensor {
    let n_in = weights[0].n_in();
    Tensor::build([dy.n_rows(), n_in], |dx| {
        for (i, (weight, start)) in weights.iter().zip(starts(weights)).enumerate() {
            let update = if i == 0 { Update::Set } else { Update::Add };
            let dy = columns(dy, start, weight.n_out());
            weight.with_operand(Turn::None, |precision, weight| {
                gemm::gemm(precision, 1.0, dy, weight, update, None, dx, n_in)
            });
        }
    })
}

/// x: [T, in] → out: [T, Σ out]
pub(crate) fn multiply(x: &[f32], weights: &[Weight], bias: Option<&[f32]>, out: &mut [f32]) {
    let mut packed = [None; WEIGHTS_MAX];
    for (slot, weight) in packed.iter_mut().zip(weights) {
        *slot = weight.as_packed();
    }
    if let Some(first) = packed[0]
        && packed[..weights.len()].iter().all(Option::is_some)
    {
        let packed: [&Packed; WEIGHTS_MAX] = packed.map(|weight| weight.unwrap_or(first));
        return matmul::matmul(x, &packed[..weights.len()], bias, out);
    }
    let n_in = weights[0].n_in();
    let (n_rows, n_out) = (x.len() / n_in, weights.iter().map(Weight::n_out).sum::<usize>());
    if n_rows == 0 {
        return;
    }
    for (weight, start) in weights.iter().zip(starts(weights)) {
        let len = weight.n_out();
        let bias = bias.map(|bias| &bias[start..start + len]);
        if let Some(packed) = weight.as_packed() {
            // Among trained weights: through a buffer of its own.
            let mut columns = vec![0.0; n_rows * len];
            matmul::matmul(x, &[packed], bias, &mut columns);
            for (row, columns) in out.chunks_exact_mut(n_out).zip(columns.chunks_exact(len)) {
                row[start..start + len].copy_from_slice(columns);
            }
        } else {
            weight.with_operand(Turn::Transposed, |precision, weight| {
                let x = View::new(x, n_rows, n_in);
                gemm::gemm(precision, 1.0, x, weight, Update::Set, bias, &mut out[start..], n_out)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise, parameter};
    use rhetor_kernels::DType;

    fn weight(n_out: usize, values: &[f32]) -> Weight {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Packed::pack(DType::F32, n_out, values.len() / n_out, &bytes).into()
    }

    #[test]
    fn weights_that_share_their_input_put_outputs_side_by_side() {
        let x = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2]);
        let weights = [weight(1, &[1.0, 0.0]), weight(2, &[0.0, 1.0, 1.0, 1.0])];
        let bias = [Vector::from(Tensor::from_vec(vec![0.0, 0.0, 0.5], [3]))];
        assert_eq!(linear(&x, &weights, &bias).data(), &[1.0, 2.0, 3.5, 3.0, 4.0, 7.5]);
        let trained = Weight::Trained(parameter("w", &[2, 2], vec![0.0, 1.0, 1.0, 1.0]));
        let mixed = [weights[0].clone(), trained];
        assert_eq!(linear(&x, &mixed, &bias).data(), &[1.0, 2.0, 3.5, 3.0, 4.0, 7.5]);
    }

    #[test]
    fn gradients_of_trained_packed_and_mixed_weights_equal_central_differences() {
        let (x, a, b) = (
            noise(&[3, 5], 1),
            parameter("a", &[4, 5], noise(&[4, 5], 2).data().to_vec()),
            weight(3, noise(&[3, 5], 3).data()),
        );
        let bias = parameter("bias", &[4], noise(&[4], 4).data().to_vec());
        let biases = [Vector::Trained(bias.clone()), Vector::from(noise(&[3], 5))];
        let weights = [Weight::Trained(a.clone()), b.clone()];
        check(std::slice::from_ref(&x), &[a.clone(), bias.clone()], |x| linear(&x[0], &weights, &biases));
        check(&[x], &[], |x| linear(&x[0], std::slice::from_ref(&b), &[]));
    }
}
