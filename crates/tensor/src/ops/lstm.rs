//! A layer of long short-term memory over time.
//!
//! Rows of several sequences stand one after another, as everywhere; here they are put into order of time, so that each
//! step is one product for all sequences that last that long. The gradient goes back through all steps of the call and stops at
//! the state that came in: truncated where the caller cuts. Source: Hochreiter & Schmidhuber 1997; weight
//! drop from AWD-LSTM, arXiv:1708.02182, section 2.

use rhetor_kernels::gemm::{self, Operand, Precision, Update, View};
use rhetor_kernels::{dropout, lstm};
use std::sync::Arc;

use super::columns::add_vector;
use super::dropout::Stream;
use super::linear::linear;
use crate::{Tensor, Vector, Weight, tape};

/// What a layer remembers of each sequence; a constant to the tape.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Outputs. `[B, H]`
    pub h: Vec<f32>,
    /// Cells. `[B, H]`
    pub c: Vec<f32>,
}

impl State {
    /// The state before the first row of `n` sequences.
    pub fn zeros(n: usize, hidden_size: usize) -> State {
        State { h: vec![0.0; n * hidden_size], c: vec![0.0; n * hidden_size] }
    }
}

/// The weights of a layer, as PyTorch names them; rows in the order of the gates i, f, g, o.
#[derive(Clone)]
pub struct Lstm {
    /// From inputs. `[4H, in]`
    pub w_ih: Weight,
    /// From outputs of the step before. `[4H, H]`
    pub w_hh: Weight,
    /// `[4H]`
    pub b_ih: Vector,
    /// `[4H]`
    pub b_hh: Vector,
}

impl Lstm {
    /// The layer's outputs, and its state after the last row of each sequence.
    ///
    /// `lengths`: rows of each sequence; `state`: what it begins with, `None` = zeros; `drop`: the share of the numbers of
    /// `w_hh` that are zero in this pass, the same at every step. x: [ΣT, in] → [ΣT, H]
    #[track_caller]
    pub fn forward(
        &self,
        x: &Tensor,
        lengths: &[usize],
        state: Option<&State>,
        drop: Option<(f32, Stream)>,
    ) -> (Tensor, State) {
        let gates = linear(x, std::slice::from_ref(&self.w_ih), std::slice::from_ref(&self.b_ih));
        recurrent(&add_vector(gates, 0, &self.b_hh, 1.0), &self.w_hh, lengths, state, drop)
    }
}

/// Rows of sequences in order of time: at each step those that last that long, the longest sequence first.
struct Times {
    /// Rows at each step.
    n: Vec<usize>,
    /// The first row of each step.
    first: Vec<usize>,
    /// For each row in order of time, its place among the sequences' rows.
    places: Vec<usize>,
    /// The sequence at each place of a step.
    sequences: Vec<usize>,
    /// The row of each sequence's end, by place; none if it has no rows.
    ends: Vec<Option<usize>>,
}

