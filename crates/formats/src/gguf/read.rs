//! Reading: every count, length, product and offset is checked against the file before anything is allocated.

use std::collections::HashSet;
use std::fmt::Display;
use std::path::Path;

use super::{ALIGNMENT, ALIGNMENT_KEY, DEPTH_MAX, DIMS_MAX, MAGIC};
use crate::metadata::{Array, Metadata, Strings, TypedValue, ValueType};
use crate::reader::Reader;
use crate::{ElementType, Error, Place, TensorEntry, checkpoint};

/// What the head of a GGUF file says.
#[derive(Debug)]
pub(crate) struct Contents {
    pub metadata: Metadata,
    pub tensors: Vec<TensorEntry>,
}

/// The least bytes of a key-value pair: key length, value type, one byte.
const PAIR_BYTES_MIN: usize = 8 + 4 + 1;

/// The least bytes of a tensor's row in the table: name length, dimension count, type, offset.
const TENSOR_BYTES_MIN: usize = 8 + 4 + 4 + 8;

/// Reads the metadata and the tensor table of `bytes`, the whole of `file`.
pub(crate) fn read(file: &Path, bytes: &[u8]) -> Result<Contents, Error> {
    let mut reader = Reader::new(file, bytes);
    check_version(&mut reader)?;
    let n_tensors = reader.count(&"tensor count", TENSOR_BYTES_MIN)?;
    let n_pairs = reader.count(&"metadata count", PAIR_BYTES_MIN)?;
    let metadata = read_metadata(&mut reader, n_pairs)?;
    let alignment = read_alignment(&metadata)?;
    let tensors = read_table(&mut reader, n_tensors, alignment)?;
    checkpoint::check_overlaps(file, &tensors)?;
    Ok(Contents { metadata, tensors })
}

fn check_version(reader: &mut Reader) -> Result<(), Error> {
    let magic = reader.take(4, &"magic")?;
    if magic != MAGIC {
        return Err(reader.invalid(0, &"magic", "`GGUF`", format!("{:?}", String::from_utf8_lossy(magic))));
    }
    let at = reader.at();
    let version = reader.u32(&"version")?;
    let got = match version {
        2 | 3 => return Ok(()),
        1 => "version 1 (32-bit lengths, 2023); convert the model anew".to_owned(),
        _ if (1..=3).contains(&version.swap_bytes()) => "a big-endian file".to_owned(),
        _ => format!("version {version}"),
    };
    Err(Error::Unsupported {
        place: reader.place(at, &"version"),
        expected: "little-endian GGUF 2 or 3",
        got,
    })
}

fn read_metadata(reader: &mut Reader, n_pairs: usize) -> Result<Metadata, Error> {
    let mut metadata = Metadata::new(reader.file());
    for i in 0..n_pairs {
        let at = reader.at();
        let key = reader.string(&format_args!("metadata key {i}"))?;
        if metadata.contains(key) {
            return Err(Error::Duplicate { place: reader.place(at, &"metadata key"), got: key.to_owned() });
        }
        let field = format_args!("type of metadata key `{key}`");
        let value_type = read_type(reader, &field)?;
        let value = read_value(reader, key, value_type)?;
        metadata.set(key, value);
    }
    Ok(metadata)
}

fn read_type(reader: &mut Reader, field: &dyn Display) -> Result<ValueType, Error> {
    let at = reader.at();
    let id = reader.u32(field)?;
    ValueType::from_gguf_id(id).ok_or_else(|| Error::UnknownType {
        place: reader.place(at, field),
        expected: "0 to 12",
        got: id.to_string(),
    })
}

