//! Where in a text the answer to a question begins and ends.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_models::{Head, Labelled, Task, Training};
use rhetor_tensor::ops::segments;

use super::{Objective, Reading, each_row};
use crate::data::Row;
use crate::error::Error;
use crate::example::{Example, Label, Tally};
use crate::examples::question_answering::{Questions, WindowOptions};
use crate::policy::{Loss, Policy};

pub(super) const ABOUT: About = About {
    name: "question-answering",
    summary: "say where in a text the answer to a question begins and ends",
    source: Source::Paper { title: "BERT", id: "arXiv:1810.04805", section: "sections 4.2 and 4.3" },
    options: &[
        Opt {
            name: "stride",
            summary: "tokens from one window over a long text to the next",
            default: 128.0,
            range: (1.0, 4096.0),
        },
        Opt {
            name: "question-max",
            summary: "tokens of a question at most",
            default: 64.0,
            range: (1.0, 1024.0),
        },
        Opt {
            name: "answer-max",
            summary: "tokens of an answer that is said, at most; answers that are learnt may be longer",
            default: 30.0,
            range: (1.0, 1024.0),
        },
    ],
};

struct QuestionAnswering {
    questions: Questions,
    answer_max: usize,
    reading: Reading,
}

pub(super) fn build(values: &Values, reading: Reading) -> Result<Box<dyn Objective>, Error> {
    let size = |name| values.get(name) as usize;
    let (stride, question_max) = (size("stride"), size("question-max"));
    let options = WindowOptions { max_len: reading.max_len, stride, question_max };
    let questions = Questions::new(&reading.tokenizer, options)?;
    Ok(Box::new(QuestionAnswering { questions, answer_max: size("answer-max"), reading }))
}

impl Objective for QuestionAnswering {
    fn examples(&self, rows: &[Row], tally: &mut Tally) -> Vec<Example> {
        each_row(rows, tally, |row| {
            let windows = self.questions.windows(row, &self.reading.tokenizer)?;
            Ok(windows.into_iter().map(|window| window.example).collect())
        })
    }

    fn weight(&self, _example: &Example) -> f64 {
        1.0
    }

    fn head(&self) -> Option<Labelled> {
        Some(Labelled { head: Head { task: Task::Span, n_labels: 2 }, labels: Vec::new() })
    }

    fn loss(&self, policy: &Policy, examples: &[Example], scale: f32, training: Option<Training>) -> Loss {
        let all = examples.iter().map(|example| (&example.sequences[0], 0..example.sequences[0].len()));
        let logits = policy.at_rows(all, training); // [T, 2]
        let (mut sum, mut exact, mut f1) = (0.0, 0.0, 0.0);
        let total = segments::function(&logits, |logits, slopes| {
            let mut first = 0;
            for example in examples {
                let (start, end) = match example.label {
                    Label::Span { start, end } => (start as usize, end as usize),
                    _ => (0, 0),
                };
                let range = first..first + 2 * example.sequences[0].len();
                let (logits, slopes) = (&logits[range.clone()], &mut slopes[range.clone()]);
                for (column, target) in [(0, start), (1, end)] {
                    sum += 0.5 * end_loss(logits, slopes, column, target, 0.5 * f64::from(scale));
                }
                let said = best_span(logits, self.answer_max);
                exact += f64::from(u8::from(said == (start, end)));
                f1 += overlap(said, (start, end));
                first = range.end;
            }
            (sum * f64::from(scale)) as f32
        });
        Loss { total, sum, metrics: vec![("exact-match", exact), ("f1", f1)] }
    }
}

/// −log softmax(logits[:, column])[target], whose derivative times `scale` is written to `slopes`. logits, slopes: [T, 2]
fn end_loss(logits: &[f32], slopes: &mut [f32], column: usize, target: usize, scale: f64) -> f64 {
    let scores = || logits[column..].iter().step_by(2).map(|&score| f64::from(score));
    let max = scores().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = max + scores().map(|score| (score - max).exp()).sum::<f64>().ln();
    for (row, (score, slope)) in scores().zip(slopes[column..].iter_mut().step_by(2)).enumerate() {
        let probability = (score - log_sum).exp();
        *slope = ((probability - f64::from(u8::from(row == target))) * scale) as f32;
    }
    log_sum - f64::from(logits[2 * target + column])
}

/// The first and the last row of the answer with the greatest sum of scores: not longer than `len_max` rows, or (0, 0), which
/// says that there is none. Source: arXiv:1810.04805, sections 4.2 and 4.3. logits: [T, 2]
fn best_span(logits: &[f32], len_max: usize) -> (usize, usize) {
    let n = logits.len() / 2;
    let (mut best, mut best_score) = ((0, 0), logits[0] + logits[1]);
    for start in 1..n {
        for end in start..n.min(start + len_max) {
            let score = logits[2 * start] + logits[2 * end + 1];
            if score > best_score {
                (best, best_score) = ((start, end), score);
            }
        }
    }
    best
}

/// F1 of the rows of two answers; none is like none only. Source: SQuAD, arXiv:1606.05250, section 6.1.
fn overlap(said: (usize, usize), right: (usize, usize)) -> f64 {
    if said == (0, 0) || right == (0, 0) {
        return f64::from(u8::from(said == right));
    }
    let both = (said.1.min(right.1) + 1).saturating_sub(said.0.max(right.0)) as f64;
    2.0 * both / (said.1 + 1 - said.0 + right.1 + 1 - right.0) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_answer_begins_before_it_ends_and_is_not_too_long() {
        // Rows: start and end scores.
        let logits = [0.0, 0.0, 1.0, 9.0, 5.0, 0.0, 0.0, 1.0, 0.0, 4.0];
        assert_eq!(best_span(&logits, 30), (1, 1));
        let logits = [0.0, 0.0, 5.0, 0.0, 0.0, 1.0, 0.0, 9.0];
        assert_eq!((best_span(&logits, 3), best_span(&logits, 2)), ((1, 3), (2, 3)));
        assert_eq!(best_span(&[9.0, 9.0, 1.0, 1.0], 3), (0, 0));
    }

    #[test]
    fn overlap_counts_rows_that_both_have() {
        assert_eq!(overlap((2, 5), (4, 7)), 0.5);
        assert_eq!(
            (overlap((2, 3), (4, 7)), overlap((0, 0), (0, 0)), overlap((0, 0), (1, 1))),
            (0.0, 1.0, 0.0)
        );
    }

    #[test]
    fn slopes_of_an_end_equal_central_differences() {
        let logits = [0.3, -1.0, 0.8, 0.2, -0.5, 1.1];
        let mut slopes = [0.0; 6];
        end_loss(&logits, &mut slopes, 1, 2, 1.0);
        for row in 0..3 {
            let at = |step: f32| {
                let mut logits = logits;
                logits[2 * row + 1] += step;
                end_loss(&logits, &mut [0.0; 6], 1, 2, 1.0)
            };
            let expected = (at(1e-3) - at(-1e-3)) / 2e-3;
            assert!((f64::from(slopes[2 * row + 1]) - expected).abs() < 1e-4, "{slopes:?} {expected}");
        }
        assert_eq!((slopes[0], slopes[2], slopes[4]), (0.0, 0.0, 0.0));
    }
}
