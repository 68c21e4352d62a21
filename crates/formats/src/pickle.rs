//! PyTorch checkpoints (`pytorch_model.bin`, `*.pt`, `*.pth`): a pickle that says which storages are which tensors,
//! and the storages, in a zip archive (since PyTorch 1.6) or one after the other (before).
//!
//! The pickle is read, never executed: a small machine (`machine`) builds dicts, lists, numbers and text, and knows
//! the few functions that tensors are made with; it refuses every other global by name. Only dicts of tensors are
//! accepted: nested dicts become names joined by `.`, plain values become metadata. If the top has a dict
//! `state_dict`, only that is read, as training frameworks put everything else beside it.
//!
//! Compressed archives are refused (`torch.save` writes none), so no archive can grow. Tensors that lie in order are
//! used in place; transposed and strided ones are copied in order.
//! Source: `torch/serialization.py` (`_legacy_load`, `_load`), Python's `pickletools`.

mod machine;

use std::collections::{HashMap, HashSet};
use std::io::Cursor;
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

use crate::metadata::Metadata;
use crate::reader::Reader;
use crate::{ElementType, Error, Place, TensorEntry};
use machine::{Heap, Id, Object, Tensor};

/// The longest pickle in bytes inside an archive; those of the largest models have a few hundred kB.
const PICKLE_BYTES_MAX: usize = 64 << 20;

/// The deepest nesting of dicts.
const DEPTH_MAX: usize = 8;

/// The most values, and the most bytes of names: a dict that holds another many times over must not grow without end.
const VALUES_MAX: usize = 1 << 18;
const NAME_BYTES_MAX: usize = 1 << 26;

/// The first two bytes of every pickle that `torch.save` wrote before zip archives: protocol 2.
pub(crate) const LEGACY_MAGIC: &[u8] = b"\x80\x02";

/// The first bytes of a zip archive.
pub(crate) const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// What a checkpoint holds.
#[derive(Debug)]
pub(crate) struct Contents {
    pub metadata: Metadata,
    /// Tensors of file 0 lie in the file itself, those of file 1 in `copied`.
    pub tensors: Vec<TensorEntry>,
    /// The tensors that had to be brought in order.
    pub copied: Vec<u8>,
}

/// Where the data of a storage lies: offset and length in bytes.
type Storages<'a> = HashMap<&'a str, (usize, usize)>;

/// Reads a zip archive of `torch.save`; `bytes` is the whole of `file`.
pub(crate) fn read_zip(file: &Path, bytes: &[u8]) -> Result<Contents, Error> {
    let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| zip_error(file, "archive", &error))?;
    let mut archive = Archive { file, zip, n_bytes: bytes.len() };
    let names: Vec<String> =
        archive.zip.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let Some(pickle) = names.iter().find(|name| *name == "data.pkl" || name.ends_with("/data.pkl")) else {
        let expected = "`data.pkl` of PyTorch, among others".to_owned();
        let got = format!("{} other files", names.len());
        return Err(Error::Invalid { place: Place::new(file, "archive", 0), expected, got });
    };
    let prefix = pickle.strip_suffix("data.pkl").expect("just found so").to_owned();
    let (start, len) = archive.locate(pickle)?;
    if len > PICKLE_BYTES_MAX {
        let (expected, got) = (PICKLE_BYTES_MAX as u64, len as u64);
        return Err(Error::TooLarge { place: Place::new(file, pickle, start), expected, got });
    }
    let order = format!("{prefix}byteorder");
    if names.contains(&order) {
        let (start, len) = archive.locate(&order)?;
        if &bytes[start..start + len] != b"little" {
            let got = String::from_utf8_lossy(&bytes[start..start + len.min(20)]).into_owned();
            return Err(Error::Unsupported {
                place: Place::new(file, order, start),
                expected: "little",
                got,
            });
        }
    }
    let mut reader = Reader::between(file, bytes, start, start + len);
    let (heap, root) = Heap::load(&mut reader)?;
    let mut storages = Storages::new();
    for key in heap.storages().map(|storage| storage.key) {
        if !storages.contains_key(key) {
            storages.insert(key, archive.locate(&format!("{prefix}data/{key}"))?);
        }
    }
    collect(file, bytes, &heap, root, &storages)
}

