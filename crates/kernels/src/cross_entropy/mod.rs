//! Losses over the vocabulary: cross-entropy, log-probabilities of given tokens, and distillation, with
//! gradients.
//!
//! A row of logits is read in three passes: its maximum, the sum of its exponentials, its gradient. The
//! gradient takes the place of the logits, so no second tensor of the size `[N, V]` is needed.

use crate::arch::math;
use crate::arch::vector::{Vector, at, per_isa, sums};
use crate::softmax::max;
use crate::{isa, rows};

/// The target of a row that has no loss and no gradient.
pub const IGNORE: u32 = u32::MAX;

/// What is added to the plain negative log-likelihood.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CrossEntropy {
    /// ε of (1 − ε) · (−ln p of the target) + ε · mean(−ln p) over the vocabulary. Source: arXiv:1512.00567,
    /// section 7.
    pub smoothing: f32,
    /// Factor on ln² Σ exp(logits), which keeps the logits near a normalised distribution; PaLM takes 1e-4.
    /// Source: arXiv:2204.02311, section 5.
    pub z_loss: f32,
}

/// Losses of rows of logits; the logits become their gradient.
///
/// `logits: [N, V]`: on return the gradient of scale · Σ weight · loss. `targets: [N]`, [`IGNORE`] for rows
/// without loss and gradient. `weights: [N]`, 1 if none. `losses: [N]` in nats, neither weighted nor scaled,
/// with what `options` add. Panics if the lengths do not fit or a target is outside the vocabulary.
#[track_caller]
pub fn rows(
    logits: &mut [f32],
    vocab_size: usize,
    targets: &[u32],
    weights: Option<&[f32]>,
    scale: f32,
    options: CrossEntropy,
    losses: &mut [f32],
) {
    let n_rows = check(logits.len(), vocab_size, targets, losses.len());
    assert!(weights.is_none_or(|weights| weights.len() == n_rows), "one weight for each of {n_rows} rows");
    let isa = isa::active();
    rows::for_each_block_of(n_rows, vocab_size, [logits, losses], |rows, [logits, losses]| {
        let weights = weights.map(|weights| &weights[rows.clone()]);
        loss_rows(isa, logits, vocab_size, &targets[rows], weights, scale, options, losses);
    });
}

/// The losses of [`rows`] without gradients: `logits` stay.
#[track_caller]
pub fn losses_only(
    logits: &[f32],
    vocab_size: usize,
    targets: &[u32],
    options: CrossEntropy,
    losses: &mut [f32],
) {
    let n_rows = check(logits.len(), vocab_size, targets, losses.len());
    let isa = isa::active();
    rows::for_each_block_of(n_rows, vocab_size, [losses], |rows, [losses]| {
        let logits = &logits[rows.start * vocab_size..rows.end * vocab_size];
        loss_only_rows(isa, logits, vocab_size, &targets[rows], options, losses);
    });
}

/// ln p of each row's target and ln Σ exp(logits) of each row, for losses that compare sequences (DPO and its
/// kin).
///
/// `logits: [N, V]`, `targets`, `out`, `lse`: `[N]`; `out` is 0 where the target is [`IGNORE`].
/// Panics if the lengths do not fit or a target is outside the vocabulary.
#[track_caller]
pub fn log_probs(logits: &[f32], vocab_size: usize, targets: &[u32], out: &mut [f32], lse: &mut [f32]) {
    let n_rows = check(logits.len(), vocab_size, targets, out.len());
    assert_eq!(lse.len(), n_rows, "one sum for each row");
    let isa = isa::active();
    rows::for_each_block_of(n_rows, vocab_size, [out, lse], |rows, [out, lse]| {
        let logits = &logits[rows.start * vocab_size..rows.end * vocab_size];
        log_prob_rows(isa, logits, vocab_size, &targets[rows], out, lse);
    });
}

/// The gradient of [`log_probs`]: the logits become d · (1 at the target − softmax).
///
/// `logits: [N, V]`, `lse` as `log_probs` gave it, `d: [N]` the gradient of each row's ln p. Rows whose
/// target is [`IGNORE`] become 0. Panics if the lengths do not fit or a target is outside the vocabulary.
#[track_caller]
pub fn log_prob_gradient(logits: &mut [f32], vocab_size: usize, targets: &[u32], lse: &[f32], d: &[f32]) {
    let n_rows = check(logits.len(), vocab_size, targets, lse.len());
    assert_eq!(d.len(), n_rows, "one gradient for each row");
    let isa = isa::active();
    rows::for_each_block_of(n_rows, vocab_size, [logits], |rows, [logits]| {
        let (lse, d) = (&lse[rows.clone()], &d[rows.clone()]);
        log_prob_gradient_rows(isa, logits, vocab_size, &targets[rows], lse, d);
    });
}

