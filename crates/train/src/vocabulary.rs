//! Which tokens of a new vocabulary an old one has too.

use rhetor_tokenizer::Tokenizer;

/// For each token of `new` the token of `old` with the same piece, as [`rhetor_models::transfer::write`] takes them.
pub fn matches(old: &Tokenizer, new: &Tokenizer) -> Vec<Option<u32>> {
    (0..new.n_tokens() as u32).map(|id| new.piece(id).and_then(|piece| old.id(piece))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_tokenizer::train::{Kind, TrainOptions, train};

    #[test]
    fn tokens_are_found_by_their_pieces() {
        let of = |text: &str| {
            let options = TrainOptions {
                kind: Kind::Characters,
                vocab_size: 10,
                specials: Vec::new(),
                min_frequency: 1,
            };
            train(&options, [text.to_string()].iter()).unwrap()
        };
        let (old, new) = (of("abc"), of("cxa"));
        let matches = matches(&old, &new);
        let found = |piece: &str| matches[new.id(piece).unwrap() as usize];
        assert_eq!((found("a"), found("c"), found("x")), (old.id("a"), old.id("c"), None));
    }
}
