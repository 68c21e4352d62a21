//! Files that llama.cpp's own converter wrote have the logits of the models that it converted.
//!
//! `fixtures/llama_cpp/compare.py` made them, and says how the other way is checked: what we write, read by llama.cpp.

use rhetor_formats::Checkpoint;
use rhetor_models::convert::{ConvertOptions, to_gguf};
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Batch, LoadOptions, Model};
use std::path::{Path, PathBuf};

/// The largest difference of a logit from transformers'.
const TOLERANCE: f32 = 1e-4;

#[test]
fn files_of_llama_cpps_converter_have_the_logits_of_transformers() {
    let files = files();
    for file in &files {
        let name = file.display();
        let model =
            Model::load(&open(file), LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let expected = open(&file.with_extension("safetensors"));
        let bytes = |tensor: &str| expected.bytes(expected.find(tensor).expect("both tensors are there"));
        let ids: Vec<u32> = (bytes("input_ids").chunks_exact(8))
            .map(|id| u64::from_le_bytes(id.try_into().expect("8 bytes")) as u32)
            .collect();
        let logits = (bytes("logits").chunks_exact(4))
            .map(|logit| f32::from_le_bytes(logit.try_into().expect("4 bytes")));
        let ours = model.forward(&Batch::whole(&ids), None);
        assert_eq!(ours.data().len(), logits.len(), "{name}: number of logits");
        let largest = ours.data().iter().zip(logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{name}: largest difference {largest:.1e}");
        assert!(largest <= TOLERANCE, "{name}: a logit differs by {largest}");
    }
    assert!(files.len() >= 14, "found {} files only", files.len());
}

/// The root of the mean square of the differences, in hundredths of that of the logits. Random weights as wide as these
/// magnify what is rounded: of LLaMA itself it is three hundredths, of layer norms and plain layers less than two.
#[test]
fn weights_of_eight_bits_change_logits_by_less_than_five_hundredths() {
    let folder = tempfile::tempdir().expect("a folder for the quantized files");
    for file in files() {
        let name = file.display();
        let small = folder.path().join(file.file_name().expect("a file has a name"));
        let options = ConvertOptions { mix: Mix::Q8_0, importance: None, vocabulary: Vec::new() };
        to_gguf(&open(&file), &small, &options, &mut |_| ()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let [dense, small] = [&file, &small].map(|file| {
            let model = Model::load(&open(file), LoadOptions::default()).expect("both load");
            model.forward(&Batch::whole(&(3..30).collect::<Vec<u32>>()), None).data().to_vec()
        });
        let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>();
        let off = squares(&mut dense.iter().zip(&small).map(|(a, b)| a - b));
        let share = (off / squares(&mut dense.iter().copied())).sqrt();
        println!("{name}: {:.2} hundredths", share * 100.0);
        assert!(share < 0.05, "{name}: {share}");
    }
}

/// Every GGUF file under `fixtures/llama_cpp`.
fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/llama_cpp");
    let entries = std::fs::read_dir(folder).expect("the fixtures are part of the repository");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the folder is readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "gguf"));
    files.sort();
    files
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
