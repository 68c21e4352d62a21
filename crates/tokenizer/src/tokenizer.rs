//! The face of the crate: text to ids, ids to text, and what a vocabulary says about itself.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rhetor_formats::Checkpoint;

use crate::added_tokens::{AddedToken, AddedTokens, Fragment};
use crate::algorithms::Algorithm;
use crate::detokenizer::{Decoding, Detokenizer};
use crate::hugging_face::HuggingFace;
use crate::vocabulary::{Kind, Vocabulary};
use crate::{Error, TokenId, read};

/// Text to token ids and back, as the model was trained with it. A clone shares the tables.
#[derive(Clone)]
pub struct Tokenizer {
    pub(crate) tables: Arc<Tables>,
}

/// Whether control tokens written in the text are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// `<|im_end|>` in the text is that token: for text that a chat template made.
    Parse,
    /// It is nine characters: for text that a user typed.
    Literal,
}

/// What becomes of control tokens when ids are turned into text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlTokens {
    /// They are written as they are spelled.
    Show,
    /// They vanish.
    Skip,
}

/// Everything that a reader finds out.
pub(crate) struct Tables {
    pub vocabulary: Vocabulary,
    pub engine: Engine,
    pub decoding: Decoding,
    /// What the model wants before and after a text.
    pub before: Vec<TokenId>,
    pub after: Vec<TokenId>,
    pub ids: SpecialIds,
    pub stops: Vec<TokenId>,
    pub chat_template: Option<String>,
    pub read_from: &'static str,
    /// What tells places in the text where the engine is ours, made when it is first asked for.
    pub spans: OnceLock<Option<Arc<HuggingFace>>>,
}

/// What turns text into ids.
pub(crate) enum Engine {
    Own { added: AddedTokens, algorithm: Box<Algorithm> },
    HuggingFace(Box<HuggingFace>),
}

/// The ids that have a role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SpecialIds {
    pub bos: Option<TokenId>,
    pub eos: Option<TokenId>,
    pub eot: Option<TokenId>,
    pub unknown: Option<TokenId>,
    pub separator: Option<TokenId>,
    pub padding: Option<TokenId>,
    pub class: Option<TokenId>,
    pub mask: Option<TokenId>,
}

