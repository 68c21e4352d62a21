//! Encoders and their heads against transformers, for every checkpoint under `fixtures/encoders`.

use rhetor_formats::Checkpoint;
use rhetor_kernels::DType;
use rhetor_models::convert::{ConvertError, ConvertOptions, to_gguf, to_hugging_face};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Batch, FAMILIES, LoadError, LoadOptions, Model, SequenceSpan, Task};
use std::fs;
use std::path::{Path, PathBuf};

/// A checkpoint and what transformers computes of it.
struct Case {
    name: String,
    dir: PathBuf,
    expected: Checkpoint,
}

fn cases() -> Vec<Case> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encoders");
    let mut dirs: Vec<PathBuf> =
        fs::read_dir(&fixtures).unwrap().map(|entry| entry.unwrap().path()).collect();
    dirs.retain(|dir| dir.join("expected.safetensors").is_file());
    dirs.sort();
    assert!(dirs.len() >= 43, "{} cases in {}", dirs.len(), fixtures.display());
    let case = |dir: PathBuf| Case {
        name: dir.file_name().unwrap().to_string_lossy().into_owned(),
        expected: Checkpoint::open(&dir.join("expected.safetensors")).unwrap(),
        dir,
    };
    dirs.into_iter().map(case).collect()
}

impl Case {
    fn model(&self, task: Option<Task>) -> Model {
        let options = LoadOptions { task, ..LoadOptions::default() };
        let model = Model::load(&Checkpoint::open(&self.dir).unwrap(), options);
        model.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn bytes(&self, name: &str) -> Option<Vec<[u8; 4]>> {
        Some(self.expected.bytes(self.expected.find(name)?).as_chunks().0.to_vec())
    }

    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        Some(self.bytes(name)?.into_iter().map(f32::from_le_bytes).collect())
    }

    /// The three texts, each a batch of its own.
    fn texts(&self) -> Vec<Batch> {
        let ids = |name: String| self.bytes(&name).unwrap().into_iter().map(u32::from_le_bytes);
        let text = |i: usize| Batch {
            segments: ids(format!("segments.{i}")).map(|segment| segment as u8).collect(),
            ..Batch::whole(&ids(format!("ids.{i}")).collect::<Vec<_>>())
        };
        (0..3).map(text).collect()
    }

    /// Compares `name` of each text with `model`, alone and all in one batch. Where there is one row for a text, it
    /// is the first.
    fn compare(&self, model: &Model, name: &str) {
        let (mut all, mut alone) = (Batch::default(), Vec::new());
        for (i, mut text) in self.texts().into_iter().enumerate() {
            let expected = self.floats(&format!("{name}.{i}")).unwrap();
            let width = model.forward(&text, None).row_len();
            if expected.len() == width {
                text.outputs = vec![0];
            }
            let got = model.forward(&text, None);
            assert_eq!(got.data().len(), expected.len(), "{} {name}.{i}: shape {:?}", self.name, got.shape());
            for (row, (got, expected)) in got.data().iter().zip(&expected).enumerate() {
                let case = &self.name;
                assert!((got - expected).abs() < 1e-4, "{case} {name}.{i} [{row}]: {got}, not {expected}");
            }
            alone.extend_from_slice(got.data());
            let first = all.tokens.len();
            all.outputs.extend(text.outputs.iter().map(|row| first + row));
            all.spans.push(SequenceSpan { len: text.tokens.len(), ..SequenceSpan::default() });
            all.tokens.extend(text.tokens);
            all.segments.extend(text.segments);
        }
        let together = model.forward(&all, None);
        assert!(together.data() == alone, "{} {name}: a text depends on what stands beside it", self.name);
    }
}

#[test]
fn every_class_has_the_logits_of_transformers() {
    for case in cases() {
        case.compare(&case.model(None), "logits");
    }
}

