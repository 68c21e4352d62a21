//! Loads a model and lets it answer.
//!
//!     cargo run --release --example 01_speak -- MODEL_FILE_OR_FOLDER
//!
//! A file becomes a checkpoint, a checkpoint gives a model and its tokenizer, and an engine makes a voice of the two.
//! Everything above the engine knows only [`LanguageModel`]: text in, text out.

use rhetor_formats::Checkpoint;
use rhetor_generate::{Engine, EngineOptions};
use rhetor_lm::{LanguageModel, Message, Request};
use rhetor_models::{LoadOptions, Model};
use rhetor_tokenizer::Tokenizer;
use std::{error::Error, ops::ControlFlow, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("say which model: a GGUF file or a Hugging Face folder")?;
    println!("{}", speak(Path::new(&path), "What is the capital of France?")?);
    Ok(())
}

/// The model's answer to a question.
pub fn speak(path: &Path, question: &str) -> Result<String, Box<dyn Error>> {
    let checkpoint = Checkpoint::open(path)?;
    let model = Model::load(&checkpoint, LoadOptions::default())?;
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint)?;
    let engine = Engine::new("speaker", model, tokenizer, EngineOptions::default())?;
    let request = Request::chat([Message::user(question)]);
    let answers = engine.generate(&request, &mut |_| ControlFlow::Continue(()))?;
    Ok(answers[0].text.clone())
}
