//! The commands that read: embed, classify, tag, answer, fill-mask; and real models.
//!
//! Those that want real weights pull them, and say so when they skip.

use rhetor_encode::{Embedder, ReaderOptions};
use rhetor_formats::Checkpoint;
use rhetor_kernels::gemm::Precision;
use rhetor_store::{PullOptions, Store};
use rhetor_tokenizer::Tokenizer;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn fixture(name: &str) -> String {
    root().join("fixtures/encode").join(name).display().to_string()
}

/// Runs the program in an empty folder; `NAME` in front of the arguments is a fixture.
fn rhetor(command: &str, model: &str, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_rhetor"))
        .args([command, &fixture(model)])
        .args(args)
        .env("RHETOR_HOME", folder.path())
        .env("RHETOR_OFFLINE", "true")
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn done(command: &str, model: &str, args: &[&str]) -> String {
    let output = rhetor(command, model, args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{command} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(command: &str, model: &str, args: &[&str]) -> Value {
    serde_json::from_str(&done(command, model, &[args, &["--json"]].concat())).unwrap()
}

fn wrong(command: &str, model: &str, args: &[&str]) -> String {
    let output = rhetor(command, model, args);
    assert_eq!(output.status.code(), Some(2), "{command} {args:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn texts_become_vectors() {
    let found = json("embed", "st_tiny", &["hello world", "a", "--prompt", "query"]);
    let list = found["embeddings"].as_array().unwrap();
    assert_eq!((list.len(), list[0]["vector"].as_array().unwrap().len()), (2, 32));
    assert_eq!((&list[0]["text"], &list[0]["tokens_left_out"]), (&"hello world".into(), &0.into()));
    let lines = done("embed", "st_tiny", &["hello world"]);
    assert_eq!((lines.lines().count(), lines.split_whitespace().count()), (1, 32));
    let output = rhetor("embed", "st_tiny", &["the quick brown fox jumps over the lazy dog again"]);
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.contains("text 1") && warning.contains("the model reads 24"), "{warning}");
    let weights = json("embed", "bert-masked", &["--sparse", "the cat"]);
    let weights = weights["embeddings"][0]["weights"].as_array().unwrap();
    assert!(weights.windows(2).all(|pair| pair[0]["weight"].as_f64() >= pair[1]["weight"].as_f64()));
    assert!(wrong("embed", "st_tiny", &["a", "--prompt", "title"]).contains("it has query"));
}

#[test]
fn vectors_are_written_as_numpy_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let (texts, file) = (folder.path().join("texts.txt"), folder.path().join("vectors.npy"));
    std::fs::write(&texts, "hello world\n\nmixed CASE\n").unwrap();
    let [texts, file] = [texts, file].map(|path| path.display().to_string());
    assert_eq!(done("embed", "st_tiny", &["-f", &texts, "--npy", &file]), "");
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(bytes.len(), 128 + 3 * 32 * 4, "an empty line is a text too");
    assert!(String::from_utf8_lossy(&bytes[..128]).contains("'shape': (3, 32)"));
}

#[test]
fn pictures_become_vectors() {
    let vision = |name: &str| format!("../vision/{name}");
    let picture = root().join("fixtures/vision/drawn.png").display().to_string();
    let other = root().join("fixtures/vision/dark.png").display().to_string();
    for tower in ["clip-vision", "dinov2", "blip2-vision"] {
        let found = json("embed", &vision(tower), &["--image", &picture, "--image", &other]);
        let list = found["embeddings"].as_array().unwrap();
        assert_eq!((list.len(), list[0]["image"].as_str()), (2, Some(picture.as_str())), "{tower}");
        assert_ne!(list[0]["vector"], list[1]["vector"], "{tower}");
        let line = done("embed", &vision(tower), &["--image", &picture]);
        let numbers: Vec<f32> = line.split_whitespace().map(|x| x.parse().unwrap()).collect();
        assert_eq!(numbers.len(), list[0]["vector"].as_array().unwrap().len());
        assert_ne!(done("embed", &vision(tower), &["--image", &picture, "--row", "mean"]), line);
    }
    assert!(wrong("embed", "st_tiny", &["--image", &picture]).contains("--image: "));
    assert!(wrong("embed", &vision("minigpt4"), &["--image", &picture]).contains("--image: "));
    assert!(wrong("embed", "st_tiny", &["a", "--image", &picture]).contains("cannot be used with"));
    assert!(wrong("embed", "st_tiny", &["a", "--row", "mean"]).contains("--row"));
    assert!(wrong("embed", "st_tiny", &["--row", "mean"]).contains("--image"));
}

#[test]
fn an_embedder_keeps_its_vectors_as_gguf() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("st.gguf").display().to_string();
    done("convert", "st_tiny", &[&file, "--type", "f32"]);
    let texts = ["hello world", "Mixed CASE, 42!", ""];
    // A path of its own is no fixture.
    let output = Command::new(env!("CARGO_BIN_EXE_rhetor"))
        .args(["embed", &file, "--json"])
        .args(texts)
        .env("RHETOR_HOME", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let there: Value = serde_json::from_slice(&output.stdout).unwrap();
    let here = json("embed", "st_tiny", &texts);
    for i in 0..texts.len() {
        let vector = |found: &Value| -> Vec<f32> {
            let numbers = found["embeddings"][i]["vector"].as_array().unwrap();
            numbers.iter().map(|x| x.as_f64().unwrap() as f32).collect()
        };
        let (here, there) = (vector(&here), vector(&there));
        assert!(here.iter().zip(&there).all(|(a, b)| (a - b).abs() < 1e-6), "{}", texts[i]);
    }
    let error = wrong("convert", "st-all", &[&file.replace("st.gguf", "all.gguf"), "--type", "f32"]);
    assert!(error.contains("roberta") || error.contains("modules.json"), "{error}");
}

#[test]
fn texts_are_classified_alone_and_in_pairs() {
    let golden = std::fs::read_to_string(root().join("fixtures/encode/bert-classes/expected.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let [a, b] = [0, 1].map(|i| golden["texts"][i].as_str().unwrap());
    let close = |found: &Value, expected: &Value| {
        assert_eq!(found["label"], expected["label"]);
        assert!((found["score"].as_f64().unwrap() - expected["score"].as_f64().unwrap()).abs() < 1e-5);
    };
    close(&json("classify", "bert-classes", &[a])[0]["classes"][0], &golden["classes"][0][0]);
    close(&json("classify", "bert-classes", &["--pair", a, b])[0]["classes"][0], &golden["of_pairs"][0][0]);
    assert!(wrong("classify", "bert-classes", &["--pair", a]).contains("1 texts are no pairs"));
    assert!(wrong("classify", "bert-tags", &[a]).contains("a head for Sequence"));
}

#[test]
fn words_are_tagged_filled_in_and_found() {
    let tags = json("tag", "bert-tags", &["The caf\u{e9} \u{6211} is good", "--aggregation", "none"]);
    for tag in tags[0]["tags"].as_array().unwrap() {
        let [start, end] = ["start", "end"].map(|key| tag[key].as_u64().unwrap() as usize);
        let text: String = "The caf\u{e9} \u{6211} is good".chars().skip(start).take(end - start).collect();
        assert_eq!(tag["text"], text.as_str(), "places are counted in characters");
    }
    let found = json("fill-mask", "bert-masked", &["the [MASK] sat", "-k", "3"]);
    assert_eq!(found[0]["masks"][0].as_array().unwrap().len(), 3);
    assert!(wrong("fill-mask", "bert-masked", &["the cat sat"]).contains("no [MASK]"));
    let answer = json("answer", "bert-answers", &["--question", "who?", "the cat sat", "-k", "2"]);
    assert_eq!(answer["answers"].as_array().unwrap().len(), 2);
    let long = "word ".repeat(40);
    assert!(wrong("answer", "bert-answers", &["-q", &long, "the cat"]).contains("the question"));
}

/// A model of the catalogue; nothing if it cannot be pulled.
fn pulled(name: &str, options: ReaderOptions, sparse: bool) -> Option<Embedder> {
    let home = std::env::var_os("RHETOR_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share/rhetor")))?;
    match Store::open(&home).pull(name, &PullOptions::default(), &mut |_| ControlFlow::Continue(())) {
        Ok(model) => {
            let checkpoint = Checkpoint::open(&model.path).unwrap();
            let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
            Some(Embedder::open(&checkpoint, tokenizer, options, sparse).unwrap())
        }
        Err(error) => {
            println!("skipped: {name} cannot be pulled: {error}");
            None
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn sentences_have_the_vectors_that_sentence_transformers_gives_them() {
    let folder = root().join("fixtures/encode/minilm");
    let texts = std::fs::read_to_string(folder.join("texts.txt")).unwrap();
    let texts: Vec<&str> = texts.lines().collect();
    let golden = Checkpoint::open(&folder.join("vectors.safetensors")).unwrap();
    let entry = golden.find("vectors").unwrap();
    let mut expected = vec![0f32; 200 * 384];
    rhetor_kernels::quant::dequantize(rhetor_kernels::DType::F16, golden.bytes(entry), &mut expected);
    for (precision, least) in [(Precision::F32, 1.0 - 1e-4), (Precision::Bf16, 0.999)] {
        let options = ReaderOptions { task: None, precision };
        let Some(embedder) = pulled("all-minilm-l6-v2", options, false) else { return };
        let found = embedder.embed(&texts, None).unwrap();
        assert_eq!(found.n_cut.iter().filter(|&&n| n > 0).count(), 1, "one text is too long");
        for (i, vector) in found.vectors.iter().enumerate() {
            let cosine = cosine(vector, &expected[i * 384..(i + 1) * 384]);
            assert!(cosine > least, "{precision:?} {}: {cosine}", texts[i]);
        }
    }
}

#[test]
fn splade_ranks_the_relevant_passage_first() {
    let Some(embedder) = pulled("splade-tiny", ReaderOptions::default(), true) else { return };
    let queries = ["where do cats sleep", "who wrote the play hamlet", "how to bake bread at home"];
    let passages = [
        "A cat rests in warm and quiet spots: on beds, sofas and window sills.",
        "Shakespeare finished the tragedy of Hamlet around 1600.",
        "Mix flour, water, salt and yeast, let the dough rise and put the loaf into a hot oven.",
        "The stock market fell by two percent on Tuesday.",
    ];
    let passages = embedder.embed(&passages, None).unwrap().vectors;
    for (i, query) in embedder.embed(&queries, None).unwrap().vectors.iter().enumerate() {
        let score = |passage: &Vec<f32>| -> f32 { query.iter().zip(passage).map(|(a, b)| a * b).sum() };
        let scores: Vec<f32> = passages.iter().map(score).collect();
        let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        assert_eq!(best, Some(i), "{}: {scores:?}", queries[i]);
    }
}
