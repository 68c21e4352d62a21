//! Scaling laws: the loss of a large run, told from small ones.
//!
//! [`PowerLaw`] is loss against compute with a part that no compute removes, as in GPT-4's report; [`ParametricLaw`] is
//! Chinchilla's, of parameters and tokens apart. Both are fitted to the logarithm of the loss, so that an error of one
//! per cent counts alike everywhere. A prediction far beyond the points is a guess whatever the interval says.

use rhetor_generate::Rng;

use crate::random::keyed;

/// L(C) = a · C^b + c. Source: GPT-4 Technical Report, arXiv:2303.08774, section 3.1.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct PowerLaw {
    /// Positive.
    pub a: f64,
    /// Negative.
    pub b: f64,
    /// The loss that is left, nats; 0 or more.
    pub c: f64,
}

/// What a law says with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// 2.5 % of the resampled predictions are lower.
    pub low: f64,
    /// 2.5 % are higher.
    pub high: f64,
}

impl PowerLaw {
    /// The loss at this compute, in nats.
    pub fn loss(&self, compute: f64) -> f64 {
        self.a * compute.powf(self.b) + self.c
    }

    /// Fits (compute, loss) of at least three runs: a grid over c with a straight line through log(L − c), then
    /// Levenberg–Marquardt on all three.
    ///
    /// `None`: fewer points, or numbers that are not positive, or losses that do not fall.
    pub fn fit(points: &[(f64, f64)]) -> Option<PowerLaw> {
        let is_usable = |&(compute, loss): &(f64, f64)| compute > 0.0 && loss > 0.0 && loss.is_finite();
        if points.len() < 3 || !points.iter().all(is_usable) {
            return None;
        }
        // In units of the middle compute, so that a and b do not move together.
        let n = points.len() as f64;
        let middle = (points.iter().map(|(compute, _)| compute.ln()).sum::<f64>() / n).exp();
        let low = points.iter().map(|&(_, loss)| loss).fold(f64::INFINITY, f64::min);
        let residuals = |[log_a, b, c]: &[f64; 3]| -> Vec<f64> {
            let loss = |compute: f64| (log_a + b * (compute / middle).ln()).exp() + c;
            points.iter().map(|&(compute, measured)| loss(compute).ln() - measured.ln()).collect()
        };
        let square = |at: &[f64; 3]| residuals(at).iter().map(|r| r * r).sum::<f64>();
        let candidates = (0..GRID).filter_map(|i| {
            let c = low * i as f64 / GRID as f64;
            let line: Vec<(f64, f64)> =
                points.iter().map(|&(compute, loss)| ((compute / middle).ln(), (loss - c).ln())).collect();
            let (log_a, b) = straight_line(&line)?;
            (b < 0.0).then_some([log_a, b, c])
        });
        let start = candidates.min_by(|x, y| square(x).total_cmp(&square(y)))?;
        let [log_a, b, c] = least_squares(start, residuals, |at| at[1] < 0.0 && (0.0..low).contains(&at[2]));
        Some(PowerLaw { a: (log_a - b * middle.ln()).exp(), b, c })
    }

    /// Where the loss at `compute` lies, from fits to `n` resamplings of the points; `None` if they are too few to tell.
    pub fn interval(points: &[(f64, f64)], compute: f64, n: usize, seed: u64) -> Option<Interval> {
        let resampled = (0..n as u64).filter_map(|i| {
            let mut rng: Rng = keyed(seed, 0, i);
            let draw = |_| points[((rng.uniform() * points.len() as f64) as usize).min(points.len() - 1)];
            let drawn: Vec<(f64, f64)> = (0..points.len()).map(draw).collect();
            let mut distinct: Vec<u64> = drawn.iter().map(|(compute, _)| compute.to_bits()).collect();
            distinct.sort_unstable();
            distinct.dedup();
            // Fewer places than unknowns fit anything.
            if distinct.len() < 3 { None } else { Some(PowerLaw::fit(&drawn)?.loss(compute)) }
        });
        let mut losses: Vec<f64> = resampled.collect();
        if losses.len() < 20 {
            return None;
        }
        losses.sort_by(f64::total_cmp);
        let at = |share: f64| losses[((losses.len() - 1) as f64 * share).round() as usize];
        Some(Interval { low: at(0.025), high: at(0.975) })
    }
}

