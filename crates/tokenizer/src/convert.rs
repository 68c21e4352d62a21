//! A vocabulary from GGUF's keys to Hugging Face's files and back.
//!
//! Both directions work on what the files say, not on a loaded tokenizer, so nothing passes through an engine's
//! idea of it: tokens, merges, kinds and rules are copied. Byte-level BPE goes both ways; SentencePiece BPE too, its scores being
//! the ranks of its merges. Unigram and BERT's word pieces go to GGUF alone. Other algorithms and rules that the other side cannot
//! say are refused by name.

use rhetor_formats::{Array, Checkpoint, Metadata, Strings, TypedValue};
use serde_json::{Value, json};
use std::collections::HashMap;

use crate::pre_tokenize::{self, LLAMA3_REGEX, QWEN2_REGEX, ROWS, Row, Split};
use crate::read::hf_json::from_base64;
use crate::vocabulary::byte_of_piece;
use crate::{Error, Special, Tokenizer};

/// What a Hugging Face directory says of its vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub struct HuggingFaceFiles {
    /// `tokenizer.json`
    pub tokenizer: Value,
    /// `tokenizer_config.json`
    pub tokenizer_config: Value,
}

const GPT2_LIKE: &str = "gpt2";
const LLAMA_LIKE: &str = "llama";
const T5_LIKE: &str = "t5";

/// Hugging Face's files for the vocabulary in a GGUF file's `metadata`.
///
/// Errors: an algorithm other than BPE, or a pre-tokenizer that `tokenizer.json` cannot say.
pub fn to_hugging_face(metadata: &Metadata) -> Result<HuggingFaceFiles, Error> {
    let model = metadata.require_str("tokenizer.ggml.model")?;
    let tokens = metadata.require_strings("tokenizer.ggml.tokens")?;
    let kinds = kinds(metadata, tokens.len())?;
    let vocabulary: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, piece)| (piece.to_string(), id.into())).collect();
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added_tokens(tokens, &kinds),
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        },
    });
    match model {
        GPT2_LIKE => {
            let row = pre_tokenize::row(metadata.get_str("tokenizer.ggml.pre")?.unwrap_or("default"))?;
            file["pre_tokenizer"] =
                pre_tokenizer(row).ok_or_else(|| refused("tokenizer.ggml.pre", row.names[0]))?;
            file["decoder"] = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
            file["model"]["ignore_merges"] = row.ignores_merges.into();
            let merges = metadata.require_strings("tokenizer.ggml.merges")?;
            file["model"]["merges"] = merges
                .iter()
                .map(|merge| {
                    merge.split_once(' ').map_or(json!([merge]), |(left, right)| json!([left, right]))
                })
                .collect();
        }
        LLAMA_LIKE => {
            let has_space = metadata.get_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
            let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
            file["normalizer"] = match has_space {
                true => {
                    json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]})
                }
                false => replace,
            };
            let mut decoders = vec![
                json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
                json!({"type": "ByteFallback"}),
                json!({"type": "Fuse"}),
            ];
            if has_space {
                decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
            }
            file["decoder"] = json!({"type": "Sequence", "decoders": decoders});
            file["model"]["byte_fallback"] = true.into();
            file["model"]["fuse_unk"] = true.into();
            let unknown = metadata.get_u64("tokenizer.ggml.unknown_token_id")?.unwrap_or(0) as usize;
            file["model"]["unk_token"] = tokens.get(unknown).into();
            let scores = metadata.get_f32s("tokenizer.ggml.scores")?.unwrap_or_default();
            file["model"]["merges"] = merges_of_scores(tokens, &scores, &kinds).into();
        }
        other => return Err(refused("tokenizer.ggml.model", other)),
    }
    file["model"]["vocab"] = vocabulary.into();
    let mut config =
        json!({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false});
    for (role, name) in ROLES {
        if let Some(token) = metadata
            .get_u64(&format!("tokenizer.ggml.{name}_token_id"))?
            .and_then(|id| tokens.get(id as usize))
        {
            config[role] = token.into();
        }
    }
    let bos = metadata.get_u64("tokenizer.ggml.bos_token_id")?;
    let adds_bos = metadata.get_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(match model {
        LLAMA_LIKE => true,
        _ => pre_tokenize::row(metadata.get_str("tokenizer.ggml.pre")?.unwrap_or("default"))?.adds_bos,
    });
    if let Some((id, token)) = bos.and_then(|id| Some((id, tokens.get(id as usize)?))).filter(|_| adds_bos) {
        file["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": token, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
        });
    }
    config["add_bos_token"] = adds_bos.into();
    if let Some(template) = metadata.get_str("tokenizer.chat_template")? {
        config["chat_template"] = template.into();
    }
    Ok(HuggingFaceFiles { tokenizer: file, tokenizer_config: config })
}

