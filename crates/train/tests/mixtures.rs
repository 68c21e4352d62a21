//! Training of a mixture of experts: its loss, balance and gradients are transformers', and its experts stay in use.

use rhetor_formats::Checkpoint;
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::adapters::{self, AdapterOptions, Names};
use rhetor_models::{Keep, LoadOptions, Model, Training, init};
use rhetor_tensor::{Parameter, tape};
use rhetor_train::optimizers::{Method, Optimizer, Trained};
use rhetor_train::{Loss, Policy, Sequence};
use std::path::{Path, PathBuf};

fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/train/mixtral")
}

fn policy(dir: &Path, method: &str, options: &AdapterOptions) -> Policy {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let adapters = &mut [adapters::build(method, options).unwrap()];
    Policy::of(Model::load_adapted(&checkpoint, LoadOptions::default(), adapters).unwrap())
}

/// Adds the gradients of the mean loss over `passes`; returns what each pass says.
fn learn(policy: &Policy, passes: &[&[Sequence]], keep: Keep) -> Vec<Loss> {
    let n_targets: usize = passes.iter().flat_map(|pass| pass.iter()).map(Sequence::n_targets).sum();
    let pass = |pass: &&[Sequence]| {
        let training = Some(Training { seed: 0, keep });
        let scale = 1.0 / n_targets as f32;
        let (loss, tape) =
            tape::record(|| policy.next_tokens(*pass, scale, CrossEntropy::default(), training));
        tape.backward(&loss.total);
        loss
    };
    passes.iter().map(pass).collect()
}

fn take_gradients(parameters: &[Parameter]) -> Vec<Vec<f32>> {
    let take = |parameter: &Parameter| {
        let gradient = parameter.gradient().clone();
        parameter.clear_gradient();
        gradient
    };
    parameters.iter().map(take).collect()
}

/// The mean of a metric over the targets of a pass.
fn mean(loss: &Loss, name: &str, n_targets: usize) -> f64 {
    let found = loss.metrics.iter().find(|(metric, _)| *metric == name);
    found.unwrap_or_else(|| panic!("{name} is measured")).1 / n_targets as f64
}

#[test]
fn loss_balance_and_gradients_of_both_equal_those_of_transformers() {
    let expected = Checkpoint::open(&fixture().join("expected.safetensors")).unwrap();
    let bytes = |name: &str| {
        let entry = expected.find(name).unwrap_or_else(|| panic!("{name} is in the golden file"));
        expected.bytes(entry).as_chunks::<4>().0.to_vec()
    };
    let floats = |name: &str| bytes(name).into_iter().map(f32::from_le_bytes).collect::<Vec<f32>>();
    let ids: Vec<u32> = bytes("ids").into_iter().map(u32::from_le_bytes).collect();
    let sequences: Vec<Sequence> = ids.chunks(13).map(Sequence::next_token).collect();
    let n_targets = sequences.iter().map(Sequence::n_targets).sum();
    let policy = policy(&fixture(), "full", &AdapterOptions::default());
    let n_expected = expected.tensors().iter().filter(|t| t.name.starts_with("grad.")).count();
    assert_eq!(policy.model.parameters().len(), n_expected, "trained tensors");
    // Blocks that are computed again on the way back are counted once, and get the same gradient.
    for keep in [Keep::All, Keep::Blocks] {
        let losses = learn(&policy, &[&sequences], keep);
        let loss = losses[0].sum / n_targets as f64;
        assert!((loss - f64::from(floats("loss")[0])).abs() < 1e-5, "loss {loss}");
        let balance = mean(&losses[0], "balance", n_targets);
        assert!((balance - f64::from(floats("balance")[0])).abs() < 1e-5, "balance {balance}");
        let gradients = take_gradients(policy.model.parameters());
        for (parameter, mut got) in policy.model.parameters().iter().zip(gradients) {
            // An expert without rows gets no gradient.
            got.resize(parameter.n_elements(), 0.0);
            let expected = floats(&format!("grad.{}", parameter.name()));
            let largest = expected.iter().fold(1e-20f32, |max, x| max.max(x.abs()));
            let off = got.iter().zip(&expected).fold(0f32, |max, (a, b)| max.max((a - b).abs())) / largest;
            assert!(off < 1e-4, "gradient of {} off by {off}", parameter.name());
        }
    }
}

/// Texts of a language whose next word depends on the last one and on the topic of the sentence.
fn sentences(step: u64, n: usize) -> Vec<Sequence> {
    let mut state = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) % n
    };
    let mut sentence = || {
        let topic = draw(4);
        let mut words = vec![44 + topic as u32, draw(44) as u32];
        while words.len() < 25 {
            let last = u64::from(words[words.len() - 1]);
            words.push(((last * (2 * topic + 3) + topic + draw(3)) % 44) as u32);
        }
        Sequence::next_token(&words)
    };
    (0..n).map(|_| sentence()).collect()
}

#[test]
fn a_mixture_learns_and_every_expert_is_used_half_to_twice_as_often_as_evenly() {
    let folder = tempfile::tempdir().unwrap();
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(fixture().join("config.json")).unwrap()).unwrap();
    config["router_aux_loss_coef"] = 0.02.into();
    config["router_aux_loss_per_layer"] = true.into();
    config["router_jitter_noise"] = 0.01.into();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    init::write(folder.path(), 7).unwrap();
    let policy = policy(folder.path(), "full", &AdapterOptions::default());
    let trained: Vec<Trained> = (policy.model.parameters().iter())
        .map(|parameter| Trained { parameter: parameter.clone(), rate: 1.0, decays: false })
        .collect();
    let mut optimizer = Optimizer::new(Method::find("adamw").unwrap().build([]).unwrap(), &trained);
    let (mut losses, mut uses) = (Vec::new(), Vec::new());
    for step in 0..150 {
        let sequences = sentences(step, 16);
        let n_targets = sequences.iter().map(Sequence::n_targets).sum();
        let loss = &learn(&policy, &[&sequences], Keep::All)[0];
        losses.push(loss.sum / n_targets as f64);
        uses.push((mean(loss, "least-used", n_targets), mean(loss, "most-used", n_targets)));
        optimizer.step(&trained, 5e-3, 1.0);
        take_gradients(policy.model.parameters());
    }
    let (first, last) = (losses[0], losses[140..].iter().sum::<f64>() / 10.0);
    println!("loss {first:.3} to {last:.3}, use {:?} to {:?}", uses[0], uses[149]);
    assert!(last < 0.7 * first, "{first} to {last}");
    for (least, most) in &uses[100..] {
        assert!(*least > 0.5 && *most < 2.0, "uses {least} to {most}");
    }
}

#[test]
fn lora_on_the_experts_trains_each_of_them() {
    let options = AdapterOptions { targets: Names::parse("w1,w2,w3"), ..AdapterOptions::default() };
    let policy = policy(&fixture(), "lora", &options);
    // Two layers, four experts, three matrices, two factors each.
    assert_eq!(policy.model.parameters().len(), 2 * 4 * 3 * 2);
    learn(&policy, &[&sentences(1, 8)], Keep::All);
    let moved =
        take_gradients(policy.model.parameters()).iter().filter(|g| g.iter().any(|x| *x != 0.0)).count();
    // B is zero at first, so only its gradient is not; every expert got rows.
    assert_eq!(moved, 2 * 4 * 3);
}