/// KL(teacher ‖ student) · T² of softmax(logits / T); the student's logits become their gradient.
///
/// `student`, `teacher`: `[N, V]`. On return `student` is the gradient of scale · Σ weight · loss.
/// `weights: [N]`, 1 if none; a weight of 0 leaves a row out. `losses: [N]` in nats, neither weighted nor scaled, with
/// the factor T². Source: arXiv:1503.02531, section 2. Panics if the lengths do not fit or the temperature is
/// not positive.
#[track_caller]
pub fn distill(
    student: &mut [f32],
    teacher: &[f32],
    vocab_size: usize,
    temperature: f32,
    weights: Option<&[f32]>,
    scale: f32,
    losses: &mut [f32],
) {
    let n_rows = losses.len();
    assert!(
        vocab_size > 0 && student.len() == n_rows * vocab_size,
        "student {}, {n_rows} rows",
        student.len()
    );
    assert_eq!(student.len(), teacher.len(), "logits of student and teacher");
    assert!(weights.is_none_or(|weights| weights.len() == n_rows), "one weight for each of {n_rows} rows");
    assert!(temperature > 0.0, "temperature {temperature}");
    let isa = isa::active();
    rows::for_each_block_of(n_rows, 2 * vocab_size, [student, losses], |rows, [student, losses]| {
        let teacher = &teacher[rows.start * vocab_size..rows.end * vocab_size];
        let weights = weights.map(|weights| &weights[rows]);
        distill_rows(isa, student, teacher, vocab_size, temperature, weights, scale, losses);
    });
}

#[track_caller]
fn check(n_logits: usize, vocab_size: usize, targets: &[u32], n_rows: usize) -> usize {
    assert!(vocab_size > 0 && n_logits == n_rows * vocab_size, "{n_logits} logits, [{n_rows}, {vocab_size}]");
    assert_eq!(targets.len(), n_rows, "one target for each row");
    let outside = targets.iter().find(|&&target| target != IGNORE && target as usize >= vocab_size);
    assert!(outside.is_none(), "target {outside:?}, vocabulary {vocab_size}");
    n_rows
}