/// Values of c that are tried first.
const GRID: usize = 200;

/// L(N, D) = E + A / N^α + B / D^β. Source: Training Compute-Optimal Large Language Models, arXiv:2203.15556, section
/// 3.3.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct ParametricLaw {
    /// The loss that is left, nats.
    pub e: f64,
    /// Of parameters.
    pub a: f64,
    /// Of tokens.
    pub b: f64,
    /// Of parameters.
    pub alpha: f64,
    /// Of tokens.
    pub beta: f64,
}

impl ParametricLaw {
    /// The loss of `n_parameters` trained on `n_tokens`, in nats.
    pub fn loss(&self, n_parameters: f64, n_tokens: f64) -> f64 {
        self.e + self.a * n_parameters.powf(-self.alpha) + self.b * n_tokens.powf(-self.beta)
    }

    /// The parameters and tokens that make the most of C = 6 N D multiplications and additions: equation 4.
    pub fn best(&self, compute: f64) -> (f64, f64) {
        let g = (self.alpha * self.a / (self.beta * self.b)).powf(1.0 / (self.alpha + self.beta));
        let n = g * (compute / 6.0).powf(self.beta / (self.alpha + self.beta));
        (n, compute / 6.0 / n)
    }

    /// Fits (parameters, tokens, loss) of at least five runs by Huber's loss with δ = 10⁻³ of the logarithm of the loss, from
    /// a grid of starts. The paper minimises the same by L-BFGS; here least squares are reweighted.
    pub fn fit(points: &[(f64, f64, f64)]) -> Option<ParametricLaw> {
        let is_usable = |&(n, d, loss): &(f64, f64, f64)| n > 0.0 && d > 0.0 && loss > 0.0;
        if points.len() < 5 || !points.iter().all(is_usable) {
            return None;
        }
        let middle = |of: fn(&(f64, f64, f64)) -> f64| {
            (points.iter().map(|point| of(point).ln()).sum::<f64>() / points.len() as f64).exp()
        };
        let (n_middle, d_middle) = (middle(|point| point.0), middle(|point| point.1));
        let plain = |[a, b, e, alpha, beta]: &[f64; 5]| -> Vec<f64> {
            let loss = |n: f64, d: f64| {
                (a - alpha * (n / n_middle).ln()).exp() + (b - beta * (d / d_middle).ln()).exp() + e.exp()
            };
            points.iter().map(|&(n, d, measured)| loss(n, d).ln() - measured.ln()).collect()
        };
        let huber = |at: &[f64; 5]| -> f64 {
            let one = |r: f64| if r.abs() <= DELTA { r * r / 2.0 } else { DELTA * (r.abs() - DELTA / 2.0) };
            plain(at).into_iter().map(one).sum()
        };
        let mean = points.iter().map(|&(_, _, loss)| loss).sum::<f64>() / points.len() as f64;
        let mut best: Option<([f64; 5], f64)> = None;
        for shares in [[0.2, 0.2, 0.6], [0.4, 0.2, 0.4], [0.2, 0.4, 0.4], [0.05, 0.05, 0.9]] {
            for exponents in [[0.2, 0.2], [0.5, 0.5], [0.2, 0.6], [0.6, 0.2]] {
                let [a, b, e] = shares.map(|share: f64| (share * mean).ln());
                let mut at = [a, b, e, exponents[0], exponents[1]];
                for _ in 0..ROUNDS {
                    let weights: Vec<f64> =
                        plain(&at).iter().map(|r| (DELTA / r.abs().max(DELTA)).sqrt()).collect();
                    let weighted = |at: &[f64; 5]| -> Vec<f64> {
                        plain(at).iter().zip(&weights).map(|(r, weight)| r * weight).collect()
                    };
                    at = least_squares(at, weighted, |at| at[3] > 0.0 && at[4] > 0.0);
                }
                let loss = huber(&at);
                if loss.is_finite() && best.is_none_or(|(_, least)| loss < least) {
                    best = Some((at, loss));
                }
            }
        }
        let ([a, b, e, alpha, beta], _) = best?;
        let unit = |log: f64, exponent: f64, middle: f64| (log + exponent * middle.ln()).exp();
        Some(ParametricLaw {
            e: e.exp(),
            a: unit(a, alpha, n_middle),
            b: unit(b, beta, d_middle),
            alpha,
            beta,
        })
    }
}

