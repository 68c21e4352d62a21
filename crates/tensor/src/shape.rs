//! The extents of a tensor.

/// The extents of a tensor, outermost first; at most four, kept inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    extents: [usize; Shape::RANK_MAX],
    rank: usize,
}

impl Shape {
    /// The most extents that a tensor can have.
    pub const RANK_MAX: usize = 4;

    /// The extents as a slice.
    pub fn extents(&self) -> &[usize] {
        &self.extents[..self.rank]
    }

    /// The innermost extent: the length of a row. 1 for a scalar.
    pub fn row_len(&self) -> usize {
        self.extents().last().copied().unwrap_or(1)
    }

    /// The product of all extents but the innermost.
    pub fn n_rows(&self) -> usize {
        self.extents[..self.rank.saturating_sub(1)].iter().product()
    }

    /// The number of elements.
    pub fn n_elements(&self) -> usize {
        self.extents().iter().product()
    }

    /// The same extents with another innermost one.
    pub fn with_row_len(mut self, row_len: usize) -> Shape {
        assert!(self.rank > 0, "a scalar has no rows");
        self.extents[self.rank - 1] = row_len;
        self
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(extents: [usize; N]) -> Shape {
        Shape::from(&extents[..])
    }
}

impl From<&[usize]> for Shape {
    fn from(extents: &[usize]) -> Shape {
        assert!(extents.len() <= Shape::RANK_MAX, "{extents:?} has more than {} extents", Shape::RANK_MAX);
        let mut inline = [1; Shape::RANK_MAX];
        inline[..extents.len()].copy_from_slice(extents);
        Shape { extents: inline, rank: extents.len() }
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.extents())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_innermost_extent() {
        let shape = Shape::from([2, 3, 5]);
        assert_eq!((shape.n_rows(), shape.row_len(), shape.n_elements()), (6, 5, 30));
        assert_eq!(shape.with_row_len(7), Shape::from([2, 3, 7]));
        assert_eq!(format!("{shape:?}"), "[2, 3, 5]");
    }
}
