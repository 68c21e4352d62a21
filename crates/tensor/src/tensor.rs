//! The tensor: a shape over shared elements.

use crate::arena::Storage;
use crate::shape::Shape;
use crate::tape::{Recipe, Tracked, Var};

/// A tensor of `f32`: rows whose elements are neighbours in memory, at a fixed distance from row to row.
///
/// Cloning and taking [`columns`](Tensor::columns) share the elements.
#[derive(Clone)]
pub struct Tensor {
    storage: Storage,
    offset: usize,
    shape: Shape,
    /// Elements from the start of a row to the start of the next; the row length unless this is a view of columns.
    row_stride: usize,
    /// The place in the tape that recorded how it was made.
    var: Option<Var>,
    /// How to make it again, if that is cheaper than to keep it.
    recipe: Option<Recipe>,
}

impl Tensor {
    /// A new tensor whose elements `fill` writes. They are unspecified before: `fill` must write all of them.
    pub fn build(shape: impl Into<Shape>, fill: impl FnOnce(&mut [f32])) -> Tensor {
        let shape = shape.into();
        let mut storage = Storage::unique(shape.n_elements());
        fill(&mut storage.get_mut().expect("nobody else holds it")[..shape.n_elements()]);
        Tensor { storage, offset: 0, shape, row_stride: shape.row_len(), var: None, recipe: None }
    }

    /// A tensor over `values`, row after row.
    #[track_caller]
    pub fn from_vec(values: Vec<f32>, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        assert_eq!(values.len(), shape.n_elements(), "values for shape {shape:?}");
        let storage = Storage::from_vec(values);
        Tensor { storage, offset: 0, shape, row_stride: shape.row_len(), var: None, recipe: None }
    }

    /// The extents.
    pub fn shape(&self) -> &[usize] {
        self.shape.extents()
    }

    /// The number of rows: the product of all extents but the innermost.
    pub fn n_rows(&self) -> usize {
        self.shape.n_rows()
    }

    /// The innermost extent.
    pub fn row_len(&self) -> usize {
        self.shape.row_len()
    }

    /// Elements from the start of a row to the start of the next.
    pub fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Row `i`.
    #[track_caller]
    pub fn row(&self, i: usize) -> &[f32] {
        assert!(i < self.n_rows(), "row {i} of {:?}", self.shape);
        let start = self.offset + i * self.row_stride;
        &self.storage.as_slice()[start..start + self.row_len()]
    }

    /// All elements, row after row. Panics if this is a view of columns.
    #[track_caller]
    pub fn data(&self) -> &[f32] {
        assert!(
            self.is_contiguous(),
            "a view of columns {:?} of rows of {} has gaps",
            self.shape,
            self.row_stride
        );
        &self.storage.as_slice()[self.offset..self.offset + self.shape.n_elements()]
    }

    /// The elements from the first to the last, with the gaps of [`row_stride`](Tensor::row_stride) between rows.
    pub fn strided_data(&self) -> &[f32] {
        let n_rows = self.n_rows();
        let len = if n_rows == 0 { 0 } else { (n_rows - 1) * self.row_stride + self.row_len() };
        &self.storage.as_slice()[self.offset..self.offset + len]
    }

    fn is_contiguous(&self) -> bool {
        self.row_stride == self.row_len() || self.n_rows() <= 1
    }

    /// Columns `start..start + len` of every row, as a view that no gradient passes. `[.., C] → [.., len]`
    #[track_caller]
    pub fn columns(&self, start: usize, len: usize) -> Tensor {
        assert!(start + len <= self.row_len(), "columns {start}..{} of {:?}", start + len, self.shape);
        let shape = self.shape.with_row_len(len);
        Tensor {
            storage: self.storage.clone(),
            offset: self.offset + start,
            shape,
            row_stride: self.row_stride,
            var: None,
            recipe: None,
        }
    }

    /// The same elements under other extents. Panics on a view of columns or another number of elements.
    #[track_caller]
    pub fn reshape(self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        assert!(self.is_contiguous(), "a view of columns {:?} cannot be reshaped", self.shape);
        assert_eq!(shape.n_elements(), self.shape.n_elements(), "{:?} cannot become {shape:?}", self.shape);
        Tensor { row_stride: shape.row_len(), shape, ..self }
    }

    /// Its place in the tape.
    pub fn tracked(&self) -> Tracked {
        Tracked(self.var)
    }

    /// The same elements as a constant: no gradient passes.
    pub fn detached(&self) -> Tensor {
        Tensor { var: None, recipe: None, ..self.clone() }
    }

    pub(crate) fn is_tracked(&self) -> bool {
        self.var.is_some()
    }

    pub(crate) fn with_var(self, var: Option<Var>) -> Tensor {
        Tensor { var, ..self }
    }

    pub(crate) fn recipe(&self) -> Option<&Recipe> {
        self.recipe.as_ref()
    }

    pub(crate) fn with_recipe(self, recipe: Recipe) -> Tensor {
        Tensor { recipe: Some(recipe), ..self }
    }

    /// The elements for writing: in place if nobody else holds them, else in a copy.
    pub(crate) fn into_unique(mut self) -> Tensor {
        (self.var, self.recipe) = (None, None);
        if self.is_contiguous() && self.storage.get_mut().is_some() {
            return self;
        }
        let row_len = self.row_len();
        Tensor::build(self.shape, |out| {
            for (i, row) in out.chunks_exact_mut(row_len).enumerate() {
                row.copy_from_slice(self.row(i));
            }
        })
    }

    /// The elements of a tensor that [`into_unique`](Tensor::into_unique) returned.
    pub(crate) fn unique_data(&mut self) -> &mut [f32] {
        let n_elements = self.shape.n_elements();
        &mut self.storage.get_mut().expect("into_unique came before")[self.offset..self.offset + n_elements]
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor{:?}", self.shape)?;
        if self.n_rows() > 0 {
            write!(f, " {:.4?}…", &self.row(0)[..self.row_len().min(5)])
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_a_view_with_gaps() {
        let x = Tensor::from_vec((0..6).map(|i| i as f32).collect(), [2, 3]);
        let view = x.columns(1, 2);
        assert_eq!((view.row(0), view.row(1)), (&[1.0, 2.0][..], &[4.0, 5.0][..]));
        assert_eq!(view.strided_data(), &[1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    #[test]
    fn writing_leaves_other_holders_alone() {
        let x = Tensor::from_vec(vec![1.0, 2.0], [1, 2]);
        let mut y = x.clone().into_unique();
        y.unique_data()[0] = 9.0;
        assert_eq!((x.data()[0], y.data()[0]), (1.0, 9.0));
    }
}
