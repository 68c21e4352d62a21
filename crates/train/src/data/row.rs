//! One item of a data set, as its file tells it and before any tokenizer has seen it.

use rhetor_lm::Message;
use std::path::PathBuf;

/// One item of a data set.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A document, or a piece of one that is too long to be held at once.
    Text(String),
    /// A text and how it goes on; only the second part is learnt.
    Completion {
        /// What is given.
        prompt: String,
        /// What follows.
        completion: String,
    },
    /// A conversation; the assistant's turns are learnt.
    Chat(Vec<Message>),
    /// A picture, what is asked about it, and the answer; only the answer is learnt.
    Pictured {
        /// The file, a PNG, JPEG or WebP.
        image: PathBuf,
        /// What is asked; empty = the picture speaks for itself. It may say where the picture stands.
        prompt: String,
        /// The answer, or the caption.
        answer: String,
    },
    /// Two answers to one prompt, the first of which people prefer.
    Preference {
        /// The conversation up to the answer.
        prompt: Vec<Message>,
        /// The better answer.
        chosen: String,
        /// The worse answer.
        rejected: String,
        /// By how much, if the data says so.
        margin: Option<f32>,
    },
    /// An answer that is wanted or not.
    Rated {
        /// The conversation up to the answer.
        prompt: Vec<Message>,
        /// The answer.
        answer: String,
        /// Whether it is one to write again.
        desirable: bool,
    },
    /// A text, or a pair of texts, and its class.
    Classified {
        /// The text.
        text: String,
        /// The second text, such as the hypothesis of an inference.
        text_pair: Option<String>,
        /// The name of the class, or a number as it is written.
        label: String,
    },
    /// Words, each with a tag.
    Tagged {
        /// The words.
        words: Vec<String>,
        /// As many tags.
        tags: Vec<String>,
    },
    /// A question that a text answers in its own words.
    Question {
        /// The text.
        context: String,
        /// The question.
        question: String,
        /// The answers, any of which is right; none = the text does not say.
        answers: Vec<Answer>,
    },
    /// A text and the same in another language.
    Translation {
        /// The original.
        source: String,
        /// The translation.
        target: String,
    },
}

/// An answer that stands in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its words.
    pub text: String,
    /// Characters (not bytes) of the context before it.
    pub start: usize,
}

impl Row {
    /// The text of a row that is one.
    pub fn into_text(self) -> Option<String> {
        match self {
            Row::Text(text) => Some(text),
            Row::Completion { prompt, completion } => Some(prompt + &completion),
            Row::Classified { text, .. } => Some(text),
            Row::Translation { source, target } => Some(source + "\n" + &target),
            _ => None,
        }
    }

    /// The kind, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Row::Text(_) => "text",
            Row::Completion { .. } => "completion",
            Row::Chat(_) => "chat",
            Row::Pictured { .. } => "pictured",
            Row::Preference { .. } => "preference",
            Row::Rated { .. } => "rated answer",
            Row::Classified { .. } => "classified text",
            Row::Tagged { .. } => "tagged words",
            Row::Question { .. } => "question",
            Row::Translation { .. } => "translation",
        }
    }
}
