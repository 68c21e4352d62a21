//! Buffers that are used again: a forward pass in steady state allocates nothing.
//!
//! A dropped buffer goes to the free list of the thread that drops it, in the bin of its size class. A class is a
//! power of two of elements, so a batch that grows a little finds its buffers again.

use std::cell::RefCell;
use std::sync::Arc;

/// Elements of the smallest class.
const CLASS_MIN: usize = 1 << 6;
/// Bytes of free buffers that a thread keeps; beyond them, dropped buffers go back to the system.
const FREE_BYTES_MAX: usize = 1 << 28;

#[derive(Default)]
struct Arena {
    /// `bins[c]` holds free buffers of `CLASS_MIN << c` elements.
    bins: Vec<Vec<Arc<Vec<f32>>>>,
    free_bytes: usize,
}

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::default();
}

fn class_of(n_elements: usize) -> usize {
    (n_elements.max(CLASS_MIN).next_power_of_two() / CLASS_MIN).trailing_zeros() as usize
}

/// A buffer of `f32`, shared by the tensors that view it and recycled when the last of them goes.
#[derive(Clone)]
pub(crate) struct Storage(Option<Arc<Vec<f32>>>);

impl Storage {
    /// A buffer of at least `n_elements`, of unspecified (initialised) content, that nobody else holds.
    pub(crate) fn unique(n_elements: usize) -> Storage {
        let class = class_of(n_elements);
        let recycled = ARENA.with_borrow_mut(|arena| {
            let buffer = arena.bins.get_mut(class)?.pop()?;
            arena.free_bytes -= buffer.len() * size_of::<f32>();
            Some(buffer)
        });
        Storage(Some(recycled.unwrap_or_else(|| Arc::new(vec![0.0; CLASS_MIN << class]))))
    }

    /// Takes over `values` as they are.
    pub(crate) fn from_vec(values: Vec<f32>) -> Storage {
        Storage(Some(Arc::new(values)))
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        self.0.as_ref().expect("present until dropped")
    }

    /// The content, if nobody else holds it.
    pub(crate) fn get_mut(&mut self) -> Option<&mut [f32]> {
        Arc::get_mut(self.0.as_mut().expect("present until dropped")).map(Vec::as_mut_slice)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let Some(mut buffer) = self.0.take() else { return };
        let n_elements = buffer.len();
        let is_a_class = n_elements >= CLASS_MIN && n_elements.is_power_of_two();
        if !is_a_class || Arc::get_mut(&mut buffer).is_none() {
            return;
        }
        // A thread that is ending has no arena any more: then the buffer goes back to the system.
        let _ = ARENA.try_with(|arena| {
            let mut arena = arena.borrow_mut();
            let bytes = n_elements * size_of::<f32>();
            if arena.free_bytes + bytes <= FREE_BYTES_MAX {
                let class = class_of(n_elements);
                if arena.bins.len() <= class {
                    arena.bins.resize_with(class + 1, Vec::new);
                }
                arena.free_bytes += bytes;
                arena.bins[class].push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let first = Storage::unique(1000);
        let address = first.as_slice().as_ptr();
        assert_eq!(first.as_slice().len(), 1024);
        drop(first);
        assert_eq!(Storage::unique(600).as_slice().as_ptr(), address);
    }

    #[test]
    fn a_shared_buffer_cannot_be_written() {
        let mut first = Storage::unique(10);
        let second = first.clone();
        assert!(first.get_mut().is_none());
        drop(second);
        assert!(first.get_mut().is_some());
    }
}
