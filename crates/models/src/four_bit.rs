//! Weights in NF4, the 4-bit type of QLoRA: made when a model is loaded, or read as bitsandbytes has written them.
//!
//! Source: QLoRA, arXiv:2305.14314, §3; the layout of files is that of transformers with bitsandbytes 0.50.

use rhetor_formats::{Checkpoint, TensorEntry};
use rhetor_kernels::gemm::Rows;
use rhetor_kernels::quant::DynamicMap;
use rhetor_kernels::quant::nf4::{self, FourBitCode, NESTED_LEN, Nf4Blocks, Scales};

use crate::load::LoadError;

/// Values that share a scale in weights that are quantized here, as in QLoRA.
const BLOCK_LEN: usize = 64;

/// How frozen weights are quantized when a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nf4 {
    /// Whether the scales are quantized too: 4.127 instead of 4.5 bits for each weight.
    pub double: bool,
}

/// A matrix `[out, in]` of four-bit values.
pub(crate) struct FourBit {
    blocks: Nf4Blocks,
    n_rows: usize,
    n_cols: usize,
    /// The stored row of each row, where that is another.
    order: Option<Vec<usize>>,
}

impl FourBit {
    /// The same with its rows in another order.
    pub fn in_order(self, order: Option<Vec<usize>>) -> FourBit {
        FourBit { order, ..self }
    }

    /// Quantizes `values`: [n_rows, n_cols].
    pub fn quantize(values: &[f32], n_rows: usize, n_cols: usize, how: Nf4) -> FourBit {
        let blocks = nf4::quantize(values, BLOCK_LEN);
        let blocks = if how.double { blocks.double_quantized() } else { blocks };
        FourBit { blocks, n_rows, n_cols, order: None }
    }

    /// Bytes in memory.
    pub fn n_bytes(&self) -> usize {
        self.blocks.n_bytes()
    }
}

impl Rows for FourBit {
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn n_cols(&self) -> usize {
        self.n_cols
    }

    fn read(&self, row: usize, out: &mut [f32]) {
        let row = self.order.as_ref().map_or(row, |order| order[row]);
        self.blocks.read(row * self.n_cols, out);
    }
}

/// The matrix of bitsandbytes whose indices are the tensor `name`; `None` if there is none. The names of all its tensors
/// are added to `taken`.
pub(crate) fn read(
    checkpoint: &Checkpoint,
    name: &str,
    expected: &[usize],
    taken: &mut Vec<String>,
) -> Result<Option<FourBit>, LoadError> {
    let states = [("nf4", FourBitCode::Nf4), ("fp4", FourBitCode::Fp4)];
    let found = states.iter().find_map(|(kind, code)| {
        let state = format!("{name}.quant_state.bitsandbytes__{kind}");
        checkpoint.find(&state).map(|entry| (entry, *code))
    });
    let Some((state, code)) = found else { return Ok(None) };
    let bad = |key: &str, got: String, expected: &str| LoadError::BadValue {
        file: checkpoint.path().to_path_buf(),
        key: format!("{}: {key}", state.name),
        got,
        expected: expected.to_string(),
    };
    let text = checkpoint.bytes(state);
    let keys: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| bad("the text", error.to_string(), "JSON"))?;
    let size = |key: &str| keys[key].as_u64().map(|n| n as usize);
    let shape: Vec<usize> = keys["shape"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|n| n.as_u64())
        .map(|n| n as usize)
        .collect();
    if shape != expected {
        return Err(bad("shape", format!("{shape:?}"), &format!("{expected:?}")));
    }
    let block_len = size("blocksize").filter(|len| *len > 0 && len % 2 == 0);
    let block_len =
        block_len.ok_or_else(|| bad("blocksize", keys["blocksize"].to_string(), "an even number"))?;
    let n_values = expected.iter().product::<usize>();
    let n_blocks = n_values.div_ceil(block_len);
    taken.push(state.name.clone());
    let mut part = |end: &str, n_bytes: usize| -> Result<&[u8], LoadError> {
        let name = format!("{name}{end}");
        let entry: &TensorEntry = checkpoint.find(&name).ok_or_else(|| LoadError::MissingTensor {
            file: checkpoint.path().to_path_buf(),
            name: name.clone(),
        })?;
        let bytes = checkpoint.bytes(entry);
        if bytes.len() != n_bytes {
            return Err(bad(&name, format!("{} bytes", bytes.len()), &format!("{n_bytes} bytes")));
        }
        taken.push(name);
        Ok(bytes)
    };
    let floats = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let indices = part("", n_values.div_ceil(2))?.to_vec();
    let map = floats(part(".quant_map", 64)?);
    // Zero has a sign in one of the tables.
    if map.iter().zip(code.values()).any(|(a, b)| a != b) {
        return Err(bad("quant_map", "another table".to_string(), "that of NF4 or FP4"));
    }
    let is_double = keys.get("nested_blocksize").is_some_and(|value| !value.is_null());
    let scales = if is_double {
        if size("nested_blocksize") != Some(NESTED_LEN) {
            return Err(bad("nested_blocksize", keys["nested_blocksize"].to_string(), "256"));
        }
        let nested_map = floats(part(".nested_quant_map", 1024)?);
        if nested_map != DynamicMap::signed().values() {
            return Err(bad("nested_quant_map", "another table".to_string(), "the signed dynamic map"));
        }
        let offset = keys["nested_offset"].as_f64();
        let offset =
            offset.ok_or_else(|| bad("nested_offset", keys["nested_offset"].to_string(), "a number"))? as f32;
        let nested = floats(part(".nested_absmax", 4 * n_blocks.div_ceil(NESTED_LEN))?);
        Scales::Double { codes: part(".absmax", n_blocks)?.to_vec(), nested, offset }
    } else {
        Scales::Plain(floats(part(".absmax", 4 * n_blocks)?))
    };
    let finite = match &scales {
        Scales::Plain(scales) => scales.iter().all(|scale| scale.is_finite()),
        Scales::Double { nested, offset, .. } => {
            offset.is_finite() && nested.iter().all(|scale| scale.is_finite())
        }
    };
    if !finite {
        return Err(bad("absmax", "a scale that is not finite".to_string(), "finite scales"));
    }
    let blocks = Nf4Blocks::new(code, n_values, block_len, indices, scales);
    Ok(Some(FourBit { blocks, n_rows: expected[0], n_cols: expected[1], order: None }))
}
