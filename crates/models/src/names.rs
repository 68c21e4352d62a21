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
    /// Another name that files have for it, in full, where `hugging_face` is not there; empty = none.
    pub also: &'static str,
    /// Whether files may have the same elements under more extents: those of a convolution, or a leading 1.
    pub is_folded: bool,
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
        also: "",
        is_folded: false,
        stored: Stored::Same,
        has_bias: false,
        is_residual: false,
        tasks: &[],
        is_outside: false,
        times: "L",
        by_inputs: false,
    }
}

impl TensorName {
    /// The same row, stored in another way by Hugging Face.
    pub const fn stored(self, stored: Stored) -> TensorName {
        TensorName { stored, ..self }
    }

    /// The same row, which other files call `name`, in full.
    pub const fn or(self, name: &'static str) -> TensorName {
        TensorName { also: name, ..self }
    }

    /// The same row, whose extents files may write as several, or with a leading 1.
    pub const fn folded(self) -> TensorName {
        TensorName { is_folded: true, ..self }
    }

    /// The same row, beside the model and outside its prefix.
    pub const fn outside(self) -> TensorName {
        TensorName { is_outside: true, ..self }
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
        format!("{prefix}{}", in_full(self.hugging_face, i, suffix))
    }

    /// The [other name](TensorName::also) in layer `i`, with `.weight` or `.bias`.
    pub fn other_name(&self, i: usize, suffix: &str) -> Option<String> {
        (!self.also.is_empty()).then(|| in_full(self.also, i, suffix))
    }

    /// Whether a tensor of the extents `shape` holds what is `expected` here.
    pub fn fits(&self, shape: &[usize], expected: &[usize]) -> bool {
        let mut left = shape.iter().copied().filter(|&extent| extent != 1);
        let mut merged = |expected: usize| {
            let mut product = 1;
            while product < expected {
                match left.next() {
                    Some(extent) => product = product.saturating_mul(extent),
                    None => return false,
                }
            }
            product == expected
        };
        shape == expected
            || self.is_folded && expected.iter().all(|&extent| merged(extent)) && left.next().is_none()
    }

    /// How many tensors of a model the row names: one, or one for each layer.
    pub fn n_repeats(&self, config: &ModelConfig) -> usize {
        if self.ours.contains("{i}") { letter(self.times, config, 0) } else { 1 }
    }
}

/// A name of a table in layer `i`, with its suffix unless it has one.
fn in_full(name: &str, i: usize, suffix: &str) -> String {
    let name = name.replace("{i}", &i.to_string());
    match name.split_once('|') {
        Some((weight, _)) if suffix == ".weight" => weight.to_string(),
        Some((_, bias)) if suffix == ".bias" => bias.to_string(),
        Some((weight, _)) => format!("{weight}{suffix}"),
        None => name + suffix,
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
            None => own.parse().unwrap_or_else(|_| panic!("`{own}` is no letter of a shape")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_of_a_convolution_fold_into_those_of_a_product() {
        let row = name("v.patch_embd", "patch_embedding", "D 3*p*p").folded();
        assert!(row.fits(&[32, 3, 4, 4], &[32, 48]));
        assert!(row.fits(&[1, 1, 32], &[1, 32]) && row.fits(&[32], &[1, 32]));
        assert!(!row.fits(&[32, 3, 4, 5], &[32, 48]) && !row.fits(&[3, 32, 16], &[32, 48]));
        assert!(!row.fits(&[32, 48, 2], &[32, 48]) && !row.fits(&[32], &[32, 48]));
        assert!(!name("v.ln", "ln", "D").fits(&[1, 32], &[32]));
    }
}