impl Tokenizer {
    /// Reads the vocabulary of a model: from the GGUF file itself, or from the files beside it, of which the first of
    /// `tokenizer.json`, `tokenizer.model`, `vocab.json` with `merges.txt`, `vocab.txt`, `tok512.bin` counts.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Tokenizer, Error> {
        read::from_checkpoint(checkpoint)
    }

    /// Reads a `tokenizer.json`.
    pub fn from_json_bytes(bytes: &[u8]) -> Result<Tokenizer, Error> {
        read::from_json_bytes(bytes)
    }

    /// Reads a vocabulary file of any kind by its name (`*.gguf`, `*.json`, `*.model`, `*.txt`, `*.bin`), or the one in a
    /// directory, with the settings in the files beside it.
    pub fn from_file(path: &Path) -> Result<Tokenizer, Error> {
        read::from_file(path)
    }

    pub(crate) fn new(tables: Tables) -> Tokenizer {
        Tokenizer { tables: Arc::new(tables) }
    }

    /// The ids of `text`, without those that mark its beginning and end.
    ///
    /// With [`Special::Literal`] no control token is among them, whatever the text says.
    pub fn encode(&self, text: &str, special: Special) -> Vec<TokenId> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 4);
        self.encode_into(text, special, &mut ids);
        ids
    }

    /// The ids of `text` with the tokens that the model wants before and after it (BOS, `[CLS]`, EOS ...).
    ///
    /// They are added even if the text spells them already, as every other program does: a chat template that writes
    /// BOS itself wants [`Tokenizer::encode`].
    pub fn encode_with_specials(&self, text: &str, special: Special) -> Vec<TokenId> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 4);
        ids.extend_from_slice(&self.tables.before);
        self.encode_into(text, special, &mut ids);
        ids.extend_from_slice(&self.tables.after);
        ids
    }

    fn encode_into(&self, text: &str, special: Special, ids: &mut Vec<TokenId>) {
        let (added, algorithm) = match &self.tables.engine {
            Engine::Own { added, algorithm } => (added, algorithm),
            Engine::HuggingFace(engine) => return engine.encode(text, special, ids),
        };
        let vocabulary = &self.tables.vocabulary;
        added.split(text, special, |fragment| match fragment {
            Fragment::Text(text) => algorithm.encode(vocabulary, text, ids),
            Fragment::Token(id) => ids.push(id),
        });
    }

    /// The text of `ids`. Bytes that are no UTF-8 become U+FFFD; ids beyond the vocabulary have no text.
    pub fn decode(&self, ids: &[TokenId], control: ControlTokens) -> String {
        let mut stream = self.stream().control_tokens(control);
        let mut text = String::with_capacity(ids.len() * 4);
        for &id in ids {
            stream.push_to(id, &mut text);
        }
        stream.finish_to(&mut text);
        text
    }

    /// Decodes ids one by one, for text that begins with the first of them. Control tokens are skipped.
    pub fn stream(&self) -> Detokenizer {
        Detokenizer::new(self.tables.clone())
    }

    /// The bytes that token `id` stands for; a space that starts a word is among them. Empty beyond the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        self.tables.decoding.bytes(id)
    }

    /// Token `id` as the vocabulary writes it.
    pub fn piece(&self, id: TokenId) -> Option<&str> {
        ((id as usize) < self.n_tokens()).then(|| self.tables.vocabulary.piece(id))
    }

    /// The token that the vocabulary writes as `piece`.
    pub fn id(&self, piece: &str) -> Option<TokenId> {
        self.tables.vocabulary.id(piece)
    }

    /// The number of tokens. The model's embedding may have more rows; they are never produced here.
    pub fn n_tokens(&self) -> usize {
        self.tables.vocabulary.len()
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<TokenId> {
        self.tables.ids.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<TokenId> {
        self.tables.ids.eos
    }

    /// The token that ends a turn of a chat, where the vocabulary names one.
    pub fn eot(&self) -> Option<TokenId> {
        self.tables.ids.eot
    }

    /// The token for text that no other token covers.
    pub fn unknown(&self) -> Option<TokenId> {
        self.tables.ids.unknown
    }

    /// The token that fills a batch.
    pub fn padding(&self) -> Option<TokenId> {
        self.tables.ids.padding
    }

    /// The token between two texts, `[SEP]`.
    pub fn separator(&self) -> Option<TokenId> {
        self.tables.ids.separator
    }

    /// The token whose state stands for the whole text, `[CLS]`.
    pub fn class(&self) -> Option<TokenId> {
        self.tables.ids.class
    }

    /// The token that hides another, `[MASK]`.
    pub fn mask(&self) -> Option<TokenId> {
        self.tables.ids.mask
    }

    /// The tokens at which an answer ends: EOS, the end of a turn, and those of `generation_config.json`; sorted.
    pub fn stops(&self) -> &[TokenId] {
        &self.tables.stops
    }

    /// Whether `id` is a control or unknown token, and no text.
    pub fn is_special(&self, id: TokenId) -> bool {
        (id as usize) < self.n_tokens() && is_special(self.tables.vocabulary.kind(id))
    }

    /// Whether [`Tokenizer::encode_with_specials`] begins with BOS.
    pub fn adds_bos(&self) -> bool {
        self.bos().is_some() && self.tables.before.first().copied() == self.bos()
    }

    /// The Jinja template that turns messages into text, if the model comes with one.
    pub fn chat_template(&self) -> Option<&str> {
        self.tables.chat_template.as_deref()
    }

    /// Where the vocabulary was read from, such as `GGUF` or `tokenizer.json`.
    pub fn read_from(&self) -> &'static str {
        self.tables.read_from
    }

    /// Writes the tokenizer as `tokenizer.json`. Only those that were read from one or trained have that form.
    pub fn save_json(&self, path: &Path) -> Result<(), Error> {
        match &self.tables.engine {
            Engine::HuggingFace(engine) => engine.save(path),
            Engine::Own { .. } => Err(Error::CannotSave { read_from: self.read_from() }),
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens from {})", self.n_tokens(), self.read_from())
    }
}

pub(crate) fn is_special(kind: Kind) -> bool {
    matches!(kind, Kind::Control | Kind::Unknown)
}

/// The added tokens that the kinds of a vocabulary imply.
pub(crate) fn added_by_kind(vocabulary: &Vocabulary) -> Vec<AddedToken> {
    let added = vocabulary.ids().filter_map(|id| match vocabulary.kind(id) {
        Kind::Control | Kind::Unknown => Some(AddedToken::new(vocabulary.piece(id), id, true)),
        Kind::UserDefined => Some(AddedToken::new(vocabulary.piece(id), id, false)),
        _ => None,
    });
    added.collect()
}

/// Texts that end a turn or a document in the vocabularies of instruct models.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// The tokens that end an answer: `given` and, among those that are no plain text, the ones known by their spelling.
pub(crate) fn stops(vocabulary: &Vocabulary, given: impl IntoIterator<Item = TokenId>) -> Vec<TokenId> {
    let known = |text: &str| {
        let id = vocabulary.id(text)?;
        matches!(vocabulary.kind(id), Kind::Control | Kind::UserDefined | Kind::Unknown).then_some(id)
    };
    // Where tool calls have ends of their own, `<|end|>` ends a channel and not the answer.
    let has_calls =
        known("<|return|>").and(known("<|call|>")).or(known("<|flush|>").and(known("<|calls|>"))).is_some();
    let named = ENDS.iter().filter(|&&text| !(has_calls && text == "<|end|>")).filter_map(|text| known(text));
    let mut stops: Vec<TokenId> =
        given.into_iter().filter(|&id| (id as usize) < vocabulary.len()).chain(named).collect();
    stops.sort_unstable();
    stops.dedup();
    stops
}