impl Times {
    fn new(lengths: &[usize]) -> Times {
        let starts: Vec<usize> = lengths
            .iter()
            .scan(0, |next, len| {
                *next += len;
                Some(*next - len)
            })
            .collect();
        let mut sequences: Vec<usize> = (0..lengths.len()).collect();
        sequences.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
        let n_steps = lengths.iter().copied().max().unwrap_or(0);
        let (mut n, mut first, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for t in 0..n_steps {
            first.push(places.len());
            let alive = sequences.iter().take_while(|&&i| lengths[i] > t);
            places.extend(alive.map(|&i| starts[i] + t));
            n.push(places.len() - first[t]);
        }
        let end = |(place, &i): (usize, &usize)| lengths[i].checked_sub(1).map(|last| first[last] + place);
        let ends = sequences.iter().enumerate().map(end).collect();
        Times { n, first, places, sequences, ends }
    }

    /// Rows of `len` numbers in order of time.
    fn gather(&self, rows: &[f32], len: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(rows.len());
        self.places.iter().for_each(|&place| out.extend_from_slice(&rows[place * len..][..len]));
        out
    }

    /// The same rows in the order of the sequences.
    fn scatter(&self, rows: &[f32], len: usize, out: &mut [f32]) {
        for (row, &place) in rows.chunks_exact(len).zip(&self.places) {
            out[place * len..][..len].copy_from_slice(row);
        }
    }

    /// Rows of a state by place.
    fn by_place(&self, rows: &[f32], len: usize) -> Vec<f32> {
        self.sequences.iter().flat_map(|&i| &rows[i * len..(i + 1) * len]).copied().collect()
    }

    /// The state after the last row of each sequence.
    fn last(&self, rows: &[f32], before: &[f32], len: usize) -> Vec<f32> {
        let mut out = vec![0.0; before.len()];
        for (place, (&i, end)) in self.sequences.iter().zip(&self.ends).enumerate() {
            let from = match end {
                Some(row) => &rows[row * len..][..len],
                None => &before[place * len..][..len],
            };
            out[i * len..][..len].copy_from_slice(from);
        }
        out
    }
}

/// The steps of a layer, whose gates have got all but what comes from the step before. gates: [ΣT, 4H], w: [4H, H] → [ΣT, H]
#[track_caller]
fn recurrent(
    gates: &Tensor,
    w: &Weight,
    lengths: &[usize],
    state: Option<&State>,
    drop: Option<(f32, Stream)>,
) -> (Tensor, State) {
    let (hidden_size, width, n_rows) = (w.n_in(), w.n_out(), gates.n_rows());
    assert_eq!([width, gates.row_len()], [4 * hidden_size; 2], "four gates of {hidden_size}");
    assert_eq!(lengths.iter().sum::<usize>(), n_rows, "lengths of the sequences against the rows");
    let times = Times::new(lengths);
    let zeros;
    let state = match state {
        Some(state) => state,
        None => {
            zeros = State::zeros(lengths.len(), hidden_size);
            &zeros
        }
    };
    assert_eq!(state.h.len(), lengths.len() * hidden_size, "the state of {} sequences", lengths.len());
    let mut weight = vec![0.0; width * hidden_size];
    weight.chunks_exact_mut(hidden_size).enumerate().for_each(|(i, row)| w.row(i, row));
    if let Some((p, stream)) = drop {
        dropout::apply(&mut weight, p, stream.seed, stream.place);
    }
    let (h_0, c_0) = (times.by_place(&state.h, hidden_size), times.by_place(&state.c, hidden_size));
    let mut active = times.gather(gates.data(), width);
    let (mut h, mut c) = (vec![0.0; n_rows * hidden_size], vec![0.0; n_rows * hidden_size]);
    for (t, (&n, &first)) in times.n.iter().zip(&times.first).enumerate() {
        let at = first * hidden_size;
        let ((h_before, h), (c_before, c)) = (h.split_at_mut(at), c.split_at_mut(at));
        let (h_prev, c_prev) = match t {
            0 => (&h_0[..], &c_0[..]),
            _ => {
                (&h_before[times.first[t - 1] * hidden_size..], &c_before[times.first[t - 1] * hidden_size..])
            }
        };
        let len = n * hidden_size;
        let gates = &mut active[first * width..][..n * width];
        let turned = Operand::View(View::new(&weight, width, hidden_size).transposed());
        let h_prev = View::new(&h_prev[..len], n, hidden_size);
        gemm::gemm(w.precision(), 1.0, h_prev, turned, Update::Add, None, gates, width);
        lstm::step(hidden_size, gates, &c_prev[..len], &mut c[..len], &mut h[..len]);
    }
    let after = State { h: times.last(&h, &h_0, hidden_size), c: times.last(&c, &c_0, hidden_size) };
    let out = Tensor::build([n_rows, hidden_size], |out| times.scatter(&h, hidden_size, out));
    let wanted = w.wanted().cloned();
    if !(gates.is_tracked() || wanted.is_some()) {
        return (out, after);
    }
    let (to, precision) = (gates.tracked(), w.precision());
    let kept = Arc::new(Kept { times, weight, active, h_0, c_0, h, c, hidden_size, precision });
    let out = tape::push(out, move |d_out, gradients| {
        let d_gates = kept.backward(d_out.data());
        if let Some(parameter) = &wanted {
            let before = kept.outputs_before();
            let mut d_weight = vec![0.0; width * hidden_size];
            let d = View::new(&d_gates, n_rows, width).transposed();
            let before = Operand::View(View::new(&before, n_rows, hidden_size));
            gemm::gemm(precision, 1.0, d, before, Update::Set, None, &mut d_weight, hidden_size);
            if let Some((p, stream)) = drop {
                dropout::apply(&mut d_weight, p, stream.seed, stream.place);
            }
            parameter.add_gradient(|sum| rhetor_kernels::add::add(sum, &d_weight));
        }
        if to.is_wanted() {
            let d = Tensor::build([n_rows, width], |d| kept.times.scatter(&d_gates, width, d));
            gradients.add(&to, d);
        }
    });
    (out, after)
}

/// What the gradient needs, in order of time.
struct Kept {
    times: Times,
    /// `w_hh` as it was used. `[4H, H]`
    weight: Vec<f32>,
    /// Gates after their non-linearities. `[ΣT, 4H]`
    active: Vec<f32>,
    h_0: Vec<f32>,
    c_0: Vec<f32>,
    h: Vec<f32>,
    c: Vec<f32>,
    hidden_size: usize,
    precision: Precision,
}

impl Kept {
    /// The gradient of the gates before their non-linearities. d_out: [ΣT, H] → [ΣT, 4H], in order of time
    fn backward(&self, d_out: &[f32]) -> Vec<f32> {
        let (hidden_size, width) = (self.hidden_size, 4 * self.hidden_size);
        let d_out = self.times.gather(d_out, hidden_size);
        let mut d_gates = vec![0.0; d_out.len() * 4];
        // Of the step that comes after: places that do not last so long are zero.
        let n_max = self.times.n.first().copied().unwrap_or(0);
        let (mut d_h, mut d_c) = (vec![0.0; n_max * hidden_size], vec![0.0; n_max * hidden_size]);
        for (t, (&n, &first)) in self.times.n.iter().zip(&self.times.first).enumerate().rev() {
            let (at, len) = (first * hidden_size, n * hidden_size);
            let c_prev = match t {
                0 => &self.c_0[..len],
                _ => &self.c[self.times.first[t - 1] * hidden_size..][..len],
            };
            rhetor_kernels::add::add(&mut d_h[..len], &d_out[at..at + len]);
            let active = &self.active[first * width..][..n * width];
            let d_gates = &mut d_gates[first * width..][..n * width];
            let c = &self.c[at..at + len];
            lstm::step_backward(hidden_size, active, c_prev, c, &d_h[..len], &mut d_c[..len], d_gates);
            let weight = Operand::View(View::new(&self.weight, width, hidden_size));
            let d = View::new(d_gates, n, width);
            gemm::gemm(self.precision, 1.0, d, weight, Update::Set, None, &mut d_h[..len], hidden_size);
        }
        d_gates
    }

