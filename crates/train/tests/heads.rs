//! Heads and BERT equal PyTorch's: logits, losses, every gradient; and what is written is read again.

use rhetor_formats::Checkpoint;
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_models::adapters::{self, AdapterOptions};
use rhetor_models::{
    Batch, Head, Keep, Labelled, LoadOptions, Model, NewHead, SequenceSpan, Task, Training, export,
};
use rhetor_tensor::{Parameter, tape};
use rhetor_tokenizer::Tokenizer;
use rhetor_train::examples::classification::Labels;
use rhetor_train::objectives::{Method, Objective, Reading};
use rhetor_train::{Example, IGNORE, Label, Loss, Policy, Sequence};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CASES: [(&str, &str); 16] = [
    ("bert-masked", "masked-lm"),
    ("bert-sequence", "sequence-classification"),
    ("bert-number", "numbers"),
    ("bert-tokens", "token-classification"),
    ("bert-span", "question-answering"),
    ("gpt2-sequence", "sequence-classification"),
    ("gpt2-tokens", "token-classification"),
    ("gpt2-span", "question-answering"),
    ("llama-sequence", "sequence-classification"),
    ("llama-tokens", "token-classification"),
    ("albert-masked", "masked-lm"),
    ("roberta-sequence", "sequence-classification"),
    ("electra-tokens", "token-classification"),
    ("distilbert-span", "question-answering"),
    ("qwen3-tokens", "token-classification"),
    ("gemma3-sequence", "sequence-classification"),
];

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

struct Golden {
    case: &'static str,
    kind: &'static str,
    dir: PathBuf,
    expected: Checkpoint,
}

impl Golden {
    fn open(&(case, kind): &(&'static str, &'static str)) -> Golden {
        let dir = fixtures().join("heads").join(case);
        let expected = Checkpoint::open(&dir.join("expected.safetensors")).unwrap();
        Golden { case, kind, dir, expected }
    }

    fn is_encoder(&self) -> bool {
        let decoders = ["gpt2", "llama", "qwen3", "gemma3"];
        !decoders.iter().any(|family| self.case.starts_with(family))
    }

    fn policy(&self, head: Option<NewHead>) -> Policy {
        let adapters = &mut [adapters::build("full", &AdapterOptions::default()).unwrap()];
        let options = LoadOptions { head, ..LoadOptions::default() };
        Policy::of(Model::load_adapted(&Checkpoint::open(&self.dir).unwrap(), options, adapters).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<[u8; 4]> {
        let entry = self.expected.find(name).unwrap_or_else(|| panic!("{name} in the golden file"));
        self.expected.bytes(entry).as_chunks().0.to_vec()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).into_iter().map(f32::from_le_bytes).collect()
    }

    /// Ids; −100 becomes [`IGNORE`].
    fn ids(&self, name: &str) -> Vec<u32> {
        let id = |bytes| u32::try_from(i32::from_le_bytes(bytes)).unwrap_or(IGNORE);
        self.bytes(name).into_iter().map(id).collect()
    }

    fn examples(&self) -> Vec<Example> {
        let is_encoder = self.is_encoder();
        let example = |i: usize| {
            let tokens = self.ids(&format!("ids.{i}"));
            let targets = || self.ids(&format!("targets.{i}"));
            let label = match self.kind {
                "sequence-classification" => Label::Class(targets()[0]),
                "token-classification" => Label::Tokens(targets()),
                "question-answering" => Label::Span { start: targets()[0], end: targets()[1] },
                "numbers" => Label::Number(self.floats(&format!("targets.{i}"))[0]),
                _ => Label::None,
            };
            let sequence = Sequence {
                segments: is_encoder
                    .then(|| self.ids(&format!("segments.{i}")).iter().map(|&s| s as u8).collect()),
                prefix_len: if is_encoder { tokens.len() } else { 0 },
                targets: if self.kind == "masked-lm" { targets() } else { vec![IGNORE; tokens.len()] },
                tokens,
                ..Sequence::default()
            };
            Example { sequences: vec![sequence], label }
        };
        (0..3).map(example).collect()
    }

    fn objective(&self) -> Box<dyn Objective> {
        let is_encoder = self.is_encoder();
        let vocabulary =
            if is_encoder || self.case == "gpt2-span" { "vocab.txt" } else { "byte_level_bpe.json" };
        let tokenizer = Tokenizer::from_file(&fixtures().join("tokenizer").join(vocabulary)).unwrap();
        let labels = Labels::Classes((0..5).map(|i| i.to_string()).collect());
        let reading = Reading {
            tokenizer: Arc::new(tokenizer),
            template: None,
            max_len: 100,
            is_encoder,
            decoder_start: None,
            picture_rows: None,
            labels,
            now: 0,
        };
        let numbers = [("numbers", 1.0)];
        match self.kind {
            "numbers" => Method::find("sequence-classification").unwrap().build(numbers, reading),
            kind => Method::find(kind).unwrap().build([], reading),
        }
        .unwrap()
    }
}

/// Adds the gradients of the mean loss of all examples, computed in one pass; returns the loss.
fn learn(golden: &Golden, policy: &Policy, keep: Keep) -> (f64, Loss) {
    let (objective, examples) = (golden.objective(), golden.examples());
    let weight: f64 = examples.iter().map(|example| objective.weight(example)).sum();
    let training = Some(Training { seed: 0, keep });
    let (loss, tape) = tape::record(|| objective.loss(policy, &examples, (1.0 / weight) as f32, training));
    tape.backward(&loss.total);
    (loss.sum / weight, loss)
}

fn difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-3f32, |max, x| max.max(x.abs()));
    got.iter().zip(expected).fold(0f32, |max, (a, b)| max.max((a - b).abs())) / largest
}

