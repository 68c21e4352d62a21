//! New models out of blobs that are here: `create`, `copy` and `remove`.

use crate::builtin::BUILTIN;
use crate::error::at;
use crate::manifest::{Manifest, StoredFile};
use crate::store::{PulledModel, Removed};
use crate::{Error, ModelName, Settings, Store};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A model that is about to be made; its files are blobs of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// What it will be called.
    pub name: ModelName,
    /// Where its files came from, in words.
    pub source: String,
    /// The licence, by its short name, where the source says it.
    pub licence: Option<String>,
    /// Its files: one: the model is that file; more: the model is a folder.
    pub files: Vec<StoredFile>,
    /// What it adds to them.
    pub settings: Settings,
}

impl Store {
    /// Makes the model that `draft` says, whole or not at all; one of that name is replaced.
    pub fn create(&self, draft: Draft) -> Result<PulledModel, Error> {
        not_builtin(&draft.name)?;
        let _lock = self.lock(&mut |_| ControlFlow::Continue(()))?;
        for file in draft.files.iter().chain(&draft.settings.adapter) {
            self.find_blob(&file.sha256)?;
        }
        let there = self.find(&draft.name.to_string()).ok();
        let manifest = Manifest {
            schema: 1,
            // The spelling of a name that exists wins.
            name: there.as_ref().map_or_else(|| draft.name.stored(), |there| there.name.clone()),
            source: draft.source,
            licence: draft.licence,
            licence_terms: None,
            pulled_at: now(),
            made_by: made_by(),
            files: draft.files,
            folder: None,
            settings: draft.settings,
        };
        let replaced = there.map_or(Vec::new(), |there| there.all_files().cloned().collect());
        let manifest = self.put(manifest)?;
        self.sweep(&replaced)?;
        Ok(self.pulled(manifest))
    }

    /// Gives the model `source` a second name; the files are shared.
    pub fn copy(&self, source: &str, destination: &ModelName) -> Result<PulledModel, Error> {
        not_builtin(destination)?;
        let manifest = self.share(source)?;
        let _lock = self.lock(&mut |_| ControlFlow::Continue(()))?;
        let there = self.find(&destination.to_string()).ok();
        let name = there.as_ref().map_or_else(|| destination.stored(), |there| there.name.clone());
        if name == manifest.name {
            return Ok(self.pulled(manifest));
        }
        let replaced = there.map_or(Vec::new(), |there| there.all_files().cloned().collect());
        let manifest = self.put(Manifest { name, folder: None, ..manifest })?;
        self.sweep(&replaced)?;
        Ok(self.pulled(manifest))
    }

    /// The manifest of a model whose files are blobs, as those of a new model must be: the model that comes with the program
    /// lies elsewhere and is copied.
    pub fn share(&self, source: &str) -> Result<Manifest, Error> {
        let shown = self.show(source)?;
        let manifest = shown.manifest.expect("a shown model has a manifest");
        for file in &manifest.files {
            if self.find_blob(&file.sha256).is_err() {
                self.import(&shown.path)?;
            }
        }
        Ok(manifest)
    }

    /// Copies a file of the user's own among the blobs; its name stays.
    pub fn import(&self, from: &Path) -> Result<StoredFile, Error> {
        let scratch = self.scratch()?;
        let copy = scratch.path().join(from.file_name().unwrap_or_default());
        fs::copy(from, &copy).map_err(at(from))?;
        self.adopt(&copy)
    }

    /// Removes a pulled model; files that another model shares stay.
    pub fn remove(&self, reference: &str) -> Result<Removed, Error> {
        // A store that does not have the model is left as it is, even if there is none yet.
        self.find(reference)?;
        let _lock = self.lock(&mut |_| ControlFlow::Continue(()))?;
        let manifest = self.find(reference)?;
        let path = self.manifest_path(&manifest.name);
        fs::remove_file(&path).map_err(at(&path))?;
        let gone: Vec<StoredFile> = manifest.all_files().cloned().collect();
        Ok(Removed { bytes: self.sweep(&gone)?, name: manifest.name })
    }

    /// Links the files of `manifest`, then writes it: killed at any moment, the store has the old model or the new one.
    ///
    /// The caller holds the lock.
    pub(crate) fn put(&self, mut manifest: Manifest) -> Result<Manifest, Error> {
        manifest.folder = self.new_folder(&manifest)?;
        self.link(&manifest)?;
        manifest.write(&self.manifest_path(&manifest.name))?;
        Ok(manifest)
    }
}

