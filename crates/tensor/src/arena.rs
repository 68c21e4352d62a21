//! Buffers that are used again: a forward pass in steady state allocates nothing.
//!
//! A dropped buffer goes to the free list of the thread that drops it. Sizes are rounded up to classes, so a batch that
//! grows a little finds its buffers again: powers of two while they are small, eighths of them where they are large,
//! so that no more than an eighth of a large buffer is unused. A thread that trains keeps what it frees, but never holds much
//! more than was once in use at the same time: rather than that, other free buffers go back to the system.

use rhetor_kernels::huge_pages;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Elements of the smallest class.
const CLASS_MIN: usize = 1 << 6;
/// Elements from which on classes are eighths of powers of two.
const LARGE: usize = 1 << 15;
/// Bytes of free buffers that a thread keeps that never trained; beyond them, dropped buffers go back to the system.
const FREE_BYTES_MAX: usize = 1 << 28;

#[derive(Default)]
struct Arena {
    /// Free buffers by their numbers of elements.
    bins: BTreeMap<usize, Vec<Arc<Vec<f32>>>>,
    free_bytes: usize,
    /// Bytes of the buffers in use, as far as this thread knows.
    used_bytes: usize,
    /// The most that they ever were.
    used_bytes_max: usize,
    /// Whether the thread trains.
    keeps: bool,
}

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::default();
}

/// `n_elements` rounded up to its class.
fn class_of(n_elements: usize) -> usize {
    if n_elements <= LARGE {
        n_elements.max(CLASS_MIN).next_power_of_two()
    } else {
        n_elements.next_multiple_of(1 << (n_elements.ilog2() - 3))
    }
}

const fn n_bytes(n_elements: usize) -> usize {
    n_elements * size_of::<f32>()
}

impl Arena {
    /// A free buffer of this class, or of one that is at most a half larger.
    fn take(&mut self, class: usize) -> Option<Arc<Vec<f32>>> {
        let (&class, bin) =
            self.bins.range_mut(class..=class + class / 2).find(|(_, bin)| !bin.is_empty())?;
        self.free_bytes -= n_bytes(class);
        bin.pop()
    }

    /// Counts a buffer in use, and makes room for it if it is a new one.
    fn count(&mut self, class: usize, is_new: bool) {
        self.used_bytes += n_bytes(class);
        self.used_bytes_max = self.used_bytes_max.max(self.used_bytes);
        let most = self.used_bytes_max + self.used_bytes_max / 16;
        while is_new && self.free_bytes > 0 && self.used_bytes + self.free_bytes > most {
            let Some(mut largest) = self.bins.last_entry() else { break };
            match largest.get_mut().pop() {
                Some(_) => self.free_bytes -= n_bytes(*largest.key()),
                None => drop(largest.remove()),
            }
        }
    }

    fn give(&mut self, buffer: Arc<Vec<f32>>) {
        let bytes = n_bytes(buffer.len());
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
        if self.keeps || self.free_bytes + bytes <= FREE_BYTES_MAX {
            self.free_bytes += bytes;
            self.bins.entry(buffer.len()).or_default().push(buffer);
        }
    }
}

/// From now on this thread keeps what it frees.
pub(crate) fn keep() {
    ARENA.with_borrow_mut(|arena| arena.keeps = true);
}

fn unique(n_elements: usize) -> Arc<Vec<f32>> {
    let class = class_of(n_elements);
    ARENA.with_borrow_mut(|arena| {
        let recycled = arena.take(class);
        arena.count(recycled.as_ref().map_or(class, |buffer| buffer.len()), recycled.is_none());
        recycled.unwrap_or_else(|| {
            let mut buffer = vec![0.0; class];
            huge_pages::advise(&mut buffer);
            Arc::new(buffer)
        })
    })
}

/// `n_elements` of unspecified (initialised) content, for somebody who keeps them for long; see [`give_back`].
pub(crate) fn lend(n_elements: usize) -> Vec<f32> {
    let buffer = unique(n_elements);
    let mut buffer = Arc::try_unwrap(buffer).expect("nobody else holds it");
    buffer.truncate(n_elements);
    buffer
}

/// Takes back what [`lend`] gave.
pub(crate) fn give_back(mut buffer: Vec<f32>) {
    let class = buffer.capacity();
    if class_of(class) != class {
        return;
    }
    buffer.resize(class, 0.0);
    let _ = ARENA.try_with(|arena| arena.borrow_mut().give(Arc::new(buffer)));
}

/// A buffer of `f32`, shared by the tensors that view it and recycled when the last of them goes.
#[derive(Clone)]
pub(crate) struct Storage {
    /// Present until dropped.
    buffer: Option<Arc<Vec<f32>>>,
    /// Whether it is one of an arena.
    is_recycled: bool,
}

impl Storage {
    /// A buffer of at least `n_elements`, of unspecified (initialised) content, that nobody else holds.
    pub(crate) fn unique(n_elements: usize) -> Storage {
        Storage { buffer: Some(unique(n_elements)), is_recycled: true }
    }

    /// Takes over `values` as they are.
    pub(crate) fn from_vec(values: Vec<f32>) -> Storage {
        Storage { buffer: Some(Arc::new(values)), is_recycled: false }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        self.buffer.as_ref().expect("present until dropped")
    }

    /// The content, if nobody else holds it.
    pub(crate) fn get_mut(&mut self) -> Option<&mut [f32]> {
        Arc::get_mut(self.buffer.as_mut().expect("present until dropped")).map(Vec::as_mut_slice)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let Some(mut buffer) = self.buffer.take() else { return };
        if self.is_recycled && Arc::get_mut(&mut buffer).is_some() {
            // A thread that is ending has no arena any more: then the buffer goes back to the system.
            let _ = ARENA.try_with(|arena| arena.borrow_mut().give(buffer));
        }
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
        let lent = lend(700);
        assert_eq!((lent.as_ptr(), lent.len()), (address, 700));
        give_back(lent);
        assert_eq!(Storage::unique(1024).as_slice().as_ptr(), address);
    }

    #[test]
    fn a_shared_buffer_cannot_be_written() {
        let mut first = Storage::unique(10);
        let second = first.clone();
        assert!(first.get_mut().is_none());
        drop(second);
        assert!(first.get_mut().is_some());
    }

    #[test]
    fn no_more_than_an_eighth_of_a_large_buffer_is_unused_and_classes_are_their_own() {
        for n in [LARGE, LARGE + 1, 100_000, (1 << 20) - 1, (1 << 20) + 1, 12_345_678] {
            let class = class_of(n);
            assert!(n <= class && class - n <= n / 8, "{n} in {class}");
            assert_eq!(class_of(class), class);
        }
    }

    #[test]
    fn a_thread_that_trains_holds_little_more_than_it_once_used() {
        let held = || ARENA.with_borrow(|arena| arena.used_bytes + arena.free_bytes);
        keep();
        // By turns sizes that cannot take each other's place.
        for i in 0..20 {
            let _buffers = [Storage::unique(100_000 << (i % 5)), Storage::unique(70_000 << (i % 3))];
            assert!(held() <= n_bytes(class_of(100_000 << 4) + class_of(70_000 << 2)) * 17 / 16);
        }
    }
}
