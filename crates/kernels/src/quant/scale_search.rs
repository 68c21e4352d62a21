//! The searches for the scale (and offset) of a sub-block that leave the least weighted squared error.
//!
//! A candidate scale gives each value its nearest level; for these levels the best scale follows by least squares;
//! of some twenty candidates the best is kept. All searches run over several sub-blocks side by side, one a lane:
//! `values[i][lane]`. Each lane computes exactly what it would compute alone, in the same order.
//!
//! Source: ggml (MIT), `make_qx_quants`, `make_q3_quants`, `make_qkx3_quants`, `make_qp_quants`.

// Lanes are indexed, so that all of them advance in one inner loop that the compiler turns into vector code.
#![allow(clippy::needless_range_loop)]

use std::array::from_fn;

use super::levels::nearest;

/// Sub-blocks whose values are all smaller than this count as zero.
pub(super) const TINY: f32 = 1e-15;

/// Scales without offset, and levels from `-half` to `half - 1`, stored with `half` added.
pub(super) struct Symmetric<const N: usize, const LANES: usize> {
    pub scale: [f32; LANES],
    pub levels: [[u8; LANES]; N],
}

/// Scales and offsets: a value is `scale * level - min`.
pub(super) struct Affine<const N: usize, const LANES: usize> {
    pub scale: [f32; LANES],
    /// At least 0: the least value of the sub-block is `-min`.
    pub min: [f32; LANES],
    pub levels: [[u8; LANES]; N],
}

/// Which candidates [`affine`] tries: the greatest level counts as `first + i * step` more than it is.
#[derive(Clone, Copy)]
pub(super) struct Candidates {
    pub first: f32,
    pub step: f32,
    /// Candidates after the first.
    pub n_steps: i32,
    pub error: Error,
}

/// What is summed over a sub-block.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Error {
    Absolute,
    Squared,
}

/// The sum over `i` of `term(i, lane)`, in the order of `i`, for each lane.
///
/// One sum a loop: with several, the compiler takes the lanes apart.
#[inline(always)]
fn sum<const N: usize, const LANES: usize>(term: impl Fn(usize, usize) -> f32) -> [f32; LANES] {
    let mut sum = [0f32; LANES];
    for i in 0..N {
        for s in 0..LANES {
            sum[s] += term(i, s);
        }
    }
    sum
}

/// `f(i, lane)` for each value.
#[inline(always)]
fn each<const N: usize, const LANES: usize>(f: impl Fn(usize, usize) -> f32) -> [[f32; LANES]; N] {
    let mut out = [[0f32; LANES]; N];
    for i in 0..N {
        for s in 0..LANES {
            out[i][s] = f(i, s);
        }
    }
    out
}

/// The weighted sums that least squares without offset needs.
#[inline(always)]
fn symmetric_sums<const N: usize, const LANES: usize>(
    half: i32,
    inverse: [f32; LANES],
    values: &[[f32; LANES]; N],
    weights: &[[f32; LANES]; N],
) -> ([f32; LANES], [f32; LANES]) {
    let (mut sum_lx, mut sum_l2) = ([0f32; LANES], [0f32; LANES]);
    for i in 0..N {
        for s in 0..LANES {
            let (x, w) = (values[i][s], weights[i][s]);
            let level = nearest(inverse[s] * x).clamp(-half, half - 1) as f32;
            sum_lx[s] += w * x * level;
            sum_l2[s] += w * level * level;
        }
    }
    (sum_lx, sum_l2)
}

/// The value of greatest magnitude of each lane.
#[inline(always)]
fn extremes<const N: usize, const LANES: usize>(values: &[[f32; LANES]; N]) -> [f32; LANES] {
    let mut extreme = [0f32; LANES];
    for i in 0..N {
        for s in 0..LANES {
            extreme[s] = if values[i][s].abs() > extreme[s].abs() { values[i][s] } else { extreme[s] };
        }
    }
    extreme
}

/// Searches scales without offset: 19 candidates near the one that maps the extreme to `-half`.
#[inline(always)]
pub(super) fn symmetric<const N: usize, const LANES: usize>(
    half: i32,
    values: &[[f32; LANES]; N],
    weights: &[[f32; LANES]; N],
) -> Symmetric<N, LANES> {
    let extreme = extremes(values);
    let mut best_inverse: [f32; LANES] = from_fn(|s| -half as f32 / extreme[s]);
    let (sum_lx, sum_l2) = symmetric_sums(half, best_inverse, values, weights);
    let mut scale: [f32; LANES] = from_fn(|s| if sum_l2[s] != 0.0 { sum_lx[s] / sum_l2[s] } else { 0.0 });
    let mut best: [f32; LANES] = from_fn(|s| scale[s] * sum_lx[s]);
    for candidate in (-9..=9).filter(|&candidate| candidate != 0) {
        let top = -(half as f32 + 0.1 * candidate as f32);
        let inverse: [f32; LANES] = from_fn(|s| top / extreme[s]);
        let (sum_lx, sum_l2) = symmetric_sums(half, inverse, values, weights);
        for s in 0..LANES {
            let better = sum_l2[s] > 0.0 && sum_lx[s] * sum_lx[s] > best[s] * sum_l2[s];
            let this_scale = sum_lx[s] / sum_l2[s];
            scale[s] = if better { this_scale } else { scale[s] };
            best[s] = if better { this_scale * sum_lx[s] } else { best[s] };
            best_inverse[s] = if better { inverse[s] } else { best_inverse[s] };
        }
    }
    let zero: [bool; LANES] = from_fn(|s| extreme[s].abs() < TINY);
    let levels = from_fn(|i| {
        from_fn(|s| {
            let level = half + nearest(best_inverse[s] * values[i][s]).clamp(-half, half - 1);
            if zero[s] { 0 } else { level as u8 }
        })
    });
    Symmetric { scale: from_fn(|s| if zero[s] { 0.0 } else { scale[s] }), levels }
}

