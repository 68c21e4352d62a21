//! From the name of a data set to open, decompressed, decoded files: paths, folders, members of archives.

use crate::Error;
use flate2::bufread::MultiGzDecoder;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes read at once.
const BUFFER: usize = 1 << 18;

/// Where data lies: a file, a folder (all its files, sorted), or `archive.zip#member` (`#folder/` = all below
/// it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file or folder.
    pub path: PathBuf,
    /// What of an archive.
    pub member: Option<String>,
}

impl Source {
    /// Reads `path` or `archive.zip#member`; a file whose name has a `#` is found, too.
    pub fn parse(text: &str) -> Source {
        match text.rsplit_once('#') {
            Some((archive, member)) if !Path::new(text).exists() && is_zip(archive) => {
                Source { path: archive.into(), member: Some(member.to_string()) }
            }
            _ => Source { path: text.into(), member: None },
        }
    }

    /// All of a file or folder.
    pub fn of(path: impl Into<PathBuf>) -> Source {
        Source { path: path.into(), member: None }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.member {
            Some(member) => write!(f, "{}#{member}", self.path.display()),
            None => write!(f, "{}", self.path.display()),
        }
    }
}

/// One file to read: a file of the disk or a member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    /// The file, or the archive.
    pub path: PathBuf,
    /// What of an archive.
    pub member: Option<String>,
    /// Whether the user named it, and not just its folder or archive.
    pub is_named: bool,
}

impl DataFile {
    /// The path that messages show.
    pub fn shown(&self) -> PathBuf {
        match &self.member {
            Some(member) => PathBuf::from(format!("{}#{member}", self.path.display())),
            None => self.path.clone(),
        }
    }

    /// The file's name without `.gz`, in small letters.
    pub fn name(&self) -> String {
        let name = match &self.member {
            Some(member) => member.rsplit('/').next().unwrap_or_default().to_string(),
            None => self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let name = name.to_lowercase();
        name.strip_suffix(".gz").unwrap_or(&name).to_string()
    }

    /// The last part of the name, after its last dot.
    pub fn extension(&self) -> String {
        self.name().rsplit_once('.').map_or(String::new(), |(_, extension)| extension.to_string())
    }

    /// Opens the file and passes its text on: decompressed, as UTF-8, without a byte order mark.
    pub fn open<T>(&self, read: impl FnOnce(&mut dyn BufRead) -> T) -> Result<T, Error> {
        let file = File::open(&self.path).map_err(Error::io(&self.path))?;
        let Some(member) = &self.member else {
            return self.decoded(BufReader::with_capacity(BUFFER, file), read);
        };
        let broken = |error: zip::result::ZipError| Error::Archive {
            path: self.path.clone(),
            reason: format!("{member}: {error}"),
        };
        let mut archive = zip::ZipArchive::new(file).map_err(broken)?;
        let member = archive.by_name(member).map_err(broken)?;
        self.decoded(BufReader::with_capacity(BUFFER, member), read)
    }

    fn decoded<T>(&self, bytes: impl BufRead, read: impl FnOnce(&mut dyn BufRead) -> T) -> Result<T, Error> {
        let outer = self.member.as_deref().unwrap_or(self.path.to_str().unwrap_or_default());
        let is_packed = outer.to_ascii_lowercase().ends_with(".gz");
        let is_latin1 = self.name().contains(".latin1.");
        let bytes: Box<dyn BufRead + '_> = match is_packed {
            true => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(bytes))),
            false => Box::new(bytes),
        };
        let mut text: Box<dyn BufRead + '_> = match is_latin1 {
            true => Box::new(BufReader::with_capacity(BUFFER, Latin1 { bytes })),
            false => bytes,
        };
        let start = text.fill_buf().map_err(Error::io(&self.shown()))?;
        if start.starts_with(&[0xEF, 0xBB, 0xBF]) {
            text.consume(3);
        }
        Ok(read(&mut *text))
    }
}

/// The files of a source, in the order in which they are read.
pub(crate) fn files(source: &Source) -> Result<Vec<DataFile>, Error> {
    let file = |path: PathBuf, is_named| DataFile { path, member: None, is_named };
    let metadata = fs::metadata(&source.path).map_err(Error::io(&source.path))?;
    if metadata.is_dir() {
        let mut paths = Vec::new();
        walk(&source.path, &mut paths)?;
        let mut all = Vec::new();
        for path in paths {
            match is_zip(&path.to_string_lossy()) {
                true => all.extend(members(&path, None)?),
                false => all.push(file(path, false)),
            }
        }
        return Ok(all);
    }
    match is_zip(&source.path.to_string_lossy()) {
        true => members(&source.path, source.member.as_deref()),
        false => Ok(vec![file(source.path.clone(), true)]),
    }
}

