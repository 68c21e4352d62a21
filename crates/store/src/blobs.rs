//! Blobs that callers bring themselves: hashed on the way, whole or absent.

use crate::error::at;
use crate::manifest::StoredFile;
use crate::sha256::{self, hex};
use crate::{Error, Store};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long a blob that no model names stays for the `create` that its caller is about to ask for.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

/// The hexadecimal digits of a digest `sha256:...` (or `sha256-...`, as files are called).
pub fn parse_digest(text: &str) -> Result<&str, Error> {
    let digits = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256-"));
    let checked = digits.and_then(|digits| sha256::check(digits).ok());
    checked.ok_or_else(|| Error::Digest { text: text.to_string() })
}

/// A blob that is being written. Dropped before [`BlobWriter::finish`], it leaves nothing.
pub struct BlobWriter {
    store: Store,
    temporary: tempfile::NamedTempFile,
    hash: Sha256,
    expected: String,
}

impl BlobWriter {
    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.temporary.write_all(bytes).map_err(at(self.temporary.path()))?;
        self.hash.update(bytes);
        Ok(())
    }

    /// Keeps the blob, if it is the one that was promised.
    pub fn finish(self) -> Result<(), Error> {
        let got = hex(&self.hash.finalize());
        if got != self.expected {
            return Err(Error::Hash { what: "the blob".to_string(), expected: self.expected, got });
        }
        let path = self.temporary.path().to_path_buf();
        self.temporary.as_file().sync_all().map_err(at(&path))?;
        let kept = self.temporary.into_temp_path().keep().map_err(|e| at(&path)(e.error))?;
        self.store.keep_blob(&kept, &got)
    }
}

impl Store {
    /// Begins to write the blob of this sha256 (in hex).
    pub fn write_blob(&self, sha256: &str) -> Result<BlobWriter, Error> {
        let expected = sha256::check(sha256)?.to_string();
        let folder = self.partial();
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        let temporary = tempfile::NamedTempFile::new_in(&folder).map_err(at(&folder))?;
        Ok(BlobWriter { store: self.clone(), temporary, hash: Sha256::new(), expected })
    }

    /// The blob of this sha256 (in hex) as a file of a model that is called `path` there.
    pub fn stored_file(&self, path: &str, sha256: &str) -> Result<StoredFile, Error> {
        crate::file_name::check(path)?;
        let size = fs::metadata(self.find_blob(sha256)?).map_err(at(Path::new(path)))?.len();
        Ok(StoredFile { path: path.to_string(), size, sha256: sha256.to_string() })
    }

    /// Where the blob of this sha256 (in hex) lies.
    pub fn find_blob(&self, sha256: &str) -> Result<PathBuf, Error> {
        let blob = self.blob(sha256::check(sha256)?);
        if blob.is_file() { Ok(blob) } else { Err(Error::NoBlob { sha256: sha256.to_string() }) }
    }

