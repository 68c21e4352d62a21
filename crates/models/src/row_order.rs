//! The order of the rows of a weight and its bias, where Hugging Face's is another than ours, which is GGUF's.
//!
//! An order is a list: Hugging Face's row of each of our rows.

use crate::config::ModelConfig;

/// Rows of heads of `head_dim`: Hugging Face pairs halves in rotary positions, GGUF's LLaMA pairs neighbours.
pub(crate) fn neighbours(n_rows: usize, head_dim: usize) -> Vec<usize> {
    let half = head_dim / 2;
    (0..n_rows).map(|i| i - i % head_dim + i % 2 * half + i % head_dim / 2).collect()
}

/// A layer that holds, for each group of heads that share a key, its queries, its key and its value: ours are all
/// queries, all keys, all values. With as many keys as queries these are the triples of GPT-NeoX.
pub(crate) fn groups(config: &ModelConfig, i: usize) -> Vec<usize> {
    let (n_heads, n_kv_heads) = (config.n_heads, config.kv_heads_of(i));
    let n_shared = n_heads / n_kv_heads;
    let query = |head: usize| head / n_shared * (n_shared + 2) + head % n_shared;
    let beside = |group: usize, at: usize| group * (n_shared + 2) + n_shared + at;
    let keys = (0..n_kv_heads).map(|group| beside(group, 0));
    let values = (0..n_kv_heads).map(|group| beside(group, 1));
    rows_of((0..n_heads).map(query).chain(keys).chain(values), config.head_dim)
}

/// CodeGen's layer: four blocks, as many as there were cores to a replica in training, each of its own queries, values
/// and keys. Source: transformers, `CodeGenAttention`.
pub(crate) fn four_blocks(config: &ModelConfig, _: usize) -> Vec<usize> {
    let of_block = config.n_heads / 4;
    let part = |at: usize| {
        let head = move |head: usize| (head / of_block * 3 + at) * of_block + head % of_block;
        (0..config.n_heads).map(head)
    };
    rows_of(part(0).chain(part(2)).chain(part(1)), config.head_dim)
}

/// The rows of whole heads.
fn rows_of(heads: impl Iterator<Item = usize>, head_dim: usize) -> Vec<usize> {
    heads.flat_map(|head| head * head_dim..(head + 1) * head_dim).collect()
}

/// The order that undoes `order`.
pub(crate) fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, &row)| inverse[row] = i);
    inverse
}

/// The elements of `values`, as many rows as `order` has, in this order: row `i` of the result is row `order[i]`.
pub(crate) fn in_order<T: Copy>(values: &[T], order: &[usize]) -> Vec<T> {
    let row_len = values.len() / order.len().max(1);
    order.iter().flat_map(|&row| &values[row * row_len..][..row_len]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> ModelConfig {
        ModelConfig { n_heads, n_kv_heads, head_dim, ..ModelConfig::default() }
    }

    #[test]
    fn every_order_is_undone_by_its_inverse() {
        let orders = [
            neighbours(24, 6),
            groups(&config(6, 2, 4), 0),
            groups(&config(3, 3, 2), 0),
            four_blocks(&config(8, 8, 2), 0),
        ];
        for order in orders {
            let rows: Vec<usize> = (0..order.len()).collect();
            assert_ne!(order, rows);
            assert_eq!(in_order(&in_order(&rows, &order), &inverse(&order)), rows);
        }
    }

    #[test]
    fn groups_are_queries_and_then_a_key_and_a_value() {
        assert_eq!(neighbours(4, 4), [0, 2, 1, 3]);
        assert_eq!(groups(&config(4, 2, 1), 0), [0, 1, 4, 5, 2, 6, 3, 7]);
        assert_eq!(groups(&config(2, 2, 1), 0), [0, 3, 1, 4, 2, 5]);
        // One key for all queries is our own order.
        assert_eq!(groups(&config(3, 1, 2), 0), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn the_blocks_of_codegen_are_queries_values_keys() {
        let order = four_blocks(&config(4, 4, 1), 0);
        assert_eq!(order, [0, 3, 6, 9, 2, 5, 8, 11, 1, 4, 7, 10]);
        assert_eq!(four_blocks(&config(8, 8, 1), 0)[..4], [0, 1, 6, 7]);
    }
}
