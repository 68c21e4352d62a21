//! Vision towers and whole image-to-text stacks against transformers, for every checkpoint under `fixtures/vision`.

use rhetor_formats::Checkpoint;
use rhetor_kernels::kv::{KvType, PAGE_LEN};
use rhetor_models::adapters::{Adapter, AdapterOptions, Names, build};
use rhetor_models::{Batch, Embedded, Keep, KvCache, LoadError, LoadOptions, Model, SequenceSpan, Training};
use rhetor_tensor::{Parameter, gradient_check, ops};
use std::path::{Path, PathBuf};

const TOWERS: &[&str] = &["clip-vision", "dinov2", "blip2-vision"];
const STACKS: &[&str] = &["minigpt4", "minigpt4-v2", "minigpt4-blip2-names"];

#[test]
fn towers_give_the_rows_of_the_reference_for_pictures_of_each_size() {
    for name in TOWERS {
        let (model, expected) = (load(name), expected(name));
        let sight = model.sight().expect("a tower has eyes");
        assert!(!model.generates());
        assert_eq!((sight.side, sight.patch, sight.n_rows), (16, 4, 17), "{name}");
        let about =
            std::fs::read_to_string(folder(name).join("expected.json")).expect("the fixture is whole");
        let about: serde_json::Value = serde_json::from_str(&about).expect("the fixture is JSON");
        for side in about["sides"].as_array().expect("sides are recorded") {
            let side = side.as_u64().expect("a side is a number") as usize;
            let planes = numbers(&expected, &format!("pixels.{side}"));
            let rows = model.see(&planes, [side, side], None);
            close(&format!("{name} {side}"), rows.data(), &numbers(&expected, &format!("rows.{side}")));
            let first = model.see(&planes[..planes.len() / 2], [side, side], None);
            assert_eq!(first.data(), &rows.data()[..first.data().len()], "{name}: a picture beside another");
        }
    }
}

#[test]
fn stacks_make_the_rows_of_the_reference_of_pictures() {
    for name in STACKS {
        let (model, expected) = (load(name), expected(name));
        let rows = model.see(&numbers(&expected, "pixels"), [16, 16], None);
        let sight = model.sight().expect("a stack has eyes");
        assert_eq!(rows.shape(), [2 * sight.n_rows, 32], "{name}");
        close(name, rows.data(), &numbers(&expected, "rows"));
    }
}

#[test]
fn stacks_speak_about_pictures_as_the_reference_does() {
    for name in STACKS {
        let (model, expected) = (load(name), expected(name));
        let batch = whole(&model, &expected);
        let logits = model.forward(&batch, None);
        close(&format!("{name} without a cache"), logits.data(), &numbers(&expected, "logits"));

        // In chunks that cut the pictures, through a cache.
        let pages: Vec<u32> = (0..batch.tokens.len().div_ceil(PAGE_LEN) as u32).collect();
        let mut cache = KvCache::new(model.config(), KvType::F32, pages.len());
        let mut cached = Vec::new();
        for start in (0..batch.tokens.len()).step_by(5) {
            let len = 5.min(batch.tokens.len() - start);
            let part = |given: &Embedded| {
                let own = given.first..given.first + given.rows.n_rows();
                let rows: Vec<usize> = own
                    .clone()
                    .filter(|row| (start..start + len).contains(row))
                    .map(|r| r - own.start)
                    .collect();
                let first = (given.first + rows.first()?).checked_sub(start)?;
                Some(Embedded { first, rows: ops::rows::rows(&given.rows, &rows) })
            };
            let chunk = Batch {
                tokens: batch.tokens[start..start + len].to_vec(),
                spans: vec![SequenceSpan { pages: pages.clone(), start, len, ..SequenceSpan::default() }],
                outputs: (0..len).collect(),
                embedded: batch.embedded.iter().filter_map(part).collect(),
                ..Batch::default()
            };
            cached.extend_from_slice(model.forward(&chunk, Some(&mut cache)).data());
        }
        close(&format!("{name} in chunks"), &cached, &numbers(&expected, "logits"));
    }
}

#[test]
fn another_picture_is_another_answer() {
    let (model, expected) = (load("minigpt4"), expected("minigpt4"));
    let mut batch = whole(&model, &expected);
    let before = model.forward(&batch, None);
    batch.embedded.reverse();
    let (a, b) = (batch.embedded[0].first, batch.embedded[1].first);
    (batch.embedded[0].first, batch.embedded[1].first) = (b, a);
    let after = model.forward(&batch, None);
    let last = before.n_rows() - 1;
    assert_ne!(before.row(last), after.row(last));
    assert_eq!(before.row(2), after.row(2), "what stands before the pictures");
}

