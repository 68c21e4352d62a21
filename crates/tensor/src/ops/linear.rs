//! Linear maps by packed weights.

use rhetor_kernels::matmul::{self, Packed};
use std::sync::Arc;

use crate::Tensor;

/// A weight `[out, in]` of any stored type, packed for the kernels; clones share it.
#[derive(Clone)]
pub struct Weight(Arc<Packed>);

impl Weight {
    /// Extent of the input.
    pub fn n_in(&self) -> usize {
        self.0.n_cols()
    }

    /// Extent of the output.
    pub fn n_out(&self) -> usize {
        self.0.n_rows()
    }

    /// The packed elements.
    pub fn packed(&self) -> &Packed {
        &self.0
    }
}

impl From<Packed> for Weight {
    fn from(packed: Packed) -> Weight {
        Weight(Arc::new(packed))
    }
}

/// The most weights that [`linear`] takes at once: query, key, value and one to spare.
const WEIGHTS_MAX: usize = 4;

/// `y = x Wᵀ + b` for several weights that share `x`, outputs side by side. x: [T, in] → [T, Σ out]
#[track_caller]
pub fn linear(x: &Tensor, weights: &[Weight], bias: Option<&Tensor>) -> Tensor {
    assert!((1..=WEIGHTS_MAX).contains(&weights.len()), "{} weights at once", weights.len());
    for weight in weights {
        assert_eq!(
            x.row_len(),
            weight.n_in(),
            "x {:?} against a weight [{}, {}]",
            x.shape(),
            weight.n_out(),
            weight.n_in()
        );
    }
    let n_out: usize = weights.iter().map(Weight::n_out).sum();
    if let Some(bias) = bias {
        assert_eq!(bias.shape(), [n_out], "shape of the bias");
    }
    let mut packed: [&Packed; WEIGHTS_MAX] = [&weights[0].0; WEIGHTS_MAX];
    for (slot, weight) in packed.iter_mut().zip(weights) {
        *slot = &weight.0;
    }
    Tensor::build([x.n_rows(), n_out], |out| {
        matmul::matmul(x.data(), &packed[..weights.len()], bias.map(Tensor::data), out);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_kernels::DType;

    fn weight(n_out: usize, values: &[f32]) -> Weight {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Packed::pack(DType::F32, n_out, values.len() / n_out, &bytes).into()
    }

    #[test]
    fn weights_that_share_their_input_put_outputs_side_by_side() {
        let x = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2]);
        let weights = [weight(1, &[1.0, 0.0]), weight(2, &[0.0, 1.0, 1.0, 1.0])];
        let bias = Tensor::from_vec(vec![0.0, 0.0, 0.5], [3]);
        assert_eq!(linear(&x, &weights, Some(&bias)).data(), &[1.0, 2.0, 3.5, 3.0, 4.0, 7.5]);
    }
}
