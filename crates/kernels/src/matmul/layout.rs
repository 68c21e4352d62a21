//! How the blocks of a file become the planes of a [`Packed`](crate::matmul::Packed) weight, and back.
//!
//! Every quantized type passes through the same two steps. The codes of a file's block become one byte a column, seen
//! as words of four neighbouring columns ([`decode`]); then the words of 32 columns are squeezed into the vectors
//! that [`format`](super::format) describes ([`squeeze`]). The scale fields are copied as they are.

use crate::dtype::DType;

/// Rows that are interleaved with each other.
pub(crate) const GROUP: usize = 16;

/// A run of equal scale fields in a file's block: offset in bytes, bytes in a field, number of fields.
pub(crate) type Fields = (usize, usize, usize);

/// The bits of a code and where its scales lie.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Bits of a code in the vectors of low bits.
    pub low: u32,
    /// Bits of a code in the vectors of high bits.
    pub high: u32,
    /// The scale fields, in the order of the plane of scales.
    pub fields: &'static [Fields],
}

/// Columns in a file's block, as a constant.
pub(crate) const fn block_len(dtype: DType) -> usize {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => 1,
        DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0 | DType::Iq4Nl => 32,
        DType::Q2K | DType::Q3K | DType::Q4K | DType::Q5K | DType::Q6K => 256,
    }
}

impl Layout {
    /// The layout of a type; the dense ones have no codes.
    pub const fn of(dtype: DType) -> Layout {
        let (low, high, fields): (u32, u32, &[Fields]) = match dtype {
            DType::F32 | DType::F16 | DType::BF16 => (0, 0, &[]),
            DType::Q4_0 | DType::Iq4Nl => (4, 0, &[(0, 2, 1)]),
            DType::Q4_1 => (4, 0, &[(0, 2, 2)]),
            DType::Q5_0 => (4, 1, &[(0, 2, 1)]),
            DType::Q5_1 => (4, 1, &[(0, 2, 2)]),
            DType::Q8_0 => (8, 0, &[(0, 2, 1)]),
            DType::Q2K => (2, 0, &[(0, 1, 16), (80, 2, 2)]),
            DType::Q3K => (2, 1, &[(96, 4, 3), (108, 2, 1)]),
            DType::Q4K => (4, 0, &[(4, 4, 3), (0, 2, 2)]),
            DType::Q5K => (4, 1, &[(4, 4, 3), (0, 2, 2)]),
            DType::Q6K => (4, 2, &[(192, 1, 16), (208, 2, 1)]),
        };
        Layout { low, high, fields }
    }

    /// Bytes of 32 columns of a group in the plane of codes.
    pub const fn code_bytes(self) -> usize {
        GROUP * 32 / 8 * (self.low + self.high) as usize
    }

    /// Bytes of a file's block of a group in the plane of scales.
    pub const fn scale_bytes(self) -> usize {
        let (mut sum, mut i) = (0, 0);
        while i < self.fields.len() {
            sum += self.fields[i].1 * self.fields[i].2;
            i += 1;
        }
        GROUP * sum
    }
}

/// The codes of a file's block: one byte a column, four columns a word; a type of 32 columns fills the first 8 words.
pub(crate) type Words = [u32; 64];

#[inline(always)]
fn word(bytes: &[u8], i: usize) -> u32 {
    u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
}

#[inline(always)]
fn put(bytes: &mut [u8], i: usize, word: u32) {
    bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
}

/// Four bits to the lowest bits of four bytes.
#[inline(always)]
fn spread(bits: u32) -> u32 {
    ((bits & 15) * 0x0020_4081) & 0x0101_0101
}

/// The lowest bits of four bytes to four bits.
#[inline(always)]
fn gather(word: u32) -> u32 {
    (word & 0x0101_0101).wrapping_mul(0x1020_4080) >> 28
}

const NIBBLE: u32 = 0x0f0f_0f0f;
const CRUMB: u32 = 0x0303_0303;
const BIT: u32 = 0x0101_0101;
/// Q8_0's signed bytes become unsigned.
const SIGN: u32 = 0x8080_8080;

