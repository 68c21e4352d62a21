//! How likely a long text is, window by window.

use rhetor_generate::Engine;
use rhetor_lm::TokenScore;
use std::ops::Range;

/// How a text longer than the context is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Windows that begin every so many tokens; each scores the tokens that no earlier window has scored.
    Sliding(usize),
    /// Whole windows side by side; each scores its second half only.
    SecondHalf,
}

/// A window of a text: the model sees `seen` and is judged on `scored`, which lies inside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Tokens of the text that the model sees.
    pub seen: Range<usize>,
    /// Tokens that are scored, each given all that are seen before it.
    pub scored: Range<usize>,
}

/// One scored token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredToken {
    /// Its place in the text.
    pub index: usize,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Whether it was the most likely token.
    pub is_greedy: bool,
}

/// Cuts a text of `n_tokens` into windows of at most `context` tokens.
pub fn windows(n_tokens: usize, context: usize, cut: Cut) -> Vec<Window> {
    match cut {
        Cut::Sliding(stride) => {
            let mut windows = Vec::new();
            let (mut start, mut done) = (0, 1);
            while done < n_tokens {
                let end = (start + context).min(n_tokens);
                windows.push(Window { seen: start..end, scored: done..end });
                (start, done) = (start + stride, end);
            }
            windows
        }
        Cut::SecondHalf => {
            let window = |i: usize| {
                let (start, end) = (i * context, (i + 1) * context);
                Window { seen: start..end, scored: start + context / 2 + 1..end }
            };
            (0..n_tokens / context).map(window).collect()
        }
    }
}

/// Scores the tokens of `window`; `tokens` is the whole text. The window's first token may be replaced by `first`.
pub fn score_window(
    engine: &Engine,
    tokens: &[u32],
    window: &Window,
    first: Option<u32>,
) -> Result<Vec<ScoredToken>, rhetor_lm::Error> {
    let mut seen = tokens[window.seen.clone()].to_vec();
    if let Some(first) = first {
        seen[0] = first;
    }
    let scores = engine.score_ids(&seen, window.scored.start - window.seen.start)?;
    let indices = window.scored.clone();
    let token = |(index, score): (usize, TokenScore)| ScoredToken {
        index,
        logprob: score.logprob,
        is_greedy: score.is_greedy,
    };
    Ok(indices.zip(scores).map(token).collect())
}

/// Perplexity, its standard error, and the sum of log-probabilities of what was scored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// exp of the mean negative log-probability.
    pub perplexity: f64,
    /// Standard error of the perplexity, as llama.cpp estimates it.
    pub standard_error: f64,
    /// Sum of the log-probabilities, in nats.
    pub logprob_sum: f64,
}

/// Sums up scored tokens.
pub fn summary(scored: &[ScoredToken]) -> Summary {
    let n = scored.len().max(1) as f64;
    let logprob_sum: f64 = scored.iter().map(|token| f64::from(token.logprob)).sum();
    let squares: f64 = scored.iter().map(|token| f64::from(token.logprob).powi(2)).sum();
    let mean = -logprob_sum / n;
    let variance = (squares / n - mean * mean).max(0.0);
    let perplexity = mean.exp();
    Summary { perplexity, standard_error: perplexity * (variance / (n - 1.0).max(1.0)).sqrt(), logprob_sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(n: usize, context: usize, cut: Cut, expected: &str) {
        let text: Vec<_> =
            windows(n, context, cut).iter().map(|w| format!("{:?} {:?}", w.seen, w.scored)).collect();
        assert_eq!(text.join(", "), expected);
    }

    #[test]
    fn sliding_windows_score_every_token_but_the_first_once() {
        check(10, 4, Cut::Sliding(2), "0..4 1..4, 2..6 4..6, 4..8 6..8, 6..10 8..10");
        check(5, 4, Cut::Sliding(4), "0..4 1..4, 4..5 4..5");
        check(3, 8, Cut::Sliding(4), "0..3 1..3");
        check(1, 8, Cut::Sliding(4), "");
    }

    #[test]
    fn second_halves_are_what_llama_cpp_scores() {
        check(1100, 512, Cut::SecondHalf, "0..512 257..512, 512..1024 769..1024");
        check(511, 512, Cut::SecondHalf, "");
    }

    #[test]
    fn a_summary_gives_perplexity_and_its_error() {
        let token = |logprob: f32| ScoredToken { index: 0, logprob, is_greedy: false };
        let half = summary(&[token(0.5f32.ln()), token(0.5f32.ln())]);
        assert!((half.perplexity - 2.0).abs() < 1e-6 && half.standard_error < 1e-3);
    }
}