/// As `Conv1D` stores it.
fn as_stored(case: &str, parameter: &Parameter, values: Vec<f32>) -> Vec<f32> {
    match parameter.shape() {
        [n, k] if case.starts_with("gpt2") && parameter.name().contains(".c_") => {
            (0..n * k).map(|i| values[(i % n) * k + i / n]).collect()
        }
        _ => values,
    }
}

#[test]
fn logits_losses_and_all_gradients_equal_pytorchs_within_a_ten_thousandth() {
    for golden in CASES.iter().map(Golden::open) {
        let policy = golden.policy(None);
        for (i, example) in golden.examples().iter().enumerate() {
            let expected = golden.floats(&format!("logits.{i}"));
            let (sequence, n) = (&example.sequences[0], example.n_rows());
            let rows = match (golden.kind, golden.is_encoder()) {
                ("sequence-classification" | "numbers", true) => 0..1,
                ("sequence-classification" | "numbers", false) => n - 1..n,
                _ => 0..n,
            };
            let got = policy.at_rows([(sequence, rows)], None);
            let off = difference(got.data(), &expected);
            assert!(off < 1e-4, "{}: logits of {i} differ by {off}", golden.case);
        }
        let (loss, scaled) = learn(&golden, &policy, Keep::All);
        let expected = f64::from(golden.floats("loss")[0]);
        assert!((loss - expected).abs() < 1e-5, "{}: loss {loss}, not {expected}", golden.case);
        assert!((f64::from(scaled.total.data()[0]) - expected).abs() < 1e-5, "{}", golden.case);
        let mut n_expected = golden.expected.tensors().iter().filter(|t| t.name.starts_with("grad.")).count();
        for parameter in policy.model.parameters() {
            let gradient = parameter.gradient().clone();
            let expected = golden.floats(&format!("grad.{}", parameter.name()));
            let off = difference(&as_stored(golden.case, parameter, gradient), &expected);
            assert!(off < 1e-4, "{}: gradient of {} differs by {off}", golden.case, parameter.name());
            n_expected -= 1;
        }
        assert_eq!(n_expected, 0, "{}: parameters without a gradient", golden.case);
    }
}

