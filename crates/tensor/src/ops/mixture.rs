//! A sparse mixture of experts: which experts each row goes to, their weighted sum, and how evenly they are used.
//!
//! Source: The Sparsely-Gated Mixture-of-Experts Layer, arXiv:1701.06538, section 2; Mixtral of Experts,
//! arXiv:2401.04088, section 2.1.

use rhetor_kernels::softmax;
use std::sync::{Arc, Mutex};

use super::dropout::Stream;
use crate::{Tensor, tape};

/// Which rows go to which expert.
#[derive(Debug, Clone)]
pub struct Routes {
    /// Of each expert the rows that it gets, ascending, each with the column of its weight. `[E]`
    pub rows_of: Vec<Vec<(usize, usize)>>,
    /// The weights of each row's experts, the most likely first; they sum up to 1. [T, k]
    pub weights: Tensor,
}

/// The `k` likeliest experts of each row, and their weights: softmax over those that were chosen. logits: [T, E]
///
/// Of experts that are equally likely the first is taken. The choice is counted in `balance`, and the gradient of its loss
/// is added to that of the weights. Panics unless `k` is from 1 to E.
#[track_caller]
pub fn route(logits: &Tensor, k: usize, balance: Option<&Arc<Balance>>) -> Routes {
    let (n_rows, n_experts) = (logits.n_rows(), logits.row_len());
    assert!((1..=n_experts).contains(&k), "{k} of {n_experts} experts");
    let mut rows_of = vec![Vec::new(); n_experts];
    let mut chosen = Vec::with_capacity(n_rows * k);
    for row in 0..n_rows {
        let logits = logits.row(row);
        let first = chosen.len();
        for slot in 0..k {
            let free = (0..n_experts).filter(|expert| !chosen[first..].contains(expert));
            let best = free.reduce(|best, expert| if logits[expert] > logits[best] { expert } else { best });
            let best = best.expect("fewer are taken than there are");
            chosen.push(best);
            rows_of[best].push((row, slot));
        }
    }
    let weights = Tensor::build([n_rows, k], |weights| {
        for ((weight, &expert), at) in weights.iter_mut().zip(&chosen).zip(0..) {
            *weight = logits.row(at / k)[expert];
        }
        softmax::softmax(weights, k);
    });
    let balance = balance.map(|balance| {
        let mut probabilities = Tensor::build([n_rows, n_experts], |p| p.copy_from_slice(logits.data()));
        softmax::softmax(probabilities.unique_data(), n_experts);
        let counts = rows_of.iter().map(|rows| rows.len() as u64).collect();
        let layer = LayerSums::of(counts, &probabilities);
        balance.count(layer.clone());
        (balance.clone(), probabilities, layer)
    });
    if !logits.is_tracked() {
        return Routes { rows_of, weights };
    }
    let (to, result) = (logits.tracked(), weights.clone());
    let weights = tape::push(weights, move |d, gradients| {
        let mut d = d.into_unique();
        softmax::backward(result.data(), d.unique_data(), k);
        let d_logits = Tensor::build([n_rows, n_experts], |d_logits| {
            d_logits.fill(0.0);
            for ((d, expert), at) in d.data().iter().zip(chosen).zip(0..) {
                d_logits[at / k * n_experts + expert] = *d;
            }
        });
        gradients.add(&to, d_logits);
        if let Some((balance, probabilities, layer)) = balance {
            gradients.add(&to, balance.gradient(&probabilities, &layer));
        }
    });
    Routes { rows_of, weights }
}

