//! The angles of rotary position embedding: cosines and sines of all positions, with every scaling of
//! frequencies.

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
        assert!(r > 0 && r.is_multiple_of(2), "rotary_dim is {r}; it must be even and positive");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rotary_dim: usize, order: RopeOrder, scaling: RopeScaling) -> RopeTable {
        RopeTable::new(RopeOptions { theta: 10_000.0, rotary_dim, order, context: 4096, scaling })
    }

    fn yarn(factor: f32, original_context: usize) -> Yarn {
        let (beta_fast, beta_slow, truncate) = (32.0, 1.0, true);
        let (attention_factor, mscale, mscale_all_dim) = (None, None, None);
        Yarn {
            factor,
            original_context,
            beta_fast,
            beta_slow,
            attention_factor,
            mscale,
            mscale_all_dim,
            truncate,
        }
    }

    /// Frequencies and attention factor of `transformers` 5.23, `ROPE_INIT_FUNCTIONS`, for heads of 16.
    #[test]
    #[allow(clippy::excessive_precision)]
    fn scaled_frequencies_are_those_of_transformers() {
        let check = |theta: f32, scaling: RopeScaling, magnitude: f32, expected: [f32; 8]| {
            let options = RopeOptions {
                theta,
                rotary_dim: 16,
                order: RopeOrder::Half,
                context: 1000,
                scaling: scaling.clone(),
            };
            let table = RopeTable::new(options);
            assert!((table.magnitude() - magnitude).abs() < 1e-6, "{scaling:?}: {}", table.magnitude());
            let got = table.stretched(1000).unwrap_or(table.inverse_frequencies().to_vec());
            for (got, expected) in got.iter().zip(expected) {
                assert!((got / expected - 1.0).abs() < 1e-6, "{scaling:?}: got {got}, expected {expected}");
            }
        };
        check(
            1e4,
            RopeScaling::Linear { factor: 4.0 },
            1.0,
            [
                0.25,
                0.079056941,
                0.0250000004,
                0.00790569466,
                0.00249999994,
                0.000790569466,
                0.000250000012,
                7.90569466e-05,
            ],
        );
        check(
            1e4,
            RopeScaling::DynamicNtk { factor: 2.0, original_context: 64 },
            1.0,
            [
                1.0,
                0.194297776,
                0.0377516225,
                0.00733505562,
                0.00142518489,
                0.000276910228,
                5.38030399e-05,
                1.04538103e-05,
            ],
        );
        check(
            1e4,
            RopeScaling::DynamicNtk { factor: 2.0, original_context: 1000 },
            1.0,
            [
                1.0,
                0.316227764,
                0.100000001,
                0.0316227786,
                0.00999999978,
                0.00316227786,
                0.00100000005,
                0.000316227786,
            ],
        );
        check(
            1e4,
            RopeScaling::Yarn(yarn(8.0, 512)),
            1.2079441,
            [
                1.0,
                0.247052938,
                0.0562500022,
                0.01087033,
                0.00124999997,
                0.000395284733,
                0.000125000006,
                3.95284733e-05,
            ],
        );
        check(
            1e4,
            RopeScaling::Yarn(Yarn { mscale: Some(1.0), mscale_all_dim: Some(0.8), ..yarn(40.0, 4096) }),
            1.0569662,
            [
                1.0,
                0.316227764,
                0.100000001,
                0.0239147246,
                0.00512499968,
                0.000849862176,
                2.49999994e-05,
                7.90569447e-06,
            ],
        );
        check(
            150_000.0,
            RopeScaling::Yarn(Yarn { truncate: false, attention_factor: Some(1.5), ..yarn(32.0, 4096) }),
            1.5,
            [
                1.0,
                0.225418001,
                0.0508132726,
                0.00679495931,
                0.000456483918,
                1.8188337e-05,
                4.09997847e-06,
                9.24208962e-07,
            ],
        );
        check(
            500_000.0,
            RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_context: 8192,
            },
            1.0,
            [
                1.0,
                0.193922758,
                0.0376060307,
                0.00729266508,
                0.000524846022,
                3.42810235e-05,
                6.64786967e-06,
                1.28917316e-06,
            ],
        );
        let factors = [1.0, 2.0, 4.0, 1.0, 1.0, 8.0, 8.0, 8.0];
        let plain: Vec<f32> = (0..8).map(|i| 10_000f64.powf(-f64::from(i) / 8.0) as f32).collect();
        check(
            1e4,
            RopeScaling::Factors(factors.to_vec()),
            1.0,
            std::array::from_fn(|i| plain[i] / factors[i]),
        );
    }

    #[test]
    #[should_panic(expected = "position 4096, context 4096")]
    fn a_position_outside_the_context_panics() {
        table(4, RopeOrder::Half, RopeScaling::None).row(4096);
    }
}