#[test]
fn computing_an_encoders_blocks_again_gives_the_same_gradients() {
    let golden = Golden::open(&CASES[0]);
    let policy = golden.policy(None);
    let take = || {
        let parameters = policy.model.parameters().iter();
        let gradients: Vec<Vec<f32>> = parameters.clone().map(|p| p.gradient().clone()).collect();
        parameters.for_each(Parameter::clear_gradient);
        gradients
    };
    learn(&golden, &policy, Keep::All);
    let kept = take();
    learn(&golden, &policy, Keep::Blocks);
    assert!(kept == take());
}

/// What a model says at the first row of three tokens.
fn says(model: &Model) -> Vec<f32> {
    model.forward(&Batch { outputs: vec![0], ..Batch::whole(&[3, 4, 5]) }, None).data().to_vec()
}

fn save(golden: &Golden, policy: &Policy, labelled: &Labelled, dir: &Path) {
    let base = Checkpoint::open(&golden.dir).unwrap();
    let parameters = policy.model.parameters();
    let values = |i: usize| parameters[i].read().clone();
    export::write(&base, parameters, &values, rhetor_kernels::DType::F32, labelled, dir).unwrap();
}

#[test]
fn a_new_head_is_drawn_saved_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    for (case, task, n_labels, class) in [
        (0, Task::Sequence, 4, "BertForSequenceClassification"),
        (1, Task::Tokens, 7, "BertForTokenClassification"),
        (1, Task::Sequence, 2, "BertForSequenceClassification"),
        (3, Task::Vocabulary, 0, "BertForMaskedLM"),
        (5, Task::Span, 2, "GPT2ForQuestionAnswering"),
        (9, Task::Sequence, 3, "LlamaForSequenceClassification"),
        (10, Task::Sequence, 3, "AlbertForSequenceClassification"),
        (11, Task::Tokens, 4, "RobertaForTokenClassification"),
        (13, Task::Sequence, 2, "DistilBertForSequenceClassification"),
    ] {
        let golden = Golden::open(&CASES[case]);
        let head = Head { task, n_labels };
        let policy = golden.policy(Some(NewHead { head, seed: 1 }));
        let names: Vec<String> = (0..n_labels).map(|i| format!("class {i}")).collect();
        let labels = if matches!(task, Task::Sequence | Task::Tokens) { names } else { Vec::new() };
        let dir = folder.path().join(format!("{class}-{case}"));
        save(&golden, &policy, &Labelled { head, labels: labels.clone() }, &dir);
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let again = Model::load(&checkpoint, LoadOptions::default()).unwrap();
        assert_eq!(
            (again.config().head, again.n_parameters()),
            (head, policy.model.n_parameters()),
            "{class}"
        );
        if task != Task::Vocabulary {
            assert_eq!(again.output().weights[0].n_out(), n_labels);
        }
        if !labels.is_empty() {
            assert_eq!(rhetor_models::labels_of(&checkpoint).unwrap(), labels);
        }
        let (before, after) = (says(&policy.model), says(&again));
        assert!(difference(&after, &before) < 1e-5, "{class}: {before:?} {after:?}");
        let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
        assert!(config.contains(class), "{config}");
    }
}

#[test]
fn a_head_that_the_family_does_not_have_is_refused() {
    let golden = Golden::open(&CASES[8]);
    let head = Some(NewHead { head: Head { task: Task::Span, n_labels: 2 }, seed: 0 });
    let options = LoadOptions { head, ..LoadOptions::default() };
    let refused = Model::load(&Checkpoint::open(&golden.dir).unwrap(), options).err().unwrap().to_string();
    assert!(refused.contains("llama have no head for Span"), "{refused}");
}

