//! Sums, element by element.

use rhetor_kernels::add;
use std::ops::Add;

use crate::{Tensor, tape};

/// `x + y` of equal shapes, in place if nobody else holds `x`.
impl Add for Tensor {
    type Output = Tensor;

    #[track_caller]
    fn add(self, y: Tensor) -> Tensor {
        assert_eq!(self.shape(), y.shape(), "shapes of a sum");
        let (to_x, to_y) = (self.tracked(), y.tracked());
        let mut out = self.into_unique();
        add::add(out.unique_data(), y.data());
        if !(to_x.is_wanted() || to_y.is_wanted()) || !tape::is_recording() {
            return out;
        }
        tape::push(out, move |d, gradients| {
            gradients.add(&to_x, d.clone());
            gradients.add(&to_y, d);
        })
    }
}

/// `factor · x`, in place if nobody else holds `x`.
pub fn scale(x: Tensor, factor: f32) -> Tensor {
    let from = x.tracked();
    let mut out = x.into_unique();
    add::scale(out.unique_data(), factor);
    if !from.is_wanted() {
        return out;
    }
    tape::push(out, move |d, gradients| {
        let mut d = d.into_unique();
        add::scale(d.unique_data(), factor);
        gradients.add(&from, d);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise};

    #[test]
    fn a_sum_leaves_a_shared_operand_as_it_was() {
        let x = Tensor::from_vec(vec![1.0, 2.0], [1, 2]);
        let y = Tensor::from_vec(vec![10.0, 20.0], [1, 2]);
        assert_eq!((x.clone() + y).data(), &[11.0, 22.0]);
        assert_eq!(x.data(), &[1.0, 2.0]);
    }

    #[test]
    fn gradients_equal_central_differences() {
        let (x, y) = (noise(&[2, 3], 1), noise(&[2, 3], 2));
        check(&[x.clone(), y], &[], |x| x[0].clone() + x[1].clone());
        check(&[x], &[], |x| scale(x[0].clone() + x[0].clone(), 0.25));
    }
}
