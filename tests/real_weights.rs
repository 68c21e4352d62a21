//! What only real weights can show: SmolLM2-135M-Instruct Q4_1, fetched by rhetor's own `pull` into its usual store,
//! against llama.cpp's figures on the WikiText-2 test text. `RHETOR_CHUNKS=300` reads all chunks of the golden.
#![forbid(unsafe_code)]

use rhetor_formats::Checkpoint;
use rhetor_kernels::kv::{KvType, PAGE_LEN};
use rhetor_kernels::select::argmax;
use rhetor_kernels::softmax::log_softmax;
use rhetor_models::convert::{ConvertOptions, to_gguf};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Batch, KvCache, LoadOptions, Model, SequenceSpan};
use rhetor_store::{DEFAULT_MODEL, PullOptions, Store};
use rhetor_tokenizer::{Special, Tokenizer};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

/// Tokens of a chunk; each is read alone, and its second half is scored.
const CHUNK: usize = 512;

#[test]
fn perplexity_is_that_of_llama_cpp_within_half_a_percent() {
    let Some((checkpoint, ids)) = model_and_text() else { return };
    let golden = golden();
    let by_chunk = golden["perplexity_after_chunk"].as_array().expect("the golden has the list");
    let model = Model::load(&checkpoint, LoadOptions::default()).expect("the model loads");
    let n_chunks =
        std::env::var("RHETOR_CHUNKS").map_or(40, |n| n.parse().expect("RHETOR_CHUNKS is a number"));
    let (mut surprise, mut n_scored) = (0.0f64, 0);
    for (i, (chunk, expected)) in ids.chunks_exact(CHUNK).zip(by_chunk).take(n_chunks).enumerate() {
        let rows = CHUNK / 2..CHUNK - 1;
        let mut logits = logits(&model, chunk, rows.clone());
        log_softmax(&mut logits, model.config().vocab_size);
        for (row, logits) in rows.zip(logits.chunks_exact(model.config().vocab_size)) {
            surprise -= f64::from(logits[chunk[row + 1] as usize]);
            n_scored += 1;
        }
        let (ours, theirs) = ((surprise / n_scored as f64).exp(), expected.as_f64().expect("a number"));
        if (i + 1) % 20 == 0 {
            println!(
                "{:3} chunks: {ours:.4} against {theirs:.4}: {:+.3} %",
                i + 1,
                (ours / theirs - 1.0) * 100.0
            );
        }
        assert!(i < 9 || (ours / theirs - 1.0).abs() <= 0.005, "chunk {}: {ours} against {theirs}", i + 1);
    }
}

/// Activations of 8 bits move near ties: llama.cpp's own figure for this file on these chunks is 96.33 ± 0.26 %.
#[test]
fn the_first_choice_is_that_of_the_same_weights_in_f32_for_96_of_100_tokens() {
    let Some((checkpoint, ids)) = model_and_text() else { return };
    let folder = tempfile::tempdir().expect("a folder for the converted file");
    let dense = folder.path().join("f32.gguf");
    let options = ConvertOptions { mix: Mix::F32, importance: None, vocabulary: Vec::new() };
    to_gguf(&checkpoint, &dense, &options, &mut |_| ()).expect("the model converts");
    let quantized = Model::load(&checkpoint, LoadOptions::default()).expect("the model loads");
    let dense = Model::load(&open(&dense), LoadOptions::default()).expect("the converted model loads");
    let (mut n_equal, mut n_tokens) = (0, 0);
    for chunk in ids.chunks_exact(CHUNK).take(20) {
        let [a, b] = [&quantized, &dense].map(|model| logits(model, chunk, 0..CHUNK));
        let vocab_size = dense.config().vocab_size;
        n_equal +=
            a.chunks(vocab_size).zip(b.chunks(vocab_size)).filter(|(a, b)| argmax(a) == argmax(b)).count();
        n_tokens += CHUNK;
    }
    let share = n_equal as f64 / n_tokens as f64;
    println!("the same first choice for {n_equal} of {n_tokens} tokens: {:.2} %", share * 100.0);
    assert!(share >= 0.96, "{share}");
}

/// The logits of some rows of a text that is read alone. → [rows, V]
fn logits(model: &Model, ids: &[u32], rows: Range<usize>) -> Vec<f32> {
    let mut cache = KvCache::new(model.config(), KvType::F16, ids.len().div_ceil(PAGE_LEN));
    let pages = (0..cache.n_pages() as u32).collect();
    let spans = vec![SequenceSpan { pages, len: ids.len(), ..SequenceSpan::default() }];
    let batch = Batch { tokens: ids.to_vec(), spans, outputs: rows.collect(), ..Batch::default() };
    model.forward(&batch, Some(&mut cache)).data().to_vec()
}

/// The model, and the WikiText-2 test text in its tokens; nothing if one of them is not there.
fn model_and_text() -> Option<(Checkpoint, Vec<u32>)> {
    let data = std::env::var_os("RHETOR_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from);
    let text = data.join("wikitext-2/test.txt");
    if !text.exists() {
        println!("skipped: {} is not there", text.display());
        return None;
    }
    let home = std::env::var_os("RHETOR_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share/rhetor")))?;
    let pulled =
        Store::open(&home).pull(DEFAULT_MODEL, &PullOptions::default(), &mut |_| ControlFlow::Continue(()));
    let model = match pulled {
        Ok(model) => model.path,
        Err(error) => {
            println!("skipped: SmolLM2 cannot be pulled: {error}");
            return None;
        }
    };
    let checkpoint = open(&model);
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).expect("the vocabulary loads");
    let text = std::fs::read_to_string(text).expect("the text is UTF-8");
    let ids = tokenizer.encode(text.strip_suffix('\n').unwrap_or(&text), Special::Literal);
    let expected = golden()["method"]["chunks_of_the_text"].as_u64().expect("a number");
    assert_eq!(ids.len() / CHUNK, expected as usize, "chunks of the text");
    Some((checkpoint, ids))
}

fn golden() -> serde_json::Value {
    let text = std::fs::read_to_string(root().join("fixtures/perplexity/smollm2_wikitext2.json"));
    serde_json::from_str(&text.expect("the golden is part of the repository")).expect("the golden is JSON")
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
