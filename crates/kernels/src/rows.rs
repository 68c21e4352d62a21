//! Splits a tensor's rows over the threads.

use crate::threads;
use std::ops::Range;

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

/// Calls `work(rows, blocks)` on blocks of whole rows of tensors that have `n_rows` rows each, on all threads
/// if that pays; `row_cost` is the number of elements that a row stands for.
///
/// What `work` writes to a row must depend on that row alone. Panics if a tensor is no whole number of rows.
#[track_caller]
pub(crate) fn for_each_block_of<const N: usize>(
    n_rows: usize,
    row_cost: usize,
    outs: [&mut [f32]; N],
    work: impl Fn(Range<usize>, [&mut [f32]; N]) + Sync,
) {
    let rows_per_part = PART_LEN.div_ceil(row_cost.max(1));
    run_blocks(n_rows, rows_per_part, outs, |_, rows, outs| work(rows, outs));
}

/// Parts of a sum over rows, at most: each has a partial sum of its own.
const SUM_PARTS: usize = 16;

/// As [`for_each_block_of`], and returns the sum of what the calls add to their last argument, `[width]`
/// zeros at first.
///
/// The partition depends on `n_rows` and `row_cost` alone and partial sums are added in its order, so the sum
/// does not depend on the number of threads.
#[track_caller]
pub(crate) fn sum_over_blocks<const N: usize>(
    n_rows: usize,
    row_cost: usize,
    outs: [&mut [f32]; N],
    width: usize,
    work: impl Fn(Range<usize>, [&mut [f32]; N], &mut [f32]) + Sync,
) -> Vec<f32> {
    let rows_per_part = PART_LEN.div_ceil(row_cost.max(1)).max(n_rows.div_ceil(SUM_PARTS));
    let mut partials = vec![0f32; n_rows.div_ceil(rows_per_part).max(1) * width];
    let start = Start(partials.as_mut_ptr());
    run_blocks(n_rows, rows_per_part, outs, |part, rows, outs| {
        // SAFETY: each part has its own `width` numbers of `partials`, which outlives the call.
        work(rows, outs, unsafe { std::slice::from_raw_parts_mut(start.at(part * width), width) })
    });
    let (total, others) = partials.split_at_mut(width);
    for other in others.chunks_exact(width.max(1)) {
        total.iter_mut().zip(other).for_each(|(total, x)| *total += x);
    }
    partials.truncate(width);
    partials
}

#[track_caller]
fn run_blocks<const N: usize>(
    n_rows: usize,
    rows_per_part: usize,
    outs: [&mut [f32]; N],
    work: impl Fn(usize, Range<usize>, [&mut [f32]; N]) + Sync,
) {
    if n_rows == 0 {
        return;
    }
    let starts = outs.map(|out| {
        assert!(out.len().is_multiple_of(n_rows), "{} elements, {n_rows} rows", out.len());
        (Start(out.as_mut_ptr()), out.len() / n_rows)
    });
    threads::run(n_rows.div_ceil(rows_per_part), |part| {
        let rows = part * rows_per_part..n_rows.min((part + 1) * rows_per_part);
        // SAFETY: parts are disjoint ranges of rows of each tensor, which are borrowed for the whole call.
        let block = |(start, len): (Start<f32>, usize)| unsafe {
            std::slice::from_raw_parts_mut(start.at(rows.start * len), rows.len() * len)
        };
        work(part, rows.clone(), starts.map(block));
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
    #[test]
    fn rows_of_several_tensors_come_together_and_sums_do_not_depend_on_threads() {
        for n_rows in [0, 1, 5, 10_000] {
            let (mut wide, mut narrow) = (vec![0f32; 7 * n_rows], vec![0f32; n_rows]);
            let mut sums = Vec::new();
            for n_threads in [1, 2, 3] {
                threads::set_threads(n_threads);
                sums.push(sum_over_blocks(
                    n_rows,
                    7,
                    [&mut wide, &mut narrow],
                    2,
                    |rows, [wide, narrow], sum| {
                        for ((i, wide), narrow) in rows.zip(wide.chunks_mut(7)).zip(narrow) {
                            wide.fill(i as f32);
                            *narrow = -(i as f32);
                            sum[0] += 1.0;
                            sum[1] += (i as f32).sqrt();
                        }
                    },
                ));
            }
            assert!(wide.iter().enumerate().all(|(i, &x)| x == (i / 7) as f32));
            assert!(narrow.iter().enumerate().all(|(i, &x)| x == -(i as f32)));
            assert!(sums[0][0] == n_rows as f32 && sums[0] == sums[1] && sums[1] == sums[2]);
        }
    }
}
