//! The models on this machine.
//!
//! ```text
//! HOME/blobs/sha256-…      every file once, named by its content
//! HOME/models/NAME/FILE    the same files under their own names (hard links)
//! HOME/manifests/NAME.json what belongs to a model; written last, so a model without one was never finished
//! HOME/partial/…           what an unfinished pull has fetched
//! HOME/lock                held by the one process that changes the store
//! ```

use crate::builtin::{self, BUILTIN};
use crate::create::{made_by, now};
use crate::download::{self, Client, Download};
use crate::error::at;
use crate::file_name::slug;
use crate::manifest::{Manifest, StoredFile};
use crate::pull::{self, Network, Progress, PullOptions};
use crate::sha256::{self, hex};
use crate::{CATALOGUE, CatalogueEntry, Error, ModelName, Reference, Settings};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The folder inside a model's own that holds its adapter.
const ADAPTER: &str = ".adapter";

/// The models on this machine, below one folder.
#[derive(Debug, Clone)]
pub struct Store {
    home: PathBuf,
}

/// A model that is ready to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledModel {
    /// Its name in the store, or its path.
    pub name: String,
    /// The file or folder to open.
    pub path: PathBuf,
    /// The folder of the adapter that is attached to it, in PEFT's format.
    pub adapter: Option<PathBuf>,
    /// What the store knows about it; none for a file of the user's own.
    pub manifest: Option<Manifest>,
    /// Whether this pull has fetched anything.
    pub was_fetched: bool,
}

/// A file of a model, compared with its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCheck {
    /// The file as the manifest names it.
    pub file: StoredFile,
    /// What was found.
    pub state: FileState,
}

/// What was found in place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileState {
    /// Exactly the bytes that were pulled.
    Whole,
    /// Nothing.
    Missing,
    /// Other bytes.
    Changed {
        /// Their sha256 in hex.
        got: String,
    },
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The model's name.
    pub name: String,
    /// Bytes given back to the disk; files that another model shares stay.
    pub bytes: u64,
}

impl Store {
    /// The store in `home`; nothing is read or created yet.
    pub fn open(home: &Path) -> Store {
        Store { home: home.to_path_buf() }
    }

