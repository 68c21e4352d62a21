//! Rotary position embedding: rotates pairs of dimensions of queries and keys by angles that grow with the position.

use crate::arch::vector::{Vector, per_isa};
use crate::rows::Start;
use crate::{isa, threads};
use std::f64::consts::PI;
use std::sync::OnceLock;

/// Which dimensions of a head form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopeOrder {
    /// (i, i + r/2): the order of Hugging Face and GPT-NeoX.
    Half,
    /// (2i, 2i + 1): the order of the paper, of Meta and of GGUF's `llama` architecture.
    Interleaved,
}

/// How the frequencies are changed for contexts longer than the model was trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// θ^(−2i/r) as they are.
    None,
    /// All divided by `factor`. Source: arXiv:2306.15595.
    Linear {
        /// How many times longer the context becomes.
        factor: f32,
    },
    /// θ' = θ · (factor · n / original − (factor − 1))^(r / (r − 2)) for the position n − 1 beyond the original context.
    ///
    /// Hugging Face takes for n the length of the sequence so far, which a position's row cannot know; here n is
    /// the position + 1. Both agree within the original context and whenever tokens come one at a time.
    DynamicNtk {
        /// How many times longer the context becomes.
        factor: f32,
        /// Tokens that the model was trained on.
        original_context: usize,
    },
    /// High frequencies stay, low ones are divided by `factor`, a ramp between. Source: arXiv:2309.00071, section 3.
    Yarn(Yarn),
    /// Low frequencies are divided by `factor`, with a smooth step at the given wavelengths: LLaMA 3.1.
    Llama3 {
        /// How many times longer the context becomes.
        factor: f32,
        /// Wavelengths above `original_context / low_freq_factor` are divided in full.
        low_freq_factor: f32,
        /// Wavelengths below `original_context / high_freq_factor` stay.
        high_freq_factor: f32,
        /// Tokens that the model was trained on.
        original_context: usize,
    },
    /// Frequency i divided by number i, as GGUF's `rope_freqs` tensor gives them: `[r/2]`.
    Factors(Vec<f32>),
}

/// The parameters of YaRN, named as Hugging Face's configuration names them.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// How many times longer the context becomes.
    pub factor: f32,
    /// Tokens that the model was trained on.
    pub original_context: usize,
    /// Rotations within the original context above which a frequency stays; usually 32.
    pub beta_fast: f32,
    /// Rotations below which a frequency is divided in full; usually 1.
    pub beta_slow: f32,
    /// Factor on cosines and sines; `None` = 0.1 ln(factor) + 1, or by `mscale` if given.
    pub attention_factor: Option<f32>,
    /// With `mscale_all_dim`: attention factor = get(mscale) / get(mscale_all_dim), get(m) = 0.1 m ln(factor) + 1.
    pub mscale: Option<f32>,
    /// See `mscale`.
    pub mscale_all_dim: Option<f32>,
    /// Whether the ends of the ramp are rounded outwards to whole dimensions; usually true.
    pub truncate: bool,
}

/// What a [`RopeTable`] is made for.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeOptions {
    /// The base θ, usually 10000.
    pub theta: f32,
    /// Dimensions of each head that are rotated, from the first; even.
    pub rotary_dim: usize,
    /// Which dimensions form a pair.
    pub order: RopeOrder,
    /// Positions that may be asked for, in tokens.
    pub context: usize,
    /// Change of the frequencies.
    pub scaling: RopeScaling,
}

/// Cosines and sines of all positions of a context, computed when a position is first asked for.
#[derive(Debug)]
pub struct RopeTable {
    options: RopeOptions,
    /// Angle per position: `[r/2]`.
    inverse_frequencies: Vec<f32>,
    /// Factor on cosines and sines.
    magnitude: f32,
    /// `[context / BLOCK]` blocks of `[BLOCK, cos r/2 | sin r/2]`.
    blocks: Vec<OnceLock<Box<[f32]>>>,
}

/// Positions whose rows are computed together.
const BLOCK: usize = 64;

impl RopeTable {
    /// A table with the frequencies of `options`.
    ///
    /// Panics if `rotary_dim` is odd or 0, or does not fit the number of `Factors`.
    #[track_caller]
    pub fn new(options: RopeOptions) -> RopeTable {
        let r = options.rotary_dim;
        assert!(r > 0 && r % 2 == 0, "rotary_dim is {r}; it must be even and positive");
        let (inverse_frequencies, magnitude) = frequencies(&options);
        let blocks = (0..options.context.div_ceil(BLOCK)).map(|_| OnceLock::new()).collect();
        RopeTable { options, inverse_frequencies, magnitude, blocks }
    }

