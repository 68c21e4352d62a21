//! How text is cut into pieces that no merge may cross: one row for each name in GGUF's `tokenizer.ggml.pre`.
//!
//! A row is a list of splits, each applied to the pieces of the one before; what an expression does not match stays
//! as a piece of its own. The expressions are those of each model's own `tokenizer.json`; where a scanner of
//! [`crate::scanners`] stands for one, the tests hold both against each other. A name that is not here is refused:
//! another model's rules would give wrong ids without any sign of it.

use fancy_regex::Regex;

use crate::Error;
use crate::scanners::{self, Llama3};

/// How a vocabulary's text is cut, and what goes with that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// The names in `tokenizer.ggml.pre`.
    pub names: &'static [&'static str],
    /// Applied one after the other.
    pub splits: &'static [Split],
    /// A piece that is a token as a whole is that token, whatever the merges say.
    pub ignores_merges: bool,
    /// What `add_bos_token` is where the file does not say.
    pub adds_bos: bool,
    /// How text becomes the symbols that are merged.
    pub symbols: Symbols,
}

/// What the merges start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symbols {
    /// Bytes, in GPT-2's alphabet.
    Bytes,
    /// Characters, with U+2581 for each space and `<0x0A>` for bytes of unknown ones.
    Characters,
}

/// One way to cut text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Split {
    /// [`scanners::gpt2`]
    Gpt2,
    /// [`scanners::llama3`]
    Llama3(Llama3),
    /// `\p{N}`
    SingleDigits,
    /// `[^\n]+|[\n]+`
    Newlines,
    /// Numbers in groups of three from the right.
    Thousands,
    /// Every match is a piece.
    Regex(&'static str),
}

/// The expression that [`LLAMA3`]'s scanner stands for.
pub(crate) const LLAMA3_REGEX: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// The expression that [`QWEN2`]'s scanner stands for.
pub(crate) const QWEN2_REGEX: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const LLAMA3: Split = Split::Llama3(Llama3 { n_digits: 3, marks_are_letters: false });
const QWEN2: Split = Split::Llama3(Llama3 { n_digits: 1, marks_are_letters: false });
const QWEN35: Split = Split::Llama3(Llama3 { n_digits: 1, marks_are_letters: true });

const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// The alphabets with upper and lower case, as DeepSeek's first tokenizers list them.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-",
    r"\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-",
    r"\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-",
    r"\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}",
    r"\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-",
    r"\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-",
    r"\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}",
    r"\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}",
    r"\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}",
    r"\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-",
    r"\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}",
    r"\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-",
    r"\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+"
);
/// Everything but space and the punctuation of several scripts.
const BLOOM: &str = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+";
/// Ideographs with nearly all scripts from U+0800 on, and Hangul, as DeepSeek's first tokenizers have it.
const CJK: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";
/// Ideographs, Hiragana, Katakana.
const HAN_KANA: &str = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+";

const PLAIN: Row =
    Row { names: &[], splits: &[], ignores_merges: false, adds_bos: false, symbols: Symbols::Bytes };