/// Roles of tokens: Hugging Face's name and the middle of GGUF's.
const ROLES: [(&str, &str); 4] =
    [("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding")];

/// GGUF's keys for the vocabulary beside a Hugging Face checkpoint; `n_rows` rows of the embedding get a token each.
///
/// Errors: no `tokenizer.json`, an algorithm other than BPE and Unigram, or rules that no name of `tokenizer.ggml.pre` stands for.
pub fn to_gguf(checkpoint: &Checkpoint, n_rows: usize) -> Result<Vec<(String, TypedValue)>, Error> {
    let file = checkpoint.json("tokenizer.json")?.ok_or_else(|| Error::NoVocabulary {
        path: checkpoint.path().to_path_buf(),
        looked_for: "tokenizer.json",
    })?;
    let tokenizer = Tokenizer::from_checkpoint(checkpoint)?;
    let model = &file["model"];
    let kind = model["type"].as_str().unwrap_or("BPE");
    match kind {
        "BPE" => {}
        "WordPiece" => return word_pieces(&file, &tokenizer, n_rows),
        "Unigram" => {
            let mut keys = unigram(&file, n_rows.max(tokenizer.n_tokens()))?;
            let around = tokenizer.encode_with_specials("", Special::Literal);
            keys.push((
                "tokenizer.ggml.add_eos_token".into(),
                tokenizer.eos().is_some_and(|eos| around.ends_with(&[eos])).into(),
            ));
            keys.extend(roles(&tokenizer));
            return Ok(keys);
        }
        _ => return Err(refused("model.type", kind)),
    }
    let has_bytes = model["byte_fallback"] == true;
    let (tokens, kinds) = tokens_and_kinds(&file, n_rows.max(tokenizer.n_tokens()), has_bytes);
    let merges: Vec<(String, String)> =
        merges(model).ok_or_else(|| refused("model.merges", "another form"))?;
    let mut keys: Vec<(String, TypedValue)> = Vec::new();
    let mut set = |key: &str, value: TypedValue| keys.push((format!("tokenizer.{key}"), value));
    if has_bytes {
        set("ggml.model", LLAMA_LIKE.into());
        set("ggml.pre", "default".into());
        set("ggml.scores", Array::F32(scores_of_merges(&tokens, &merges)).into());
        set("ggml.add_space_prefix", adds_space(&file).into());
    } else {
        let row =
            row_of(&file).ok_or_else(|| refused("pre_tokenizer", &file["pre_tokenizer"].to_string()))?;
        set("ggml.model", GPT2_LIKE.into());
        set("ggml.pre", row.names[0].into());
        let mut joined = Strings::with_capacity(merges.len());
        merges.iter().for_each(|(left, right)| joined.push(&format!("{left} {right}")));
        set("ggml.merges", joined.into());
    }
    let mut pieces = Strings::with_capacity(tokens.len());
    tokens.iter().for_each(|piece| pieces.push(piece));
    set("ggml.tokens", pieces.into());
    set("ggml.token_type", Array::I32(kinds).into());
    keys.extend(roles(&tokenizer));
    Ok(keys)
}

/// The keys of what tokens are for, and of the chat template.
fn roles(tokenizer: &Tokenizer) -> Vec<(String, TypedValue)> {
    let mut keys = vec![("tokenizer.ggml.add_bos_token".to_string(), tokenizer.adds_bos().into())];
    let ids = [
        ("bos", tokenizer.bos()),
        ("eos", tokenizer.eos()),
        ("unknown", tokenizer.unknown()),
        ("padding", tokenizer.padding()),
    ];
    for (name, id) in ids {
        keys.extend(id.map(|id| (format!("tokenizer.ggml.{name}_token_id"), id.into())));
    }
    keys.extend(
        tokenizer.chat_template().map(|template| ("tokenizer.chat_template".to_string(), template.into())),
    );
    keys
}