fn is_zip(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".zip")
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name == "__MACOSX"
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), Error> {
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let mut entries = entries.map_err(Error::io(folder))?;
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries.into_iter().filter(|entry| !is_hidden(&entry.file_name().to_string_lossy())) {
        let path = entry.path();
        match fs::metadata(&path).map_err(Error::io(&path))?.is_dir() {
            true => walk(&path, paths)?,
            false => paths.push(path),
        }
    }
    Ok(())
}

/// The members of an archive that are wanted, sorted.
fn members(path: &Path, wanted: Option<&str>) -> Result<Vec<DataFile>, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let broken = |reason: String| Error::Archive { path: path.to_path_buf(), reason };
    let archive = zip::ZipArchive::new(file).map_err(|error| broken(error.to_string()))?;
    let names = archive.file_names().map(|name| name.map(|name| name.into_owned()));
    let mut names: Vec<String> =
        names.collect::<Result<_, _>>().map_err(|error| broken(error.to_string()))?;
    names.retain(|name| !name.ends_with('/'));
    names.sort_unstable();
    let all = names.join(", ");
    names.retain(|name| match wanted {
        Some(folder) if folder.ends_with('/') => name.starts_with(folder),
        Some(member) => name == member,
        None => !name.split('/').any(is_hidden),
    });
    if names.is_empty() {
        let wanted = wanted.unwrap_or("a file");
        return Err(broken(format!("expected {wanted} inside; the members are {all}")));
    }
    let is_named = wanted.is_some_and(|wanted| !wanted.ends_with('/'));
    let file = |name: String| DataFile { path: path.to_path_buf(), member: Some(name), is_named };
    Ok(names.into_iter().map(file).collect())
}

/// ISO 8859-1 as UTF-8: byte b is character U+00b.
struct Latin1<R> {
    bytes: R,
}

impl<R: BufRead> Read for Latin1<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.bytes.fill_buf()?;
        let (mut n_read, mut n_written) = (0, 0);
        for &byte in bytes {
            let mut utf8 = [0; 2];
            let utf8 = char::from(byte).encode_utf8(&mut utf8).as_bytes();
            let Some(place) = out.get_mut(n_written..n_written + utf8.len()) else { break };
            place.copy_from_slice(utf8);
            n_written += utf8.len();
            n_read += 1;
        }
        self.bytes.consume(n_read);
        Ok(n_written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(file: &DataFile) -> String {
        let mut text = String::new();
        file.open(|reader| reader.read_to_string(&mut text).map(|_| ())).unwrap().unwrap();
        text
    }

    #[test]
    fn files_are_decompressed_and_decoded_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("b.txt"), "\u{feff}caf\u{e9}").unwrap();
        fs::write(at("a.latin1.txt"), b"caf\xe9").unwrap();
        let mut packed =
            flate2::write::GzEncoder::new(File::create(at("c.txt.gz")).unwrap(), Default::default());
        packed.write_all("café".as_bytes()).unwrap();
        packed.finish().unwrap();
        fs::write(at(".hidden"), "x").unwrap();
        let all = files(&Source::of(folder.path())).unwrap();
        let names: Vec<String> = all.iter().map(DataFile::name).collect();
        assert_eq!(names, ["a.latin1.txt", "b.txt", "c.txt"]);
        assert!(all.iter().all(|file| read(file) == "café" && file.extension() == "txt"));
    }

    #[test]
    fn members_of_an_archive_are_named_after_a_hash_sign() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        for name in ["d/y.txt", "d/x.txt", "z.txt"] {
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(name.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
        let names = |member: &str| {
            let source = Source::parse(&format!("{}{member}", path.display()));
            files(&source).map(|files| files.iter().map(read).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(names("").unwrap(), "d/x.txt d/y.txt z.txt");
        assert_eq!(names("#d/").unwrap(), "d/x.txt d/y.txt");
        assert_eq!(names("#z.txt").unwrap(), "z.txt");
        let missing = names("#w.txt").unwrap_err().to_string();
        assert!(
            missing.ends_with("expected w.txt inside; the members are d/x.txt, d/y.txt, z.txt"),
            "{missing}"
        );
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        fs::write(&path, "no archive").unwrap();
        assert!(matches!(files(&Source::of(&path)), Err(Error::Archive { .. })));
        assert!(matches!(files(&Source::of(folder.path().join("none"))), Err(Error::Io { .. })));
    }
}
