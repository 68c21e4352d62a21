//! Fill in the middle: a document is cut in three, and its middle is moved to the end, so that a causal model
//! learns to write what stands between two texts.
//!
//! Source: Bavarian et al., arXiv:2207.14255, §3; StarCoder, arXiv:2305.06161, §5.2 (rate 0.5, half of it
//! SPM, cut at characters); Code Llama, arXiv:2308.12950, §2.3; CodeGen2, arXiv:2305.02309, §4 and
//! CodeGen2.5's model card. Every token is predicted, control tokens included, as in all of them.

use crate::random::below;
use crate::{Error, Sequence};
use rhetor_generate::Rng;
use rhetor_generate::infill::{INFILL, encode_inside};
use rhetor_tokenizer::{ControlTokens, Special, Tokenizer};

/// How the three parts are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// PSM: `[prefix] P [suffix] S [middle] M`; SPM: `[prefix][suffix] S [middle] P M`. StarCoder,
    /// SantaCoder, Code Llama, Qwen2.5-Coder, CodeGemma and others.
    Markers {
        /// Stands before the prefix.
        prefix: u32,
        /// Stands before the suffix.
        suffix: u32,
        /// Stands before the middle.
        middle: u32,
    },
    /// `P <mask_1> S <|endoftext|> <sep> <mask_1> M <eom>`, with as many holes as there are masks to use.
    /// CodeGen2.5.
    Masks {
        /// `<mask_1>`, `<mask_2>` and on.
        masks: Vec<u32>,
        /// Ends the text with the holes.
        end_of_text: u32,
        /// Divides the text from the middles.
        separator: u32,
        /// Ends a middle.
        end_of_middle: u32,
    },
}

impl Layout {
    /// The markers of a vocabulary: StarCoder's and its like.
    pub fn markers(tokenizer: &Tokenizer) -> Result<Layout, Error> {
        let found = INFILL.iter().find_map(|template| {
            let [prefix, suffix, middle] = template.markers()?.map(|name| tokenizer.id(name));
            Some(Layout::Markers { prefix: prefix?, suffix: suffix?, middle: middle? })
        });
        found.ok_or_else(|| missing("<fim_prefix>"))
    }

    /// The masks of a vocabulary, at most `n_holes_max` of them: CodeGen2.5's.
    pub fn masks(tokenizer: &Tokenizer, n_holes_max: usize) -> Result<Layout, Error> {
        let id = |name: &str| tokenizer.id(name).ok_or_else(|| missing(name));
        let masks =
            (1..=n_holes_max).map_while(|i| tokenizer.id(&format!("<mask_{i}>"))).collect::<Vec<u32>>();
        if masks.is_empty() {
            return Err(missing("<mask_1>"));
        }
        Ok(Layout::Masks {
            masks,
            end_of_text: id("<|endoftext|>")?,
            separator: id("<sep>")?,
            end_of_middle: id("<eom>")?,
        })
    }
}

fn missing(token: &str) -> Error {
    Error::MissingToken { objective: "fill in the middle", token: token.to_string() }
}

/// How documents are rearranged.
#[derive(Debug, Clone, PartialEq)]
pub struct FillInTheMiddle {
    /// How the parts are written down.
    pub layout: Layout,
    /// The share of the documents that are rearranged; StarCoder's 0.5, Code Llama's 0.9.
    pub rate: f64,
    /// Of those, the share with the suffix first; 0.5. Masks know no such order.
    pub spm_rate: f64,
}

impl FillInTheMiddle {
    /// The tokens of a document, rearranged or not, without one that ends it. Cuts fall between characters,
    /// every place as likely as any other, so that parts may be empty.
    pub fn corrupt(&self, text: &str, tokenizer: &Tokenizer, rng: &mut Rng) -> Vec<u32> {
        if rng.uniform() >= self.rate {
            return tokenizer.encode(text, Special::Literal);
        }
        let n_holes = match &self.layout {
            Layout::Markers { .. } => 1,
            Layout::Masks { masks, .. } => 1 + below(rng, masks.len()),
        };
        let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let mut cuts: Vec<usize> = (0..2 * n_holes).map(|_| places[below(rng, places.len())]).collect();
        cuts.sort_unstable();
        let is_spm = rng.uniform() < self.spm_rate;
        self.rearranged(text, &cuts, is_spm, tokenizer)
    }

