//! Logits against those of the reference implementation, for every checkpoint under `fixtures/models`.
//!
//! Each case is run whole, token by token, in chunks, and beside another prompt; the numbers must agree with the
//! reference within the tolerance stored beside them, and with each other in every bit.

use rhetor_formats::Checkpoint;
use rhetor_kernels::DType;
use rhetor_kernels::kv::{KvType, PAGE_LEN};
use rhetor_kernels::threads;
use rhetor_models::convert::{ConvertError, ConvertOptions, to_gguf, to_hugging_face};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Batch, KvCache, LoadOptions, Model, SequenceSpan};
use std::path::{Path, PathBuf};

/// A checkpoint and what the reference computes for its prompts.
struct Case {
    name: String,
    model: Model,
    tolerance: f32,
    prompts: Vec<Prompt>,
}

/// The ids of a prompt and the logits that follow each of them: `[T]` and `[T, V]`.
struct Prompt {
    ids: Vec<u32>,
    logits: Vec<f32>,
}

/// Rows of one sequence: which pages hold it, where its rows begin, and their tokens.
struct Rows<'a> {
    pages: &'a [u32],
    start: usize,
    ids: &'a [u32],
}

#[test]
fn whole_prompts_have_the_logits_of_the_reference() {
    for case in cases() {
        for prompt in &case.prompts {
            compare(&case, "whole", prompt, &alone(&case.model, &prompt.ids, prompt.ids.len()));
        }
    }
}

#[test]
fn tokens_one_by_one_have_the_logits_of_the_whole_prompt() {
    for case in &cases() {
        for prompt in &case.prompts {
            let logits = alone(&case.model, &prompt.ids, 1);
            compare(case, "one by one", prompt, &logits);
            same_bits(case, "one by one", &logits, &alone(&case.model, &prompt.ids, prompt.ids.len()));
        }
    }
}

#[test]
fn chunks_have_the_logits_of_the_whole_prompt() {
    for case in &cases() {
        for prompt in &case.prompts {
            let logits = alone(&case.model, &prompt.ids, 7);
            compare(case, "chunks of 7", prompt, &logits);
            same_bits(case, "chunks of 7", &logits, &alone(&case.model, &prompt.ids, prompt.ids.len()));
        }
    }
}

#[test]
fn without_a_cache_logits_are_those_with_one() {
    for case in cases() {
        for prompt in &case.prompts {
            let whole = case.model.forward(&Batch::whole(&prompt.ids), None);
            let cached = alone(&case.model, &prompt.ids, prompt.ids.len());
            let off = whole.data().iter().zip(&cached).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{:28} {:3} tokens  without a cache off by {off:.1e}", case.name, prompt.ids.len());
            assert!(whole.data().len() == cached.len() && off <= 1e-5, "{}: off by {off}", case.name);
        }
    }
}

#[test]
fn prompts_side_by_side_have_the_logits_they_have_alone() {
    for case in cases() {
        let n_pages = pages_of(case.model.config().context_len);
        let mut cache = KvCache::new(case.model.config(), KvType::F32, n_pages * case.prompts.len());
        // Pages from the last to the first: nothing may rely on their order.
        let all: Vec<u32> = (0..(n_pages * case.prompts.len()) as u32).rev().collect();
        let rows = case.prompts.iter().zip(all.chunks(n_pages));
        let rows = rows.map(|(prompt, pages)| Rows { pages, start: 0, ids: &prompt.ids }).collect();
        let together = forward(&case.model, &mut cache, rows);
        let mut at = 0;
        for prompt in &case.prompts {
            let logits = &together[at..at + prompt.logits.len()];
            at += logits.len();
            compare(&case, "side by side", prompt, logits);
            same_bits(&case, "side by side", logits, &alone(&case.model, &prompt.ids, prompt.ids.len()));
        }
    }
}

#[test]
fn a_row_has_the_same_bits_with_one_two_and_three_threads() {
    let before = threads::threads();
    for case in cases() {
        let prompt = &case.prompts[0];
        let runs = [1, 2, 3].map(|n| {
            threads::set_threads(n);
            alone(&case.model, &prompt.ids, prompt.ids.len())
        });
        same_bits(&case, "2 threads", &runs[1], &runs[0]);
        same_bits(&case, "3 threads", &runs[2], &runs[0]);
    }
    threads::set_threads(before);
}

#[test]
fn one_token_decodes_the_same_beside_a_prompt_that_is_being_read() {
    for case in &cases() {
        let ids = &case.prompts[0].ids;
        let n_pages = pages_of(case.model.config().context_len) as u32;
        let mut cache = KvCache::new(case.model.config(), KvType::F32, 2 * n_pages as usize);
        let (first, second): (Vec<u32>, Vec<u32>) =
            ((0..n_pages).collect(), (n_pages..2 * n_pages).collect());
        let (head, tail) = ids.split_at(ids.len() - 1);
        forward(&case.model, &mut cache, vec![Rows { pages: &first, start: 0, ids: head }]);
        let decoding = Rows { pages: &first, start: head.len(), ids: tail };
        let reading = Rows { pages: &second, start: 0, ids };
        let together = forward(&case.model, &mut cache, vec![decoding, reading]);
        let whole = alone(&case.model, ids, ids.len());
        let vocab_size = case.model.config().vocab_size;
        same_bits(
            case,
            "decoding beside a prompt",
            &together[..vocab_size],
            &whole[whole.len() - vocab_size..],
        );
        same_bits(case, "read beside a decode", &together[vocab_size..], &whole);
    }
}