/// Where Huber's loss becomes straight.
const DELTA: f64 = 1e-3;
/// Times that the weights of least squares are found anew.
const ROUNDS: usize = 20;

/// (intercept, slope) of the straight line nearest to the points; `None` if they stand above each other.
fn straight_line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let n = points.len() as f64;
    let (mean_x, mean_y) =
        (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let spread: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let slope = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum::<f64>() / spread;
    slope.is_finite().then_some((mean_y - slope * mean_x, slope))
}

/// The nearest minimum of the sum of squares, by Levenberg–Marquardt with differences for derivatives; it never leaves
/// what `is_allowed`.
fn least_squares<const N: usize>(
    start: [f64; N],
    residuals: impl Fn(&[f64; N]) -> Vec<f64>,
    is_allowed: impl Fn(&[f64; N]) -> bool,
) -> [f64; N] {
    let square = |r: &[f64]| r.iter().map(|r| r * r).sum::<f64>();
    let (mut at, mut damping) = (start, 1e-3);
    let mut r = residuals(&at);
    for _ in 0..200 {
        let columns: [Vec<f64>; N] = std::array::from_fn(|i| {
            let h = 1e-6 * at[i].abs().max(1e-3);
            let [mut above, mut below] = [at; 2];
            (above[i], below[i]) = (at[i] + h, at[i] - h);
            let difference = |(above, below): (f64, f64)| (above - below) / (2.0 * h);
            residuals(&above).into_iter().zip(residuals(&below)).map(difference).collect()
        });
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let right: [f64; N] = std::array::from_fn(|i| -product(&columns[i], &r));
        let mut is_better = false;
        while damping < 1e12 && !is_better {
            let matrix: [[f64; N]; N] = std::array::from_fn(|i| {
                std::array::from_fn(|j| {
                    let value = product(&columns[i], &columns[j]);
                    if i == j { value * (1.0 + damping) + 1e-300 } else { value }
                })
            });
            let step = solve(matrix, right);
            let next: [f64; N] = std::array::from_fn(|i| at[i] + step[i]);
            let next_r = residuals(&next);
            if is_allowed(&next) && square(&next_r) < square(&r) {
                let gain = 1.0 - square(&next_r) / square(&r);
                (at, r, damping, is_better) = (next, next_r, damping / 10.0, true);
                if gain < 1e-12 {
                    return at;
                }
            } else {
                damping *= 10.0;
            }
        }
        if !is_better {
            break;
        }
    }
    at
}

