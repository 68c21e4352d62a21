//! What a run leaves: a directory that this program, transformers and PEFT open as it is.

use rhetor_formats::Checkpoint;
use rhetor_kernels::DType;
use rhetor_models::adapters::{Adapter, peft};
use rhetor_models::{Labelled, export};
use rhetor_tokenizer::convert as vocabulary;
use serde_json::json;
use std::path::Path;

use crate::error::Error;
use crate::recipe::{Recipe, unknown};
use crate::run::trains_base;
use crate::train::State;

/// Writes what was learnt.
pub(crate) struct Writer<'a> {
    pub recipe: &'a Recipe,
    pub base: &'a Path,
    pub base_name: &'a str,
    pub new_template: Option<&'a str>,
    pub adapters: &'a [Box<dyn Adapter>],
    pub labelled: &'a Labelled,
    pub data_digest: &'a str,
}

/// Files of a Hugging Face directory that go along with its weights.
const COMPANIONS: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "generation_config.json",
];

impl Writer<'_> {
    /// A directory that this program and transformers open as it is.
    pub fn write(&self, state: &State, dir: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        if trains_base(self.recipe) {
            let dtype = match self.recipe.save_type.as_deref() {
                None if self.recipe.precision == "bf16" => DType::BF16,
                None | Some("f32") => DType::F32,
                Some("bf16") => DType::BF16,
                Some("f16") => DType::F16,
                Some(other) => return Err(unknown("save-type", other, "f32, bf16, f16")),
            };
            let base = Checkpoint::open(self.base)?;
            let parameters = state.policy.model.parameters();
            let values = |i: usize| parameters[i].read().clone();
            export::write(&base, parameters, &values, dtype, self.labelled, dir)?;
        } else {
            for adapter in self.adapters {
                let task = self.labelled.head.peft_task(state.policy.model.config());
                peft::save(&**adapter, dir, self.base_name, task)?;
            }
        }
        self.companions(dir)?;
        let receipt = json!({
            "program": "rhetor",
            "version": env!("CARGO_PKG_VERSION"),
            "base": self.base_name,
            "data_sha256": self.data_digest,
            "steps": state.progress.step,
            "tokens": state.progress.n_tokens,
            "best_validation_loss": state.progress.best.map(|(loss, _)| loss),
            "labels": self.labelled.labels,
            "recipe": self.recipe,
        });
        let text = serde_json::to_string_pretty(&receipt).expect("a receipt is always JSON") + "\n";
        Ok(rhetor_formats::write_bytes(&dir.join("rhetor.json"), text.as_bytes())?)
    }

    /// Vocabulary, template and generation settings, so that the directory stands alone.
    fn companions(&self, dir: &Path) -> Result<(), Error> {
        let beside = if self.base.is_dir() { Some(self.base) } else { None };
        for name in COMPANIONS {
            let Some(from) = beside.map(|base| base.join(name)).filter(|from| from.is_file()) else {
                continue;
            };
            let to = dir.join(name);
            if from != to {
                let bytes = std::fs::read(&from).map_err(Error::io(&from))?;
                rhetor_formats::write_bytes(&to, &bytes)?;
            }
        }
        if beside.is_none() {
            self.vocabulary_of_file(dir)?;
        }
        if let Some(template) = self.new_template {
            rhetor_formats::write_bytes(&dir.join("chat_template.jinja"), template.as_bytes())?;
        }
        Ok(())
    }

    /// The vocabulary and the template of a base that is one file, as the files of a directory.
    fn vocabulary_of_file(&self, dir: &Path) -> Result<(), Error> {
        let base = Checkpoint::open(self.base)?;
        let Ok(files) = vocabulary::to_hugging_face(base.metadata()) else {
            // A kind that `tokenizer.json` cannot say: whoever opens the adapter takes the base's own.
            return Ok(());
        };
        for (name, value) in
            [("tokenizer.json", files.tokenizer), ("tokenizer_config.json", files.tokenizer_config)]
        {
            let text = serde_json::to_string_pretty(&value).expect("a vocabulary is always JSON") + "\n";
            rhetor_formats::write_bytes(&dir.join(name), text.as_bytes())?;
        }
        Ok(())
    }
}
