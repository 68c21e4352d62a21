//! What an answer is made of: thoughts, content, and calls of tools; and how a model is asked for them.
//!
//! [`TOOL_SYNTAX`] has the ways in which models write calls, [`THINKING`] the tags around their thoughts. Which of them a
//! model uses its chat template tells (`manner`). `parser` takes an answer apart as it grows; `form` puts the question.

#[cfg(test)]
mod engine_tests;
mod form;
mod generic;
mod json;
mod manner;
mod parser;
#[cfg(test)]
mod parser_tests;
mod syntax;
mod thinking;

pub(crate) use form::{CALL, Form};
pub(crate) use manner::Manner;
pub(crate) use parser::{Parser, Piece, Reading};
pub use syntax::{Body, TOOL_SYNTAX, ToolSyntax};
pub use thinking::{THINKING, Thinking};