#[test]
fn a_new_head_trains_in_full_beside_an_adapter_and_is_saved_with_it() {
    let golden = Golden::open(&CASES[0]);
    let checkpoint = Checkpoint::open(&golden.dir).unwrap();
    let head = Head { task: Task::Sequence, n_labels: 3 };
    let family = rhetor_models::Family::of(&checkpoint).unwrap();
    let modules_to_save = family.head_modules(head.task).map(str::to_string).collect();
    let chosen = AdapterOptions { modules_to_save, ..AdapterOptions::default() };
    let mut adapters = [adapters::build("lora", &chosen).unwrap()];
    let options = LoadOptions { head: Some(NewHead { head, seed: 1 }), ..LoadOptions::default() };
    let model = Model::load_adapted(&checkpoint, options, &mut adapters).unwrap();
    let trains = |name: &str| model.parameters().iter().any(|parameter| parameter.name() == name);
    assert!(trains("classifier.weight") && trains("classifier.bias") && trains("bert.pooler.dense.weight"));
    let saved = adapters[0].save();
    let is_there = |name: &str| saved.tensors.iter().any(|tensor| tensor.name == name);
    assert!(is_there("base_model.model.classifier.weight"));
    assert!(is_there("base_model.model.bert.pooler.dense.bias"));
    assert!(!saved.tensors.iter().any(|tensor| tensor.name.contains("classifier.lora")));
}

#[test]
fn a_decoder_sees_later_tokens_inside_the_prefix_and_nowhere_else() {
    for case in ["llama", "gpt2"] {
        let dir = fixtures().join("train").join(case);
        let model = Model::load(&Checkpoint::open(&dir).unwrap(), LoadOptions::default()).unwrap();
        let run = |tokens: &[u32]| {
            let span = SequenceSpan { len: 6, prefix_len: 4, ..SequenceSpan::default() };
            model.forward(&Batch { spans: vec![span], ..Batch::whole(tokens) }, None)
        };
        let before = run(&[1, 2, 3, 4, 5, 6]);
        let differs = |after: &[u32]| {
            let after = run(after);
            (0..6).map(|row| before.row(row) != after.row(row)).collect::<Vec<bool>>()
        };
        assert_eq!(differs(&[1, 2, 3, 9, 5, 6]), [true; 6], "{case}");
        assert_eq!(differs(&[1, 2, 3, 4, 9, 6]), [false, false, false, false, true, true], "{case}");
    }
}

#[test]
fn masked_and_prefix_and_span_losses_train_a_decoder() {
    let policy = {
        let dir = fixtures().join("train/gpt2");
        let adapters = &mut [adapters::build("full", &AdapterOptions::default()).unwrap()];
        Policy::of(
            Model::load_adapted(&Checkpoint::open(&dir).unwrap(), LoadOptions::default(), adapters).unwrap(),
        )
    };
    let tokens = vec![1, 2, 3, 4, 5];
    for (prefix_len, targets) in [(5, [IGNORE, 7, IGNORE, IGNORE, 5]), (3, [IGNORE, IGNORE, 4, 5, 6])] {
        let sequence =
            Sequence { tokens: tokens.clone(), targets: targets.to_vec(), prefix_len, ..Sequence::default() };
        let run = |training| policy.next_tokens([&sequence], 0.5, CrossEntropy::default(), training);
        let before = run(None);
        let (loss, tape) = tape::record(|| run(Some(Training { seed: 0, keep: Keep::All })));
        assert_eq!(loss.sum, before.sum, "evaluation and training run the same kernels");
        tape.backward(&loss.total);
        for parameter in policy.model.parameters() {
            let gradient = parameter.gradient().clone();
            let mut values = parameter.write();
            values.iter_mut().zip(&gradient).for_each(|(value, slope)| *value -= 0.05 * slope);
            drop(values);
            parameter.clear_gradient();
        }
        assert!(run(None).sum < before.sum);
    }
}

#[test]
fn only_decoders_with_a_vocabulary_generate() {
    for (case, generates) in
        [("heads/bert-masked", false), ("heads/llama-sequence", false), ("train/llama", true)]
    {
        let checkpoint = Checkpoint::open(&fixtures().join(case)).unwrap();
        assert_eq!(
            Model::load(&checkpoint, LoadOptions::default()).unwrap().generates(),
            generates,
            "{case}"
        );
    }
}
