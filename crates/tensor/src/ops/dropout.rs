//! Dropout.

use rhetor_kernels::dropout;

use crate::{Tensor, tape};

/// The random numbers of one dropout: element `i` is a pure function of these two and `i`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Differs from pass to pass.
    pub seed: u64,
    /// Differs from place to place in the model.
    pub place: u64,
}

/// Zeroes each element with probability `p` and divides the others by `1 − p`, in place if nobody else holds `x`.
///
/// Source: arXiv:1207.0580; the generator is counter-based, so a pass can be repeated.
#[track_caller]
pub fn dropout(x: Tensor, p: f32, stream: Stream) -> Tensor {
    assert!((0.0..1.0).contains(&p), "probability {p}");
    if p == 0.0 {
        return x;
    }
    let from = x.tracked();
    let mut out = x.into_unique();
    dropout::apply(out.unique_data(), p, stream.seed, stream.place);
    if !from.is_wanted() {
        return out;
    }
    tape::push(out, move |d, gradients| {
        let mut d = d.into_unique();
        dropout::apply(d.unique_data(), p, stream.seed, stream.place);
        gradients.add(&from, d);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise};

    #[test]
    fn the_same_elements_are_dropped_on_the_way_back() {
        let stream = Stream { seed: 1, place: 2 };
        check(&[noise(&[4, 50], 1)], &[], |x| dropout(x[0].clone(), 0.3, stream));
        let kept = dropout(noise(&[4, 500], 1), 0.3, stream);
        let n_dropped = kept.data().iter().filter(|&&x| x == 0.0).count();
        assert!((500..700).contains(&n_dropped), "{n_dropped} of 2000");
    }
}