    /// The outputs of the step before each row. → [ΣT, H], in order of time
    fn outputs_before(&self) -> Vec<f32> {
        let mut before = Vec::with_capacity(self.h.len());
        for (t, &n) in self.times.n.iter().enumerate() {
            before.extend_from_slice(match t {
                0 => &self.h_0[..n * self.hidden_size],
                _ => &self.h[self.times.first[t - 1] * self.hidden_size..][..n * self.hidden_size],
            });
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Parameter;
    use crate::gradient_check::{check, noise, parameter};

    const H: usize = 3;

    fn layer(n_in: usize) -> (Lstm, Vec<Parameter>) {
        let of = |name, shape: &[usize], seed| parameter(name, shape, noise(shape, seed).data().to_vec());
        let (w_ih, w_hh) = (of("w_ih", &[4 * H, n_in], 1), of("w_hh", &[4 * H, H], 2));
        let (b_ih, b_hh) = (of("b_ih", &[4 * H], 3), of("b_hh", &[4 * H], 4));
        let lstm = Lstm {
            w_ih: Weight::Trained(w_ih.clone()),
            w_hh: Weight::Trained(w_hh.clone()),
            b_ih: Vector::Trained(b_ih.clone()),
            b_hh: Vector::Trained(b_hh.clone()),
        };
        (lstm, vec![w_ih, w_hh, b_ih, b_hh])
    }

    #[test]
    fn gradients_equal_central_differences() {
        let (lstm, parameters) = layer(2);
        let state = State { h: noise(&[9], 5).data().to_vec(), c: noise(&[9], 6).data().to_vec() };
        let stream = Stream { seed: 1, place: 2 };
        for (lengths, state, drop) in [
            ([2, 4, 1], None, None),
            ([2, 4, 1], Some(&state), Some((0.3, stream))),
            ([7, 0, 0], Some(&state), None),
        ] {
            check(&[noise(&[7, 2], 7)], &parameters, |x| lstm.forward(&x[0], &lengths, state, drop).0);
        }
    }

    #[test]
    fn a_sequence_in_two_pieces_with_its_state_is_the_sequence_whole() {
        let (lstm, _) = layer(2);
        let x = noise(&[9, 2], 1);
        let part = |rows: &[usize]| super::super::rows::rows(&x, rows);
        // Two sequences, of 5 and 4 rows, each cut.
        let (whole, after) = lstm.forward(&x, &[5, 4], None, None);
        let (first, state) = lstm.forward(&part(&[0, 1, 5, 6, 7]), &[2, 3], None, None);
        let (second, last) = lstm.forward(&part(&[2, 3, 4, 8]), &[3, 1], Some(&state), None);
        for (got, expected) in [(first.row(1), 1), (first.row(4), 7), (second.row(2), 4), (second.row(3), 8)]
        {
            assert_eq!(got, whole.row(expected));
        }
        assert_eq!(last, after);
        assert_eq!(&after.h[..H], whole.row(4));
    }

    #[test]
    fn weights_that_are_dropped_change_with_the_seed_alone() {
        let (lstm, _) = layer(2);
        let run =
            |seed| lstm.forward(&noise(&[6, 2], 1), &[6], None, Some((0.5, Stream { seed, place: 0 }))).0;
        assert_eq!(run(1).data(), run(1).data());
        assert_ne!(run(1).data(), run(2).data());
    }
}
