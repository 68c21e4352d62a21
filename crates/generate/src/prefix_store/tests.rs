//! What is read from the disk is what was written there by the same model, or it is not used.

use super::{EXTENSION, PrefixStoreOptions};
use crate::engine::{Engine, EngineOptions};
use crate::engine_tests::{ask, letters};
use crate::fake::Fake;
use crate::load_tests::engine_on;
use rhetor_kernels::kv::PAGE_LEN;
use rhetor_lm::{Completion, Request, Sampling};
use std::fs;
use std::path::{Path, PathBuf};

fn options(dir: &Path) -> PrefixStoreOptions {
    PrefixStoreOptions { dir: dir.to_path_buf(), max_bytes: 1 << 20, model: "a model".to_string() }
}

fn engine(store: PrefixStoreOptions) -> Engine {
    let options = EngineOptions { prefix_store: Some(store), ..EngineOptions::default() };
    engine_on(Fake::new(64, letters().n_tokens() + 3), options)
}

/// A prompt of `n_pages` full pages and a few tokens of its own.
fn prompt(seed: usize, n_pages: usize, tail: &str) -> Request {
    let letter = |i: usize| char::from(b'a' + ((i * i + seed * i) % 23) as u8);
    let text: String = (0..n_pages * PAGE_LEN).map(letter).collect();
    let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
    Request { max_tokens: Some(20), sampling, seed: 7, ..Request::text(text + tail) }
}

fn answer(engine: &Engine, request: &Request) -> Completion {
    ask(engine, request).remove(0)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == EXTENSION)).collect();
    files.sort();
    files
}

#[test]
fn after_a_restart_a_prompt_is_read_from_the_disk_and_the_answer_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let asked = prompt(1, 10, "what then?");
    let first = engine(options(dir.path()));
    let cold = answer(&first, &asked);
    assert_eq!(cold.usage.cached_tokens, 0);
    drop(first);
    assert_eq!(files(dir.path()).len(), 1);
    let second = engine(options(dir.path()));
    let warm = answer(&second, &asked);
    assert_eq!(warm.token_ids, cold.token_ids);
    assert_eq!(warm.usage.cached_tokens, 10 * PAGE_LEN);
    assert_eq!(second.stats().tokens_loaded, 10 * PAGE_LEN as u64);
    assert_eq!(second.stats().tokens_prefilled, "what then?".len() as u64);
    // From now on it is in memory.
    let other = answer(&second, &prompt(1, 10, "and who?"));
    assert_eq!(
        (other.usage.cached_tokens, second.stats().tokens_loaded),
        (10 * PAGE_LEN, 10 * PAGE_LEN as u64)
    );
    assert_eq!(other.token_ids, answer(&engine(options(dir.path())), &prompt(1, 10, "and who?")).token_ids);
}

#[test]
fn a_byte_that_changed_is_noticed_and_its_file_removed() {
    let dir = tempfile::tempdir().unwrap();
    let asked = prompt(1, 10, "!");
    let cold = answer(&engine(options(dir.path())), &asked);
    let file = files(dir.path()).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    // In the seventh page.
    let at = bytes.len() - 4 * PAGE_LEN * 4 + 9;
    bytes[at] ^= 0x10;
    fs::write(&file, bytes).unwrap();
    let second = engine(options(dir.path()));
    let warm = answer(&second, &asked);
    assert_eq!((warm.token_ids, warm.usage.cached_tokens), (cold.token_ids, 0));
    drop(second);
    // What was computed again is written again, whole.
    assert_eq!(answer(&engine(options(dir.path())), &asked).usage.cached_tokens, 10 * PAGE_LEN);
}

#[test]
fn torn_and_foreign_files_are_removed_and_files_of_other_names_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let asked = prompt(1, 10, "!");
    let cold = answer(&engine(options(dir.path())), &asked);
    let file = files(dir.path()).remove(0);
    let bytes = fs::read(&file).unwrap();
    for n in [0, 7, 51, 52, 60, 400, bytes.len() - 1] {
        fs::write(dir.path().join(format!("torn-{n}.{EXTENSION}")), &bytes[..n]).unwrap();
    }
    let mut header = bytes.clone();
    header[60] ^= 1;
    fs::write(dir.path().join(format!("changed.{EXTENSION}")), header).unwrap();
    fs::write(dir.path().join(format!("letter.{EXTENSION}")), "x".repeat(1000)).unwrap();
    fs::write(dir.path().join("letter.txt"), "dear reader").unwrap();
    let second = engine(options(dir.path()));
    let warm = answer(&second, &asked);
    assert_eq!((warm.token_ids, warm.usage.cached_tokens), (cold.token_ids, 10 * PAGE_LEN));
    assert_eq!(files(dir.path()), [file]);
    assert!(dir.path().join("letter.txt").exists());
}

