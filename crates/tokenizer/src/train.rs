//! New vocabularies out of text: [`train`] makes a [`Tokenizer`] that [`Tokenizer::save_json`] writes as
//! `tokenizer.json`.
//!
//! BPE, unigram and WordPiece are learnt by the crate `tokenizers`; characters are counted here. BPE and characters come
//! out alike each time; the crate's trainers of the other two break ties at random, so keep the file that is saved.
//! Sources: arXiv:1508.07909 §3.2 (BPE), arXiv:1804.10959 §3.2 (unigram), arXiv:1609.08144 §4.1 (WordPiece).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::models::unigram::UnigramTrainer;
use tokenizers::models::wordpiece::WordPieceTrainer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, PostProcessorWrapper};

use crate::byte_level::char_of_byte;
use crate::{Error, Tokenizer, read};

/// What is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Byte-level BPE, as GPT-2's.
    Bpe,
    /// A unigram model on words with U+2581, as SentencePiece's.
    Unigram,
    /// Small letters and `##`, as BERT's.
    WordPiece,
    /// Every character is a token.
    Characters,
}

impl Kind {
    /// The name, as in error messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bpe => "BPE",
            Kind::Unigram => "unigram",
            Kind::WordPiece => "WordPiece",
            Kind::Characters => "character",
        }
    }
}

/// How a vocabulary is learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainOptions {
    /// The algorithm.
    pub kind: Kind,
    /// The number of tokens wanted, special ones included; text may hold too little for so many.
    pub vocab_size: usize,
    /// Control tokens; they get the first ids, in this order. Unigram and characters need `<unk>` and WordPiece `[UNK]`,
    /// which is added behind them if it is not there.
    pub specials: Vec<String>,
    /// How often a pair must occur to be merged; BPE and WordPiece only, others refuse any but 1.
    pub min_frequency: u64,
}

/// Learns a vocabulary from `texts`.
pub fn train<S: AsRef<str> + Send>(
    options: &TrainOptions,
    texts: impl Iterator<Item = S> + Send,
) -> Result<Tokenizer, Error> {
    let options = &with_unknown(options)?;
    if options.kind == Kind::Characters {
        return characters(options, texts);
    }
    let mut tokenizer = engine(options.kind, untrained(options.kind))?;
    tokenizer
        .train(&mut trainer(options)?, texts)
        .map_err(|error| failed(options.kind, error.to_string()))?;
    if options.kind == Kind::WordPiece
        && let (Some(class), Some(separator)) =
            (tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]"))
    {
        let ends = BertProcessing::new(("[SEP]".to_string(), separator), ("[CLS]".to_string(), class));
        tokenizer.with_post_processor(Some(PostProcessorWrapper::Bert(ends)));
    }
    // Through its own file form, so that what is returned is what will be read again.
    let json = tokenizer.to_string(false).map_err(|error| failed(options.kind, error.to_string()))?;
    read::from_engine(engine(options.kind, serde_json::from_str(&json).unwrap_or_default())?)
}

/// Learns a vocabulary from the lines of files in UTF-8.
pub fn train_files(options: &TrainOptions, paths: &[PathBuf]) -> Result<Tokenizer, Error> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_path_buf(), source })
    };
    let texts = paths.iter().map(|path| read(path)).collect::<Result<Vec<String>, Error>>()?;
    train(options, texts.iter().flat_map(|text| text.split_inclusive('\n')))
}

fn failed(kind: Kind, reason: impl Into<String>) -> Error {
    Error::Training { kind: kind.name(), reason: reason.into() }
}

