//! The directories of sentence-transformers: which steps lead from the rows of a text to its vector.
//!
//! Source: sentence-transformers 6.2: `modules.json` and a folder for each module; old and new names of modules are known
//! by their last part.

use rhetor_formats::Checkpoint;
use serde_json::Value;
use std::path::{Path, PathBuf};

use crate::{Dense, Error, Pooling, PoolingMode, SparsePooling};

/// A step behind the transformer.
pub enum Module {
    /// Rows become one vector.
    Pooling(Pooling),
    /// Logits over the vocabulary become one vector.
    SparsePooling(SparsePooling),
    /// A linear layer over the vector.
    Dense(Dense),
    /// Length 1.
    Normalize,
}

/// What a directory says besides the model.
#[derive(Default)]
pub struct Modules {
    /// The steps, in order.
    pub steps: Vec<Module>,
    /// Texts that stand before a text, by name.
    pub prompts: Vec<(String, String)>,
    /// The prompt that is used when none is named.
    pub default_prompt: Option<String>,
    /// The most tokens of a text, if `sentence_bert_config.json` says it.
    pub max_len: Option<usize>,
    /// Whether texts are put into lower case before anything else.
    pub lowercase: bool,
}

impl Modules {
    /// Reads what stands beside the model of `checkpoint`; `None` if there is no `modules.json`.
    pub fn read(checkpoint: &Checkpoint) -> Result<Option<Modules>, Error> {
        let Some(list) = checkpoint.json("modules.json")? else { return Ok(None) };
        let file = checkpoint.file("modules.json").unwrap_or_else(|| checkpoint.path().to_path_buf());
        let mut modules = Modules::default();
        for (i, entry) in list.as_array().into_iter().flatten().enumerate() {
            let kind = entry["type"].as_str().unwrap_or_default();
            let folder = entry["path"].as_str().unwrap_or_default();
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" | "MLMTransformer" if i == 0 && folder.is_empty() => {}
                "Pooling" => {
                    let (json, file) = settings(checkpoint, folder)?;
                    modules.steps.push(Module::Pooling(Pooling::from_json(&json, &file)?));
                }
                "SpladePooling" => {
                    let (json, file) = settings(checkpoint, folder)?;
                    modules.steps.push(Module::SparsePooling(SparsePooling::from_json(&json, &file)?));
                }
                "Dense" => modules.steps.push(Module::Dense(Dense::read(checkpoint, folder)?)),
                "Normalize" => modules.steps.push(Module::Normalize),
                _ => {
                    let expected = "Transformer (first, in the directory itself), Pooling, SpladePooling, Dense or Normalize";
                    return Err(refused(&file, &format!("{i}.type"), &entry["type"], expected));
                }
            }
        }
        let pools = |step: &Module| matches!(step, Module::Pooling(_) | Module::SparsePooling(_));
        if !modules.steps.first().is_some_and(pools) || modules.steps.iter().skip(1).any(pools) {
            return Err(refused(
                &file,
                "1.type",
                &Value::Null,
                "one module that pools, right behind the Transformer",
            ));
        }
        modules.read_settings(checkpoint)?;
        Ok(Some(modules))
    }

    /// GGUF's number for how rows are pooled: 1 mean, 2 the first, 3 the last. `None` if there are steps that GGUF does not
    /// know: its vectors are pooled in one way and have length 1.
    pub fn gguf_pooling(&self) -> Option<u32> {
        match self.steps.as_slice() {
            [Module::Pooling(pooling), Module::Normalize] => match pooling.modes[..] {
                [PoolingMode::Mean] => Some(1),
                [PoolingMode::Cls] => Some(2),
                [PoolingMode::LastToken] => Some(3),
                _ => None,
            },
            _ => None,
        }
    }

    /// Prompts and lengths.
    fn read_settings(&mut self, checkpoint: &Checkpoint) -> Result<(), Error> {
        if let Some(json) = checkpoint.json("config_sentence_transformers.json")? {
            let prompts = json["prompts"].as_object().into_iter().flatten();
            let text = |(name, text): (&String, &Value)| Some((name.clone(), text.as_str()?.to_string()));
            self.prompts = prompts.filter_map(text).collect();
            self.default_prompt = json["default_prompt_name"].as_str().map(str::to_string);
        }
        if let Some(json) = checkpoint.json("sentence_bert_config.json")? {
            self.max_len = json["max_seq_length"].as_u64().map(|n| n as usize);
            self.lowercase = json["do_lower_case"].as_bool() == Some(true);
        }
        Ok(())
    }
}

/// `config.json` of the module in `folder` beside the model, and its path.
pub(crate) fn settings(checkpoint: &Checkpoint, folder: &str) -> Result<(Value, PathBuf), Error> {
    let file = checkpoint.path().join(folder).join("config.json");
    match checkpoint.json_in(folder, "config.json")? {
        Some(json) => Ok((json, file)),
        None => Err(refused(&file, "the file", &Value::Null, "the settings of a module")),
    }
}

pub(crate) fn refused(file: &Path, key: &str, got: &Value, expected: &str) -> Error {
    let (file, key) = (file.to_path_buf(), key.to_string());
    Error::Setting { file, key, got: got.to_string(), expected: expected.to_string() }
}
