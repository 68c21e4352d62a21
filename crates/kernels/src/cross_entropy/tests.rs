//! Losses and gradients against their formulas in f64.

use super::*;
use crate::isa::Isa;
use crate::testing::{assert_close, gradient, noise, wide};

const PLAIN: CrossEntropy = CrossEntropy { smoothing: 0.0, z_loss: 0.0 };
const BOTH: CrossEntropy = CrossEntropy { smoothing: 0.1, z_loss: 1e-2 };

/// Logits between -10 and 10.
fn logits(n: usize, seed: u64) -> Vec<f32> {
    noise(n, seed).iter().map(|x| 5.0 * x).collect()
}

fn log_sum(row: &[f64]) -> f64 {
    let greatest = row.iter().copied().fold(f64::MIN, f64::max);
    greatest + row.iter().map(|x| (x - greatest).exp()).sum::<f64>().ln()
}

/// The formula of Hugging Face's label smoother, literally.
fn reference(row: &[f64], target: u32, options: CrossEntropy) -> f64 {
    if target == IGNORE {
        return 0.0;
    }
    let (lse, e) = (log_sum(row), f64::from(options.smoothing));
    let mean = row.iter().map(|x| lse - x).sum::<f64>() / row.len() as f64;
    (1.0 - e) * (lse - row[target as usize]) + e * mean + f64::from(options.z_loss) * lse * lse
}

fn targets(n: usize, vocab_size: usize) -> Vec<u32> {
    (0..n).map(|i| if i == 1 { IGNORE } else { (i * 7 % vocab_size) as u32 }).collect()
}

#[test]
fn losses_and_gradients_are_those_of_the_formula() {
    for vocab_size in [1, 2, 7, 8, 15, 16, 17, 65, 130] {
        let n_rows = 4;
        let x = logits(n_rows * vocab_size, 3);
        let (targets, weights) = (targets(n_rows, vocab_size), [1.0, 3.0, 0.5, 0.0]);
        for options in [PLAIN, BOTH] {
            let row_losses = |x: &[f64]| -> Vec<f64> {
                x.chunks(vocab_size)
                    .zip(&targets)
                    .map(|(row, &target)| reference(row, target, options))
                    .collect()
            };
            let expected_losses: Vec<f32> = row_losses(&wide(&x)).iter().map(|&x| x as f32).collect();
            let expected = gradient(&x, |x| {
                row_losses(x).iter().zip(weights).map(|(loss, w)| 0.25 * loss * f64::from(w)).sum()
            });
            for isa in Isa::available() {
                let (mut got, mut losses) = (x.clone(), vec![9.0; n_rows]);
                loss_rows(isa, &mut got, vocab_size, &targets, Some(&weights), 0.25, options, &mut losses);
                assert_close(&losses, &expected_losses, 1e-6);
                assert_close(&got, &expected, 1e-6);
                let mut only = vec![9.0; n_rows];
                loss_only_rows(isa, &x, vocab_size, &targets, options, &mut only);
                assert_eq!(only, losses);
            }
        }
    }
}

#[test]
fn a_great_vocabulary_keeps_six_digits() {
    let vocab_size = 50_257;
    let x = logits(2 * vocab_size, 5);
    let targets = [50_256, 0];
    // Without smoothing, which is a difference of nearly equal numbers where p is near its share.
    let options = CrossEntropy { z_loss: 1e-2, ..PLAIN };
    for isa in Isa::available() {
        let (mut got, mut losses) = (x.clone(), [0.0; 2]);
        loss_rows(isa, &mut got, vocab_size, &targets, None, 1.0, options, &mut losses);
        for i in 0..2 {
            let row = wide(&x[i * vocab_size..][..vocab_size]);
            let (lse, target) = (log_sum(&row), targets[i] as usize);
            assert_close(&losses[i..=i], &[reference(&row, targets[i], options) as f32], 1e-6);
            let gradient = |(j, x): (usize, &f64)| {
                let hit = if j == target { 1.0 } else { 0.0 };
                let share = 1.0 + 2.0 * f64::from(options.z_loss) * lse;
                ((x - lse).exp() * share - hit) as f32
            };
            let expected: Vec<f32> = row.iter().enumerate().map(gradient).collect();
            let worst = got[i * vocab_size..][..vocab_size]
                .iter()
                .zip(&expected)
                .map(|(got, expected)| (got - expected).abs() / expected.abs())
                .fold(0.0, f32::max);
            // Relative, for nearly all of the gradient lies in elements of 1e-5 and less.
            assert!(worst < 1e-5, "{worst}");
            assert_close(&got[i * vocab_size..][..vocab_size], &expected, 1e-7);
        }
    }
}

#[test]
fn great_logits_do_not_overflow_and_impossible_tokens_get_no_gradient() {
    let mut x = [3e38, -3e38, f32::NEG_INFINITY, 0.0];
    let mut losses = [0.0];
    rows(&mut x, 4, &[0], None, 1.0, PLAIN, &mut losses);
    assert_eq!((x, losses), ([0.0; 4], [0.0]));
    let mut x = [0.0, f32::NEG_INFINITY, 0.0];
    rows(&mut x, 3, &[0], None, 1.0, PLAIN, &mut losses);
    assert_eq!((x, losses), ([-0.5, 0.0, 0.5], [2f32.ln()]));
}