/// The options with the unknown token that the algorithm needs, if they make sense.
fn with_unknown(options: &TrainOptions) -> Result<TrainOptions, Error> {
    let mut options = options.clone();
    let unknown = match options.kind {
        Kind::Bpe => None,
        Kind::Unigram | Kind::Characters => Some("<unk>"),
        Kind::WordPiece => Some("[UNK]"),
    };
    if let Some(unknown) =
        unknown.filter(|unknown| !options.specials.iter().any(|special| special == unknown))
    {
        options.specials.push(unknown.to_string());
    }
    let least = options.specials.len() + if options.kind == Kind::Bpe { 256 } else { 1 };
    if options.vocab_size < least {
        let reason = format!("vocab_size must be at least {least} here, got {}", options.vocab_size);
        return Err(failed(options.kind, reason));
    }
    let counts_pairs = matches!(options.kind, Kind::Bpe | Kind::WordPiece);
    if !counts_pairs && options.min_frequency != 1 {
        return Err(failed(
            options.kind,
            format!("min_frequency must be 1 here, got {}", options.min_frequency),
        ));
    }
    Ok(options)
}

fn trainer(options: &TrainOptions) -> Result<TrainerWrapper, Error> {
    let specials: Vec<AddedToken> =
        options.specials.iter().map(|text| AddedToken::from(text, true)).collect();
    Ok(match options.kind {
        Kind::Bpe => BpeTrainer::builder()
            .vocab_size(options.vocab_size)
            .min_frequency(options.min_frequency)
            .special_tokens(specials)
            .initial_alphabet((0..=255).map(char_of_byte).collect())
            .show_progress(false)
            .build()
            .into(),
        Kind::WordPiece => WordPieceTrainer::builder()
            .vocab_size(options.vocab_size)
            .min_frequency(options.min_frequency)
            .special_tokens(specials)
            .continuing_subword_prefix("##".to_string())
            .show_progress(false)
            .build()
            .into(),
        Kind::Unigram | Kind::Characters => UnigramTrainer::builder()
            .vocab_size(u32::try_from(options.vocab_size).unwrap_or(u32::MAX))
            .special_tokens(specials)
            .unk_token(Some("<unk>".to_string()))
            .show_progress(false)
            .build()
            .map_err(|error| failed(options.kind, error.to_string()))?
            .into(),
    })
}

/// A `tokenizer.json` whose model knows nothing yet.
fn untrained(kind: Kind) -> Value {
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    match kind {
        Kind::Bpe => file(
            Value::Null,
            byte_level.clone(),
            byte_level,
            json!({
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": {}, "merges": []
            }),
        ),
        Kind::Unigram | Kind::Characters => file(
            Value::Null,
            metaspace.clone(),
            metaspace,
            json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]], "byte_fallback": false}),
        ),
        Kind::WordPiece => file(
            json!({
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                "lowercase": true
            }),
            json!({"type": "BertPreTokenizer"}),
            json!({"type": "WordPiece", "prefix": "##", "cleanup": false}),
            json!({
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": {}
            }),
        ),
    }
}

fn file(normalizer: Value, pre_tokenizer: Value, decoder: Value, model: Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model
    })
}

fn engine(kind: Kind, json: Value) -> Result<tokenizers::Tokenizer, Error> {
    tokenizers::Tokenizer::from_bytes(json.to_string()).map_err(|error| failed(kind, error.to_string()))
}