/// Every name that `tokenizer.ggml.pre` may have.
pub(crate) const ROWS: &[Row] = &[
    Row {
        // What files without a name get; also the files that say so.
        names: &["default"],
        splits: &[
            Split::Regex(r"[\p{P}\$\+<=>\^~\|]+"),
            Split::Gpt2,
            Split::Regex(r"\p{N}+"),
            Split::Regex("[0-9][0-9][0-9]"),
        ],
        ..PLAIN
    },
    Row {
        names: &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "exaone4",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
        ],
        splits: &[Split::Gpt2],
        ..PLAIN
    },
    Row {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        splits: &[Split::SingleDigits, Split::Gpt2],
        ..PLAIN
    },
    Row {
        names: &[
            "llama3",
            "llama-v3",
            "llama-bpe",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        splits: &[LLAMA3],
        ignores_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    Row { names: &["glm4", "glm5"], splits: &[LLAMA3], ignores_merges: true, ..PLAIN },
    Row { names: &["dbrx", "smaug-bpe", "chatglm-bpe"], splits: &[LLAMA3], ..PLAIN },
    Row {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        splits: &[QWEN2],
        ..PLAIN
    },
    Row { names: &["qwen35"], splits: &[QWEN35], ..PLAIN },
    Row { names: &["laguna"], splits: &[Split::Newlines, QWEN2], ..PLAIN },
    Row {
        names: &["minicpm5"],
        splits: &[
            Split::Regex(r"\p{N}{1,3}"),
            Split::Regex(concat!(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*",
                r"|\s*[\r\n]+|\s+(?!\S)|\s+"
            )),
        ],
        ignores_merges: true,
        ..PLAIN
    },
    Row {
        names: &["falcon"],
        splits: &[Split::Regex(r"[\p{P}\$\+<=>\^~\|`]+"), Split::Gpt2, Split::Regex("[0-9][0-9][0-9]")],
        ..PLAIN
    },
    Row {
        names: &["deepseek-llm"],
        splits: &[
            Split::Regex(r"[\r\n]"),
            Split::Regex(DEEPSEEK_LETTERS),
            Split::Regex(r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+"),
            Split::Regex(r"\s+$"),
            Split::Regex(CJK),
            Split::Regex(r"\p{N}+"),
        ],
        ..PLAIN
    },
    Row {
        names: &["deepseek-coder"],
        splits: &[
            Split::Regex(r"[\r\n]"),
            Split::Regex(r"\s?\p{L}+"),
            Split::Regex(r"\s?\p{P}+"),
            Split::Regex(CJK),
            Split::SingleDigits,
        ],
        ..PLAIN
    },
    Row {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        splits: &[Split::Regex(r"\p{N}{1,3}"), Split::Regex(HAN_KANA), Split::Regex(DEEPSEEK3)],
        ..PLAIN
    },
    Row {
        names: &["spark2_5"],
        splits: &[
            Split::Regex(r"\p{N}{1,3}"),
            Split::Regex(HAN_KANA),
            Split::Regex(concat!(
                r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
                r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
            )),
            Split::SingleDigits,
        ],
        ..PLAIN
    },
    Row {
        names: &["youtu"],
        splits: &[
            Split::Regex(concat!(
                r"[\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}",
                r"\x{FF1A}\x{FF1B}\x{FF0C}\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}",
                r"\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
            )),
            Split::Regex(concat!(
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            )),
        ],
        ignores_merges: true,
        ..PLAIN
    },
    Row { names: &["poro-chat", "bloom", "gpt3-finnish"], splits: &[Split::Regex(BLOOM)], ..PLAIN },
    Row { names: &["viking"], splits: &[Split::Regex(BLOOM), Split::SingleDigits], ..PLAIN },
    Row {
        names: &["tekken"],
        splits: &[Split::Regex(concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ))],
        ignores_merges: true,
        adds_bos: true,
        ..PLAIN
    },
    Row {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        splits: &[Split::Regex(GPT4O)],
        ..PLAIN
    },
    Row {
        names: &["granite-embed-multi-97m"],
        splits: &[Split::Regex(GPT4O)],
        ignores_merges: true,
        ..PLAIN
    },
    Row {
        names: &["tiny_aya", "cohere2moe"],
        splits: &[Split::Regex(r"\d{1,3}(?=(?:\d{3})*\b)"), Split::Regex(GPT4O)],
        ..PLAIN
    },
    Row {
        names: &["chameleon"],
        splits: &[
            Split::Regex("<sentinel:[0-9]+>"),
            Split::Regex("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
            Split::Regex(r"([\t\n]|    |  )"),
            Split::SingleDigits,
            Split::Regex(r"[\p{P}!-/:-@\[-`{-~]"),
            Split::Gpt2,
        ],
        adds_bos: true,
        ..PLAIN
    },
    Row {
        names: &["kimi-k2"],
        splits: &[Split::Regex(concat!(
            r"[\p{Han}]+",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ))],
        ..PLAIN
    },
    Row { names: &["superbpe"], splits: &[Split::Regex(r"\p{N}+"), Split::Thousands], ..PLAIN },
    Row {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        splits: &[Split::Regex(concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*",
            r"|\s*[\r\n]|\s+(?!\S)|\s+"
        ))],
        ..PLAIN
    },
    Row {
        names: &["seed-coder"],
        splits: &[Split::Regex(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+",
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"
        ))],
        ..PLAIN
    },
    Row {
        names: &["ufakzeka"],
        splits: &[Split::Regex(
            r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        ..PLAIN
    },
    Row {
        names: &["jais-2"],
        splits: &[Split::Regex(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
            r"|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)",
            r"|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
        ))],
        ..PLAIN
    },
    Row {
        names: &["afmoe"],
        splits: &[
            Split::Thousands,
            Split::Regex(concat!(
                r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{8C48}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}",
                r"\x{FF65}-\x{FF9F}\x{2F00}-\x{2FDF}\x{E40}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-",
                r"\x{109F}\x{AA60}-\x{AA7F}\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+"
            )),
            Split::Regex(DEEPSEEK3),
        ],
        ..PLAIN
    },
    Row {
        names: &["exaone-moe"],
        splits: &[Split::Regex(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
        ))],
        ..PLAIN
    },
    Row {
        names: &["gemma4", "granite-embed-multi-311m"],
        splits: &[Split::Newlines],
        adds_bos: true,
        symbols: Symbols::Characters,
        ..PLAIN
    },
    Row { names: &["sarvam-moe"], splits: &[Split::Newlines], symbols: Symbols::Characters, ..PLAIN },
];