/// The codes of a file's block.
#[inline(always)]
pub(crate) fn decode(dtype: DType, block: &[u8], words: &mut Words) {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => unreachable!("dense types have no codes"),
        DType::Q8_0 => (0..8).for_each(|j| words[j] = word(&block[2..34], j) ^ SIGN),
        DType::Q4_0 | DType::Iq4Nl => decode_nibbles(&block[2..18], words),
        DType::Q4_1 => decode_nibbles(&block[4..20], words),
        DType::Q5_0 => {
            decode_nibbles(&block[6..22], words);
            decode_fifth_bits(word(&block[2..6], 0), words);
        }
        DType::Q5_1 => {
            decode_nibbles(&block[8..24], words);
            decode_fifth_bits(word(&block[4..8], 0), words);
        }
        DType::Q4K | DType::Q5K => {
            let codes = if dtype == DType::Q4K { &block[16..144] } else { &block[48..176] };
            for i in 0..4 {
                for j in 0..8 {
                    let q = word(codes, 8 * i + j);
                    words[16 * i + j] = q & NIBBLE;
                    words[16 * i + 8 + j] = (q >> 4) & NIBBLE;
                }
            }
            if dtype == DType::Q5K {
                for m in 0..8 {
                    for j in 0..8 {
                        words[8 * m + j] |= ((word(&block[16..48], j) >> m) & BIT) << 4;
                    }
                }
            }
        }
        DType::Q6K => {
            for half in 0..2 {
                let (low, high) =
                    (&block[64 * half..64 * half + 64], &block[128 + 32 * half..160 + 32 * half]);
                for part in 0..4 {
                    for j in 0..8 {
                        let nibble = (word(low, 8 * (part % 2) + j) >> (4 * (part / 2))) & NIBBLE;
                        let crumb = (word(high, j) >> (2 * part)) & CRUMB;
                        words[32 * half + 8 * part + j] = nibble | crumb << 4;
                    }
                }
            }
        }
        DType::Q2K => decode_crumbs(&block[16..80], words),
        DType::Q3K => {
            decode_crumbs(&block[32..96], words);
            for m in 0..8 {
                for j in 0..8 {
                    words[8 * m + j] |= ((word(&block[..32], j) >> m) & BIT) << 2;
                }
            }
        }
    }
}

#[inline(always)]
fn decode_nibbles(codes: &[u8], words: &mut Words) {
    for j in 0..4 {
        let q = word(codes, j);
        words[j] = q & NIBBLE;
        words[j + 4] = (q >> 4) & NIBBLE;
    }
}

#[inline(always)]
fn decode_fifth_bits(bits: u32, words: &mut Words) {
    (0..8).for_each(|j| words[j] |= spread(bits >> (4 * j)) << 4);
}

#[inline(always)]
fn decode_crumbs(codes: &[u8], words: &mut Words) {
    for half in 0..2 {
        for part in 0..4 {
            for j in 0..8 {
                words[32 * half + 8 * part + j] = (word(codes, 8 * half + j) >> (2 * part)) & CRUMB;
            }
        }
    }
}

