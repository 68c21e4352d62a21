//! The machine that reads a pickle without running anything: it knows data, and the functions that tensors are made with.

use std::collections::HashMap;
use std::fmt;

use super::storage_type;
use crate::reader::Reader;
use crate::{ElementType, Error};

/// The most objects; a checkpoint has some fifty a tensor.
const OBJECTS_MAX: usize = 1 << 22;

/// The most dimensions of a tensor; more than any checkpoint has.
const DIMS_MAX: usize = 16;

/// An object on the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id(u32);

/// Everything that a pickle of tensors consists of.
#[derive(Debug)]
pub(super) enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, as its little-endian bytes.
    Long(&'a [u8]),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage<'a>),
    Tensor(Tensor<'a>),
}

/// The globals that are known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(ElementType),
}

/// A run of elements that tensors are cut from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub dtype: ElementType,
    pub key: &'a str,
    pub n_elements: usize,
}

/// A view of a storage; offset and strides count elements.
#[derive(Debug, Clone)]
pub(super) struct Tensor<'a> {
    pub storage: Storage<'a>,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// What a pickle has made.
#[derive(Debug)]
pub(super) struct Heap<'a> {
    objects: Vec<Object<'a>>,
}

impl<'a> Heap<'a> {
    /// Reads one pickle up to its STOP; returns the heap and the object left on the stack.
    pub fn load(reader: &mut Reader<'a>) -> Result<(Heap<'a>, Id), Error> {
        let mut machine = Machine {
            heap: Heap { objects: vec![Object::None, Object::Bool(false), Object::Bool(true)] },
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            reader,
            at: 0,
        };
        let root = machine.run()?;
        Ok((machine.heap, root))
    }

    pub fn get(&self, id: Id) -> &Object<'a> {
        &self.objects[id.0 as usize]
    }

    /// The value under a text key, if the object is a dict that has it.
    pub fn lookup(&self, dict: Id, key: &str) -> Option<Id> {
        let Object::Dict(pairs) = self.get(dict) else { return None };
        pairs
            .iter()
            .find(|(k, _)| matches!(self.get(*k), Object::Text(text) if *text == key))
            .map(|(_, value)| *value)
    }

    /// Every storage that was named, some of them many times.
    pub fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(storage),
            _ => None,
        })
    }
}

const NONE: Id = Id(0);

struct Machine<'r, 'a> {
    heap: Heap<'a>,
    stack: Vec<Id>,
    /// Heights of the stack at each open MARK.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    reader: &'r mut Reader<'a>,
    /// Where the current opcode is, for messages.
    at: usize,
}

