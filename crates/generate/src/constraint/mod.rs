//! Answers that belong to a language: JSON Schema, regular expressions, Lark and GBNF grammars.
//!
//! A [`Grammars`] holds the tokens of one vocabulary as a trie of bytes. It compiles a constraint into a [`Grammar`], once;
//! each sequence then walks through it with a [`State`] of its own, which says before each token which ones may follow.
//! All others are taken from the distribution before any sampling step sees it, so what is drawn is the model's own
//! distribution, renormalised over the tokens that are allowed.
//!
//! Source: Efficient Guided Generation for Large Language Models, arXiv:2307.09702, §3-4; the parser and the lexer are
//! those of the crate llguidance (an Earley parser over lexemes that are recognised by derivatives of regular
//! expressions).

mod compile;
#[cfg(test)]
mod engine_tests;
mod state;
#[cfg(test)]
mod tests;
mod trigger;
mod vocabulary;

pub(crate) use compile::{Grammar, Grammars};
pub(crate) use state::State;
pub(crate) use trigger::Trigger;

/// An error of the grammar's machinery without traces of its own insides.
fn in_short(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let end = ["<non-verbose/>", "<state>", "<backtrace>"].iter().filter_map(|mark| text.find(mark)).min();
    text[..end.unwrap_or(text.len())].trim().to_string()
}