/// Σ weight · output over each row's experts, in the order of the experts. → [T, D]
///
/// `outputs[e]`: what expert `e` made of its rows, [rows_of[e].len(), D]; `None` for an expert without rows.
#[track_caller]
pub fn combine(outputs: &[Option<Tensor>], routes: &Routes, row_len: usize) -> Tensor {
    let (n_rows, k) = (routes.weights.n_rows(), routes.weights.row_len());
    assert_eq!(outputs.len(), routes.rows_of.len(), "an output for each expert");
    let parts = || routes.rows_of.iter().zip(outputs).filter_map(|(rows, out)| Some((rows, out.as_ref()?)));
    let n_parts: usize = parts().map(|(rows, out)| rows.len().min(out.n_rows())).sum();
    assert_eq!(n_parts, n_rows * k, "rows of the experts");
    let out = Tensor::build([n_rows, row_len], |out| {
        out.fill(0.0);
        for (rows, part) in parts() {
            for (i, &(row, slot)) in rows.iter().enumerate() {
                let weight = routes.weights.row(row)[slot];
                let sum = &mut out[row * row_len..][..row_len];
                sum.iter_mut().zip(part.row(i)).for_each(|(sum, y)| *sum += weight * y);
            }
        }
    });
    if !(routes.weights.is_tracked() || parts().any(|(_, part)| part.is_tracked())) {
        return out;
    }
    let to_weights = routes.weights.tracked();
    let weights = routes.weights.detached();
    let parts: Vec<_> = parts().map(|(rows, part)| (rows.clone(), part.tracked(), part.detached())).collect();
    tape::push(out, move |d, gradients| {
        if to_weights.is_wanted() {
            let d_weights = Tensor::build([n_rows, k], |d_weights| {
                for (rows, _, part) in &parts {
                    for (i, &(row, slot)) in rows.iter().enumerate() {
                        let products = d.row(row).iter().zip(part.row(i)).map(|(d, y)| d * y);
                        d_weights[row * k + slot] = products.sum();
                    }
                }
            });
            gradients.add(&to_weights, d_weights);
        }
        for (rows, to, _) in parts.iter().filter(|(_, to, _)| to.is_wanted()) {
            let d_part = Tensor::build([rows.len(), row_len], |d_part| {
                for (&(row, slot), d_part) in rows.iter().zip(d_part.chunks_exact_mut(row_len)) {
                    let weight = weights.row(row)[slot];
                    d_part.iter_mut().zip(d.row(row)).for_each(|(to, d)| *to = weight * d);
                }
            });
            gradients.add(to, d_part);
        }
    })
}

/// Each element times a random number from `1 − by` to `1 + by`, evenly spread, in place if nobody else holds `x`.
///
/// Source: Switch Transformers, arXiv:2101.03961, section 2.2.
#[track_caller]
pub fn jitter(x: Tensor, by: f32, stream: Stream) -> Tensor {
    assert!((0.0..=1.0).contains(&by), "a jitter of {by}");
    let from = x.tracked();
    let mut out = x.into_unique();
    let multiply = move |values: &mut [f32]| {
        let start = splitmix(stream.seed ^ splitmix(stream.place));
        for (value, i) in values.iter_mut().zip(0u64..) {
            let uniform = (splitmix(start.wrapping_add(i)) >> 40) as f32 / (1u64 << 24) as f32;
            *value *= 1.0 + by * (2.0 * uniform - 1.0);
        }
    };
    multiply(out.unique_data());
    if !from.is_wanted() {
        return out;
    }
    tape::push(out, move |d, gradients| {
        let mut d = d.into_unique();
        multiply(d.unique_data());
        gradients.add(&from, d);
    })
}

/// A number that looks random, of each number another. Source: Steele et al., OOPSLA 2014, figure 16.
fn splitmix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How evenly the experts of a pass are used: the loss that keeps them balanced.
///
/// With f the mean number of times that a row goes to an expert, and P the mean probability that the router gives it,
/// the loss is E · Σ f P over the experts: k when all are used alike. f has no gradient. Source: Switch Transformers,
/// arXiv:2101.03961, section 2.2.
///
/// The loss is of a whole pass; its gradient is added where each router's logits are used ([`route`]), so that a layer
/// may be forgotten and computed again on the way back.
#[derive(Debug)]
pub struct Balance {
    /// What the loss is multiplied by when its gradient is sent back.
    factor: f32,
    scope: Scope,
    sums: Mutex<Sums>,
}

/// Over what the means of [`Balance`] are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Over the rows of all layers at once, as transformers computes it: layers may make up for each other.
    AllLayers,
    /// Over the rows of each layer; the loss is the mean of those of the layers.
    EachLayer,
}

#[derive(Debug, Default)]
struct Sums {
    layers: Vec<LayerSums>,
    /// Whether the forward pass has ended.
    is_closed: bool,
}

/// What is counted of one layer, or of several.
#[derive(Debug, Clone, PartialEq)]
struct LayerSums {
    /// How many rows went to each expert. `[E]`
    counts: Vec<u64>,
    /// The sum of each expert's probabilities over the rows. `[E]`
    probabilities: Vec<f64>,
    n_rows: usize,
}

impl LayerSums {
    fn of(counts: Vec<u64>, probabilities: &Tensor) -> LayerSums {
        let mut sums = vec![0.0; counts.len()];
        for i in 0..probabilities.n_rows() {
            sums.iter_mut().zip(probabilities.row(i)).for_each(|(sum, &p)| *sum += f64::from(p));
        }
        LayerSums { counts, probabilities: sums, n_rows: probabilities.n_rows() }
    }