#[test]
fn the_pooler_and_the_second_task_are_read_when_they_are_asked_for() {
    let (mut n_pooled, mut n_pairs) = (0, 0);
    for case in cases() {
        if case.floats("pooled.0").is_some() {
            n_pooled += 1;
            case.compare(&case.model(Some(Task::Pooled)), "pooled");
        }
        if case.floats("pair.0").is_some() {
            n_pairs += 1;
            case.compare(&case.model(Some(Task::NextSentence)), "pair");
        }
    }
    assert_eq!((n_pooled, n_pairs), (5, 2), "BERT twice, ALBERT and both RoBERTas have a pooler");
}

#[test]
fn hidden_states_come_from_models_of_any_class() {
    for case in cases().iter().filter(|case| case.name.ends_with("-sequence")) {
        let (whole, hidden) = (case.model(None), case.model(Some(Task::Hidden)));
        assert!(hidden.n_parameters() < whole.n_parameters(), "{}", case.name);
        let text = &case.texts()[0];
        let states = hidden.forward(text, None);
        assert_eq!(states.shape(), [13, 24]);
        assert!(states.data() == hidden.hidden(text, None).data());
    }
}

#[test]
fn what_a_file_does_not_hold_is_told_and_not_drawn() {
    let case = |name: &str| cases().into_iter().find(|case| case.name == name).unwrap();
    let load = |name: &str, task| {
        let options = LoadOptions { task: Some(task), ..LoadOptions::default() };
        Model::load(&Checkpoint::open(&case(name).dir).unwrap(), options).map(|_| ()).unwrap_err()
    };
    let error = load("bert-masked", Task::Pooled);
    assert!(error.to_string().contains("bert.pooler.dense.weight"), "{error}");
    let error = load("distilbert-masked", Task::NextSentence);
    assert!(
        matches!(error, LoadError::NoHead { family: "distilbert", task: Task::NextSentence, .. }),
        "{error}"
    );
}

#[test]
fn a_bert_without_a_head_keeps_its_states_through_gguf_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = ConvertOptions { mix: Mix::F32, importance: None, vocabulary: Vec::new() };
    for case in cases().into_iter().filter(|case| case.name.starts_with("bert-")) {
        let source = Checkpoint::open(&case.dir).unwrap();
        let (file, back) = (folder.path().join("bert.gguf"), folder.path().join("back"));
        let written = to_gguf(&source, &file, &options, &mut |_| ());
        if !matches!(&*case.name, "bert-hidden" | "bert-sharded") {
            assert!(matches!(written, Err(ConvertError::NoPlace { kind: "GGUF", .. })), "{}", case.name);
            continue;
        }
        written.unwrap();
        let gguf = Checkpoint::open(&file).unwrap();
        assert!(gguf.find("cls.weight").is_none(), "the pooler has no place without a head");
        assert_eq!(gguf.metadata().get_bool("bert.attention.causal").unwrap(), Some(false));
        assert_eq!(gguf.metadata().get_u64("tokenizer.ggml.token_type_count").unwrap(), Some(2));
        case.compare(&Model::load(&gguf, LoadOptions::default()).unwrap(), "logits");
        to_hugging_face(&gguf, &back, DType::F32, &mut |_| ()).unwrap();
        let back = Checkpoint::open(&back).unwrap();
        case.compare(&Model::load(&back, LoadOptions::default()).unwrap(), "logits");
    }
}