/// The archive, by the names of its entries.
struct Archive<'a> {
    file: &'a Path,
    zip: ZipArchive<Cursor<&'a [u8]>>,
    n_bytes: usize,
}

impl Archive<'_> {
    /// Offset and length of the data of an entry, which lies uncompressed inside of the file.
    fn locate(&mut self, name: &str) -> Result<(usize, usize), Error> {
        let index = self.zip.index_for_name(name).ok_or_else(|| Error::Invalid {
            place: Place::new(self.file, "archive", 0),
            expected: format!("an entry `{name}`"),
            got: "none".to_owned(),
        })?;
        let entry = self.zip.by_index_raw(index).map_err(|error| zip_error(self.file, name, &error))?;
        let start = usize::try_from(entry.data_start().unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let place = || Place::new(self.file, name, start);
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            let got =
                format!("{}{:?}", if entry.encrypted() { "encrypted, " } else { "" }, entry.compression());
            return Err(Error::Unsupported {
                place: place(),
                expected: "plain entries, as of torch.save",
                got,
            });
        }
        // Also an entry of no bytes must begin inside of the file.
        let left = self.n_bytes.checked_sub(start);
        match (usize::try_from(entry.size()), left) {
            (Ok(len), Some(left)) if len <= left => Ok((start, len)),
            _ => {
                let (expected, got) = (entry.size(), left.unwrap_or(0) as u64);
                Err(Error::Truncated { place: place(), expected, got })
            }
        }
    }
}

fn zip_error(file: &Path, field: &str, error: &zip::result::ZipError) -> Error {
    let expected = "a whole zip archive (is the download complete?)".to_owned();
    Error::Invalid { place: Place::new(file, field, 0), expected, got: error.to_string() }
}