/// Searches scales without offset by moving one level after the other to where the error falls, at most five times
/// over. The weight of a value is its square.
#[inline(always)]
pub(super) fn symmetric_by_moves<const N: usize, const LANES: usize>(
    half: i32,
    values: &[[f32; LANES]; N],
) -> Symmetric<N, LANES> {
    let extreme = extremes(values);
    let mut levels = [[0i32; LANES]; N];
    let (mut sum_lx, mut sum_l2) = ([0f32; LANES], [0f32; LANES]);
    let inverse: [f32; LANES] = from_fn(|s| -half as f32 / extreme[s]);
    for i in 0..N {
        for s in 0..LANES {
            let x = values[i][s];
            let level = nearest(inverse[s] * x).clamp(-half, half - 1);
            levels[i][s] = level;
            let (w, level) = (x * x, level as f32);
            sum_lx[s] += w * x * level;
            sum_l2[s] += w * level * level;
        }
    }
    for _ in 0..5 {
        let mut moved = false;
        for i in 0..N {
            for s in 0..LANES {
                let (x, old) = (values[i][s], levels[i][s] as f32);
                let w = x * x;
                let (rest_lx, rest_l2) = (sum_lx[s] - w * x * old, sum_l2[s] - w * old * old);
                let level = nearest(x * rest_l2 / rest_lx).clamp(-half, half - 1);
                let new = level as f32;
                let (new_lx, new_l2) = (rest_lx + w * x * new, rest_l2 + w * new * new);
                let better = rest_lx > 0.0
                    && level != levels[i][s]
                    && new_l2 > 0.0
                    && new_lx * new_lx * sum_l2[s] > sum_lx[s] * sum_lx[s] * new_l2;
                levels[i][s] = if better { level } else { levels[i][s] };
                sum_lx[s] = if better { new_lx } else { sum_lx[s] };
                sum_l2[s] = if better { new_l2 } else { sum_l2[s] };
                moved |= better;
            }
        }
        if !moved {
            break;
        }
    }
    let zero: [bool; LANES] = from_fn(|s| extreme[s].abs() < TINY);
    Symmetric {
        scale: from_fn(|s| if sum_l2[s] > 0.0 && !zero[s] { sum_lx[s] / sum_l2[s] } else { 0.0 }),
        levels: from_fn(|i| from_fn(|s| if zero[s] { 0 } else { (levels[i][s] + half) as u8 })),
    }
}

