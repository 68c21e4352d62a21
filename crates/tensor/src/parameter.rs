//! Trained numbers: values that an optimizer changes, and the gradients that lead it.

use rhetor_kernels::gemm::{Precision, Update};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Shape, Tensor, arena};

/// A named tensor of `f32` master values that training changes; clones share it.
///
/// A layer that reads it while a tape records makes its results tracked; on the way back the gradient is added here.
#[derive(Clone)]
pub struct Parameter(Arc<Inner>);

struct Inner {
    name: String,
    shape: Shape,
    precision: Precision,
    values: RwLock<Vec<f32>>,
    /// Empty until the first gradient arrives.
    gradient: Mutex<Vec<f32>>,
    is_frozen: AtomicBool,
}

impl Parameter {
    /// A parameter called `name`; matrix products with it are computed in `precision`.
    #[track_caller]
    pub fn new(
        name: impl Into<String>,
        shape: impl Into<Shape>,
        values: Vec<f32>,
        precision: Precision,
    ) -> Parameter {
        let (name, shape) = (name.into(), shape.into());
        assert_eq!(values.len(), shape.n_elements(), "values of `{name}` with shape {shape:?}");
        Parameter(Arc::new(Inner {
            name,
            shape,
            precision,
            values: RwLock::new(values),
            gradient: Mutex::default(),
            is_frozen: AtomicBool::new(false),
        }))
    }

    /// Its name, unique in its model.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The extents, as a linear layer has them: `[out, in]`.
    pub fn shape(&self) -> &[usize] {
        self.0.shape.extents()
    }

    /// The number of elements.
    pub fn n_elements(&self) -> usize {
        self.0.shape.n_elements()
    }

    /// How products with it are computed.
    pub fn precision(&self) -> Precision {
        self.0.precision
    }

    /// The values, row after row.
    pub fn read(&self) -> RwLockReadGuard<'_, Vec<f32>> {
        self.0.values.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values, for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, Vec<f32>> {
        self.0.values.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values as a tensor of their own.
    pub fn to_tensor(&self) -> Tensor {
        Tensor::build(self.0.shape, |out| out.copy_from_slice(&self.read()))
    }

    /// The gradient so far; empty if none has arrived since [`clear_gradient`](Parameter::clear_gradient).
    pub fn gradient(&self) -> MutexGuard<'_, Vec<f32>> {
        self.0.gradient.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the gradient. Its memory is for other tensors until the next one arrives.
    pub fn clear_gradient(&self) {
        let gradient = std::mem::take(&mut *self.gradient());
        if !gradient.is_empty() {
            arena::give_back(gradient);
        }
    }

    /// Adds to the gradient: `add` finds zeros or what other layers have added. Nothing happens while frozen.
    pub fn add_gradient(&self, add: impl FnOnce(&mut [f32])) {
        self.update_gradient(|update, gradient| {
            if update == Update::Set {
                gradient.fill(0.0);
            }
            add(gradient);
        });
    }

    /// As [`add_gradient`](Parameter::add_gradient), but the first to come is told to set the numbers, which are unspecified then.
    pub fn update_gradient(&self, add: impl FnOnce(Update, &mut [f32])) {
        if !self.is_trained() {
            return;
        }
        let mut gradient = self.gradient();
        let mut update = Update::Add;
        if gradient.is_empty() {
            (*gradient, update) = (arena::lend(self.n_elements()), Update::Set);
        }
        add(update, &mut gradient);
    }

    /// Whether gradients are wanted now.
    pub fn is_trained(&self) -> bool {
        !self.0.is_frozen.load(Ordering::Relaxed)
    }

    /// Freezes the parameter for now, or thaws it (gradual unfreezing, arXiv:1801.06146, section 3.3).
    pub fn set_frozen(&self, is_frozen: bool) {
        self.0.is_frozen.store(is_frozen, Ordering::Relaxed);
    }

    /// Whether a layer that reads it now makes its result tracked.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_trained() && crate::tape::is_recording()
    }
}

impl std::fmt::Debug for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parameter({} {:?})", self.name(), self.shape())
    }
}

/// A vector of a layer: a bias, the weight of a norm.
#[derive(Clone, Debug)]
pub enum Vector {
    /// As loaded.
    Fixed(Tensor),
    /// Trained.
    Trained(Parameter),
}

impl Vector {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Vector::Fixed(tensor) => tensor.row_len(),
            Vector::Trained(parameter) => parameter.n_elements(),
        }
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `f` with the elements.
    pub fn with<R>(&self, f: impl FnOnce(&[f32]) -> R) -> R {
        match self {
            Vector::Fixed(tensor) => f(tensor.data()),
            Vector::Trained(parameter) => f(&parameter.read()),
        }
    }

    /// The parameter, if it wants a gradient now.
    pub(crate) fn wanted(&self) -> Option<&Parameter> {
        match self {
            Vector::Trained(parameter) if parameter.is_wanted() => Some(parameter),
            _ => None,
        }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted().is_some()
    }

    /// The parameter, if it is one and not frozen.
    pub(crate) fn trained(&self) -> Option<&Parameter> {
        match self {
            Vector::Trained(parameter) if parameter.is_trained() => Some(parameter),
            _ => None,
        }
    }
}

impl From<Tensor> for Vector {
    fn from(tensor: Tensor) -> Vector {
        Vector::Fixed(tensor)
    }
}
