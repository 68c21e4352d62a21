//! The names of weights that an exporter has folded into constants.

use std::collections::{HashMap, HashSet};

use super::{Contents, Node};
use crate::TensorEntry;

/// Gives back names and layouts that the exporter has lost. What cannot be told keeps the name that it has.
pub(super) fn restore(bytes: &[u8], nodes: &[Node], contents: &mut Contents) {
    let Contents { tensors, copied, .. } = contents;
    let index: HashMap<String, usize> =
        tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
    let is_folded = |name: &str, op: &str| {
        let rest = name.strip_prefix("onnx::").and_then(|name| name.strip_prefix(op));
        rest.is_some_and(|rest| rest.starts_with('_')) && index.contains_key(name)
    };
    // What is added to the output of a node, if it is a bias.
    let biases: HashMap<&str, &str> = nodes
        .iter()
        .filter(|node| node.op == "Add")
        .flat_map(|node| [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])])
        .filter(|(_, bias)| bias.ends_with(".bias") && index.contains_key(*bias))
        .collect();
    for node in nodes.iter().filter(|node| node.op == "MatMul" && is_folded(node.inputs[1], "MatMul")) {
        let tensor = &mut tensors[index[node.inputs[1]]];
        let stem = match biases.get(node.output).and_then(|bias| bias.strip_suffix(".bias")) {
            Some(stem) => stem.to_owned(),
            None => module(node.name),
        };
        let is_left = tensor.file != 0 || tensor.n_bytes == 0 || stem.is_empty();
        if let (&[n_in, n_out], false) = (&tensor.shape[..], is_left) {
            turn(bytes, tensor, [n_in, n_out], copied);
            tensor.name = stem + ".weight";
        }
    }
    let joined = join_positions(bytes, nodes, &is_folded, &index, tensors, copied);
    tensors.retain(|tensor| !joined.parts.contains(tensor.name.as_str()));
    tensors.extend(joined.tables);
}

/// The module whose operation a node is: `/encoder/layer.0/query/MatMul` → `encoder.layer.0.query`.
fn module(node: &str) -> String {
    let path = node.strip_prefix('/').and_then(|path| path.rsplit_once('/'));
    path.map_or_else(String::new, |(module, _)| module.replace('/', "."))
}

/// Puts the transposed data of a `[n_in, n_out]` matrix behind `copied`.
fn turn(bytes: &[u8], tensor: &mut TensorEntry, [n_in, n_out]: [usize; 2], copied: &mut Vec<u8>) {
    let data = &bytes[tensor.offset..tensor.offset + tensor.n_bytes];
    let (size, start) = (tensor.dtype.block_bytes(), copied.len());
    copied.resize(start + data.len(), 0);
    let out = &mut copied[start..];
    for (i, row) in data.chunks_exact(n_out * size).enumerate() {
        for (o, element) in row.chunks_exact(size).enumerate() {
            out[(o * n_in + i) * size..][..size].copy_from_slice(element);
        }
    }
    (tensor.file, tensor.offset, tensor.shape) = (1, start, vec![n_out, n_in]);
}

/// What [`join_positions`] has put together.
#[derive(Default)]
struct Joined<'a> {
    /// The names of the constants that are parts of a table.
    parts: HashSet<&'a str>,
    tables: Vec<TensorEntry>,
}

/// Tables of positions `[1, 1 + n, D]` that stand in two constants, the first row apart from those that are resized.
fn join_positions<'a>(
    bytes: &[u8],
    nodes: &[Node<'a>],
    is_folded: &dyn Fn(&str, &str) -> bool,
    index: &HashMap<String, usize>,
    tensors: &[TensorEntry],
    copied: &mut Vec<u8>,
) -> Joined<'a> {
    let cut = |op: &'static str| {
        let of_op = nodes.iter().filter(move |node| node.op == op && is_folded(node.inputs[0], op));
        of_op.map(|node| (module(node.name), node.inputs[0]))
    };
    let rests: HashMap<String, &str> = cut("Reshape").collect();
    let mut joined = Joined::default();
    for (module, first) in cut("Concat") {
        let Some(&rest) = rests.get(&module).filter(|_| module.ends_with("embeddings")) else { continue };
        let (a, b) = (&tensors[index[first]], &tensors[index[rest]]);
        let fits = matches!((&a.shape[..], &b.shape[..]), ([1, 1, d], [1, _, other]) if d == other);
        let is_empty = a.n_bytes == 0 || b.n_bytes == 0;
        let is_known = [first, rest].iter().any(|part| joined.parts.contains(part));
        if !fits || is_empty || is_known || a.dtype != b.dtype {
            continue;
        }
        let offset = copied.len();
        for part in [a, b] {
            copied.extend_from_slice(&bytes[part.offset..part.offset + part.n_bytes]);
        }
        joined.parts.extend([first, rest]);
        joined.tables.push(TensorEntry {
            name: format!("{module}.position_embeddings"),
            dtype: a.dtype,
            shape: vec![1, 1 + b.shape[1], b.shape[2]],
            file: 1,
            offset,
            n_bytes: a.n_bytes + b.n_bytes,
        });
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_of_a_node_is_its_path_without_the_operation() {
        assert_eq!(module("/encoder/layer.0/query/MatMul"), "encoder.layer.0.query");
        assert_eq!(module("/MatMul"), "");
        assert_eq!(module("MatMul_3"), "");
    }
}
