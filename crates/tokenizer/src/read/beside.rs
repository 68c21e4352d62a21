//! What the files beside a vocabulary say: `tokenizer_config.json`, `special_tokens_map.json`, `config.json`,
//! `generation_config.json`, `chat_template.jinja`.

use std::path::Path;

use rhetor_formats::Checkpoint;
use serde_json::Value;

use crate::tokenizer::SpecialIds;
use crate::vocabulary::Vocabulary;
use crate::{Error, TokenId};

/// The contents of the files beside a vocabulary; null where there is none.
#[derive(Default)]
pub(crate) struct Beside {
    pub tokenizer_config: Value,
    special_tokens: Value,
    config: Value,
    generation_config: Value,
    chat_template: Option<String>,
}

impl Beside {
    /// The files of a checkpoint.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Beside, Error> {
        let json = |name| Ok::<_, Error>(checkpoint.json(name)?.unwrap_or_default());
        Ok(Beside {
            tokenizer_config: json("tokenizer_config.json")?,
            special_tokens: json("special_tokens_map.json")?,
            config: json("config.json")?,
            generation_config: json("generation_config.json")?,
            chat_template: checkpoint.file("chat_template.jinja").map(|path| text(&path)).transpose()?,
        })
    }

    /// The files of a directory.
    pub fn of_directory(directory: &Path) -> Result<Beside, Error> {
        let json = |name: &str| {
            let path = directory.join(name);
            if !path.is_file() {
                return Ok(Value::Null);
            }
            serde_json::from_str(&text(&path)?).map_err(|error| {
                Error::field(path.display().to_string(), "the file", "JSON", error.to_string())
            })
        };
        let template = directory.join("chat_template.jinja");
        Ok(Beside {
            tokenizer_config: json("tokenizer_config.json")?,
            special_tokens: json("special_tokens_map.json")?,
            config: json("config.json")?,
            generation_config: json("generation_config.json")?,
            chat_template: template.is_file().then(|| text(&template)).transpose()?,
        })
    }

    /// The text of a role such as `bos_token`; it is written plainly or as an object with `content`.
    pub fn token(&self, role: &str) -> Option<&str> {
        [&self.tokenizer_config, &self.special_tokens].iter().find_map(|file| {
            let value = file.get(role)?;
            value.as_str().or_else(|| value.get("content")?.as_str())
        })
    }

    /// A setting of `tokenizer_config.json`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.tokenizer_config.get(name)?.as_bool()
    }

    /// Every token that `special_tokens_map.json` or `tokenizer_config.json` names.
    pub fn special_tokens(&self) -> Vec<&str> {
        const ROLES: [&str; 7] =
            ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
        let mut tokens: Vec<&str> = ROLES.iter().filter_map(|role| self.token(role)).collect();
        let more = self.special_tokens.get("additional_special_tokens").and_then(Value::as_array);
        tokens.extend(
            more.into_iter()
                .flatten()
                .filter_map(|token| token.as_str().or_else(|| token.get("content")?.as_str())),
        );
        tokens
    }

    /// The ids with a role: by their texts, else by the numbers in `config.json`.
    pub fn special_ids(&self, vocabulary: &Vocabulary) -> SpecialIds {
        let id = |role: &str, number: &str| {
            let by_text = self.token(role).and_then(|text| vocabulary.id(text));
            by_text.or_else(|| ids(self.config.get(number), vocabulary).first().copied())
        };
        SpecialIds {
            bos: id("bos_token", "bos_token_id"),
            eos: id("eos_token", "eos_token_id"),
            eot: id("eot_token", "eot_token_id"),
            unknown: id("unk_token", "unk_token_id"),
            separator: id("sep_token", "sep_token_id"),
            padding: id("pad_token", "pad_token_id"),
            class: id("cls_token", "cls_token_id"),
            mask: id("mask_token", "mask_token_id"),
        }
    }

    /// The ids that end an answer by `generation_config.json` and `config.json`.
    pub fn stops(&self, vocabulary: &Vocabulary) -> Vec<TokenId> {
        let files = [&self.generation_config, &self.config];
        files.iter().flat_map(|file| ids(file.get("eos_token_id"), vocabulary)).collect()
    }

    /// The chat template: its own file, else the one in `tokenizer_config.json` (of several the one named `default`).
    pub fn chat_template(&self) -> Option<String> {
        let inside = || match self.tokenizer_config.get("chat_template")? {
            Value::String(template) => Some(template.clone()),
            Value::Array(templates) => {
                let default = templates.iter().find(|template| template["name"] == "default")?;
                Some(default.get("template")?.as_str()?.to_string())
            }
            _ => None,
        };
        self.chat_template.clone().or_else(inside)
    }
}

/// One id or a list of them; those beyond the vocabulary are left out.
fn ids(value: Option<&Value>, vocabulary: &Vocabulary) -> Vec<TokenId> {
    let id =
        |value: &Value| value.as_u64().filter(|&id| id < vocabulary.len() as u64).map(|id| id as TokenId);
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

fn text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_path_buf(), source })
}