/// Reads the older layout: magic, version, system, root and list of keys as five pickles, then the storages.
pub(crate) fn read_legacy(file: &Path, bytes: &[u8]) -> Result<Contents, Error> {
    /// 0x1950a86a20f9469cfc6c
    const MAGIC: &[u8] = &[0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    let mut reader = Reader::new(file, bytes);
    let (heap, root) = Heap::load(&mut reader)?;
    if !matches!(heap.get(root), Object::Long(magic) if *magic == MAGIC) {
        let got = format!("a pickle of {}", heap.get(root));
        return Err(Error::Unsupported {
            place: Place::new(file, "magic", 0),
            expected: "what torch.save writes",
            got,
        });
    }
    let at = reader.at();
    let (heap, root) = Heap::load(&mut reader)?;
    if !matches!(heap.get(root), Object::Int(1001)) {
        let (expected, got) = ("version 1001", heap.get(root).to_string());
        return Err(Error::Unsupported { place: Place::new(file, "version", at), expected, got });
    }
    let at = reader.at();
    let (heap, root) = Heap::load(&mut reader)?;
    if !matches!(heap.lookup(root, "little_endian").map(|id| heap.get(id)), Some(Object::Bool(true))) {
        let (expected, got) = ("a little-endian writer", "another".to_owned());
        return Err(Error::Unsupported { place: Place::new(file, "system", at), expected, got });
    }
    let (heap, root) = Heap::load(&mut reader)?;
    let at = reader.at();
    let (keys_heap, keys) = Heap::load(&mut reader)?;
    let Object::List(keys) = keys_heap.get(keys) else {
        let got = keys_heap.get(keys).to_string();
        return Err(reader.invalid(at, &"storage keys", "a list", got));
    };
    let sizes: HashMap<&str, usize> =
        heap.storages().map(|storage| (storage.key, storage.dtype.block_bytes())).collect();
    let mut storages = Storages::new();
    for key in keys {
        let at = reader.at();
        let size = match keys_heap.get(*key) {
            Object::Text(key) => sizes.get_key_value(key),
            _ => None,
        };
        let Some((key, size)) = size else {
            let got = keys_heap.get(*key).to_string();
            return Err(reader.invalid(at, &"storage keys", "a key that a tensor uses", got));
        };
        let field = format_args!("storage {key}");
        let n_bytes = reader.count(&field, *size)? * size;
        let start = reader.at();
        reader.take(n_bytes, &field)?;
        storages.insert(key, (start, n_bytes));
    }
    collect(file, bytes, &heap, root, &storages)
}

/// Lists the tensors of the root dict and brings the scattered ones in order.
fn collect(file: &Path, bytes: &[u8], heap: &Heap, root: Id, storages: &Storages) -> Result<Contents, Error> {
    let root = match heap.lookup(root, "state_dict") {
        Some(inner) if matches!(heap.get(inner), Object::Dict(_)) => inner,
        _ => root,
    };
    let mut found =
        Found { file, heap, names: HashSet::new(), n_values: 0, name_bytes: 0, found: Vec::new() };
    found.walk(root, "", 0)?;
    let mut contents = Contents { metadata: Metadata::new(file), tensors: Vec::new(), copied: Vec::new() };
    for (name, id) in found.found {
        match heap.get(id) {
            Object::Tensor(tensor) => place_tensor(file, bytes, name, tensor, storages, &mut contents)?,
            Object::Int(n) => contents.metadata.set(name, *n),
            Object::Float(x) => contents.metadata.set(name, *x),
            Object::Bool(value) => contents.metadata.set(name, *value),
            Object::Text(text) => contents.metadata.set(name, *text),
            other => {
                let place = Place::new(file, format_args!("value `{name}`"), 0);
                let expected = "tensors, numbers and text (save the state dict alone)";
                return Err(Error::Unsupported { place, expected, got: other.to_string() });
            }
        }
    }
    Ok(contents)
}

/// A walk through nested dicts, bounded in depth and in size.
struct Found<'h, 'a> {
    file: &'h Path,
    heap: &'h Heap<'a>,
    names: HashSet<String>,
    n_values: usize,
    name_bytes: usize,
    found: Vec<(String, Id)>,
}

impl Found<'_, '_> {
    fn walk(&mut self, id: Id, prefix: &str, depth: usize) -> Result<(), Error> {
        let place = |field: &str| Place::new(self.file, format_args!("dict `{field}`"), 0);
        let Object::Dict(pairs) = self.heap.get(id) else {
            let got = self.heap.get(id).to_string();
            return Err(Error::Unsupported { place: place(prefix), expected: "a dict of tensors", got });
        };
        if depth == DEPTH_MAX {
            return Err(Error::TooDeep { place: place(prefix), expected: DEPTH_MAX });
        }
        for (key, value) in pairs {
            let name = match self.heap.get(*key) {
                Object::Text(key) if prefix.is_empty() => key.to_string(),
                Object::Text(key) => format!("{prefix}.{key}"),
                other => {
                    let (expected, got) = ("text".to_owned(), other.to_string());
                    return Err(Error::Invalid { place: place(prefix), expected, got });
                }
            };
            self.n_values += 1;
            self.name_bytes += name.len();
            if self.n_values > VALUES_MAX || self.name_bytes > NAME_BYTES_MAX {
                let (expected, got) = (VALUES_MAX as u64, self.n_values.max(self.name_bytes) as u64);
                return Err(Error::TooLarge { place: place(prefix), expected, got });
            }
            match self.heap.get(*value) {
                Object::Dict(_) => self.walk(*value, &name, depth + 1)?,
                _ if !self.names.insert(name.clone()) => {
                    return Err(Error::Duplicate { place: place(prefix), got: name });
                }
                _ => self.found.push((name, *value)),
            }
        }
        Ok(())
    }
}

/// Checks a tensor against its storage and adds it, in place if its elements lie in order, else as a copy.
fn place_tensor(
    file: &Path,
    bytes: &[u8],
    name: String,
    tensor: &Tensor,
    storages: &Storages,
    contents: &mut Contents,
) -> Result<(), Error> {
    let place = |offset| Place::new(file, format_args!("tensor `{name}`"), offset);
    let Tensor { storage, offset, shape, strides } = tensor;
    let dtype = storage.dtype;
    let element = dtype.block_bytes();
    let (start, len) = *storages.get(storage.key).ok_or_else(|| Error::Invalid {
        place: place(0),
        expected: format!("a storage `{}`", storage.key),
        got: "none".to_owned(),
    })?;
    if storage.n_elements.checked_mul(element) != Some(len) {
        let expected = format!("{} elements of {dtype} in its storage", storage.n_elements);
        return Err(Error::Invalid { place: place(start), expected, got: format!("{len} bytes") });
    }
    let n_bytes = dtype.bytes_of(shape);
    // One past the last element that the tensor touches, in its storage.
    let end = shape.iter().zip(strides).try_fold(*offset, |end, (dim, stride)| {
        let steps = dim.saturating_sub(1).checked_mul(*stride)?;
        end.checked_add(steps)
    });
    let end = if shape.contains(&0) { Some(*offset) } else { end.and_then(|end| end.checked_add(1)) };
    let (Some(n_bytes), Some(end)) = (n_bytes, end) else {
        let (expected, got) = ("a shape without overflow".to_owned(), format!("{shape:?} by {strides:?}"));
        return Err(Error::Invalid { place: place(start), expected, got });
    };
    if end > storage.n_elements {
        let (expected, got) = (storage.n_elements as u64, end as u64);
        return Err(Error::TooLarge { place: place(start), expected, got });
    }
    let mut entry = TensorEntry { name, dtype, shape: shape.clone(), file: 0, offset: 0, n_bytes };
    let first = start + offset * element;
    if is_contiguous(shape, strides) {
        entry.offset = first;
    } else {
        // A tensor expanded by strides of 0 could ask for any amount.
        if n_bytes > len || contents.copied.len() + n_bytes > bytes.len() {
            let place = Place::new(file, format_args!("tensor `{}`", entry.name), start);
            let (expected, got) = ("elements of its own", format!("{shape:?} by strides {strides:?}"));
            return Err(Error::Unsupported { place, expected, got });
        }
        entry.file = 1;
        entry.offset = contents.copied.len();
        copy_in_order(&bytes[first..start + len], element, shape, strides, &mut contents.copied);
    }
    contents.tensors.push(entry);
    Ok(())
}

/// Whether the elements lie in the order of the last index first. Dimensions of one element have no stride that matters.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    for (dim, stride) in shape.iter().zip(strides).rev() {
        if *dim > 1 && *stride != expected {
            return shape.contains(&0);
        }
        expected = expected.saturating_mul(*dim);
    }
    true
}

