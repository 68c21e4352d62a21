//! Recipes: everything about a run that is written down, in TOML or by flags of the same names.

use rhetor_models::adapters::{AdapterOptions, Bias, Init, Names};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::error::Error;

/// Numeric options of a method, by name.
pub type Options = BTreeMap<String, f64>;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Recipe {
    /// What it is called.
    pub name: Option<String>,
    /// One sentence about it.
    pub summary: Option<String>,
    /// The model to go on from: a name, a directory, a file.
    pub model: Option<String>,
    /// The `config.json` of a new model, with random weights.
    pub config: Option<serde_json::Map<String, serde_json::Value>>,
    /// The vocabulary of a new model: a directory or `tokenizer.json`, or `train characters`, `train bpe 8000`.
    pub tokenizer: Option<String>,
    /// The chat template of a new model, by name.
    pub template: Option<String>,
    /// What is learnt: names of the catalogue, files, folders.
    pub data: Vec<Data>,
    /// What is measured: `off`, `hash 5%`, `tail 10%`, or a file.
    pub validation: String,
    /// Examples to validate with at most.
    pub validation_max: usize,
    /// What is optimised.
    pub objective: String,
    /// Its options.
    pub objective_options: Options,
    /// The model that a distillation learns from.
    pub teacher: Option<String>,
    /// What moves.
    pub adapter: String,
    /// Its options.
    pub adapter_options: Options,
    /// Modules that the adapter changes: `all-linear`, names with commas between them, or `re:` and a regular
    /// expression; empty = what the method changes in this family.
    pub targets: String,
    /// Modules of the base that train and are saved in full.
    pub modules_to_save: Vec<String>,
    /// Layers of the model that the adapter changes; none = all.
    pub layers: Vec<usize>,
    /// Biases that train: `none`, `all` or `adapted`.
    pub bias: String,
    /// First values of the adapter: `default`, `gaussian`, `random`, `vocabulary` or `text`.
    pub init: String,
    /// The text of `init = "text"`.
    pub init_text: Option<String>,
    /// How the frozen base is kept: as it is stored, or `nf4` (scales quantized too), or `nf4-plain`.
    pub quantize: Option<String>,
    /// How gradients change parameters.
    pub optimizer: String,
    /// Its options.
    pub optimizer_options: Options,
    /// Which parameters decay: `no-bias-norm`, `ndim2` or `all`.
    pub decay: String,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// What the rate of each group of layers is divided by for each group above it (arXiv:1801.06146, section 3.2: 2.6);
    /// 1 = all learn alike.
    pub rate_decay: f64,
    /// Epochs after which one more group of layers begins to learn, the head first (arXiv:1801.06146, section 3.3); 0 = all
    /// from the start.
    pub unfreeze_every: f64,
    /// Its shape over the steps.
    pub schedule: String,
    /// Its options.
    pub schedule_options: Options,
    /// Steps of warm-up, or the part of all steps if below 1.
    pub warmup: f64,
    /// Updates; `None` = as many as `epochs` take.
    pub steps: Option<u64>,
    /// Passes over the data, if no steps are given.
    pub epochs: f64,
    /// Examples of an update.
    pub batch_size: usize,
    /// Tokens of an example at most.
    pub seq_len: usize,
    /// Rows of tokens that go through the model at once.
    pub rows_max: usize,
    /// Whether short examples share a row of the batch; they never see each other.
    pub packing: bool,
    /// Whether windows of a text are cut where its documents end.
    pub document_mask: bool,
    /// Which windows of a text are drawn: `each-once` or `anywhere`.
    pub windows: String,
    /// Greatest global norm of gradients; 0 = off.
    pub clip: f32,
    /// `f32`, or `bf16` products with f32 sums, values and moments.
    pub precision: String,
    /// Whether blocks are computed again on the way back instead of kept.
    pub recompute: bool,
    /// Decay of a moving average of the weights, which is what is saved; 0 = off.
    pub ema: f32,
    /// Of everything random.
    pub seed: u64,
    /// Steps between validations; 0 = at the end only.
    pub validate_every: u64,
    /// Steps between checkpoints; 0 = at the end only.
    pub save_every: u64,
    /// Checkpoints that are kept.
    pub keep: usize,
    /// Whether the model with the lowest validation loss is kept in `best/` as well.
    pub best: bool,
    /// Validations without a better loss after which training stops; 0 = never.
    pub patience: u32,
    /// Type of the saved weights: `f32`, `bf16` or `f16`; by default that of the precision.
    pub save_type: Option<String>,
}

/// One part of the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Data {
    /// A name of the catalogue, a file or a folder.
    Name(String),
    /// The same with a weight.
    Weighted {
        /// The name.
        name: String,
        /// How often it is drawn from, relative to the others.
        weight: f64,
    },
}

impl Data {
    /// The name.
    pub fn name(&self) -> &str {
        match self {
            Data::Name(name) | Data::Weighted { name, .. } => name,
        }
    }

