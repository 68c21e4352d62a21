//! One view of every kind of model file: metadata, tensors, bytes.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rhetor_kernels::map::Map;

use crate::metadata::Metadata;
use crate::{ElementType, Error, Place, gguf, hugging_face, llama2c, onnx, pickle, safetensors};

/// A model file or directory, opened and checked.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    kind: Kind,
    metadata: Metadata,
    tensors: Vec<TensorEntry>,
    index: HashMap<String, usize>,
    sources: Vec<Source>,
}

/// What a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A GGUF file.
    Gguf,
    /// Weights of any format with a `config.json` beside them.
    HuggingFace,
    /// safetensors without a `config.json`.
    Safetensors,
    /// A PyTorch pickle without a `config.json`.
    PyTorch,
    /// A llama2.c `.bin` file.
    Llama2C,
    /// An ONNX graph, of which only the weights are read.
    Onnx,
}

/// Where a tensor is and how it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name in the file.
    pub name: String,
    /// How its elements are stored.
    pub dtype: ElementType,
    /// Outermost dimension first, as in PyTorch (GGUF's own order reversed).
    pub shape: Vec<usize>,
    /// Which of the checkpoint's files holds it.
    pub file: usize,
    /// Where its data begin in that file, in bytes.
    pub offset: usize,
    /// The length of its data in bytes.
    pub n_bytes: usize,
}

/// Where the bytes of tensors come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A mapped file.
    Map(Map),
    /// A file in memory, or the tensors of a pickle or of a graph that had to be brought in order.
    Owned(Vec<u8>),
}

/// What a reader finds in a file.
pub(crate) struct Contents {
    pub kind: Kind,
    pub metadata: Metadata,
    pub tensors: Vec<TensorEntry>,
    pub sources: Vec<Source>,
}

/// The formats that [`Checkpoint::open`] knows, for its messages.
const EXPECTED: &str = "GGUF, safetensors, a PyTorch checkpoint, ONNX or llama2.c";

impl Checkpoint {
    /// Opens a file (GGUF, safetensors, PyTorch pickle, ONNX, llama2.c) or a directory (Hugging Face; or one GGUF in it).
    ///
    /// The kind is told from the content. Everything is checked here: afterwards every tensor has its bytes.
    pub fn open(path: &Path) -> Result<Checkpoint, Error> {
        let is_dir = fs::metadata(path).map_err(Error::io("open", path))?.is_dir();
        let contents =
            if is_dir { hugging_face::open_directory(path)? } else { hugging_face::open_weights(path)? };
        Ok(Checkpoint::new(path, contents))
    }

    /// Reads a whole file of any of these formats that is already in memory; `path` names it in errors.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Checkpoint, Error> {
        read(path, Source::Owned(bytes)).map(|contents| Checkpoint::new(path, contents))
    }

    fn new(path: &Path, contents: Contents) -> Checkpoint {
        let Contents { kind, metadata, tensors, sources } = contents;
        let index = tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
        Checkpoint { path: path.to_path_buf(), kind, metadata, tensors, index, sources }
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// GGUF's key-values, or `config.json` with nested keys joined by `.`.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Every tensor, in the order of the file.
    pub fn tensors(&self) -> &[TensorEntry] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn find(&self, name: &str) -> Option<&TensorEntry> {
        Some(&self.tensors[*self.index.get(name)?])
    }

    /// The tensor's bytes as they are in the file: little-endian, and at any alignment.
    ///
    /// Panics if `tensor` is not from this checkpoint.
    pub fn bytes(&self, tensor: &TensorEntry) -> &[u8] {
        &self.sources[tensor.file].bytes()[tensor.offset..tensor.offset + tensor.n_bytes]
    }

    /// Drops the tensor's pages from memory; they are read again from the file when touched.
    pub fn release(&self, tensor: &TensorEntry) {
        if let Source::Map(map) = &self.sources[tensor.file] {
            map.release(tensor.offset..tensor.offset + tensor.n_bytes);
        }
    }

    /// The path of the file `name` beside the weights, such as `tokenizer.json`, if there is one.
    ///
    /// `name` is a plain file name: one that leads elsewhere is never found.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        let path = self.directory().join(hugging_face::plain_name(name)?);
        path.is_file().then_some(path)
    }

    /// The JSON of the file `name` beside the weights, if there is one.
    pub fn json(&self, name: &str) -> Result<Option<serde_json::Value>, Error> {
        self.file(name).map(|path| hugging_face::read_json(&path)).transpose()
    }

    /// The JSON of the file `name` in the folder `folder` beside the weights, if there is one. Both are plain names.
    pub fn json_in(&self, folder: &str, name: &str) -> Result<Option<serde_json::Value>, Error> {
        let Some(folder) = hugging_face::plain_name(folder) else { return Ok(None) };
        let path = hugging_face::plain_name(name).map(|name| self.directory().join(folder).join(name));
        path.filter(|path| path.is_file()).map(|path| hugging_face::read_json(&path)).transpose()
    }

    fn directory(&self) -> &Path {
        if self.path.is_dir() { &self.path } else { self.path.parent().unwrap_or(Path::new("")) }
    }
}

impl Source {
    fn bytes(&self) -> &[u8] {
        match self {
            Source::Map(map) => map,
            Source::Owned(bytes) => bytes,
        }
    }
}

/// Opens one file by its content.
pub(crate) fn open_file(path: &Path) -> Result<Contents, Error> {
    let map = Map::open(path).map_err(Error::io("open", path))?;
    read(path, Source::Map(map))
}

