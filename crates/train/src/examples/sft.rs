//! Supervised fine-tuning: only what the assistant says is learnt, and that it ends.
//!
//! A conversation is rendered once, as the model reads it when it serves. Where an answer begins is found by
//! rendering the turns before it with the header of an answer, where it ends by rendering it as the last
//! turn; both must be beginnings of the whole. Where a template does not render step by step (some change
//! earlier turns), a stand-in for the answer shows its place. An answer is learnt up to the token or text
//! that ends it; one that nothing ends, as the last of some templates, is ended by EOS. Control tokens that
//! people wrote stay text, as when serving. Source: InstructGPT, arXiv:2203.02155, §3.5; LLaMA 2,
//! arXiv:2307.09288, §3.1 (loss on answers only).

use super::alignment::marked;
use super::stand_ins::places;
use crate::data::Row;
use crate::example::Picture;
use crate::{Example, Label, Sequence, Skip};
use rhetor_generate::{ChatTemplate, Controls, GenerationPrompt, Guarded, RenderOptions, pictures};
use rhetor_lm::{Message, Prompt, Role};
use rhetor_tokenizer::{Special, Tokenizer};
use std::ops::Range;
use std::path::Path;

/// Makes examples for one model.
#[derive(Debug)]
pub struct Sft<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
    controls: Controls,
    max_len: usize,
    now: i64,
    picture_rows: Option<usize>,
}

/// Which answers of a conversation are learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// All of the assistant's.
    All,
    /// The last turn only.
    Last,
}

/// The tokens of a conversation, and which of them are learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// The tokens; at most the length allowed.
    pub ids: Vec<u32>,
    /// Whether each is learnt.
    pub is_trained: Vec<bool>,
}

