//! Every id of llama.cpp's own tokenizer tests: `ggml-vocab-*.gguf` with `.inp` (texts) and `.out` (ids).
//!
//! The files are in the sources of llama.cpp (`models/`), which the PyPI source package `llama-cpp-python` carries;
//! they are too large to be kept here. `RHETOR_VOCABS` names their directory.

use std::path::{Path, PathBuf};

use rhetor_formats::Checkpoint;
use rhetor_tokenizer::{ControlTokens, Special, Tokenizer};

#[test]
fn every_id_of_llama_cpps_tests_is_equal() {
    let Some(directory) = std::env::var_os("RHETOR_VOCABS").map(PathBuf::from) else {
        println!("skipped: RHETOR_VOCABS names no directory with ggml-vocab-*.gguf");
        return;
    };
    let mut names: Vec<PathBuf> = std::fs::read_dir(&directory)
        .expect("RHETOR_VOCABS is a directory")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".gguf"))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no vocabularies in {}", directory.display());
    let mut failures = Vec::new();
    for path in &names {
        let started = std::time::Instant::now();
        let tokenizer = match Tokenizer::from_checkpoint(&Checkpoint::open(path).unwrap()) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                failures.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        let load_ms = started.elapsed().as_secs_f64() * 1e3;
        let tests = read_tests(path);
        println!("{}: {} texts, {tokenizer:?}, loaded in {load_ms:.1} ms", path.display(), tests.len());
        for (text, expected) in tests {
            let got = tokenizer.encode(&text, Special::Literal);
            if got != expected {
                let pieces: Vec<_> = got.iter().map(|&id| tokenizer.piece(id).unwrap()).collect();
                failures.push(format!(
                    "{}: {text:?}\n  expected {expected:?}\n  got      {got:?} {pieces:?}",
                    path.display()
                ));
            }
            tokenizer.decode(&got, ControlTokens::Show);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn read_tests(gguf: &Path) -> Vec<(String, Vec<u32>)> {
    let beside = |suffix: &str| std::fs::read_to_string(format!("{}{suffix}", gguf.display()));
    let (Ok(texts), Ok(ids)) = (beside(".inp"), beside(".out")) else { return Vec::new() };
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    let ids: Vec<Vec<u32>> =
        ids.lines().map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect()).collect();
    // A text after the last separator counts only if it is not empty, as in test-tokenizer-0.cpp.
    let n = ids.len();
    assert!(texts.len() == n || (texts.len() == n + 1 && texts[n].is_empty()), "{}", gguf.display());
    texts.into_iter().map(str::to_string).zip(ids).collect()
}
