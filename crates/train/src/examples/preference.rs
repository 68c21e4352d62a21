//! Pairs of answers for DPO and its relatives and for reward models, and rated answers for KTO.
//!
//! Sequences hold every token up to the one that ends the answer, so that a reward is read at the last row;
//! targets are the answer's tokens. Source: DPO, arXiv:2305.18290, §4; KTO, arXiv:2402.01306, §4; LLaMA 2,
//! arXiv:2307.09288, §3.2.2 (margins).

use super::sft::{Answers, Marked, Sft, labelled, with_last_row};
use crate::data::Row;
use crate::{Example, Label, Skip};
use rhetor_lm::{Message, Role};

/// Makes examples of at most `max_len` rows.
#[derive(Debug)]
pub struct Preferences<'a> {
    /// Renders and encodes conversations; without a template, a prompt of one turn is plain text.
    pub sft: Sft<'a>,
    /// The most rows of a sequence. Answers lose their end; a prompt is never cut, so that both sides share
    /// it.
    pub max_len: usize,
}

impl Preferences<'_> {
    /// Two sequences, the better first, of a preference; one of a rated answer.
    pub fn examples(&self, row: &Row) -> Result<Vec<Example>, Skip> {
        match row {
            Row::Preference { prompt, chosen, rejected, margin } => {
                let [chosen, rejected] = [chosen, rejected].map(|answer| self.answer(prompt, answer));
                let (chosen, rejected) = (chosen?, rejected?);
                if chosen.ids == rejected.ids {
                    return Err(Skip::SameAnswers);
                }
                let sequences = vec![with_last_row(&chosen), with_last_row(&rejected)];
                Ok(vec![Example { sequences, label: margin.map_or(Label::None, Label::Margin) }])
            }
            Row::Rated { prompt, answer, desirable } => {
                let marked = self.answer(prompt, answer)?;
                Ok(vec![labelled(with_last_row(&marked), Label::Desirable(*desirable))])
            }
            other => Err(Skip::WrongKind { expected: "preferences or rated answers", got: other.kind() }),
        }
    }

    fn answer(&self, prompt: &[Message], answer: &str) -> Result<Marked, Skip> {
        let marked = match prompt {
            [only] if !self.sft.has_template() && only.role == Role::User => {
                self.sft.completion(&only.content, answer, self.max_len)
            }
            _ => {
                let mut messages = prompt.to_vec();
                messages.push(Message::assistant(answer));
                self.sft.conversation(&messages, Answers::Last, self.max_len)
            }
        };
        marked.map_err(|skip| if skip == Skip::NothingLeft { Skip::PromptTooLong } else { skip })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bracketed, characters};
    use super::*;
    use crate::IGNORE;
    use rhetor_generate::ChatTemplate;
    use rhetor_tokenizer::Tokenizer;

    fn row(chosen: &str, rejected: &str) -> Row {
        let prompt = vec![Message::user("a"), Message::assistant("b"), Message::user("c")];
        Row::Preference { prompt, chosen: chosen.into(), rejected: rejected.into(), margin: Some(0.5) }
    }

    fn with<T>(max_len: usize, run: impl FnOnce(&Tokenizer, &Preferences<'_>) -> T) -> T {
        let tokenizer = characters();
        let template = ChatTemplate::new("chatml", "", "").unwrap();
        let preferences = Preferences { sft: Sft::new(&tokenizer, Some(&template), max_len, 0), max_len };
        run(&tokenizer, &preferences)
    }

    #[test]
    fn both_answers_follow_the_same_prompt_and_only_they_are_learnt() {
        with(1000, |tokenizer, preferences| {
            let example = preferences.examples(&row("good", "bad")).unwrap().remove(0);
            assert_eq!(example.label, Label::Margin(0.5));
            let shown = example.sequences.iter().map(|sequence| bracketed(tokenizer, sequence));
            let shown: Vec<String> = shown.collect();
            assert!(shown[0].ends_with("assistant\n[good<|im_end|>]"), "{}", shown[0]);
            assert!(!shown[0].contains("[b"), "the answer before is given: {}", shown[0]);
            assert_eq!(shown[0].replace("good", "bad"), shown[1]);
            for sequence in &example.sequences {
                assert_eq!(
                    sequence.tokens.last(),
                    tokenizer.id("<|im_end|>").as_ref(),
                    "a reward is read there"
                );
                assert_eq!(sequence.targets.last(), Some(&IGNORE));
            }
        });
    }

    #[test]
    fn answers_lose_their_end_and_prompts_never() {
        let n_prompt = with(1000, |_, preferences| {
            let sequence = preferences.examples(&row("x", "y")).unwrap().remove(0).sequences.remove(0);
            sequence.len() - 2
        });
        with(n_prompt + 3, |tokenizer, preferences| {
            let example = preferences.examples(&row("good", "bad")).unwrap().remove(0);
            let ends = example.sequences.iter().map(|sequence| bracketed(tokenizer, sequence));
            assert!(ends.zip(["[goo]", "[bad]"]).all(|(shown, end)| shown.ends_with(end)));
            assert!(example.sequences.iter().all(|sequence| sequence.len() == n_prompt + 3));
            assert_eq!(preferences.examples(&row("good", "goo!")), Err(Skip::SameAnswers));
        });
        with(n_prompt, |_, preferences| {
            assert_eq!(preferences.examples(&row("good", "bad")), Err(Skip::PromptTooLong));
        });
    }

    #[test]
    fn a_rated_answer_is_one_sequence_and_a_prompt_without_template_plain_text() {
        let tokenizer = characters();
        let preferences = Preferences { sft: Sft::new(&tokenizer, None, 100, 0), max_len: 100 };
        let rated = Row::Rated { prompt: vec![Message::user("a ")], answer: "b".into(), desirable: false };
        let example = preferences.examples(&rated).unwrap().remove(0);
        assert_eq!(example.label, Label::Desirable(false));
        assert_eq!(bracketed(&tokenizer, &example.sequences[0]), "a [b</s>]");
        let wrong = preferences.examples(&Row::Text("a".into()));
        assert!(matches!(wrong, Err(Skip::WrongKind { got: "text", .. })));
    }
}
