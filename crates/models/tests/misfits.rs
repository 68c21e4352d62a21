//! Checkpoints whose tensors are not those of their family: refused with all that does not fit.

use rhetor_formats::{Checkpoint, TensorToWrite, safetensors};
use rhetor_models::{LoadError, LoadOptions, Misfits, Model};
use std::path::Path;

/// The tiny LLaMA of the fixtures with other tensors, loaded.
fn load(
    change: impl FnOnce(&mut Vec<TensorToWrite>),
    config: Option<(&str, &str)>,
) -> Result<Model, LoadError> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama");
    let source = Checkpoint::open(&source).expect("a checkpoint");
    let mut tensors: Vec<TensorToWrite> = source
        .tensors()
        .iter()
        .map(|tensor| TensorToWrite {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
        })
        .collect();
    change(&mut tensors);
    let dir = tempfile::tempdir().expect("a folder");
    let zeros = |i: usize, out: &mut dyn std::io::Write| {
        let n: usize = tensors[i].shape.iter().product();
        out.write_all(&vec![0; 4 * n])
    };
    safetensors::write(&dir.path().join("model.safetensors"), &[], &tensors, |i, out| zeros(i, out))
        .expect("tensors are written");
    let mut text = std::fs::read_to_string(source.path().join("config.json")).expect("a config");
    if let Some((from, to)) = config {
        assert!(text.contains(from), "{from} in {text}");
        text = text.replace(from, to);
    }
    std::fs::write(dir.path().join("config.json"), text).expect("the config is written");
    Model::load(&Checkpoint::open(dir.path()).expect("a checkpoint"), LoadOptions::default())
}

fn misfits(result: Result<Model, LoadError>) -> Misfits {
    match result {
        Err(LoadError::Tensors { misfits, .. }) => *misfits,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("loaded"),
    }
}

#[test]
fn all_that_is_missing_unexpected_or_of_wrong_shape_is_told_at_once() {
    let found = misfits(load(
        |tensors| {
            tensors.retain(|t| !t.name.contains("layers.1.mlp") && t.name != "model.norm.weight");
            let of = |name: &str| tensors.iter().position(|t| t.name == name).expect("there");
            let (q, v) =
                (of("model.layers.0.self_attn.q_proj.weight"), of("model.layers.1.self_attn.v_proj.weight"));
            tensors[q].shape = vec![32, 31];
            tensors[v].name = "model.layers.1.self_attn.w_proj.weight".to_string();
        },
        None,
    ));
    let names = ["gate_proj", "up_proj", "down_proj"].map(|name| format!("model.layers.1.mlp.{name}.weight"));
    let mut missing = vec!["model.layers.1.self_attn.v_proj.weight".to_string()];
    missing.extend(names);
    missing.push("model.norm.weight".to_string());
    assert_eq!(found.missing, missing);
    assert_eq!(found.unexpected, ["model.layers.1.self_attn.w_proj.weight"]);
    assert_eq!(found.misshapen.len(), 1);
    assert_eq!(found.misshapen[0].got, [32, 31]);
    assert_eq!(found.misshapen[0].expected, [32, 32]);
    assert_eq!(found.misshapen[0].letters, "H*d D");
}

#[test]
fn a_layer_more_than_the_file_has_is_missing_whole() {
    let config = Some(("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"));
    let found = misfits(load(|_| (), config));
    assert_eq!(found.missing.len(), 9);
    assert!(found.missing.iter().all(|name| name.starts_with("model.layers.2.")), "{found}");
    assert!(found.unexpected.is_empty() && found.misshapen.is_empty());
}

#[test]
fn sizes_that_no_memory_holds_are_refused_without_taking_it() {
    let config = Some(("\"hidden_size\": 32", "\"hidden_size\": 1073741824"));
    assert!(!misfits(load(|tensors| tensors.clear(), config)).missing.is_empty());
}