    /// What the table was made for.
    pub fn options(&self) -> &RopeOptions {
        &self.options
    }

    /// The angle per position of each pair, in radians: `[r/2]`, without what `DynamicNtk` does beyond its context.
    pub fn inverse_frequencies(&self) -> &[f32] {
        &self.inverse_frequencies
    }

    /// The factor on cosines and sines: 1 but for YaRN.
    pub fn magnitude(&self) -> f32 {
        self.magnitude
    }

    /// Cosines `[r/2]` and sines `[r/2]` of `position`, times the magnitude.
    ///
    /// Panics if the position is outside the context.
    #[track_caller]
    pub fn row(&self, position: usize) -> (&[f32], &[f32]) {
        assert!(position < self.options.context, "position {position}, context {}", self.options.context);
        let r = self.options.rotary_dim;
        let block = self.blocks[position / BLOCK].get_or_init(|| self.block(position / BLOCK * BLOCK));
        block[position % BLOCK * r..][..r].split_at(r / 2)
    }

    fn block(&self, first: usize) -> Box<[f32]> {
        let half = self.options.rotary_dim / 2;
        let mut block = vec![0f32; BLOCK * 2 * half].into_boxed_slice();
        for (i, row) in block.chunks_exact_mut(2 * half).enumerate() {
            let position = first + i;
            let stretched = self.stretched(position + 1);
            let frequencies = stretched.as_ref().unwrap_or(&self.inverse_frequencies);
            for (j, &frequency) in frequencies.iter().enumerate() {
                // The angle is rounded to f32, as the reference implementations do, and then exact.
                let angle = f64::from(position as f32 * frequency);
                row[j] = angle.cos() as f32 * self.magnitude;
                row[half + j] = angle.sin() as f32 * self.magnitude;
            }
        }
        block
    }

    /// The frequencies of `DynamicNtk` for a sequence of `len` tokens, if it changes them.
    fn stretched(&self, len: usize) -> Option<Vec<f32>> {
        match self.options.scaling {
            RopeScaling::DynamicNtk { factor, original_context } if len > original_context => {
                let (factor, r) = (f64::from(factor), self.options.rotary_dim as f64);
                let ratio = factor * len as f64 / original_context as f64 - (factor - 1.0);
                let theta = f64::from(self.options.theta) * ratio.powf(r / (r - 2.0));
                Some(plain(theta, self.options.rotary_dim))
            }
            _ => None,
        }
    }
}

/// θ^(−2i/r), i = 0..r/2, rounded as PyTorch rounds it: the exponent, the power and its inverse in f32.
fn plain(theta: f64, rotary_dim: usize) -> Vec<f32> {
    let power = |i: usize| theta.powf(f64::from(2.0 * i as f32 / rotary_dim as f32)) as f32;
    (0..rotary_dim / 2).map(|i| 1.0 / power(i)).collect()
}

/// Angle per position of each pair, and the factor on cosines and sines.
fn frequencies(options: &RopeOptions) -> (Vec<f32>, f32) {
    let plain = plain(f64::from(options.theta), options.rotary_dim);
    match &options.scaling {
        RopeScaling::None | RopeScaling::DynamicNtk { .. } => (plain, 1.0),
        RopeScaling::Linear { factor } => (plain.iter().map(|f| f / factor).collect(), 1.0),
        RopeScaling::Factors(factors) => {
            assert_eq!(
                factors.len(),
                plain.len(),
                "one factor for each pair of rotary_dim {}",
                options.rotary_dim
            );
            (plain.iter().zip(factors).map(|(f, factor)| f / factor).collect(), 1.0)
        }
        RopeScaling::Yarn(yarn) => (yarn_frequencies(&plain, options, yarn), yarn.magnitude()),
        &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let original = original_context as f32;
            let scaled = |&f: &f32| {
                let wavelength = 2.0 * PI as f32 / f;
                if wavelength < original / high_freq_factor {
                    f
                } else if wavelength > original / low_freq_factor {
                    f / factor
                } else {
                    let smooth =
                        (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * f / factor + smooth * f
                }
            };
            (plain.iter().map(scaled).collect(), 1.0)
        }
    }
}

