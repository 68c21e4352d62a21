//! Grammars in llama.cpp's GBNF, put into the dialect of Lark that the parser reads.
//!
//! GBNF derives texts character by character; the parser reads lexemes, each as long as it can be. A GBNF grammar is
//! therefore cut into lexemes as large as they can be without changing the language: `lexemes` finds where two of them
//! would get into each other's way and cuts these smaller, down to single characters if need be.
//!
//! Source: llama.cpp, grammars/README.md and src/llama-grammar.cpp.

mod ambiguity;
mod class;
mod lexemes;
mod parse;
#[cfg(test)]
mod tests;

/// The same language in Lark. An error names line and column.
pub(super) fn to_lark(text: &str) -> Result<String, String> {
    lexemes::to_lark(&parse::parse(text)?)
}
