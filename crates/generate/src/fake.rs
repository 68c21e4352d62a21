//! A model of a few lines for the tests of the engine: its logits are a function of the tokens that stand in the pages,
//! so a page that was mixed up, forgotten or not copied, or written with other adapters on, changes the answer.

use crate::runner::Runner;
use rhetor_images::Planes;
use rhetor_kernels::kv::PAGE_LEN;
use rhetor_models::{Active, Batch, SourceTokens};
use rhetor_tensor::Tensor;
use std::sync::{Arc, Mutex};

/// Pages that hold the tokens themselves.
pub(crate) struct Fake {
    pub pages: Vec<[u32; PAGE_LEN]>,
    pub vocab_size: usize,
    /// A token that makes the model panic.
    pub panics_at: Option<u32>,
    /// Each step waits until it may take this lock.
    pub gate: Option<Arc<Mutex<()>>>,
}

impl Fake {
    pub fn new(n_pages: usize, vocab_size: usize) -> Fake {
        Fake { pages: vec![[u32::MAX; PAGE_LEN]; n_pages], vocab_size, panics_at: None, gate: None }
    }

    /// The logits after `tokens`.
    pub fn logits(tokens: impl Iterator<Item = u32>, vocab_size: usize) -> Vec<f32> {
        let mix = |h: u64, x: u64| (h ^ x).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        let seed = tokens.fold(1, |h, token| mix(h, u64::from(token) + 1));
        (0..vocab_size as u64).map(|id| (mix(mix(seed, id), 7) >> 40) as f32 / (1 << 22) as f32).collect()
    }
}

impl Runner for Fake {
    fn forward(&mut self, batch: &Batch, read: &mut dyn FnMut(&[f32])) {
        let _open = self.gate.as_ref().map(|gate| gate.lock().unwrap());
        let salt = match &batch.adapters {
            Active::All => 0,
            Active::Only(adapters) => adapters.iter().fold(1, |salt, &i| (salt * 31 + i as u32 + 1) << 8),
        };
        // A given row stands in the pages as a token that no vocabulary has.
        let mut tokens = batch.tokens.clone();
        for given in &batch.embedded {
            for i in 0..given.rows.n_rows() {
                tokens[given.first + i] = given.rows.row(i)[0].to_bits();
            }
        }
        let mut row = 0;
        let mut rows = Vec::new();
        for span in &batch.spans {
            for position in span.start..span.start + span.len {
                let token = tokens[row];
                assert_ne!(Some(token), self.panics_at, "the fake model was told to panic");
                self.pages[span.pages[position / PAGE_LEN] as usize][position % PAGE_LEN] =
                    token.wrapping_add(salt);
                if batch.outputs.contains(&row) {
                    let at = |pages: &[u32], i: usize| self.pages[pages[i / PAGE_LEN] as usize][i % PAGE_LEN];
                    let source = (0..span.source_len).map(|i| at(&span.source_pages, i));
                    let past = source.chain((0..=position).map(|i| at(&span.pages, i)));
                    rows.extend(Fake::logits(past, self.vocab_size));
                }
                row += 1;
            }
        }
        assert_eq!(row, batch.tokens.len());
        read(&rows);
    }

    fn forward_watched(&mut self, _: &Batch, _: &[usize], _: &mut dyn FnMut(&[f32], &Tensor)) {
        unreachable!("it has no hidden states, and no test gives it a head that reads some");
    }

    fn read(&mut self, source: &SourceTokens, tables: &[&[u32]], _adapters: &Active) {
        let mut tokens = source.tokens.iter();
        for (table, len) in tables.iter().zip(source.lens()) {
            for i in 0..len {
                let token = *tokens.next().expect("as many tokens as the passages have");
                self.pages[table[i / PAGE_LEN] as usize][i % PAGE_LEN] = token;
            }
        }
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        self.pages[to as usize] = self.pages[from as usize];
    }

    fn page_bytes(&self) -> usize {
        4 * PAGE_LEN
    }

    fn read_page(&self, page: u32, bytes: &mut Vec<u8>) {
        bytes.extend(self.pages[page as usize].iter().flat_map(|token| token.to_le_bytes()));
    }

    fn write_page(&mut self, page: u32, bytes: &[u8]) {
        let (tokens, _) = bytes.as_chunks::<4>();
        self.pages[page as usize] = std::array::from_fn(|i| u32::from_le_bytes(tokens[i]));
    }

    /// Three rows: the first numbers of the planes.
    fn see(&mut self, picture: &Planes) -> Tensor {
        Tensor::from_vec(picture.values[..3].to_vec(), [3, 1])
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn n_pages(&self) -> usize {
        self.pages.len()
    }
}
