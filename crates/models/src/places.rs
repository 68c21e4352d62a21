//! Where in a file the tensors of a row are: in which layer, for which expert, and in which part of a stack.

use rhetor_formats::{Checkpoint, TensorEntry};

/// A tensor in which several matrices of a row's shape stand one after another: those of all experts, `[E, out, in]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// Its name in full, with `{i}` for the layer.
    pub name: &'static str,
    /// Whether it is GGUF's; else it is Hugging Face's, without the prefix that some files leave out.
    pub is_gguf: bool,
    /// Which part of an expert's matrix is the row's.
    pub part: usize,
    /// Parts of an expert's matrix, `[E, parts · out, in]`: gate and up may be one.
    pub n_parts: usize,
}

impl Stack {
    /// GGUF's stack.
    pub const fn gguf(name: &'static str) -> Stack {
        Stack { name, is_gguf: true, part: 0, n_parts: 1 }
    }

    /// Hugging Face's stack, of which the row has one part of several.
    pub const fn hugging_face(name: &'static str, part: usize, n_parts: usize) -> Stack {
        Stack { name, is_gguf: false, part, n_parts }
    }

    /// The tensor's name in layer `i`.
    pub fn name_in(&self, prefix: &str, i: usize) -> String {
        let prefix = if self.is_gguf { "" } else { prefix };
        format!("{prefix}{}", self.name.replace("{i}", &i.to_string()))
    }
}

/// A tensor of a file, or one of several equal parts of its rows.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The tensor.
    pub entry: &'a TensorEntry,
    /// Which part of it.
    pub part: usize,
    /// How many parts it has.
    pub n_parts: usize,
}

impl<'a> Piece<'a> {
    /// All of a tensor.
    pub fn whole(entry: &'a TensorEntry) -> Piece<'a> {
        Piece { entry, part: 0, n_parts: 1 }
    }

    /// Its shape: that of the tensor, or of a matrix.
    pub fn shape(&self) -> Vec<usize> {
        match (self.n_parts, self.entry.shape.last()) {
            (2.., Some(&n_in)) => {
                vec![self.entry.shape.iter().product::<usize>() / (n_in * self.n_parts).max(1), n_in]
            }
            _ => self.entry.shape.clone(),
        }
    }

    /// Its bytes: rows are whole blocks of any type, so a part of the rows is a part of the bytes.
    pub fn bytes(&self, file: &'a Checkpoint) -> &'a [u8] {
        let bytes = file.bytes(self.entry);
        let len = bytes.len() / self.n_parts;
        &bytes[self.part * len..(self.part + 1) * len]
    }
}

/// Where a row is repeated: in which layer, and for which expert. A number is a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The layer, from 0.
    pub layer: usize,
    /// The expert, from 0; 0 where there are none.
    pub expert: usize,
}

impl From<usize> for Place {
    fn from(layer: usize) -> Place {
        Place { layer, expert: 0 }
    }
}