/// The row of `name`.
pub(crate) fn row(name: &str) -> Result<&'static Row, Error> {
    let found = ROWS.iter().find(|row| row.names.contains(&name));
    found.ok_or_else(|| Error::UnknownPreTokenizer { name: name.to_string() })
}

/// The splits of a [`Row`], ready to run.
#[derive(Debug, Clone)]
pub(crate) struct PreTokenizer {
    stages: Vec<Stage>,
}

#[derive(Debug, Clone)]
enum Stage {
    Gpt2,
    Llama3(Llama3),
    SingleDigits,
    Newlines,
    Thousands,
    Regex(Box<Regex>),
}

impl PreTokenizer {
    /// Compiles the expressions of `splits`.
    pub fn new(splits: &[Split]) -> Result<PreTokenizer, Error> {
        let stages = splits.iter().map(|split| {
            Ok(match split {
                Split::Gpt2 => Stage::Gpt2,
                Split::Llama3(rules) => Stage::Llama3(*rules),
                Split::SingleDigits => Stage::SingleDigits,
                Split::Newlines => Stage::Newlines,
                Split::Thousands => Stage::Thousands,
                Split::Regex(expression) => {
                    Stage::Regex(Box::new(Regex::new(expression).map_err(|error| {
                        Error::field("pre-tokenizer", "expression", "a regular expression", error.to_string())
                    })?))
                }
            })
        });
        Ok(PreTokenizer { stages: stages.collect::<Result<_, Error>>()? })
    }

    /// Calls `each` with the pieces of `text`, in order; together they are `text`, and none is empty.
    pub fn split<'t>(&self, text: &'t str, each: &mut dyn FnMut(&'t str)) {
        run(&self.stages, text, each);
    }
}

fn run<'t>(stages: &[Stage], text: &'t str, each: &mut dyn FnMut(&'t str)) {
    let Some((stage, rest)) = stages.split_first() else {
        if !text.is_empty() {
            each(text);
        }
        return;
    };
    let next = |piece: &'t str| if rest.is_empty() { each(piece) } else { run(rest, piece, each) };
    match stage {
        Stage::Gpt2 => scanners::gpt2(text, next),
        Stage::Llama3(rules) => scanners::llama3(*rules, text, next),
        Stage::SingleDigits => scanners::single_digits(text, next),
        Stage::Newlines => scanners::newlines(text, next),
        Stage::Thousands => scanners::thousands(text, next),
        Stage::Regex(regex) => split_by_regex(regex, text, next),
    }
}

