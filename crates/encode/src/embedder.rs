//! Text in, vectors out.

use rhetor_formats::{Checkpoint, Kind};
use rhetor_models::{Family, Task};
use rhetor_tokenizer::{Special, Tokenizer};

use crate::modules::{Module, Modules};
use crate::pooling::normalize;
use crate::reader::{Reader, ReaderOptions, Text};
use crate::{Error, Pooling, PoolingMode, SparsePooling};

/// A model that gives each text a vector.
pub struct Embedder {
    reader: Reader,
    modules: Modules,
}

/// What an [`Embedder`] makes of some texts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Embeddings {
    /// One for each text, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read, those around the texts included.
    pub n_tokens: usize,
    /// For each text, the tokens that had no room.
    pub n_cut: Vec<usize>,
}

impl Embedder {
    /// Loads the model of `checkpoint`: a directory of sentence-transformers; another model, whose rows are averaged; or a
    /// GGUF file, which says how it pools and whose vectors have length 1, as llama.cpp gives them. `sparse` makes a SPLADE
    /// of any masked language model.
    pub fn open(
        checkpoint: &Checkpoint,
        tokenizer: Tokenizer,
        options: ReaderOptions,
        sparse: bool,
    ) -> Result<Embedder, Error> {
        let (family, class_task) = Family::and_task_of(checkpoint)?;
        let mut modules = match Modules::read(checkpoint)? {
            Some(modules) => modules,
            None if checkpoint.kind() == Kind::Gguf => of_gguf(checkpoint, family)?,
            None => Modules { steps: vec![Module::Pooling(Pooling::mean())], ..Modules::default() },
        };
        let is_sparse = |step: &Module| matches!(step, Module::SparsePooling(_));
        if sparse && !modules.steps.iter().any(is_sparse) {
            modules.steps = vec![Module::SparsePooling(SparsePooling::default())];
        }
        let task = match modules.steps.iter().any(is_sparse) {
            true => Task::Vocabulary,
            false if family.has_head(Task::Hidden) => Task::Hidden,
            false => class_task,
        };
        let reader_options = ReaderOptions { task: Some(task), ..options };
        let mut reader = Reader::open(checkpoint, tokenizer, reader_options)?;
        reader.max_len = reader.max_len.min(modules.max_len.unwrap_or(usize::MAX));
        let embedder = Embedder { reader, modules };
        let mut width = match task {
            Task::Vocabulary if embedder.is_sparse() => embedder.reader.model.config().vocab_size,
            _ => embedder.reader.model.config().hidden_size,
        };
        for step in &embedder.modules.steps {
            match step {
                Module::Pooling(pooling) => width *= pooling.modes.len(),
                Module::Dense(dense) if dense.n_in() != width => {
                    return Err(Error::Setting {
                        file: checkpoint.path().join("modules.json"),
                        key: "in_features".to_string(),
                        got: dense.n_in().to_string(),
                        expected: format!("{width}, the width of what comes in"),
                    });
                }
                Module::Dense(dense) => width = dense.n_out(),
                Module::SparsePooling(_) | Module::Normalize => {}
            }
        }
        Ok(embedder)
    }

    /// The model and its tokenizer.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Whether vectors have a number for each token of the vocabulary.
    pub fn is_sparse(&self) -> bool {
        matches!(self.modules.steps.first(), Some(Module::SparsePooling(_)))
    }

    /// The most tokens of a text, those around it included.
    pub fn max_len(&self) -> usize {
        self.reader.max_len
    }

    /// The names of the prompts that the directory gives, with their texts.
    pub fn prompts(&self) -> &[(String, String)] {
        &self.modules.prompts
    }

    /// The vectors of `texts`, each with the prompt of the name `prompt` before it; `None` = the directory's default, which
    /// mostly is none.
    pub fn embed<S: AsRef<str>>(&self, texts: &[S], prompt: Option<&str>) -> Result<Embeddings, Error> {
        let (texts, n_prompt) = self.texts(texts, prompt)?;
        Ok(self.embed_tokens(&texts, n_prompt))
    }

    /// The tokens of `texts`, each with the prompt of the name `prompt` before it, and how many of each are the prompt's:
    /// what [`Embedder::embed_tokens`] takes.
    pub fn texts<S: AsRef<str>>(
        &self,
        texts: &[S],
        prompt: Option<&str>,
    ) -> Result<(Vec<Text>, usize), Error> {
        let prompt = self.prompt(prompt)?;
        let encode = |text: &S| {
            let text = format!("{prompt}{}", text.as_ref());
            let text = if self.modules.lowercase { text.to_lowercase() } else { text };
            self.reader.text(&text, Special::Parse)
        };
        let n_prompt = if prompt.is_empty() {
            0
        } else {
            let (before, _) = self.reader.tokenizer.n_around();
            before + self.reader.tokenizer.encode(prompt, Special::Parse).len()
        };
        Ok((texts.iter().map(encode).collect(), n_prompt))
    }

    /// The vectors of texts that are tokens already, of each of which the first `n_prompt` are the prompt's.
    pub fn embed_tokens(&self, texts: &[Text], n_prompt: usize) -> Embeddings {
        let mut vectors = vec![Vec::new(); texts.len()];
        let rows = |text: &Text| match &self.modules.steps[0] {
            Module::Pooling(pooling) => pooling.rows(text.ids.len(), n_prompt),
            _ => 0..text.ids.len(),
        };
        self.reader.read(texts, rows, |i, outputs, width| {
            let first = rows(&texts[i]).start;
            vectors[i] = self.modules.steps.iter().fold(Vec::new(), |mut x, step| match step {
                Module::Pooling(pooling) => pooling.pool(outputs, width, first),
                Module::SparsePooling(pooling) => pooling.pool(outputs, width),
                Module::Dense(dense) => dense.forward(&x),
                Module::Normalize => {
                    normalize(&mut x);
                    x
                }
            });
        });
        Embeddings {
            vectors,
            n_tokens: texts.iter().map(|text| text.ids.len()).sum(),
            n_cut: texts.iter().map(|text| text.n_cut).collect(),
        }
    }

    fn prompt(&self, name: Option<&str>) -> Result<&str, Error> {
        let Some(name) = name.or(self.modules.default_prompt.as_deref()) else { return Ok("") };
        let found = self.modules.prompts.iter().find(|(own, _)| own == name);
        let known = || {
            let names: Vec<&str> = self.modules.prompts.iter().map(|(name, _)| name.as_str()).collect();
            if names.is_empty() { "none".to_string() } else { names.join(", ") }
        };
        let unknown = || Error::UnknownPrompt { name: name.to_string(), known: known() };
        found.map(|(_, text)| text.as_str()).ok_or_else(unknown)
    }
}

/// How a GGUF file pools: `pooling_type` is 0 for none, 1 mean, 2 cls, 3 last, 4 a score of pairs.
fn of_gguf(checkpoint: &Checkpoint, family: &Family) -> Result<Modules, Error> {
    let key = format!("{}.pooling_type", family.gguf);
    let mode = match checkpoint.metadata().get_u64(&key)? {
        None | Some(1) => PoolingMode::Mean,
        Some(2) => PoolingMode::Cls,
        Some(3) => PoolingMode::LastToken,
        Some(other) => {
            return Err(Error::Setting {
                file: checkpoint.path().to_path_buf(),
                key,
                got: other.to_string(),
                expected: "1 (mean), 2 (cls) or 3 (last)".to_string(),
            });
        }
    };
    let pooling = Module::Pooling(Pooling { modes: vec![mode], include_prompt: true });
    Ok(Modules { steps: vec![pooling, Module::Normalize], ..Modules::default() })
}
