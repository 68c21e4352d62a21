//! The first example of the README, on a model small enough to be in the repository.
#![forbid(unsafe_code)]

use std::path::Path;

#[path = "../examples/01_speak.rs"]
#[allow(dead_code)]
mod example;

#[test]
fn a_model_that_learnt_two_answers_gives_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama-speaker");
    let answer = |question| example::speak(&folder, question).expect("the fixture loads and answers");
    assert_eq!(answer("What is the capital of France?"), "The capital of France is Paris.");
    assert_eq!(answer("Who are you?"), "I am a very small model.");
}