/// The keys of a Unigram vocabulary, GGUF's `t5`: pieces with their scores, and SentencePiece's rules of normalisation.
fn unigram(file: &Value, n: usize) -> Result<Vec<(String, TypedValue)>, Error> {
    let vocab = file["model"]["vocab"].as_array().ok_or_else(|| refused("model.vocab", "another form"))?;
    let (mut tokens, mut kinds) = tokens_and_kinds(file, n, file["model"]["byte_fallback"] == true);
    let mut scores = vec![0.0; n];
    let unknown = file["model"]["unk_id"].as_u64();
    for (id, entry) in vocab.iter().enumerate().take(n) {
        scores[id] = entry[1].as_f64().unwrap_or(0.0) as f32;
        if kinds[id] == UNUSED {
            tokens[id] = entry[0].as_str().unwrap_or_default().to_string();
            let is_byte = file["model"]["byte_fallback"] == true && byte_of_piece(&tokens[id]).is_some();
            kinds[id] = if is_byte { BYTE } else { NORMAL };
        }
        if Some(id as u64) == unknown {
            kinds[id] = UNKNOWN;
        }
    }
    let mut merges_spaces = false;
    let mut charsmap = Vec::new();
    for step in steps(&file["normalizer"], "normalizers") {
        match step["type"].as_str() {
            Some("Precompiled") => {
                let text = step["precompiled_charsmap"].as_str().unwrap_or_default();
                charsmap = from_base64(text).ok_or_else(|| refused("precompiled_charsmap", "no base64"))?;
            }
            Some("Replace") if step["pattern"]["Regex"] == " {2,}" => merges_spaces = true,
            Some("Strip") => {}
            _ => return Err(refused("normalizer", &step.to_string())),
        }
    }
    for step in steps(&file["pre_tokenizer"], "pretokenizers") {
        match step["type"].as_str() {
            Some("WhitespaceSplit") => merges_spaces = true,
            Some("Metaspace") => {}
            _ => return Err(refused("pre_tokenizer", &step.to_string())),
        }
    }
    let mut pieces = Strings::with_capacity(n);
    tokens.iter().for_each(|piece| pieces.push(piece));
    let mut keys: Vec<(&str, TypedValue)> = vec![
        ("model", T5_LIKE.into()),
        ("pre", "default".into()),
        ("tokens", pieces.into()),
        ("scores", Array::F32(scores).into()),
        ("token_type", Array::I32(kinds).into()),
        ("add_space_prefix", adds_space(file).into()),
        ("remove_extra_whitespaces", merges_spaces.into()),
    ];
    if !charsmap.is_empty() {
        keys.push(("precompiled_charsmap", Array::U8(charsmap).into()));
    }
    Ok(keys.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect())
}

/// The steps of a normalizer or of a pre-tokenizer, which may be a sequence.
fn steps<'v>(value: &'v Value, name: &str) -> Vec<&'v Value> {
    match value[name].as_array() {
        Some(steps) => steps.iter().collect(),
        None if value.is_null() => Vec::new(),
        None => vec![value],
    }
}

