//! Single tensors: found, checked, turned into the order of the house, and packed for this CPU.

use rhetor_formats::{ElementType, TensorEntry};
use rhetor_kernels::DType;
use rhetor_kernels::gemm::Rows;
use rhetor_kernels::matmul::Packed;
use rhetor_kernels::quant;
use rhetor_tensor::{Tensor, Vector, Weight};
use std::sync::Arc;

use crate::adapters::order;
use crate::four_bit::{self, FourBit};
use crate::misfits::{self, Misshapen};
use crate::names::TensorName;
use crate::places::{Piece, Place};
use crate::row_order;

use super::{LoadError, Weights};

impl Weights<'_> {
    pub(super) fn dtype_of(&self, entry: &TensorEntry) -> Result<DType, LoadError> {
        match &entry.dtype {
            ElementType::Known(dtype) => Ok(*dtype),
            ElementType::Other(other) => Err(LoadError::ElementType {
                file: self.checkpoint.path().to_path_buf(),
                name: entry.name.clone(),
                got: other.to_string(),
                expected: "f32, f16, bf16 or a quantized type",
            }),
        }
    }

    /// The elements of a small tensor in `f32`, all finite. `[n]`
    pub(super) fn values(&mut self, entry: &TensorEntry) -> Result<Vec<f32>, LoadError> {
        let dtype = self.dtype_of(entry)?;
        let mut values = vec![0.0; entry.shape.iter().product()];
        quant::dequantize(dtype, self.checkpoint.bytes(entry), &mut values);
        if let Some(element) = values.iter().position(|value| !value.is_finite()) {
            let file = self.checkpoint.path().to_path_buf();
            return Err(LoadError::NotFinite { file, name: entry.name.clone(), element });
        }
        self.n_bytes += values.len() * size_of::<f32>();
        Ok(values)
    }

    /// The file's row of each row that we want, where the two differ.
    pub(super) fn order_in_file(&self, row: &TensorName, i: usize) -> Option<Vec<usize>> {
        if self.speaks_gguf() { None } else { row.order(self.config, i, false) }
    }

    /// The vector `ours` with suffix `.weight` or `.bias`; the first extent of the row's shape is its length.
    pub(super) fn values_of(
        &mut self,
        ours: &str,
        i: impl Into<Place>,
        suffix: &str,
    ) -> Result<Option<Vec<f32>>, LoadError> {
        let i = i.into();
        let row = self.row(ours);
        let len = row.extents(self.config, i)[0];
        let Some(entry) = self.take(row, i, suffix, &[len])? else { return Ok(None) };
        let mut values = self.values(entry)?;
        if let Some(order) = self.order_in_file(row, i.layer) {
            values = row_order::in_order(&values, &order);
        }
        let offset = if self.speaks_gguf() { 0.0 } else { row.offset(suffix) };
        if offset != 0.0 {
            values.iter_mut().for_each(|value| *value += offset);
        }
        Ok(Some(values))
    }

    /// As [`values_of`](Weights::values_of), trained or replaced where an adapter says so.
    pub(super) fn vector(
        &mut self,
        ours: &str,
        i: impl Into<Place>,
        suffix: &'static str,
    ) -> Result<Option<Vector>, LoadError> {
        let i = i.into();
        let values = match self.values_of(ours, i, suffix)? {
            Some(values) => values,
            None => match self.drawn(self.row(ours), i, suffix) {
                Some(values) => values,
                None => return Ok(None),
            },
        };
        let (row, shape) = (self.row(ours), [values.len()]);
        let (replaced, trains) = self.adapted(row, i, suffix, &shape)?;
        let values = replaced.unwrap_or(values);
        Ok(Some(if trains {
            Vector::Trained(self.parameter(row, i, suffix, &shape, values)?)
        } else {
            Vector::Fixed(Tensor::from_vec(values, shape))
        }))
    }

    /// The vector `ours` of layer `i`, which must be there.
    pub fn required_vector(
        &mut self,
        ours: &str,
        i: usize,
        suffix: &'static str,
    ) -> Result<Vector, LoadError> {
        if let Some(vector) = self.vector(ours, i, suffix)? {
            return Ok(vector);
        }
        let row = self.row(ours);
        let (name, len) = (self.file_name(row, i, suffix), row.extents(self.config, i)[0]);
        if self.misfits.is_hopeless(name, len) { Err(self.refusal()) } else { Ok(misfits::vector(len)) }
    }

    /// The matrix `ours` of layer `i`, packed.
    pub(super) fn required_matrix(&mut self, ours: &str, i: impl Into<Place>) -> Result<Weight, LoadError> {
        let i = i.into();
        Ok(match self.matrix(ours, i)? {
            Some(weight) => weight,
            None => self.absent(self.row(ours), i),
        })
    }

    /// The matrix `ours` of layer `i`, packed; `None` if the file has none.
    pub(super) fn matrix(&mut self, ours: &str, i: impl Into<Place>) -> Result<Option<Weight>, LoadError> {
        let i = i.into();
        let row = self.row(ours);
        let extents = row.extents(self.config, i);
        let transposed = row.is_transposed() && !self.speaks_gguf();
        let in_file = if transposed { vec![extents[1], extents[0]] } else { extents.clone() };
        if let Some(weight) = self.four_bit(row, i, &extents)? {
            return Ok(Some(weight));
        }
        let found = match self.take(row, i, ".weight", &in_file)? {
            Some(entry) => Some(Piece::whole(entry)),
            None => self.take_of_stack(row, i)?,
        };
        let Some(piece) = found else {
            let Some(drawn) = self.drawn(row, i, ".weight") else { return Ok(None) };
            let (replaced, trains) = self.adapted(row, i, ".weight", &extents)?;
            return self.unstored(row, i, replaced.unwrap_or(drawn), trains).map(Some);
        };
        let (entry, bytes) = (piece.entry, piece.bytes(self.checkpoint));
        let dtype = self.dtype_of(entry)?;
        if dtype == DType::F32 {
            self.check_finite(entry, bytes)?;
        }
        let ordered = self.order_in_file(row, i.layer).map(|order| row_order::in_order(bytes, &order));
        let bytes = ordered.as_deref().unwrap_or(bytes);
        let (replaced, trains) = self.adapted(row, i, ".weight", &extents)?;
        if replaced.is_some() || trains || (row.is_exact && dtype != DType::F32) {
            let mut values = vec![0.0; extents.iter().product()];
            match replaced {
                Some(replaced) => values = replaced,
                None if transposed => {
                    let size = dtype.block_bytes();
                    let bytes = transpose(bytes, size, in_file[0], in_file[1]);
                    quant::dequantize(dtype, &bytes, &mut values);
                }
                None => quant::dequantize(dtype, bytes, &mut values),
            }
            self.checkpoint.release(entry);
            return self.unstored(row, i, values, trains).map(Some);
        }
        let is_table = matches!(row.ours, "token_embd" | "position_embd" | "token_types")
            || row.ours.ends_with("attn_rel_b");
        // What looks at pictures stays as it is stored.
        let is_kept = is_table || row.is_exact || row.ours.starts_with("v.");
        let is_linear = !is_kept && row.ours != "output";
        if let Some(how) = self.quantize.filter(|_| is_linear) {
            let mut values = vec![0.0; extents.iter().product()];
            quant::dequantize(dtype, bytes, &mut values);
            if transposed {
                values = order::transposed(&values, in_file[0], in_file[1]);
            }
            self.checkpoint.release(entry);
            let matrix = FourBit::quantize(&values, extents[0], extents[1], how);
            self.n_bytes += matrix.n_bytes();
            return Ok(Some(Weight::Rows(Arc::new(matrix), self.precision)));
        }
        let mut rounded = Vec::new();
        let (dtype, bytes) = if self.in_bf16 && is_linear && dtype == DType::F32 {
            let mut values = vec![0.0; extents.iter().product()];
            quant::dequantize(dtype, bytes, &mut values);
            rounded.resize(2 * values.len(), 0);
            quant::quantize(DType::BF16, &values, None, &mut rounded);
            (DType::BF16, &rounded[..])
        } else {
            (dtype, bytes)
        };
        let packed = if transposed {
            if dtype.is_quantized() {
                return Err(LoadError::ElementType {
                    file: self.checkpoint.path().to_path_buf(),
                    name: entry.name.clone(),
                    got: dtype.to_string(),
                    expected: "f32, f16 or bf16 where they are stored [in, out]",
                });
            }
            Packed::pack(
                dtype,
                extents[0],
                extents[1],
                &transpose(bytes, dtype.block_bytes(), in_file[0], in_file[1]),
            )
        } else {
            Packed::pack(dtype, extents[0], extents[1], bytes)
        };
        self.checkpoint.release(entry);
        self.n_bytes += packed.n_bytes();
        Ok(Some(Weight::Packed(Arc::new(packed), self.precision)))
    }

    /// The matrix, if bitsandbytes has written it in four bits.
    pub(super) fn four_bit(
        &mut self,
        row: &'static TensorName,
        i: Place,
        extents: &[usize],
    ) -> Result<Option<Weight>, LoadError> {
        let name = self.file_name(row, i, ".weight");
        let mut taken = Vec::new();
        let Some(matrix) = four_bit::read(self.checkpoint, &name, extents, &mut taken)? else {
            return Ok(None);
        };
        let matrix = matrix.in_order(self.order_in_file(row, i.layer));
        self.taken.extend(taken);
        self.n_parameters += extents.iter().product::<usize>();
        let (replaced, trains) = self.adapted(row, i, ".weight", extents)?;
        if replaced.is_none() && !trains {
            self.n_bytes += matrix.n_bytes();
            return Ok(Some(Weight::Rows(Arc::new(matrix), self.precision)));
        }
        let values = replaced.unwrap_or_else(|| {
            let mut values = vec![0.0; extents[0] * extents[1]];
            values.chunks_exact_mut(extents[1]).enumerate().for_each(|(i, row)| matrix.read(i, row));
            values
        });
        self.unstored(row, i, values, trains).map(Some)
    }

    /// A matrix of values that are not the file's, or that train.
    pub(super) fn unstored(
        &mut self,
        row: &'static TensorName,
        i: Place,
        values: Vec<f32>,
        trains: bool,
    ) -> Result<Weight, LoadError> {
        let extents = row.extents(self.config, i);
        self.n_bytes += values.len() * size_of::<f32>();
        if trains {
            return Ok(Weight::Trained(self.parameter(row, i, ".weight", &extents, values)?));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let packed = Packed::pack(DType::F32, extents[0], extents[1], &bytes);
        Ok(Weight::Packed(Arc::new(packed), self.precision))
    }

    /// The first values of a tensor that a new head needs and the file does not have: a matrix from N(0, 0.02), norms 1, biases 0.
    /// Source: BERT's `run_classifier.py`.
    pub(super) fn drawn(&mut self, row: &'static TensorName, i: Place, suffix: &str) -> Option<Vec<f32>> {
        let seed = self.head_seed.filter(|_| !row.tasks.is_empty() && row.ours != "output")?;
        let extents = row.extents(self.config, i);
        let values = match (suffix, extents.len()) {
            (".bias", _) if row.is_biased(self.config) => vec![0.0; extents[0]],
            (".bias", _) => return None,
            (_, 1) => vec![1.0; extents[0]],
            _ => {
                let name = self.known_name(row, i, suffix);
                let deviation = row.spread.deviation(&extents, self.config, 0.02, 1.0);
                crate::adapters::normal(seed, &name, extents.iter().product(), deviation)
            }
        };
        self.n_parameters += values.len();
        Some(values)
    }

    pub(super) fn check_finite(&self, entry: &TensorEntry, bytes: &[u8]) -> Result<(), LoadError> {
        let is_broken =
            |b: &[u8]| (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7f80_0000) == 0x7f80_0000;
        match bytes.chunks_exact(4).position(is_broken) {
            Some(element) => {
                let file = self.checkpoint.path().to_path_buf();
                Err(LoadError::NotFinite { file, name: entry.name.clone(), element })
            }
            None => Ok(()),
        }
    }

    /// The whole numbers called `name` in a Hugging Face file, `len` of them; `None` if there are none.
    pub(crate) fn integers(&mut self, name: &str, len: usize) -> Result<Option<Vec<i64>>, LoadError> {
        let Some(entry) = self.checkpoint.find(name) else { return Ok(None) };
        self.taken.insert(entry.name.clone());
        if entry.shape != [len] {
            let (name, got) = (entry.name.clone(), entry.shape.clone());
            self.misfits.misshapen.push(Misshapen { name, got, expected: vec![len], letters: "n" });
            return Ok(None);
        }
        if entry.dtype != ElementType::Other("i64") {
            return Err(LoadError::ElementType {
                file: self.checkpoint.path().to_path_buf(),
                name: entry.name.clone(),
                got: entry.dtype.to_string(),
                expected: "i64",
            });
        }
        let (numbers, _) = self.checkpoint.bytes(entry).as_chunks::<8>();
        Ok(Some(numbers.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()))
    }
}

/// `[n_rows, n_columns]` elements of `size` bytes → `[n_columns, n_rows]`
pub(crate) fn transpose(bytes: &[u8], size: usize, n_rows: usize, n_columns: usize) -> Vec<u8> {
    let mut out = vec![0; bytes.len()];
    for row in 0..n_rows {
        for column in 0..n_columns {
            let (from, to) = ((row * n_columns + column) * size, (column * n_rows + row) * size);
            out[to..to + size].copy_from_slice(&bytes[from..from + size]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_swaps_rows_and_columns() {
        assert_eq!(transpose(&[1, 2, 3, 4, 5, 6], 1, 2, 3), [1, 4, 2, 5, 3, 6]);
        assert_eq!(transpose(&[1, 1, 2, 2], 2, 1, 2), [1, 1, 2, 2]);
    }
}
