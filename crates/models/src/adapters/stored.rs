//! Tensors of an adapter's file, and what is to be written to one.

use rhetor_formats::{Checkpoint, ElementType};
use rhetor_kernels::quant;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::AdapterError;

/// What is saved of an adapter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Saved {
    /// Its configuration, as it is written; who saves adds the base and the kind of task.
    pub config: Map<String, Value>,
    /// Its own tensors.
    pub tensors: Vec<SavedTensor>,
    /// Trained tensors of the base that have a file of their own, under their Hugging Face names.
    pub base: Vec<SavedTensor>,
}

/// One tensor to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedTensor {
    /// Its name in the file.
    pub name: String,
    /// Outermost extent first.
    pub shape: Vec<usize>,
    /// Row after row.
    pub values: Vec<f32>,
}

impl SavedTensor {
    /// A tensor of these values.
    pub(crate) fn new(name: impl Into<String>, shape: &[usize], values: Vec<f32>) -> SavedTensor {
        SavedTensor { name: name.into(), shape: shape.to_vec(), values }
    }
}

/// The tensors of an adapter's file, until the model's places for them are met.
#[derive(Debug)]
pub(crate) struct Stored {
    file: PathBuf,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Stored {
    /// Reads all tensors of a safetensors or PyTorch file.
    pub fn open(file: &Path) -> Result<Stored, AdapterError> {
        let checkpoint = Checkpoint::open(file)?;
        let mut tensors = BTreeMap::new();
        for entry in checkpoint.tensors() {
            let broken = |got: String| AdapterError::Elements {
                file: file.to_path_buf(),
                name: entry.name.clone(),
                got,
            };
            let ElementType::Known(dtype) = entry.dtype else {
                return Err(broken(format!("elements of type {}", entry.dtype)));
            };
            let mut values = vec![0.0; entry.shape.iter().product()];
            quant::dequantize(dtype, checkpoint.bytes(entry), &mut values);
            if let Some(i) = values.iter().position(|value| !value.is_finite()) {
                return Err(broken(format!("element {i} is {}", values[i])));
            }
            tensors.insert(entry.name.clone(), (entry.shape.clone(), values));
        }
        Ok(Stored { file: file.to_path_buf(), tensors })
    }

    /// The names of the tensors not yet taken.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor not yet taken.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(shape, _)| shape.as_slice())
    }

    /// Takes a tensor of this shape; `None` if there is none of that name.
    pub fn take(&mut self, name: &str, expected: &[usize]) -> Result<Option<Vec<f32>>, AdapterError> {
        let Some((shape, values)) = self.tensors.remove(name) else { return Ok(None) };
        if shape != expected {
            return Err(AdapterError::Shape {
                file: self.file.clone(),
                name: name.to_string(),
                got: shape,
                expected: expected.to_vec(),
            });
        }
        Ok(Some(values))
    }

    /// Takes a tensor that must be there.
    pub fn require(&mut self, name: &str, expected: &[usize]) -> Result<Vec<f32>, AdapterError> {
        self.take(name, expected)?
            .ok_or_else(|| AdapterError::MissingTensor { file: self.file.clone(), name: name.to_string() })
    }

    /// Whether all tensors were taken.
    pub fn finish(&self) -> Result<(), AdapterError> {
        match self.tensors.keys().next() {
            Some(name) => Err(AdapterError::UnexpectedTensor { file: self.file.clone(), name: name.clone() }),
            None => Ok(()),
        }
    }
}