per_isa! {
    fn loss_rows(
        logits: &mut [f32], vocab_size: usize, targets: &[u32], weights: Option<&[f32]>, scale: f32,
        options: CrossEntropy, losses: &mut [f32]
    ) = loss_body
}
per_isa! {
    fn loss_only_rows(
        logits: &[f32], vocab_size: usize, targets: &[u32], options: CrossEntropy, losses: &mut [f32]
    ) = loss_only_body
}
per_isa! {
    fn log_prob_rows(
        logits: &[f32], vocab_size: usize, targets: &[u32], out: &mut [f32], lse: &mut [f32]
    ) = log_prob_body
}
per_isa! {
    fn log_prob_gradient_rows(
        logits: &mut [f32], vocab_size: usize, targets: &[u32], lse: &[f32], d: &[f32]
    ) = log_prob_gradient_body
}
per_isa! {
    fn distill_rows(
        student: &mut [f32], teacher: &[f32], vocab_size: usize, temperature: f32, weights: Option<&[f32]>,
        scale: f32, losses: &mut [f32]
    ) = distill_body
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn loss_body<V: Vector>(
    logits: &mut [f32],
    vocab_size: usize,
    targets: &[u32],
    weights: Option<&[f32]>,
    scale: f32,
    options: CrossEntropy,
    losses: &mut [f32],
) {
    for (i, row) in logits.chunks_exact_mut(vocab_size).enumerate() {
        if targets[i] == IGNORE {
            losses[i] = 0.0;
            row.fill(0.0);
            continue;
        }
        let target = targets[i] as usize;
        let (logit, mean, greatest) = (row[target], mean::<V>(row, options), max::<V>(row));
        let center = V::splat(greatest);
        // The exponentials take the place of the logits.
        let [sum] = sums!(V, 1, vocab_size, |i| {
            let e = math::exp(V::load_slice(&row[i..], f32::NEG_INFINITY).sub(center));
            e.store_slice(&mut row[i..]);
            [e]
        });
        let lse = f64::from(greatest) + f64::from(sum).ln();
        losses[i] = loss(lse, logit, mean, options);
        let factor = scale * weights.map_or(1.0, |weights| weights[i]);
        let share = 1.0 + 2.0 * f64::from(options.z_loss) * lse;
        let share = V::splat((f64::from(factor) * share / f64::from(sum)) as f32);
        let smooth = V::splat(-factor * options.smoothing / vocab_size as f32);
        for lanes in row.chunks_mut(V::LANES) {
            V::load_slice(lanes, 0.0).mul_add(share, smooth).store_slice(lanes);
        }
        row[target] -= factor * (1.0 - options.smoothing);
    }
}

#[inline(always)]
fn loss_only_body<V: Vector>(
    logits: &[f32],
    vocab_size: usize,
    targets: &[u32],
    options: CrossEntropy,
    losses: &mut [f32],
) {
    for (i, row) in logits.chunks_exact(vocab_size).enumerate() {
        losses[i] = match targets[i] {
            IGNORE => 0.0,
            target => {
                let lse = log_sum_exp::<V>(row, max::<V>(row));
                loss(lse, row[target as usize], mean::<V>(row, options), options)
            }
        };
    }
}

/// The loss of a row by ln Σ exp(row), the logit of its target, and the mean of its logits.
fn loss(lse: f64, logit: f32, mean: f64, options: CrossEntropy) -> f32 {
    let epsilon = f64::from(options.smoothing);
    let likelihood = lse - (1.0 - epsilon) * f64::from(logit) - epsilon * mean;
    (likelihood + f64::from(options.z_loss) * lse * lse) as f32
}

/// The mean of a row of logits, or 0 if nothing asks for it (and a logit may be −∞).
#[inline(always)]
fn mean<V: Vector>(row: &[f32], options: CrossEntropy) -> f64 {
    if options.smoothing == 0.0 {
        return 0.0;
    }
    let [sum] = sums!(V, 1, row.len(), |i| [at(row, i)]);
    f64::from(sum) / row.len() as f64
}

/// ln Σ exp(row), `greatest` being the greatest of the row.
#[inline(always)]
fn log_sum_exp<V: Vector>(row: &[f32], greatest: f32) -> f64 {
    let [sum] = sums!(V, 1, row.len(), |i| {
        [math::exp(V::load_slice(&row[i..], f32::NEG_INFINITY).sub(V::splat(greatest)))]
    });
    f64::from(greatest) + f64::from(sum).ln()
}

#[inline(always)]
fn log_prob_body<V: Vector>(
    logits: &[f32],
    vocab_size: usize,
    targets: &[u32],
    out: &mut [f32],
    lse: &mut [f32],
) {
    for (i, row) in logits.chunks_exact(vocab_size).enumerate() {
        let sum = log_sum_exp::<V>(row, max::<V>(row));
        lse[i] = sum as f32;
        out[i] = match targets[i] {
            IGNORE => 0.0,
            target => (f64::from(row[target as usize]) - sum) as f32,
        };
    }
}

#[inline(always)]
fn log_prob_gradient_body<V: Vector>(
    logits: &mut [f32],
    vocab_size: usize,
    targets: &[u32],
    lse: &[f32],
    d: &[f32],
) {
    for (i, row) in logits.chunks_exact_mut(vocab_size).enumerate() {
        if targets[i] == IGNORE {
            row.fill(0.0);
            continue;
        }
        let (sum, factor) = (V::splat(lse[i]), V::splat(-d[i]));
        for lanes in row.chunks_mut(V::LANES) {
            math::exp(V::load_slice(lanes, 0.0).sub(sum)).mul(factor).store_slice(lanes);
        }
        row[targets[i] as usize] += d[i];
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn distill_body<V: Vector>(
    student: &mut [f32],
    teacher: &[f32],
    vocab_size: usize,
    temperature: f32,
    weights: Option<&[f32]>,
    scale: f32,
    losses: &mut [f32],
) {
    let cold = V::splat(1.0 / temperature);
    for (i, (row, teacher)) in
        student.chunks_exact_mut(vocab_size).zip(teacher.chunks_exact(vocab_size)).enumerate()
    {
        let (greatest, greatest_teacher) = (V::splat(max::<V>(row)), V::splat(max::<V>(teacher)));
        let [sum, sum_teacher, gap] = sums!(V, 3, vocab_size, |i| {
            let x = V::load_slice(&row[i..], f32::NEG_INFINITY).sub(greatest).mul(cold);
            let y = V::load_slice(&teacher[i..], f32::NEG_INFINITY).sub(greatest_teacher).mul(cold);
            let e = math::exp(y);
            // A teacher's probability of 0 counts nothing, whatever the student says: 0 · ln 0 = 0.
            let term = V::splat(0.0).select_less(e, e.mul(y.sub(x)), e);
            [math::exp(x), e, term]
        });
        let square = f64::from(temperature).powi(2);
        let divergence =
            f64::from(gap) / f64::from(sum_teacher) + (f64::from(sum) / f64::from(sum_teacher)).ln();
        losses[i] = (square * divergence) as f32;
        let factor = temperature * scale * weights.map_or(1.0, |weights| weights[i]);
        let (share, share_teacher) = (V::splat(factor / sum), V::splat(-factor / sum_teacher));
        for (row, teacher) in row.chunks_mut(V::LANES).zip(teacher.chunks(V::LANES)) {
            let e = math::exp(V::load_slice(row, 0.0).sub(greatest).mul(cold));
            let e_teacher = math::exp(V::load_slice(teacher, 0.0).sub(greatest_teacher).mul(cold));
            e_teacher.mul_add(share_teacher, e.mul(share)).store_slice(row);
        }
    }
}

#[cfg(test)]
mod tests;
