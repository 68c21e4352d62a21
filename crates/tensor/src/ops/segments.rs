//! Sums over neighbouring numbers.

use crate::{Tensor, tape};

/// The sum of the first `lens[0]` numbers, of the next `lens[1]`, and so on. x: [Σ lens] → [number of lens]
#[track_caller]
pub fn sum(x: Tensor, lens: &[usize]) -> Tensor {
    assert_eq!(x.data().len(), lens.iter().sum::<usize>(), "numbers against the lengths of segments");
    let out = Tensor::build([lens.len()], |out| {
        let mut rest = x.data();
        for (out, &len) in out.iter_mut().zip(lens) {
            let (own, after) = rest.split_at(len);
            *out = own.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
            rest = after;
        }
    });
    if !x.is_tracked() {
        return out;
    }
    let (to, lens) = (x.tracked(), lens.to_vec());
    tape::push(out, move |d, gradients| {
        let n = lens.iter().sum::<usize>();
        let dx = Tensor::build([n], |dx| {
            let mut rest = dx;
            for (&d, &len) in d.data().iter().zip(&lens) {
                let (own, after) = rest.split_at_mut(len);
                own.fill(d);
                rest = after;
            }
        });
        gradients.add(&to, dx);
    })
}

/// A function of few numbers with its gradient: what a loss is made of once the log-probabilities are known.
///
/// `f` gets the numbers and writes its derivative by each of them; it returns its value. x: [n] → [1]
pub fn function(x: &Tensor, f: impl FnOnce(&[f32], &mut [f32]) -> f32) -> Tensor {
    let mut slope = vec![0.0; x.data().len()];
    let value = f(x.data(), &mut slope);
    let out = Tensor::from_vec(vec![value], [1]);
    if !x.is_tracked() {
        return out;
    }
    let (to, shape) = (x.tracked(), x.shape().to_vec());
    tape::push(out, move |d, gradients| {
        let d = d.data()[0];
        let dx = Tensor::from_vec(slope.iter().map(|slope| slope * d).collect(), &shape[..]);
        gradients.add(&to, dx);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise};

    #[test]
    fn gradients_equal_central_differences() {
        check(&[noise(&[6], 1)], &[], |x| sum(x[0].clone(), &[2, 0, 3, 1]));
        check(&[noise(&[3], 1)], &[], |x| {
            function(&x[0], |x, slope| {
                slope.iter_mut().zip(x).for_each(|(slope, x)| *slope = 2.0 * x);
                x.iter().map(|x| x * x).sum()
            })
        });
    }

    #[test]
    fn an_empty_segment_sums_to_zero() {
        let x = Tensor::from_vec(vec![1.0, 2.0, 4.0], [3]);
        assert_eq!(sum(x, &[0, 2, 1]).data(), [0.0, 3.0, 4.0]);
    }
}