fn read_value(reader: &mut Reader, key: &str, value_type: ValueType) -> Result<TypedValue, Error> {
    let field = &format_args!("metadata key `{key}`");
    Ok(match value_type {
        ValueType::U8 => u8::from_le_bytes(reader.array(field)?).into(),
        ValueType::I8 => i8::from_le_bytes(reader.array(field)?).into(),
        ValueType::U16 => u16::from_le_bytes(reader.array(field)?).into(),
        ValueType::I16 => i16::from_le_bytes(reader.array(field)?).into(),
        ValueType::U32 => u32::from_le_bytes(reader.array(field)?).into(),
        ValueType::I32 => i32::from_le_bytes(reader.array(field)?).into(),
        ValueType::F32 => f32::from_le_bytes(reader.array(field)?).into(),
        ValueType::U64 => u64::from_le_bytes(reader.array(field)?).into(),
        ValueType::I64 => i64::from_le_bytes(reader.array(field)?).into(),
        ValueType::F64 => f64::from_le_bytes(reader.array(field)?).into(),
        ValueType::Bool => read_bool(reader, field)?.into(),
        ValueType::String => reader.string(field)?.into(),
        ValueType::Array => read_array(reader, field, 1)?.into(),
    })
}

fn read_bool(reader: &mut Reader, field: &dyn Display) -> Result<bool, Error> {
    let at = reader.at();
    match reader.array::<1>(field)?[0] {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(reader.invalid(at, field, "0 or 1", other.to_string())),
    }
}

fn read_array(reader: &mut Reader, field: &dyn Display, depth: usize) -> Result<Array, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::TooDeep { place: reader.place(reader.at(), field), expected: DEPTH_MAX });
    }
    let item_type = read_type(reader, &format_args!("item type of {field}"))?;
    let length = &format_args!("length of {field}");
    Ok(match item_type {
        ValueType::U8 => Array::U8(read_numbers(reader, length, u8::from_le_bytes)?),
        ValueType::I8 => Array::I8(read_numbers(reader, length, i8::from_le_bytes)?),
        ValueType::U16 => Array::U16(read_numbers(reader, length, u16::from_le_bytes)?),
        ValueType::I16 => Array::I16(read_numbers(reader, length, i16::from_le_bytes)?),
        ValueType::U32 => Array::U32(read_numbers(reader, length, u32::from_le_bytes)?),
        ValueType::I32 => Array::I32(read_numbers(reader, length, i32::from_le_bytes)?),
        ValueType::F32 => Array::F32(read_numbers(reader, length, f32::from_le_bytes)?),
        ValueType::U64 => Array::U64(read_numbers(reader, length, u64::from_le_bytes)?),
        ValueType::I64 => Array::I64(read_numbers(reader, length, i64::from_le_bytes)?),
        ValueType::F64 => Array::F64(read_numbers(reader, length, f64::from_le_bytes)?),
        ValueType::Bool => {
            let n = reader.count(length, 1)?;
            Array::Bool((0..n).map(|_| read_bool(reader, field)).collect::<Result<_, _>>()?)
        }
        ValueType::String => Array::Strings(read_strings(reader, field, length)?),
        ValueType::Array => {
            let n = reader.count(length, 4 + 8)?;
            Array::Arrays((0..n).map(|_| read_array(reader, field, depth + 1)).collect::<Result<_, _>>()?)
        }
    })
}

/// Vocabularies are long lists of short strings, so they are validated as one text, which takes a third of the time.
fn read_strings(reader: &mut Reader, field: &dyn Display, length: &dyn Display) -> Result<Strings, Error> {
    let n = reader.count(length, 8)?;
    let mut again = reader.clone();
    let (mut text, mut ends) = (Vec::new(), Vec::with_capacity(n));
    for i in 0..n {
        text.extend_from_slice(reader.string_bytes(&format_args!("item {i} of {field}"))?);
        ends.push(text.len());
    }
    if let Some(strings) = Strings::from_utf8(text, ends) {
        return Ok(strings);
    }
    // One of them is wrong: which?
    (0..n).map(|i| again.string(&format_args!("item {i} of {field}"))).collect()
}