/// The keys of BERT's vocabulary: pieces that begin a word get U+2581 in front, those that go on with one lose their `##`.
fn word_pieces(
    file: &Value,
    tokenizer: &Tokenizer,
    n_rows: usize,
) -> Result<Vec<(String, TypedValue)>, Error> {
    let normalizer = &file["normalizer"];
    let is_bert = normalizer["type"] == "BertNormalizer"
        && normalizer["clean_text"] == true
        && normalizer["handle_chinese_chars"] == true;
    if !is_bert {
        return Err(refused("normalizer", &normalizer.to_string()));
    }
    if file["pre_tokenizer"]["type"] != "BertPreTokenizer" {
        return Err(refused("pre_tokenizer", &file["pre_tokenizer"].to_string()));
    }
    let prefix = file["model"]["continuing_subword_prefix"].as_str().unwrap_or("##");
    let lowercase = normalizer["lowercase"] == true;
    let strips_accents = normalizer["strip_accents"].as_bool().unwrap_or(lowercase);
    let (tokens, kinds) = tokens_and_kinds(file, n_rows.max(tokenizer.n_tokens()), false);
    let mut pieces = Strings::with_capacity(tokens.len());
    for (piece, &kind) in tokens.iter().zip(&kinds) {
        match piece.strip_prefix(prefix) {
            _ if kind != NORMAL => pieces.push(piece),
            Some(rest) if !rest.is_empty() => pieces.push(rest),
            _ => pieces.push(&format!("\u{2581}{piece}")),
        }
    }
    let mut keys: Vec<(String, TypedValue)> = Vec::new();
    let mut set = |key: &str, value: TypedValue| keys.push((format!("tokenizer.ggml.{key}"), value));
    set("model", "bert".into());
    set("tokens", pieces.into());
    set("token_type", Array::I32(kinds).into());
    set("normalizer.lowercase", lowercase.into());
    set("normalizer.strip_accents", strips_accents.into());
    let ids = [
        ("bos", tokenizer.class()),
        ("cls", tokenizer.class()),
        ("eos", tokenizer.separator()),
        // The key has been misspelled from the beginning.
        ("seperator", tokenizer.separator()),
        ("unknown", tokenizer.unknown()),
        ("padding", tokenizer.padding()),
        ("mask", tokenizer.mask()),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            set(&format!("{name}_token_id"), id.into());
        }
    }
    Ok(keys)
}

fn refused(field: &str, got: &str) -> Error {
    let got = got.chars().take(200).collect::<String>();
    Error::field("conversion", field, "rules that both kinds of files can say", got)
}

/// GGUF's numbers of the kinds of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

fn kinds(metadata: &Metadata, n_tokens: usize) -> Result<Vec<i64>, Error> {
    let kinds =
        metadata.get_i64s("tokenizer.ggml.token_type")?.unwrap_or_else(|| vec![i64::from(NORMAL); n_tokens]);
    if kinds.len() != n_tokens {
        return Err(Error::field(
            metadata.file().display().to_string(),
            "tokenizer.ggml.token_type",
            format!("{n_tokens} values, one for each token"),
            kinds.len().to_string(),
        ));
    }
    Ok(kinds)
}

fn added_tokens(tokens: &Strings, kinds: &[i64]) -> Value {
    let is_added = |kind: i64| [CONTROL, USER_DEFINED, UNKNOWN].contains(&(kind as i32));
    tokens
        .iter()
        .enumerate()
        .filter(|&(id, _)| is_added(kinds[id]))
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kinds[id] as i32 != USER_DEFINED,
            })
        })
        .collect()
}

/// The pre-tokenizer of `tokenizer.json` that cuts as `row` does, if there is one.
fn pre_tokenizer(row: &Row) -> Option<Value> {
    if row.symbols != pre_tokenize::Symbols::Bytes {
        return None;
    }
    let regex = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let mut steps = Vec::new();
    let (last, before) = row.splits.split_last()?;
    for split in before {
        steps.push(match split {
            Split::SingleDigits => json!({"type": "Digits", "individual_digits": true}),
            Split::Regex(expression) => regex(expression),
            _ => return None,
        });
    }
    match last {
        Split::Gpt2 => steps.push(byte_level(true)),
        Split::Llama3(rules) if !rules.marks_are_letters && (rules.n_digits == 3 || rules.n_digits == 1) => {
            steps.extend([
                regex(if rules.n_digits == 3 { LLAMA3_REGEX } else { QWEN2_REGEX }),
                byte_level(false),
            ]);
        }
        Split::Regex(expression) => steps.extend([regex(expression), byte_level(false)]),
        _ => return None,
    }
    Some(if steps.len() == 1 { steps.remove(0) } else { json!({"type": "Sequence", "pretokenizers": steps}) })
}

/// The row of the table that cuts as the file's pre-tokenizer does.
fn row_of(file: &Value) -> Option<&'static Row> {
    let steps = comparable(&file["pre_tokenizer"]);
    let ignores_merges = file["model"]["ignore_merges"] == true;
    let fits = |row: &&Row| {
        row.ignores_merges == ignores_merges
            && pre_tokenizer(row).is_some_and(|json| comparable(&json) == steps)
    };
    ROWS.iter().find(fits)
}