#[test]
fn a_checkpoint_keeps_its_logits_through_gguf_and_back() {
    let folder = tempfile::tempdir().expect("a folder for the converted files");
    for source in folders() {
        let before = case(&source);
        let file = folder.path().join(format!("{}.gguf", before.name));
        let back = folder.path().join(&before.name);
        let options = ConvertOptions { mix: Mix::F32, importance: None, vocabulary: Vec::new() };
        let written = to_gguf(&open(&source), &file, &options, &mut |_| ());
        if let Err(error) = &written {
            let refused = matches!(error, ConvertError::NoPlace { .. });
            assert!(refused && WITHOUT_GGUF.contains(&before.name.as_str()), "{}: {error}", before.name);
            continue;
        }
        let model = Model::load(&open(&file), LoadOptions::default());
        let model = model.unwrap_or_else(|error| panic!("{} as GGUF: {error}", before.name));
        let case = Case { model, ..before };
        for prompt in &case.prompts {
            compare(&case, "as GGUF", prompt, &alone(&case.model, &prompt.ids, prompt.ids.len()));
        }
        let written = to_hugging_face(&open(&file), &back, DType::F32, &mut |_| ());
        if let Err(error) = &written {
            let refused = matches!(error, ConvertError::NoPlace { .. });
            assert!(refused && WITHOUT_RETURN.contains(&case.name.as_str()), "{} back: {error}", case.name);
            continue;
        }
        let model = Model::load(&open(&back), LoadOptions::default());
        let model = model.unwrap_or_else(|error| panic!("{} and back: {error}", case.name));
        let case = Case { model, ..case };
        for prompt in &case.prompts {
            compare(&case, "and back", prompt, &alone(&case.model, &prompt.ids, prompt.ids.len()));
        }
    }
}

/// The root of the mean square of what logits are off by, as a part of the largest logit. The weights are drawn so wide that
/// attention is sharp, and errors grow more than in a trained model.
#[test]
fn eight_bits_move_the_logits_by_less_than_two_percent() {
    let folder = tempfile::tempdir().expect("a folder for the converted files");
    for source in folders() {
        let before = case(&source);
        let file = folder.path().join(format!("{}.gguf", before.name));
        for (mix, allowed) in [(Mix::Q8_0, 0.02), (Mix::Q4KM, 0.1)] {
            let options = ConvertOptions { mix, importance: None, vocabulary: Vec::new() };
            let written = to_gguf(&open(&source), &file, &options, &mut |_| ());
            if let Err(error) = &written {
                let refused = matches!(error, ConvertError::NoPlace { .. });
                assert!(refused && WITHOUT_GGUF.contains(&before.name.as_str()), "{}: {error}", before.name);
                continue;
            }
            let model = Model::load(&open(&file), LoadOptions::default());
            let model = model.unwrap_or_else(|error| panic!("{} in {}: {error}", before.name, mix.name()));
            for prompt in &before.prompts {
                let logits = alone(&model, &prompt.ids, prompt.ids.len());
                let squares: f32 = logits.iter().zip(&prompt.logits).map(|(a, b)| (a - b) * (a - b)).sum();
                let largest = prompt.logits.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
                let relative = (squares / logits.len() as f32).sqrt() / largest;
                println!("{:28} {:7} relative error {relative:.4}", before.name, mix.name());
                // Comparing this way round, a NaN is refused too.
                assert!(relative <= allowed, "{} in {}: off by {relative}", before.name, mix.name());
            }
        }
    }
}

#[test]
fn the_story_of_the_260k_model_is_its_golden() {
    let data = root().join("../shared/data/stories260K/stories260K.bin");
    if !data.exists() {
        println!("skipped: {} is not there", data.display());
        return;
    }
    let golden = json(&root().join("fixtures/stories260K/expected.json"));
    let ids = |key: &str| -> Vec<u32> {
        let values = golden[key].as_array().expect("the golden has both lists");
        values.iter().map(|id| id.as_u64().expect("ids are whole numbers") as u32).collect()
    };
    let model = Model::load(&open(&data), LoadOptions::default()).expect("the story model loads");
    let mut cache = KvCache::new(model.config(), KvType::F32, pages_of(model.config().context_len));
    let pages: Vec<u32> = (0..cache.n_pages() as u32).collect();
    let (mut token, mut said) = (ids("prompt_ids")[0], Vec::new());
    while said.len() < ids("token_ids").len() {
        let rows = Rows { pages: &pages, start: said.len(), ids: &[token] };
        let logits = forward(&model, &mut cache, vec![rows]);
        token = rhetor_kernels::select::argmax(&logits) as u32;
        said.push(token);
    }
    assert_eq!(said, ids("token_ids"));
}

