//! Infilling: what stands between a prefix and a suffix, written by models that were trained for it.
//!
//! Each family marks the parts with tokens of its own; the vocabulary tells which. Source: Bavarian et al.,
//! arXiv:2207.14255, section 3 (PSM: the prefix first, the middle last).

use rhetor_catalog::{About, Source};
use rhetor_tokenizer::{Special, Tokenizer};

/// How a family of models is asked for a middle.
#[derive(Debug)]
pub struct InfillTemplate {
    /// How it introduces itself.
    pub about: About,
    /// What is written, in order.
    parts: &'static [Part],
    /// Tokens that end the middle beside the model's own; those that the vocabulary does not have are passed over.
    ends: &'static [&'static str],
}

/// A part of what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A control token.
    Token(&'static str),
    /// The text before the middle.
    Prefix,
    /// The text after it.
    Suffix,
}
use Part::{Prefix, Suffix, Token};

/// Every template, in the order in which a vocabulary is asked for its tokens.
pub const INFILL: &[InfillTemplate] = &[
    template(
        "starcoder",
        "StarCoder, StarCoder2, DeciCoder",
        "arXiv:2305.06161",
        &[Token("<fim_prefix>"), Prefix, Token("<fim_suffix>"), Suffix, Token("<fim_middle>")],
        &["<|endoftext|>", "<file_sep>", "<filename>"],
    ),
    template(
        "santacoder",
        "SantaCoder",
        "arXiv:2301.03988",
        &[Token("<fim-prefix>"), Prefix, Token("<fim-suffix>"), Suffix, Token("<fim-middle>")],
        &["<|endoftext|>"],
    ),
    template(
        "qwen-coder",
        "Qwen2.5-Coder, CodeGemma",
        "arXiv:2409.12186",
        &[Token("<|fim_prefix|>"), Prefix, Token("<|fim_suffix|>"), Suffix, Token("<|fim_middle|>")],
        &["<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>"],
    ),
    template(
        "code-llama",
        "Code Llama 7B and 13B",
        "arXiv:2308.12950",
        &[Token("▁<PRE>"), Prefix, Token("▁<SUF>"), Suffix, Token("▁<MID>")],
        &["▁<EOT>"],
    ),
    template(
        "code-llama-plain",
        "Code Llama's tokens, spelled without the mark of a space",
        "arXiv:2308.12950",
        &[Token("<PRE>"), Prefix, Token("<SUF>"), Suffix, Token("<MID>")],
        &["<EOT>"],
    ),
    template(
        "glm-coder",
        "CodeGeeX4 and GLM-4 coders, with <|code_prefix|>",
        "THUDM/CodeGeeX4, infilling guide",
        &[Token("<|code_prefix|>"), Prefix, Token("<|code_suffix|>"), Suffix, Token("<|code_middle|>")],
        &["<|endoftext|>"],
    ),
    template(
        "codegen",
        "CodeGen2 and CodeGen2.5",
        "arXiv:2305.02309",
        &[Prefix, Token("<mask_1>"), Suffix, Token("<|endoftext|>"), Token("<sep>"), Token("<mask_1>")],
        &["<eom>"],
    ),
    template(
        "deepseek-coder",
        "DeepSeek-Coder",
        "arXiv:2401.14196",
        &[Token("<｜fim▁begin｜>"), Prefix, Token("<｜fim▁hole｜>"), Suffix, Token("<｜fim▁end｜>")],
        &[],
    ),
    template(
        "codestral",
        "Codestral and other Mistral models with these tokens",
        "mistral-common, tokens/tokenizers",
        &[Token("[SUFFIX]"), Suffix, Token("[PREFIX]"), Prefix],
        &[],
    ),
    template(
        "incoder",
        "InCoder",
        "arXiv:2204.05999",
        &[Prefix, Token("<|mask:0|>"), Suffix, Token("<|mask:0|>")],
        &["<|endofmask|>"],
    ),
];

const fn template(
    name: &'static str,
    summary: &'static str,
    id: &'static str,
    parts: &'static [Part],
    ends: &'static [&'static str],
) -> InfillTemplate {
    let source = Source::Paper { title: "infilling", id, section: "the control tokens" };
    InfillTemplate { about: About { name, summary, source, options: &[] }, parts, ends }
}

/// A prefix and a suffix as the tokens that ask for what stands between them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The tokens, without BOS.
    pub ids: Vec<u32>,
    /// Tokens that end the answer beside the model's own.
    pub ends: Vec<u32>,
}