#[test]
fn configurations_that_are_not_built_are_refused_by_name() {
    let refused = |case: &str, from: &str, to: &str, key: &str| {
        let folder = tempfile::tempdir().unwrap();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encoders").join(case);
        let settings = fs::read_to_string(dir.join("config.json")).unwrap();
        assert!(settings.contains(from), "{case}: {from}");
        fs::write(folder.path().join("config.json"), settings.replace(from, to)).unwrap();
        fs::copy(dir.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let error = Model::config_of(&Checkpoint::open(folder.path()).unwrap()).unwrap_err();
        assert!(matches!(&error, LoadError::BadValue { key: got, .. } if got == key), "{error}");
    };
    refused("albert-hidden", r#""inner_group_num": 1"#, r#""inner_group_num": 2"#, "inner_group_num");
    refused("albert-hidden", r#""num_hidden_groups": 2"#, r#""num_hidden_groups": 9"#, "num_hidden_groups");
    refused("electra-choice", r#""summary_type": "first""#, r#""summary_type": "last""#, "summary_type");
    refused("roberta-hidden", r#""pad_token_id": 1"#, r#""pad_token_id": 21"#, "pad_token_id");
    refused("distilbert-hidden", r#""n_heads": 4"#, r#""n_heads": 5"#, "n_heads");
}

/// Keys of a `config.json` and their sizes.
type Changes = &'static [(&'static str, usize)];

/// `config.json` of published checkpoints: what differs from the fixture of the family's hidden states.
const PUBLISHED: &[(&str, &str, Changes)] = &[
    ("bert", "bert-base-uncased", &[]),
    ("bert", "bert-base-chinese", &[("vocab_size", 21128)]),
    (
        "bert",
        "ckiplab/bert-tiny-chinese",
        &[("vocab_size", 21128), ("hidden_size", 312), ("intermediate_size", 1248), ("num_hidden_layers", 4)],
    ),
    (
        "bert",
        "all-MiniLM-L6-v2",
        &[("hidden_size", 384), ("intermediate_size", 1536), ("num_hidden_layers", 6)],
    ),
    ("albert", "albert-base-v2", &[("vocab_size", 30000)]),
    (
        "albert",
        "ckiplab/albert-tiny-chinese",
        &[("vocab_size", 21128), ("hidden_size", 312), ("intermediate_size", 1248), ("num_hidden_layers", 4)],
    ),
    ("roberta", "roberta-base", &[("vocab_size", 50265), ("max_position_embeddings", 514)]),
    ("xlm-roberta", "xlm-roberta-base", &[("vocab_size", 250002), ("max_position_embeddings", 514)]),
    (
        "electra",
        "electra-small-discriminator",
        &[("hidden_size", 256), ("intermediate_size", 1024), ("num_attention_heads", 4)],
    ),
    ("distilbert", "distilbert-base-uncased", &[]),
];

#[test]
fn published_checkpoints_have_as_many_parameters_as_the_tables_say() {
    const BASE: &[(&str, usize)] = &[
        ("vocab_size", 30522),
        ("hidden_size", 768),
        ("dim", 768),
        ("embedding_size", 128),
        ("intermediate_size", 3072),
        ("hidden_dim", 3072),
        ("num_hidden_layers", 12),
        ("n_layers", 6),
        ("num_hidden_groups", 1),
        ("num_attention_heads", 12),
        ("n_heads", 12),
        ("max_position_embeddings", 512),
    ];
    for (name, published, changes) in PUBLISHED {
        let folder = tempfile::tempdir().unwrap();
        let dir =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../fixtures/encoders/{name}-hidden"));
        let text = fs::read_to_string(dir.join("config.json")).unwrap();
        let mut settings: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (key, value) in BASE.iter().chain(*changes) {
            if settings.get(key).is_some() {
                settings[key] = (*value).into();
            }
        }
        fs::write(folder.path().join("config.json"), settings.to_string()).unwrap();
        fs::copy(dir.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let config = Model::config_of(&Checkpoint::open(folder.path()).unwrap()).unwrap();
        let family = FAMILIES.iter().find(|family| family.about.name == *name).unwrap();
        let task = if family.has_head(Task::Pooled) { Task::Pooled } else { Task::Hidden };
        let rows = family.tensors.iter().filter(|row| row.belongs_to(task));
        let n_of = |row: &rhetor_models::TensorName| {
            let shape = row.extents(&config, 0);
            let bias = if row.has_bias { shape[0] } else { 0 };
            row.n_repeats(&config) * (shape.iter().product::<usize>() + bias)
        };
        let line = family.published.iter().find(|line| line.name == *published).unwrap();
        assert_eq!(rows.map(n_of).sum::<usize>() as u64, line.n_parameters, "{published}");
        assert_eq!(config.context_len, line.context_len, "{published}");
    }
}