/// The steps of a pre-tokenizer without what does not change where text is cut.
fn comparable(pre_tokenizer: &Value) -> Vec<Value> {
    match pre_tokenizer["pretokenizers"].as_array() {
        Some(steps) => steps.iter().flat_map(comparable).collect(),
        None => {
            let mut step = pre_tokenizer.clone();
            if let Some(step) = step.as_object_mut() {
                step.remove("trim_offsets");
            }
            vec![step]
        }
    }
}

/// Every token by id, and its kind; ids without a token get one that is never produced.
fn tokens_and_kinds(file: &Value, n: usize, has_bytes: bool) -> (Vec<String>, Vec<i32>) {
    let mut tokens: Vec<String> = (0..n).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![UNUSED; n];
    let mut put = |id: Option<u64>, piece: &str, kind: i32| {
        if let Some(id) = id.filter(|&id| id < n as u64) {
            tokens[id as usize] = piece.to_string();
            kinds[id as usize] = kind;
        }
    };
    for (piece, id) in file["model"]["vocab"].as_object().into_iter().flatten() {
        let is_byte = has_bytes && byte_of_piece(piece).is_some();
        put(id.as_u64(), piece, if is_byte { BYTE } else { NORMAL });
    }
    for token in file["added_tokens"].as_array().into_iter().flatten() {
        let piece = token["content"].as_str().unwrap_or_default();
        let is_unknown = file["model"]["unk_token"] == token["content"];
        let kind = match (is_unknown, token["special"] == true) {
            (true, _) => UNKNOWN,
            (false, true) => CONTROL,
            (false, false) => USER_DEFINED,
        };
        put(token["id"].as_u64(), piece, kind);
    }
    (tokens, kinds)
}

/// The merges of a BPE model, written as pairs or, in older files, as text with a space.
fn merges(model: &Value) -> Option<Vec<(String, String)>> {
    let pair = |merge: &Value| match merge {
        Value::String(text) => {
            text.split_once(' ').map(|(left, right)| (left.to_string(), right.to_string()))
        }
        merge => Some((merge[0].as_str()?.to_string(), merge[1].as_str()?.to_string())),
    };
    model["merges"].as_array()?.iter().map(pair).collect()
}

fn adds_space(file: &Value) -> bool {
    let says = |value: &Value| {
        value["type"] == "Prepend"
            || (value["type"] == "Metaspace"
                && value["prepend_scheme"] != "never"
                && value["add_prefix_space"] != false)
    };
    let normalizer = &file["normalizer"];
    let steps = normalizer["normalizers"].as_array();
    says(normalizer) || says(&file["pre_tokenizer"]) || steps.is_some_and(|steps| steps.iter().any(says))
}

/// SentencePiece's scores: minus the rank of the first merge that makes the token; tokens that no merge makes come last.
fn scores_of_merges(tokens: &[String], merges: &[(String, String)]) -> Vec<f32> {
    let mut ranks: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let rank = |token: &String| ranks.get(token).copied();
    tokens.iter().map(|token| rank(token).map_or(0.0, |rank| -(rank as f32))).collect()
}

