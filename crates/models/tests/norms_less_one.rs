//! Gemma's files hold the weights of norms less one; the model in memory and GGUF hold them whole. What goes out of memory
//! into a file of Hugging Face's, by whichever way, is what such a file holds.

use rhetor_formats::Checkpoint;
use rhetor_kernels::DType;
use rhetor_models::adapters::{self, Adapter, AdapterOptions};
use rhetor_models::{Head, Labelled, LoadOptions, Model, export, init};
use std::path::{Path, PathBuf};

const NORM: &str = "model.layers.0.input_layernorm.weight";

#[test]
fn a_trained_norm_is_exported_and_saved_less_one() {
    let base = open(&base());
    let stored = values(&base, NORM);
    let mut adapters: Vec<Box<dyn Adapter>> =
        vec![adapters::build("full", &AdapterOptions::default()).expect("the method is known")];
    let model = Model::load_adapted(&base, LoadOptions::default(), &mut adapters).expect("the fixture loads");
    let parameter = model.parameters().iter().find(|p| p.name() == NORM).expect("norms train");
    let whole: Vec<f32> = stored.iter().map(|value| value + 1.0).collect();
    assert_eq!(*parameter.read(), whole);
    // As if a step had been taken.
    parameter.write().iter_mut().for_each(|value| *value += 0.25);

    let folder = tempfile::tempdir().expect("a folder for the model");
    let read = |i: usize| model.parameters()[i].read().clone();
    let labelled = Labelled { head: Head::VOCABULARY, labels: Vec::new() };
    export::write(&base, model.parameters(), &read, DType::F32, &labelled, folder.path())
        .expect("it is written");
    near(&values(&open(folder.path()), NORM), &stored, 0.25);

    let saved = adapters[0].save();
    let norm = saved.base.iter().find(|tensor| tensor.name == NORM).expect("all tensors are saved");
    near(&norm.values, &stored, 0.25);
}

#[test]
fn a_new_norm_begins_at_nothing_in_the_file_and_at_one_in_memory() {
    let folder = tempfile::tempdir().expect("a folder for the model");
    let config = base().join("config.json");
    std::fs::copy(config, folder.path().join("config.json")).expect("the configuration is copied");
    init::write(folder.path(), 1).expect("the model is written");
    assert!(values(&open(folder.path()), NORM).iter().all(|&value| value == 0.0));
}

#[track_caller]
fn near(got: &[f32], stored: &[f32], step: f32) {
    assert_eq!(got.len(), stored.len());
    assert!(got.iter().zip(stored).all(|(got, stored)| (got - stored - step).abs() < 1e-6), "{got:?}");
}

fn values(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let bytes = checkpoint.bytes(checkpoint.find(name).unwrap_or_else(|| panic!("{name} is not there")));
    bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().expect("4 bytes"))).collect()
}

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/gemma")
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
