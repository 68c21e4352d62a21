//! What a family's tensors are called in each kind of file, and what shape they have.

use crate::config::ModelConfig;
use crate::head::Task;

/// One row of a family's table of tensors.
///
/// Names stand without `.weight` and `.bias`; `{i}` is the layer. Ours are GGUF's.
#[derive(Debug, Clone, Copy)]
pub struct TensorName {
    /// Our name, which is GGUF's.
    pub ours: &'static str,
    /// Hugging Face's name, without the prefix that some files leave out; where weight and bias have names of their own, both in full with
    /// `|` between them.
    pub hugging_face: &'static str,
    /// Shape of the weight as a linear layer has it: `[out, in]`, in the letters of the glossary, as in `H*d D`.
    pub shape: &'static str,
    /// How Hugging Face stores the weight.
    pub stored: Stored,
    /// Whether every model of the family has a bias here.
    pub has_bias: bool,
    /// Whether the layer's outputs are added to the residual stream, and begin smaller the more layers there are.
    pub is_residual: bool,
    /// The heads whose models have it; empty = all models.
    pub tasks: &'static [Task],
    /// Whether it stands beside the model, outside its prefix.
    pub is_outside: bool,
    /// How often the row is repeated, where `{i}` stands in its names: `L` times, or another letter of the shapes.
    pub times: &'static str,
    /// Whether a new one is the wider spread the fewer its inputs are: N(0, 1 / (3·in)), the variance of PyTorch's `Linear`.
    pub by_inputs: bool,
}

/// How Hugging Face stores a weight, compared with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// As ours.
    Same,
    /// `[in, out]`: GPT-2's `Conv1D`.
    Transposed,
    /// There is a bias and no weight.
    OnlyBias,
    /// As ours, but the rows of each head pair halves in rotary positions, where GGUF's pair neighbours.
    HeadRows,
}

/// A row whose weight is stored alike in both kinds of files.
pub const fn name(ours: &'static str, hugging_face: &'static str, shape: &'static str) -> TensorName {
    TensorName {
        ours,
        hugging_face,
        shape,
        stored: Stored::Same,
        has_bias: false,
        is_residual: false,
        tasks: &[],
        is_outside: false,
        times: "L",
        by_inputs: false,
    }
}

/// Two tables as one, N rows in all.
pub const fn joined<const N: usize>(first: &[TensorName], second: &[TensorName]) -> [TensorName; N] {
    assert!(first.len() + second.len() == N);
    let mut rows = [name("", "", ""); N];
    let mut i = 0;
    while i < N {
        rows[i] = if i < first.len() { first[i] } else { second[i - first.len()] };
        i += 1;
    }
    rows
}

impl TensorName {
    /// The same row, stored in another way by Hugging Face.
    pub const fn stored(self, stored: Stored) -> TensorName {
        TensorName { stored, ..self }
    }

    /// The same row, of a layer with a bias.
    pub const fn biased(self) -> TensorName {
        TensorName { has_bias: true, ..self }
    }

    /// The same row, of a layer that writes to the residual stream.
    pub const fn residual(self) -> TensorName {
        TensorName { is_residual: true, ..self }
    }

    /// The same row, of models with these heads only, beside the model and outside its prefix.
    pub const fn head(self, tasks: &'static [Task]) -> TensorName {
        TensorName { tasks, is_outside: true, ..self }
    }

    /// The same row, of models with these heads only.
    pub const fn only(self, tasks: &'static [Task]) -> TensorName {
        TensorName { tasks, ..self }
    }

    /// The same row, repeated as often as `letter` says, not once for each block of the decoder.
    pub const fn times(self, letter: &'static str) -> TensorName {
        TensorName { times: letter, ..self }
    }

    /// The same row, whose new values are the wider spread the fewer inputs there are.
    pub const fn by_inputs(self) -> TensorName {
        TensorName { by_inputs: true, ..self }
    }

    /// The deviation of a new matrix with `n_in` inputs, where others have `usual`.
    pub fn deviation(&self, n_in: usize, usual: f32) -> f32 {
        if self.by_inputs { (3.0 * n_in as f32).sqrt().recip() } else { usual }
    }

    /// Whether models with this head have the row.
    pub fn belongs_to(&self, task: Task) -> bool {
        self.tasks.is_empty() || self.tasks.contains(&task)
    }

    /// Whether it is a part of a head that is not over the vocabulary: drawn if it is new, and trained with any adapter.
    pub fn is_head(&self) -> bool {
        self.ours.starts_with("cls")
    }

    /// The shape in layer `i`, in numbers, outermost first.
    pub fn extents(&self, config: &ModelConfig, i: usize) -> Vec<usize> {
        self.shape
            .split(' ')
            .map(|extent| extent.split('*').map(|factor| letter(factor, config, i)).product())
            .collect()
    }

    /// GGUF's name in layer `i`, with `.weight` or `.bias`.
    pub fn gguf_name(&self, i: usize, suffix: &str) -> String {
        self.ours.replace("{i}", &i.to_string()) + suffix
    }

    /// Hugging Face's name in layer `i`, with `.weight` or `.bias`.
    pub fn hugging_face_name(&self, prefix: &str, i: usize, suffix: &str) -> String {
        let prefix = if self.is_outside { "" } else { prefix };
        let name = self.hugging_face.replace("{i}", &i.to_string());
        match name.split_once('|') {
            Some((weight, _)) if suffix == ".weight" => format!("{prefix}{weight}"),
            Some((_, bias)) if suffix == ".bias" => format!("{prefix}{bias}"),
            Some((weight, _)) => format!("{prefix}{weight}{suffix}"),
            None => format!("{prefix}{name}{suffix}"),
        }
    }

    /// How many tensors of a model the row names: one, or one for each layer; 0 or 1 where a letter says whether it is there.
    pub fn n_repeats(&self, config: &ModelConfig) -> usize {
        if self.ours.contains("{i}") || self.times != "L" { letter(self.times, config, 0) } else { 1 }
    }
}

fn letter(factor: &str, config: &ModelConfig, i: usize) -> usize {
    match factor {
        "V" => config.vocab_size,
        "D" => config.hidden_size,
        "L" => config.n_layers,
        "N" => config.n_encoder_layers,
        "F" => config.ffn_size,
        "H" => config.n_heads,
        "K" => config.kv_heads_of(i),
        "d" => config.head_dim,
        "P" => config.position_len,
        "S" => config.n_segments,
        "C" => config.head.n_labels,
        // What goes into a recurrent layer and what comes out: the ends of the stack are as wide as the embedding.
        "E" if i == 0 => config.hidden_size,
        "U" if i + 1 == config.n_layers => config.hidden_size,
        "E" | "U" => config.ffn_size,
        "r/2" => config.rope.as_ref().map_or(0, |rope| rope.rotary_dim / 2),
        own => match config.own_opt(own) {
            Some(size) => size as usize,
            // Of an embedding that is not factorised.
            None if own == "e" => config.hidden_size,
            None => own.parse().unwrap_or_else(|_| panic!("`{own}` is no letter of a shape")),
        },
    }
}
