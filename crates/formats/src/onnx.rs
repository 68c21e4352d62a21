//! ONNX: the weights of a graph, under the names that its module gave them.
//!
//! Of the graph nothing runs; its nodes only tell what weights are called. PyTorch's exporter folds constants, and what
//! it has changed loses its name: the transposed matrix of a linear layer becomes `onnx::MatMul_1966`. Such matrices are
//! turned back to `[out, in]` and named after the bias that is added next, or else after their node. A table of positions
//! that was cut in two, the first row apart, is put together as `position_embeddings` of the module that cuts it.
//! Source: `onnx.proto3` of the ONNX project; PyTorch's `torch.onnx`, constant folding.

mod message;
mod names;

use std::path::Path;

use rhetor_kernels::DType;

use crate::reader::Reader;
use crate::{ElementType, Error, Metadata, Place, TensorEntry};
use message::{Bytes, Content, Message};

/// What an ONNX file holds.
pub(crate) struct Contents {
    pub metadata: Metadata,
    pub tensors: Vec<TensorEntry>,
    /// The tensors that had to be brought in order.
    pub copied: Vec<u8>,
}

/// A node of the graph, as far as it names weights.
struct Node<'a> {
    name: &'a str,
    op: &'a str,
    inputs: [&'a str; 2],
    output: &'a str,
}

/// The operations of nodes that name weights.
const NAMING: &[&str] = &["Add", "Concat", "MatMul", "Reshape"];

/// Whether the bytes begin as a `ModelProto` does: with the version of the format, and a second field that it has.
pub(crate) fn recognize(bytes: &[u8]) -> bool {
    // producer_name, producer_version, domain, model_version, doc_string, graph, opset_import, metadata_props.
    const SECOND: &[u8] = &[0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42, 0x72];
    matches!(bytes, [0x08, 1..=0x7f, second, ..] if SECOND.contains(second))
}

/// Reads `bytes`, the whole of `file`, after [`recognize`] has said yes.
pub(crate) fn read(file: &Path, bytes: &[u8]) -> Result<Contents, Error> {
    let mut model = Message::new(file, bytes, Bytes { bytes, at: 0 }, "model");
    let mut metadata = Metadata::new(file);
    let mut graph = None;
    while let Some((number, content)) = model.next()? {
        match (number, content) {
            (2, Content::Bytes(name)) => metadata.set("onnx.producer_name", model.text(name)?),
            (7, Content::Bytes(part)) => graph = Some(part),
            _ => {}
        }
    }
    let Some(graph) = graph else {
        let reader = Reader::new(file, bytes);
        return Err(reader.invalid(0, &"model", "a graph", "none".to_owned()));
    };
    let mut graph = Message::new(file, bytes, graph, "graph");
    let (mut tensors, mut nodes) = (Vec::new(), Vec::new());
    while let Some((number, content)) = graph.next()? {
        match (number, content) {
            (1, Content::Bytes(part)) => {
                nodes.extend(read_node(Message::new(file, bytes, part, "node"))?);
            }
            (5, Content::Bytes(part)) => tensors.push(read_tensor(file, bytes, part)?),
            (15, Content::Bytes(part)) => {
                let place = Place::new(file, "sparse_initializer", part.at);
                return Err(unsupported(place, "dense tensors", "a sparse one".to_owned()));
            }
            _ => {}
        }
    }
    check_names(file, &tensors)?;
    let mut contents = Contents { metadata, tensors, copied: Vec::new() };
    names::restore(bytes, &nodes, &mut contents);
    check_names(file, &contents.tensors)?;
    Ok(contents)
}

/// A node that may name weights; `None` if it is none of these.
fn read_node<'a>(mut message: Message<'a>) -> Result<Option<Node<'a>>, Error> {
    let mut node = Node { name: "", op: "", inputs: ["", ""], output: "" };
    let mut n_inputs = 0;
    while let Some((number, content)) = message.next()? {
        let Content::Bytes(part) = content else { continue };
        match number {
            1 => {
                if let Some(input) = node.inputs.get_mut(n_inputs) {
                    *input = message.text(part)?;
                }
                n_inputs += 1;
            }
            2 if node.output.is_empty() => node.output = message.text(part)?,
            3 => node.name = message.text(part)?,
            4 => node.op = message.text(part)?,
            _ => {}
        }
    }
    Ok(NAMING.contains(&node.op).then_some(node))
}

