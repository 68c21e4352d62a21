//! Rows become examples: one file for each objective, each a pure function of the row, the tokenizer and,
//! where something is corrupted, a generator keyed by (seed, epoch, item).

pub mod alignment;
pub mod causal_lm;
pub mod classification;
pub mod fill_in_the_middle;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod masked_lm;
pub mod preference;
pub mod prefix_lm;
pub mod question_answering;
pub mod sentence_pairs;
pub mod sft;
pub mod span_corruption;
mod stand_ins;
pub mod tagging;
pub mod text_to_text;
