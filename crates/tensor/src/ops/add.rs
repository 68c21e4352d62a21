//! Element-wise sum.

use rhetor_kernels::add;
use std::ops::Add;

use crate::Tensor;

/// `x + y` of equal shapes, in place if nobody else holds `x`.
impl Add for Tensor {
    type Output = Tensor;

    #[track_caller]
    fn add(self, y: Tensor) -> Tensor {
        assert_eq!(self.shape(), y.shape(), "shapes of a sum");
        let mut out = self.into_unique();
        add::add(out.unique_data(), y.data());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_leaves_a_shared_operand_as_it_was() {
        let x = Tensor::from_vec(vec![1.0, 2.0], [1, 2]);
        let y = Tensor::from_vec(vec![10.0, 20.0], [1, 2]);
        assert_eq!((x.clone() + y).data(), &[11.0, 22.0]);
        assert_eq!(x.data(), &[1.0, 2.0]);
    }
}
