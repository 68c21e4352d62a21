//! Arrays as NumPy reads them.

use crate::errors::Failure;
use std::path::Path;

/// Writes rows of equal length to the file `path`, in NumPy's format 1.0: `float32`, rows one after another.
pub fn write(path: &Path, rows: &[Vec<f32>]) -> Result<(), Failure> {
    rhetor_formats::write_bytes(path, &bytes(rows)).map_err(Failure::refused)
}

fn bytes(rows: &[Vec<f32>]) -> Vec<u8> {
    let n_columns = rows.first().map_or(0, Vec::len);
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {n_columns}), }}", rows.len());
    // The data begins at a multiple of 64 bytes.
    let n_spaces = 63 - (10 + header.len()) % 64;
    header.push_str(&" ".repeat(n_spaces));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(rows.iter().flatten().flat_map(|x| x.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_numpys() {
        let bytes = bytes(&[vec![1.0, 2.0], vec![3.0, 4.0]]);
        assert_eq!(bytes.len(), 128 + 16);
        assert!(bytes.starts_with(
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }"
        ));
        assert_eq!(bytes[127], b'\n');
        assert_eq!(bytes[128..132], 1f32.to_le_bytes());
    }
}
