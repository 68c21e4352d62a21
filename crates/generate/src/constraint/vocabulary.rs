//! The vocabulary as a trie of bytes: what a grammar is matched against.

use rhetor_tokenizer::Tokenizer;
use std::sync::Arc;
use toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};

/// Bytes of the longest token that a grammar may use; the trie is no deeper.
const TOKEN_LEN_MAX: usize = 1000;

/// The trie of all tokens. Control tokens begin with a byte that no text has, so that only a grammar that names them
/// uses them; the first stop token ends a text.
///
/// It says that it does not know how this tokenizer cuts a text: then nothing is forced beyond what the bytes force, and
/// the distribution of the answers is that of the model among the tokens allowed.
pub(super) fn trie_of(tokenizer: &Tokenizer) -> TokEnv {
    let n_tokens = tokenizer.n_tokens() as u32;
    let words: Vec<Vec<u8>> = (0..n_tokens)
        .map(|id| {
            let word = match tokenizer.piece(id) {
                Some(piece) if tokenizer.is_special(id) => {
                    [&[TokTrie::SPECIAL_TOKEN_MARKER], piece.as_bytes()].concat()
                }
                _ => tokenizer.token_bytes(id).to_vec(),
            };
            if word.len() > TOKEN_LEN_MAX { Vec::new() } else { word }
        })
        .collect();
    let end = tokenizer.stops().first().copied().filter(|&id| id < n_tokens);
    let info = TokRxInfo::new(n_tokens, end.unwrap_or(INVALID_TOKEN));
    Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)))
}
