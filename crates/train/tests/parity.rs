//! Training equals PyTorch's: losses, every gradient, twenty steps of AdamW; and does not depend on how it is cut up.

use rhetor_catalog::Values;
use rhetor_formats::Checkpoint;
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_kernels::threads;
use rhetor_models::adapters::{self, AdapterOptions};
use rhetor_models::{Keep, LoadOptions, Model, Training};
use rhetor_tensor::{Parameter, tape};
use rhetor_train::optimizers::{Method, Optimizer, Trained};
use rhetor_train::schedules::{Rate, Schedule};
use rhetor_train::{Policy, Sequence};
use std::path::PathBuf;

const CASES: [&str; 3] = ["llama", "llama_tied", "gpt2"];

/// Cases without steps: loss and gradients alone.
const KIN: [&str; 5] = ["qwen3", "gemma2", "gemma3", "phi3", "stablelm"];

struct Golden {
    dir: PathBuf,
    expected: Checkpoint,
}

impl Golden {
    fn open(case: &str) -> Golden {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/train").join(case);
        let expected = Checkpoint::open(&dir.join("expected.safetensors")).unwrap();
        Golden { dir, expected }
    }

    fn policy(&self) -> Policy {
        let checkpoint = Checkpoint::open(&self.dir).unwrap();
        let adapters = &mut [adapters::build("full", &AdapterOptions::default()).unwrap()];
        Policy::of(Model::load_adapted(&checkpoint, LoadOptions::default(), adapters).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<[u8; 4]> {
        let entry = self.expected.find(name).unwrap_or_else(|| panic!("{name} in the golden file"));
        self.expected.bytes(entry).as_chunks().0.to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).into_iter().map(f32::from_le_bytes).collect()
    }

    /// Three rows of thirteen.
    fn sequences(&self, name: &str) -> Vec<Sequence> {
        let ids: Vec<u32> = self.bytes(name).into_iter().map(u32::from_le_bytes).collect();
        ids.chunks(13).map(Sequence::next_token).collect()
    }
}

/// Adds the gradients of the mean loss over `passes`, each a forward pass of its own; returns the loss.
fn learn(policy: &Policy, passes: &[&[Sequence]], keep: Keep) -> f64 {
    let n_targets: usize = passes.iter().flat_map(|pass| pass.iter()).map(Sequence::n_targets).sum();
    let mut sum = 0.0;
    for &pass in passes {
        let training = Some(Training { seed: 0, keep });
        let scale = 1.0 / n_targets as f32;
        let (loss, tape) =
            tape::record(|| policy.next_tokens(pass, scale, CrossEntropy::default(), training));
        tape.backward(&loss.total);
        sum += loss.sum;
    }
    sum / n_targets as f64
}

fn gradients(policy: &Policy) -> Vec<Vec<f32>> {
    let take = |parameter: &Parameter| {
        let gradient = parameter.gradient().clone();
        parameter.clear_gradient();
        gradient
    };
    policy.model.parameters().iter().map(take).collect()
}

/// The greatest difference, relative to the greatest number.
fn difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-20f32, |max, x| max.max(x.abs()));
    got.iter().zip(expected).fold(0f32, |max, (a, b)| max.max((a - b).abs())) / largest
}

/// `[n, k]` as it is stored by `Conv1D`.
fn transposed(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let [n, k] = shape else { return values.to_vec() };
    (0..n * k).map(|i| values[(i % n) * k + i / n]).collect()
}