#[test]
fn the_projection_learns_through_the_frozen_language_model() {
    for name in STACKS {
        let targets = Names::Pattern(".*_proj(ection)?".to_string());
        let exclude = Names::Pattern(".*layers.*".to_string());
        let options = AdapterOptions { targets, exclude, ..AdapterOptions::default() };
        let mut adapters: [Box<dyn Adapter>; 1] = [build("full", &options).expect("it exists")];
        let model = Model::load_adapted(&open(name), LoadOptions::default(), &mut adapters);
        let model = model.unwrap_or_else(|error| panic!("{name}: {error}"));
        let names: Vec<&str> = model.parameters().iter().map(Parameter::name).collect();
        assert_eq!(names, ["llama_proj.weight", "llama_proj.bias"], "{name}");
        let expected = expected(name);
        let pixels = numbers(&expected, "pixels");
        for keep in [Keep::All, Keep::Blocks] {
            let training = Some(Training { seed: 1, keep });
            gradient_check::check_within(2e-2, &[], model.parameters(), |_| {
                let seen = model.see(&pixels[..pixels.len() / 2], [16, 16], training);
                let tokens: Vec<u32> = (0..seen.n_rows() as u32 + 3).collect();
                let embedded = vec![Embedded { first: 1, rows: seen }];
                let outputs = vec![tokens.len() - 2];
                let batch = Batch { embedded, training, outputs, ..Batch::whole(&tokens) };
                ops::add::scale(model.forward(&batch, None), 0.1)
            });
        }
    }
}

#[test]
fn a_composite_that_contradicts_itself_is_refused_by_name() {
    let good: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(folder("minigpt4").join("config.json")).expect("the fixture is whole"),
    )
    .expect("the fixture is JSON");
    for (section, key, value) in [
        ("vision", "model_type", serde_json::json!("llama")),
        ("vision", "model_type", serde_json::json!("nothing")),
        ("vision", "patch_size", serde_json::json!(5)),
        ("language_model", "model_type", serde_json::json!("bert")),
        ("qformer", "encoder_hidden_size", serde_json::json!(20)),
        ("qformer", "use_qformer_text_input", serde_json::json!(true)),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::copy(folder("minigpt4").join("model.safetensors"), dir.path().join("model.safetensors"))
            .expect("the weights are copied");
        let mut config = good.clone();
        config[section][key] = value;
        std::fs::write(dir.path().join("config.json"), config.to_string()).expect("the folder is writable");
        let checkpoint = Checkpoint::open(dir.path()).expect("a folder with weights");
        let error = Model::load(&checkpoint, LoadOptions::default()).err().expect("it is refused");
        let named = format!("{section}.");
        match &error {
            LoadError::BadValue { key, .. } | LoadError::MissingKey { key, .. } => {
                assert!(key.starts_with(&named), "{error}")
            }
            _ => panic!("{error}"),
        }
    }
}

#[test]
fn a_graph_that_holds_no_known_model_is_refused() {
    // A graph with one weight, `a`: [1].
    let bytes = b"\x08\x07\x3a\x0f\x2a\x0d\x08\x01\x10\x01\x42\x01a\x4a\x04\0\0\0\0".to_vec();
    let checkpoint = Checkpoint::from_bytes(Path::new("model.onnx"), bytes).expect("the graph is whole");
    assert_eq!(checkpoint.tensors()[0].name, "a");
    let error = Model::load(&checkpoint, LoadOptions::default()).err().expect("it is refused");
    assert!(matches!(error, LoadError::NoArchitecture { .. }), "{error}");
}

/// The prompt of a stack's fixture, with its pictures. Without a cache, all logits wanted.
fn whole(model: &Model, expected: &Checkpoint) -> Batch {
    let ids: Vec<u32> = integers(expected, "input_ids");
    let seen = model.see(&numbers(expected, "pixels"), [16, 16], None);
    let n = seen.n_rows() / 2;
    let firsts = integers(expected, "first");
    let given = |(i, &first): (usize, &u32)| {
        let rows: Vec<usize> = (i * n..(i + 1) * n).collect();
        Embedded { first: first as usize, rows: ops::rows::rows(&seen, &rows) }
    };
    Batch { embedded: firsts.iter().enumerate().map(given).collect(), ..Batch::whole(&ids) }
}

fn close(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let differences = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let largest = differences.max_by(f32::total_cmp).expect("there are numbers");
    println!("{what:32} largest difference {largest:.1e}");
    assert!(largest <= 1e-4, "{what}: {largest}");
}

fn load(name: &str) -> Model {
    Model::load(&open(name), LoadOptions::default()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&folder(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn expected(name: &str) -> Checkpoint {
    let path = folder(name).join("expected.safetensors");
    Checkpoint::open(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn numbers(file: &Checkpoint, name: &str) -> Vec<f32> {
    let bytes = file.bytes(file.find(name).unwrap_or_else(|| panic!("{name} is not there")));
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect()
}

fn integers(file: &Checkpoint, name: &str) -> Vec<u32> {
    let bytes = file.bytes(file.find(name).unwrap_or_else(|| panic!("{name} is not there")));
    bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes")) as u32).collect()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/vision").join(name)
}