/// Matches and what lies between them. Should an expression give up (backtracking is bounded), the rest of the text
/// stays one piece.
fn split_by_regex<'t>(regex: &Regex, text: &'t str, mut each: impl FnMut(&'t str)) {
    let mut at = 0;
    for found in regex.find_iter(text) {
        let Ok(found) = found else { break };
        if found.start() > at {
            each(&text[at..found.start()]);
        }
        if found.end() > found.start() {
            each(found.as_str());
        }
        at = found.end();
    }
    if at < text.len() {
        each(&text[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    const QWEN35_REGEX: &str = concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    );

    fn pieces(splits: &[Split], text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        PreTokenizer::new(splits).unwrap().split(text, &mut |piece| pieces.push(piece.to_string()));
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| !piece.is_empty()));
        pieces
    }

    fn check(name: &str, text: &str, expected: &[&str]) {
        assert_eq!(pieces(row(name).unwrap().splits, text), expected, "{name}: {text:?}");
    }

    #[test]
    fn every_expression_compiles_and_every_name_is_there_once() {
        let mut names: Vec<&str> = ROWS.iter().flat_map(|row| row.names).copied().collect();
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n);
        for row in ROWS {
            pieces(row.splits, "Hello, y'all! 12345 \n\n  é 繁體中文 🏳️\u{200D}🌈\t x=1;");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_by_name() {
        let error = row("gpt-9").unwrap_err();
        assert!(matches!(&error, Error::UnknownPreTokenizer { name } if name == "gpt-9"), "{error}");
    }

    #[test]
    fn text_is_cut_as_each_family_does() {
        check("gpt-2", "I'll go  to  N1234 ", &["I", "'ll", " go", " ", " to", " ", " N", "1234", " "]);
        check("smollm", "a 12\n\n b", &["a", " ", "1", "2", "\n\n", " b"]);
        check("llama-bpe", "1234567 DON'T\r\n\r\n x", &["123", "456", "7", " DON", "'T", "\r\n\r\n", " x"]);
        check("qwen2", "12 x;\n\ny", &["1", "2", " x", ";\n\n", "y"]);
        check("qwen35", "e\u{301}t", &["e\u{301}t"]);
        check("falcon", "12345 a.b", &["123", "45", " a", ".", "b"]);
        check("deepseek-v3", "漢字abc 12345", &["漢字", "abc", " ", "123", "45"]);
        check("superbpe", "a 1234567", &["a ", "1", "234", "567"]);
        check("gemma4", "a b\n\nc", &["a b", "\n\n", "c"]);
        check("gpt-4o", "camelCase HTTPServer's", &["camel", "Case", " HTTPServer's"]);
        check("tekken", "don't", &["don", "'t"]);
    }

    /// Text in which every class of character is next to every other.
    fn nasty() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            prop::sample::select(vec![
                " ",
                "  ",
                "\n",
                "\r\n",
                "\t",
                "\u{A0}",
                "\u{3000}",
                "\u{2028}",
                "\u{85}",
                "'s",
                "'S",
                "'ll",
                "'RE",
                "'ſ",
                "'",
                "a",
                "Z",
                "é",
                "e\u{301}",
                "\u{301}",
                "\u{903}",
                "中",
                "１",
                "٣",
                "²",
                "Ⅷ",
                "7",
                "123",
                ".",
                "$",
                "🦙",
                "🏳️\u{200D}🌈",
                "\u{200D}",
                "\u{0}",
                "\u{E000}",
                "\u{378}",
                "ǅ",
                "ʰ",
                "_",
            ])
            .prop_map(str::to_string),
            any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn scanners_give_the_pieces_of_the_expressions_they_stand_for(text in nasty()) {
            for (scanner, expression) in [
                (Split::Gpt2, GPT2),
                (LLAMA3, LLAMA3_REGEX),
                (QWEN2, QWEN2_REGEX),
                (QWEN35, QWEN35_REGEX),
                (Split::SingleDigits, r"\p{N}"),
                (Split::Newlines, r"[^\n]+|[\n]+"),
                (Split::Thousands, r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"),
            ] {
                prop_assert_eq!(pieces(&[scanner], &text), pieces(&[Split::Regex(expression)], &text), "{}", expression);
            }
        }
    }
}
