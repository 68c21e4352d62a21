//! Layers whose fused rows Hugging Face keeps in another order than ours: adapters that PEFT has made for them, merges,
//! and trained weights that are written back.

use rhetor_formats::Checkpoint;
use rhetor_kernels::DType;
use rhetor_models::adapters::{Adapter, AdapterOptions, Purpose, build, merge, peft};
use rhetor_models::convert::{ConvertOptions, to_gguf};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Batch, Labelled, LoadOptions, Model, export};
use std::path::{Path, PathBuf};

/// Adapters under `fixtures/peft_fused`, and their bases under `fixtures/models`.
const CASES: &[(&str, &str)] = &[
    ("gpt-neox-lora", "gpt-neox"),
    ("gpt-neox-ia3", "gpt-neox"),
    ("falcon-40b-dora", "falcon-40b"),
    ("gpt-bigcode-many-keys-lora", "gpt-bigcode-many-keys"),
    ("codegen-lora", "codegen"),
];

#[test]
fn adapters_of_peft_for_fused_layers_give_the_logits_of_peft() {
    for (case, base) in CASES {
        let expected = Expected::of(case);
        let off = expected.difference(&load(&fixture("models", base), &mut [adapter(case)]));
        assert!(off < 1e-4, "{case}: off by {off}");
        // The adapter does something, so that a wrong order would show.
        assert!(expected.difference(&load(&fixture("models", base), &mut [])) > 0.1, "{case}");
    }
}

#[test]
fn they_do_so_on_a_base_in_gguf_too() {
    let dir = tempfile::tempdir().unwrap();
    for (case, base) in CASES.iter().filter(|(_, base)| *base != "codegen") {
        let file = dir.path().join(format!("{case}.gguf"));
        let options = ConvertOptions { mix: Mix::F32, importance: None, vocabulary: Vec::new() };
        to_gguf(&open(&fixture("models", base)), &file, &options, &mut |_| ()).unwrap();
        let off = Expected::of(case).difference(&load(&file, &mut [adapter(case)]));
        assert!(off < 1e-4, "{case}: off by {off}");
    }
}

#[test]
fn they_are_saved_again_as_they_were() {
    for (case, base) in CASES {
        let mut adapters = [adapter(case)];
        load(&fixture("models", base), &mut adapters);
        let dir = tempfile::tempdir().unwrap();
        peft::save(&*adapters[0], dir.path(), base, Some("CAUSAL_LM")).unwrap();
        let read = |dir: &Path| std::fs::read(dir.join(peft::TENSORS)).unwrap();
        assert!(read(dir.path()) == read(&fixture("peft_fused", case)), "{case}");
    }
}

#[test]
fn merged_into_their_bases_they_give_the_same_logits() {
    for (case, base) in CASES {
        let mut adapters = [adapter(case)];
        load(&fixture("models", base), &mut adapters);
        let dir = tempfile::tempdir().unwrap();
        let base = open(&fixture("models", base));
        merge::to_hugging_face(&base, &mut adapters, dir.path(), DType::F32).unwrap();
        let off = Expected::of(case).difference(&load(dir.path(), &mut []));
        assert!(off < 1e-4, "{case}: off by {off}");
    }
}

#[test]
fn trained_weights_are_written_in_the_order_of_hugging_face() {
    for base in ["gpt-neox", "falcon-40b", "codegen"] {
        let folder = fixture("models", base);
        let mut adapters = [build("full", &AdapterOptions::default()).unwrap()];
        let model = load(&folder, &mut adapters);
        for parameter in model.parameters() {
            parameter.write().iter_mut().enumerate().for_each(|(i, value)| *value += 0.01 * (i % 7) as f32);
        }
        let tokens = Batch::whole(&[3, 9, 27, 11, 60]);
        let trained = model.forward(&tokens, None).data().to_vec();
        let dir = tempfile::tempdir().unwrap();
        let values = |i: usize| model.parameters()[i].read().clone();
        let labelled = Labelled::default();
        export::write(&open(&folder), model.parameters(), &values, DType::F32, &labelled, dir.path())
            .unwrap();
        let written = load(dir.path(), &mut []).forward(&tokens, None);
        assert_eq!(written.data(), trained, "{base}");
    }
}

/// What PEFT computes for a case.
struct Expected {
    ids: Vec<u32>,
    logits: Vec<f32>,
}

impl Expected {
    fn of(case: &str) -> Expected {
        let stored = open(&fixture("peft_fused", case).join("expected.safetensors"));
        let bytes = |name: &str| stored.bytes(stored.find(name).unwrap());
        let id = |bytes: &[u8; 8]| i64::from_le_bytes(*bytes) as u32;
        let logits = bytes("logits").as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        Expected { ids: bytes("input_ids").as_chunks().0.iter().map(id).collect(), logits: logits.collect() }
    }

    /// The largest difference of a logit.
    fn difference(&self, model: &Model) -> f32 {
        let logits = model.forward(&Batch::whole(&self.ids), None);
        assert_eq!(logits.data().len(), self.logits.len());
        logits.data().iter().zip(&self.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }
}

fn adapter(case: &str) -> Box<dyn Adapter> {
    peft::open(&fixture("peft_fused", case), Purpose::Inference).unwrap().adapter
}

fn load(path: &Path, adapters: &mut [Box<dyn Adapter>]) -> Model {
    Model::load_adapted(&open(path), LoadOptions::default(), adapters).unwrap()
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn fixture(group: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(group).join(name)
}
