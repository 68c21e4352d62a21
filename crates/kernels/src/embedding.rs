//! The gradient of an embedding table.

use crate::arch::vector::{Vector, at, per_isa};
use crate::rows::Start;
use crate::{isa, threads};

/// Columns that one part adds up, for all tokens.
const COLUMNS: usize = 64;

/// table[ids[t], :] += d[t, :] for each token t.
///
/// `ids: [T]`, `d: [T, D]`, `table: [V, D]`. A row is the sum of its tokens' gradients in the order of the
/// tokens: parts take columns, not tokens, so it does not depend on the number of threads. Panics if the
/// lengths do not fit or an id is outside the table.
#[track_caller]
pub fn scatter_add(ids: &[u32], d: &[f32], table: &mut [f32]) {
    let n_tokens = ids.len();
    if n_tokens == 0 {
        return assert!(d.is_empty(), "d {}, no ids", d.len());
    }
    let dim = d.len() / n_tokens;
    assert!(dim > 0 && d.len() == n_tokens * dim, "d {}, {n_tokens} ids", d.len());
    assert!(table.len().is_multiple_of(dim), "table {}, rows of {dim}", table.len());
    let outside = ids.iter().find(|&&id| id as usize >= table.len() / dim);
    assert!(outside.is_none(), "id {outside:?}, table of {} rows", table.len() / dim);
    let isa = isa::active();
    let start = Start(table.as_mut_ptr());
    let part = |columns: std::ops::Range<usize>| {
        for (d, &id) in d.chunks_exact(dim).zip(ids) {
            // SAFETY: ids are inside the table, columns inside its rows, and parts have disjoint columns.
            let row = unsafe {
                std::slice::from_raw_parts_mut(start.at(id as usize * dim + columns.start), columns.len())
            };
            add_row(isa, row, &d[columns.clone()]);
        }
    };
    if d.len() < 32 * 1024 {
        return part(0..dim);
    }
    threads::run(dim.div_ceil(COLUMNS), |i| part(i * COLUMNS..dim.min((i + 1) * COLUMNS)));
}

per_isa! { fn add_row(row: &mut [f32], d: &[f32]) = add_row_body }

#[inline(always)]
fn add_row_body<V: Vector>(row: &mut [f32], d: &[f32]) {
    for i in (0..row.len()).step_by(V::LANES) {
        at::<V>(row, i).add(at(d, i)).store_slice(&mut row[i..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn rows_get_the_sum_of_their_tokens_in_order() {
        for (n_tokens, dim, vocab_size) in [(0, 3, 5), (1, 1, 1), (7, 5, 3), (900, 130, 40), (300, 576, 1000)]
        {
            let ids: Vec<u32> = (0..n_tokens).map(|t| (t * t * 7 % vocab_size) as u32).collect();
            let (d, table) = (noise(n_tokens * dim, 1), noise(vocab_size * dim, 2));
            let mut expected = table.clone();
            for (d, &id) in d.chunks(dim).zip(&ids) {
                expected[id as usize * dim..][..dim].iter_mut().zip(d).for_each(|(x, d)| *x += d);
            }
            for n_threads in [1, 2] {
                threads::set_threads(n_threads);
                let mut got = table.clone();
                scatter_add(&ids, &d, &mut got);
                assert!(got == expected);
            }
        }
    }

    #[test]
    #[should_panic(expected = "id Some(2), table of 2 rows")]
    fn an_id_outside_the_table_panics() {
        scatter_add(&[1, 2], &[0.0; 6], &mut [0.0; 6]);
    }
}