/// Tells from the first bytes which format it is, and reads it.
fn read(path: &Path, source: Source) -> Result<Contents, Error> {
    let bytes = source.bytes();
    if bytes.is_empty() {
        return Err(Error::Empty { file: path.to_path_buf() });
    }
    if bytes.starts_with(gguf::MAGIC) {
        let gguf::Contents { metadata, tensors } = gguf::read(path, bytes)?;
        return Ok(Contents { kind: Kind::Gguf, metadata, tensors, sources: vec![source] });
    }
    refuse_known_strangers(path, bytes)?;
    if llama2c::recognize(bytes) {
        let (metadata, tensors) = llama2c::read(path, bytes)?;
        return Ok(Contents { kind: Kind::Llama2C, metadata, tensors, sources: vec![source] });
    }
    if bytes.get(8) == Some(&b'{') {
        let safetensors::Contents { metadata, tensors } = safetensors::read(path, bytes)?;
        return Ok(Contents { kind: Kind::Safetensors, metadata, tensors, sources: vec![source] });
    }
    // After safetensors, whose length may begin with any bytes.
    if onnx::recognize(bytes) {
        let onnx::Contents { metadata, tensors, copied } = onnx::read(path, bytes)?;
        let sources = vec![source, Source::Owned(copied)];
        return Ok(Contents { kind: Kind::Onnx, metadata, tensors, sources });
    }
    let read_pickle = match bytes {
        _ if bytes.starts_with(pickle::ZIP_MAGIC) => pickle::read_zip,
        _ if bytes.starts_with(pickle::LEGACY_MAGIC) => pickle::read_legacy,
        _ => return Err(unrecognized(path, bytes)),
    };
    let pickle::Contents { metadata, tensors, copied } = read_pickle(path, bytes)?;
    Ok(Contents { kind: Kind::PyTorch, metadata, tensors, sources: vec![source, Source::Owned(copied)] })
}

/// Files that are often found where a model should be, each with its own message.
fn refuse_known_strangers(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let file = path.to_path_buf();
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    if start.starts_with("version https://git-lfs") {
        let size = start.lines().find_map(|line| line.strip_prefix("size "));
        return Err(Error::LfsPointer {
            file,
            got: size.map_or("a file".into(), |size| format!("{size} bytes")),
        });
    }
    let text = start.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']).to_ascii_lowercase();
    if ["<!doctype", "<html", "<?xml", "<head"].iter().any(|tag| text.starts_with(tag)) {
        return Err(Error::WebPage { file, got: start.chars().take(40).collect() });
    }
    // The ancestors of GGUF, whose magic numbers were written as little-endian words.
    if ["lmgg", "fmgg", "tjgg", "algg"].iter().any(|magic| start.starts_with(magic)) {
        let got = format!("`{}`, a format of llama.cpp before GGUF", &start[..4]);
        return Err(Error::Unsupported { place: Place::new(path, "magic", 0), expected: EXPECTED, got });
    }
    if bytes.starts_with(llama2c::MAGIC_V1) {
        let place = Place::new(path, "magic", 0);
        let (expected, got) = ("llama2.c's version 0", "version 1 or 2 (`ak42`)".to_owned());
        return Err(Error::Unsupported { place, expected, got });
    }
    Ok(())
}

fn unrecognized(path: &Path, bytes: &[u8]) -> Error {
    let start = bytes[..bytes.len().min(8)].escape_ascii();
    Error::Unrecognized {
        file: path.to_path_buf(),
        expected: EXPECTED,
        got: format!("first bytes \"{start}\""),
    }
}

/// Refuses tensors of one file that share bytes.
pub(crate) fn check_overlaps(file: &Path, tensors: &[TensorEntry]) -> Result<(), Error> {
    let mut by_offset: Vec<&TensorEntry> = tensors.iter().filter(|tensor| tensor.n_bytes > 0).collect();
    by_offset.sort_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        if pair[0].offset + pair[0].n_bytes > pair[1].offset {
            let place = Place::new(file, format_args!("data of tensor `{}`", pair[1].name), pair[1].offset);
            return Err(Error::Overlap { place, got: pair[0].name.clone() });
        }
    }
    Ok(())
}

/// A tensor as a writer is told of it; its bytes come later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorToWrite {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub dtype: ElementType,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
}

impl TensorToWrite {
    /// The length of the data in bytes. Errors: rows that cut a block, or a product that overflows.
    pub(crate) fn n_bytes(&self, file: &Path) -> Result<usize, Error> {
        self.dtype.bytes_of(&self.shape).ok_or_else(|| Error::Invalid {
            place: Place::new(file, format_args!("tensor `{}`", self.name), 0),
            expected: format!(
                "rows of whole blocks ({}: {}) and no overflow",
                self.dtype,
                self.dtype.block_len()
            ),
            got: format!("{:?}", self.shape),
        })
    }

    /// Lets `fill` write the data and checks their length, which it returns.
    pub(crate) fn write(
        &self,
        file: &Path,
        out: &mut dyn Write,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<usize, Error> {
        let n_bytes = self.n_bytes(file)?;
        let mut out = Counted { out, n_bytes: 0 };
        fill(&mut out).map_err(Error::io("write", file))?;
        if out.n_bytes != n_bytes as u64 {
            let (expected, got) = (n_bytes as u64, out.n_bytes);
            return Err(Error::WrongSize {
                file: file.to_path_buf(),
                tensor: self.name.clone(),
                expected,
                got,
            });
        }
        Ok(n_bytes)
    }
}

/// Counts what passes through.
struct Counted<'a> {
    out: &'a mut dyn Write,
    n_bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.n_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
