//! Adafactor: second moments of matrices as the product of a row and a column.

use crate::arch::vector::{Vector, at, per_isa, sums};
use crate::{isa, reduce, rows};

/// What all parameters share at a step of Adafactor. Source: arXiv:1804.04235, algorithms 4 and 5, without
/// momentum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adafactor {
    /// ρ, multiplied by max(eps2, RMS(θ)) with `scale_parameter`, or η. See
    /// [`relative_step`](Self::relative_step).
    pub learning_rate: f64,
    /// Whether steps are relative to the size of the values.
    pub scale_parameter: bool,
    /// Second moments decay with 1 − t^−decay_rate.
    pub decay_rate: f64,
    /// Added to the squared gradients.
    pub eps1: f64,
    /// The least RMS of values that a relative step takes.
    pub eps2: f64,
    /// The greatest RMS of an update before the learning rate.
    pub clip_threshold: f64,
    /// λ: values are multiplied by 1 − αλ, α being the step size.
    pub weight_decay: f64,
    /// t: 1 at the first step.
    pub step: u64,
    /// Multiplies each gradient.
    pub gradient_factor: f32,
}

impl Default for Adafactor {
    /// The first step of T5's recipe with a constant rate.
    fn default() -> Adafactor {
        Adafactor {
            learning_rate: 1e-3,
            scale_parameter: true,
            decay_rate: 0.8,
            eps1: 1e-30,
            eps2: 1e-3,
            clip_threshold: 1.0,
            weight_decay: 0.0,
            step: 1,
            gradient_factor: 1.0,
        }
    }
}

impl Adafactor {
    /// ρ_t = min(10⁻², 1 / √t), the paper's learning rate.
    pub fn relative_step(step: u64) -> f64 {
        (1.0 / (step.max(1) as f64).sqrt()).min(1e-2)
    }

    /// Steps a matrix: R ← β₂R + (1 − β₂) mean over columns of (g² + eps1), C likewise over rows,
    /// u = g / √(R Cᵀ / mean(R)), θ ← θ(1 − αλ) − α u / max(1, RMS(u) / clip_threshold).
    ///
    /// `values`, `gradients`: `[N, K]`, `r: [N]`, `c: [K]`, zeros before the first step. Panics if the
    /// lengths do not fit.
    #[track_caller]
    pub fn update_matrix(&self, values: &mut [f32], gradients: &[f32], r: &mut [f32], c: &mut [f32]) {
        let (n_rows, n_cols) = (r.len(), c.len());
        let n = n_rows * n_cols;
        assert!(values.len() == n && gradients.len() == n, "{} values, [{n_rows}, {n_cols}]", values.len());
        if n == 0 {
            return;
        }
        let (isa, beta2) = (isa::active(), self.beta2());
        let square = f64::from(self.gradient_factor).powi(2);
        let mean = |old: f32, sum: f32, n: usize| {
            (beta2 * f64::from(old) + (1.0 - beta2) * (f64::from(sum) * square / n as f64 + self.eps1)) as f32
        };
        let mut row_sums = vec![0f32; n_rows];
        let col_sums =
            rows::sum_over_blocks(n_rows, n_cols, [&mut row_sums], n_cols, |rows, [row_sums], sums| {
                squares_rows(isa, &gradients[rows.start * n_cols..rows.end * n_cols], row_sums, sums)
            });
        r.iter_mut().zip(&row_sums).for_each(|(r, &sum)| *r = mean(*r, sum, n_cols));
        c.iter_mut().zip(&col_sums).for_each(|(c, &sum)| *c = mean(*c, sum, n_rows));
        // u = g · r_factor · c_factor; the gradient's factor goes with the rows.
        let mean_r = r.iter().map(|&r| f64::from(r)).sum::<f64>() / n_rows as f64;
        let c_factors: Vec<f32> = c.iter().map(|&c| (1.0 / f64::from(c).sqrt()) as f32).collect();
        let r_factor = |r: f32| f64::from(self.gradient_factor) * (mean_r / f64::from(r)).sqrt();
        rows::for_each_block_of(n_rows, n_cols, [&mut row_sums], |rows, [row_sums]| {
            scaled_squares_rows(isa, &gradients[rows.start * n_cols..rows.end * n_cols], &c_factors, row_sums)
        });
        let squares: f64 =
            r.iter().zip(&row_sums).map(|(&r, &sum)| r_factor(r).powi(2) * f64::from(sum)).sum();
        let (keep, rate) = self.rates(values, squares);
        let r = &*r;
        rows::for_each_block_of(n_rows, n_cols, [values], |rows, [values]| {
            for (t, values) in rows.zip(values.chunks_exact_mut(n_cols)) {
                let gradients = &gradients[t * n_cols..(t + 1) * n_cols];
                step_row(isa, values, gradients, &c_factors, keep, (rate * r_factor(r[t])) as f32);
            }
        });
    }