/// The most frequent characters, in the order of their code points.
fn characters<S: AsRef<str>>(
    options: &TrainOptions,
    texts: impl Iterator<Item = S>,
) -> Result<Tokenizer, Error> {
    let mut counts: HashMap<char, u64> = HashMap::new();
    texts.for_each(|text| text.as_ref().chars().for_each(|c| *counts.entry(c).or_default() += 1));
    let mut chars: Vec<(u64, char)> = counts.into_iter().map(|(c, n)| (n, c)).collect();
    chars.sort_unstable_by_key(|&(n, c)| (std::cmp::Reverse(n), c));
    chars.truncate(options.vocab_size - options.specials.len());
    chars.sort_unstable_by_key(|&(_, c)| c);
    let chars = chars.into_iter().map(|(_, c)| c.to_string());
    let mut vocab = serde_json::Map::new();
    let mut added = Vec::new();
    for (id, special) in options.specials.iter().enumerate() {
        vocab.insert(special.clone(), id.into());
        added.push(json!({
            "id": id, "content": special, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }));
    }
    for c in chars {
        // A special token of one character keeps its id.
        let next = vocab.len();
        vocab.entry(c).or_insert(next.into());
    }
    let split =
        json!({"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": false});
    let model = json!({"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"});
    let mut json = file(Value::Null, split, json!({"type": "Fuse"}), model);
    json["added_tokens"] = Value::Array(added);
    read::from_engine(engine(Kind::Characters, json)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ControlTokens, Special};

    const CORPUS: &str =
        "the cat sat on the mat. the dog sat on the log.\n那隻貓坐在墊子上。那隻狗坐在木頭上。\n";

    fn options(kind: Kind, vocab_size: usize, specials: &[&str]) -> TrainOptions {
        let specials = specials.iter().map(|special| special.to_string()).collect();
        TrainOptions { kind, vocab_size, specials, min_frequency: 1 }
    }

    #[test]
    fn a_trained_tokenizer_reads_back_equal_from_its_file() {
        let directory = tempfile::tempdir().unwrap();
        for (kind, size, specials) in [
            (Kind::Bpe, 300, &["<|endoftext|>"][..]),
            (Kind::Unigram, 60, &["<unk>", "</s>"]),
            (Kind::WordPiece, 80, &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]),
            (Kind::Characters, 60, &["<s>"]),
        ] {
            let path = directory.path().join("tokenizer.json");
            let trained = train(&options(kind, size, specials), CORPUS.lines().cycle().take(200)).unwrap();
            trained.save_json(&path).unwrap();
            let read = Tokenizer::from_file(&path).unwrap();
            assert!(read.n_tokens() <= size && read.n_tokens() > specials.len(), "{kind:?} {read:?}");
            assert_eq!(read.piece(0), Some(specials[0]), "{kind:?}");
            let text = "the cat sat on the log. 那隻貓";
            let ids = read.encode_with_specials(text, Special::Literal);
            assert_eq!(ids, trained.encode_with_specials(text, Special::Literal), "{kind:?}");
            let expected =
                if kind == Kind::WordPiece { "the cat sat on the log . 那 隻 貓" } else { text };
            assert_eq!(read.decode(&ids, ControlTokens::Skip), expected, "{kind:?}");
        }
    }

    #[test]
    fn bpe_is_learnt_alike_each_time_and_merges_the_most_frequent_pair_first() {
        let learn = || train(&options(Kind::Bpe, 270, &[]), ["ab ab ab cd cd"].iter()).unwrap();
        let (first, second) = (learn(), learn());
        let pieces =
            |t: &Tokenizer| (0..t.n_tokens()).map(|id| t.piece(id as u32).unwrap().to_string()).collect();
        let (a, b): (Vec<String>, Vec<String>) = (pieces(&first), pieces(&second));
        assert_eq!(a, b);
        assert_eq!(a[256], "ab");
    }

    #[test]
    fn characters_beyond_the_vocabulary_are_unknown() {
        let trained = train(&options(Kind::Characters, 4, &[]), ["aaabbc\n"].iter()).unwrap();
        assert_eq!(trained.encode("abcz", Special::Literal), [2, 3, 0, 0]);
        assert_eq!(trained.unknown(), Some(0));
    }

    #[test]
    fn options_that_cannot_be_are_refused() {
        let error = train(&options(Kind::Bpe, 100, &[]), ["x"].iter()).unwrap_err().to_string();
        assert_eq!(error, "training a BPE tokenizer: vocab_size must be at least 256 here, got 100");
        let wrong = TrainOptions { min_frequency: 2, ..options(Kind::Unigram, 100, &[]) };
        let error = train(&wrong, ["x"].iter()).unwrap_err().to_string();
        assert_eq!(error, "training a unigram tokenizer: min_frequency must be 1 here, got 2");
        let missing = train_files(&options(Kind::Bpe, 300, &[]), &["no such file".into()]);
        assert!(matches!(missing, Err(Error::File { .. })));
    }
}
