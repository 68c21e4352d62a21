//! Requests become token ids, at the only door where text is tokenized.
//!
//! A chat template's text is encoded with its control tokens parsed. What people wrote must not become a control token:
//! where a message spells one, the spelling is replaced by a character of private use before the template sees it, and
//! put back as literal text when the rendered prompt is encoded piece by piece. A message that spells none, which is
//! nearly every one, leaves the rendered text as it is: it is encoded in one piece, to the ids that any other program
//! gets.

use crate::answer::Form;
use crate::infill::{InfillTemplate, encode_inside};
use crate::pictures;
use rhetor_lm::{Error, Message, Overflow, Role, Tool};
use rhetor_tokenizer::{Special, Tokenizer};
use serde_json::Value as Json;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// A prompt that fits into the context.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Encoded {
    /// Its tokens; never empty.
    pub ids: Vec<u32>,
    /// Where the rows of each picture begin among them.
    pub places: Vec<usize>,
    /// Tokens that were dropped to make it fit.
    pub n_truncated: usize,
    /// What was dropped, in words.
    pub warnings: Vec<String>,
    /// Tokens that end the answer beside the model's own.
    pub ends: Vec<u32>,
    /// Whether it ends inside a thought.
    pub is_thinking: bool,
}

/// The room there is for a prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Tokens that prompt and answer may have together.
    pub context: usize,
    /// Tokens the answer may have, if that was said.
    pub max_tokens: Option<usize>,
    /// What happens if that is not enough.
    pub overflow: Overflow,
}

impl Room {
    /// Tokens that a prompt may have.
    fn n_prompt_max(&self) -> usize {
        self.context.saturating_sub(self.max_tokens.unwrap_or(1).max(1))
    }

    /// Tokens that are left of a prompt that must be shortened. If nothing was said about the length of the answer, it
    /// gets a quarter of the context.
    fn n_prompt_kept(&self) -> usize {
        self.context.saturating_sub(self.max_tokens.unwrap_or(self.context / 4).max(1))
    }

    fn overflow(&self, prompt_tokens: usize) -> Error {
        let max_tokens = self.max_tokens.unwrap_or(1);
        Error::ContextOverflow { prompt_tokens, max_tokens, context: self.context }
    }
}

/// The spellings of a vocabulary's control tokens.
#[derive(Debug, Default)]
pub struct Controls {
    /// By first byte; longest first.
    spellings: HashMap<u8, Vec<String>>,
}

impl Controls {
    /// All control tokens of a vocabulary.
    pub fn of(tokenizer: &Tokenizer) -> Controls {
        let ids = (0..tokenizer.n_tokens() as u32).filter(|&id| tokenizer.is_special(id));
        let mut spellings: HashMap<u8, Vec<String>> = HashMap::new();
        for piece in ids.filter_map(|id| tokenizer.piece(id)).filter(|piece| !piece.is_empty()) {
            spellings.entry(piece.as_bytes()[0]).or_default().push(piece.to_string());
        }
        for alike in spellings.values_mut() {
            alike.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
        }
        Controls { spellings }
    }

    /// Where `text` spells control tokens: from the left, the longest at each place, without overlap.
    pub(crate) fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let alike = self.spellings.get(&text.as_bytes()[at]).map_or(&[][..], Vec::as_slice);
            match alike.iter().find(|spelling| text.as_bytes()[at..].starts_with(spelling.as_bytes())) {
                Some(spelling) => {
                    found.push(at..at + spelling.len());
                    at += spelling.len();
                }
                None => at += 1,
            }
        }
        found
    }
}

/// Messages and tools whose spelled control tokens are hidden behind characters of private use, so that a template can
/// render them and none of them becomes a control token.
#[derive(Debug)]
pub struct Guarded {
    /// What the template is to render.
    pub messages: Vec<Message>,
    /// The tools that it is to show.
    pub tools: Vec<Tool>,
    /// What each character stands for.
    hidden: HashMap<char, String>,
}