/// One initializer: its data must lie in the file as it is in memory.
fn read_tensor(file: &Path, whole: &[u8], part: Bytes) -> Result<TensorEntry, Error> {
    let mut message = Message::new(file, whole, part, "initializer");
    let (mut name, mut shape, mut number_of_type) = ("", Vec::new(), 0);
    let (mut data, mut floats, mut is_external) = (None, None, false);
    while let Some((number, content)) = message.next()? {
        match (number, content) {
            (1, Content::Number(extent)) => shape.push(extent),
            (1, Content::Bytes(packed)) => {
                let mut extents = Message::new(file, whole, packed, "dims of initializer");
                while !extents.is_at_end() {
                    shape.push(extents.varint()?);
                }
            }
            (2, Content::Number(number)) => number_of_type = number,
            (4, Content::Bytes(packed)) => floats = Some(packed),
            (8, Content::Bytes(text)) => name = message.text(text)?,
            (9, Content::Bytes(raw)) => data = Some(raw),
            (13, _) | (14, Content::Number(1..)) => is_external = true,
            _ => {}
        }
    }
    let place = |at: usize| Place::new(file, format_args!("initializer `{name}`"), at);
    let dtype = element_type(number_of_type).ok_or_else(|| Error::UnknownType {
        place: place(part.at),
        expected: "a number, of 8 to 64 bits, or bool",
        got: format!("type {number_of_type}"),
    })?;
    if is_external {
        return Err(unsupported(place(part.at), "data in the same file", "data elsewhere".to_owned()));
    }
    let shape: Vec<usize> = shape.iter().map(|&n| usize::try_from(n).unwrap_or(usize::MAX)).collect();
    let n_bytes = dtype.bytes_of(&shape).ok_or_else(|| Error::Invalid {
        place: place(part.at),
        expected: "a shape without overflow".to_owned(),
        got: format!("{shape:?}"),
    })?;
    // Packed floats lie there as raw data does.
    let data = data.or(floats.filter(|_| dtype == DType::F32.into()));
    let (offset, got) = data.map_or((part.at, 0), |data| (data.at, data.bytes.len()));
    if data.is_none() && n_bytes > 0 {
        let got = "numbers of another kind, or none".to_owned();
        return Err(unsupported(place(part.at), "raw_data or packed float_data", got));
    }
    if got != n_bytes {
        let expected = format!("{n_bytes} bytes for {dtype} {shape:?}");
        return Err(Error::Invalid { place: place(offset), expected, got: format!("{got} bytes") });
    }
    Ok(TensorEntry { name: name.to_owned(), dtype, shape, file: 0, offset, n_bytes })
}

/// The type that `TensorProto.DataType` gives this number.
fn element_type(number: u64) -> Option<ElementType> {
    let name = match number {
        1 => "F32",
        2 => "U8",
        3 => "I8",
        4 => "U16",
        5 => "I16",
        6 => "I32",
        7 => "I64",
        9 => "BOOL",
        10 => "F16",
        11 => "F64",
        12 => "U32",
        13 => "U64",
        14 => "C64",
        16 => "BF16",
        17 => "F8_E4M3",
        19 => "F8_E5M2",
        _ => return None,
    };
    ElementType::from_safetensors_name(name)
}

/// Refuses two tensors of one name.
fn check_names(file: &Path, tensors: &[TensorEntry]) -> Result<(), Error> {
    let mut names: Vec<(&str, usize)> =
        tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.offset)).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => {
            let place = Place::new(file, "initializer", pair[1].1);
            Err(Error::Duplicate { place, got: pair[1].0.to_owned() })
        }
        None => Ok(()),
    }
}

fn unsupported(place: Place, expected: &'static str, got: String) -> Error {
    Error::Unsupported { place, expected, got }
}
