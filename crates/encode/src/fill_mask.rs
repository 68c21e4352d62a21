//! What stands in place of a hidden word.

use rhetor_models::Task;
use rhetor_tokenizer::{ControlTokens, Special};

use crate::Error;
use crate::reader::Reader;
use crate::softmax::softmax;

/// A token for a hidden one.
#[derive(Debug, Clone, PartialEq)]
pub struct Filling {
    /// The token.
    pub id: u32,
    /// Its text.
    pub token: String,
    /// Its probability.
    pub score: f64,
    /// The whole text with the token in place; other hidden words stay hidden.
    pub text: String,
}

impl Reader {
    /// The `n` likeliest tokens for each hidden one of `text`, which spells it as the vocabulary does (`[MASK]`).
    ///
    /// Errors: a model without such a head, a text without a hidden word or too long.
    pub fn fill_mask(&self, text: &str, n: usize) -> Result<Vec<Vec<Filling>>, Error> {
        self.check_head("a hidden word", Task::Vocabulary)?;
        let missing = Error::MissingToken { what: "a hidden word", token: "a mask token" };
        let mask = self.tokenizer.mask().ok_or(missing)?;
        let text = self.text(text, Special::Parse);
        if text.n_cut > 0 {
            let (got, max) = (text.ids.len() + text.n_cut, self.max_len);
            return Err(Error::TooLong { what: "the text", got, max, allowed: max });
        }
        let places: Vec<usize> = (0..text.ids.len()).filter(|&i| text.ids[i] == mask).collect();
        if places.is_empty() {
            let mask = self.tokenizer.piece(mask).unwrap_or("mask token").to_string();
            return Err(Error::NoMask { mask });
        }
        let control = if places.len() == 1 { ControlTokens::Skip } else { ControlTokens::Show };
        let mut fillings = Vec::new();
        let texts = [text];
        let ids = &texts[0].ids;
        self.read(
            &texts,
            |text| 0..text.ids.len(),
            |_, logits, width| {
                for &place in &places {
                    let scores = softmax(&logits[place * width..(place + 1) * width]);
                    let mut order: Vec<usize> = (0..width).collect();
                    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
                    let filling = |&id: &usize| {
                        let mut filled = ids.clone();
                        filled[place] = id as u32;
                        Filling {
                            id: id as u32,
                            token: self.tokenizer.decode(&[id as u32], ControlTokens::Show),
                            score: scores[id],
                            text: self.tokenizer.decode(&filled, control),
                        }
                    };
                    fillings.push(order.iter().take(n).map(filling).collect());
                }
            },
        );
        Ok(fillings)
    }
}