/// The solution of `matrix` · x = `right`, by elimination with row exchanges.
fn solve<const N: usize>(mut matrix: [[f64; N]; N], mut right: [f64; N]) -> [f64; N] {
    for i in 0..N {
        let pivot = (i..N).max_by(|&x, &y| matrix[x][i].abs().total_cmp(&matrix[y][i].abs())).unwrap_or(i);
        matrix.swap(i, pivot);
        right.swap(i, pivot);
        for row in i + 1..N {
            let factor = matrix[row][i] / matrix[i][i];
            let above = matrix[i];
            matrix[row].iter_mut().zip(above).for_each(|(value, above)| *value -= factor * above);
            right[row] -= factor * right[i];
        }
    }
    for i in (0..N).rev() {
        let known: f64 = (i + 1..N).map(|j| matrix[i][j] * right[j]).sum();
        right[i] = (right[i] - known) / matrix[i][i];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A factor near 1, with deviation `size`.
    fn noise(i: u64, size: f64) -> f64 {
        let mut rng = keyed(1, 2, i);
        // A sum of twelve uniform numbers has deviation 1.
        1.0 + size * ((0..12).map(|_| rng.uniform()).sum::<f64>() - 6.0)
    }

    #[track_caller]
    fn near(found: f64, planted: f64, share: f64) {
        assert!((found - planted).abs() < share * planted.abs(), "{found}, planted {planted}");
    }

    #[test]
    fn a_planted_law_is_found_within_two_per_cent_of_noisy_points() {
        let planted = PowerLaw { a: 400.0, b: -0.17, c: 1.2 };
        let point = |i: u64| {
            let compute = 1e10 * 10f64.powf(i as f64 * 0.2);
            (compute, planted.loss(compute) * noise(i, 2e-4))
        };
        let points: Vec<(f64, f64)> = (0..30).map(point).collect();
        let found = PowerLaw::fit(&points).unwrap();
        near(found.b, planted.b, 0.02);
        near(found.c, planted.c, 0.02);
        // a is the loss at a compute of one, 23 powers of e below the points: its logarithm is what they tell.
        near(found.a.ln(), planted.a.ln(), 0.02);
        let far = 1e17;
        near(found.loss(far), planted.loss(far), 0.005);
        let interval = PowerLaw::interval(&points, far, 200, 0).unwrap();
        assert!(interval.low <= found.loss(far) && found.loss(far) <= interval.high, "{interval:?}");
        assert!(interval.high - interval.low < 0.05, "{interval:?}");
    }

    #[test]
    fn points_without_noise_give_the_law_itself() {
        let planted = PowerLaw { a: 30.0, b: -0.1, c: 0.0 };
        let points: Vec<(f64, f64)> =
            [1e9, 1e10, 1e11, 1e12].map(|compute| (compute, planted.loss(compute))).to_vec();
        let found = PowerLaw::fit(&points).unwrap();
        near(found.b, planted.b, 0.001);
        assert!(found.c < 1e-3, "{found:?}");
    }

    #[test]
    fn what_is_no_law_is_not_fitted() {
        assert_eq!(PowerLaw::fit(&[(1.0, 2.0), (2.0, 1.0)]), None);
        assert_eq!(PowerLaw::fit(&[(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]), None);
        assert_eq!(PowerLaw::fit(&[(1.0, 3.0), (2.0, f64::NAN), (3.0, 1.0)]), None);
        assert_eq!(PowerLaw::interval(&[(1.0, 3.0), (2.0, 2.0)], 1.0, 100, 0), None);
    }

    #[test]
    fn the_law_of_chinchilla_is_found_again() {
        let planted = ParametricLaw { e: 1.69, a: 406.4, b: 410.7, alpha: 0.34, beta: 0.28 };
        let mut points = Vec::new();
        for n in [1e7, 3e7, 1e8, 3e8, 1e9, 3e9, 1e10] {
            for tokens in [1e9, 4e9, 1.6e10, 6.4e10, 2.56e11] {
                points.push((n, tokens, planted.loss(n, tokens) * noise(points.len() as u64, 1e-4)));
            }
        }
        let found = ParametricLaw::fit(&points).unwrap();
        near(found.alpha, planted.alpha, 0.02);
        near(found.beta, planted.beta, 0.02);
        near(found.e, planted.e, 0.02);
        let (n, tokens) = found.best(5.76e23);
        near(6.0 * n * tokens, 5.76e23, 1e-9);
        let (n_planted, _) = planted.best(5.76e23);
        near(n, n_planted, 0.1);
    }
}