impl Guarded {
    /// Hides what `messages` and `tools` spell of `controls`: in contents and thoughts, names, ids, calls, results and
    /// descriptions, and inside JSON also what is spelled with escapes.
    pub fn new(controls: &Controls, messages: &[Message], tools: &[Tool]) -> Guarded {
        let (mut messages, mut tools) = (messages.to_vec(), tools.to_vec());
        let mut used = HashSet::new();
        each_text(&mut messages, &mut tools, &mut |text| {
            used.extend(text.chars().filter(|&c| c >= '\u{F0000}'));
        });
        let mut unused = ('\u{F0000}'..='\u{10FFFD}').filter(|c| !used.contains(c));
        let mut hidden: HashMap<String, char> = HashMap::new();
        each_text(&mut messages, &mut tools, &mut |text| {
            for range in controls.find(text).into_iter().rev() {
                let spelling = text[range.clone()].to_string();
                let stand_in = *hidden.entry(spelling).or_insert_with(|| {
                    unused.next().expect("fewer spellings than characters of private use")
                });
                text.replace_range(range, stand_in.encode_utf8(&mut [0; 4]));
            }
        });
        Guarded { messages, tools, hidden: hidden.into_iter().map(|(spelling, c)| (c, spelling)).collect() }
    }

    /// The ids of what a template rendered: its own control tokens parsed, those of the messages as literal text.
    pub fn encode(&self, tokenizer: &Tokenizer, rendered: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut rest = rendered;
        while let Some(at) = rest.find(|c| self.hidden.contains_key(&c)) {
            let c = rest[at..].chars().next().expect("found there");
            ids.extend(tokenizer.encode(&rest[..at], Special::Parse));
            ids.extend(tokenizer.encode(&self.hidden[&c], Special::Literal));
            rest = &rest[at + c.len_utf8()..];
        }
        ids.extend(tokenizer.encode(rest, Special::Parse));
        ids
    }

    /// What a template rendered, with the spellings put back.
    pub fn reveal(&self, rendered: &str) -> String {
        rendered.chars().fold(String::with_capacity(rendered.len()), |mut text, c| {
            match self.hidden.get(&c) {
                Some(spelling) => text.push_str(spelling),
                None => text.push(c),
            }
            text
        })
    }
}

/// Shows every text of `messages` and `tools` to `change`; of JSON, each string and key by itself.
fn each_text(messages: &mut [Message], tools: &mut [Tool], change: &mut dyn FnMut(&mut String)) {
    for message in messages {
        change(&mut message.content);
        let more = [&mut message.thinking, &mut message.tool_call_id, &mut message.name];
        more.into_iter().flatten().for_each(&mut *change);
        for call in &mut message.tool_calls {
            change(&mut call.id);
            change(&mut call.name);
            each_text_of_json(&mut call.arguments, change);
        }
    }
    for tool in tools {
        change(&mut tool.name);
        tool.description.iter_mut().for_each(&mut *change);
        each_text_of_json(&mut tool.parameters, change);
    }
}

/// As [`each_text`]; text that is no JSON is one text. What is not changed stays as it was written.
fn each_text_of_json(text: &mut String, change: &mut dyn FnMut(&mut String)) {
    let Ok(before) = serde_json::from_str::<Json>(text) else { return change(text) };
    let mut after = before.clone();
    each_string(&mut after, change);
    if after != before {
        *text = after.to_string();
    }
}

