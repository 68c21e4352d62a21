//! The model that comes inside the program: a toy that speaks without a network.
//!
//! `recipes/builtin` says how it was trained, by this program, on novels in the public domain.

use crate::Error;
use crate::error::at;
use std::fs;
use std::path::{Path, PathBuf};

/// Its name.
pub const BUILTIN: &str = "builtin";

/// The GGUF file.
const BYTES: &[u8] = include_bytes!("../../../recipes/builtin/builtin.gguf");

/// The file in the store at `home`, written if it is not there or is another version's.
pub fn file(home: &Path) -> Result<PathBuf, Error> {
    let folder = home.join("builtin");
    let path = folder.join("builtin.gguf");
    if fs::read(&path).is_ok_and(|bytes| bytes == BYTES) {
        return Ok(path);
    }
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let part = folder.join(format!(".builtin.gguf.{}.part", std::process::id()));
    fs::write(&part, BYTES).map_err(at(&part))?;
    fs::rename(&part, &path).map_err(at(&path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_copy_is_written_anew() {
        let home = tempfile::tempdir().unwrap();
        let path = file(home.path()).unwrap();
        fs::write(&path, b"damaged").unwrap();
        assert_eq!(fs::read(file(home.path()).unwrap()).unwrap(), BYTES);
        assert!(BYTES.len() <= 6_000_000 && BYTES.starts_with(b"GGUF"));
    }
}