/// Searches scales and offsets for levels from 0 to `top`.
#[inline(always)]
pub(super) fn affine<const N: usize, const LANES: usize>(
    top: i32,
    values: &[[f32; LANES]; N],
    weights: &[[f32; LANES]; N],
    candidates: Candidates,
) -> Affine<N, LANES> {
    let (mut min, mut max, mut sum_w) = (values[0], values[0], weights[0]);
    let mut sum_x: [f32; LANES] = from_fn(|s| weights[0][s] * values[0][s]);
    for i in 1..N {
        for s in 0..LANES {
            let (x, w) = (values[i][s], weights[i][s]);
            min[s] = if x < min[s] { x } else { min[s] };
            max[s] = if x > max[s] { x } else { max[s] };
            sum_w[s] += w;
            sum_x[s] += w * x;
        }
    }
    for s in 0..LANES {
        min[s] = if min[s] > 0.0 { 0.0 } else { min[s] };
    }
    let flat: [bool; LANES] = from_fn(|s| max[s] <= min[s]);
    let distance = |difference: f32| match candidates.error {
        Error::Absolute => difference.abs(),
        Error::Squared => difference * difference,
    };

    // The plain choice: the range of the values is the range of the levels.
    let mut best_inverse: [f32; LANES] = from_fn(|s| top as f32 / (max[s] - min[s]));
    let mut best_offset = min;
    let mut scale: [f32; LANES] = from_fn(|s| 1.0 / best_inverse[s]);
    let mut best_error = sum::<N, LANES>(|i, s| {
        let level = nearest(best_inverse[s] * (values[i][s] - min[s])).clamp(0, top) as f32;
        weights[i][s] * distance(scale[s] * level + min[s] - values[i][s])
    });

    for candidate in 0..=candidates.n_steps {
        let range = candidates.first + candidates.step * candidate as f32 + top as f32;
        let inverse: [f32; LANES] = from_fn(|s| range / (max[s] - min[s]));
        let levels: [[f32; LANES]; N] =
            each(|i, s| nearest(inverse[s] * (values[i][s] - min[s])).clamp(0, top) as f32);
        let sum_l = sum::<N, LANES>(|i, s| weights[i][s] * levels[i][s]);
        let sum_l2 = sum::<N, LANES>(|i, s| weights[i][s] * levels[i][s] * levels[i][s]);
        let sum_xl = sum::<N, LANES>(|i, s| weights[i][s] * levels[i][s] * values[i][s]);
        let (mut this_scale, mut this_min, mut solvable) = ([0f32; LANES], [0f32; LANES], [false; LANES]);
        for s in 0..LANES {
            let determinant = sum_w[s] * sum_l2[s] - sum_l[s] * sum_l[s];
            let free_scale = (sum_w[s] * sum_xl[s] - sum_x[s] * sum_l[s]) / determinant;
            let free_min = (sum_l2[s] * sum_x[s] - sum_l[s] * sum_xl[s]) / determinant;
            solvable[s] = determinant > 0.0;
            this_scale[s] = if free_min > 0.0 { sum_xl[s] / sum_l2[s] } else { free_scale };
            this_min[s] = if free_min > 0.0 { 0.0 } else { free_min };
        }
        let mut error = [0f32; LANES];
        for i in 0..N {
            for s in 0..LANES {
                error[s] +=
                    weights[i][s] * distance(this_scale[s] * levels[i][s] + this_min[s] - values[i][s]);
            }
        }
        for s in 0..LANES {
            let better = solvable[s] && error[s] < best_error[s];
            best_error[s] = if better { error[s] } else { best_error[s] };
            scale[s] = if better { this_scale[s] } else { scale[s] };
            best_inverse[s] = if better { inverse[s] } else { best_inverse[s] };
            best_offset[s] = if better { min[s] } else { best_offset[s] };
            // Later candidates start from the better offset.
            min[s] = if better { this_min[s] } else { min[s] };
        }
    }
    let levels = from_fn(|i| {
        from_fn(|s| {
            let level = nearest(best_inverse[s] * (values[i][s] - best_offset[s])).clamp(0, top);
            if flat[s] { 0 } else { level as u8 }
        })
    });
    Affine { scale: from_fn(|s| if flat[s] { 0.0 } else { scale[s] }), min: from_fn(|s| -min[s]), levels }
}

/// Searches the scale of positive values, for levels from 0 to `top`: the scales of a super-block, to be quantised
/// themselves.
#[inline(always)]
pub(super) fn positive<const N: usize>(top: i32, values: &[f32; N], weights: &[f32; N]) -> (f32, [u8; N]) {
    let max = values.iter().fold(0f32, |max, &x| if max > x { max } else { x });
    if max < TINY {
        return (0.0, [0; N]);
    }
    let error_of = |inverse: f32| {
        let scale = 1.0 / inverse;
        values.iter().zip(weights).fold(0f32, |error, (&x, &w)| {
            let difference = x - scale * nearest(inverse * x).min(top) as f32;
            error + w * difference * difference
        })
    };
    let mut best_inverse = top as f32 / max;
    let mut best_error = error_of(best_inverse);
    for candidate in (-4..=4).filter(|&candidate| candidate != 0) {
        let inverse = (0.1 * candidate as f32 + top as f32) / max;
        let error = error_of(inverse);
        if error < best_error {
            best_error = error;
            best_inverse = inverse;
        }
    }
    let mut levels = [0u8; N];
    let (mut sum_lx, mut sum_l2) = (0f32, 0f32);
    for i in 0..N {
        let (x, w, level) = (values[i], weights[i], nearest(best_inverse * values[i]).min(top));
        levels[i] = level as u8;
        let level = level as f32;
        sum_lx += w * x * level;
        sum_l2 += w * level * level;
    }
    for _ in 0..5 {
        let mut moved = false;
        for i in 0..N {
            let (x, w, old) = (values[i], weights[i], f32::from(levels[i]));
            let (rest_lx, rest_l2) = (sum_lx - w * x * old, sum_l2 - w * old * old);
            if !(rest_lx > 0.0 && rest_l2 > 0.0) {
                continue;
            }
            let level = nearest(x * rest_l2 / rest_lx).min(top);
            if level == i32::from(levels[i]) {
                continue;
            }
            let new = level as f32;
            let (new_lx, new_l2) = (rest_lx + w * x * new, rest_l2 + w * new * new);
            if new_lx * new_lx * sum_l2 > sum_lx * sum_lx * new_l2 {
                (levels[i], sum_lx, sum_l2, moved) = (level as u8, new_lx, new_l2, true);
            }
        }
        if !moved {
            break;
        }
    }
    (if sum_l2 > 0.0 { sum_lx / sum_l2 } else { 0.0 }, levels)
}
