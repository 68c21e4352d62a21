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
    /// [`GPT2`]
    Gpt2,
    /// [`LLAMA3`], [`QWEN2`], [`QWEN35`]
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

pub(crate) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

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
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώ",
    r"ᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⲲⲳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲",
    r"𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
);
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
const CJK: &str = r"[一-龥ࠀ-一가-퟿]+";
const HAN_KANA: &str = r"[一-龥぀-ゟ゠-ヿ]+";

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
            Split::Regex(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
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
            Split::Regex("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"),
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
            Split::Regex("[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+"),
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
