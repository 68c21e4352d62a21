//! What the user chooses when an adapter is made.

use super::{AdapterError, Names};

/// What the user chooses when an adapter is made. What a method has no use for must be left as it is by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdapterOptions {
    /// Values of the method's numeric options, by name.
    pub values: Vec<(String, f64)>,
    /// The layers that are changed.
    pub targets: Names,
    /// Layers that are not, though [`targets`](AdapterOptions::targets) names them; `Default` = none.
    pub exclude: Names,
    /// Only layers of these numbers; `None` = all.
    pub layers: Option<Vec<usize>>,
    /// Another rank for modules whose name ends in what the pattern matches; the first that matches.
    pub rank_pattern: Vec<(String, usize)>,
    /// Another alpha, likewise.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Modules of the base that train in full and are saved in full: an output layer, an embedding, norms.
    pub modules_to_save: Vec<String>,
    /// Which biases of the base train too.
    pub bias: Bias,
    /// First values.
    pub init: Init,
    /// The tokens of [`Init::Text`].
    pub initial_ids: Vec<u32>,
    /// The text that `initial_ids` were made of, to be written down.
    pub initial_text: Option<String>,
    /// Of the first values.
    pub seed: u64,
}

impl AdapterOptions {
    /// All defaults but these values.
    pub fn of(values: &[(&str, f64)]) -> AdapterOptions {
        let values = values.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        AdapterOptions { values, ..AdapterOptions::default() }
    }
}

impl AdapterOptions {
    /// Refuses what was chosen and has no effect on `method`, whose effects are `used`.
    pub(crate) fn check_used(&self, method: &'static str, used: &[&str]) -> Result<(), AdapterError> {
        let plain = AdapterOptions::default();
        let chosen = [
            ("targets", self.targets != plain.targets),
            ("exclude", self.exclude != plain.exclude),
            ("layers", self.layers != plain.layers),
            ("rank-pattern", self.rank_pattern != plain.rank_pattern),
            ("alpha-pattern", self.alpha_pattern != plain.alpha_pattern),
            ("modules-to-save", self.modules_to_save != plain.modules_to_save),
            ("bias", self.bias != plain.bias),
            ("init", self.init != plain.init),
            ("initial-text", self.initial_text.is_some() || !self.initial_ids.is_empty()),
        ];
        match chosen.iter().find(|(name, is_chosen)| *is_chosen && !used.contains(name)) {
            Some((what, _)) => Err(AdapterError::Refused {
                method,
                what,
                got: "given".to_string(),
                expected: "to be left out: it has no effect here".to_string(),
            }),
            None => Ok(()),
        }
    }
}

/// Which biases of the base train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bias {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those of the layers that the adapter changes.
    Adapted,
}

/// First values of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// What the method's paper says.
    #[default]
    Default,
    /// LoRA: A normal with deviation 1 / rank, B zero.
    Gaussian,
    /// LoRA: both random, so that the adapter changes the model at once. Prompts: normal with deviation 1.
    Random,
    /// Prompts: the embeddings of random tokens.
    Vocabulary,
    /// Prompts: the embeddings of [`AdapterOptions::initial_ids`], repeated or cut to length.
    Text,
}

/// What an adapter that is read from a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It stays as it is.
    Inference,
    /// It goes on training.
    Training,
}
