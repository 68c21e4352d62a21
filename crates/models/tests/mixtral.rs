//! A mixture of experts in every layout that files have, and with adapters on its experts.

use rhetor_formats::{Checkpoint, ElementType, Metadata, TensorToWrite, gguf};
use rhetor_kernels::DType;
use rhetor_models::adapters::{self, Adapter, AdapterOptions, Names, merge};
use rhetor_models::convert::{ConvertOptions, to_gguf};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Batch, LoadError, LoadOptions, Model};
use std::path::{Path, PathBuf};

const IDS: [u32; 12] = [1, 7, 42, 3, 88, 19, 5, 61, 2, 30, 11, 54];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name)
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn logits(checkpoint: &Checkpoint) -> Vec<f32> {
    let model = Model::load(checkpoint, LoadOptions::default()).expect("it loads");
    model.forward(&Batch::whole(&IDS), None).data().to_vec()
}

fn as_gguf(source: &Path, path: &Path, mix: Mix) -> Checkpoint {
    let options = ConvertOptions { mix, importance: None, vocabulary: Vec::new() };
    to_gguf(&open(source), path, &options, &mut |_| ()).expect("GGUF knows the architecture");
    open(path)
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f32], bound: f32) {
    let off = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(got.len() == expected.len() && off <= bound, "off by {off}");
}

#[test]
fn experts_in_tensors_of_their_own_as_the_first_gguf_files_had_them_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let stacked = as_gguf(&fixture("mixtral"), &folder.path().join("stacked.gguf"), Mix::F32);
    let (mut to_write, mut bytes): (Vec<TensorToWrite>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
    for entry in stacked.tensors() {
        let all = stacked.bytes(entry);
        match entry.name.strip_suffix("_exps.weight") {
            Some(stem) => {
                for (e, part) in all.chunks(all.len() / 4).enumerate() {
                    let (name, shape) = (format!("{stem}.{e}.weight"), entry.shape[1..].to_vec());
                    to_write.push(TensorToWrite { name, dtype: entry.dtype, shape });
                    bytes.push(part.to_vec());
                }
            }
            None => {
                let (name, shape) = (entry.name.clone(), entry.shape.clone());
                to_write.push(TensorToWrite { name, dtype: entry.dtype, shape });
                bytes.push(all.to_vec());
            }
        }
    }
    assert_eq!(to_write.len(), stacked.tensors().len() + 2 * 3 * 3);
    let path = folder.path().join("apart.gguf");
    let metadata: Metadata = stacked.metadata().clone();
    gguf::write(&path, &metadata, &to_write, |i, out| out.write_all(&bytes[i])).expect("written");
    assert_eq!(logits(&open(&path)), logits(&stacked));
}

#[test]
fn eight_bits_change_the_logits_by_less_than_two_percent() {
    let folder = tempfile::tempdir().expect("a folder");
    let exact = logits(&open(&fixture("mixtral-three-of-six")));
    let file = as_gguf(&fixture("mixtral-three-of-six"), &folder.path().join("q8.gguf"), Mix::Q8_0);
    let stack = file.find("blk.0.ffn_up_exps.weight").expect("experts stand in a stack");
    assert_eq!((stack.shape.len(), stack.dtype), (3, ElementType::Known(DType::Q8_0)));
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
    let got = logits(&file);
    let off = norm(&mut got.iter().zip(&exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied());
    println!("relative error {off:.4}");
    assert!(off < 0.02, "{off}");
}

/// A LoRA on all experts, with factors that are not zero.
fn lora() -> Box<dyn Adapter> {
    let targets = Names::parse("w1,w2,w3,gate,q_proj");
    adapters::build("lora", &AdapterOptions { targets, ..AdapterOptions::default() }).expect("a method")
}

/// The logits of `checkpoint` with an adapter, and the adapter.
fn adapted(checkpoint: &Checkpoint) -> (Vec<f32>, Vec<Box<dyn Adapter>>) {
    let mut own = vec![lora()];
    let model = Model::load_adapted(checkpoint, LoadOptions::default(), &mut own).expect("it loads");
    // Two layers of four experts of three matrices, a router and the queries, two factors each.
    assert_eq!(model.parameters().len(), 2 * (4 * 3 + 2) * 2);
    for parameter in model.parameters() {
        let spread = parameter.name().bytes().map(usize::from).sum::<usize>();
        let mut values = parameter.write();
        values.iter_mut().enumerate().for_each(|(i, x)| *x = ((i * 7 + spread) % 11) as f32 * 0.02 - 0.1);
    }
    (model.forward(&Batch::whole(&IDS), None).data().to_vec(), own)
}

#[test]
fn lora_on_experts_merges_into_every_layout() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut by_layout = Vec::new();
    for name in ["mixtral", "mixtral-fused"] {
        let base = open(&fixture(name));
        let (expected, mut own) = adapted(&base);
        let difference = |x: &[f32]| x.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference(&logits(&base)) > 0.1, "the adapter does something");
        let dir = folder.path().join(name);
        merge::to_hugging_face(&base, &mut own, &dir, DType::F32).expect("merged");
        assert_close(&logits(&open(&dir)), &expected, 1e-4);
        by_layout.push(expected);
    }
    assert_close(&by_layout[0], &by_layout[1], 1e-5);
    let base = as_gguf(&fixture("mixtral"), &folder.path().join("base.gguf"), Mix::F32);
    let (expected, mut own) = adapted(&base);
    let path = folder.path().join("merged.gguf");
    merge::to_gguf(&base, &mut own, &path).expect("merged");
    assert_close(&logits(&open(&path)), &expected, 1e-4);
}

#[test]
fn more_experts_for_a_row_than_there_are_and_a_stack_of_wrong_shape_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(fixture("mixtral-fused/config.json")).expect("it is there");
    std::fs::copy(fixture("mixtral-fused/model.safetensors"), folder.path().join("model.safetensors"))
        .expect("copied");
    let refusal = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        std::fs::write(folder.path().join("config.json"), text.replace(from, to)).expect("written");
        Model::load(&open(folder.path()), LoadOptions::default()).err().expect("it is refused")
    };
    let refused = refusal(r#""num_experts_per_tok": 2"#, r#""num_experts_per_tok": 5"#);
    assert!(matches!(refused, LoadError::BadValue { .. }), "{refused}");
    let refused = refusal(r#""num_local_experts": 4"#, r#""num_local_experts": 3"#).to_string();
    assert!(refused.contains("gate_up_proj` has shape [4, 64, 32], expected [3, 64, 32]"), "{refused}");
}
