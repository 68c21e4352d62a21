//! A language model that answers from a script: the fake for every test above the waist.

use crate::{
    Completion, Error, Event, FinishReason, LanguageModel, Prompt, Request, Score, TokenScore, Usage,
};
use std::ops::ControlFlow;
use std::sync::Mutex;

/// Answers each request with the next line of its script, and remembers what it was asked.
#[derive(Debug, Default)]
pub struct Scripted {
    answers: Vec<String>,
    asked: Mutex<Vec<Request>>,
}

impl Scripted {
    /// A model that gives `answers` in order, then begins again.
    pub fn new<S: Into<String>>(answers: impl IntoIterator<Item = S>) -> Scripted {
        Scripted { answers: answers.into_iter().map(Into::into).collect(), asked: Mutex::default() }
    }

    /// Every request so far, oldest first.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().expect("no test panics inside").clone()
    }
}

impl LanguageModel for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn generate(
        &self,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Completion>, Error> {
        let mut asked = self.asked.lock().expect("no test panics inside");
        let first = asked.len();
        asked.push(request.clone());
        drop(asked);
        let mut completions = Vec::new();
        for index in 0..request.n {
            let script = match self.answers.len() {
                0 => "",
                n => self.answers[(first + index) % n].as_str(),
            };
            let end = request.stop.iter().filter_map(|stop| script.find(stop.as_str())).min();
            let mut text = String::new();
            let mut finish_reason = FinishReason::Stop;
            let mut words = 0;
            for word in script[..end.unwrap_or(script.len())].split_inclusive(' ') {
                if request.max_tokens.is_some_and(|max| words == max) {
                    finish_reason = FinishReason::Length;
                    break;
                }
                words += 1;
                text.push_str(word);
                if on_event(Event::Text { index, text: word, logprobs: &[] }).is_break() {
                    finish_reason = FinishReason::Cancelled;
                    break;
                }
            }
            let prompt_tokens = match &request.prompt {
                Prompt::Text { text, .. } => text.split_whitespace().count(),
                Prompt::Infill { prefix, suffix } => {
                    prefix.split_whitespace().chain(suffix.split_whitespace()).count()
                }
                Prompt::Ids(ids) => ids.len(),
                Prompt::Chat(messages) => messages.iter().map(|m| m.content.split_whitespace().count()).sum(),
            };
            completions.push(Completion {
                text,
                finish_reason,
                usage: Usage { prompt_tokens, completion_tokens: words, ..Usage::default() },
                ..Completion::default()
            });
        }
        Ok(completions)
    }

    /// Every word has probability 1/2.
    fn score(&self, _context: &str, continuation: &str) -> Result<Score, Error> {
        let tokens = continuation
            .split_inclusive(' ')
            .map(|word| TokenScore { text: word.to_string(), id: 0, logprob: 0.5f32.ln(), is_greedy: false })
            .collect();
        Ok(Score { tokens, n_bytes: continuation.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_in_order_and_honours_stop_and_length() {
        let lm = Scripted::new(["one two three", "yes"]);
        let mut heard = String::new();
        let mut request = Request::text("count");
        request.stop = vec!["three".to_string()];
        let answer = lm
            .generate(&request, &mut |event| {
                if let Event::Text { text, .. } = event {
                    heard.push_str(text);
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!((answer[0].text.as_str(), heard.as_str()), ("one two ", "one two "));
        request.max_tokens = Some(0);
        let answer = lm.generate(&request, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!((answer[0].text.as_str(), answer[0].finish_reason), ("", FinishReason::Length));
        assert_eq!(lm.asked().len(), 2);
    }

    #[test]
    fn a_score_gives_perplexity_and_bits_per_byte() {
        let score = Scripted::default().score("", "ab cd").unwrap();
        assert!((score.perplexity() - 2.0).abs() < 1e-6);
        assert!((score.bits_per_byte() - 2.0 / 5.0).abs() < 1e-6);
    }
}
