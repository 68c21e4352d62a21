//! The element types that weights are stored in, with the block geometry of ggml.

/// How the elements of a weight are stored.
///
/// A quantized type stores blocks of [`DType::block_len`] neighbouring elements of one row in
/// [`DType::block_bytes`] bytes. The layouts are ggml's, bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum DType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
}

/// One row of the table: type, name, elements a block, bytes a block, number in GGUF files.
type Row = (DType, &'static str, usize, usize, u32);

const TABLE: &[Row] = &[
    (DType::F32, "f32", 1, 4, 0),
    (DType::F16, "f16", 1, 2, 1),
    (DType::BF16, "bf16", 1, 2, 30),
    (DType::Q4_0, "q4_0", 32, 18, 2),
    (DType::Q4_1, "q4_1", 32, 20, 3),
    (DType::Q5_0, "q5_0", 32, 22, 6),
    (DType::Q5_1, "q5_1", 32, 24, 7),
    (DType::Q8_0, "q8_0", 32, 34, 8),
    (DType::Q2K, "q2_k", 256, 84, 10),
    (DType::Q3K, "q3_k", 256, 110, 11),
    (DType::Q4K, "q4_k", 256, 144, 12),
    (DType::Q5K, "q5_k", 256, 176, 13),
    (DType::Q6K, "q6_k", 256, 210, 14),
    (DType::Iq4Nl, "iq4_nl", 32, 18, 20),
];

impl DType {
    /// Every type, in the order of the table.
    pub fn all() -> impl Iterator<Item = DType> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// Lower-case name, as in `q4_k`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The type called `name`, in any case.
    pub fn from_name(name: &str) -> Option<DType> {
        TABLE.iter().find(|row| row.1.eq_ignore_ascii_case(name)).map(|row| row.0)
    }

    /// Elements in a block; 1 for the dense types.
    pub fn block_len(self) -> usize {
        self.row().2
    }

    /// Bytes in a block.
    pub fn block_bytes(self) -> usize {
        self.row().3
    }

    /// The type's number in GGUF files.
    pub fn ggml_id(self) -> u32 {
        self.row().4
    }

    /// The type with that number in GGUF files.
    pub fn from_ggml_id(id: u32) -> Option<DType> {
        TABLE.iter().find(|row| row.4 == id).map(|row| row.0)
    }

    /// Bytes of `n` neighbouring elements, or `None` if `n` is no multiple of the block or the product overflows.
    pub fn bytes_of(self, n: usize) -> Option<usize> {
        if !n.is_multiple_of(self.block_len()) {
            None
        } else {
            (n / self.block_len()).checked_mul(self.block_bytes())
        }
    }

    /// Whether the type stores blocks with shared scales.
    pub fn is_quantized(self) -> bool {
        self.block_len() > 1
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
            assert_eq!(DType::from_name(row.1), Some(row.0));
            assert_eq!(DType::from_ggml_id(row.4), Some(row.0));
        }
    }

    #[test]
    fn a_row_that_cuts_a_block_has_no_size() {
        assert_eq!(DType::Q4K.bytes_of(512), Some(288));
        assert_eq!(DType::Q4K.bytes_of(500), None);
        assert_eq!(DType::F32.bytes_of(usize::MAX), None);
    }
}
