//! Whole runs of the tasks with heads: rows of a file become a model in a directory that opens again.

use rhetor_formats::Checkpoint;
use rhetor_models::{Active, Batch, LoadOptions, Model, SequenceSpan, Task, init, labels_of};
use rhetor_tokenizer::{Special, Tokenizer};
use rhetor_train::data::split::Validation;
use rhetor_train::{Alone, Event, Recipe, Resolved, Run, data};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tokenizer").join(name)
}

/// A new model with random weights, and the vocabulary that it is made for.
fn base(dir: &Path, class: &str, vocabulary: &str) -> Arc<Tokenizer> {
    let tokenizer = Tokenizer::from_file(&fixture(vocabulary)).unwrap();
    let mut config = json!({
        "architectures": [class],
        "vocab_size": tokenizer.n_tokens(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        // A small network of LSTM layers passes nothing on unless its numbers are large.
        "initializer_range": if class.starts_with("Awd") { 0.3 } else { 0.1 },
    });
    if class.starts_with("Llama") {
        config["rms_norm_eps"] = json!(1e-5);
    }
    std::fs::create_dir_all(dir).unwrap();
    std::fs::copy(
        fixture(vocabulary),
        dir.join(if vocabulary == "vocab.txt" { vocabulary } else { "tokenizer.json" }),
    )
    .unwrap();
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    init::write(dir, 1).unwrap();
    Arc::new(tokenizer)
}

/// Trains; returns the last validation's metrics.
fn train(
    dir: &Path,
    out: &str,
    recipe: &str,
    base: &Path,
    tokenizer: &Arc<Tokenizer>,
    lines: &str,
) -> std::collections::BTreeMap<&'static str, f64> {
    let file = dir.join(format!("{out}.jsonl"));
    std::fs::write(&file, lines).unwrap();
    let resolved = Resolved {
        recipe: Recipe::from_toml(recipe).unwrap(),
        base: base.to_path_buf(),
        base_name: base.display().to_string(),
        teacher: None,
        tokenizer: tokenizer.clone(),
        template: None,
        new_template: None,
        data: vec![(vec![data::Source::of(file.to_str().unwrap())], data::ReadOptions::default(), 1.0)],
        validation: Validation::Hash(0.2),
        out: dir.join(out),
        now: 0,
    };
    let run = Run::prepare(resolved, &Alone).unwrap();
    let mut last = None;
    run.go(&Alone, &mut |_, event| {
        if let Event::Validated(validation) = event {
            last = Some(validation.metrics.clone());
        }
        Ok(std::ops::ControlFlow::Continue(()))
    })
    .unwrap();
    last.expect("some rows are held out")
}

/// Sentences about dogs are `good`, those about foxes `bad`; nothing else tells them apart.
fn reviews() -> String {
    let line = |i: usize| {
        let (animal, label) = if i.is_multiple_of(2) { ("dog", "good") } else { ("fox", "bad") };
        let words = ["quick", "lazy", "brown", "small", "old"];
        let text = format!("the {} {} {animal} number {i}", words[i % 5], words[i / 5 % 5]);
        json!({"text": text, "label": label}).to_string() + "\n"
    };
    (0..200).map(line).collect()
}

#[test]
fn an_encoder_learns_to_tell_texts_apart_and_says_so_in_its_config() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("base");
    let tokenizer = base(&from, "BertForMaskedLM", "vocab.txt");
    let recipe = "objective = 'sequence-classification'\nsteps = 60\nbatch-size = 8\nlearning-rate = 3e-3\n\
                  rate-decay = 1.2\nunfreeze-every = 0.5\n";
    let metrics = train(dir.path(), "out", recipe, &from, &tokenizer, &reviews());
    assert!(metrics["accuracy"] > 0.9 && metrics["f1"] > 0.9, "{metrics:?}");
    assert!(!metrics.contains_key("true-positives"), "{metrics:?}");
    let checkpoint = Checkpoint::open(&dir.path().join("out")).unwrap();
    assert_eq!(labels_of(&checkpoint).unwrap(), ["bad", "good"]);
    let model = Model::load(&checkpoint, LoadOptions::default()).unwrap();
    assert_eq!((model.config().head.task, model.config().head.n_labels), (Task::Sequence, 2));
    let says = |text: &str| {
        let mut tokens = vec![tokenizer.class().unwrap()];
        tokens.extend(tokenizer.encode(text, Special::Literal));
        tokens.push(tokenizer.separator().unwrap());
        let logits = model.forward(&Batch { outputs: vec![0], ..Batch::whole(&tokens) }, None);
        logits.row(0)[1] > logits.row(0)[0]
    };
    assert!(says("the old lazy dog number 7") && !says("the old lazy fox number 7"));
    // Another run goes on with this head, and with the numbers of its classes.
    let again = train(
        dir.path(),
        "again",
        "objective = 'sequence-classification'\nsteps = 1\nlearning-rate = 1e-9\n",
        &dir.path().join("out"),
        &tokenizer,
        &reviews(),
    );
    assert!(again["accuracy"] > 0.9, "{again:?}");
}

#[test]
fn a_decoder_with_lora_learns_a_head_that_its_adapter_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("base");
    let tokenizer = base(&from, "LlamaForCausalLM", "byte_level_bpe.json");
    let recipe = "objective = 'sequence-classification'\nadapter = 'lora'\nsteps = 80\nbatch-size = 8\n\
                  learning-rate = 1e-2\n";
    let metrics = train(dir.path(), "out", recipe, &from, &tokenizer, &reviews());
    assert!(metrics["accuracy"] > 0.8, "{metrics:?}");
    let out = dir.path().join("out");
    let config = std::fs::read_to_string(out.join("adapter_config.json")).unwrap();
    assert!(config.contains("SEQ_CLS") && config.contains("score"), "{config}");
    let tensors = Checkpoint::open(&out.join("adapter_model.safetensors")).unwrap();
    assert_eq!(tensors.find("base_model.model.score.weight").unwrap().shape, [2, 32]);
}