/// Refuses the name of the model that comes with the program.
fn not_builtin(name: &ModelName) -> Result<(), Error> {
    if name.key() != BUILTIN {
        return Ok(());
    }
    let reason = "that name belongs to the model that comes with the program";
    Err(Error::Reference { text: name.to_string(), reason })
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The program that writes manifests.
pub(crate) fn made_by() -> String {
    concat!("rhetor ", env!("CARGO_PKG_VERSION")).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileState;
    use crate::settings::Turn;
    use crate::sha256;

    fn blob(store: &Store, bytes: &[u8]) -> StoredFile {
        let sha256 = sha256::of_bytes(bytes);
        let mut writer = store.write_blob(&sha256).unwrap();
        writer.write(bytes).unwrap();
        writer.finish().unwrap();
        store.stored_file("m.gguf", &sha256).unwrap()
    }

    fn draft(name: &str, files: Vec<StoredFile>) -> Draft {
        let name = ModelName::parse(name).unwrap();
        Draft { name, source: "test".to_string(), licence: None, files, settings: Settings::default() }
    }

    fn assert_whole(store: &Store, name: &str) {
        for check in store.verify(name, &mut |_| {}).unwrap() {
            assert_eq!(check.state, FileState::Whole);
        }
    }

    #[test]
    fn a_created_model_is_found_by_any_spelling_and_shares_its_files() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path());
        let file = blob(&store, b"numbers");
        let mut made = draft("Me/Mine:v1", vec![file.clone()]);
        made.settings.system = Some("Be brief.".to_string());
        made.settings.messages = vec![Turn { role: "user".to_string(), content: "Hello".to_string() }];
        let settings = made.settings.clone();
        let created = store.create(made).unwrap();
        assert_eq!(created.name, "Me/Mine:v1");
        assert_eq!(fs::read(&created.path).unwrap(), b"numbers");
        for spelling in ["me/mine:v1", "registry.ollama.ai/ME/mine:V1"] {
            assert_eq!(store.show(spelling).unwrap().manifest.unwrap().settings, settings);
        }
        store.copy("me/mine:v1", &ModelName::parse("other").unwrap()).unwrap();
        // The spelling that exists wins.
        let again = store.create(draft("OTHER:latest", vec![blob(&store, b"more")])).unwrap();
        assert_eq!((again.name.as_str(), fs::read(&again.path).unwrap().as_slice()), ("other", &b"more"[..]));
        assert_whole(&store, "other:latest");
        store.copy("me/mine:v1", &ModelName::parse("third").unwrap()).unwrap();
        assert_eq!(store.remove("third").unwrap().bytes, 0);
        assert_whole(&store, "Me/Mine:v1");
        assert_eq!(store.remove("me/mine:v1").unwrap().bytes, 7);
        assert!(matches!(store.show("me/mine:v1"), Err(Error::NotPulled { .. })));
        assert!(store.find_blob(&file.sha256).is_err());
    }

    #[test]
    fn replacing_a_model_never_leaves_a_moment_without_one() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path());
        store.create(draft("m", vec![blob(&store, b"one")])).unwrap();
        let before = store.show("m").unwrap();
        // What a kill between the two steps of `put` leaves: the new folder, the old manifest.
        let file = blob(&store, b"two");
        let mut manifest = Manifest { files: vec![file.clone()], ..before.manifest.clone().unwrap() };
        manifest.folder = store.new_folder(&manifest).unwrap();
        store.link(&manifest).unwrap();
        assert_eq!(store.show("m").unwrap(), before);
        assert_whole(&store, "m");
        store.create(draft("m", vec![file])).unwrap();
        assert_eq!(fs::read(store.resolve("m").unwrap()).unwrap(), b"two");
        assert_eq!(fs::read_dir(home.path().join("models")).unwrap().count(), 1);
    }

    #[test]
    fn a_model_of_missing_blobs_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path());
        let sha256 = sha256::of_bytes(b"nowhere");
        let file = StoredFile { path: "m.gguf".to_string(), size: 7, sha256: sha256.clone() };
        let error = store.create(draft("m", vec![file])).unwrap_err();
        assert!(matches!(error, Error::NoBlob { sha256: missing } if missing == sha256));
        assert!(store.list().unwrap().is_empty());
    }
}