/// Writes the codes into a file's block; the inverse of [`decode`].
pub(crate) fn encode(dtype: DType, words: &Words, block: &mut [u8]) {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => unreachable!("dense types have no codes"),
        DType::Q8_0 => (0..8).for_each(|j| put(&mut block[2..34], j, words[j] ^ SIGN)),
        DType::Q4_0 | DType::Iq4Nl => encode_nibbles(words, &mut block[2..18]),
        DType::Q4_1 => encode_nibbles(words, &mut block[4..20]),
        DType::Q5_0 => {
            encode_nibbles(words, &mut block[6..22]);
            put(&mut block[2..6], 0, fifth_bits(words));
        }
        DType::Q5_1 => {
            encode_nibbles(words, &mut block[8..24]);
            put(&mut block[4..8], 0, fifth_bits(words));
        }
        DType::Q4K | DType::Q5K => {
            let codes = if dtype == DType::Q4K { &mut block[16..144] } else { &mut block[48..176] };
            for i in 0..4 {
                for j in 0..8 {
                    put(
                        codes,
                        8 * i + j,
                        (words[16 * i + j] & NIBBLE) | (words[16 * i + 8 + j] & NIBBLE) << 4,
                    );
                }
            }
            if dtype == DType::Q5K {
                for j in 0..8 {
                    let bits = (0..8).fold(0, |bits, m| bits | ((words[8 * m + j] >> 4) & BIT) << m);
                    put(&mut block[16..48], j, bits);
                }
            }
        }
        DType::Q6K => {
            for half in 0..2 {
                let w = |part: usize, j: usize| words[32 * half + 8 * part + j];
                for j in 0..8 {
                    for row in 0..2 {
                        let nibbles = (w(row, j) & NIBBLE) | (w(row + 2, j) & NIBBLE) << 4;
                        put(&mut block[64 * half..], 8 * row + j, nibbles);
                    }
                    let crumbs =
                        (0..4).fold(0, |bits, part| bits | ((w(part, j) >> 4) & CRUMB) << (2 * part));
                    put(&mut block[128 + 32 * half..], j, crumbs);
                }
            }
        }
        DType::Q2K => encode_crumbs(words, &mut block[16..80]),
        DType::Q3K => {
            encode_crumbs(words, &mut block[32..96]);
            for j in 0..8 {
                let bits = (0..8).fold(0, |bits, m| bits | ((words[8 * m + j] >> 2) & BIT) << m);
                put(&mut block[..32], j, bits);
            }
        }
    }
}

fn encode_nibbles(words: &Words, codes: &mut [u8]) {
    (0..4).for_each(|j| put(codes, j, (words[j] & NIBBLE) | (words[j + 4] & NIBBLE) << 4));
}

fn fifth_bits(words: &Words) -> u32 {
    (0..8).fold(0, |bits, j| bits | gather(words[j] >> 4) << (4 * j))
}

fn encode_crumbs(words: &Words, codes: &mut [u8]) {
    for half in 0..2 {
        for j in 0..8 {
            let w = |part: usize| words[32 * half + 8 * part + j] & CRUMB;
            put(codes, 8 * half + j, (0..4).fold(0, |bits, part| bits | w(part) << (2 * part)));
        }
    }
}

impl Layout {
    /// Squeezes the eight words of 32 columns into those of the plane of codes; returns how many there are.
    #[inline(always)]
    pub fn squeeze(self, w: &[u32], out: &mut [u32; 8]) -> usize {
        let n = match self.low {
            8 => {
                out.copy_from_slice(&w[..8]);
                8
            }
            4 => {
                (0..4).for_each(|v| out[v] = (w[v] & NIBBLE) | (w[v + 4] & NIBBLE) << 4);
                4
            }
            _ => {
                let crumbs = |v: usize| (0..4).fold(0, |bits, i| bits | (w[4 * v + i] & CRUMB) << (2 * i));
                (out[0], out[1]) = (crumbs(0), crumbs(1));
                2
            }
        };
        match self.high {
            0 => n,
            1 => {
                out[n] = (0..8).fold(0, |bits, j| bits | ((w[j] >> self.low) & BIT) << j);
                n + 1
            }
            _ => {
                let crumbs =
                    |v: usize| (0..4).fold(0, |bits, i| bits | ((w[4 * v + i] >> 4) & CRUMB) << (2 * i));
                (out[n], out[n + 1]) = (crumbs(0), crumbs(1));
                n + 2
            }
        }
    }

    /// The inverse of [`Layout::squeeze`].
    pub fn expand(self, planes: &[u32; 8], w: &mut [u32]) {
        let n = match self.low {
            8 => {
                w[..8].copy_from_slice(planes);
                8
            }
            4 => {
                (0..8).for_each(|j| w[j] = (planes[j % 4] >> (4 * (j / 4))) & NIBBLE);
                4
            }
            _ => {
                (0..8).for_each(|j| w[j] = (planes[j / 4] >> (2 * (j % 4))) & CRUMB);
                2
            }
        };
        match self.high {
            0 => {}
            1 => (0..8).for_each(|j| w[j] |= ((planes[n] >> j) & BIT) << self.low),
            _ => (0..8).for_each(|j| w[j] |= ((planes[n + j / 4] >> (2 * (j % 4))) & CRUMB) << 4),
        }
    }
}
