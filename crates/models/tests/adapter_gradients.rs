//! The gradients of every adapter's parameters, through a whole model, against central differences.

use rhetor_formats::Checkpoint;
use rhetor_models::adapters::{Adapter, AdapterOptions, Bias, Init, Names, build};
use rhetor_models::{Batch, Keep, LoadOptions, Model, SequenceSpan, Training};
use rhetor_tensor::{Parameter, Tensor, gradient_check, tape};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn load(path: &Path, method: &str, options: &AdapterOptions) -> Model {
    let mut adapters: [Box<dyn Adapter>; 1] = [build(method, options).unwrap()];
    let checkpoint = Checkpoint::open(path).unwrap();
    Model::load_adapted(&checkpoint, LoadOptions::default(), &mut adapters).unwrap()
}

/// Two sequences in training, of which some logits are wanted.
fn batch(keep: Keep) -> Batch {
    let span = |len| SequenceSpan { len, ..SequenceSpan::default() };
    Batch {
        tokens: vec![5, 9, 3, 7, 11],
        spans: vec![span(3), span(2)],
        outputs: vec![1, 2, 4],
        training: Some(Training { seed: 3, keep }),
        ..Batch::default()
    }
}

/// Scaled logits: those of a random model are large, and central differences suffer.
fn logits(model: &Model, keep: Keep) -> Tensor {
    rhetor_tensor::ops::add::scale(model.forward(&batch(keep), None), 0.1)
}

/// Compares all gradients of a model's parameters that `is_checked` with central differences, with both ways to keep.
#[track_caller]
fn check(model: &Model, is_checked: impl Fn(&Parameter) -> bool) {
    let parameters: Vec<Parameter> = model.parameters().iter().filter(|p| is_checked(p)).cloned().collect();
    assert!(!parameters.is_empty());
    for keep in [Keep::All, Keep::Blocks] {
        gradient_check::check_within(2e-2, &[], &parameters, |_| logits(model, keep));
    }
}

fn random(values: &[(&str, f64)], targets: Names) -> AdapterOptions {
    AdapterOptions { targets, init: Init::Random, seed: 5, ..AdapterOptions::of(values) }
}

#[test]
fn lora_on_every_kind_of_layer() {
    let names = "q_proj,o_proj,down_proj,up_proj,embed_tokens,lm_head".split(',').map(str::to_string);
    let values = [("rank", 2.0), ("alpha", 2.0), ("dropout", 0.2), ("lora-bias", 1.0)];
    let options = random(&values, Names::List(names.collect()));
    check(&load(&fixture("peft/base"), "lora", &options), |_| true);
}

#[test]
fn lora_with_trained_modules_and_biases_of_a_tied_model_with_transposed_weights() {
    let options = AdapterOptions {
        modules_to_save: vec!["ln_f".to_string()],
        bias: Bias::Adapted,
        layers: Some(vec![1]),
        ..random(&[("rank", 1.0), ("alpha", 1.0), ("dropout", 0.0)], Names::Default)
    };
    let model = load(&fixture("models/gpt2"), "lora", &options);
    let names: Vec<&str> = model.parameters().iter().map(Parameter::name).collect();
    let expected = ["transformer.h.1.attn.c_attn.bias", "transformer.ln_f.weight", "transformer.ln_f.bias"];
    assert_eq!(names[..3], expected);
    assert_eq!(names.len(), 5, "{names:?}");
    check(&model, |_| true);
}

#[test]
fn factors_of_keys_values_and_inner_activations() {
    check(&load(&fixture("peft/base"), "ia3", &AdapterOptions::default()), |_| true);
    // An input that several weights share is changed for one of them alone.
    let options = AdapterOptions {
        targets: Names::List(vec!["gate_proj".to_string(), "up_proj".to_string()]),
        ..AdapterOptions::default()
    };
    check(&load(&fixture("peft/base"), "ia3", &options), |_| true);
}

#[test]
fn prompts_and_prefixes() {
    let values = [("tokens", 3.0)];
    check(&load(&fixture("peft/base"), "prompt-tuning", &AdapterOptions::of(&values)), |_| true);
    check(&load(&fixture("models/gpt2"), "prompt-tuning", &AdapterOptions::of(&values)), |_| true);
    check(&load(&fixture("peft/base"), "prefix-tuning", &AdapterOptions::of(&values)), |_| true);
    let values = [("tokens", 3.0), ("mlp", 4.0)];
    check(&load(&fixture("peft/base"), "prefix-tuning", &AdapterOptions::of(&values)), |_| true);
}

#[test]
fn biases_alone() {
    let model = load(&fixture("models/gpt2"), "bitfit", &AdapterOptions::default());
    assert!(model.parameters().iter().all(|parameter| parameter.name().ends_with(".bias")));
    check(&model, |parameter| parameter.name().contains("h.0."));
}

#[test]
fn the_magnitudes_of_dora() {
    let values = [("rank", 2.0), ("alpha", 2.0), ("dropout", 0.1)];
    let names = Names::List(vec!["q_proj".to_string(), "down_proj".to_string()]);
    let is_magnitude = |parameter: &Parameter| parameter.name().ends_with("magnitude_vector");
    check(&load(&fixture("peft/base"), "dora", &random(&values, names)), is_magnitude);
    // With the biases of the layers, which are not scaled.
    check(&load(&fixture("models/gpt2"), "dora", &random(&values, Names::Default)), is_magnitude);
}

#[test]
fn dropout_is_a_function_of_the_seed_of_the_pass() {
    let model = load(&fixture("peft/base"), "lora", &random(&[("dropout", 0.5)], Names::AllLinear));
    let with_seed = |seed| {
        let mut batch = batch(Keep::All);
        batch.training = Some(Training { seed, keep: Keep::All });
        tape::pause(|| model.forward(&batch, None)).data().to_vec()
    };
    assert_eq!(with_seed(1), with_seed(1));
    assert_ne!(with_seed(1), with_seed(2));
}