fn each_string(value: &mut Json, change: &mut dyn FnMut(&mut String)) {
    match value {
        Json::String(text) => change(text),
        Json::Array(items) => items.iter_mut().for_each(|item| each_string(item, change)),
        Json::Object(map) => {
            let entries = std::mem::take(map).into_iter();
            *map = entries
                .map(|(mut key, mut item)| {
                    change(&mut key);
                    each_string(&mut item, change);
                    (key, item)
                })
                .collect();
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// Encodes prompts for one model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoder<'a> {
    /// Turns text into ids.
    pub tokenizer: &'a Tokenizer,
    /// The spellings of its control tokens.
    pub controls: &'a Controls,
    /// Rows that a picture becomes, where the prompt has places for pictures.
    pub picture_rows: Option<usize>,
}

impl Encoder<'_> {
    /// Encodes plain text.
    pub fn text(&self, text: &str, special: Special, room: &Room) -> Result<Encoded, Error> {
        let (ids, places) = self.pieces(text, |piece| self.tokenizer.encode(piece, special));
        self.fitted(ids, places, room)
    }

    /// Takes tokens as they are.
    pub fn ids(&self, ids: &[u32], room: &Room) -> Result<Encoded, Error> {
        let n_tokens = self.tokenizer.n_tokens();
        if let Some(id) = ids.iter().find(|id| **id as usize >= n_tokens) {
            let reason = format!("token {id} is none of the {n_tokens} tokens of the vocabulary");
            return Err(Error::InvalidOption { option: "prompt", reason });
        }
        self.fitted(ids.to_vec(), Vec::new(), room)
    }

    fn fitted(&self, ids: Vec<u32>, places: Vec<usize>, room: &Room) -> Result<Encoded, Error> {
        let ids = match (ids.is_empty(), self.tokenizer.bos().or(self.tokenizer.eos())) {
            (false, _) => ids,
            // GPT-2 and its like begin a text with the token that ends one.
            (true, Some(start)) => vec![start],
            (true, None) => return Err(Error::EmptyPrompt),
        };
        if ids.len() <= room.n_prompt_max() {
            return Ok(Encoded { ids, places, ..Encoded::default() });
        }
        let n_first = usize::from(self.tokenizer.adds_bos());
        if room.overflow == Overflow::Error || room.n_prompt_kept() <= n_first {
            return Err(room.overflow(ids.len()));
        }
        let n_truncated = ids.len() - room.n_prompt_kept();
        let mut kept = ids[..n_first].to_vec();
        kept.extend_from_slice(&ids[n_first + n_truncated..]);
        let warning =
            format!("the first {n_truncated} tokens were dropped to fit the context of {}", room.context);
        Ok(Encoded { ids: kept, n_truncated, warnings: vec![warning], ..Encoded::default() })
    }

    /// Encodes what an encoder reads, with the tokens that the model wants around it. If it must be shortened, its
    /// beginning stays, which says what is to be done.
    pub fn source(&self, text: &str, special: Special, room: &Room) -> Result<Encoded, Error> {
        let ids = self.tokenizer.encode_with_specials(text, special);
        if ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if ids.len() <= room.context {
            return Ok(Encoded { ids, ..Encoded::default() });
        }
        let n_last = self.tokenizer.encode_with_specials("", special).len();
        if room.overflow == Overflow::Error || n_last >= room.context {
            return Err(Error::ContextOverflow {
                prompt_tokens: ids.len(),
                max_tokens: 0,
                context: room.context,
            });
        }
        let n_truncated = ids.len() - room.context;
        let mut kept = ids[..room.context - n_last].to_vec();
        kept.extend_from_slice(&ids[ids.len() - n_last..]);
        let warning =
            format!("the last {n_truncated} tokens were dropped to fit the context of {}", room.context);
        Ok(Encoded { ids: kept, n_truncated, warnings: vec![warning], ..Encoded::default() })
    }

    /// Encodes a text with a hole as `template` has it, whose tokens are in the vocabulary.
    ///
    /// If it must be shortened, what is nearest to the hole stays: a quarter of the room for what follows it, or more if
    /// what stands before it is short.
    pub fn infill(
        &self,
        template: &InfillTemplate,
        prefix: &str,
        suffix: &str,
        room: &Room,
    ) -> Result<Encoded, Error> {
        let before = self.tokenizer.encode(prefix, Special::Literal);
        let after = encode_inside(suffix, self.tokenizer);
        let ask = |before: &[u32], after: &[u32]| {
            let asked = template.ask(before, after, self.tokenizer);
            Encoded { ids: self.with_bos(asked.ids), ends: asked.ends, ..Encoded::default() }
        };
        let all = ask(&before, &after);
        if all.ids.len() <= room.n_prompt_max() {
            return Ok(all);
        }
        let n_marks = all.ids.len() - before.len() - after.len();
        if room.overflow == Overflow::Error || room.n_prompt_kept() <= n_marks {
            return Err(room.overflow(all.ids.len()));
        }
        let room_of_texts = room.n_prompt_kept() - n_marks;
        let n_after = after.len().min((room_of_texts / 4).max(room_of_texts.saturating_sub(before.len())));
        let n_before = before.len().min(room_of_texts - n_after);
        let (n_first, n_last) = (before.len() - n_before, after.len() - n_after);
        let warning = format!(
            "the first {n_first} tokens before the hole and the last {n_last} after it were dropped to fit the context of {}",
            room.context
        );
        let kept = ask(&before[n_first..], &after[..n_after]);
        Ok(Encoded { n_truncated: n_first + n_last, warnings: vec![warning], ..kept })
    }

    /// Renders and encodes a conversation.
    pub fn chat(&self, form: &Form<'_>, messages: &[Message], room: &Room) -> Result<Encoded, Error> {
        if messages.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let whole = self.conversation(form, messages)?;
        let n_all = whole.ids.len();
        if n_all <= room.n_prompt_max() {
            return Ok(whole);
        }
        if room.overflow == Overflow::Error {
            return Err(room.overflow(n_all));
        }
        let mut kept = messages.to_vec();
        while drop_oldest(&mut kept) {
            let encoded = self.conversation(form, &kept)?;
            if encoded.ids.len() <= room.n_prompt_kept() {
                let n_truncated = n_all - encoded.ids.len();
                let warning = format!(
                    "the oldest {} of {} messages ({n_truncated} tokens) were dropped to fit the context of {}",
                    messages.len() - kept.len(),
                    messages.len(),
                    room.context
                );
                return Ok(Encoded { n_truncated, warnings: vec![warning], ..encoded });
            }
        }
        Err(room.overflow(self.conversation(form, &kept)?.ids.len()))
    }

    fn conversation(&self, form: &Form<'_>, messages: &[Message]) -> Result<Encoded, Error> {
        let guarded = Guarded::new(self.controls, messages, &form.tools);
        let rendered = form.render(&guarded.messages, &guarded.tools)?;
        let (ids, places) = self.pieces(&rendered.text, |piece| guarded.encode(self.tokenizer, piece));
        Ok(Encoded { ids, places, is_thinking: rendered.is_thinking, ..Encoded::default() })
    }

    /// The ids of a text, and where the rows of its pictures begin.
    fn pieces(&self, text: &str, encode: impl Fn(&str) -> Vec<u32>) -> (Vec<u32>, Vec<usize>) {
        match self.picture_rows {
            Some(n_rows) => pictures::pieces(self.tokenizer, text, n_rows, encode),
            None => (self.with_bos(encode(text)), Vec::new()),
        }
    }

    fn with_bos(&self, ids: Vec<u32>) -> Vec<u32> {
        with_bos(self.tokenizer, ids)
    }
}

/// Puts BOS in front, if the model wants it and the template has not written it itself.
pub(crate) fn with_bos(tokenizer: &Tokenizer, mut ids: Vec<u32>) -> Vec<u32> {
    if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.adds_bos())
        && ids.first() != Some(&bos)
    {
        ids.insert(0, bos);
    }
    ids
}

