//! Writing: version 3, one pass, tensor data streamed from the caller.

use std::io::{self, Write};
use std::path::Path;

use super::{MAGIC, read::read_alignment};
use crate::metadata::{Array, Metadata, Value, ValueType};
use crate::{Error, Place, TensorToWrite, atomic};

/// Writes a GGUF file; it appears under `path` only when it is complete.
///
/// `data` is called once for each tensor, in order, with its index, and writes exactly the tensor's bytes.
/// The alignment is the metadata's `general.alignment`, else 32 bytes.
/// Errors: a type or a list that GGUF cannot store, a tensor with too few or too many bytes, and all of the system's.
pub fn write(
    path: &Path,
    metadata: &Metadata,
    tensors: &[TensorToWrite],
    mut data: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let alignment = read_alignment(metadata)?;
    let head = head(path, metadata, tensors, alignment)?;
    let failed = || Error::io("write", path);
    atomic::write(path, |out| {
        out.write_all(&head).map_err(failed())?;
        let mut at = head.len();
        for (i, tensor) in tensors.iter().enumerate() {
            pad(out, at, alignment).map_err(failed())?;
            at = at.next_multiple_of(alignment) + tensor.write(path, out, |out| data(i, out))?;
        }
        // llama.cpp pads after the last tensor too.
        pad(out, at, alignment).map_err(failed())
    })
}

fn pad(out: &mut dyn Write, at: usize, alignment: usize) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), (at.next_multiple_of(alignment) - at) as u64), out)
        .map(|_| ())
}

/// Everything before the padding and the data.
fn head(
    path: &Path,
    metadata: &Metadata,
    tensors: &[TensorToWrite],
    alignment: usize,
) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&3u32.to_le_bytes());
    head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    head.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        let value_type = metadata.type_of(key).expect("the key comes from the map");
        put_string(&mut head, key);
        head.extend_from_slice(&value_type.gguf_id().to_le_bytes());
        put_value(&mut head, value, value_type).ok_or_else(|| Error::Invalid {
            place: Place::new(path, format_args!("metadata key `{key}`"), head.len()),
            expected: "a list of one type".to_owned(),
            got: value.to_string(),
        })?;
    }
    let mut names = std::collections::HashSet::new();
    let mut offset = 0usize;
    for tensor in tensors {
        let place = || Place::new(path, format_args!("tensor `{}`", tensor.name), head.len());
        if !names.insert(&tensor.name) {
            return Err(Error::Duplicate { place: place(), got: tensor.name.clone() });
        }
        let id = tensor.dtype.ggml_id().ok_or_else(|| Error::UnknownType {
            place: place(),
            expected: "a type of ggml",
            got: tensor.dtype.to_string(),
        })?;
        let n_bytes = tensor.n_bytes(path)?;
        if tensor.shape.len() > super::DIMS_MAX {
            let expected = format!("at most {} dimensions", super::DIMS_MAX);
            return Err(Error::Invalid { place: place(), expected, got: format!("{:?}", tensor.shape) });
        }
        put_string(&mut head, &tensor.name);
        head.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
        for dim in tensor.shape.iter().rev() {
            head.extend_from_slice(&(*dim as u64).to_le_bytes());
        }
        head.extend_from_slice(&id.to_le_bytes());
        head.extend_from_slice(&(offset as u64).to_le_bytes());
        let next = offset.checked_add(n_bytes).and_then(|end| end.checked_next_multiple_of(alignment));
        offset = next.ok_or_else(|| Error::TooLarge {
            place: Place::new(path, format_args!("tensor `{}`", tensor.name), 0),
            expected: u64::MAX,
            got: n_bytes as u64,
        })?;
    }
    Ok(head)
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// `None` if the value is no value of that type.
fn put_value(out: &mut Vec<u8>, value: &Value, value_type: ValueType) -> Option<()> {
    match (value, value_type) {
        (Value::U64(n), ValueType::U8) => out.push(u8::try_from(*n).ok()?),
        (Value::U64(n), ValueType::U16) => out.extend(u16::try_from(*n).ok()?.to_le_bytes()),
        (Value::U64(n), ValueType::U32) => out.extend(u32::try_from(*n).ok()?.to_le_bytes()),
        (Value::U64(n), ValueType::U64) => out.extend(n.to_le_bytes()),
        (Value::I64(n), ValueType::I8) => out.extend(i8::try_from(*n).ok()?.to_le_bytes()),
        (Value::I64(n), ValueType::I16) => out.extend(i16::try_from(*n).ok()?.to_le_bytes()),
        (Value::I64(n), ValueType::I32) => out.extend(i32::try_from(*n).ok()?.to_le_bytes()),
        (Value::I64(n), ValueType::I64) => out.extend(n.to_le_bytes()),
        (Value::F64(x), ValueType::F32) => out.extend((*x as f32).to_le_bytes()),
        (Value::F64(x), ValueType::F64) => out.extend(x.to_le_bytes()),
        (Value::Bool(value), ValueType::Bool) => out.push(u8::from(*value)),
        (Value::String(text), ValueType::String) => put_string(out, text),
        (Value::Array(array), ValueType::Array) => put_array(out, array)?,
        _ => return None,
    }
    Some(())
}

fn put_array(out: &mut Vec<u8>, array: &Array) -> Option<()> {
    let mut start = |value_type: ValueType| {
        out.extend(value_type.gguf_id().to_le_bytes());
        out.extend((array.len() as u64).to_le_bytes());
    };
    match array {
        Array::U8(items) => {
            start(ValueType::U8);
            out.extend_from_slice(items);
        }
        Array::I8(items) => {
            start(ValueType::I8);
            out.extend(items.iter().flat_map(|item| item.to_le_bytes()));
        }
        Array::U16(items) => {
            start(ValueType::U16);
            out.extend(items.iter().flat_map(|item| item.to_le_bytes()));
        }
        Array::I16(items) => {
            start(ValueType::I16);
            out.extend(items.iter().flat_map(|item| item.to_le_bytes()));
        }
        Array::U32(items) => {
            start(ValueType::U32);
            out.extend(items.iter().flat_map(|item| item.to_le_bytes()));
        }
        Array::I32(items) => {
            start(ValueType::I32);
            out.extend(items.iter().flat_map(|item| item.to_le_bytes()));
        }
        Array::U64(items) => {
            start(ValueType::U64);
            out.extend(items.iter().flat_map(|item| item.to_le_bytes()));
        }
        Array::I64(items) => {
            start(ValueType::I64);
            out.extend(items.iter().flat_map(|item| item.to_le_bytes()));
        }
        Array::F32(items) => {
            start(ValueType::F32);
            out.extend(items.iter().flat_map(|item| item.to_le_bytes()));
        }
        Array::F64(items) => {
            start(ValueType::F64);
            out.extend(items.iter().flat_map(|item| item.to_le_bytes()));
        }
        Array::Bool(items) => {
            start(ValueType::Bool);
            out.extend(items.iter().map(|item| u8::from(*item)));
        }
        Array::Strings(items) => {
            start(ValueType::String);
            items.iter().for_each(|item| put_string(out, item));
        }
        Array::Arrays(items) => {
            start(ValueType::Array);
            for item in items {
                put_array(out, item)?;
            }
        }
        Array::Mixed(_) => return None,
    }
    Some(())
}
