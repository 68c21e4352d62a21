//! AdamW with moments of eight bits: a quarter of the memory of its states.

use super::AdamW;
use super::adamw::Factors;
use crate::arch::vector::{Vector, at, per_isa};
use crate::quant::DynamicMap;
use crate::rows::Start;
use crate::{isa, threads};

/// Values that share a scale.
pub const BLOCK_LEN: usize = 256;

/// Blocks that one part steps.
const PART_BLOCKS: usize = 32;

/// AdamW whose moments are kept as indices of the dynamic maps, block by block.
///
/// A step reads the moments, steps in f32 as [`AdamW`] does, and quantises the new ones with the greatest
/// magnitude of each block as its scale. Source: arXiv:2110.02861, sections 2.1 and 2.2, as bitsandbytes has
/// it. Small tensors (below 4096 values) and embeddings are better kept in f32.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Adam8bit(pub AdamW);

/// A moment of a parameter with n values.
#[derive(Debug)]
pub struct State8bit<'a> {
    /// `[n]`, zeros before the first step.
    pub codes: &'a mut [u8],
    /// `[n / 256]`, rounded up; zeros before the first step.
    pub scales: &'a mut [f32],
}

impl Adam8bit {
    /// One step; `m` and `v` are the first and the second moment. Panics if the lengths do not fit.
    #[track_caller]
    pub fn update(&self, values: &mut [f32], gradients: &[f32], m: State8bit, v: State8bit) {
        let n = values.len();
        assert_eq!(gradients.len(), n, "gradients");
        for state in [&m, &v] {
            assert!(
                state.codes.len() == n && state.scales.len() == n.div_ceil(BLOCK_LEN),
                "moments of {n} values"
            );
        }
        let (isa, factors) = (isa::active(), self.0.factors());
        let (to_values, to_codes) =
            (Start(values.as_mut_ptr()), [&mut *m.codes, v.codes].map(|x| Start(x.as_mut_ptr())));
        let to_scales = [m.scales, v.scales].map(|x| Start(x.as_mut_ptr()));
        let part_len = PART_BLOCKS * BLOCK_LEN;
        threads::run(n.div_ceil(part_len), |part| {
            let (first, len) = (part * part_len, part_len.min(n - part * part_len));
            // SAFETY: parts have disjoint blocks of whole slices, whose lengths are checked above.
            let (values, [m, v]) = unsafe {
                let state = |i: usize| State8bit {
                    codes: std::slice::from_raw_parts_mut(to_codes[i].at(first), len),
                    scales: std::slice::from_raw_parts_mut(
                        to_scales[i].at(first / BLOCK_LEN),
                        len.div_ceil(BLOCK_LEN),
                    ),
                };
                (std::slice::from_raw_parts_mut(to_values.at(first), len), [state(0), state(1)])
            };
            update_blocks(isa, values, &gradients[first..first + len], m, v, factors);
        });
    }
}

per_isa! {
    fn update_blocks(
        values: &mut [f32], gradients: &[f32], m: State8bit<'_>, v: State8bit<'_>, factors: Factors
    ) = update_body
}

#[inline(always)]
fn update_body<V: Vector>(
    values: &mut [f32],
    gradients: &[f32],
    m: State8bit<'_>,
    v: State8bit<'_>,
    factors: Factors,
) {
    let (signed, unsigned) = (DynamicMap::signed(), DynamicMap::unsigned());
    let blocks = values.chunks_mut(BLOCK_LEN).zip(gradients.chunks(BLOCK_LEN));
    let m = m.codes.chunks_mut(BLOCK_LEN).zip(m.scales);
    let v = v.codes.chunks_mut(BLOCK_LEN).zip(v.scales);
    for (((values, gradients), (m_codes, m_scale)), (v_codes, v_scale)) in blocks.zip(m).zip(v) {
        let n = values.len();
        let [mut m, mut v] = [[0f32; BLOCK_LEN]; 2];
        read(&mut m, m_codes, *m_scale, signed);
        read(&mut v, v_codes, *v_scale, unsigned);
        let mut greatest = [V::splat(0.0); 2];
        for i in (0..n).step_by(V::LANES) {
            let [value, m_new, v_new] =
                factors.step::<V>(at(values, i), at(gradients, i), at(&m, i), at(&v, i));
            value.store_slice(&mut values[i..]);
            m_new.store_slice(&mut m[i..]);
            v_new.store_slice(&mut v[i..]);
            greatest = [m_new.abs().max(greatest[0]), v_new.max(greatest[1])];
        }
        *m_scale = greatest[0].reduce_max();
        *v_scale = greatest[1].reduce_max();
        signed.indices(&m[..n], 1.0 / m_scale.max(f32::MIN_POSITIVE), m_codes);
        unsigned.indices(&v[..n], 1.0 / v_scale.max(f32::MIN_POSITIVE), v_codes);
        for (code, &x) in m_codes.iter_mut().zip(&m[..n]) {
            // A negative moment stays one: it may not become the value 0, as bitsandbytes has it.
            *code -= u8::from(x < 0.0) & u8::from(*code == SIGNED_ZERO);
        }
    }
}