    /// Of all layers together; nothing if there are none.
    fn total(layers: &[LayerSums]) -> Option<LayerSums> {
        let (first, others) = layers.split_first()?;
        let mut total = first.clone();
        for layer in others {
            total.counts.iter_mut().zip(&layer.counts).for_each(|(sum, count)| *sum += count);
            total.probabilities.iter_mut().zip(&layer.probabilities).for_each(|(sum, p)| *sum += p);
            total.n_rows += layer.n_rows;
        }
        Some(total)
    }

    /// f of each expert.
    fn shares(&self) -> impl Iterator<Item = f64> {
        let n = self.n_rows.max(1) as f64;
        self.counts.iter().map(move |&count| count as f64 / n)
    }

    /// E · Σ f P
    fn loss(&self) -> f64 {
        let products = self.shares().zip(&self.probabilities).map(|(share, p)| share * p);
        self.counts.len() as f64 * products.sum::<f64>() / self.n_rows.max(1) as f64
    }
}

/// What [`Balance`] knows after a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// The loss, without its factor; 0 if no row went through a mixture.
    pub loss: f64,
    /// Of each layer how many rows went to each expert. `[L, E]`
    pub counts: Vec<Vec<u64>>,
}

impl Usage {
    /// The least and the greatest use of an expert, as a part of what it would get if all got the same; 1 if there is
    /// no mixture.
    pub fn extremes(&self) -> (f64, f64) {
        let even = |layer: &Vec<u64>| layer.iter().sum::<u64>() as f64 / layer.len() as f64;
        let shares = self.counts.iter().flat_map(|layer| {
            let even = even(layer).max(f64::MIN_POSITIVE);
            layer.iter().map(move |&count| count as f64 / even)
        });
        let extremes = shares.fold((f64::MAX, 0.0), |(low, high): (f64, f64), x| (low.min(x), high.max(x)));
        if self.counts.is_empty() { (1.0, 1.0) } else { extremes }
    }
}

/// Two are the same if they are one.
impl PartialEq for Balance {
    fn eq(&self, other: &Balance) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Balance {}

impl Balance {
    /// Nothing counted yet; the gradient will be that of `factor` times the loss.
    pub fn new(factor: f32, scope: Scope) -> Balance {
        Balance { factor, scope, sums: Mutex::default() }
    }

    /// What was counted. From now on nothing is added, so that layers may be computed again.
    pub fn close(&self) -> Usage {
        let mut sums = self.sums.lock().expect("nobody panics while counting");
        sums.is_closed = true;
        let loss = match self.scope {
            Scope::AllLayers => LayerSums::total(&sums.layers).map_or(0.0, |total| total.loss()),
            Scope::EachLayer => {
                sums.layers.iter().map(LayerSums::loss).sum::<f64>() / sums.layers.len().max(1) as f64
            }
        };
        Usage { loss, counts: sums.layers.iter().map(|layer| layer.counts.clone()).collect() }
    }

    fn count(&self, layer: LayerSums) {
        let mut sums = self.sums.lock().expect("nobody panics while counting");
        if !sums.is_closed {
            sums.layers.push(layer);
        }
    }

