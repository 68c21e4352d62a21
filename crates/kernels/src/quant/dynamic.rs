//! The dynamic 8-bit maps: 256 values of -1..1 or 0..1, some for each power of ten.
//!
//! Source: Dettmers, arXiv:1511.04561, section 2.1, and arXiv:2110.02861, section 1.3; values to the bit
//! those of bitsandbytes.

use std::sync::OnceLock;

/// 256 values in ascending order and the way from a number to the nearest.
#[derive(Debug)]
pub struct DynamicMap {
    values: [f32; 256],
    /// Between neighbours: number i between values i and i + 1, the last beyond all numbers.
    thresholds: [f32; 256],
    /// For each bucket of magnitudes, positive ones first, the number of thresholds below all of it; a bucket
    /// has at most one threshold inside.
    below: [u8; 2 * BUCKETS],
}

/// Bits of the least magnitude that has a bucket of its own, 2^-23: all below lie nearest to the value 0.
const LEAST: u32 = 0x3400_0000;
/// A bucket is an interval with the same sign, exponent and seven bits of mantissa.
const SHIFT: u32 = 16;
/// Buckets of one sign, the last of which is the number 1.
const BUCKETS: usize = ((0x3f80_0000 - LEAST) >> SHIFT) as usize + 1;

impl DynamicMap {
    /// Values of -1..1, for first moments and other numbers with sign; the greatest is 1, the least -0.993.
    pub fn signed() -> &'static DynamicMap {
        static MAP: OnceLock<DynamicMap> = OnceLock::new();
        MAP.get_or_init(|| DynamicMap::new(true))
    }

    /// Values of 0..1, for second moments.
    pub fn unsigned() -> &'static DynamicMap {
        static MAP: OnceLock<DynamicMap> = OnceLock::new();
        MAP.get_or_init(|| DynamicMap::new(false))
    }

    /// The values, in ascending order.
    pub fn values(&self) -> &[f32; 256] {
        &self.values
    }

    /// The index of the value nearest to `x`, the lower one of two as near; numbers outside -1..1 count as
    /// its ends.
    #[inline(always)]
    pub fn index(&self, x: f32) -> u8 {
        self.index_in(bucket(x), x)
    }

    /// Writes the indices of the values nearest to factor · x. In two passes, the first of which becomes
    /// vectors.
    #[inline(always)]
    pub(crate) fn indices(&self, x: &[f32], factor: f32, out: &mut [u8]) {
        for (x, out) in x.chunks(64).zip(out.chunks_mut(64)) {
            let (mut scaled, mut buckets) = ([0f32; 64], [0u32; 64]);
            scaled[..x.len()].copy_from_slice(x);
            for (x, at) in scaled.iter_mut().zip(&mut buckets) {
                *x *= factor;
                *at = bucket(*x);
            }
            for ((out, &x), &bucket) in out.iter_mut().zip(&scaled).zip(&buckets) {
                *out = self.index_in(bucket, x);
            }
        }
    }

    #[inline(always)]
    fn index_in(&self, bucket: u32, x: f32) -> u8 {
        let index = self.below[bucket as usize];
        index + u8::from(x > self.thresholds[usize::from(index)])
    }

    fn new(signed: bool) -> DynamicMap {
        let mut values = vec![0.0, 1.0];
        for (i, scale) in [1e-6f32, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0].into_iter().enumerate() {
            let n: u32 = if signed { 1 << i } else { 2 << i };
            // n + 1 boundaries from 0.1 to 1 as PyTorch spaces them: from both ends, each rounded once.
            let step = (1.0 - 0.1f32) / n as f32;
            let boundary = |k: u32| match k < n.div_ceil(2) {
                true => step.mul_add(k as f32, 0.1),
                false => step.mul_add(-((n - k) as f32), 1.0),
            };
            for k in 0..n {
                let value = scale * ((boundary(k) + boundary(k + 1)) / 2.0);
                values.push(value);
                if signed {
                    values.push(-value);
                }
            }
        }
        values.sort_by(f32::total_cmp);
        let values: [f32; 256] = values.try_into().expect("2 and 2 · (1 + 2 + .. + 64) values");
        let thresholds =
            std::array::from_fn(|i| values.get(i + 1).map_or(f32::INFINITY, |next| (values[i] + next) / 2.0));
        let below = std::array::from_fn(|bucket| {
            let first = LEAST + (((bucket % BUCKETS) as u32) << SHIFT);
            let last = first + (1 << SHIFT) - 1;
            let least = match (bucket < BUCKETS, bucket % BUCKETS) {
                (true, 0) => 0.0,
                (true, _) => f32::from_bits(first),
                (false, _) => -f32::from_bits(last),
            };
            thresholds.iter().filter(|&&threshold| threshold < least).count() as u8
        });
        DynamicMap { values, thresholds, below }
    }
}

/// The bucket of a number; numbers outside -1..1 have those of its ends.
#[inline(always)]
fn bucket(x: f32) -> u32 {
    let magnitude = (x.to_bits() & 0x7fff_ffff).clamp(LEAST, 0x3f80_0000);
    ((magnitude - LEAST) >> SHIFT) + (x.to_bits() >> 31) * BUCKETS as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::nf4::tests::golden;
    use crate::testing::noise;

    #[test]
    fn maps_are_those_of_bitsandbytes_to_the_bit() {
        let golden = golden();
        assert!(golden.floats("dynamic.signed") == *DynamicMap::signed().values());
        assert!(golden.floats("dynamic.unsigned") == *DynamicMap::unsigned().values());
    }

    #[test]
    fn an_index_is_the_number_of_thresholds_below() {
        for map in [DynamicMap::signed(), DynamicMap::unsigned()] {
            let check = |x: f32| {
                let expected = map.thresholds.iter().filter(|&&threshold| threshold < x).count();
                assert_eq!(usize::from(map.index(x)), expected, "{x}");
            };
            for (i, &value) in map.values().iter().enumerate() {
                assert_eq!(usize::from(map.index(value)), i);
                let threshold = map.thresholds[i];
                for x in [
                    threshold,
                    f32::from_bits(threshold.to_bits() - 1),
                    f32::from_bits(threshold.to_bits() + 1),
                ] {
                    if !x.is_nan() {
                        check(x);
                    }
                }
            }
            for x in noise(10_000, 1) {
                check(x);
                check(x * x * x * 1e-3);
                check(x * 1e-6);
            }
            for x in [0.0, -0.0, 1e-45, -1e-45, 1.5, -1.5, f32::INFINITY, f32::NEG_INFINITY] {
                check(x);
            }
            let many: Vec<f32> = noise(100, 2).iter().map(|x| x * 0.5).collect();
            let mut indices = vec![0; 100];
            map.indices(&many, 2.0, &mut indices);
            assert!(many.iter().zip(&indices).all(|(&x, &index)| index == map.index(2.0 * x)));
            // A NaN gets some index.
            map.index(f32::NAN);
        }
    }
}