impl InfillTemplate {
    /// The first template all of whose tokens the vocabulary has.
    pub fn of(tokenizer: &Tokenizer) -> Option<&'static InfillTemplate> {
        INFILL.iter().find(|template| template.fits(tokenizer))
    }

    /// Whether the vocabulary has all its tokens.
    pub fn fits(&self, tokenizer: &Tokenizer) -> bool {
        self.parts.iter().all(|part| match part {
            Token(piece) => tokenizer.id(piece).is_some(),
            Prefix | Suffix => true,
        })
    }

    /// The tokens before the prefix, the suffix and the middle, where the template is made of these.
    pub fn markers(&self) -> Option<[&'static str; 3]> {
        match *self.parts {
            [Token(prefix), Prefix, Token(suffix), Suffix, Token(middle)] => Some([prefix, suffix, middle]),
            _ => None,
        }
    }

    /// The tokens that ask for the middle. Control tokens spelled in the texts stay text. Panics if the vocabulary lacks
    /// tokens of the template.
    pub(crate) fn ask(&self, prefix: &[u32], suffix: &[u32], tokenizer: &Tokenizer) -> Asked {
        let mut ids = Vec::with_capacity(prefix.len() + suffix.len() + 4);
        for part in self.parts {
            match part {
                Token(piece) => ids.push(tokenizer.id(piece).expect("the template fits the vocabulary")),
                Prefix => ids.extend_from_slice(prefix),
                Suffix => ids.extend_from_slice(suffix),
            }
        }
        Asked { ids, ends: self.ends.iter().filter_map(|piece| tokenizer.id(piece)).collect() }
    }
}

/// The tokens of a text that stands inside another: without the space that SentencePiece puts before a text.
/// As in Code Llama's encode_infilling, a character before it takes that space and is cut off again.
pub fn encode_inside(text: &str, tokenizer: &Tokenizer) -> Vec<u32> {
    const BEFORE: &str = "☺";
    let encode = |text: &str| tokenizer.encode(text, Special::Literal);
    let before = encode(BEFORE);
    let has_space = before.first().is_some_and(|&id| tokenizer.token_bytes(id).starts_with(b" "));
    let with = if has_space { encode(&format!("{BEFORE}{text}")) } else { Vec::new() };
    match with.strip_prefix(before.as_slice()) {
        Some(ids) if has_space => ids.to_vec(),
        _ => encode(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_tokenizer::ControlTokens;
    use rhetor_tokenizer::train::{Kind, TrainOptions, train};

    /// Every character of ASCII is a token, and the control tokens are those named.
    fn characters(specials: &str) -> Tokenizer {
        let specials = format!("<unk> <s> </s> {specials}").split(' ').map(str::to_string).collect();
        let options = TrainOptions { kind: Kind::Characters, vocab_size: 200, specials, min_frequency: 1 };
        let text: String = (' '..='~').collect();
        train(&options, [text].iter()).unwrap()
    }

    fn asked(specials: &str) -> String {
        let tokenizer = characters(specials);
        let template = InfillTemplate::of(&tokenizer).expect("a template");
        let encode = |text: &str| tokenizer.encode(text, Special::Literal);
        let ids = template.ask(&encode("ab"), &encode("yz"), &tokenizer).ids;
        tokenizer.decode(&ids, ControlTokens::Show)
    }

    #[test]
    fn a_vocabulary_tells_how_its_model_is_asked() {
        let starcoder = "<fim_prefix> <fim_suffix> <fim_middle>";
        assert_eq!(asked(starcoder), "<fim_prefix>ab<fim_suffix>yz<fim_middle>");
        assert_eq!(asked("<mask_1> <|endoftext|> <sep> <eom>"), "ab<mask_1>yz<|endoftext|><sep><mask_1>");
        assert_eq!(asked("[PREFIX] [SUFFIX]"), "[SUFFIX]yz[PREFIX]ab");
        assert!(InfillTemplate::of(&characters("<fim_prefix> <fim_suffix>")).is_none());
    }

    #[test]
    fn the_ends_are_those_that_the_vocabulary_has() {
        let tokenizer = characters("<fim_prefix> <fim_suffix> <fim_middle> <file_sep>");
        let ends = InfillTemplate::of(&tokenizer).unwrap().ask(&[], &[], &tokenizer).ends;
        assert_eq!(ends, [tokenizer.id("<file_sep>").unwrap()]);
    }

    #[test]
    fn names_of_templates_are_unique() {
        let mut names: Vec<&str> = INFILL.iter().map(|template| template.about.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), INFILL.len());
    }
}