impl<'a> Sft<'a> {
    /// Examples of at most `max_len` rows. Without a template only completions can be learnt. `now` is what
    /// templates are told of the clock, in seconds since 1970.
    pub fn new(
        tokenizer: &'a Tokenizer,
        template: Option<&'a ChatTemplate>,
        max_len: usize,
        now: i64,
    ) -> Sft<'a> {
        Sft { tokenizer, template, controls: Controls::of(tokenizer), max_len, now, picture_rows: None }
    }

    /// The same for a model with eyes, which makes so many rows of a picture.
    pub fn with_pictures(self, picture_rows: Option<usize>) -> Sft<'a> {
        Sft { picture_rows, ..self }
    }

    /// Whether conversations can be rendered.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// The example of a conversation or a completion. What is too long loses its end; rows after the last
    /// token that is learnt are left out.
    pub fn examples(&self, row: &Row) -> Result<Vec<Example>, Skip> {
        let marked = match row {
            Row::Pictured { image, prompt, answer } => {
                return Ok(vec![Example::of(self.pictured(image, prompt, answer)?)]);
            }
            Row::Chat(messages) => self.conversation(messages, Answers::All, self.max_len + 1)?,
            Row::Completion { prompt, completion } => {
                self.completion(prompt, completion, self.max_len + 1)?
            }
            other => {
                let expected = "conversations or completions";
                return Err(Skip::WrongKind { expected, got: other.kind() });
            }
        };
        Ok(vec![Example::of(Sequence::masked(&marked.ids, &marked.is_trained))])
    }

    /// A picture, what is asked about it, and the answer with what ends it, which alone is learnt.
    ///
    /// Prompt and answer are encoded each by itself, as by MiniGPT-4 (`minigpt4/models/minigpt_base.py`,
    /// `preparing_embedding`).
    fn pictured(&self, image: &Path, prompt: &str, answer: &str) -> Result<Sequence, Skip> {
        let n_rows = self.picture_rows.ok_or(Skip::NoEyes)?;
        let file = rhetor_images::Picture::read(image).map_err(|error| Skip::Picture(error.to_string()))?;
        let decoded = rhetor_images::Picture::decode(&file);
        decoded.map_err(|error| Skip::Picture(format!("{}: {error}", image.display())))?;
        let asked = Prompt::Chat(vec![Message::user(prompt)]);
        let Prompt::Chat(turns) = pictures::placed(&asked, 1).into_owned() else {
            unreachable!("a conversation stays one")
        };
        let guarded = Guarded::new(&self.controls, &turns, &[]);
        let text = match self.template {
            Some(template) => {
                template.render(&guarded.messages, &RenderOptions::at(GenerationPrompt::Add, self.now))
            }
            None => Ok(guarded.messages[0].content.clone()),
        };
        let text = text.map_err(|error| Skip::Template(error.to_string()))?;
        let encode = |piece: &str| guarded.encode(self.tokenizer, piece);
        let (mut ids, places) = pictures::pieces(self.tokenizer, &text, n_rows, encode);
        let &[first] = places.as_slice() else {
            return Err(Skip::Contradiction(format!("{} places for one picture", places.len())));
        };
        let n_given = ids.len();
        if n_given > self.max_len {
            return Err(Skip::PromptTooLong);
        }
        let stop = self.template.and_then(|template| template.stops().first().copied());
        let token = |stop: &str| match self.tokenizer.encode(stop, Special::Parse).as_slice() {
            &[id] if self.tokenizer.is_special(id) => Some(id),
            _ => None,
        };
        let (words, end) = match stop {
            Some(stop) if token(stop).is_some() => (answer.to_string(), token(stop)),
            Some(stop) => (format!("{answer}{stop}"), None),
            None => (answer.to_string(), self.tokenizer.eos()),
        };
        ids.extend(self.tokenizer.encode(&words, Special::Literal));
        ids.extend(end);
        ids.truncate(self.max_len + 1);
        let pictures = vec![Picture { first, file: file.into() }];
        Ok(Sequence { pictures, ..Sequence::completion(&ids, n_given) })
    }

    /// Encodes a conversation and marks its answers; at most `n_max` tokens, and none after the last that is
    /// learnt.
    pub fn conversation(&self, messages: &[Message], answers: Answers, n_max: usize) -> Result<Marked, Skip> {
        let template =
            self.template.ok_or_else(|| Skip::Template("there is no chat template".to_string()))?;
        let last =
            messages.iter().rposition(|message| message.role == Role::Assistant).ok_or(Skip::NoAnswer)?;
        let first = if answers == Answers::Last { last } else { 0 };
        let guarded = Guarded::new(&self.controls, &messages[..=last], &[]);
        let turns = &guarded.messages;
        let render = |turns: &[Message], prompt| {
            let rendered = template.render(turns, &RenderOptions::at(prompt, self.now));
            rendered.map_err(|error| Skip::Template(error.to_string()))
        };
        let whole = render(turns, GenerationPrompt::Omit)?;
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut stand_ins = None;
        let mut is_ended = false;
        for i in (first..turns.len()).filter(|&i| turns[i].role == Role::Assistant) {
            let start = self.common_start(&render, &turns[..i], GenerationPrompt::Add, &whole);
            let end = self.common_start(&render, &turns[..=i], GenerationPrompt::Omit, &whole);
            let shown = |stand_ins: &mut Option<Vec<Range<usize>>>| match stand_ins {
                Some(places) => Ok::<_, Skip>(places[i].clone()),
                None => Ok(stand_ins.insert(places(
                    &|turns| render(turns, GenerationPrompt::Omit),
                    turns,
                    &whole,
                )?)[i]
                    .clone()),
            };
            let range = match (start, end) {
                (Some(start), Some(end)) if start < end => start..end,
                (Some(start), _) => start..self.end_after(&whole, shown(&mut stand_ins)?),
                (None, _) => {
                    let words = shown(&mut stand_ins)?;
                    words.start..self.end_after(&whole, words)
                }
            };
            let (range, ends) = self.up_to_stop(&whole, range, turns[i].content.trim());
            is_ended = ends;
            ranges.push(range);
        }
        let last_range = ranges.last_mut().expect("there is an answer");
        let tail = &whole[last_range.end..];
        let mut text = whole.as_str();
        if !is_ended && tail.is_empty() {
            // White space after the last answer belongs to the turn that does not come.
            text = whole.trim_end();
            last_range.end = text.len().max(last_range.start);
            text = &whole[..last_range.end];
        }
        let encode = |text: &str| guarded.encode(self.tokenizer, text);
        let found = marked(self.tokenizer, text, &ranges, encode, |text| guarded.reveal(text));
        let (ids, marks) = found.ok_or(Skip::NotAligned)?;
        self.finished(ids, marks, !is_ended, n_max)
    }

    /// Encodes a text and how it goes on, which is learnt, and EOS after it.
    pub fn completion(&self, prompt: &str, completion: &str, n_max: usize) -> Result<Marked, Skip> {
        if completion.is_empty() {
            return Err(Skip::Empty);
        }
        let encode = |text: &str| self.tokenizer.encode(text, Special::Literal);
        let text = format!("{prompt}{completion}");
        let learnt = prompt.len()..text.len();
        let found = marked(self.tokenizer, &text, std::slice::from_ref(&learnt), encode, str::to_string);
        let (ids, marks) = found.ok_or(Skip::NotAligned)?;
        self.finished(ids, marks, true, n_max)
    }

    /// Adds BOS if the model wants it and the template has not written it, and EOS; cuts what is too long.
    fn finished(
        &self,
        mut ids: Vec<u32>,
        mut is_trained: Vec<bool>,
        adds_eos: bool,
        n_max: usize,
    ) -> Result<Marked, Skip> {
        if let Some(bos) = self.tokenizer.bos().filter(|_| self.tokenizer.adds_bos())
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
            is_trained.insert(0, false);
        }
        if let Some(eos) = self.tokenizer.eos().filter(|_| adds_eos) {
            ids.push(eos);
            is_trained.push(true);
        }
        ids.truncate(n_max);
        is_trained.truncate(n_max);
        // The first token is never predicted: nothing stands before it.
        let last = is_trained.iter().rposition(|&is| is).filter(|&last| last > 0).ok_or(Skip::NothingLeft)?;
        ids.truncate(last + 1);
        is_trained.truncate(last + 1);
        Ok(Marked { ids, is_trained })
    }

    /// The length of what these turns are rendered as, if the whole begins so. Templates that refuse these
    /// turns alone do not render step by step.
    fn common_start(
        &self,
        render: &impl Fn(&[Message], GenerationPrompt) -> Result<String, Skip>,
        turns: &[Message],
        prompt: GenerationPrompt,
        whole: &str,
    ) -> Option<usize> {
        let start = render(turns, prompt).ok()?;
        whole.starts_with(&start).then_some(start.len())
    }

    /// Where an answer whose words stand at `words` ends, with the stop that follows them at once.
    fn end_after(&self, whole: &str, words: Range<usize>) -> usize {
        let rest = &whole[words.end..];
        let blank = rest.len() - rest.trim_start().len();
        let stop = self.stops().find(|stop| rest[blank..].starts_with(stop.as_str()));
        stop.map_or(words.end, |stop| words.end + blank + stop.len())
    }

    /// The range up to its first stop after `words`, and whether there is one.
    fn up_to_stop(&self, whole: &str, range: Range<usize>, words: &str) -> (Range<usize>, bool) {
        // A stop inside the words themselves ends nothing.
        let text = &whole[range.clone()];
        let after = text.find(words).map_or(0, |at| at + words.len());
        let stops =
            self.stops().filter_map(|stop| text[after..].find(&stop).map(|at| after + at + stop.len()));
        match stops.min() {
            Some(end) => (range.start..range.start + end, true),
            None => (range, false),
        }
    }

    /// What ends an answer, as text.
    fn stops(&self) -> impl Iterator<Item = String> + '_ {
        let pieces = self.tokenizer.stops().iter().filter_map(|&id| self.tokenizer.piece(id));
        let named = self.template.map_or(&[][..], |template| template.stops());
        pieces.chain(named.iter().copied()).filter(|stop| !stop.is_empty()).map(str::to_string)
    }
}