/// Every way to make a token from two others, best score first, as the merges of a BPE model.
fn merges_of_scores(tokens: &Strings, scores: &[f32], kinds: &[i64]) -> Vec<Value> {
    let is_text = |id: usize| kinds[id] as i32 == NORMAL || kinds[id] as i32 == USER_DEFINED;
    let ids: HashMap<&str, usize> =
        tokens.iter().enumerate().filter(|&(id, _)| is_text(id)).map(|(id, piece)| (piece, id)).collect();
    let mut found: Vec<(f32, usize, usize, usize, &str, &str)> = Vec::new();
    for (id, piece) in tokens.iter().enumerate().filter(|&(id, _)| kinds[id] as i32 == NORMAL) {
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if let (Some(&l), Some(&r)) = (ids.get(left), ids.get(right)) {
                found.push((scores.get(id).copied().unwrap_or(0.0), id, l, r, left, right));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)).then(a.3.cmp(&b.3)));
    found.into_iter().map(|(.., left, right)| json!([left, right])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenId;
    use rhetor_formats::gguf;
    use std::path::Path;

    const TEXTS: [&str; 6] = [
        "",
        "Hello, world! 123",
        "  two  spaces\n\n\tand tabs",
        "繁體中文 🙂",
        "abab ab a b",
        "<|im_start|>x<s>",
    ];

    /// A directory with a weight that nobody looks at, since a checkpoint has weights.
    fn directory(files: &[(&str, &Value)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        rhetor_formats::safetensors::write(&dir.path().join("model.safetensors"), &[], &[], |_, _| Ok(()))
            .unwrap();
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        for (name, value) in files {
            std::fs::write(dir.path().join(name), value.to_string()).unwrap();
        }
        dir
    }

    fn gguf_of(keys: Vec<(String, TypedValue)>, path: &Path) -> Checkpoint {
        let mut metadata = Metadata::new(path);
        metadata.set("general.architecture", "llama");
        keys.into_iter().for_each(|(key, value)| metadata.set(key, value));
        gguf::write(path, &metadata, &[], |_, _| Ok(())).unwrap();
        Checkpoint::open(path).unwrap()
    }

    #[track_caller]
    fn agree(a: &Tokenizer, b: &Tokenizer) {
        for text in TEXTS {
            for special in [Special::Parse, Special::Literal] {
                let ids =
                    |tokenizer: &Tokenizer| -> Vec<TokenId> { tokenizer.encode_with_specials(text, special) };
                assert_eq!(ids(a), ids(b), "{text:?}");
            }
        }
    }

    #[test]
    fn a_unigram_vocabulary_gives_the_same_ids_in_gguf() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tokenizer/unigram.json");
        let mut json: Value = serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap();
        let refused = directory(&[("tokenizer.json", &json)]);
        let refused = to_gguf(&Checkpoint::open(refused.path()).unwrap(), 0).unwrap_err().to_string();
        assert!(refused.contains("NFKC"), "{refused}");
        json["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "});
        let dir = directory(&[("tokenizer.json", &json)]);
        let source = Checkpoint::open(dir.path()).unwrap();
        let original = Tokenizer::from_checkpoint(&source).unwrap();
        let there =
            gguf_of(to_gguf(&source, original.n_tokens() + 3).unwrap(), &dir.path().join("there.gguf"));
        let in_gguf = Tokenizer::from_checkpoint(&there).unwrap();
        for text in ["Hello, world! 123", "the quick brown fox", "abab ab a b", "<s>"] {
            let ids = |tokenizer: &Tokenizer| tokenizer.encode(text, Special::Literal);
            assert_eq!(ids(&original), ids(&in_gguf), "{text:?}");
        }
        assert_eq!((original.eos(), original.unknown()), (in_gguf.eos(), in_gguf.unknown()));
        assert!(to_hugging_face(there.metadata()).unwrap_err().to_string().contains("t5"));
    }

    #[test]
    fn a_byte_level_vocabulary_gives_the_same_ids_there_and_back() {
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tokenizer/byte_level_bpe.json");
        let json: Value = serde_json::from_str(&std::fs::read_to_string(fixture).unwrap()).unwrap();
        let dir = directory(&[("tokenizer.json", &json)]);
        let source = Checkpoint::open(dir.path()).unwrap();
        let original = Tokenizer::from_checkpoint(&source).unwrap();
        let there =
            gguf_of(to_gguf(&source, original.n_tokens() + 3).unwrap(), &dir.path().join("there.gguf"));
        let in_gguf = Tokenizer::from_checkpoint(&there).unwrap();
        agree(&original, &in_gguf);
        assert_eq!(in_gguf.n_tokens(), original.n_tokens() + 3);
        let files = to_hugging_face(there.metadata()).unwrap();
        let back = directory(&[
            ("tokenizer.json", &files.tokenizer),
            ("tokenizer_config.json", &files.tokenizer_config),
        ]);
        agree(&original, &Tokenizer::from_checkpoint(&Checkpoint::open(back.path()).unwrap()).unwrap());
    }

    /// A vocabulary as SentencePiece makes them: three control tokens, the bytes, then text with falling scores.
    fn sentencepiece_keys() -> Vec<(String, TypedValue)> {
        let mut pieces = Strings::default();
        let (mut kinds, mut scores) = (Vec::new(), Vec::new());
        let mut push = |piece: &str, kind: i32, score: f32| {
            pieces.push(piece);
            kinds.push(kind);
            scores.push(score);
        };
        push("<unk>", UNKNOWN, 0.0);
        push("<s>", CONTROL, 0.0);
        push("</s>", CONTROL, 0.0);
        (0..=255).for_each(|byte| push(&format!("<0x{byte:02X}>"), BYTE, 0.0));
        for (rank, piece) in ["▁a", "ab", "▁ab", "abab", "▁", "a", "b", "H", "e"].iter().enumerate() {
            push(piece, NORMAL, -(rank as f32));
        }
        [
            ("tokenizer.ggml.model", TypedValue::from(LLAMA_LIKE)),
            ("tokenizer.ggml.tokens", pieces.into()),
            ("tokenizer.ggml.token_type", Array::I32(kinds).into()),
            ("tokenizer.ggml.scores", Array::F32(scores).into()),
            ("tokenizer.ggml.bos_token_id", 1u32.into()),
            ("tokenizer.ggml.eos_token_id", 2u32.into()),
            ("tokenizer.ggml.unknown_token_id", 0u32.into()),
        ]
        .map(|(key, value)| (key.to_string(), value))
        .into()
    }

    #[test]
    fn a_sentencepiece_vocabulary_gives_the_same_ids_there_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let source = gguf_of(sentencepiece_keys(), &dir.path().join("source.gguf"));
        let original = Tokenizer::from_checkpoint(&source).unwrap();
        let files = to_hugging_face(source.metadata()).unwrap();
        let there = directory(&[
            ("tokenizer.json", &files.tokenizer),
            ("tokenizer_config.json", &files.tokenizer_config),
        ]);
        let there = Checkpoint::open(there.path()).unwrap();
        agree(&original, &Tokenizer::from_checkpoint(&there).unwrap());
        let back = gguf_of(to_gguf(&there, 0).unwrap(), &dir.path().join("back.gguf"));
        agree(&original, &Tokenizer::from_checkpoint(&back).unwrap());
    }

    #[test]
    fn word_pieces_keep_their_ids_in_gguf() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encode/bert-tags");
        let dir = tempfile::tempdir().unwrap();
        let source = Checkpoint::open(&fixture).unwrap();
        let original = Tokenizer::from_checkpoint(&source).unwrap();
        let there = gguf_of(to_gguf(&source, 0).unwrap(), &dir.path().join("bert.gguf"));
        let there = Tokenizer::from_checkpoint(&there).unwrap();
        for text in ["", "The Cat sat,  on THE mat.", "caf\u{e9} \u{6211} cats housed", "zebra ## [MASK]"] {
            let ids = |tokenizer: &Tokenizer| tokenizer.encode_with_specials(text, crate::Special::Literal);
            assert_eq!(ids(&original), ids(&there), "{text}");
        }
        let roles = |tokenizer: &Tokenizer| (tokenizer.class(), tokenizer.separator(), tokenizer.mask());
        assert_eq!(roles(&original), roles(&there));
    }

    #[test]
    fn what_the_other_side_cannot_say_is_refused_by_name() {
        let mut metadata = Metadata::new(Path::new("x.gguf"));
        metadata.set("tokenizer.ggml.model", "bert");
        let mut tokens = Strings::default();
        tokens.push("a");
        metadata.set("tokenizer.ggml.tokens", tokens);
        let error = to_hugging_face(&metadata).unwrap_err().to_string();
        assert!(error.contains("tokenizer.ggml.model") && error.contains("bert"), "{error}");
        let json = json!({
            "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": [],
            "pre_tokenizer": {"type": "Whitespace"},
        });
        let dir = directory(&[("tokenizer.json", &json)]);
        let error = to_gguf(&Checkpoint::open(dir.path()).unwrap(), 0).unwrap_err().to_string();
        assert!(error.contains("pre_tokenizer") && error.contains("Whitespace"), "{error}");
    }
}
