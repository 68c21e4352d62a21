//! Weights in four bits: quantized while a model is loaded, and read from files of bitsandbytes.

use rhetor_formats::{Checkpoint, ElementType, TensorToWrite, safetensors};
use rhetor_kernels::DType;
use rhetor_kernels::quant::DynamicMap;
use rhetor_kernels::quant::nf4::{self, Scales};
use rhetor_models::adapters::{AdapterOptions, Init, Names, build};
use rhetor_models::{Batch, LoadError, LoadOptions, Model, Nf4};
use rhetor_tensor::gradient_check;
use std::path::{Path, PathBuf};

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/peft/base")
}

fn load(path: &Path, quantize: Option<Nf4>) -> Model {
    let options = LoadOptions { quantize, ..LoadOptions::default() };
    Model::load(&Checkpoint::open(path).unwrap(), options).unwrap()
}

fn logits(model: &Model) -> Vec<f32> {
    model.forward(&Batch::whole(&[3, 9, 27, 11, 60]), None).data().to_vec()
}

/// The fixture's base as transformers with bitsandbytes saves it.
fn save_as_bitsandbytes(dir: &Path, double: bool, break_map: bool) {
    let base = base();
    let source = Checkpoint::open(&base).unwrap();
    let mut tensors: Vec<(TensorToWrite, Vec<u8>)> = Vec::new();
    let u8s = ElementType::Other("u8");
    let f32s = ElementType::Known(DType::F32);
    let mut add = |name: String, dtype, shape: Vec<usize>, bytes: Vec<u8>| {
        tensors.push((TensorToWrite { name, dtype, shape }, bytes));
    };
    let bytes_of = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    for entry in source.tensors() {
        let bytes = source.bytes(entry);
        if !entry.name.contains("_proj") {
            add(entry.name.clone(), entry.dtype, entry.shape.clone(), bytes.to_vec());
            continue;
        }
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let blocks = nf4::quantize(&values, 64);
        let blocks = if double { blocks.double_quantized() } else { blocks };
        let name = &entry.name;
        let mut state = serde_json::json!({
            "quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": entry.shape,
        });
        add(name.clone(), u8s, vec![blocks.indices().len(), 1], blocks.indices().to_vec());
        let mut map = blocks.code().values().to_vec();
        map[3] += if break_map { 0.1 } else { 0.0 };
        add(format!("{name}.quant_map"), f32s, vec![16], bytes_of(&map));
        match blocks.scales() {
            Scales::Plain(scales) => {
                add(format!("{name}.absmax"), f32s, vec![scales.len()], bytes_of(scales))
            }
            Scales::Double { codes, nested, offset } => {
                add(format!("{name}.absmax"), u8s, vec![codes.len()], codes.clone());
                add(format!("{name}.nested_absmax"), f32s, vec![nested.len()], bytes_of(nested));
                let map = DynamicMap::signed().values();
                add(format!("{name}.nested_quant_map"), f32s, vec![256], bytes_of(map));
                state["nested_blocksize"] = 256.into();
                state["nested_dtype"] = "float32".into();
                state["nested_offset"] = f64::from(*offset).into();
            }
        }
        let state = state.to_string().into_bytes();
        add(format!("{name}.quant_state.bitsandbytes__nf4"), u8s, vec![state.len()], state);
    }
    let to_write: Vec<TensorToWrite> = tensors.iter().map(|(tensor, _)| tensor.clone()).collect();
    let file = dir.join("model.safetensors");
    safetensors::write(&file, &[("format", "pt")], &to_write, |i, out| out.write_all(&tensors[i].1)).unwrap();
    std::fs::copy(base.join("config.json"), dir.join("config.json")).unwrap();
}

#[test]
fn files_of_bitsandbytes_are_what_quantizing_at_load_gives() {
    let plain = logits(&load(&base(), None));
    for double in [false, true] {
        let quantized = load(&base(), Some(Nf4 { double }));
        let dir = tempfile::tempdir().unwrap();
        save_as_bitsandbytes(dir.path(), double, false);
        let read = load(dir.path(), None);
        assert_eq!(logits(&read), logits(&quantized));
        assert_eq!((read.n_bytes(), read.n_parameters()), (quantized.n_bytes(), quantized.n_parameters()));
        // Weights of 15 360 elements in about half a byte each.
        let saved = load(&base(), None).n_bytes() - quantized.n_bytes();
        assert!((15_360 * 4 - 15_360 * 10 / 16..15_360 * 4 - 15_360 / 2).contains(&saved), "{saved}");
        let off = plain.iter().zip(logits(&read)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off > 0.0 && off < 1.0, "off by {off}");
    }
}

#[test]
fn a_file_with_another_table_of_values_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    save_as_bitsandbytes(dir.path(), true, true);
    let error = Model::load(&Checkpoint::open(dir.path()).unwrap(), LoadOptions::default()).map(|_| ());
    let error = error.unwrap_err();
    assert!(
        matches!(error, LoadError::BadValue { .. }) && error.to_string().contains("quant_map"),
        "{error}"
    );
}

#[test]
fn gradients_pass_weights_of_four_bits_to_lora() {
    let options = AdapterOptions {
        targets: Names::List(vec!["q_proj".to_string(), "down_proj".to_string()]),
        init: Init::Random,
        ..AdapterOptions::of(&[("rank", 2.0), ("alpha", 2.0), ("dropout", 0.0)])
    };
    let mut adapters = [build("lora", &options).unwrap()];
    let load_options = LoadOptions { quantize: Some(Nf4 { double: true }), ..LoadOptions::default() };
    let model =
        Model::load_adapted(&Checkpoint::open(&base()).unwrap(), load_options, &mut adapters).unwrap();
    let batch = Batch { outputs: vec![2, 4], ..Batch::whole(&[3, 9, 27, 11, 60]) };
    gradient_check::check_within(2e-2, &[], model.parameters(), |_| {
        rhetor_tensor::ops::add::scale(model.forward(&batch, None), 0.1)
    });
}