/// Drops the oldest message that is not the system's, and what then stands before the next turn of the user: templates
/// want that a person begins. False if only the last message is left.
fn drop_oldest(messages: &mut Vec<Message>) -> bool {
    let mut is_dropped = false;
    while let Some(at) = messages.iter().position(|message| message.role != Role::System) {
        if at + 1 >= messages.len() || is_dropped && messages[at].role == Role::User {
            break;
        }
        messages.remove(at);
        is_dropped = true;
    }
    is_dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_tokenizer::ControlTokens;
    use rhetor_tokenizer::train::{Kind, TrainOptions, train};

    #[test]
    fn of_a_text_with_a_hole_what_is_nearest_to_it_stays() {
        let specials =
            "<unk> <fim_prefix> <fim_suffix> <fim_middle>".split(' ').map(str::to_string).collect();
        let options = TrainOptions { kind: Kind::Characters, vocab_size: 200, specials, min_frequency: 1 };
        let tokenizer = train(&options, [('a'..='z').collect::<String>()].iter()).unwrap();
        let controls = Controls::of(&tokenizer);
        let encoder = Encoder { tokenizer: &tokenizer, controls: &controls, picture_rows: None };
        let template = InfillTemplate::of(&tokenizer).unwrap();
        let ask = |prefix: &str, suffix: &str, overflow| {
            let room = Room { context: 13, max_tokens: Some(2), overflow };
            let encoded = encoder.infill(template, prefix, suffix, &room)?;
            Ok::<_, Error>((tokenizer.decode(&encoded.ids, ControlTokens::Show), encoded.n_truncated))
        };
        let cut = Overflow::TruncateOldest;
        let shown = |text: &str, n| (text.to_string(), n);
        let whole = ask("abcdef", "yz", Overflow::Error).unwrap();
        assert_eq!(whole, shown("<fim_prefix>abcdef<fim_suffix>yz<fim_middle>", 0));
        let long = ask("abcdefgh", "uvwxyz", cut).unwrap();
        assert_eq!(long, shown("<fim_prefix>cdefgh<fim_suffix>uv<fim_middle>", 6));
        let short = ask("ab", "qrstuvwxyz", cut).unwrap();
        assert_eq!(short, shown("<fim_prefix>ab<fim_suffix>qrstuv<fim_middle>", 4));
        assert!(matches!(ask("abcdefgh", "uvwxyz", Overflow::Error), Err(Error::ContextOverflow { .. })));
    }
}
