//! Keys and values of one layer, in pages of [`PAGE_LEN`] tokens.
//!
//! A page holds for each kv head a block: the keys dimension by dimension `[d, PAGE_LEN]`, so that a vector of
//! lanes is as many keys and a score is one chain of fused multiply-adds over d; then the values token by token
//! `[PAGE_LEN, d']`, d' = d rounded up to 16 with zeros. Which pages a sequence owns, and in which order, its
//! table says; this module neither allocates nor frees pages of sequences.

use crate::half::{f16_to_f32, f32_slice_to_f16};

/// Tokens in a page.
pub const PAGE_LEN: usize = 32;

/// Dimensions of a key or value that share a scale in [`KvType::Q8`].
pub(crate) const GROUP_LEN: usize = 32;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvType {
    /// As they come.
    F32,
    /// Rounded to f16.
    F16,
    /// Bytes with sign, one f32 scale for each 32 dimensions of a token: 9 bits a number.
    Q8,
}

impl KvType {
    /// Every type.
    pub const ALL: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8];

    /// Lower-case name, as in `q8`.
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Q8 => "q8",
        }
    }

    /// The type called `name`.
    pub fn from_name(name: &str) -> Option<KvType> {
        KvType::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Bytes of a number, scales apart.
    fn width(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 2,
            KvType::Q8 => 1,
        }
    }
}

/// Where the parts of one head's block of a page lie, in bytes from the block's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub kind: KvType,
    pub head_dim: usize,
    /// `head_dim` rounded up to 16: numbers from one token's value to the next's.
    pub value_stride: usize,
    /// Groups with a scale of their own: 0 but for Q8.
    pub n_groups: usize,
    /// The values `[PAGE_LEN, value_stride]`; the keys `[head_dim, PAGE_LEN]` begin at 0.
    pub values: usize,
    /// The keys' scales, f32 `[n_groups, PAGE_LEN]`.
    pub key_scales: usize,
    /// The values' scales, f32 `[PAGE_LEN, n_groups]`.
    pub value_scales: usize,
    /// Bytes of a block, a multiple of 64.
    pub n_bytes: usize,
}

impl Layout {
    fn new(kind: KvType, head_dim: usize) -> Layout {
        let value_stride = head_dim.next_multiple_of(16);
        let n_groups = if kind == KvType::Q8 { head_dim.div_ceil(GROUP_LEN) } else { 0 };
        let values = (head_dim * PAGE_LEN * kind.width()).next_multiple_of(64);
        let key_scales = values + value_stride * PAGE_LEN * kind.width();
        let value_scales = key_scales + 4 * n_groups * PAGE_LEN;
        let n_bytes = (value_scales + 4 * n_groups * PAGE_LEN).next_multiple_of(64);
        Layout { kind, head_dim, value_stride, n_groups, values, key_scales, value_scales, n_bytes }
    }
}

/// The keys and values of one layer.
#[derive(Debug)]
pub struct KvPages {
    layout: Layout,
    n_kv_heads: usize,
    n_pages: usize,
    /// The pages, from the first multiple of 64 bytes on; zeroed lazily by the system.
    memory: Vec<u8>,
    /// Where in `memory` page 0 begins.
    offset: usize,
}

impl KvPages {
    /// `n_pages` pages of zeros; a page takes resident memory once it is written.
    ///
    /// Panics if a number but `n_pages` is 0, or the size overflows.
    #[track_caller]
    pub fn new(kind: KvType, n_kv_heads: usize, head_dim: usize, n_pages: usize) -> KvPages {
        assert!(n_kv_heads > 0 && head_dim > 0, "{n_kv_heads} kv heads of {head_dim}");
        let layout = Layout::new(kind, head_dim);
        let n_bytes = layout.n_bytes.checked_mul(n_kv_heads).and_then(|n| n.checked_mul(n_pages));
        let memory = vec![0u8; n_bytes.expect("the pages exceed the address space") + 64];
        let offset = memory.as_ptr().align_offset(64);
        KvPages { layout, n_kv_heads, n_pages, memory, offset }
    }

    /// How keys and values are stored.
    pub fn kind(&self) -> KvType {
        self.layout.kind
    }