    /// Steps what is no matrix, with whole second moments: v ← β₂v + (1 − β₂)(g² + eps1), u = g / √v, then as
    /// a matrix.
    ///
    /// `values`, `gradients` and `v`, zeros before the first step, have the same length, else it panics.
    #[track_caller]
    pub fn update_vector(&self, values: &mut [f32], gradients: &[f32], v: &mut [f32]) {
        let n = values.len();
        assert!(gradients.len() == n && v.len() == n, "moments and gradients of {n} values");
        let (isa, beta2) = (isa::active(), self.beta2());
        let gains = [beta2 as f32, (1.0 - beta2) as f32, self.eps1 as f32, self.gradient_factor];
        rows::for_each_block_of(n, 1, [&mut *v], |range, [v]| moment_block(isa, &gradients[range], v, gains));
        let direction = |(&g, &v): (&f32, &f32)| f64::from(g * self.gradient_factor).powi(2) / f64::from(v);
        let squares = gradients.iter().zip(&*v).map(direction).sum();
        let (keep, rate) = self.rates(values, squares);
        let (rate, v) = ((rate * f64::from(self.gradient_factor)) as f32, &*v);
        rows::for_each_block_of(n, 1, [values], |range, [values]| {
            step_vector_block(isa, values, &gradients[range.clone()], &v[range], keep, rate)
        });
    }

    fn beta2(&self) -> f64 {
        1.0 - (self.step as f64).powf(-self.decay_rate)
    }

    /// 1 − αλ, and −α over the clipping of an update whose squares sum up to `squares`.
    fn rates(&self, values: &[f32], squares: f64) -> (f32, f64) {
        let n = values.len() as f64;
        let size = if self.scale_parameter {
            (reduce::sum_of_squares(values) / n).sqrt().max(self.eps2)
        } else {
            1.0
        };
        let alpha = self.learning_rate * size;
        let clip = ((squares / n).sqrt() / self.clip_threshold).max(1.0);
        ((1.0 - alpha * self.weight_decay) as f32, -alpha / clip)
    }
}

per_isa! { fn squares_rows(gradients: &[f32], row_sums: &mut [f32], col_sums: &mut [f32]) = squares_body }
per_isa! { fn scaled_squares_rows(gradients: &[f32], c: &[f32], row_sums: &mut [f32]) = scaled_squares_body }
per_isa! {
    fn step_row(values: &mut [f32], gradients: &[f32], c: &[f32], keep: f32, rate: f32) = step_row_body
}
per_isa! { fn moment_block(gradients: &[f32], v: &mut [f32], gains: [f32; 4]) = moment_body }
per_isa! {
    fn step_vector_block(values: &mut [f32], gradients: &[f32], v: &[f32], keep: f32, rate: f32) = step_vector_body
}

/// Writes the sum of the squares of each row, adds those of the columns to `col_sums`.
#[inline(always)]
fn squares_body<V: Vector>(gradients: &[f32], row_sums: &mut [f32], col_sums: &mut [f32]) {
    for (row, sum) in gradients.chunks_exact(col_sums.len()).zip(row_sums) {
        let mut sums = [V::splat(0.0); 2];
        for i in (0..row.len()).step_by(V::LANES) {
            let g: V = at(row, i);
            let lane = &mut sums[i / V::LANES % 2];
            *lane = g.mul_add(g, *lane);
            g.mul_add(g, V::load_slice(&col_sums[i..], 0.0)).store_slice(&mut col_sums[i..]);
        }
        *sum = sums[0].add(sums[1]).reduce_add();
    }
}

#[inline(always)]
fn scaled_squares_body<V: Vector>(gradients: &[f32], c: &[f32], row_sums: &mut [f32]) {
    for (row, sum) in gradients.chunks_exact(c.len()).zip(row_sums) {
        [*sum] = sums!(V, 1, row.len(), |i| {
            let u = at::<V>(row, i).mul(at(c, i));
            [u.mul(u)]
        });
    }
}

#[inline(always)]
fn step_row_body<V: Vector>(values: &mut [f32], gradients: &[f32], c: &[f32], keep: f32, rate: f32) {
    let (keep, rate) = (V::splat(keep), V::splat(rate));
    for i in (0..values.len()).step_by(V::LANES) {
        let u = at::<V>(gradients, i).mul(at(c, i));
        u.mul_add(rate, at::<V>(values, i).mul(keep)).store_slice(&mut values[i..]);
    }
}

#[inline(always)]
fn moment_body<V: Vector>(gradients: &[f32], v: &mut [f32], gains: [f32; 4]) {
    let [beta2, gain2, eps1, factor] = gains.map(V::splat);
    for i in (0..v.len()).step_by(V::LANES) {
        let g = at::<V>(gradients, i).mul(factor);
        g.mul_add(g, eps1).mul_add(gain2, at::<V>(v, i).mul(beta2)).store_slice(&mut v[i..]);
    }
}

