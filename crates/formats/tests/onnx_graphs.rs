//! ONNX: what initializers are called and how their bytes lie, and what is refused.

mod onnx;

use onnx::{field, graph, model, tensor};
use rhetor_formats::{Checkpoint, Error, Kind};
use std::path::Path;

fn open(bytes: Vec<u8>) -> Result<Checkpoint, Error> {
    Checkpoint::from_bytes(Path::new("model.onnx"), bytes)
}

fn values(file: &Checkpoint, name: &str) -> Vec<f32> {
    let entry = file.find(name).unwrap_or_else(|| panic!("{name} is not there: {:?}", file.tensors()));
    file.bytes(entry).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn folded_matrices_are_turned_back_and_named_by_their_bias_or_their_node() {
    let file = open(graph()).unwrap();
    assert_eq!(file.kind(), Kind::Onnx);
    assert_eq!(file.metadata().require_str("onnx.producer_name").unwrap(), "pytorch");
    assert_eq!(file.find("net.up.weight").unwrap().shape, [3, 2]);
    assert_eq!(values(&file, "net.up.weight"), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(file.find("m.layer.0.down.weight").unwrap().shape, [1, 3]);
    assert_eq!(values(&file, "net.up.bias"), [0.0, 1.0, 2.0]);
    // No node says what this one is.
    assert_eq!(file.find("onnx::MatMul_5").unwrap().shape, [2, 2]);
    assert_eq!(file.tensors().len(), 5);
}

#[test]
fn a_table_of_positions_that_was_cut_is_whole_again() {
    let file = open(graph()).unwrap();
    assert_eq!(file.find("m.embeddings.position_embeddings").unwrap().shape, [1, 5, 2]);
    let expected = [0.0, 1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
    assert_eq!(values(&file, "m.embeddings.position_embeddings"), expected);
}

#[test]
fn broken_graphs_are_refused_by_what_is_wrong() {
    let initializer = |parts: &[&[u8]]| model(&[field(5, parts.concat())]);
    let four = field(9, [0; 4]);
    for (bytes, expected) in [
        (model(&[tensor("a", &[1]), tensor("a", &[1])]), "got `a` twice"),
        (initializer(&[&[0x08, 2, 0x10, 1], &four]), "expected 8 bytes for f32 [2], got 4 bytes"),
        (initializer(&[&[0x08, 1, 0x10, 8], &four]), "got type 8"),
        (initializer(&[&[0x08, 1, 0x10, 1]]), "raw_data or packed float_data"),
        (initializer(&[&[0x08, 1, 0x10, 1, 0x70, 1]]), "data elsewhere"),
        (initializer(&[&[0x0b]]), "wire type 0, 1, 2 or 5"),
        (model(&[field(15, [])]), "a sparse one"),
        ([vec![0x08, 7], field(2, "pytorch")].concat(), "a graph"),
        (graph()[..90].to_vec(), "cut off"),
    ] {
        let error = open(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: expected {expected}");
    }
}

#[test]
fn extents_that_no_memory_holds_are_refused_or_empty() {
    let huge = [0x80u8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1];
    let dims = [&[0x08], &huge[..], &[0x08, 0]].concat();
    let parts = [dims, vec![0x10, 1], field(8, "onnx::MatMul_1")].concat();
    let node = onnx::node("MatMul", "/m/up/MatMul", ["x", "onnx::MatMul_1"], "y");
    let file = open(model(&[node, field(5, parts)])).unwrap();
    assert_eq!(file.tensors()[0].n_bytes, 0);
    let parts = [vec![0x08], huge.to_vec(), vec![0x08, 3, 0x10, 1]].concat();
    assert!(open(model(&[field(5, parts)])).unwrap_err().to_string().contains("without overflow"));
}