    /// The weight; 1 unless given.
    pub fn weight(&self) -> f64 {
        match self {
            Data::Name(_) => 1.0,
            Data::Weighted { weight, .. } => *weight,
        }
    }
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            name: None,
            summary: None,
            model: None,
            config: None,
            tokenizer: None,
            template: None,
            data: Vec::new(),
            validation: "hash 5%".to_string(),
            validation_max: 1000,
            objective: "causal-lm".to_string(),
            objective_options: Options::new(),
            teacher: None,
            adapter: "full".to_string(),
            adapter_options: Options::new(),
            targets: String::new(),
            modules_to_save: Vec::new(),
            layers: Vec::new(),
            bias: "none".to_string(),
            init: "default".to_string(),
            init_text: None,
            quantize: None,
            optimizer: "adamw".to_string(),
            optimizer_options: Options::new(),
            decay: "no-bias-norm".to_string(),
            learning_rate: 2e-4,
            rate_decay: 1.0,
            unfreeze_every: 0.0,
            schedule: "cosine".to_string(),
            schedule_options: Options::new(),
            warmup: 0.03,
            steps: None,
            epochs: 1.0,
            batch_size: 16,
            seq_len: 512,
            rows_max: 2048,
            packing: false,
            document_mask: false,
            windows: "each-once".to_string(),
            clip: 1.0,
            precision: "f32".to_string(),
            recompute: false,
            ema: 0.0,
            seed: 0,
            validate_every: 0,
            save_every: 0,
            keep: 2,
            best: false,
            patience: 0,
            save_type: None,
        }
    }
}

impl Recipe {
    /// Reads a recipe; keys that it does not have are refused by name.
    pub fn from_toml(text: &str) -> Result<Recipe, Error> {
        toml::from_str(text).map_err(|error| Error::Recipe(error.to_string()))
    }

    /// Refuses numbers with which nothing could be trained.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let invalid = |option, reason: String| Err(Error::InvalidOption { option, reason });
        let sizes = [("batch-size", self.batch_size), ("seq-len", self.seq_len), ("rows-max", self.rows_max)];
        if let Some((option, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return invalid(option, "it must be at least 1".to_string());
        }
        let numbers = [
            ("learning-rate", self.learning_rate),
            ("warmup", self.warmup),
            ("rate-decay", self.rate_decay),
            ("unfreeze-every", self.unfreeze_every),
            ("epochs", self.epochs),
            ("clip", f64::from(self.clip)),
        ];
        let is_wrong = |number: f64| !number.is_finite() || number < 0.0;
        if let Some((option, number)) = numbers.into_iter().find(|(_, number)| is_wrong(*number)) {
            return invalid(option, format!("it must be a number from 0 on, got {number}"));
        }
        if !(0.0..1.0).contains(&self.ema) {
            return invalid("ema", format!("it must be from 0 to below 1, got {}", self.ema));
        }
        Ok(())
    }

    /// The adapter's options.
    pub fn adapter_options(&self, initial_ids: Vec<u32>) -> Result<AdapterOptions, Error> {
        let bias = match self.bias.as_str() {
            "none" => Bias::None,
            "all" => Bias::All,
            "adapted" => Bias::Adapted,
            other => return Err(unknown("bias", other, "none, all, adapted")),
        };
        let init = match self.init.as_str() {
            "default" => Init::Default,
            "gaussian" => Init::Gaussian,
            "random" => Init::Random,
            "vocabulary" => Init::Vocabulary,
            "text" => Init::Text,
            other => return Err(unknown("init", other, "default, gaussian, random, vocabulary, text")),
        };
        Ok(AdapterOptions {
            values: self.adapter_options.iter().map(|(name, value)| (name.clone(), *value)).collect(),
            targets: if self.targets.is_empty() { Names::Default } else { Names::parse(&self.targets) },
            layers: (!self.layers.is_empty()).then(|| self.layers.clone()),
            modules_to_save: self.modules_to_save.clone(),
            bias,
            init,
            initial_ids,
            initial_text: self.init_text.clone(),
            seed: self.seed,
            ..AdapterOptions::default()
        })
    }

    /// Steps of warm-up out of `n_steps`.
    pub(crate) fn n_warmup(&self, n_steps: u64) -> u64 {
        if self.warmup < 1.0 { (self.warmup * n_steps as f64).round() as u64 } else { self.warmup as u64 }
    }
}

/// The error for a word that is none of a list.
pub(crate) fn unknown(what: &'static str, name: &str, known: &str) -> Error {
    Error::UnknownName { what, name: name.to_string(), known: known.to_string() }
}

/// Options as a method's builder takes them.
pub(crate) fn given(options: &Options) -> impl Iterator<Item = (&str, f64)> {
    options.iter().map(|(name, value)| (name.as_str(), *value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_read_and_written_back() {
        let text = "objective = \"sft\"\nadapter = \"lora\"\nlearning-rate = 1e-4\n\
                    data = [\"a.jsonl\", { name = \"b.jsonl\", weight = 2.0 }]\n[adapter-options]\nrank = 8.0\n";
        let recipe = Recipe::from_toml(text).unwrap();
        assert_eq!((recipe.adapter.as_str(), recipe.adapter_options["rank"]), ("lora", 8.0));
        assert_eq!((recipe.data[1].name(), recipe.data[1].weight()), ("b.jsonl", 2.0));
        let again = Recipe::from_toml(&toml::to_string(&recipe).unwrap()).unwrap();
        assert_eq!(again, recipe);
    }

    #[test]
    fn a_key_that_no_recipe_has_is_refused_by_name() {
        let error = Recipe::from_toml("learning-pace = 1.0").unwrap_err().to_string();
        assert!(error.contains("learning-pace"), "{error}");
    }

    #[test]
    fn warm_up_is_a_part_or_a_number_of_steps() {
        let recipe = |warmup| Recipe { warmup, ..Recipe::default() };
        assert_eq!((recipe(0.1).n_warmup(200), recipe(100.0).n_warmup(200)), (20, 100));
    }
}
