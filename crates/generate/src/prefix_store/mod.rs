//! Beginnings of prompts on disk: what one process has computed, the next one reads.
//!
//! A file holds some consecutive pages of a prompt and is found by the digest of all tokens up to each page's end, so
//! prompts with a common beginning share files page by page. Nothing read is trusted before its checksum is seen to be
//! right: a torn, foreign or changed file is removed, and what it held is computed again. Files appear whole, by being
//! renamed, and may be removed by anyone at any time; several processes may use a folder.

mod segment;
#[cfg(test)]
mod tests;

pub(crate) use segment::Digest;

use rhetor_kernels::kv::PAGE_LEN;
use segment::Header;
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Where beginnings of prompts are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixStoreOptions {
    /// The folder, made if it is not there. Its files may be removed at any time.
    pub dir: PathBuf,
    /// Bytes of its files together; those used longest ago go first.
    pub max_bytes: u64,
    /// Tells the model, with its adapters, from every other: only what the same one computed is read.
    pub model: String,
}

/// How the files are called.
const EXTENSION: &str = "prefix";

/// Pages that a prompt must add to what is on disk to be worth a file: 256 tokens.
pub(crate) const PAGES_MIN: usize = 256 / PAGE_LEN;

/// Segments that may wait to be written; more are given up.
const WAITING_MAX: usize = 2;

/// A file that was never finished is removed when it is that old.
const ABANDONED: Duration = Duration::from_secs(600);

/// Files that this process has begun to write.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// The pages of a folder that this model can read.
#[derive(Debug)]
pub(crate) struct PrefixStore {
    folder: Arc<Folder>,
    /// The run read last: requests with the same beginning that come together read it once.
    last: Mutex<(Vec<Digest>, Weak<Run>)>,
    writer: Option<(SyncSender<Finished>, JoinHandle<()>)>,
}

#[derive(Debug)]
struct Folder {
    dir: PathBuf,
    max_bytes: u64,
    fingerprint: Digest,
    page_bytes: usize,
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    /// By digest: the file and the page in it.
    pages: HashMap<Digest, (Arc<Segment>, usize)>,
    /// By name: files of the folder, whether they are of this model or of another.
    files: HashMap<String, Option<Arc<Segment>>>,
    /// The folder's time when it was last looked through.
    seen: Option<SystemTime>,
    /// Pages that are about to be written.
    claimed: HashSet<Digest>,
}

#[derive(Debug)]
struct Segment {
    name: String,
    header: Header,
}

/// Consecutive pages of a prompt, as they are stored.
#[derive(Debug)]
pub(crate) struct Run {
    /// The first page of the prompt that it holds.
    pub first: usize,
    page_bytes: usize,
    bytes: Vec<u8>,
}

impl Run {
    /// How many pages there are.
    pub fn n_pages(&self) -> usize {
        self.bytes.len() / self.page_bytes
    }

    /// The bytes of its page `i`.
    pub fn page(&self, i: usize) -> &[u8] {
        &self.bytes[i * self.page_bytes..(i + 1) * self.page_bytes]
    }
}

/// Pages on their way to the disk. Dropping it gives the plan up.
#[derive(Debug)]
pub(crate) struct Claim {
    folder: Arc<Folder>,
    /// The first page of the prompt that is wanted.
    pub first: usize,
    /// The digest after each wanted page.
    digests: Vec<Digest>,
}

impl Claim {
    /// The page of the prompt after the last wanted one.
    pub fn end(&self) -> usize {
        self.first + self.digests.len()
    }
}

/// A claim with its pages.
struct Finished {
    claim: Claim,
    bytes: Vec<u8>,
}

impl PrefixStore {
    /// Opens a folder for pages of `page_bytes`, which depend on the model and on `settings`.
    pub fn open(options: &PrefixStoreOptions, settings: &str, page_bytes: usize) -> io::Result<PrefixStore> {
        fs::create_dir_all(&options.dir)?;
        let mut hash = Sha256::new();
        for part in [env!("CARGO_PKG_VERSION"), &options.model, settings] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update((page_bytes as u64).to_le_bytes());
        let folder = Arc::new(Folder {
            dir: options.dir.clone(),
            max_bytes: options.max_bytes,
            fingerprint: hash.finalize().into(),
            page_bytes,
            index: Mutex::default(),
        });
        folder.look(&mut folder.lock())?;
        let (tell, finished) = sync_channel(WAITING_MAX);
        let own = folder.clone();
        let thread = std::thread::Builder::new()
            .name("rhetor-prefixes".to_string())
            .spawn(move || own.write_all(&finished))?;
        Ok(PrefixStore { folder, last: Mutex::default(), writer: Some((tell, thread)) })
    }