    /// dL / d logits of one layer. probabilities: [T, E] → [T, E]
    fn gradient(&self, probabilities: &Tensor, layer: &LayerSums) -> Tensor {
        let sums = self.sums.lock().expect("nobody panics while counting");
        let (counted, n) = match self.scope {
            Scope::AllLayers => {
                let total = LayerSums::total(&sums.layers).unwrap_or_else(|| layer.clone());
                let n = total.n_rows;
                (total, n)
            }
            Scope::EachLayer => (layer.clone(), layer.n_rows * sums.layers.len()),
        };
        let n_experts = probabilities.row_len();
        let factor = self.factor * n_experts as f32 / n.max(1) as f32;
        Tensor::build([probabilities.n_rows(), n_experts], |d| {
            for row in d.chunks_exact_mut(n_experts) {
                row.iter_mut().zip(counted.shares()).for_each(|(d, share)| *d = factor * share as f32);
            }
            softmax::backward(probabilities.data(), d, n_experts);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient_check::{check, noise};

    /// Logits so far apart that a step of central differences changes no choice.
    fn logits() -> Tensor {
        Tensor::from_vec(
            vec![0.3, -0.9, 1.2, 0.0, -0.2, 0.8, 0.5, -1.0, 0.1, 0.4, -0.4, 0.9, 0.6, 0.2, -0.1, -0.5],
            [4, 4],
        )
    }

    #[test]
    fn a_row_goes_to_its_likeliest_experts_with_weights_that_sum_up_to_one() {
        let routes = route(&logits(), 2, None);
        let rows = [vec![(0, 1), (3, 0)], vec![(1, 0), (2, 1), (3, 1)], vec![(0, 0), (1, 1)], vec![(2, 0)]];
        assert_eq!(routes.rows_of, rows);
        let e = |x: f32| x.exp();
        let expected = e(1.2) / (e(1.2) + e(0.3));
        assert!((routes.weights.row(0)[0] - expected).abs() < 1e-6);
        assert!((routes.weights.row(0).iter().sum::<f32>() - 1.0).abs() < 1e-6);
        let equal = Tensor::from_vec(vec![1.0, 1.0, 1.0], [1, 3]);
        assert_eq!(route(&equal, 2, None).rows_of, [vec![(0, 0)], vec![(0, 1)], vec![]]);
    }

    #[test]
    fn gradients_equal_central_differences() {
        check(&[logits()], &[], |x| route(&x[0], 2, None).weights);
        let parts = [noise(&[2, 3], 1), noise(&[3, 3], 2), noise(&[2, 3], 3), noise(&[1, 3], 4)];
        let inputs: Vec<Tensor> = std::iter::once(logits()).chain(parts).collect();
        check(&inputs, &[], |x| {
            let outputs: Vec<Option<Tensor>> = x[1..].iter().cloned().map(Some).collect();
            combine(&outputs, &route(&x[0], 2, None), 3)
        });
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_has_the_gradient_of_its_factors() {
        let stream = Stream { seed: 3, place: 1 };
        check(&[noise(&[3, 5], 1)], &[], |x| jitter(x[0].clone(), 0.4, stream));
        let ones = jitter(Tensor::from_vec(vec![1.0; 4000], [40, 100]), 0.1, stream);
        assert!(ones.data().iter().all(|x| (0.9..=1.1).contains(x)));
        let mean = ones.data().iter().sum::<f32>() / 4000.0;
        let least = ones.data().iter().copied().fold(2.0, f32::min);
        assert!((mean - 1.0).abs() < 5e-3 && least < 0.905, "{mean} {least}");
    }

    #[test]
    fn the_balance_of_two_layers_has_the_gradient_of_its_loss() {
        let layers = [logits(), noise(&[4, 4], 7)];
        for scope in [Scope::AllLayers, Scope::EachLayer] {
            balance_has_its_gradient(&layers, scope);
        }
    }

    fn balance_has_its_gradient(layers: &[Tensor; 2], scope: Scope) {
        let loss_of = |layers: &[Tensor], balance: &Arc<Balance>| {
            let pass = |x: &Tensor| route(x, 2, Some(balance)).weights;
            (layers.iter().map(pass).collect::<Vec<_>>(), balance.close().loss)
        };
        const FACTOR: f32 = 3.0;
        let balance = Arc::new(Balance::new(FACTOR, scope));
        let ((leaves, sum), tape) = tape::record(|| {
            let leaves: Vec<Tensor> =
                layers.iter().map(|x| x.detached().with_var(Some(tape::fresh()))).collect();
            let outputs = loss_of(&leaves, &balance).0;
            (leaves, outputs[0].clone() + outputs[1].clone())
        });
        // Nothing comes back through the weights but the balance's own.
        let got = tape.backward_from(&sum, Tensor::from_vec(vec![0.0; 8], [4, 2]), &leaves);
        for (layer, got) in got.iter().enumerate() {
            let got = got.as_ref().expect("a gradient arrives");
            for at in 0..16 {
                let moved = |step: f32| {
                    let mut layers = layers.clone();
                    let mut values = layers[layer].data().to_vec();
                    values[at] += step;
                    layers[layer] = Tensor::from_vec(values, [4, 4]);
                    loss_of(&layers, &Arc::new(Balance::new(1.0, scope))).1
                };
                let expected = f64::from(FACTOR) * (moved(1e-3) - moved(-1e-3)) / 2e-3;
                assert!((f64::from(got.data()[at]) - expected).abs() < 2e-3, "layer {layer}, logit {at}");
            }
        }
    }

    #[test]
    fn experts_that_are_used_alike_cost_their_number_per_row() {
        let balance = Arc::new(Balance::new(1.0, Scope::AllLayers));
        let even = Tensor::from_vec(vec![1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0], [2, 4]);
        route(&even, 2, Some(&balance));
        let usage = balance.close();
        assert!((usage.loss - 2.0).abs() < 1e-6 && usage.extremes() == (1.0, 1.0), "{usage:?}");
        // What is computed again on the way back is not counted again.
        route(&even, 2, Some(&balance));
        assert_eq!(balance.close(), usage);
    }
}
