//! What the store knows about a pulled model.

use crate::error::at;
use crate::{Error, Settings, file_name, sha256};
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
    /// The folder below `models` that holds them, if it is not called as the model is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What it adds to them.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
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
        self.all_files().map(|file| file.size).sum()
    }

    /// The model's files, then those of its adapter.
    pub fn all_files(&self) -> impl Iterator<Item = &StoredFile> {
        self.files.iter().chain(&self.settings.adapter)
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
        for file in manifest.all_files() {
            file_name::check(&file.path).map_err(|e| broken(e.to_string()))?;
            sha256::check(&file.sha256).map_err(|e| broken(e.to_string()))?;
        }
        if let Some(folder) = manifest.folder.as_deref().filter(|folder| file_name::slug(folder) != **folder)
        {
            return Err(broken(format!("`{folder}` is no name of a folder")));
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