#[test]
#[should_panic(expected = "target Some(4), vocabulary 4")]
fn a_target_outside_the_vocabulary_panics() {
    rows(&mut [0.0; 4], 4, &[4], None, 1.0, PLAIN, &mut [0.0]);
}

#[test]
fn log_probs_and_their_gradient_are_those_of_the_formula() {
    for vocab_size in [1, 2, 7, 16, 17, 130] {
        let (n_rows, d) = (4, [0.5, 2.0, -1.0, 3.0]);
        let x = logits(n_rows * vocab_size, 4);
        let targets = targets(n_rows, vocab_size);
        let log_p = |(row, &target): (&[f64], &u32)| match target {
            IGNORE => 0.0,
            target => row[target as usize] - log_sum(row),
        };
        let x_wide = wide(&x);
        let expected: Vec<f32> =
            x_wide.chunks(vocab_size).zip(&targets).map(|row| log_p(row) as f32).collect();
        let expected_lse: Vec<f32> = x_wide.chunks(vocab_size).map(|row| log_sum(row) as f32).collect();
        let expected_gradient =
            gradient(&x, |x| x.chunks(vocab_size).zip(&targets).zip(d).map(|(row, d)| d * log_p(row)).sum());
        for isa in Isa::available() {
            let (mut out, mut lse) = (vec![9.0; n_rows], vec![9.0; n_rows]);
            log_prob_rows(isa, &x, vocab_size, &targets, &mut out, &mut lse);
            assert_close(&out, &expected, 1e-6);
            assert_close(&lse, &expected_lse, 1e-6);
            let mut got = x.clone();
            log_prob_gradient_rows(isa, &mut got, vocab_size, &targets, &lse, &d.map(|d| d as f32));
            assert_close(&got, &expected_gradient, 5e-6);
        }
    }
}

#[test]
fn distillation_is_the_divergence_from_the_teacher() {
    for vocab_size in [1, 2, 7, 16, 17, 130] {
        let (n_rows, weights) = (3, [1.0, 0.0, 2.0]);
        let (x, teacher) = (logits(n_rows * vocab_size, 4), logits(n_rows * vocab_size, 5));
        let teacher_wide = wide(&teacher);
        for temperature in [0.5, 1.0, 4.0] {
            let divergence = |(x, teacher): (&[f64], &[f64])| -> f64 {
                let cold = |row: &[f64]| row.iter().map(|x| x / f64::from(temperature)).collect::<Vec<_>>();
                let (x, y) = (cold(x), cold(teacher));
                let (x_sum, y_sum) = (log_sum(&x), log_sum(&y));
                let term = |(x, y): (&f64, &f64)| (y - y_sum).exp() * ((y - y_sum) - (x - x_sum));
                x.iter().zip(&y).map(term).sum::<f64>() * f64::from(temperature).powi(2)
            };
            let all = |x: &[f64]| -> Vec<f64> {
                x.chunks(vocab_size).zip(teacher_wide.chunks(vocab_size)).map(divergence).collect()
            };
            let expected_losses: Vec<f32> = all(&wide(&x)).iter().map(|&x| x as f32).collect();
            let expected =
                gradient(&x, |x| all(x).iter().zip(weights).map(|(x, w)| 0.5 * x * f64::from(w)).sum());
            for isa in Isa::available() {
                let (mut got, mut losses) = (x.clone(), vec![9.0; n_rows]);
                distill_rows(
                    isa,
                    &mut got,
                    &teacher,
                    vocab_size,
                    temperature,
                    Some(&weights),
                    0.5,
                    &mut losses,
                );
                assert_close(&losses, &expected_losses, 2e-6);
                assert_close(&got, &expected, 2e-6);
            }
        }
    }
}

#[test]
fn a_token_that_the_teacher_excludes_counts_nothing() {
    let mut student = [0.0, 0.0, 0.0];
    let mut losses = [9.0];
    distill(&mut student, &[0.0, 0.0, f32::NEG_INFINITY], 3, 1.0, None, 1.0, &mut losses);
    assert_close(&losses, &[1.5f32.ln()], 1e-6);
    assert_close(&student, &[1.0 / 3.0 - 0.5, 1.0 / 3.0 - 0.5, 1.0 / 3.0], 1e-6);
}

#[test]
fn many_rows_come_out_alike_on_any_number_of_threads() {
    let (n_rows, vocab_size) = (70, 1001);
    let x = logits(n_rows * vocab_size, 6);
    let (targets, teacher) = (targets(n_rows, vocab_size), logits(n_rows * vocab_size, 7));
    let run = |n_threads| {
        crate::threads::set_threads(n_threads);
        let (mut d, mut losses) = (x.clone(), vec![0.0; n_rows]);
        rows(&mut d, vocab_size, &targets, None, 1.0, BOTH, &mut losses);
        let mut only = vec![0.0; n_rows];
        losses_only(&x, vocab_size, &targets, BOTH, &mut only);
        assert_eq!(only, losses);
        let (mut log_p, mut lse) = (vec![0.0; n_rows], vec![0.0; n_rows]);
        log_probs(&x, vocab_size, &targets, &mut log_p, &mut lse);
        let mut d_log_p = x.clone();
        log_prob_gradient(&mut d_log_p, vocab_size, &targets, &lse, &log_p);
        let mut d_student = x.clone();
        distill(&mut d_student, &teacher, vocab_size, 2.0, None, 1.0, &mut only);
        (d, losses, log_p, d_log_p, d_student, only)
    };
    assert!(run(1) == run(2));
}