#[test]
fn losses_and_all_gradients_equal_pytorchs_within_a_ten_thousandth() {
    for case in CASES.into_iter().chain(KIN) {
        let golden = Golden::open(case);
        let policy = golden.policy();
        let sequences = golden.sequences("ids");
        let loss = learn(&policy, &[&sequences], Keep::All);
        assert!((loss - f64::from(golden.floats("loss")[0])).abs() < 1e-5, "{case}: loss {loss}");
        let n_expected = golden.expected.tensors().iter().filter(|t| t.name.starts_with("grad.")).count();
        assert_eq!(policy.model.parameters().len(), n_expected, "{case}: trained tensors");
        for (parameter, gradient) in policy.model.parameters().iter().zip(gradients(&policy)) {
            let expected = golden.floats(&format!("grad.{}", parameter.name()));
            let is_turned = case == "gpt2" && parameter.name().contains(".c_");
            let got = if is_turned { transposed(&gradient, parameter.shape()) } else { gradient };
            let off = difference(&got, &expected);
            assert!(off < 1e-4, "{case}: gradient of {} differs by {off}", parameter.name());
        }
    }
}

#[test]
fn twenty_steps_of_adamw_equal_pytorchs_within_a_ten_thousandth() {
    for case in CASES {
        let golden = Golden::open(case);
        let policy = golden.policy();
        let trained: Vec<Trained> = (policy.model.parameters().iter())
            .map(|parameter| Trained { parameter: parameter.clone(), rate: 1.0, decays: true })
            .collect();
        let rule = Method::find("adamw").unwrap().build([("beta2", 0.95), ("weight-decay", 0.1)]).unwrap();
        let mut optimizer = Optimizer::new(rule, &trained);
        let schedule = Schedule::find("cosine").unwrap();
        let values = Values::of(&schedule.about, [("floor", 0.1)]).unwrap();
        let rate = Rate { schedule, values, peak: 1e-2, n_warmup: 4 };
        for (step, expected) in golden.floats("losses").into_iter().enumerate() {
            let sequences = golden.sequences(&format!("ids.{step}"));
            let loss = learn(&policy, &[&sequences], Keep::All);
            assert!((loss - f64::from(expected)).abs() < 1e-4, "{case}, step {step}: {loss} {expected}");
            let squares: f64 =
                trained.iter().map(|t| rhetor_kernels::reduce::sum_of_squares(&t.parameter.gradient())).sum();
            let factor = (1.0 / (squares.sqrt() + 1e-6)).min(1.0) as f32;
            optimizer.step(&trained, rate.at(step as u64, 20), factor);
            gradients(&policy);
        }
        for parameter in policy.model.parameters() {
            let name = format!("final.{}", parameter.name());
            if golden.expected.find(&name).is_some() {
                let off = difference(&parameter.read(), &golden.floats(&name));
                assert!(off < 1e-3, "{case}: {name} differs by {off}");
            }
        }
    }
}

#[test]
fn cutting_a_step_into_passes_packing_and_recomputing_change_nothing_but_rounding() {
    for case in CASES {
        let golden = Golden::open(case);
        let policy = golden.policy();
        let sequences = golden.sequences("ids");
        learn(&policy, &[&sequences], Keep::All);
        let together = gradients(&policy);
        let each: Vec<&[Sequence]> = sequences.chunks(1).collect();
        learn(&policy, &each, Keep::All);
        for (a, b) in together.iter().zip(gradients(&policy)) {
            assert!(difference(&b, a) < 1e-5, "{case}: accumulated");
        }
        learn(&policy, &[&sequences], Keep::Blocks);
        assert!(together == gradients(&policy), "{case}: blocks computed again");
    }
}

#[test]
fn gradients_have_the_same_bits_with_one_two_and_three_threads() {
    let golden = Golden::open("llama");
    let policy = golden.policy();
    // Long enough that the work is shared.
    let ids: Vec<u32> = (0..33).map(|i| i * 7 % 48).collect();
    let sequences: Vec<Sequence> = (0..64).map(|_| Sequence::next_token(&ids)).collect();
    let mut all = Vec::new();
    for n in [1, 2, 3] {
        threads::set_threads(n);
        learn(&policy, &[&sequences], Keep::All);
        all.push(gradients(&policy));
    }
    assert!(all[0] == all[1] && all[0] == all[2]);
}