/// Appends the elements of a strided tensor; `from` begins with its first element.
fn copy_in_order(from: &[u8], element: usize, shape: &[usize], strides: &[usize], to: &mut Vec<u8>) {
    let n: usize = shape.iter().product();
    let mut index = vec![0usize; shape.len()];
    for _ in 0..n {
        let at: usize = index.iter().zip(strides).map(|(i, stride)| i * stride).sum();
        to.extend_from_slice(&from[at * element..(at + 1) * element]);
        for (i, dim) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *dim {
                break;
            }
            *i = 0;
        }
    }
}

/// The element type of a storage class of PyTorch.
fn storage_type(class: &str) -> Option<ElementType> {
    use rhetor_kernels::DType;
    Some(match class {
        "FloatStorage" => DType::F32.into(),
        "HalfStorage" => DType::F16.into(),
        "BFloat16Storage" => DType::BF16.into(),
        "DoubleStorage" => ElementType::Other("f64"),
        "LongStorage" => ElementType::Other("i64"),
        "IntStorage" => ElementType::Other("i32"),
        "ShortStorage" => ElementType::Other("i16"),
        "CharStorage" => ElementType::Other("i8"),
        "ByteStorage" => ElementType::Other("u8"),
        "BoolStorage" => ElementType::Other("bool"),
        _ => return None,
    })
}