    /// As [`FillInTheMiddle::corrupt`], for a document that is tokenized already: its text is cut, not its
    /// tokens.
    pub fn corrupt_tokens(&self, tokens: &[u32], tokenizer: &Tokenizer, rng: &mut Rng) -> Vec<u32> {
        self.corrupt(&tokenizer.decode(tokens, ControlTokens::Skip), tokenizer, rng)
    }

    /// The document cut at `cuts` (bytes, rising): what stands between the first and the second is a middle,
    /// and so on.
    fn rearranged(&self, text: &str, cuts: &[usize], is_spm: bool, tokenizer: &Tokenizer) -> Vec<u32> {
        let encode = |text: &str| tokenizer.encode(text, Special::Literal);
        let inside = |text: &str| encode_inside(text, tokenizer);
        let mut ids = Vec::new();
        match &self.layout {
            &Layout::Markers { prefix, suffix, middle } => {
                let [before, missing, after] = [&text[..cuts[0]], &text[cuts[0]..cuts[1]], &text[cuts[1]..]];
                if is_spm {
                    ids.extend([prefix, suffix]);
                    ids.extend(inside(after));
                    ids.push(middle);
                    ids.extend(encode(before));
                } else {
                    ids.push(prefix);
                    ids.extend(encode(before));
                    ids.push(suffix);
                    ids.extend(inside(after));
                    ids.push(middle);
                }
                ids.extend(inside(missing));
            }
            Layout::Masks { masks, end_of_text, separator, end_of_middle } => {
                let mut at = 0;
                for (hole, mask) in cuts.chunks_exact(2).zip(masks) {
                    ids.extend(if at == 0 { encode(&text[..hole[0]]) } else { inside(&text[at..hole[0]]) });
                    ids.push(*mask);
                    at = hole[1];
                }
                ids.extend(inside(&text[at..]));
                ids.extend([*end_of_text, *separator]);
                for (hole, mask) in cuts.chunks_exact(2).zip(masks) {
                    ids.push(*mask);
                    ids.extend(inside(&text[hole[0]..hole[1]]));
                    ids.push(*end_of_middle);
                }
            }
        }
        ids
    }

