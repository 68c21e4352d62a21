//! Importance matrices as `llama-imatrix` of llama.cpp writes them: which columns of a weight matter.
//!
//! Two layouts: a GGUF file with the tensors `NAME.in_sum2` and `NAME.counts`, and the older `.dat`: a count of
//! entries, then for each its name, a number of calls and a list of sums, all little-endian.
//! Source: llama.cpp (MIT), `tools/imatrix/imatrix.cpp` and `tools/quantize/quantize.cpp`.

use crate::errors::Failure;
use rhetor_formats::Checkpoint;
use rhetor_models::convert::Importance;
use std::path::Path;

/// The longest name and the longest row that are believed.
const NAME_MAX: usize = 4096;
const ROW_MAX: usize = 1 << 24;

/// Reads the importance matrix in `path`.
pub fn read(path: &Path) -> Result<Importance, Failure> {
    let bytes = std::fs::read(path).map_err(Failure::file(path))?;
    let importance = if bytes.starts_with(b"GGUF") { from_gguf(path)? } else { from_dat(&bytes, path)? };
    if importance.is_empty() {
        return Err(Failure::input(format!("{} holds no importance matrix", path.display())));
    }
    Ok(importance)
}

fn from_gguf(path: &Path) -> Result<Importance, Failure> {
    let file = Checkpoint::open(path)?;
    let floats = |name: &str| -> Option<Vec<f32>> {
        let bytes = file.bytes(file.find(name)?);
        Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let mut importance = Importance::new();
    for tensor in file.tensors() {
        let Some(name) = tensor.name.strip_suffix(".in_sum2") else { continue };
        let sums = floats(&tensor.name).unwrap_or_default();
        let counts = floats(&format!("{name}.counts")).unwrap_or_default();
        let wrong = |what: &str| Failure::input(format!("{}: `{name}`: {what}", path.display()));
        match counts.as_slice() {
            [count] if *count > 0.0 => {
                importance.insert(name.to_string(), sums.iter().map(|sum| sum / count).collect());
            }
            [_] => {}
            [] => return Err(wrong("the tensor of counts is missing")),
            _ => return Err(wrong("matrices of several experts are not supported")),
        }
    }
    Ok(importance)
}

fn from_dat(bytes: &[u8], path: &Path) -> Result<Importance, Failure> {
    let mut rest = bytes;
    let cut = || Failure::input(format!("{} is no importance matrix, or cut off", path.display()));
    let mut take = |n: usize| -> Option<&[u8]> {
        let (taken, after) = rest.split_at_checked(n)?;
        rest = after;
        Some(taken)
    };
    let int = |bytes: &[u8]| usize::try_from(i32::from_le_bytes(bytes.try_into().ok()?)).ok();
    let n_entries = take(4).and_then(int).ok_or_else(cut)?;
    let mut importance = Importance::new();
    for _ in 0..n_entries {
        let n = take(4).and_then(int).filter(|n| *n <= NAME_MAX).ok_or_else(cut)?;
        let name = take(n).and_then(|name| String::from_utf8(name.to_vec()).ok()).ok_or_else(cut)?;
        let n_calls = take(4).and_then(int).ok_or_else(cut)?;
        let n_columns = take(4).and_then(int).filter(|n| *n <= ROW_MAX).ok_or_else(cut)?;
        let row = take(4 * n_columns).ok_or_else(cut)?;
        let calls = n_calls.max(1) as f32;
        let value = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]) / calls;
        importance.insert(name, row.chunks_exact(4).map(value).collect());
    }
    Ok(importance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_layout_is_read_and_a_cut_file_is_refused() {
        let mut bytes = Vec::new();
        for n in [1i32, 5] {
            bytes.extend(n.to_le_bytes());
        }
        bytes.extend(b"blk.0");
        for n in [2i32, 2] {
            bytes.extend(n.to_le_bytes());
        }
        for x in [4f32, 6.0] {
            bytes.extend(x.to_le_bytes());
        }
        let read = from_dat(&bytes, Path::new("m.dat")).unwrap();
        assert_eq!(read["blk.0"], [2.0, 3.0]);
        for n in 0..bytes.len() {
            assert!(from_dat(&bytes[..n], Path::new("m.dat")).is_err(), "{n}");
        }
    }
}
