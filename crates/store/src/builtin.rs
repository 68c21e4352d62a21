//! The model that comes inside the program: a toy that speaks without a network.
//!
//! `recipes/builtin` says how it was trained, by this program, on novels in the public domain.

use crate::Error;
use crate::error::at;
use crate::manifest::{Manifest, StoredFile};
use crate::{Settings, sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Its name.
pub const BUILTIN: &str = "builtin";

/// The GGUF file.
const BYTES: &[u8] = include_bytes!("../../../recipes/builtin/builtin.gguf");

/// What the store knows about it.
pub fn manifest() -> Manifest {
    let (size, sha256) = (BYTES.len() as u64, sha256::of_bytes(BYTES));
    Manifest {
        schema: 1,
        name: BUILTIN.to_string(),
        source: "comes with the program".to_string(),
        licence: None,
        licence_terms: None,
        pulled_at: 0,
        made_by: crate::create::made_by(),
        files: vec![StoredFile { path: "builtin.gguf".to_string(), size, sha256 }],
        folder: None,
        settings: Settings::default(),
    }
}

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