    /// The digest after each full page of `tokens`.
    pub fn digests(&self, tokens: &[u32]) -> Arc<[Digest]> {
        let mut digest = self.folder.fingerprint;
        let pages = tokens.chunks_exact(PAGE_LEN);
        let next = |page: &[u32]| {
            let mut hash = Sha256::new();
            hash.update(digest);
            page.iter().for_each(|token| hash.update(token.to_le_bytes()));
            digest = hash.finalize().into();
            digest
        };
        pages.map(next).collect()
    }

    /// Reads what is known of a prompt's pages from page `first` on; `None` if that is nothing.
    pub fn read(&self, digests: &[Digest], first: usize) -> Option<Arc<Run>> {
        let n_known = {
            let mut index = self.folder.lock();
            // A folder that cannot be read has nothing for us.
            let _ = self.folder.look(&mut index);
            digests.iter().take_while(|digest| index.pages.contains_key(*digest)).count()
        };
        if n_known <= first {
            return None;
        }
        let wanted = &digests[first..n_known];
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = last.1.upgrade().filter(|run| run.first == first && last.0 == wanted) {
            return Some(run);
        }
        let run =
            Arc::new(Run { first, page_bytes: self.folder.page_bytes, bytes: self.folder.read(wanted) });
        *last = (wanted.to_vec(), Arc::downgrade(&run));
        (!run.bytes.is_empty()).then_some(run)
    }

    /// What of a prompt's pages should be written, if it is worth a file and nobody else does it.
    pub fn claim(&self, digests: &[Digest]) -> Option<Claim> {
        let mut index = self.folder.lock();
        let is_known = |digest: &Digest| index.pages.contains_key(digest) || index.claimed.contains(digest);
        let first = digests.iter().take_while(|digest| is_known(digest)).count();
        let wanted = &digests[first..];
        let n_bytes = wanted.len() as u64 * self.folder.page_bytes as u64;
        if wanted.len() < PAGES_MIN || n_bytes > self.folder.max_bytes {
            return None;
        }
        index.claimed.extend(wanted);
        Some(Claim { folder: self.folder.clone(), first, digests: wanted.to_vec() })
    }

    /// Hands the pages of a claim, one after the other, to the thread that writes them; given up if it is behind.
    pub fn write(&self, claim: Claim, bytes: Vec<u8>) {
        if let Some((tell, _)) = &self.writer
            && tell.try_send(Finished { claim, bytes }).is_err()
        {
            tracing::debug!("a prefix is not kept: the disk is behind");
        }
    }
}

impl Drop for PrefixStore {
    /// Waits until what was handed over is written.
    fn drop(&mut self) {
        if let Some((tell, thread)) = self.writer.take() {
            drop(tell);
            let _ = thread.join();
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut index = self.folder.lock();
        self.digests.iter().for_each(|digest| {
            index.claimed.remove(digest);
        });
    }
}

impl Folder {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the index up to date if the folder has changed since.
    fn look(&self, index: &mut Index) -> io::Result<()> {
        let changed = fs::metadata(&self.dir)?.modified()?;
        if index.seen == Some(changed) {
            return Ok(());
        }
        let mut names = HashSet::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name.ends_with(".tmp") && name.starts_with("rhetor-") {
                let age = entry.metadata().and_then(|data| data.modified()).map(|time| time.elapsed());
                if matches!(age, Ok(Ok(age)) if age > ABANDONED) {
                    let _ = fs::remove_file(&path);
                }
            }
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            if !index.files.contains_key(&name) {
                match Header::read(&path) {
                    Ok(Some(header)) if header.fingerprint == self.fingerprint => index.add(&name, header),
                    // Another model's.
                    Ok(Some(_)) => drop(index.files.insert(name.clone(), None)),
                    Ok(None) => {
                        tracing::warn!("{}: not a whole file of prefixes; removed", path.display());
                        let _ = fs::remove_file(&path);
                        continue;
                    }
                    Err(_) => continue,
                }
            }
            names.insert(name);
        }
        let gone: Vec<String> = index.files.keys().filter(|name| !names.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| index.forget(name));
        index.seen = Some(changed);
        Ok(())
    }