fn read_numbers<T, const N: usize>(
    reader: &mut Reader,
    length: &dyn Display,
    convert: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, Error> {
    let n = reader.count(length, N)?;
    let (items, _) = reader.take(n * N, length)?.as_chunks::<N>();
    Ok(items.iter().map(|item| convert(*item)).collect())
}

/// The alignment of the tensor data in bytes, a power of two.
pub(super) fn read_alignment(metadata: &Metadata) -> Result<usize, Error> {
    let alignment = metadata.get_usize(ALIGNMENT_KEY)?.unwrap_or(ALIGNMENT);
    if alignment.is_power_of_two() && alignment <= 1 << 30 {
        return Ok(alignment);
    }
    let place = Place::new(metadata.file(), ALIGNMENT_KEY, 0);
    Err(Error::Invalid {
        place,
        expected: "a power of two up to 2^30".to_owned(),
        got: alignment.to_string(),
    })
}

fn read_table(reader: &mut Reader, n_tensors: usize, alignment: usize) -> Result<Vec<TensorEntry>, Error> {
    let mut names = HashSet::new();
    let mut tensors = Vec::with_capacity(n_tensors);
    // Where each row of the table has its offset, for the messages below.
    let mut places = Vec::with_capacity(n_tensors);
    for i in 0..n_tensors {
        let at = reader.at();
        let name = reader.string(&format_args!("name of tensor {i}"))?;
        if !names.insert(name) {
            return Err(Error::Duplicate { place: reader.place(at, &"tensor name"), got: name.to_owned() });
        }
        let (dtype, shape, n_bytes) = read_shape(reader, name)?;
        places.push(reader.at());
        let offset = reader.size(&format_args!("offset of tensor `{name}`"))?;
        tensors.push(TensorEntry { name: name.to_owned(), dtype, shape, file: 0, offset, n_bytes });
    }
    // Offsets are relative to the first aligned byte after the table, which is only known now.
    let start = reader.at().checked_next_multiple_of(alignment);
    for (tensor, at) in tensors.iter_mut().zip(places) {
        let field = &format_args!("offset of tensor `{}`", tensor.name);
        if tensor.offset % alignment != 0 {
            let expected = format!("a multiple of the alignment {alignment}");
            return Err(reader.invalid(at, field, expected, tensor.offset.to_string()));
        }
        let absolute = start.and_then(|start| start.checked_add(tensor.offset));
        let end = absolute.and_then(|offset| offset.checked_add(tensor.n_bytes));
        let (Some(absolute), Some(end)) = (absolute, end) else {
            let (expected, got) = (reader.len() as u64, tensor.offset as u64);
            return Err(Error::TooLarge { place: reader.place(at, field), expected, got });
        };
        if end > reader.len() {
            let place = reader.place(absolute, &format_args!("data of tensor `{}`", tensor.name));
            let got = reader.len().saturating_sub(absolute) as u64;
            return Err(Error::Truncated { place, expected: tensor.n_bytes as u64, got });
        }
        tensor.offset = absolute;
    }
    Ok(tensors)
}

/// Type, shape (outermost dimension first) and size in bytes.
fn read_shape(reader: &mut Reader, name: &str) -> Result<(ElementType, Vec<usize>, usize), Error> {
    let at = reader.at();
    let field = &format_args!("shape of tensor `{name}`");
    let n_dims = reader.u32(field)? as usize;
    if n_dims > DIMS_MAX {
        return Err(reader.invalid(at, field, format!("at most {DIMS_MAX} dimensions"), n_dims.to_string()));
    }
    let mut shape = (0..n_dims).map(|_| reader.size(field)).collect::<Result<Vec<_>, _>>()?;
    shape.reverse();
    let type_at = reader.at();
    let type_field = &format_args!("type of tensor `{name}`");
    let id = reader.u32(type_field)?;
    let dtype = ElementType::from_ggml_id(id).ok_or_else(|| Error::UnknownType {
        place: reader.place(type_at, type_field),
        expected: "a ggml type that is still in use, 0 to 39",
        got: id.to_string(),
    })?;
    let n_bytes = dtype.bytes_of(&shape).ok_or_else(|| {
        let expected = format!("rows of whole blocks ({dtype}: {}) and no overflow", dtype.block_len());
        reader.invalid(at, field, expected, format!("{shape:?}"))
    })?;
    Ok((dtype, shape, n_bytes))
}