    /// Whether the blob of this sha256 (in hex) is here; if so, it stays a day longer for a model that is to name it.
    pub fn reserve_blob(&self, sha256: &str) -> Result<bool, Error> {
        match self.find_blob(sha256) {
            Ok(blob) => {
                // A store that cannot be written loses nothing either.
                let _ = File::open(&blob).and_then(|file| file.set_modified(SystemTime::now()));
                Ok(true)
            }
            Err(Error::NoBlob { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// An empty folder on the disk of the store, removed when dropped.
    pub fn scratch(&self) -> Result<tempfile::TempDir, Error> {
        let folder = self.partial();
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        tempfile::Builder::new().prefix(".scratch-").tempdir_in(&folder).map_err(at(&folder))
    }

    /// Moves the finished file `from`, which lies in a [`Store::scratch`], among the blobs; its name stays.
    pub fn adopt(&self, from: &Path) -> Result<StoredFile, Error> {
        let mut file = File::open(from).map_err(at(from))?;
        let mut hash = Sha256::new();
        let size = sha256::absorb(&mut file, &mut hash, |_| {}).map_err(at(from))?;
        file.sync_all().map_err(at(from))?;
        let sha256 = hex(&hash.finalize());
        self.keep_blob(from, &sha256)?;
        let path = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(StoredFile { path, size, sha256 })
    }

    /// Removes what no manifest names: folders of models, and those blobs that are in `gone` or older than a day.
    ///
    /// The caller holds the lock. Returns the bytes of the blobs.
    pub(crate) fn sweep(&self, gone: &[StoredFile]) -> Result<u64, Error> {
        let manifests = self.list()?;
        let folders: Vec<PathBuf> = manifests.iter().map(|manifest| self.folder_of(manifest)).collect();
        for path in entries(&self.home().join("models"))? {
            if !folders.contains(&path) {
                fs::remove_dir_all(&path).map_err(at(&path))?;
            }
        }
        let mut bytes = 0;
        for path in entries(&self.home().join("blobs"))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(sha256) = name.strip_prefix("sha256-") else { continue };
            if manifests.iter().any(|manifest| manifest.all_files().any(|file| file.sha256 == sha256)) {
                continue;
            }
            if gone.iter().any(|file| file.sha256 == sha256) || is_old(&path) {
                bytes += fs::metadata(&path).map_or(0, |found| found.len());
                self.drop_blob(sha256)?;
            }
        }
        Ok(bytes)
    }
}

/// What lies in a folder; nothing if there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(at(folder))?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(at(folder)(error)),
    }
}

fn is_old(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|found| found.modified());
    modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > ORPHAN_AGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_64_digits_and_nothing_else() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(parse_digest(&format!("sha256:{digits}")).unwrap(), digits);
        for bad in [
            "sha256:../../etc/passwd".to_string(),
            format!("sha256:../{}", &digits[3..]),
            format!("sha256:{}", digits.to_uppercase()),
            format!("sha256:{digits}0"),
            format!("sha256:{}/", &digits[1..]),
            format!("md5:{digits}"),
            digits.clone(),
            String::new(),
        ] {
            assert!(matches!(parse_digest(&bad), Err(Error::Digest { .. })), "{bad}");
        }
    }

    #[test]
    fn a_blob_that_is_not_what_was_promised_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path());
        let promised = sha256::of_bytes(b"promised");
        let mut writer = store.write_blob(&promised).unwrap();
        writer.write(b"other").unwrap();
        let error = writer.finish().unwrap_err();
        assert!(matches!(&error, Error::Hash { expected, got, .. }
            if *expected == promised && *got == sha256::of_bytes(b"other")));
        assert!(matches!(store.find_blob(&promised), Err(Error::NoBlob { .. })));
        assert_eq!(fs::read_dir(home.path().join("partial")).unwrap().count(), 0);

        let mut writer = store.write_blob(&promised).unwrap();
        writer.write(b"prom").unwrap();
        writer.write(b"ised").unwrap();
        writer.finish().unwrap();
        assert_eq!(fs::read(store.find_blob(&promised).unwrap()).unwrap(), b"promised");
        assert!(matches!(store.write_blob("../x"), Err(Error::Digest { .. })));
    }

    #[test]
    fn a_blob_that_no_model_names_stays_for_a_day_after_it_was_last_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path());
        let old = SystemTime::now() - ORPHAN_AGE - Duration::from_secs(60);
        for name in ["asked for", "forgotten"] {
            let sha256 = sha256::of_bytes(name.as_bytes());
            let mut writer = store.write_blob(&sha256).unwrap();
            writer.write(name.as_bytes()).unwrap();
            writer.finish().unwrap();
            File::open(store.find_blob(&sha256).unwrap()).unwrap().set_modified(old).unwrap();
        }
        assert!(store.reserve_blob(&sha256::of_bytes(b"asked for")).unwrap());
        assert_eq!(store.sweep(&[]).unwrap(), 9);
        assert!(store.reserve_blob(&sha256::of_bytes(b"asked for")).unwrap());
        assert!(!store.reserve_blob(&sha256::of_bytes(b"forgotten")).unwrap());
    }
}