/// YaRN's mixture of plain and divided frequencies.
fn yarn_frequencies(plain: &[f32], options: &RopeOptions, yarn: &Yarn) -> Vec<f32> {
    let r = options.rotary_dim as f64;
    // The dimension whose frequency makes this many rotations within the original context.
    let dimension = |rotations: f32| {
        let period = yarn.original_context as f64 / (f64::from(rotations) * 2.0 * PI);
        r * period.ln() / (2.0 * f64::from(options.theta).ln())
    };
    let (mut low, mut high) = (dimension(yarn.beta_fast), dimension(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(r - 1.0));
    if low == high {
        high += 0.001;
    }
    let (low, high) = (low as f32, high as f32);
    let mixed = |(i, &f): (usize, &f32)| {
        let keep = 1.0 - ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
        f / yarn.factor * (1.0 - keep) + f * keep
    };
    plain.iter().enumerate().map(mixed).collect()
}

impl Yarn {
    /// The factor on cosines and sines.
    pub fn magnitude(&self) -> f32 {
        let scale = |m: f32| {
            if self.factor <= 1.0 { 1.0 } else { 0.1 * f64::from(m) * f64::from(self.factor).ln() + 1.0 }
        };
        match (self.attention_factor, self.mscale, self.mscale_all_dim) {
            (Some(factor), _, _) => factor,
            (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => (scale(m) / scale(all)) as f32,
            _ => scale(1.0) as f32,
        }
    }
}

/// Rotates the first `n_heads` heads of each row in place (RoPE).
///
/// `x: [T, stride]`, row t beginning with heads `[n_heads, head_dim]`, of which the first `rotary_dim` dimensions
/// turn and the others stay; what follows the heads in a row stays. `positions: [T]` in tokens from 0. The last
/// row may end with its heads. Queries and keys that lie side by side can be rotated by one call.
/// Source: RoFormer, arXiv:2104.09864, eq. 34. Panics if the lengths do not fit or a position is outside the table.
#[track_caller]
pub fn rope(
    x: &mut [f32],
    stride: usize,
    n_heads: usize,
    head_dim: usize,
    positions: &[usize],
    table: &RopeTable,
) {
    let Some(last) = positions.len().checked_sub(1) else { return };
    let width = n_heads * head_dim;
    assert!(stride >= width && table.options.rotary_dim <= head_dim, "stride {stride}, heads {width}");
    assert!(x.len() >= last * stride + width, "x {}, {} rows of {stride}", x.len(), positions.len());
    let isa = isa::active();
    let rotate = |x: &mut [f32], position| {
        let (cos, sin) = table.row(position);
        rotate_row(isa, x, head_dim, cos, sin, table.options.order);
    };
    if positions.len() * width < 32 * 1024 {
        return positions.iter().enumerate().for_each(|(t, &p)| rotate(&mut x[t * stride..][..width], p));
    }
    const ROWS: usize = 8;
    let start = Start(x.as_mut_ptr());
    threads::run(positions.len().div_ceil(ROWS), |part| {
        for t in part * ROWS..positions.len().min((part + 1) * ROWS) {
            // SAFETY: rows do not overlap, as stride >= width, and lie within `x`, as asserted.
            rotate(unsafe { std::slice::from_raw_parts_mut(start.at(t * stride), width) }, positions[t]);
        }
    });
}

per_isa! {
    fn rotate_row(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], order: RopeOrder) = rotate_row_body
}

#[inline(always)]
fn rotate_row_body<V: Vector>(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], order: RopeOrder) {
    for head in x.chunks_exact_mut(head_dim) {
        match order {
            RopeOrder::Half => rotate_halves::<V>(&mut head[..2 * cos.len()], cos, sin),
            RopeOrder::Interleaved => {
                for ((pair, &cos), &sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                    (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
                }
            }
        }
    }
}

#[inline(always)]
fn rotate_halves<V: Vector>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let n = cos.len();
    let (a, b) = head.split_at_mut(n);
    for (((a, b), cos), sin) in
        a.chunks_mut(V::LANES).zip(b.chunks_mut(V::LANES)).zip(cos.chunks(V::LANES)).zip(sin.chunks(V::LANES))
    {
        let (cos, sin) = (V::load_slice(cos, 0.0), V::load_slice(sin, 0.0));
        let (x, y) = (V::load_slice(a, 0.0), V::load_slice(b, 0.0));
        x.mul(cos).sub(y.mul(sin)).store_slice(a);
        y.mul(cos).add(x.mul(sin)).store_slice(b);
    }
}