#[inline(always)]
fn step_vector_body<V: Vector>(values: &mut [f32], gradients: &[f32], v: &[f32], keep: f32, rate: f32) {
    let (keep, rate) = (V::splat(keep), V::splat(rate));
    for i in (0..values.len()).step_by(V::LANES) {
        // Lanes past the end are 0 / 0, which is not stored.
        let u = at::<V>(gradients, i).div(at::<V>(v, i).sqrt());
        u.mul_add(rate, at::<V>(values, i).mul(keep)).store_slice(&mut values[i..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, dot, noise, wide};

    /// The algorithm of `transformers.Adafactor`, literally, in f64; a vector is given as `n_rows` 0.
    fn reference(options: Adafactor, values: &[f32], gradients: &[&[f32]], n_rows: usize) -> Vec<f32> {
        let mut values = wide(values);
        let n = values.len();
        let n_cols = n / n_rows.max(1);
        let (mut r, mut c, mut v) = (vec![0.0; n_rows], vec![0.0; n_cols], vec![0.0; n]);
        let rms = |x: &[f64]| (dot(x, x) / x.len() as f64).sqrt();
        for (t, gradients) in gradients.iter().enumerate() {
            let beta2 = 1.0 - (t as f64 + 1.0).powf(-options.decay_rate);
            let g: Vec<f64> =
                wide(gradients).iter().map(|g| g * f64::from(options.gradient_factor)).collect();
            let square = |i: usize| g[i] * g[i] + options.eps1;
            let mut u: Vec<f64> = if n_rows == 0 {
                (0..n).for_each(|i| v[i] = beta2 * v[i] + (1.0 - beta2) * square(i));
                (0..n).map(|i| g[i] / v[i].sqrt()).collect()
            } else {
                for (i, r) in r.iter_mut().enumerate() {
                    let mean = (0..n_cols).map(|j| square(i * n_cols + j)).sum::<f64>() / n_cols as f64;
                    *r = beta2 * *r + (1.0 - beta2) * mean;
                }
                for (j, c) in c.iter_mut().enumerate() {
                    let mean = (0..n_rows).map(|i| square(i * n_cols + j)).sum::<f64>() / n_rows as f64;
                    *c = beta2 * *c + (1.0 - beta2) * mean;
                }
                let mean = r.iter().sum::<f64>() / n_rows as f64;
                (0..n).map(|i| g[i] / (r[i / n_cols] / mean * c[i % n_cols]).sqrt()).collect()
            };
            let size = if options.scale_parameter { rms(&values).max(options.eps2) } else { 1.0 };
            let (clip, alpha) = ((rms(&u) / options.clip_threshold).max(1.0), options.learning_rate * size);
            u.iter_mut().for_each(|u| *u /= clip);
            for i in 0..n {
                values[i] -= alpha * options.weight_decay * values[i] + alpha * u[i];
            }
        }
        values.iter().map(|&x| x as f32).collect()
    }

    #[test]
    fn three_steps_are_those_of_the_algorithm() {
        let t5 = Adafactor { learning_rate: 0.1, gradient_factor: 0.5, ..Adafactor::default() };
        let fixed = Adafactor { scale_parameter: false, weight_decay: 0.1, clip_threshold: 0.5, ..t5 };
        for options in [t5, fixed] {
            for (n_rows, n_cols) in [(1, 1), (3, 7), (16, 17), (33, 2), (200, 300)] {
                let n = n_rows * n_cols;
                let values = noise(n, 1);
                let gradients = [noise(n, 2), noise(n, 3), noise(n, 4)];
                let list: Vec<&[f32]> = gradients.iter().map(|g| &g[..]).collect();
                let (mut matrix, mut vector) = (values.clone(), values.clone());
                let (mut r, mut c, mut v) = (vec![0.0; n_rows], vec![0.0; n_cols], vec![0.0; n]);
                for (t, gradients) in gradients.iter().enumerate() {
                    let options = Adafactor { step: t as u64 + 1, ..options };
                    options.update_matrix(&mut matrix, gradients, &mut r, &mut c);
                    options.update_vector(&mut vector, gradients, &mut v);
                }
                assert_close(&matrix, &reference(options, &values, &list, n_rows), 2e-6);
                assert_close(&vector, &reference(options, &values, &list, 0), 2e-6);
            }
        }
    }

    #[test]
    fn threads_change_nothing_and_zero_gradients_move_nothing() {
        let (n_rows, n_cols) = (300, 217);
        let (values, gradients) = (noise(n_rows * n_cols, 1), noise(n_rows * n_cols, 2));
        let run = |n_threads| {
            crate::threads::set_threads(n_threads);
            let (mut matrix, mut r, mut c) = (values.clone(), vec![0.0; n_rows], vec![0.0; n_cols]);
            Adafactor::default().update_matrix(&mut matrix, &gradients, &mut r, &mut c);
            (matrix, r, c)
        };
        assert!(run(1) == run(2));
        let (mut got, mut r, mut c) = (values.clone(), vec![0.0; n_rows], vec![0.0; n_cols]);
        Adafactor::default().update_matrix(&mut got, &vec![0.0; values.len()], &mut r, &mut c);
        assert!(got == values);
    }

    #[test]
    fn relative_steps_fall_with_the_root_of_time() {
        assert_eq!(Adafactor::relative_step(1), 1e-2);
        assert_eq!(Adafactor::relative_step(10_000), 1e-2);
        assert_eq!(Adafactor::relative_step(40_000), 5e-3);
    }
}
