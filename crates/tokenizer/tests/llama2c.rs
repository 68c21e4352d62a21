//! `tok512.bin` of stories260K against llama2.c's own way to encode, written out plainly.

use std::path::{Path, PathBuf};

use rhetor_tokenizer::{ControlTokens, Special, Tokenizer};

#[test]
fn tok512_gives_the_ids_of_llama2_c() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os("RHETOR_DATA").map_or(default, PathBuf::from).join("stories260K/tok512.bin");
    let Ok(bytes) = std::fs::read(&path) else {
        println!("skipped: {} is not there", path.display());
        return;
    };
    let tokenizer = Tokenizer::from_file(&path).unwrap();
    assert_eq!((tokenizer.n_tokens(), tokenizer.bos(), tokenizer.eos()), (512, Some(1), Some(2)));
    assert!(tokenizer.adds_bos());
    let pieces = pieces(&bytes);
    for text in [
        "Once upon a time, there was a little girl named Lily.",
        " two  spaces ",
        "She said: \"It's 3 o'clock!\"\n\nThe end.",
        "繁體 é 😀",
        "zzzzqqqq",
    ] {
        let ids = tokenizer.encode(text, Special::Literal);
        assert_eq!(ids, llama2c(&pieces, text), "{text:?}");
        assert_eq!(tokenizer.decode(&ids, ControlTokens::Skip), text);
    }
    assert_eq!(tokenizer.encode("", Special::Literal), []);
}

/// Scores and texts of the file.
fn pieces(bytes: &[u8]) -> Vec<(f32, Vec<u8>)> {
    let (mut at, mut pieces) = (4, Vec::new());
    while at < bytes.len() {
        let score = f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        pieces.push((score, bytes[at + 8..at + 8 + len].to_vec()));
        at += 8 + len;
    }
    pieces
}

/// `encode` of `run.c`: characters or bytes, then the best pair again and again.
fn llama2c(pieces: &[(f32, Vec<u8>)], text: &str) -> Vec<u32> {
    let find = |text: &[u8]| pieces.iter().position(|piece| piece.1 == text);
    let mut ids = vec![find(b" ").unwrap()];
    for c in text.chars() {
        let mut buffer = [0; 4];
        let bytes = c.encode_utf8(&mut buffer).as_bytes();
        match find(bytes) {
            Some(id) => ids.push(id),
            // The bytes come after the first three tokens.
            None => ids.extend(bytes.iter().map(|&byte| byte as usize + 3)),
        }
    }
    loop {
        let mut best: Option<(f32, usize, usize)> = None;
        for i in 1..ids.len() {
            let union = [&pieces[ids[i - 1]].1[..], &pieces[ids[i]].1[..]].concat();
            if let Some(id) = find(&union) {
                if best.is_none_or(|best| pieces[id].0 > best.0) {
                    best = Some((pieces[id].0, i - 1, id));
                }
            }
        }
        let Some((_, i, id)) = best else { return ids.into_iter().map(|id| id as u32).collect() };
        ids[i] = id;
        ids.remove(i + 1);
    }
}