    /// The folder of the store.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Makes the model that `reference` names ready to be opened, fetching what is missing.
    ///
    /// A pull that was killed is continued by the next one. `on_progress` may break the pull off.
    pub fn pull(
        &self,
        reference: &str,
        options: &PullOptions,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<PulledModel, Error> {
        match self.find_here(reference, options.catalogue) {
            Err(Error::NotPulled { .. }) => {}
            here => return here,
        }
        if options.network == Network::Offline {
            return Err(Error::Offline { wanted: reference.to_string() });
        }
        let lock = self.lock(on_progress)?;
        // Another process may have pulled it while this one waited.
        if let Ok(here) = self.find_here(reference, options.catalogue) {
            return Ok(here);
        }
        let client = Client::new(options);
        let recipe = pull::find(&client, options, &Reference::parse(reference)?, on_progress)?;
        if on_progress(Progress::Planned(&recipe.plan)).is_break() {
            return Err(Error::Cancelled);
        }
        let mut files = pull::carry_out(&client, options, self, &recipe, on_progress)?;
        let adapter = files.split_off(files.len() - recipe.n_adapter);
        let plan = recipe.plan;
        let manifest = self.put(Manifest {
            schema: 1,
            name: plan.name,
            source: plan.source,
            licence: plan.licence,
            licence_terms: plan.licence_terms,
            pulled_at: now(),
            made_by: made_by(),
            files,
            folder: None,
            settings: Settings { adapter, ..recipe.settings },
        })?;
        drop(lock);
        Ok(PulledModel { was_fetched: true, ..self.pulled(manifest) })
    }

    /// Fetches one file that is no model, such as a data set, checks it and moves it to `target`.
    pub fn fetch(
        &self,
        url: &str,
        sha256: &str,
        target: &Path,
        options: &PullOptions,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if options.network == Network::Offline {
            return Err(Error::Offline { wanted: url.to_string() });
        }
        let _lock = self.lock(on_progress)?;
        let download = Download { sha256: Some(sha256.to_string()), ..download::from_url(url)? };
        let folder = target.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let fetched = Client::new(options).fetch(&download, folder, on_progress)?;
        std::fs::rename(&fetched.path, target).map_err(at(target))
    }

    /// The file or folder of the model that `reference` names, without asking the network.
    pub fn resolve(&self, reference: &str) -> Result<PathBuf, Error> {
        Ok(self.find_here(reference, CATALOGUE)?.path)
    }

    /// Every model of the store, by name.
    pub fn list(&self) -> Result<Vec<Manifest>, Error> {
        let folder = self.home.join("manifests");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&folder)(error)),
        };
        let mut manifests = Vec::new();
        for entry in entries {
            let path = entry.map_err(at(&folder))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                manifests.extend(Manifest::read(&path)?);
            }
        }
        manifests.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(manifests)
    }

    /// What the store knows about a pulled model, or the one that comes with the program; no path of the user's.
    pub fn show(&self, reference: &str) -> Result<PulledModel, Error> {
        if reference == BUILTIN || reference == "builtin:latest" {
            let path = builtin::file(&self.home)?;
            let manifest = Some(builtin::manifest());
            return Ok(PulledModel { manifest, ..in_place(BUILTIN.to_string(), path) });
        }
        Ok(self.pulled(self.find(reference)?))
    }

    /// The manifest of a pulled model, by any spelling of its name.
    pub(crate) fn find(&self, text: &str) -> Result<Manifest, Error> {
        let keys =
            [ModelName::parse(text).map(|name| name.key()), Reference::parse(text).map(|r| r.to_string())];
        for key in keys.iter().flatten() {
            if let Some(manifest) = Manifest::read(&self.manifest_path(key))? {
                return Ok(manifest);
            }
        }
        let [name, reference] = keys;
        let name = reference.or(name)?;
        Err(Error::NotPulled { name, home: self.home.clone() })
    }

    /// Reads every file of a pulled model and compares it with its sha256.
    pub fn verify(
        &self,
        reference: &str,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Vec<FileCheck>, Error> {
        let manifest = self.find(reference)?;
        let folder = self.folder_of(&manifest);
        let mut checks = Vec::new();
        let adapter = manifest.settings.adapter.into_iter().map(|file| (folder.join(ADAPTER), file));
        for (folder, file) in manifest.files.into_iter().map(|file| (folder.clone(), file)).chain(adapter) {
            let path = folder.join(&file.path);
            let state = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => FileState::Missing,
                Err(error) => return Err(at(&path)(error)),
                Ok(mut open) => match hash_of(&mut open, &path, &file, on_progress)? {
                    got if got == file.sha256 => FileState::Whole,
                    got => FileState::Changed { got },
                },
            };
            checks.push(FileCheck { file, state });
        }
        Ok(checks)
    }

    /// Where unfinished pulls leave what they have.
    pub(crate) fn partial(&self) -> PathBuf {
        self.home.join("partial")
    }

    /// Moves the finished file `from` among the blobs.
    pub(crate) fn keep_blob(&self, from: &Path, sha256: &str) -> Result<(), Error> {
        let blob = self.blob(sha256);
        let folder = self.home.join("blobs");
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        // A model that already has this blob keeps sharing it, unless its bytes have been spoilt since.
        let mut hash = Sha256::new();
        if let Ok(mut there) = File::open(&blob)
            && sha256::absorb(&mut there, &mut hash, |_| {}).is_ok()
            && hex(&hash.finalize()) == sha256
        {
            return fs::remove_file(from).map_err(at(from));
        }
        fs::rename(from, &blob).map_err(at(&blob))?;
        sync_folder(&folder);
        Ok(())
    }

    /// Removes a blob that no model needs.
    pub(crate) fn drop_blob(&self, sha256: &str) -> Result<(), Error> {
        let blob = self.blob(sha256);
        match fs::remove_file(&blob) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&blob)(error)),
            _ => Ok(()),
        }
    }

    /// The model on this disk: the user's own path, or a finished pull whose files are all there.
    fn find_here(&self, text: &str, catalogue: &[CatalogueEntry]) -> Result<PulledModel, Error> {
        let reference = Reference::parse(text)?;
        let name = reference.to_string();
        if name == BUILTIN {
            return Ok(in_place(name, builtin::file(&self.home)?));
        }
        match self.find(text) {
            Ok(manifest) => {
                let folder = self.folder_of(&manifest);
                let is_there = |folder: &Path, file: &StoredFile| {
                    fs::metadata(folder.join(&file.path)).is_ok_and(|found| found.len() == file.size)
                };
                let adapter = folder.join(ADAPTER);
                if manifest.files.iter().all(|file| is_there(&folder, file))
                    && manifest.settings.adapter.iter().all(|file| is_there(&adapter, file))
                {
                    return Ok(self.pulled(manifest));
                }
            }
            Err(Error::NotPulled { .. } | Error::Reference { .. } | Error::FileName { .. }) => {}
            Err(error) => return Err(error),
        }
        let is_listed = catalogue.iter().any(|entry| entry.name == name);
        match reference {
            Reference::Path(path) if path.exists() => Ok(in_place(name, path)),
            Reference::Name(_) if !is_listed && Path::new(text).exists() => Ok(in_place(name, text.into())),
            Reference::Path(path) => Err(Error::NoFile { path }),
            Reference::Name(_) if !is_listed => Err(Error::UnknownModel { name }),
            _ => Err(Error::NotPulled { name, home: self.home.clone() }),
        }
    }

    /// A model of the store as it is opened.
    pub(crate) fn pulled(&self, manifest: Manifest) -> PulledModel {
        let folder = self.folder_of(&manifest);
        let adapter = (!manifest.settings.adapter.is_empty()).then(|| folder.join(ADAPTER));
        let path = match manifest.files.as_slice() {
            [file] => folder.join(&file.path),
            _ => folder,
        };
        PulledModel {
            name: manifest.name.clone(),
            path,
            adapter,
            manifest: Some(manifest),
            was_fetched: false,
        }
    }

    /// Gives the blobs of `manifest` their own names, all at once.
    pub(crate) fn link(&self, manifest: &Manifest) -> Result<(), Error> {
        let models = self.home.join("models");
        fs::create_dir_all(&models).map_err(at(&models))?;
        let temporary = tempfile::Builder::new().prefix(".new-").tempdir_in(&models).map_err(at(&models))?;
        let adapter = temporary.path().join(ADAPTER);
        let files = manifest.files.iter().map(|file| (temporary.path(), file));
        for (folder, file) in files.chain(manifest.settings.adapter.iter().map(|f| (adapter.as_path(), f))) {
            let path = folder.join(&file.path);
            let folder = path.parent().expect("a file has a folder");
            fs::create_dir_all(folder).map_err(at(folder))?;
            let blob = self.blob(&file.sha256);
            // A file system without hard links pays with a copy.
            if fs::hard_link(&blob, &path).is_err() {
                fs::copy(&blob, &path).map_err(at(&path))?;
            }
        }
        let folder = self.folder_of(manifest);
        remove_folder(&folder)?;
        fs::rename(temporary.keep(), &folder).map_err(at(&folder))?;
        sync_folder(&models);
        Ok(())
    }

    /// The folder of a model about to be linked: called as the model, unless a manifest names that folder already with
    /// other files, which must stay whole until the new manifest is written.
    pub(crate) fn new_folder(&self, manifest: &Manifest) -> Result<Option<String>, Error> {
        let Some(there) = Manifest::read(&self.manifest_path(&manifest.name))? else { return Ok(None) };
        if there.files == manifest.files && there.settings.adapter == manifest.settings.adapter {
            return Ok(there.folder);
        }
        let files: String =
            manifest.all_files().map(|file| format!("{} {}\n", file.path, file.sha256)).collect();
        let told_apart = format!("{}.{}", manifest.name, &sha256::of_bytes(files.as_bytes())[..12]);
        Ok(Some(slug(&told_apart)))
    }

    /// Waits until no other process changes the store.
    pub(crate) fn lock(
        &self,
        on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<File, Error> {
        fs::create_dir_all(&self.home).map_err(at(&self.home))?;
        let path = self.home.join("lock");
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        if on_progress(Progress::Waiting).is_break() {
            return Err(Error::Cancelled);
        }
        file.lock().map_err(at(&path))?;
        Ok(file)
    }

    /// Where the blob of this sha256 lies or will lie.
    pub(crate) fn blob(&self, sha256: &str) -> PathBuf {
        self.home.join("blobs").join(format!("sha256-{sha256}"))
    }

    /// The folder in which a model's files have their own names.
    pub(crate) fn folder_of(&self, manifest: &Manifest) -> PathBuf {
        self.home.join("models").join(slug(manifest.folder.as_deref().unwrap_or(&manifest.name)))
    }

    /// The manifest of the model of this name.
    pub(crate) fn manifest_path(&self, name: &str) -> PathBuf {
        let name = ModelName::parse(name).map_or_else(|_| name.to_string(), |name| name.key());
        self.home.join("manifests").join(format!("{}.json", slug(&name)))
    }
}

/// Bytes left on the disk of `folder`, or of its nearest parent that exists.
pub fn free_space(folder: &Path) -> io::Result<u64> {
    let folder = std::path::absolute(folder)?;
    let there = folder.ancestors().find(|parent| parent.exists()).unwrap_or(&folder);
    fs4::available_space(there)
}

fn in_place(name: String, path: PathBuf) -> PulledModel {
    PulledModel { name, path, adapter: None, manifest: None, was_fetched: false }
}

fn hash_of(
    open: &mut File,
    path: &Path,
    file: &StoredFile,
    on_progress: &mut dyn FnMut(Progress<'_>),
) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let on_bytes = |done| on_progress(Progress::Checking { file: &file.path, done, total: file.size });
    sha256::absorb(open, &mut hash, on_bytes).map_err(at(path))?;
    Ok(hex(&hash.finalize()))
}

fn remove_folder(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(folder)(error)),
        _ => Ok(()),
    }
}

/// Makes a rename survive a power cut where the system can; elsewhere the next pull repairs it.
fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}