impl<'a> Machine<'_, 'a> {
    fn run(&mut self) -> Result<Id, Error> {
        loop {
            self.at = self.reader.at();
            let opcode = self.reader.array::<1>(&"opcode")?[0];
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), Error> {
        match opcode {
            // PROTO
            0x80 => match self.byte()? {
                2..=5 => Ok(()),
                other => Err(self.unsupported("protocol 2 to 5", format!("protocol {other}"))),
            },
            // FRAME: a hint for readers of streams.
            0x95 => self.reader.array::<8>(&"frame").map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(|_| ()),
            b'N' => self.push_id(NONE),
            0x88 => self.push_id(Id(2)),
            0x89 => self.push_id(Id(1)),
            b'K' => {
                let n = self.byte()?;
                self.push(Object::Int(n.into()))
            }
            b'M' => {
                let n = u16::from_le_bytes(self.reader.array(&"BININT2")?);
                self.push(Object::Int(n.into()))
            }
            b'J' => {
                let n = self.reader.i32(&"BININT")?;
                self.push(Object::Int(n.into()))
            }
            0x8a => {
                let len = self.byte()? as usize;
                let bytes = self.reader.take(len, &"LONG1")?;
                self.push(long(bytes))
            }
            b'G' => {
                let x = f64::from_be_bytes(self.reader.array(&"BINFLOAT")?);
                self.push(Object::Float(x))
            }
            b'X' | 0x8c | 0x8d | b'U' | b'T' => {
                let text = self.text(opcode)?;
                self.push(Object::Text(text))
            }
            b'C' | b'B' => {
                let len = if opcode == b'C' {
                    self.byte()? as usize
                } else {
                    self.reader.u32(&"BINBYTES")? as usize
                };
                let bytes = self.reader.take(len, &"BINBYTES")?;
                self.push(Object::Bytes(bytes))
            }
            b')' => self.push(Object::Tuple(Vec::new())),
            0x85..=0x87 => {
                let n = (opcode - 0x84) as usize;
                let start = self.floor().checked_add(n).filter(|need| *need <= self.stack.len());
                let Some(_) = start else { return Err(self.underflow()) };
                let items = self.stack.split_off(self.stack.len() - n);
                self.push(Object::Tuple(items))
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Object::Tuple(items))
            }
            b']' => self.push(Object::List(Vec::new())),
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Object::List(items))
            }
            b'}' => self.push(Object::Dict(Vec::new())),
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![key, value])
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(items)
            }
            b'q' => {
                let n = self.byte()?;
                self.memoize(n.into())
            }
            b'r' => {
                let n = self.reader.u32(&"LONG_BINPUT")?;
                self.memoize(n)
            }
            0x94 => self.memoize(self.memo.len() as u32),
            b'h' => {
                let n = self.byte()?;
                self.recall(n.into())
            }
            b'j' => {
                let n = self.reader.u32(&"LONG_BINGET")?;
                self.recall(n)
            }
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                self.global(module, name)
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                match (self.heap.get(module), self.heap.get(name)) {
                    (Object::Text(module), Object::Text(name)) => {
                        let (module, name) = (*module, *name);
                        self.global(module, name)
                    }
                    _ => Err(self.invalid("a module and a name", "other objects".to_owned())),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Object::Storage(storage))
            }
            b'R' => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                self.call(function, arguments)
            }
            // The state of an OrderedDict is its `_metadata`: version numbers of modules, of no use here.
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                match (self.heap.get(object), self.heap.get(state)) {
                    (Object::Dict(_), Object::Dict(_)) => Ok(()),
                    (object, state) => Err(self.forbidden(format!("a state ({state}) for {object}"))),
                }
            }
            _ => Err(self.forbidden(format!("opcode {} (0x{opcode:02x})", opcode_name(opcode)))),
        }
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.reader.array::<1>(&"operand")?[0])
    }

    fn text(&mut self, opcode: u8) -> Result<&'a str, Error> {
        let len = match opcode {
            0x8c | b'U' => self.byte()? as usize,
            0x8d => self.reader.size(&"text")?,
            _ => self.reader.u32(&"text")? as usize,
        };
        let at = self.reader.at();
        let bytes = self.reader.take(len, &"text")?;
        self.reader.utf8(at, bytes, &"text")
    }

    /// The operand of GLOBAL: text up to a newline.
    fn line(&mut self) -> Result<&'a str, Error> {
        let at = self.reader.at();
        let mut len = 0;
        while self.reader.peek(len) != Some(b'\n') {
            len += 1;
            if len > 256 || self.reader.peek(len).is_none() {
                return Err(self.invalid("a name of at most 256 bytes", "a longer one".to_owned()));
            }
        }
        let bytes = self.reader.take(len + 1, &"name")?;
        self.reader.utf8(at, &bytes[..len], &"name")
    }

    /// Nothing below the last MARK may be popped.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn push(&mut self, object: Object<'a>) -> Result<(), Error> {
        if self.heap.objects.len() >= OBJECTS_MAX {
            return Err(self.too_large());
        }
        self.stack.push(Id(self.heap.objects.len() as u32));
        self.heap.objects.push(object);
        Ok(())
    }

    fn push_id(&mut self, id: Id) -> Result<(), Error> {
        if self.stack.len() >= OBJECTS_MAX {
            return Err(self.too_large());
        }
        self.stack.push(id);
        Ok(())
    }

    fn top(&self) -> Result<Id, Error> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.floor() => Ok(*id),
            _ => Err(self.underflow()),
        }
    }

    fn pop(&mut self) -> Result<Id, Error> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, Error> {
        let mark = self.marks.pop().ok_or_else(|| self.underflow())?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), Error> {
        let list = self.top()?;
        match &mut self.heap.objects[list.0 as usize] {
            Object::List(list) => list.extend(items),
            other => {
                let got = other.to_string();
                return Err(self.invalid("a list to append to", got));
            }
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Id>) -> Result<(), Error> {
        if !items.len().is_multiple_of(2) {
            return Err(self.invalid("pairs of key and value", format!("{} objects", items.len())));
        }
        let dict = self.top()?;
        match &mut self.heap.objects[dict.0 as usize] {
            Object::Dict(pairs) => pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            other => {
                let got = other.to_string();
                return Err(self.invalid("a dict to fill", got));
            }
        }
        Ok(())
    }

    fn memoize(&mut self, n: u32) -> Result<(), Error> {
        let id = self.top()?;
        self.memo.insert(n, id);
        if self.memo.len() > OBJECTS_MAX { Err(self.too_large()) } else { Ok(()) }
    }

    fn recall(&mut self, n: u32) -> Result<(), Error> {
        match self.memo.get(&n) {
            Some(id) => self.push_id(*id),
            None => Err(self.invalid("a number that was memoized", n.to_string())),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Error> {
        let global = match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
            ("torch", "Size") => Global::Size,
            ("torch", class) if storage_type(class).is_some() => {
                Global::Storage(storage_type(class).expect("checked by the guard"))
            }
            _ => return Err(self.forbidden(format!("the global `{module}.{name}`"))),
        };
        self.push(Object::Global(global))
    }

    /// A persistent id: `("storage", class, key, device, n_elements)`, and in old files a sixth, the view, None.
    fn storage(&self, id: Id) -> Result<Storage<'a>, Error> {
        let parsed = self.tuple(id).and_then(|items| match items[..] {
            [kind, class, key, _, n] | [kind, class, key, _, n, NONE] => {
                let (Object::Text("storage"), Object::Global(Global::Storage(dtype)), Object::Text(key)) =
                    (self.heap.get(kind), self.heap.get(class), self.heap.get(key))
                else {
                    return None;
                };
                Some(Storage { dtype: *dtype, key, n_elements: self.size(n)? })
            }
            _ => None,
        });
        parsed.ok_or_else(|| self.invalid("a storage of a known class", self.heap.get(id).to_string()))
    }

    fn call(&mut self, function: Id, arguments: Id) -> Result<(), Error> {
        let Object::Global(function) = *self.heap.get(function) else {
            let got = self.heap.get(function).to_string();
            return Err(self.forbidden(format!("a call of {got}")));
        };
        let result = self.tuple(arguments).and_then(|arguments| match (function, arguments) {
            (Global::OrderedDict, []) => Some(Object::Dict(Vec::new())),
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                self.tensor(*storage, *offset, *shape, *strides).map(Object::Tensor)
            }
            (Global::RebuildParameter, [tensor, ..]) => match self.heap.get(*tensor) {
                Object::Tensor(tensor) => Some(Object::Tensor(tensor.clone())),
                _ => None,
            },
            (Global::Size, [items]) => self.tuple(*items).map(|items| Object::Tuple(items.to_vec())),
            _ => None,
        });
        match result {
            Some(object) => self.push(object),
            None => Err(self.invalid("the arguments of torch.save", format!("{function:?} of others"))),
        }
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Option<Tensor<'a>> {
        let Object::Storage(storage) = *self.heap.get(storage) else { return None };
        let sizes = |id| -> Option<Vec<usize>> {
            let items = self.tuple(id).filter(|items| items.len() <= DIMS_MAX)?;
            items.iter().map(|id| self.size(*id)).collect()
        };
        let (offset, shape, strides) = (self.size(offset)?, sizes(shape)?, sizes(strides)?);
        (shape.len() == strides.len()).then_some(Tensor { storage, offset, shape, strides })
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        if let Object::Tuple(items) = self.heap.get(id) { Some(items) } else { None }
    }

    fn size(&self, id: Id) -> Option<usize> {
        if let Object::Int(n) = self.heap.get(id) { (*n).try_into().ok() } else { None }
    }

    fn forbidden(&self, got: String) -> Error {
        Error::Forbidden { place: self.reader.place(self.at, &"pickle"), got }
    }

    fn invalid(&self, expected: &str, got: String) -> Error {
        self.reader.invalid(self.at, &"pickle", expected, got)
    }

    fn unsupported(&self, expected: &'static str, got: String) -> Error {
        Error::Unsupported { place: self.reader.place(self.at, &"pickle"), expected, got }
    }

    fn underflow(&self) -> Error {
        self.invalid("an object on the stack", "none".to_owned())
    }

    fn too_large(&self) -> Error {
        let most = OBJECTS_MAX as u64;
        Error::TooLarge {
            place: self.reader.place(self.at, &"objects of the pickle"),
            expected: most,
            got: most + 1,
        }
    }
}