#[test]
fn another_model_s_prefixes_are_neither_used_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let asked = prompt(1, 10, "!");
    answer(&engine(options(dir.path())), &asked);
    let other = PrefixStoreOptions { model: "another model".to_string(), ..options(dir.path()) };
    let found = answer(&engine(other.clone()), &asked);
    assert_eq!(found.usage.cached_tokens, 0);
    assert_eq!(files(dir.path()).len(), 2);
    for store in [other, options(dir.path())] {
        assert_eq!(answer(&engine(store), &asked).usage.cached_tokens, 10 * PAGE_LEN);
    }
}

#[test]
fn the_folder_stays_below_its_bound_and_what_was_used_last_stays() {
    let dir = tempfile::tempdir().unwrap();
    answer(&engine(options(dir.path())), &prompt(1, 10, "!"));
    let n_bytes = fs::metadata(&files(dir.path())[0]).unwrap().len();
    let bounded = || PrefixStoreOptions { max_bytes: 3 * n_bytes, ..options(dir.path()) };
    for seed in [2, 3, 1, 4, 5] {
        answer(&engine(bounded()), &prompt(seed, 10, "!"));
        let total: u64 = files(dir.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(total <= 3 * n_bytes, "{total} bytes");
    }
    let cached = |seed| answer(&engine(bounded()), &prompt(seed, 10, "!")).usage.cached_tokens > 0;
    assert!(cached(1), "it was read after 2 and 3 were written");
    assert!(!cached(2));
}

#[test]
fn prompts_with_a_common_beginning_share_its_file_and_short_ends_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let long = prompt(1, 10, &"abcdefgh".repeat(9 * PAGE_LEN / 8));
    let first = engine(options(dir.path()));
    answer(&first, &prompt(1, 10, "short end"));
    answer(&first, &prompt(1, 10, &"z".repeat(3 * PAGE_LEN)));
    let cold = answer(&first, &long);
    answer(&first, &prompt(2, 7, "too short to be kept"));
    drop(first);
    let lens: Vec<u64> = files(dir.path()).iter().map(|file| fs::metadata(file).unwrap().len()).collect();
    let page_bytes = 4 * PAGE_LEN as u64;
    assert_eq!(lens.len(), 2);
    assert!(lens.iter().sum::<u64>() < 20 * (page_bytes + 64), "{lens:?}: the beginning is there once");
    let warm = answer(&engine(options(dir.path())), &long);
    assert_eq!((warm.usage.cached_tokens, warm.token_ids), (18 * PAGE_LEN, cold.token_ids));
}

#[test]
fn a_folder_that_is_removed_while_it_is_used_costs_nothing_but_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let asked = prompt(1, 10, "!");
    let cold = answer(&engine(options(dir.path())), &asked);
    let second = engine(options(dir.path()));
    fs::remove_dir_all(dir.path()).unwrap();
    let warm = answer(&second, &asked);
    assert_eq!((warm.token_ids, warm.usage.cached_tokens), (cold.token_ids, 0));
    assert!(!ask(&second, &prompt(3, 10, "!")).is_empty());
}

#[test]
fn two_processes_may_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (engine(options(dir.path())), engine(options(dir.path())));
    let asked = prompt(1, 10, "!");
    let cold = answer(&one, &asked);
    drop(one);
    // Written after the second had looked through the folder.
    let warm = answer(&two, &asked);
    assert_eq!((warm.token_ids, warm.usage.cached_tokens), (cold.token_ids, 10 * PAGE_LEN));
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let options = EngineOptions { prefix_store: Some(options(&file.join("in"))), ..EngineOptions::default() };
    let parts = crate::engine::Parts {
        name: "fake".to_string(),
        runner: Box::new(Fake::new(64, 200)),
        tokenizer: letters(),
        context: 512,
        options,
        config: None,
        adapters: Vec::new(),
        sight: None,
        speculator: None,
    };
    let error = Engine::from_parts(parts).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("file/in"), "{error}");
}
