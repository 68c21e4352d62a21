//! Keys and values of one layer, in pages of [`PAGE_LEN`] tokens.
//!
//! A page holds for each kv head a block: the keys dimension by dimension `[d, PAGE_LEN]`, so that a vector of
//! lanes is as many keys and a score is one chain of fused multiply-adds over d; then the values token by token
//! `[PAGE_LEN, d']`, d' = d rounded up to 16 with zeros. Which pages a sequence owns, and in which order, its
//! table says; this module neither allocates nor frees pages of sequences.

use crate::half::{f16_to_f32, f32_to_f16};

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

    fn page_bytes(&self) -> usize {
        self.n_kv_heads * self.layout.n_bytes
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// The block of kv head `head` in `page`: `layout().n_bytes` bytes, aligned to 64.
    #[inline(always)]
    pub(crate) fn block(&self, page: u32, head: usize) -> &[u8] {
        let start = self.offset + page as usize * self.page_bytes() + head * self.layout.n_bytes;
        &self.memory[start..start + self.layout.n_bytes]
    }

    fn block_mut(&mut self, page: u32, head: usize) -> &mut [u8] {
        let start = self.offset + page as usize * self.page_bytes() + head * self.layout.n_bytes;
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
        for t in 0..n_tokens {
            let (page, slot) = (table[(position + t) / PAGE_LEN], (position + t) % PAGE_LEN);
            for head in 0..self.n_kv_heads {
                let start = t * row_stride + head * d;
                self.write_key(page, head, slot, &k[start..start + d]);
                self.write_value(page, head, slot, &v[start..start + d]);
            }
        }
    }

    fn write_key(&mut self, page: u32, head: usize, slot: usize, key: &[f32]) {
        let layout = self.layout;
        let block = self.block_mut(page, head);
        match layout.kind {
            KvType::F32 => {
                for (row, x) in block.chunks_exact_mut(4 * PAGE_LEN).zip(key) {
                    row[4 * slot..][..4].copy_from_slice(&x.to_le_bytes());
                }
            }
            KvType::F16 => {
                for (row, &x) in block.chunks_exact_mut(2 * PAGE_LEN).zip(key) {
                    row[2 * slot..][..2].copy_from_slice(&f32_to_f16(x).to_le_bytes());
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

    fn write_value(&mut self, page: u32, head: usize, slot: usize, value: &[f32]) {
        let layout = self.layout;
        let block = self.block_mut(page, head);
        let row = layout.values + slot * layout.value_stride * layout.kind.width();
        match layout.kind {
            KvType::F32 => {
                for (out, x) in block[row..].chunks_exact_mut(4).zip(value) {
                    out.copy_from_slice(&x.to_le_bytes());
                }
            }
            KvType::F16 => {
                for (out, &x) in block[row..].chunks_exact_mut(2).zip(value) {
                    out.copy_from_slice(&f32_to_f16(x).to_le_bytes());
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

/// The scale of a group, the greatest magnitude / 127, and its inverse; zeros for a group of zeros.
fn scale_of(group: &[f32]) -> (f32, f32) {
    let max = group.iter().fold(0f32, |max, x| max.max(x.abs()));
    (max / 127.0, if max > 0.0 { 127.0 / max } else { 0.0 })
}

fn quantized(x: f32) -> u8 {
    x.round_ties_even() as i8 as u8
}