/// The index of 0 in the signed map.
const SIGNED_ZERO: u8 = 127;

#[inline(always)]
fn read(out: &mut [f32; BLOCK_LEN], codes: &[u8], scale: f32, map: &DynamicMap) {
    for (x, &code) in out.iter_mut().zip(codes) {
        *x = map.values()[usize::from(code)] * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::testing::{assert_close, noise};

    struct States {
        codes: [Vec<u8>; 2],
        scales: [Vec<f32>; 2],
    }

    impl States {
        fn new(n: usize) -> States {
            let n_blocks = n.div_ceil(BLOCK_LEN);
            States { codes: [vec![0; n], vec![0; n]], scales: [vec![0.0; n_blocks], vec![0.0; n_blocks]] }
        }

        fn moments(&mut self) -> [State8bit<'_>; 2] {
            let ([m, v], [m_scales, v_scales]) = (&mut self.codes, &mut self.scales);
            [State8bit { codes: m, scales: m_scales }, State8bit { codes: v, scales: v_scales }]
        }
    }

    #[test]
    fn the_first_step_is_that_of_adamw_and_its_moments_the_nearest_of_the_maps() {
        let n = 1000;
        let (values, gradients) = (noise(n, 1), noise(n, 2));
        let (mut expected, mut m, mut v) = (values.clone(), vec![0.0; n], vec![0.0; n]);
        AdamW::default().update(&mut expected, &gradients, &mut m, &mut v);
        for isa in Isa::available() {
            let (mut got, mut states) = (values.clone(), States::new(n));
            let [first, second] = states.moments();
            update_blocks(isa, &mut got, &gradients, first, second, AdamW::default().factors());
            assert_close(&got, &expected, 1e-6);
            for (codes, scales, map, exact) in [
                (&states.codes[0], &states.scales[0], DynamicMap::signed(), &m),
                (&states.codes[1], &states.scales[1], DynamicMap::unsigned(), &v),
            ] {
                for (i, &exact) in exact.iter().enumerate() {
                    let (scale, kept) = (scales[i / BLOCK_LEN], map.values()[usize::from(codes[i])]);
                    let nearest =
                        map.values().iter().map(|x| (x * scale - exact).abs()).fold(f32::MAX, f32::min);
                    // Or, of a negative one, the nearest negative.
                    let error = (kept * scale - exact).abs();
                    assert!(error <= nearest * 1.001 + 1e-6 * scale, "{i}: {exact} {kept} {scale}");
                    assert!(exact >= 0.0 || kept < 0.0);
                }
            }
        }
    }

    #[test]
    fn the_value_0_has_its_index() {
        assert_eq!(DynamicMap::signed().index(0.0), SIGNED_ZERO);
    }

    #[test]
    fn many_steps_stay_near_those_of_adamw() {
        let n = 5000;
        let (mut exact, mut got, target) = (noise(n, 1), noise(n, 1), noise(n, 2));
        let (mut m, mut v, mut states) = (vec![0.0; n], vec![0.0; n], States::new(n));
        let gradients = |x: &[f32]| -> Vec<f32> { x.iter().zip(&target).map(|(x, t)| x - t).collect() };
        for step in 1..=200 {
            let options = AdamW { learning_rate: 0.01, weight_decay: 0.0, step, ..AdamW::default() };
            let d = gradients(&exact);
            options.update(&mut exact, &d, &mut m, &mut v);
            let d = gradients(&got);
            let [first, second] = states.moments();
            Adam8bit(options).update(&mut got, &d, first, second);
        }
        let rms = |x: &[f32]| {
            (x.iter().zip(&target).map(|(x, t)| f64::from(x - t).powi(2)).sum::<f64>() / n as f64).sqrt()
        };
        // From 1.6 apart both come equally near to the target.
        assert!((rms(&got) - rms(&exact)).abs() < 0.02, "{} {}", rms(&got), rms(&exact));
    }

    #[test]
    fn threads_change_nothing() {
        let n = 40_003;
        let gradients = noise(n, 2);
        let run = |n_threads| {
            crate::threads::set_threads(n_threads);
            let (mut values, mut states) = (noise(n, 1), States::new(n));
            for step in 1..=3 {
                let [m, v] = states.moments();
                Adam8bit(AdamW { step, ..AdamW::default() }).update(&mut values, &gradients, m, v);
            }
            (values, states.codes, states.scales)
        };
        assert!(run(1) == run(2));
    }
}
