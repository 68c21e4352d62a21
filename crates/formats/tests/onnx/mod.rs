//! Small ONNX files, written field by field.

/// A field with bytes in it. Numbers below 128 only: one byte each.
pub fn field(number: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let len = [bytes.len() as u8 & 0x7f | 0x80, (bytes.len() >> 7) as u8];
    [&[number << 3 | 2], &len[..], bytes].concat()
}

/// An initializer of 32-bit floats that count from 0.
pub fn tensor(name: &str, shape: &[u8]) -> Vec<u8> {
    let dims: Vec<u8> = shape.iter().flat_map(|&n| [0x08, n]).collect();
    let n = shape.iter().map(|&n| u16::from(n)).product::<u16>();
    let data: Vec<u8> = (0..n).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    field(5, [dims, vec![0x10, 1], field(8, name), field(9, data)].concat())
}

/// A node.
pub fn node(op: &str, name: &str, inputs: [&str; 2], output: &str) -> Vec<u8> {
    let inputs = inputs.map(|input| field(1, input)).concat();
    field(1, [inputs, field(2, output), field(3, name), field(4, op)].concat())
}

/// A file with these parts of a graph.
pub fn model(parts: &[Vec<u8>]) -> Vec<u8> {
    [vec![0x08, 7], field(2, "pytorch"), field(7, parts.concat())].concat()
}

/// What PyTorch's exporter makes of a linear layer with a bias, of one without, and of a table of positions that is cut.
pub fn graph() -> Vec<u8> {
    model(&[
        node("MatMul", "/m/up/MatMul", ["x", "onnx::MatMul_1"], "y"),
        node("Add", "/m/up/Add", ["net.up.bias", "y"], "z"),
        node("MatMul", "/m/layer.0/down/MatMul", ["z", "onnx::MatMul_2"], "w"),
        node("Reshape", "/m/embeddings/Reshape_1", ["onnx::Reshape_4", "s"], "p"),
        node("Concat", "/m/embeddings/Concat_6", ["onnx::Concat_3", "p"], "q"),
        tensor("net.up.bias", &[3]),
        tensor("onnx::MatMul_1", &[2, 3]),
        tensor("onnx::MatMul_2", &[3, 1]),
        tensor("onnx::Concat_3", &[1, 1, 2]),
        tensor("onnx::Reshape_4", &[1, 4, 2]),
        tensor("onnx::MatMul_5", &[2, 2]),
    ])
}
