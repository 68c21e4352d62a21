//! What the store knows about a pulled model.

use crate::error::at;
use crate::{Error, file_name};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// What the store knows about a pulled model: one JSON file each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Layout of this file; 1.
    pub schema: u32,
    /// The reference that the model was pulled by, in its canonical spelling.
    pub name: String,
    /// Where it came from, with the exact version or commit.
    pub source: String,
    /// Its licence, where the source says it.
    pub licence: Option<String>,
    /// What the licence restricts, where the catalogue knows it.
    pub licence_terms: Option<String>,
    /// When it was pulled, in seconds since 1970-01-01 UTC.
    pub pulled_at: u64,
    /// The program that wrote this file.
    pub made_by: String,
    /// Its files: one: the model is that file; more: the model is a folder.
    pub files: Vec<StoredFile>,
}

/// One file of a pulled model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFile {
    /// Its path inside the model.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// sha256 in hex; also the name of its blob.
    pub sha256: String,
}

impl Manifest {
    /// Bytes of the model on disk.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Reads and checks the manifest in `path`; `None` if there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Manifest>, Error> {
        let broken = |reason: String| Error::Manifest { path: path.to_path_buf(), reason };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(path)(error)),
        };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
        if manifest.schema != 1 {
            return Err(broken(format!("schema is {}; expected 1", manifest.schema)));
        }
        if manifest.files.is_empty() {
            return Err(broken("it lists no file".to_string()));
        }
        for file in &manifest.files {
            file_name::check(&file.path).map_err(|e| broken(e.to_string()))?;
            let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            if file.sha256.len() != 64 || !file.sha256.chars().all(is_hex) {
                return Err(broken(format!("`{}` is no sha256", file.sha256)));
            }
        }
        Ok(Some(manifest))
    }

    /// Writes the manifest to `path`, whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let folder = path.parent().expect("a manifest has a folder");
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(at(folder))?;
        let text = serde_json::to_string_pretty(self).expect("a manifest has only strings and numbers");
        temporary.write_all(text.as_bytes()).map_err(at(path))?;
        temporary.as_file().sync_all().map_err(at(path))?;
        temporary.persist(path).map_err(|e| at(path)(e.error))?;
        Ok(())
    }
}