    /// A packed sequence of `len` rows out of documents, each rearranged by its own draw and ended by `end`.
    /// What does not fit is lost, as in the training of StarCoder; too little gives a shorter sequence.
    pub fn packed(
        &self,
        documents: &[&str],
        end: u32,
        len: usize,
        tokenizer: &Tokenizer,
        rng: &mut Rng,
    ) -> Sequence {
        let mut ids = Vec::new();
        for document in documents {
            ids.extend(self.corrupt(document, tokenizer, rng));
            ids.push(end);
        }
        ids.truncate(len + 1);
        Sequence::next_token(&ids)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{byte_level, characters, sentence_piece};
    use super::*;
    use crate::random::keyed;

    fn markers() -> FillInTheMiddle {
        let layout = Layout::markers(&characters()).unwrap();
        FillInTheMiddle { layout, rate: 1.0, spm_rate: 0.5 }
    }

    fn masks(n: usize) -> FillInTheMiddle {
        let layout = Layout::masks(&characters(), n).unwrap();
        FillInTheMiddle { layout, rate: 1.0, spm_rate: 0.0 }
    }

    fn show(ids: &[u32]) -> String {
        characters().decode(ids, ControlTokens::Show)
    }

    #[test]
    fn parts_are_written_as_each_family_reads_them() {
        let cut = |fim: &FillInTheMiddle, cuts: &[usize], is_spm| {
            show(&fim.rearranged("abcdef", cuts, is_spm, &characters()))
        };
        assert_eq!(cut(&markers(), &[2, 4], false), "<fim_prefix>ab<fim_suffix>ef<fim_middle>cd");
        assert_eq!(cut(&markers(), &[2, 4], true), "<fim_prefix><fim_suffix>ef<fim_middle>abcd");
        assert_eq!(cut(&masks(1), &[2, 4], false), "ab<mask_1>ef<|endoftext|><sep><mask_1>cd<eom>");
        assert_eq!(
            cut(&masks(2), &[1, 2, 4, 5], false),
            "a<mask_1>cd<mask_2>f<|endoftext|><sep><mask_1>b<eom><mask_2>e<eom>"
        );
        assert_eq!(cut(&markers(), &[0, 6], false), "<fim_prefix><fim_suffix><fim_middle>abcdef");
    }

    #[test]
    fn the_parts_together_are_the_document() {
        let text = "fn main() { println!(\"hello\"); }";
        for item in 0..200 {
            let shown = show(&markers().corrupt(text, &characters(), &mut keyed(0, 0, item)));
            let (given, middle) = shown.split_once("<fim_middle>").unwrap();
            let (before, after) =
                given.strip_prefix("<fim_prefix>").unwrap().split_once("<fim_suffix>").unwrap();
            // With the suffix first, the prefix stands before the middle without a mark: any cut of them will
            // do.
            let whole = match before.is_empty() {
                true => format!("{middle}{after}"),
                false => format!("{before}{middle}{after}"),
            };
            assert_eq!(whole, text);
            let shown = show(&masks(4).corrupt(text, &characters(), &mut keyed(0, 0, item)));
            let (mut whole, middles) =
                shown.split_once("<|endoftext|><sep>").map(|(a, b)| (a.to_string(), b)).unwrap();
            for middle in middles.split_terminator("<eom>") {
                let (mask, words) = middle.split_at("<mask_1>".len());
                whole = whole.replace(mask, words);
            }
            assert_eq!(whole, text);
        }
    }

    #[test]
    fn a_text_inside_another_begins_without_the_space_of_sentence_piece() {
        let tokenizer = sentence_piece();
        let bytes =
            |ids: &[u32]| ids.iter().flat_map(|&id| tokenizer.token_bytes(id).to_vec()).collect::<Vec<u8>>();
        assert_eq!(bytes(&tokenizer.encode("the dog", Special::Literal)), b" the dog");
        assert_eq!(bytes(&encode_inside("the dog", &tokenizer)), b"the dog");
        assert_eq!(bytes(&encode_inside(" the dog", &tokenizer)), b" the dog");
        assert_eq!(encode_inside("the dog", &byte_level()), byte_level().encode("the dog", Special::Literal));
    }

    #[test]
    fn as_many_documents_are_rearranged_as_the_rate_says() {
        let fim = FillInTheMiddle { rate: 0.5, ..markers() };
        let shown = (0..4000).map(|item| show(&fim.corrupt("abcdef", &characters(), &mut keyed(0, 0, item))));
        let shown: Vec<String> = shown.collect();
        let n_plain = shown.iter().filter(|text| *text == "abcdef").count();
        let n_spm = shown.iter().filter(|text| text.starts_with("<fim_prefix><fim_suffix>")).count();
        assert!((1900..2100).contains(&n_plain), "{n_plain}");
        // One cut in seven leaves the prefix empty: two equal draws in 49 do so for PSM as well.
        assert!((1000..1320).contains(&n_spm), "{n_spm}");
    }

    #[test]
    fn characters_of_several_bytes_stay_whole() {
        let tokenizer = byte_level();
        let layout = Layout::Markers { prefix: 0, suffix: 0, middle: 0 };
        let fim = FillInTheMiddle { layout, rate: 1.0, spm_rate: 0.5 };
        for item in 0..50 {
            let ids = fim.corrupt("é中é中é", &tokenizer, &mut keyed(0, 0, item));
            assert!(!tokenizer.decode(&ids, ControlTokens::Skip).contains('\u{fffd}'));
        }
    }

    #[test]
    fn documents_are_packed_each_with_its_end() {
        let tokenizer = characters();
        let end = tokenizer.id("<|endoftext|>").unwrap();
        let fim = FillInTheMiddle { rate: 0.0, ..markers() };
        let sequence = fim.packed(&["ab", "cde"], end, 5, &tokenizer, &mut keyed(0, 0, 0));
        assert_eq!((show(&sequence.tokens).as_str(), sequence.targets.len()), ("ab<|endoftext|>cd", 5));
        assert_eq!(sequence.targets[4], tokenizer.id("e").unwrap());
        let tokens = tokenizer.encode("abc", Special::Literal);
        assert_eq!(fim.corrupt_tokens(&tokens, &tokenizer, &mut keyed(0, 0, 0)), tokens);
    }

    #[test]
    fn a_vocabulary_without_the_markers_is_refused() {
        assert!(matches!(Layout::markers(&byte_level()), Err(Error::MissingToken { .. })));
        assert!(matches!(Layout::masks(&byte_level(), 1), Err(Error::MissingToken { .. })));
    }
}
