//! safetensors: a JSON header with names, types, shapes and offsets, then the data without holes.
//!
//! As strict as the reference: unknown fields, duplicate names, holes, overlaps and bytes that belong to no tensor are
//! refused. Unlike it, types that nothing computes with are listed as [`ElementType::Other`](crate::ElementType).
//! Source: the safetensors specification, README of the safetensors project, "Format".

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::metadata::Metadata;
use crate::reader::Reader;
use crate::{ElementType, Error, Place, TensorEntry, TensorToWrite, atomic};

/// The longest header in bytes that the reference accepts.
const HEADER_BYTES_MAX: usize = 100_000_000;

/// The key of the free-form strings of a file.
const METADATA_KEY: &str = "__metadata__";

/// What the header of a safetensors file says.
#[derive(Debug)]
pub(crate) struct Contents {
    /// The free-form strings of `__metadata__`.
    pub metadata: Metadata,
    /// In the order of their data.
    pub tensors: Vec<TensorEntry>,
}

/// Reads the header of `bytes`, the whole of `file`.
pub(crate) fn read(file: &Path, bytes: &[u8]) -> Result<Contents, Error> {
    let mut reader = Reader::new(file, bytes);
    let header_len = reader.size(&"header length")?;
    if header_len > HEADER_BYTES_MAX {
        let (expected, got) = (HEADER_BYTES_MAX as u64, header_len as u64);
        return Err(Error::TooLarge { place: reader.place(0, &"header length"), expected, got });
    }
    let header = reader.take(header_len, &"header")?;
    let header: Header = serde_json::from_slice(header).map_err(|error| Error::Json {
        // A compact header is one line, so its column is its offset.
        place: Place::new(file, "header", 8 + error.column().saturating_sub(1)),
        expected: "an object of tensors, each with dtype, shape and data_offsets",
        got: error.to_string(),
    })?;
    let mut metadata = Metadata::new(file);
    for (key, value) in header.metadata {
        metadata.set(key, value);
    }
    let mut tensors = read_tensors(&reader, header.tensors)?;
    tensors.sort_by_key(|tensor| (tensor.offset, tensor.n_bytes));
    check_holes(&reader, &tensors)?;
    Ok(Contents { metadata, tensors })
}

fn read_tensors(reader: &Reader, tensors: Vec<(String, Row)>) -> Result<Vec<TensorEntry>, Error> {
    let mut names = HashSet::new();
    let mut entries = Vec::with_capacity(tensors.len());
    let data_start = reader.at();
    for (name, Row { dtype, shape, data_offsets: (start, end) }) in tensors {
        let field = &format_args!("header of tensor `{name}`");
        let dtype = ElementType::from_safetensors_name(&dtype).ok_or_else(|| Error::UnknownType {
            place: reader.place(8, field),
            expected: "F64, F32, F16, BF16, F8_*, I64 to I8, U64 to U8, BOOL or C64",
            got: dtype.clone(),
        })?;
        let n_bytes = dtype
            .bytes_of(&shape)
            .ok_or_else(|| reader.invalid(8, field, "a shape without overflow", format!("{shape:?}")))?;
        if start.checked_add(n_bytes) != Some(end) {
            let expected = format!("{n_bytes} bytes for {dtype} {shape:?}");
            return Err(reader.invalid(8, field, expected, format!("data_offsets [{start}, {end}]")));
        }
        if end > reader.left() {
            let place =
                reader.place(data_start.saturating_add(start), &format_args!("data of tensor `{name}`"));
            let got = reader.left().saturating_sub(start) as u64;
            return Err(Error::Truncated { place, expected: n_bytes as u64, got });
        }
        entries.push(TensorEntry {
            name: name.clone(),
            dtype,
            shape,
            file: 0,
            offset: data_start + start,
            n_bytes,
        });
        if let Some(got) = names.replace(name) {
            return Err(Error::Duplicate { place: reader.place(8, &"header"), got });
        }
    }
    Ok(entries)
}

