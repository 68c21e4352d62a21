//! Dropout.

use rhetor_kernels::{add, dropout};

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

/// Dropout that takes the same columns in every row of a sequence. x: [ΣT, D], `lengths`: rows of each sequence
///
/// Source: variational dropout, arXiv:1512.05287, section 4, as AWD-LSTM has it: arXiv:1708.02182, section 4.2.
#[track_caller]
pub fn variational(x: Tensor, lengths: &[usize], p: f32, stream: Stream) -> Tensor {
    assert_eq!(lengths.iter().sum::<usize>(), x.n_rows(), "lengths of the sequences against the rows");
    let d = x.row_len();
    let mut mask = vec![1.0; lengths.len() * d];
    dropout::apply(&mut mask, p, stream.seed, stream.place);
    let lengths = lengths.to_vec();
    let from = x.tracked();
    let mut out = x.into_unique();
    let multiply = move |rows: &mut [f32]| {
        let masks =
            mask.chunks_exact(d).zip(&lengths).flat_map(|(mask, &len)| std::iter::repeat_n(mask, len));
        rows.chunks_exact_mut(d).zip(masks).for_each(|(row, mask)| add::mul(row, mask));
    };
    multiply(out.unique_data());
    if !from.is_wanted() {
        return out;
    }
    tape::push(out, move |dy, gradients| {
        let mut dx = dy.into_unique();
        multiply(dx.unique_data());
        gradients.add(&from, dx);
    })
}

/// Dropout of whole words: all rows of a token are zero, or none. x: [T, D], `tokens`: [T], of a vocabulary of `vocab_size`
///
/// Source: arXiv:1512.05287, section 4.2; AWD-LSTM, arXiv:1708.02182, section 4.3.
#[track_caller]
pub fn words(x: Tensor, tokens: &[u32], vocab_size: usize, p: f32, stream: Stream) -> Tensor {
    assert_eq!(tokens.len(), x.n_rows(), "a token for each row");
    let mut kept = vec![1.0; vocab_size];
    dropout::apply(&mut kept, p, stream.seed, stream.place);
    let factors: Vec<f32> = tokens.iter().map(|&token| kept[token as usize]).collect();
    let d = x.row_len();
    let from = x.tracked();
    let mut out = x.into_unique();
    let multiply = move |rows: &mut [f32]| {
        rows.chunks_exact_mut(d).zip(&factors).for_each(|(row, &factor)| add::scale(row, factor));
    };
    multiply(out.unique_data());
    if !from.is_wanted() {
        return out;
    }
    tape::push(out, move |dy, gradients| {
        let mut dx = dy.into_unique();
        multiply(dx.unique_data());
        gradients.add(&from, dx);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise};

    #[test]
    fn variational_dropout_takes_the_same_columns_in_all_rows_of_a_sequence() {
        let stream = Stream { seed: 1, place: 2 };
        let ones = Tensor::from_vec(vec![1.0; 5 * 40], [5, 40]);
        let out = variational(ones, &[2, 3], 0.5, stream);
        assert_eq!((out.row(0), out.row(2)), (out.row(1), out.row(4)));
        assert_ne!(out.row(1), out.row(2));
        check(&[noise(&[5, 8], 1)], &[], |x| variational(x[0].clone(), &[2, 3], 0.5, stream));
    }

    #[test]
    fn dropout_of_words_takes_all_rows_of_a_token() {
        let stream = Stream { seed: 3, place: 2 };
        let tokens: Vec<u32> = (0..40).chain(0..40).collect();
        let out = words(Tensor::from_vec(vec![1.0; 160], [80, 2]), &tokens, 40, 0.5, stream);
        assert!((0..40).all(|i| out.row(i) == out.row(i + 40) && out.row(i)[0] == out.row(i)[1]));
        let n_dropped = (0..40).filter(|&i| out.row(i)[0] == 0.0).count();
        assert!((8..32).contains(&n_dropped), "{n_dropped} of 40");
        check(&[noise(&[4, 3], 1)], &[], |x| words(x[0].clone(), &[1, 2, 1, 0], 3, 0.5, stream));
    }

    #[test]
    fn the_same_elements_are_dropped_on_the_way_back() {
        let stream = Stream { seed: 1, place: 2 };
        check(&[noise(&[4, 50], 1)], &[], |x| dropout(x[0].clone(), 0.3, stream));
        let kept = dropout(noise(&[4, 500], 1), 0.3, stream);
        let n_dropped = kept.data().iter().filter(|&&x| x == 0.0).count();
        assert!((500..700).contains(&n_dropped), "{n_dropped} of 2000");
    }
}