    /// Number of kv heads.
    pub fn n_kv_heads(&self) -> usize {
        self.n_kv_heads
    }

    /// Dimensions of a head.
    pub fn head_dim(&self) -> usize {
        self.layout.head_dim
    }

    /// Number of pages.
    pub fn n_pages(&self) -> usize {
        self.n_pages
    }

    /// Bytes of all pages, whether resident or not.
    pub fn n_bytes(&self) -> usize {
        self.n_pages * self.page_bytes()
    }

    /// Bytes of one page.
    pub fn page_bytes(&self) -> usize {
        self.n_kv_heads * self.layout.n_bytes
    }

    /// A page as it is stored: [`KvPages::page_bytes`] bytes, good for pages of the same type and shape alone.
    ///
    /// Panics if there is no such page.
    #[track_caller]
    pub fn page(&self, page: u32) -> &[u8] {
        assert!((page as usize) < self.n_pages, "page {page} of {}", self.n_pages);
        let start = self.block_start(page, 0);
        &self.memory[start..start + self.page_bytes()]
    }

    /// Replaces a page by what [`KvPages::page`] gave for one of the same type and shape.
    ///
    /// Panics if there is no such page, or the length is not that of a page.
    #[track_caller]
    pub fn set_page(&mut self, page: u32, bytes: &[u8]) {
        assert!((page as usize) < self.n_pages, "page {page} of {}", self.n_pages);
        let (start, n_bytes) = (self.block_start(page, 0), self.page_bytes());
        self.memory[start..start + n_bytes].copy_from_slice(bytes);
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Where in `memory` the block of kv head `head` in `page` begins.
    #[inline(always)]
    fn block_start(&self, page: u32, head: usize) -> usize {
        self.offset + page as usize * self.page_bytes() + head * self.layout.n_bytes
    }

    /// The block of kv head `head` in `page`: `layout().n_bytes` bytes, aligned to 64.
    #[inline(always)]
    pub(crate) fn block(&self, page: u32, head: usize) -> &[u8] {
        let start = self.block_start(page, head);
        &self.memory[start..start + self.layout.n_bytes]
    }

    fn block_mut(&mut self, page: u32, head: usize) -> &mut [u8] {
        let start = self.block_start(page, head);
        &mut self.memory[start..start + self.layout.n_bytes]
    }

    /// Stores the keys and values of `n_tokens` tokens, the first at absolute `position` of the sequence.
    ///
    /// `table`: the sequence's pages, page i holding positions 32i..32i+32. `k`, `v`: `[n_tokens, row_stride]`,
    /// each row beginning with `[n_kv_heads, head_dim]`; the last row may end there. Panics if the lengths do not fit.
    #[track_caller]
    pub fn write(
        &mut self,
        table: &[u32],
        position: usize,
        k: &[f32],
        v: &[f32],
        row_stride: usize,
        n_tokens: usize,
    ) {
        let d = self.layout.head_dim;
        let width = self.n_kv_heads * d;
        let Some(last) = n_tokens.checked_sub(1) else { return };
        let needed = last * row_stride + width;
        assert!(row_stride >= width || n_tokens == 1, "row stride {row_stride}, kv heads {width}");
        assert!(k.len() >= needed && v.len() >= needed, "k {}, v {}, needed {needed}", k.len(), v.len());
        assert!(
            position + n_tokens <= table.len() * PAGE_LEN,
            "{} pages hold no {}",
            table.len(),
            position + last
        );
        let mut halves = vec![0u16; if self.layout.kind == KvType::F16 { d } else { 0 }];
        for t in 0..n_tokens {
            let (page, slot) = (table[(position + t) / PAGE_LEN], (position + t) % PAGE_LEN);
            for head in 0..self.n_kv_heads {
                let start = t * row_stride + head * d;
                self.write_key(page, head, slot, &k[start..start + d], &mut halves);
                self.write_value(page, head, slot, &v[start..start + d], &mut halves);
            }
        }
    }

    fn write_key(&mut self, page: u32, head: usize, slot: usize, key: &[f32], halves: &mut [u16]) {
        let layout = self.layout;
        let block = self.block_mut(page, head);
        match layout.kind {
            KvType::F32 => {
                for (row, x) in block.as_chunks_mut::<{ 4 * PAGE_LEN }>().0.iter_mut().zip(key) {
                    row[4 * slot..][..4].copy_from_slice(&x.to_le_bytes());
                }
            }
            KvType::F16 => {
                f32_slice_to_f16(key, halves);
                for (row, x) in block.as_chunks_mut::<{ 2 * PAGE_LEN }>().0.iter_mut().zip(halves) {
                    row[2 * slot..][..2].copy_from_slice(&x.to_le_bytes());
                }
            }
            KvType::Q8 => {
                for (g, group) in key.chunks(GROUP_LEN).enumerate() {
                    let (scale, inverse) = scale_of(group);
                    let at = layout.key_scales + 4 * (g * PAGE_LEN + slot);
                    block[at..at + 4].copy_from_slice(&scale.to_le_bytes());
                    for (i, x) in group.iter().enumerate() {
                        block[(g * GROUP_LEN + i) * PAGE_LEN + slot] = quantized(x * inverse);
                    }
                }
            }
        }
    }

    fn write_value(&mut self, page: u32, head: usize, slot: usize, value: &[f32], halves: &mut [u16]) {
        let layout = self.layout;
        let block = self.block_mut(page, head);
        let row = layout.values + slot * layout.value_stride * layout.kind.width();
        match layout.kind {
            KvType::F32 => {
                for (out, x) in block[row..].as_chunks_mut::<4>().0.iter_mut().zip(value) {
                    *out = x.to_le_bytes();
                }
            }
            KvType::F16 => {
                f32_slice_to_f16(value, halves);
                for (out, x) in block[row..].as_chunks_mut::<2>().0.iter_mut().zip(halves) {
                    *out = x.to_le_bytes();
                }
            }
            KvType::Q8 => {
                for (g, group) in value.chunks(GROUP_LEN).enumerate() {
                    let (scale, inverse) = scale_of(group);
                    let at = layout.value_scales + 4 * (slot * layout.n_groups + g);
                    block[at..at + 4].copy_from_slice(&scale.to_le_bytes());
                    for (out, x) in block[row + g * GROUP_LEN..].iter_mut().zip(group) {
                        *out = quantized(x * inverse);
                    }
                }
            }
        }
    }

    /// Reads back the key and the value of one token and head, as attention sees them: `[head_dim]` each.
    ///
    /// Panics if `page`, `slot` (0..PAGE_LEN) or `head` is outside, or the lengths do not fit.
    #[track_caller]
    pub fn read(&self, page: u32, slot: usize, head: usize, k: &mut [f32], v: &mut [f32]) {
        let layout = self.layout;
        assert!(slot < PAGE_LEN && head < self.n_kv_heads, "slot {slot}, head {head}");
        assert!(k.len() == layout.head_dim && v.len() == layout.head_dim, "k {}, v {}", k.len(), v.len());
        let block = self.block(page, head);
        let number = |start: usize, i: usize| match layout.kind {
            KvType::F32 => f32_at(block, start + 4 * i),
            KvType::F16 => f16_to_f32(u16::from_le_bytes([block[start + 2 * i], block[start + 2 * i + 1]])),
            KvType::Q8 => f32::from(block[start + i] as i8),
        };
        let scale =
            |start: usize, i: usize| if layout.n_groups == 0 { 1.0 } else { f32_at(block, start + 4 * i) };
        for i in 0..layout.head_dim {
            let g = i / GROUP_LEN;
            k[i] = number(0, i * PAGE_LEN + slot) * scale(layout.key_scales, g * PAGE_LEN + slot);
            let value = number(layout.values, slot * layout.value_stride + i);
            v[i] = value * scale(layout.value_scales, slot * layout.n_groups + g);
        }
    }

    /// Copies the key and the value at position `from` of a sequence to position `to`, as they are stored, in every head.
    ///
    /// `table`: the sequence's pages. Panics if a position is outside them.
    #[track_caller]
    pub fn copy_token(&mut self, table: &[u32], from: usize, to: usize) {
        let end = table.len() * PAGE_LEN;
        assert!(from < end && to < end, "position {from} to {to} in {} pages", table.len());
        let place = |position: usize| (table[position / PAGE_LEN], position % PAGE_LEN);
        let ((from_page, from_slot), (to_page, to_slot)) = (place(from), place(to));
        let layout = self.layout;
        let width = layout.kind.width();
        let value_len = layout.value_stride * width;
        for head in 0..self.n_kv_heads {
            let (source, target) = (self.block_start(from_page, head), self.block_start(to_page, head));
            let mut copy = |from: usize, to: usize, len: usize| {
                self.memory.copy_within(source + from..source + from + len, target + to);
            };
            for row in (0..layout.head_dim).map(|i| i * PAGE_LEN) {
                copy((row + from_slot) * width, (row + to_slot) * width, width);
            }
            copy(layout.values + from_slot * value_len, layout.values + to_slot * value_len, value_len);
            for row in (0..layout.n_groups).map(|group| group * PAGE_LEN) {
                copy(layout.key_scales + 4 * (row + from_slot), layout.key_scales + 4 * (row + to_slot), 4);
            }
            let scales = 4 * layout.n_groups;
            copy(layout.value_scales + from_slot * scales, layout.value_scales + to_slot * scales, scales);
        }
    }

    /// Copies page `from` over page `to`, for sequences that part ways in the middle of a page.
    ///
    /// Panics if there is no such page.
    #[track_caller]
    pub fn copy_page(&mut self, from: u32, to: u32) {
        assert!(
            (from as usize) < self.n_pages && (to as usize) < self.n_pages,
            "{from} to {to} of {}",
            self.n_pages
        );
        let n = self.page_bytes();
        let start = self.offset + from as usize * n;
        self.memory.copy_within(start..start + n, self.offset + to as usize * n);
    }
}

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The scale of a group, the greatest magnitude / 127, and its inverse; zeros for a group of zeros, NaN if there is one.
fn scale_of(group: &[f32]) -> (f32, f32) {
    let max = group.iter().fold(0f32, |max, x| if x.abs() > max || x.is_nan() { x.abs() } else { max });
    (max / 127.0, if max > 0.0 { 127.0 / max } else { 0.0 })
}

/// Rounded to the nearest, ties to even, of magnitude at most 127.
fn quantized(x: f32) -> u8 {
    // Beside 1.5 · 2^23 a number has no room for a fraction: the sum is rounded, and its low byte is the integer.
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::half::f32_to_f16;
    use crate::testing::noise;

    /// What a group of numbers becomes when stored and read.
    fn stored(kind: KvType, x: &[f32]) -> Vec<f32> {
        match kind {
            KvType::F32 => x.to_vec(),
            KvType::F16 => x.iter().map(|&x| f16_to_f32(f32_to_f16(x))).collect(),
            KvType::Q8 => {
                let group = |x: &[f32]| {
                    let (scale, inverse) = scale_of(x);
                    x.iter().map(|x| (x * inverse).round_ties_even() * scale).collect::<Vec<f32>>()
                };
                x.chunks(GROUP_LEN).flat_map(group).collect()
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back_wherever_its_page_lies() {
        for kind in KvType::ALL {
            for (heads, d, position, n, padding) in [(3, 64, 0, 70, 0), (1, 100, 31, 2, 9), (2, 26, 40, 1, 0)]
            {
                let table = [4, 1, 7];
                let mut kv = KvPages::new(kind, heads, d, 8);
                let stride = heads * d + padding;
                let (k, v) = (noise(n * stride, 1), noise(n * stride, 2));
                kv.write(&table, position, &k, &v, stride, n);
                let (mut got_k, mut got_v) = (vec![0.0; d], vec![0.0; d]);
                for t in 0..n {
                    for head in 0..heads {
                        let (page, slot) = (table[(position + t) / PAGE_LEN], (position + t) % PAGE_LEN);
                        kv.read(page, slot, head, &mut got_k, &mut got_v);
                        let at = t * stride + head * d;
                        assert_eq!(got_k, stored(kind, &k[at..at + d]));
                        assert_eq!(got_v, stored(kind, &v[at..at + d]));
                    }
                }
            }
        }
    }

    #[test]
    fn q8_is_off_by_at_most_half_a_step_of_its_group() {
        let x = noise(64, 3);
        let mut kv = KvPages::new(KvType::Q8, 1, 64, 1);
        kv.write(&[0], 0, &x, &x, 64, 1);
        let (mut k, mut v) = (vec![0.0; 64], vec![0.0; 64]);
        kv.read(0, 0, 0, &mut k, &mut v);
        for (x, (k, v)) in x.iter().zip(k.iter().zip(&v)) {
            assert!((x - k).abs() <= 2.0 / 254.0 + 1e-6 && k == v);
        }
    }

    #[test]
    fn a_copied_page_holds_the_same_and_lives_its_own_life() {
        let mut kv = KvPages::new(KvType::F16, 2, 16, 3);
        kv.write(&[1], 5, &[1.0; 32], &[2.0; 32], 32, 1);
        kv.copy_page(1, 2);
        kv.write(&[1], 5, &[9.0; 32], &[9.0; 32], 32, 1);
        let (mut k, mut v) = ([0.0; 16], [0.0; 16]);
        kv.read(2, 5, 1, &mut k, &mut v);
        assert_eq!((k, v), ([1.0; 16], [2.0; 16]));
    }

    #[test]
    fn a_copied_token_is_the_same_in_its_new_place_and_disturbs_no_other() {
        for kind in KvType::ALL {
            let (heads, d, table) = (2, 40, [2, 0]);
            let mut kv = KvPages::new(kind, heads, d, 3);
            let (k, v) = (noise(64 * heads * d, 1), noise(64 * heads * d, 2));
            kv.write(&table, 0, &k, &v, heads * d, 64);
            let read = |kv: &KvPages, position: usize, head| {
                let (mut k, mut v) = (vec![0.0; d], vec![0.0; d]);
                kv.read(table[position / PAGE_LEN], position % PAGE_LEN, head, &mut k, &mut v);
                (k, v)
            };
            let before: Vec<_> = (0..128).map(|i| read(&kv, i / 2, i % 2)).collect();
            kv.copy_token(&table, 40, 30);
            kv.copy_token(&table, 7, 7);
            for position in 0..64 {
                let from = if position == 30 { 40 } else { position };
                for head in 0..heads {
                    assert_eq!(read(&kv, position, head), before[from * 2 + head], "{kind:?} {position}");
                }
            }
        }
    }

    #[test]
    fn a_page_taken_out_and_put_elsewhere_reads_the_same() {
        for kind in KvType::ALL {
            let mut from = KvPages::new(kind, 2, 40, 3);
            let (k, v) = (noise(32 * 80, 1), noise(32 * 80, 2));
            from.write(&[2], 0, &k, &v, 80, 32);
            let mut to = KvPages::new(kind, 2, 40, 2);
            to.set_page(1, from.page(2));
            let read = |kv: &KvPages, page| {
                let (mut k, mut v) = (vec![0.0; 40], vec![0.0; 40]);
                kv.read(page, 17, 1, &mut k, &mut v);
                (k, v)
            };
            assert_eq!(read(&to, 1), read(&from, 2));
            assert!(to.page(0).iter().all(|byte| *byte == 0), "its neighbour is untouched");
        }
    }

    #[test]
    fn sizes_are_those_of_the_types() {
        let per_token = |kind| KvPages::new(kind, 3, 64, 4).n_bytes() / (4 * PAGE_LEN);
        assert_eq!(KvType::ALL.map(per_token), [3 * 2 * 64 * 4, 3 * 2 * 64 * 2, 3 * 2 * (64 + 8)]);
        for kind in KvType::ALL {
            assert_eq!(KvType::from_name(kind.name()), Some(kind));
        }
    }

    #[test]
    #[should_panic(expected = "1 pages hold no 32")]
    fn writing_beyond_the_table_panics() {
        KvPages::new(KvType::F32, 1, 4, 1).write(&[0], 31, &[0.0; 8], &[0.0; 8], 4, 2);
    }
}
