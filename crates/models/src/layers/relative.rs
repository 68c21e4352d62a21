//! Learnt biases of the attention scores by distance.

use rhetor_tensor::ops;
use rhetor_tensor::ops::scored_attention::{Relative, Scores};

use super::{Embedding, Pass};

/// One bias for each head and bucket of distances, shared by all layers of a stack: near distances have a bucket each, far
/// ones share buckets that grow with the logarithm. Source: T5, arXiv:1910.10683, section 2.1, and its code.
pub struct RelativePositions {
    /// [buckets, H]
    table: Embedding,
    /// The bucket of each distance, from the farthest key before the query on.
    buckets: Vec<u32>,
    /// The place of distance 0 among them.
    zero: usize,
}

/// The keys that a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// Those before it and itself: a decoder's.
    Past,
    /// All: an encoder's.
    Both,
}

impl RelativePositions {
    /// Over a table of [buckets, H]; from `max_distance` on all distances share the last bucket of their side.
    pub fn new(table: Embedding, sees: Sees, max_distance: usize) -> RelativePositions {
        let far = max_distance as isize;
        let last = if sees == Sees::Both { far } else { 0 };
        let n_buckets = table.weight.n_out();
        let buckets = (-far..=last).map(|distance| bucket(distance, sees, n_buckets, max_distance) as u32);
        RelativePositions { table, buckets: buckets.collect(), zero: max_distance }
    }

    /// The biases, to be computed once for a stack and a pass: gradients of all its layers meet in them.
    pub fn scores(&self, pass: &Pass) -> Scores {
        let by_distance = self.table.forward(&self.buckets, pass); // [n, H]
        let table = ops::transpose::transpose(&by_distance); // [H, n]
        Scores { relative: Some(Relative { table, zero: self.zero }), ..Scores::default() }
    }
}

/// The bucket of a key that stands `distance` after the query.
fn bucket(distance: isize, sees: Sees, n_buckets: usize, max_distance: usize) -> usize {
    let (n, first) = match sees {
        Sees::Both if distance > 0 => (n_buckets / 2, n_buckets / 2),
        Sees::Both => (n_buckets / 2, 0),
        Sees::Past => (n_buckets, 0),
    };
    let distance = if sees == Sees::Past { (-distance).max(0) } else { distance.abs() } as usize;
    let n_near = n / 2;
    if distance < n_near {
        return first + distance;
    }
    // In f32 and truncated, as there: at the borders of buckets more digits would give other answers.
    let steps = (distance as f32 / n_near as f32).ln() / (max_distance as f32 / n_near as f32).ln();
    let far = n_near + (steps * (n - n_near) as f32) as usize;
    first + far.min(n - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first distance of each bucket from `from` on.
    fn firsts(sees: Sees, from: usize, to: usize) -> Vec<usize> {
        let first = |b| (0..200).find(|&far: &usize| bucket(-(far as isize), sees, 32, 128) == b);
        (from..to).map(|b| first(b).expect("every bucket has a distance")).collect()
    }

    #[test]
    fn buckets_begin_where_those_of_transformers_begin() {
        let past = [16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113];
        assert_eq!(firsts(Sees::Past, 16, 32), past);
        assert_eq!(firsts(Sees::Both, 8, 16), [8, 12, 16, 23, 32, 46, 64, 91]);
        assert_eq!([0, 1, 7].map(|d| bucket(d, Sees::Both, 32, 128)), [0, 17, 23]);
        assert_eq!(bucket(5, Sees::Past, 32, 128), 0, "a decoder's keys do not stand after the query");
    }
}