/// `tensors` are sorted by offset: each must begin where the one before ends, and the last end with the file.
fn check_holes(reader: &Reader, tensors: &[TensorEntry]) -> Result<(), Error> {
    let mut end = reader.at();
    let mut before = "header";
    for tensor in tensors {
        let place = || reader.place(tensor.offset, &format_args!("data of tensor `{}`", tensor.name));
        if tensor.offset < end {
            return Err(Error::Overlap { place: place(), got: before.to_owned() });
        }
        if tensor.offset > end {
            let got = format!("a hole of {} bytes before it", tensor.offset - end);
            return Err(Error::Invalid { place: place(), expected: format!("data from offset {end}"), got });
        }
        end = tensor.offset + tensor.n_bytes;
        before = &tensor.name;
    }
    if end != reader.len() {
        let got = format!("{} bytes that belong to no tensor", reader.len() - end);
        return Err(reader.invalid(end, &"end of data", "the end of the file", got));
    }
    Ok(())
}

/// Writes a safetensors file; it appears under `path` only when it is complete.
///
/// `strings` become `__metadata__` (Hugging Face asks for `("format", "pt")`). `data` is called once for each tensor, in
/// order, with its index, and writes exactly the tensor's bytes.
/// Errors: types that safetensors does not know (all quantized ones), duplicate names, wrong amounts of bytes.
pub fn write(
    path: &Path,
    strings: &[(&str, &str)],
    tensors: &[TensorToWrite],
    mut data: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let header = header(path, strings, tensors)?;
    let failed = || Error::io("write", path);
    atomic::write(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed())?;
        out.write_all(&header).map_err(failed())?;
        for (i, tensor) in tensors.iter().enumerate() {
            tensor.write(path, out, |out| data(i, out))?;
        }
        Ok(())
    })
}

fn header(path: &Path, strings: &[(&str, &str)], tensors: &[TensorToWrite]) -> Result<Vec<u8>, Error> {
    use serde_json::{Map, Value, json};
    let mut header = Map::new();
    if !strings.is_empty() {
        let strings: Map<String, Value> = strings.iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
        header.insert(METADATA_KEY.to_owned(), Value::Object(strings));
    }
    let mut start = 0usize;
    for tensor in tensors {
        let place = || Place::new(path, format_args!("tensor `{}`", tensor.name), 8);
        let dtype = tensor.dtype.safetensors_name().ok_or_else(|| Error::UnknownType {
            place: place(),
            expected: "a type of safetensors",
            got: tensor.dtype.to_string(),
        })?;
        let n_bytes = tensor.n_bytes(path)?;
        let end = start.checked_add(n_bytes).ok_or_else(|| Error::TooLarge {
            place: place(),
            expected: u64::MAX,
            got: n_bytes as u64,
        })?;
        let row = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        if tensor.name == METADATA_KEY || header.insert(tensor.name.clone(), row).is_some() {
            return Err(Error::Duplicate { place: place(), got: tensor.name.clone() });
        }
        start = end;
    }
    let mut header = serde_json::to_vec(&header).expect("strings and numbers are always JSON");
    // The reference aligns the data to 8 bytes with spaces.
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

/// One tensor of the header.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// The header with the names in order, duplicates and all: serde's maps would hide them.
struct Header {
    metadata: Vec<(String, String)>,
    tensors: Vec<(String, Row)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        struct Rows;
        impl<'de> Visitor<'de> for Rows {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header { metadata: Vec::new(), tensors: Vec::new() };
                let mut seen_metadata = false;
                while let Some(name) = map.next_key::<String>()? {
                    if name != METADATA_KEY {
                        header.tensors.push((name, map.next_value()?));
                    } else if seen_metadata {
                        return Err(A::Error::duplicate_field(METADATA_KEY));
                    } else {
                        header.metadata = map.next_value::<Pairs<String>>()?.0;
                        seen_metadata = true;
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Rows)
    }
}

/// A JSON object as a list; a key that occurs twice is an error.
pub(crate) struct Pairs<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<T>, D::Error> {
        struct Members<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Pairs<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let mut pairs = Vec::new();
                let mut keys = HashSet::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    if !keys.insert(key.clone()) {
                        return Err(A::Error::custom(format_args!("key `{key}` twice")));
                    }
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Members(std::marker::PhantomData))
    }
}