#[test]
fn words_are_tagged_and_numbers_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("base");
    let tokenizer = base(&from, "BertForMaskedLM", "vocab.txt");
    let line = |i: usize| {
        let (animal, tag) = if i.is_multiple_of(2) { ("dog", "B-DOG") } else { ("fox", "B-FOX") };
        json!({"tokens": ["the", animal, "and", "a", animal, format!("{i}")], "tags": ["O", tag, "O", "O", tag, "O"]})
            .to_string() + "\n"
    };
    let lines: String = (0..120).map(line).collect();
    let recipe = "objective = 'token-classification'\nsteps = 50\nbatch-size = 8\nlearning-rate = 3e-3\n";
    let metrics = train(dir.path(), "tags", recipe, &from, &tokenizer, &lines);
    assert!(metrics["accuracy"] > 0.9 && metrics["f1"] > 0.9, "{metrics:?}");
    let line = |i: usize| {
        let (animal, value) = if i.is_multiple_of(2) { ("dog", "1.5") } else { ("fox", "-0.5") };
        json!({"text": format!("a {animal} of {i}"), "label": value}).to_string() + "\n"
    };
    let lines: String = (0..120).map(line).collect();
    let recipe = "objective = 'sequence-classification'\nsteps = 60\nbatch-size = 8\nlearning-rate = 3e-3\n\
                  [objective-options]\nnumbers = 1.0\n";
    let metrics = train(dir.path(), "numbers", recipe, &from, &tokenizer, &lines);
    assert!(metrics["pearson"] > 0.9 && metrics["absolute-error"] < 0.4, "{metrics:?}");
    let model = Model::load(&Checkpoint::open(&dir.path().join("numbers")).unwrap(), LoadOptions::default());
    assert_eq!(model.unwrap().config().head.n_labels, 1);
}

#[test]
fn an_lstm_learns_the_language_of_the_texts_and_then_their_classes() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("base");
    let tokenizer = base(&from, "AwdLstmForCausalLM", "byte_level_bpe.json");
    let recipe = "objective = 'causal-lm'\nsteps = 100\nbatch-size = 8\nseq-len = 32\nlearning-rate = 1e-2\n";
    train(dir.path(), "language", recipe, &from, &tokenizer, &reviews());
    let language = dir.path().join("language");
    let recipe = "objective = 'sequence-classification'\nepochs = 8\nbatch-size = 8\nlearning-rate = 5e-3\n\
                  schedule = 'slanted-triangular'\nrate-decay = 1.5\nunfreeze-every = 0.5\n";
    let metrics = train(dir.path(), "classes", recipe, &language, &tokenizer, &reviews());
    assert!(metrics["accuracy"] > 0.9, "{metrics:?}");
    let model = Model::load(&Checkpoint::open(&dir.path().join("classes")).unwrap(), LoadOptions::default());
    let model = model.unwrap();
    // What a text says does not depend on the texts beside it.
    let run = |lens: &[usize]| {
        let spans = lens.iter().map(|&len| SequenceSpan { len, ..SequenceSpan::default() }).collect();
        let n: usize = lens.iter().sum();
        let tokens: Vec<u32> = (10..10 + n as u32).collect();
        let batch =
            Batch { tokens, spans, outputs: vec![lens[0] - 1], adapters: Active::All, ..Batch::default() };
        model.forward(&batch, None).data().to_vec()
    };
    let (alone, beside) = (run(&[6]), run(&[6, 9]));
    assert!(alone.iter().zip(&beside).all(|(a, b)| (a - b).abs() < 1e-6), "{alone:?} {beside:?}");
}

#[test]
fn each_gradient_of_an_lstm_network_is_the_slope_of_its_loss() {
    use rhetor_kernels::cross_entropy::CrossEntropy;
    use rhetor_models::adapters::{AdapterOptions, build};
    use rhetor_models::{Keep, Training};
    use rhetor_tensor::tape;
    let dir = tempfile::tempdir().unwrap();
    base(dir.path(), "AwdLstmForCausalLM", "byte_level_bpe.json");
    let adapters = &mut [build("full", &AdapterOptions::default()).unwrap()];
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let model = Model::load_adapted(&checkpoint, LoadOptions::default(), adapters).unwrap();
    let policy = rhetor_train::Policy::of(model);
    let sequences =
        [[1, 2, 3, 4, 5, 6, 2], [7, 2, 9, 9, 1, 3, 5]].map(|ids| rhetor_train::Sequence::next_token(&ids));
    for training in [None, Some(Training { seed: 3, keep: Keep::All })] {
        let run = || policy.next_tokens(&sequences, 0.5, CrossEntropy::default(), training);
        let (loss, tape) = tape::record(run);
        tape.backward(&loss.total);
        for parameter in policy.model.parameters() {
            let gradient = parameter.gradient().clone();
            parameter.clear_gradient();
            assert!(!gradient.is_empty(), "no gradient of {}", parameter.name());
            let norm = rhetor_kernels::reduce::sum_of_squares(&gradient).sqrt();
            // Along the gradient the slope is its norm.
            let at = |step: f64| {
                let before = parameter.read().clone();
                let factor = (step / norm) as f32;
                parameter
                    .write()
                    .iter_mut()
                    .zip(&gradient)
                    .for_each(|(value, slope)| *value += factor * slope);
                let loss = 0.5 * run().sum;
                parameter.write().copy_from_slice(&before);
                loss
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope / norm - 1.0).abs() < 0.02, "{}: slope {slope}, norm {norm}", parameter.name());
        }
    }
}