    /// The bytes of these pages, as many as can be read.
    fn read(&self, digests: &[Digest]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(digests.len() * self.page_bytes);
        let mut done = 0;
        while done < digests.len() {
            let Some((segment, first)) = self.lock().pages.get(&digests[done]).cloned() else { break };
            let own = segment.header.pages[first..].iter().zip(&digests[done..]);
            let n = own.take_while(|(page, digest)| page.0 == **digest).count();
            let path = self.dir.join(&segment.name);
            match read_run(&path, &segment.header, first, n, &mut bytes) {
                Ok(true) => done += n,
                Ok(false) => {
                    tracing::warn!("{}: not what was written; removed", path.display());
                    let _ = fs::remove_file(&path);
                    self.lock().forget(&segment.name);
                    break;
                }
                // Somebody has removed it.
                Err(_) => {
                    self.lock().forget(&segment.name);
                    break;
                }
            }
        }
        bytes
    }

    fn write_all(&self, finished: &Receiver<Finished>) {
        for Finished { claim, bytes } in finished {
            let header = Header::of(self.fingerprint, &claim.digests, self.page_bytes, &bytes);
            // Several models of this process may use the folder.
            let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
            let temporary = self.dir.join(format!("rhetor-{}-{number}.tmp", std::process::id()));
            if let Err(error) = self.write(&header, &bytes, &temporary) {
                tracing::warn!("{}: a prefix is not kept: {error}", self.dir.display());
                let _ = fs::remove_file(&temporary);
            }
        }
    }

    fn write(&self, header: &Header, bytes: &[u8], temporary: &Path) -> io::Result<()> {
        let name = header.file_name();
        self.make_room(header.file_bytes(), &name)?;
        header.write(&mut create(temporary)?, bytes)?;
        fs::rename(temporary, self.dir.join(&name))?;
        self.lock().add(&name, header.clone());
        Ok(())
    }

    /// Removes the files used longest ago until `n_bytes` more fit in; the file `name` is about to be replaced.
    fn make_room(&self, n_bytes: u64, name: &str) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let is_own = entry.path().extension().is_some_and(|extension| extension == EXTENSION);
            // What is gone meanwhile takes no room.
            if let (true, Ok(data)) = (is_own && entry.file_name() != name, entry.metadata()) {
                files.push((data.modified()?, data.len(), entry.file_name().to_string_lossy().into_owned()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, name) in files {
            if total + n_bytes <= self.max_bytes {
                break;
            }
            let _ = fs::remove_file(self.dir.join(&name));
            self.lock().forget(&name);
            total -= len;
        }
        Ok(())
    }
}

/// A new file that nobody else may read: prompts can be guessed from it.
fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn read_run(path: &Path, header: &Header, first: usize, n: usize, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let is_whole = header.read_pages(&mut file, first, n, bytes)?;
    // For those who look which file was used longest ago; a folder that refuses it is merely less well ordered.
    let _ = file.set_modified(SystemTime::now());
    Ok(is_whole)
}

impl Index {
    fn add(&mut self, name: &str, header: Header) {
        self.forget(name);
        let segment = Arc::new(Segment { name: name.to_string(), header });
        for (i, (digest, _)) in segment.header.pages.iter().enumerate() {
            self.pages.entry(*digest).or_insert_with(|| (segment.clone(), i));
        }
        self.files.insert(name.to_string(), Some(segment));
    }

    fn forget(&mut self, name: &str) {
        if let Some(Some(segment)) = self.files.remove(name) {
            for (digest, _) in &segment.header.pages {
                if self.pages.get(digest).is_some_and(|(known, _)| known.name == name) {
                    self.pages.remove(digest);
                }
            }
        }
    }
}
