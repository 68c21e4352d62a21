//! Splits a tensor's rows over the threads.

use crate::threads;

/// Elements that one part of a parallel element-wise operation takes at least; forking for less costs more than it saves.
const PART_LEN: usize = 16 * 1024;

/// Calls `work(first_row, rows)` on blocks of whole rows of `out` `[.., row_len]`, on all threads if that pays.
///
/// What `work` writes to a row must depend on that row alone. The last row may be shorter than `row_len`.
pub(crate) fn for_each_block(out: &mut [f32], row_len: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    if out.is_empty() || row_len == 0 {
        return;
    }
    let n_rows = out.len().div_ceil(row_len);
    let rows_per_part = PART_LEN.div_ceil(row_len);
    let n_parts = n_rows.div_ceil(rows_per_part);
    if n_parts < 2 {
        return work(0, out);
    }
    let len = out.len();
    let start = Start(out.as_mut_ptr());
    threads::run(n_parts, |part| {
        let first = part * rows_per_part * row_len;
        let n = (rows_per_part * row_len).min(len - first);
        // SAFETY: parts are disjoint ranges of `out`, which is borrowed for the whole call.
        work(part * rows_per_part, unsafe { std::slice::from_raw_parts_mut(start.at(first), n) });
    });
}

/// Where a buffer starts whose disjoint parts are written by several threads.
#[derive(Clone, Copy)]
pub(crate) struct Start<T>(pub(crate) *mut T);

impl<T> Start<T> {
    /// The address of element `i`.
    pub(crate) fn at(self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
}

// SAFETY: whoever dereferences the address answers for the parts being disjoint.
unsafe impl<T: Send> Send for Start<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Start<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_visited_once() {
        for (n, row_len) in [(0, 3), (1, 3), (200_000, 7), (200_001, 100_000), (70_000, 70_000)] {
            let mut out = vec![0f32; n];
            for_each_block(&mut out, row_len, |first_row, rows| {
                for (i, row) in rows.chunks_mut(row_len).enumerate() {
                    row.iter_mut().for_each(|x| *x += (first_row + i + 1) as f32);
                }
            });
            for (i, x) in out.iter().enumerate() {
                assert_eq!(*x, (i / row_len + 1) as f32);
            }
        }
    }
}
