//! Where a run's examples come from: rows that became examples, or windows of a long text.

use std::sync::Arc;

use crate::data::TokenFile;
use crate::data::order::{Cursor, Order, Shuffle};
use crate::data::pack::{DocumentMask, Windows, best_fit};
use crate::error::Error;
use crate::example::{Example, Sequence};
use crate::objectives::Objective;
use crate::random::keyed;
use crate::train::Source;

/// Rows that became examples, held in memory.
pub struct Rows {
    examples: Vec<Example>,
    /// Examples that come together, by number.
    items: Vec<Vec<usize>>,
    validation: Vec<Example>,
    order: Order,
    cursor: Cursor,
    seed: u64,
    objective: Arc<dyn Objective>,
}

/// Whether short examples share a row of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Each example counts as one of the batch.
    Off,
    /// As many as fit into this many tokens count as one. They never see each other.
    UpTo(usize),
}

impl Rows {
    /// Examples in the order of `seed`. Panics if there are none.
    #[track_caller]
    pub fn new(
        examples: Vec<Example>,
        validation: Vec<Example>,
        packing: Packing,
        seed: u64,
        objective: Arc<dyn Objective>,
    ) -> Rows {
        let items = match packing {
            Packing::Off => (0..examples.len()).map(|i| vec![i]).collect(),
            Packing::UpTo(len_max) => {
                let lengths: Vec<usize> = examples.iter().map(Example::n_rows).collect();
                let packed = best_fit(&lengths, len_max);
                packed.rows.into_iter().chain(packed.too_long.into_iter().map(|i| vec![i])).collect()
            }
        };
        let items: Vec<Vec<usize>> = items;
        let order = Order::new(seed, items.len() as u64, Shuffle::Each);
        // Validation is drawn once, with keys that no epoch has, so that it is the same each time.
        let draw = |(i, example)| objective.draw(example, &mut keyed(seed, u64::MAX, i as u64));
        let validation = validation.into_iter().enumerate().map(draw).collect();
        Rows { examples, items, validation, order, cursor: Cursor::default(), seed, objective }
    }

    /// Items of an epoch.
    pub fn n_items(&self) -> usize {
        self.items.len()
    }
}

impl Source for Rows {
    fn next(&mut self, n: usize) -> Result<Vec<Example>, Error> {
        let mut drawn = Vec::new();
        for _ in 0..n {
            let item = self.order.next(&mut self.cursor);
            for &i in &self.items[item as usize] {
                let mut rng = keyed(self.seed, self.cursor.epoch, i as u64);
                drawn.push(self.objective.draw(self.examples[i].clone(), &mut rng));
            }
        }
        Ok(drawn)
    }

    fn position(&self) -> Vec<u64> {
        vec![self.cursor.epoch, self.cursor.position]
    }

    fn restore(&mut self, position: &[u64]) -> Result<(), Error> {
        self.cursor = cursor(position)?;
        Ok(())
    }

    fn validation(&self) -> &[Example] {
        &self.validation
    }
}

/// Windows of equal length out of long texts.
pub struct Text {
    files: Vec<(TokenFile, f64)>,
    /// The part of each file that is learnt.
    n_learnt: Vec<u64>,
    len: usize,
    mask: DocumentMask,
    pick: Pick,
    n_drawn: u64,
    validation: Vec<Example>,
    seed: u64,
    objective: Arc<dyn Objective>,
}

/// Which windows are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// Those side by side, each once an epoch, in random order.
    EachOnce,
    /// Any place in the text, as nanoGPT does.
    Anywhere,
}

impl Text {
    /// Windows of `len` tokens out of the first `n_learnt` of each file, drawn by weight.
    ///
    /// Errors: a file that holds no whole window.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        files: Vec<(TokenFile, f64)>,
        n_learnt: Vec<u64>,
        validation: Vec<Vec<Sequence>>,
        len: usize,
        mask: DocumentMask,
        pick: Pick,
        seed: u64,
        objective: Arc<dyn Objective>,
    ) -> Result<Text, Error> {
        for ((file, _), &n) in files.iter().zip(&n_learnt) {
            if Windows::new(file, 0..n, len, mask).n() == 0 {
                let reason =
                    format!("the data hold {n} tokens to learn, fewer than one window of {}", len + 1);
                return Err(Error::InvalidOption { option: "seq-len", reason });
            }
        }
        let draw = |(i, window)| objective.draw(example(window), &mut keyed(seed, u64::MAX, i as u64));
        let validation = validation.into_iter().enumerate().map(draw).collect();
        Ok(Text { files, n_learnt, len, mask, pick, n_drawn: 0, validation, seed, objective })
    }

    /// Windows side by side of all that is learnt.
    pub fn n_windows(&self) -> u64 {
        self.files.iter().zip(&self.n_learnt).map(|((_, _), n)| n.saturating_sub(1) / self.len as u64).sum()
    }

    /// The file that draw `i` is from.
    fn file_of(&self, i: u64) -> usize {
        let total: f64 = self.files.iter().map(|(_, weight)| weight).sum();
        let mut left = keyed(self.seed, 1 << 62, i).uniform() * total;
        for (file, (_, weight)) in self.files.iter().enumerate() {
            if left < *weight {
                return file;
            }
            left -= weight;
        }
        self.files.len() - 1
    }
}

/// A window as one example: its spans are sequences that do not see each other.
fn example(window: Vec<Sequence>) -> Example {
    Example { sequences: window, ..Example::default() }
}

impl Source for Text {
    fn next(&mut self, n: usize) -> Result<Vec<Example>, Error> {
        let mut drawn = Vec::with_capacity(n);
        for _ in 0..n {
            let i = self.n_drawn;
            self.n_drawn += 1;
            let file = if self.files.len() == 1 { 0 } else { self.file_of(i) };
            let windows = Windows::new(&self.files[file].0, 0..self.n_learnt[file], self.len, self.mask);
            let window = match self.pick {
                Pick::Anywhere => windows.random(&mut keyed(self.seed, 1 << 61, i)),
                // With several files, each has its own epochs; which draw of the file this is follows from the number.
                Pick::EachOnce => {
                    let order = Order::new(self.seed, windows.n(), Shuffle::Each);
                    windows.get(order.item(i / windows.n(), i % windows.n()))
                }
            };
            drawn.push(self.objective.draw(example(window), &mut keyed(self.seed, 1 << 60, i)));
        }
        Ok(drawn)
    }

    fn position(&self) -> Vec<u64> {
        vec![0, self.n_drawn]
    }

    fn restore(&mut self, position: &[u64]) -> Result<(), Error> {
        self.n_drawn = cursor(position)?.position;
        Ok(())
    }

    fn validation(&self) -> &[Example] {
        &self.validation
    }
}

fn cursor(position: &[u64]) -> Result<Cursor, Error> {
    match position {
        &[epoch, position] => Ok(Cursor { epoch, position }),
        other => Err(Error::InvalidOption {
            option: "resume",
            reason: format!("the position {other:?} is not two numbers"),
        }),
    }
}
