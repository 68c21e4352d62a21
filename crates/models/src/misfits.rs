//! What of a checkpoint does not fit its family: all of it is told at once.
//!
//! A tensor that is missing or of a wrong shape is written down, and zeros stand in its place until all others were
//! looked at; then the checkpoint is refused.

use rhetor_kernels::gemm::{Precision, Rows};
use rhetor_tensor::{Tensor, Vector, Weight};
use std::fmt;
use std::sync::Arc;

/// The most names of each kind that are shown.
const N_SHOWN: usize = 16;

/// The longest vector that zeros stand in for, elements: a file that claims a longer one is refused at once.
const STAND_IN_MAX: usize = 1 << 24;

/// Tensors that do not fit a family with the sizes that the file's keys give.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Misfits {
    /// Names of tensors that are not in the file.
    pub missing: Vec<String>,
    /// Names of tensors that the family does not have: running without them would give wrong answers.
    pub unexpected: Vec<String>,
    /// Tensors of another shape.
    pub misshapen: Vec<Misshapen>,
}

/// A tensor of another shape than the keys say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshapen {
    /// Its name in this kind of file.
    pub name: String,
    /// What the file holds.
    pub got: Vec<usize>,
    /// What the keys say.
    pub expected: Vec<usize>,
    /// The expected shape in letters.
    pub letters: &'static str,
}

impl Misfits {
    /// Whether all fits.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }

    /// Whether nothing can stand in for the missing vector of `len` elements; it is written down.
    pub(crate) fn is_hopeless(&mut self, name: String, len: usize) -> bool {
        self.lacks(name);
        len > STAND_IN_MAX
    }

    /// Writes down that the file lacks a tensor, unless it has it in another shape.
    pub(crate) fn lacks(&mut self, name: String) {
        if !self.missing.contains(&name) && self.misshapen.iter().all(|tensor| tensor.name != name) {
            self.missing.push(name);
        }
    }
}

impl fmt::Display for Misfits {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let names = |f: &mut fmt::Formatter, kind: &str, names: &[String]| match names.len() {
            0 => Ok(()),
            n => {
                let shown: Vec<String> = names.iter().take(N_SHOWN).map(|name| format!("`{name}`")).collect();
                let more = if n > N_SHOWN { format!(" and {} more", n - N_SHOWN) } else { String::new() };
                write!(f, "; {n} {kind}: {}{more}", shown.join(", "))
            }
        };
        names(f, "missing", &self.missing)?;
        names(f, "unexpected", &self.unexpected)?;
        for Misshapen { name, got, expected, letters } in self.misshapen.iter().take(N_SHOWN) {
            write!(f, "; `{name}` has shape {got:?}, expected {expected:?} ({letters})")?;
        }
        match self.misshapen.len().saturating_sub(N_SHOWN) {
            0 => Ok(()),
            n => write!(f, "; {n} more of wrong shape"),
        }
    }
}

/// A matrix of zeros that takes no memory.
struct Zeros {
    n_rows: usize,
    n_cols: usize,
}

impl Rows for Zeros {
    fn n_rows(&self) -> usize {
        self.n_rows
    }

    fn n_cols(&self) -> usize {
        self.n_cols
    }

    fn read(&self, _row: usize, out: &mut [f32]) {
        out.fill(0.0);
    }
}

/// Stands in for a matrix `[out, in]` until the file is refused.
pub(crate) fn matrix(extents: &[usize]) -> Weight {
    Weight::Rows(Arc::new(Zeros { n_rows: extents[0], n_cols: extents[1] }), Precision::F32)
}

/// Stands in for a vector until the file is refused.
pub(crate) fn vector(len: usize) -> Vector {
    Vector::Fixed(Tensor::from_vec(vec![0.0; len], [len]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let mut misfits = Misfits::default();
        (0..20).for_each(|i| misfits.lacks(format!("blk.{i}.attn_q.weight")));
        misfits.lacks("blk.3.attn_q.weight".to_string());
        let text = misfits.to_string();
        assert!(text.starts_with("; 20 missing: `blk.0.attn_q.weight`, "), "{text}");
        assert!(text.ends_with("`blk.15.attn_q.weight` and 4 more"), "{text}");
    }
}