/// A little-endian two's complement integer of any length.
fn long(bytes: &[u8]) -> Object<'_> {
    if bytes.len() > 8 {
        return Object::Long(bytes);
    }
    let negative = bytes.last().is_some_and(|last| *last >= 0x80);
    let mut word = [if negative { 0xff } else { 0 }; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    Object::Int(i64::from_le_bytes(word))
}

/// The names of the opcodes that are refused most often.
fn opcode_name(opcode: u8) -> &'static str {
    match opcode {
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        0x82..=0x84 => "EXT",
        b'P' => "PERSID",
        b'g' | b'p' | b'I' | b'L' | b'F' | b'S' | b'V' => "of protocol 0",
        _ => "unknown",
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::None => f.write_str("None"),
            Object::Bool(value) => write!(f, "{value}"),
            Object::Int(n) => write!(f, "{n}"),
            Object::Long(_) => f.write_str("a long integer"),
            Object::Float(x) => write!(f, "{x}"),
            Object::Text(text) => write!(f, "{:?}", text.chars().take(60).collect::<String>()),
            Object::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Object::Tuple(items) => write!(f, "a tuple of {}", items.len()),
            Object::List(items) => write!(f, "a list of {}", items.len()),
            Object::Dict(pairs) => write!(f, "a dict of {}", pairs.len()),
            Object::Global(global) => write!(f, "the global {global:?}"),
            Object::Storage(storage) => write!(f, "the storage {}", storage.key),
            Object::Tensor(tensor) => write!(f, "a tensor {:?}", tensor.shape),
        }
    }
}