/// The whole of a marked conversation as a sequence whose last row is its last token, for losses that read it
/// there (a reward) or sum over the answer.
pub(crate) fn with_last_row(marked: &Marked) -> Sequence {
    let mut sequence = Sequence::masked(&marked.ids, &marked.is_trained);
    sequence.tokens.extend(marked.ids.last());
    sequence.targets.push(crate::IGNORE);
    sequence
}

/// An example of one sequence with a label.
pub(crate) fn labelled(sequence: Sequence, label: Label) -> Example {
    Example { sequences: vec![sequence], label }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{bracketed, byte_level, characters, sentence_piece};
    use super::*;
    use expect_test::{Expect, expect};

    fn talk() -> Vec<Message> {
        vec![
            Message::user("Hi"),
            Message::assistant("Hello."),
            Message::user("1+1?"),
            Message::assistant(" 2 "),
        ]
    }

    fn shown(source: &str, messages: &[Message], max_len: usize) -> Result<String, Skip> {
        let tokenizer = characters();
        let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
        let made =
            Sft::new(&tokenizer, Some(&template), max_len, 0).examples(&Row::Chat(messages.to_vec()))?;
        Ok(bracketed(&tokenizer, &made[0].sequences[0]))
    }

    fn check(source: &str, messages: &[Message], expected: Expect) {
        expected.assert_eq(&shown(source, messages, 10_000).unwrap());
    }

    fn published(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat_template/templates");
        std::fs::read_to_string(path.join(name)).unwrap()
    }

    #[test]
    fn answers_are_learnt_with_the_token_that_ends_them() {
        check(
            "chatml",
            &talk(),
            expect![[r#"
            <|im_start|>user
            Hi<|im_end|>
            <|im_start|>assistant
            [Hello.<|im_end|>]
            <|im_start|>user
            1+1?<|im_end|>
            <|im_start|>assistant
            [ 2 <|im_end|>]"#]],
        );
        check(
            &published("smollm2.jinja"),
            &talk(),
            expect![[r#"
            <|im_start|>system
            You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
            <|im_start|>user
            Hi<|im_end|>
            <|im_start|>assistant
            [Hello.<|im_end|>]
            <|im_start|>user
            1+1?<|im_end|>
            <|im_start|>assistant
            [ 2 <|im_end|>]"#]],
        );
        check(
            "llama2",
            &talk(),
            expect!["<s>[INST] Hi [/INST][ Hello. </s>]<s>[INST] 1+1? [/INST][ 2 </s>]"],
        );
        check(
            "vicuna",
            &talk(),
            expect![
                "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. USER: Hi ASSISTANT:[ Hello.</s>]USER: 1+1? ASSISTANT:[  2 </s>]"
            ],
        );
        check(
            "zephyr",
            &talk(),
            expect![[r#"
            <|user|>
            Hi</s>
            <|assistant|>
            [Hello.</s>]
            <|user|>
            1+1?</s>
            <|assistant|>
            [ 2 </s>]"#]],
        );
        check("mistral", &talk(), expect!["<s>[INST] Hi [/INST][ Hello.</s>][INST] 1+1? [/INST][  2 </s>]"]);
    }

    #[test]
    fn an_answer_that_nothing_ends_is_ended_by_eos() {
        check(
            "falcon",
            &talk(),
            expect![[r#"
            User: Hi
            Assistant:[ Hello.
            ]User: 1+1?
            Assistant:[  2</s>]"#]],
        );
        check(
            "solar",
            &talk(),
            expect![[r#"
            ### User:
            Hi

            ### Assistant:
            [Hello.

            ]### User:
            1+1?

            ### Assistant:
            [ 2</s>]"#]],
        );
        check(
            "zero-shot",
            &talk(),
            expect![[r#"
            A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.
            ### Human: Hi
            ### Assistant:[ Hello.
            ###] Human: 1+1?
            ### Assistant:[  2 
            ###]"#]],
        );
    }

    #[test]
    fn templates_that_do_not_render_step_by_step_are_learnt_as_well() {
        check(
            &published("qwen3.jinja"),
            &talk(),
            expect![[r#"
            <|im_start|>user
            Hi<|im_end|>
            <|im_start|>assistant
            [Hello.<|im_end|>]
            <|im_start|>user
            1+1?<|im_end|>
            <|im_start|>assistant
            [<think>

            </think>

             2 <|im_end|>]"#]],
        );
        let reasoned = [
            Message::user("a"),
            Message::assistant("<think>\nwhy\n</think>\n\nb"),
            Message::user("c"),
            Message::assistant("d"),
        ];
        check(
            &published("qwen3.jinja"),
            &reasoned,
            expect![[r#"
            <|im_start|>user
            a<|im_end|>
            <|im_start|>assistant
            [b<|im_end|>]
            <|im_start|>user
            c<|im_end|>
            <|im_start|>assistant
            [<think>

            </think>

            d<|im_end|>]"#]],
        );
        let from_the_end = "{% for m in messages %}{{ messages | length }}{{ m.role[0] }}:{{ m.content | trim }}</s>{% endfor %}";
        check(from_the_end, &talk(), expect!["4u:Hi</s>4a:[Hello.</s>]4u:1+1?</s>4a:[2</s>]"]);
    }

    #[test]
    fn every_named_template_learns_every_answer() {
        for template in rhetor_generate::TEMPLATES {
            let shown = shown(template.about.name, &talk(), 10_000).unwrap();
            let learnt: Vec<&str> =
                shown.split('[').skip(1).map(|part| part.split(']').next().unwrap()).collect();
            // Llama 2 and Mistral write brackets of their own.
            let answers: Vec<&&str> = learnt.iter().filter(|text| !text.contains("INST")).collect();
            assert_eq!(answers.len(), 2, "{shown}");
            assert!(answers[0].trim().starts_with("Hello.") && answers[1].trim().starts_with('2'), "{shown}");
            let ends = |text: &str| text.ends_with(['>', '#']) || text.len() > "Hello.".len();
            assert!(answers.iter().all(|text| ends(text)), "{shown}");
        }
    }

    #[test]
    fn control_tokens_that_people_wrote_stay_text() {
        let tokenizer = characters();
        let template = ChatTemplate::new("chatml", "", "").unwrap();
        let messages = [Message::user("<|im_end|>"), Message::assistant("a<|im_end|>b")];
        let made =
            Sft::new(&tokenizer, Some(&template), 1000, 0).examples(&Row::Chat(messages.to_vec())).unwrap();
        let sequence = &made[0].sequences[0];
        let end = tokenizer.id("<|im_end|>").unwrap();
        assert_eq!(sequence.targets.iter().filter(|&&target| target == end).count(), 1);
        assert_eq!(sequence.targets.last(), Some(&end));
        assert_eq!(sequence.n_targets(), "a<|im_end|>b".len() + 1);
    }

    #[test]
    fn completions_are_learnt_with_eos_and_merged_tokens_belong_to_them() {
        let tokenizer = byte_level();
        let sft = Sft::new(&tokenizer, None, 100, 0);
        let made = |prompt: &str, completion: &str| {
            let row = Row::Completion { prompt: prompt.into(), completion: completion.into() };
            bracketed(&tokenizer, &sft.examples(&row).unwrap()[0].sequences[0])
        };
        assert_eq!(made("Q: the dog?\nA:", " the fox"), "Q: the dog?\nA:[ the fox<|endoftext|>]");
        assert_eq!(
            made("Q: a t", "he fox"),
            "Q: a[ the fox<|endoftext|>]",
            "the token of ` the` lies over the border"
        );
        let refused = sft.examples(&Row::Chat(talk())).unwrap_err();
        assert_eq!(refused, Skip::Template("there is no chat template".into()));
        assert_eq!(
            sft.examples(&Row::Completion { prompt: "a".into(), completion: "".into() }),
            Err(Skip::Empty)
        );
    }

    #[test]
    fn bos_stands_at_the_beginning_once() {
        let tokenizer = sentence_piece();
        let bos = tokenizer.bos().unwrap();
        assert!(tokenizer.adds_bos());
        let count = |source: &str| {
            let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
            let sft = Sft::new(&tokenizer, Some(&template), 1000, 0);
            let messages = vec![Message::user("the dog"), Message::assistant("the fox")];
            let sequence = sft.examples(&Row::Chat(messages)).unwrap().remove(0).sequences.remove(0);
            let shown = bracketed(&tokenizer, &sequence);
            assert!(shown.ends_with("the fox</s>]") || shown.ends_with("the fox </s>]"), "{shown}");
            assert_eq!(shown.matches("the dog").count(), 1, "{shown}");
            let tokens = sequence.tokens;
            assert_eq!(tokens[0], bos, "{source}");
            tokens.iter().filter(|&&token| token == bos).count()
        };
        assert_eq!([count("llama2"), count("zephyr")], [1, 1]);
    }

    #[test]
    fn what_is_too_long_loses_its_end_and_what_has_no_answer_left_is_skipped() {
        let short = shown("chatml", &talk(), 40).unwrap();
        assert!(short.contains("[Hello.<|im_end|>]") && !short.contains("1+1"), "{short}");
        assert_eq!(shown("chatml", &talk(), 5), Err(Skip::NothingLeft));
        assert_eq!(shown("chatml", &[Message::user("a")], 100), Err(Skip::NoAnswer));
        let twice = [Message::user("a"), Message::user("b"), Message::assistant("c")];
        assert!(
            matches!(shown("llama2", &twice, 100), Err(Skip::Template(why)) if why.contains("the user first"))
        );
        let mute = "{% for m in messages %}{{ m.role }}</s>{% endfor %}";
        assert_eq!(
            shown(&format!("{mute}{{{{ messages | length }}}}"), &talk(), 100),
            Err(Skip::AnswerNotShown)
        );
    }
}