/// Cases that GGUF has no keys for: they are refused by name.
const WITHOUT_GGUF: &[&str] = &[
    "attention-only",
    "codegen",
    "falcon-rw",
    "falcon-rw-12-heads",
    "falcon-rw-6-heads",
    "gemma3-other-scale",
    "gpt",
    "gpt2-banded",
    "gpt2-inverse-layer-scale",
    "llama-rope-dynamic",
    "qwen2-window-4",
];

/// Cases whose GGUF holds numbers that config.json cannot: the factors that LLaMA 3's scaling has become.
const WITHOUT_RETURN: &[&str] = &["llama-rope-llama3"];

/// The logits of every token of `ids`, read in chunks through a cache of its own. → [T, V]
fn alone(model: &Model, ids: &[u32], chunk: usize) -> Vec<f32> {
    let mut cache = KvCache::new(model.config(), KvType::F32, pages_of(ids.len()));
    let pages: Vec<u32> = (0..cache.n_pages() as u32).collect();
    let mut logits = Vec::new();
    for (i, part) in ids.chunks(chunk).enumerate() {
        logits.extend(forward(model, &mut cache, vec![Rows { pages: &pages, start: i * chunk, ids: part }]));
    }
    logits
}

/// The logits of every row. → [T, V]
fn forward(model: &Model, cache: &mut KvCache, rows: Vec<Rows>) -> Vec<f32> {
    let tokens: Vec<u32> = rows.iter().flat_map(|rows| rows.ids.iter().copied()).collect();
    let span = |rows: &Rows| SequenceSpan {
        pages: rows.pages.to_vec(),
        start: rows.start,
        len: rows.ids.len(),
        ..SequenceSpan::default()
    };
    let batch = Batch {
        spans: rows.iter().map(span).collect(),
        outputs: (0..tokens.len()).collect(),
        tokens,
        ..Batch::default()
    };
    model.forward(&batch, Some(cache)).data().to_vec()
}

fn compare(case: &Case, how: &str, prompt: &Prompt, logits: &[f32]) {
    assert_eq!(logits.len(), prompt.logits.len(), "{} {how}: number of logits", case.name);
    let vocab_size = case.model.config().vocab_size;
    let differences = logits.iter().zip(&prompt.logits).map(|(a, b)| (a - b).abs());
    // A NaN is the largest difference of all.
    let (at, largest) = differences.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are logits");
    println!("{:28} {how:14} {:3} tokens  largest difference {largest:.1e}", case.name, prompt.ids.len());
    assert!(
        largest <= case.tolerance,
        "{} {how}: token {} has a logit that differs by {largest}, allowed are {}",
        case.name,
        at / vocab_size,
        case.tolerance
    );
}

fn same_bits(case: &Case, how: &str, a: &[f32], b: &[f32]) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    let (a, b) = (bits(a), bits(b));
    let at = a.iter().zip(&b).position(|(a, b)| a != b);
    assert!(at.is_none() && a.len() == b.len(), "{} {how}: logit {at:?} has other bits", case.name);
}

/// Every checkpoint under `fixtures/models`, in order of names.
fn cases() -> Vec<Case> {
    folders().iter().map(|folder| case(folder)).collect()
}

fn folders() -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(root().join("fixtures/models")).expect("the fixtures are part of the repository");
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the folder is readable").path()).collect();
    folders.retain(|folder| folder.join("expected.json").exists());
    folders.sort();
    assert!(folders.len() >= 15, "found {} cases only", folders.len());
    folders
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn case(folder: &Path) -> Case {
    let name = folder.file_name().expect("a folder has a name").to_string_lossy().into_owned();
    let about = json(&folder.join("expected.json"));
    let checkpoint = Checkpoint::open(folder).unwrap_or_else(|error| panic!("{name}: {error}"));
    let model =
        Model::load(&checkpoint, LoadOptions::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let expected = open(&folder.join("expected.safetensors"));
    let bytes = |tensor: String| -> &[u8] {
        expected.bytes(expected.find(&tensor).unwrap_or_else(|| panic!("{name}: {tensor} is not there")))
    };
    let prompts = 0..about["prompts"].as_u64().expect("the number of prompts is recorded");
    let prompts = prompts.map(|i| Prompt {
        ids: (bytes(format!("input_ids.{i}")).chunks_exact(8))
            .map(|id| u64::from_le_bytes(id.try_into().expect("8 bytes")) as u32)
            .collect(),
        logits: (bytes(format!("logits.{i}")).chunks_exact(4))
            .map(|logit| f32::from_le_bytes(logit.try_into().expect("4 bytes")))
            .collect(),
    });
    let tolerance = about["tolerance"].as_f64().expect("the tolerance is recorded") as f32;
    Case { prompts: prompts.collect(), tolerance, model, name }
}

fn pages_of(n_tokens: usize) -> usize {
    n_tokens.div_ceil(PAGE_LEN)
}

fn json(file: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
