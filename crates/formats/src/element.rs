//! The types of tensor elements, as files of all formats name them.

use std::fmt;

use rhetor_kernels::DType;

/// How the elements of a stored tensor are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// A type that weights can be computed with.
    Known(DType),
    /// A type that can be listed and copied only, by its lower-case name: `i64`, `bool`, `iq2_xxs` ...
    Other(&'static str),
}

/// Name, number in GGUF files, name in safetensors files, elements a block, bytes a block.
type Row = (&'static str, Option<u32>, Option<&'static str>, usize, usize);

/// The types beyond [`DType`]; sizes from `ggml-common.h` and the safetensors specification.
const OTHERS: &[Row] = &[
    ("f64", Some(28), Some("F64"), 1, 8),
    ("i64", Some(27), Some("I64"), 1, 8),
    ("i32", Some(26), Some("I32"), 1, 4),
    ("i16", Some(25), Some("I16"), 1, 2),
    ("i8", Some(24), Some("I8"), 1, 1),
    ("u64", None, Some("U64"), 1, 8),
    ("u32", None, Some("U32"), 1, 4),
    ("u16", None, Some("U16"), 1, 2),
    ("u8", None, Some("U8"), 1, 1),
    ("bool", None, Some("BOOL"), 1, 1),
    ("f8_e4m3", None, Some("F8_E4M3"), 1, 1),
    ("f8_e5m2", None, Some("F8_E5M2"), 1, 1),
    ("f8_e8m0", None, Some("F8_E8M0"), 1, 1),
    ("c64", None, Some("C64"), 1, 8),
    ("q8_1", Some(9), None, 32, 36),
    ("q8_k", Some(15), None, 256, 292),
    ("iq2_xxs", Some(16), None, 256, 66),
    ("iq2_xs", Some(17), None, 256, 74),
    ("iq3_xxs", Some(18), None, 256, 98),
    ("iq1_s", Some(19), None, 256, 50),
    ("iq3_s", Some(21), None, 256, 110),
    ("iq2_s", Some(22), None, 256, 82),
    ("iq4_xs", Some(23), None, 256, 136),
    ("iq1_m", Some(29), None, 256, 56),
    ("tq1_0", Some(34), None, 256, 54),
    ("tq2_0", Some(35), None, 256, 66),
    ("mxfp4", Some(39), None, 32, 17),
];

impl ElementType {
    /// Lower-case name, as in `q4_k` or `i64`.
    pub fn name(self) -> &'static str {
        match self {
            ElementType::Known(dtype) => dtype.name(),
            ElementType::Other(name) => name,
        }
    }

    /// The type to compute with, if there is one.
    pub fn known(self) -> Option<DType> {
        match self {
            ElementType::Known(dtype) => Some(dtype),
            ElementType::Other(_) => None,
        }
    }

    /// Elements in a block; 1 for the dense types.
    pub fn block_len(self) -> usize {
        match self {
            ElementType::Known(dtype) => dtype.block_len(),
            ElementType::Other(name) => row(name).map_or(1, |row| row.3),
        }
    }

    /// Bytes in a block.
    pub fn block_bytes(self) -> usize {
        match self {
            ElementType::Known(dtype) => dtype.block_bytes(),
            ElementType::Other(name) => row(name).map_or(1, |row| row.4),
        }
    }

    /// Bytes of a tensor of that shape, outermost dimension first; `None` if its rows cut a block or the product
    /// overflows.
    pub fn bytes_of(self, shape: &[usize]) -> Option<usize> {
        let row_len = shape.last().copied().unwrap_or(1);
        if row_len % self.block_len() != 0 {
            return None;
        }
        // Zeros last: [2^40, 2^40, 0] must overflow in whatever order it is multiplied.
        let n = shape.iter().filter(|n| **n > 0).try_fold(1usize, |n, dim| n.checked_mul(*dim))?;
        let n = if shape.contains(&0) { 0 } else { n };
        (n / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The type with that number in GGUF files.
    pub fn from_ggml_id(id: u32) -> Option<ElementType> {
        let other = || OTHERS.iter().find(|row| row.1 == Some(id)).map(|row| ElementType::Other(row.0));
        DType::from_ggml_id(id).map(ElementType::Known).or_else(other)
    }

    /// The type's number in GGUF files, if it has one.
    pub fn ggml_id(self) -> Option<u32> {
        match self {
            ElementType::Known(dtype) => Some(dtype.ggml_id()),
            ElementType::Other(name) => row(name)?.1,
        }
    }

    /// The type of that name in safetensors files.
    pub fn from_safetensors_name(name: &str) -> Option<ElementType> {
        match name {
            "F32" => Some(ElementType::Known(DType::F32)),
            "F16" => Some(ElementType::Known(DType::F16)),
            "BF16" => Some(ElementType::Known(DType::BF16)),
            _ => OTHERS.iter().find(|row| row.2 == Some(name)).map(|row| ElementType::Other(row.0)),
        }
    }

    /// The type's name in safetensors files, if it has one.
    pub fn safetensors_name(self) -> Option<&'static str> {
        match self {
            ElementType::Known(DType::F32) => Some("F32"),
            ElementType::Known(DType::F16) => Some("F16"),
            ElementType::Known(DType::BF16) => Some("BF16"),
            ElementType::Known(_) => None,
            ElementType::Other(name) => row(name)?.2,
        }
    }
}

fn row(name: &str) -> Option<&'static Row> {
    OTHERS.iter().find(|row| row.0 == name)
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<DType> for ElementType {
    fn from(dtype: DType) -> ElementType {
        ElementType::Known(dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back_to_their_types() {
        let known = DType::all().map(ElementType::Known);
        for element in known.chain(OTHERS.iter().map(|row| ElementType::Other(row.0))) {
            if let Some(id) = element.ggml_id() {
                assert_eq!(ElementType::from_ggml_id(id), Some(element));
            }
            if let Some(name) = element.safetensors_name() {
                assert_eq!(ElementType::from_safetensors_name(name), Some(element));
            }
            assert!(element.ggml_id().is_some() || element.safetensors_name().is_some());
        }
    }

    #[test]
    fn a_product_that_overflows_has_no_size_even_with_a_zero_in_it() {
        let f32 = ElementType::Known(DType::F32);
        assert_eq!(f32.bytes_of(&[2, 3]), Some(24));
        assert_eq!(f32.bytes_of(&[]), Some(4));
        assert_eq!(f32.bytes_of(&[5, 0]), Some(0));
        assert_eq!(f32.bytes_of(&[1 << 40, 1 << 40, 0]), None);
        assert_eq!(ElementType::Known(DType::Q8_0).bytes_of(&[32, 16]), None);
    }
}
