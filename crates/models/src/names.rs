//! What a family's tensors are called in each kind of file, and what shape they have.

use rhetor_formats::Checkpoint;

use crate::config::ModelConfig;
use crate::families::Family;
use crate::head::Task;
use crate::places::{Piece, Place, Stack};
use crate::row_order;

/// One row of a family's table of tensors.
///
/// Names stand without `.weight` and `.bias`; `{i}` is the layer and `{e}` the expert of a mixture. Ours are GGUF's.
#[derive(Debug, Clone, Copy)]
pub struct TensorName {
    /// Our name, which is GGUF's.
    pub ours: &'static str,
    /// Hugging Face's name, without the prefix that some files leave out; where weight and bias have names of their own, both in full with
    /// `|` between them.
    pub hugging_face: &'static str,
    /// Shape of the weight as a linear layer has it: `[out, in]`, in the letters of the glossary, as in `H*d D`.
    pub shape: &'static str,
    /// Whether files may have the same elements under more extents: those of a convolution, or a leading 1.
    pub is_folded: bool,
    /// How Hugging Face stores the weight.
    pub stored: Stored,
    /// Whether every model of the family has a bias here.
    pub has_bias: bool,
    /// The family's own switch that gives some of its models a bias here; empty = there is none.
    pub bias_switch: &'static str,
    /// Whether the layer's outputs are added to the residual stream, and begin smaller the more layers there are.
    pub is_residual: bool,
    /// The heads whose models have it; empty = all models.
    pub tasks: &'static [Task],
    /// Whether it stands beside the model, outside its prefix.
    pub is_outside: bool,
    /// How often the row is repeated, where `{i}` stands in its names: `L` times, or another letter of the shapes.
    pub times: &'static str,
    /// Whether it is held in f32 whatever the file stores: it is small, and what it says decides.
    pub is_exact: bool,
    /// Tensors with other matrices in them where files may have the weight.
    pub stacks: &'static [Stack],
    /// The switch among the config's own things that says whether a model has the row; empty = every model.
    pub when: &'static str,
    /// Which layers have the row.
    pub in_layers: fn(&ModelConfig, usize) -> bool,
    /// How the values of a new matrix spread.
    pub spread: Spread,
}

/// How the values of a new matrix spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// N(0, σ²) with the file's `initializer_range`.
    Given,
    /// N(0, f² / n), f the file's `initializer_factor` and n a product of letters of the glossary.
    Over(&'static str),
    /// Even between ±√(6 / (in + out)). Source: Understanding the difficulty of training deep feedforward neural networks,
    /// Glorot and Bengio 2010, eq. 16.
    Xavier,
}

/// How Hugging Face stores a weight, compared with ours.
#[derive(Debug, Clone, Copy)]
pub enum Stored {
    /// As ours.
    Same,
    /// `[in, out]`: GPT-2's `Conv1D`.
    Transposed,
    /// There is a bias and no weight.
    OnlyBias,
    /// As ours, but the rows of each head pair halves in rotary positions, where GGUF's pair neighbours.
    HeadRows,
    /// As ours, but with the rows of weight and bias in another order: Hugging Face's row of each of ours, in a layer.
    Rows(fn(&ModelConfig, usize) -> Vec<usize>),
    /// One less than ours: the weight of a norm that is multiplied by 1 + what is stored.
    MinusOne,
}

/// A row whose weight is stored alike in both kinds of files.
pub const fn name(ours: &'static str, hugging_face: &'static str, shape: &'static str) -> TensorName {
    TensorName {
        ours,
        hugging_face,
        shape,
        is_folded: false,
        stored: Stored::Same,
        has_bias: false,
        bias_switch: "",
        is_residual: false,
        tasks: &[],
        is_outside: false,
        times: "L",
        is_exact: false,
        stacks: &[],
        when: "",
        in_layers: |_, _| true,
        spread: Spread::Given,
    }
}

/// Two tables as one, N rows in all.
pub(crate) const fn joined<const N: usize>(first: &[TensorName], second: &[TensorName]) -> [TensorName; N] {
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

    /// The same row, of a layer that has a bias where the family's own `switch` is on.
    pub const fn biased_if(self, switch: &'static str) -> TensorName {
        TensorName { bias_switch: switch, ..self }
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

    /// The same row, repeated as often as `letter` says, not once for each block of the decoder; 0 times is not at all,
    /// which is how a row is left out that only some models of a family have.
    pub const fn times(self, letter: &'static str) -> TensorName {
        TensorName { times: letter, ..self }
    }

    /// The same row, of models whose own `switch` is on.
    pub const fn when(self, switch: &'static str) -> TensorName {
        TensorName { when: switch, ..self }
    }

    /// The same row, held in f32 always.
    pub const fn exact(self) -> TensorName {
        TensorName { is_exact: true, ..self }
    }

    /// The same row, which files may also have in one of these.
    pub const fn stacked(self, stacks: &'static [Stack]) -> TensorName {
        TensorName { stacks, ..self }
    }

    /// Whether each expert of a layer has one.
    pub fn is_of_experts(&self) -> bool {
        self.ours.contains("{e}")
    }

    /// The same row, of some layers only.
    pub const fn in_layers(self, in_layers: fn(&ModelConfig, usize) -> bool) -> TensorName {
        TensorName { in_layers, ..self }
    }

    /// The same row, whose new values spread in this way.
    pub const fn spread(self, spread: Spread) -> TensorName {
        TensorName { spread, ..self }
    }

    /// Whether Hugging Face stores the weight as `[in, out]`.
    pub fn is_transposed(&self) -> bool {
        matches!(self.stored, Stored::Transposed)
    }

    /// Whether there is a bias and no weight.
    pub fn is_only_bias(&self) -> bool {
        matches!(self.stored, Stored::OnlyBias)
    }

    /// Hugging Face's row of each row that GGUF has in layer `i`, in weight and bias; `None` = they are the same.
    pub(crate) fn gguf_order(&self, config: &ModelConfig, i: usize) -> Option<Vec<usize>> {
        match self.stored {
            // Without rotary positions nothing is paired.
            Stored::HeadRows if config.rope.is_some() => {
                Some(row_order::neighbours(self.extents(config, i)[0], config.head_dim))
            }
            Stored::Rows(order) => Some(order(config, i)),
            Stored::Same | Stored::Transposed | Stored::OnlyBias | Stored::HeadRows | Stored::MinusOne => {
                None
            }
        }
    }

    /// Hugging Face's row of each row that we have in layer `i` of a model from this kind of file: heads stay as they are
    /// stored, all other orders become GGUF's.
    pub(crate) fn order(&self, config: &ModelConfig, i: usize, is_gguf: bool) -> Option<Vec<usize>> {
        let is_kept = matches!(self.stored, Stored::HeadRows) && !is_gguf;
        if is_kept { None } else { self.gguf_order(config, i) }
    }

    /// Whether a model of these sizes has a bias here.
    pub fn is_biased(&self, config: &ModelConfig) -> bool {
        let is_on = |switch: f64| switch != 0.0;
        self.has_bias || self.is_only_bias() || config.own_opt(self.bias_switch).is_some_and(is_on)
    }

    /// Elements of the weight and of the bias that a new model of these sizes has here, in all layers.
    pub fn n_elements(&self, config: &ModelConfig) -> u64 {
        let of_place = |place| {
            let extents = self.extents(config, place);
            let weight: u64 = extents.iter().map(|&extent| extent as u64).product();
            let bias = if self.is_biased(config) { extents[0] as u64 } else { 0 };
            bias + if self.is_only_bias() { 0 } else { weight }
        };
        self.places(config).map(of_place).sum()
    }

    /// Whether a new model of these sizes has the row: no output layer that is the embedding.
    pub fn is_new_in(&self, config: &ModelConfig) -> bool {
        let is_tied = self.ours == "output" && config.tied;
        // GGUF's table of rotary factors is computed.
        self.ours != "rope_freqs" && !is_tied && self.is_in(config)
    }

    /// Whether models with this head have the row.
    pub fn belongs_to(&self, task: Task) -> bool {
        self.tasks.is_empty() || self.tasks.contains(&task)
    }

    /// Whether a model with these sizes and this head has the row.
    pub fn is_in(&self, config: &ModelConfig) -> bool {
        self.is_on(config) && self.belongs_to(config.head.task)
    }

    /// Whether a model with these sizes has the row, whatever its head.
    pub fn is_on(&self, config: &ModelConfig) -> bool {
        self.n_repeats(config) > 0
    }

    /// What is added to a value that Hugging Face stores, to get ours.
    pub fn offset(&self, suffix: &str) -> f32 {
        if matches!(self.stored, Stored::MinusOne) && suffix == ".weight" { 1.0 } else { 0.0 }
    }

    /// Whether it is a part of a head that is not over the vocabulary: drawn if it is new, and trained with any adapter.
    pub fn is_head(&self) -> bool {
        self.ours.starts_with("cls")
    }

    /// The shape in layer `i`, in numbers, outermost first.
    pub fn extents(&self, config: &ModelConfig, i: impl Into<Place>) -> Vec<usize> {
        let i = i.into().layer;
        self.shape
            .split(' ')
            .map(|extent| extent.split('*').map(|factor| letter(factor, config, i)).product())
            .collect()
    }

    /// GGUF's name in layer `i`, with `.weight` or `.bias`.
    pub fn gguf_name(&self, i: impl Into<Place>, suffix: &str) -> String {
        at(self.ours, i.into()) + suffix
    }

    /// Hugging Face's name in layer `i`, with `.weight` or `.bias`.
    ///
    /// `prefix` is the family's; before it, and a `|`, may stand what all names of a part of a model begin with.
    pub fn hugging_face_name(&self, prefix: &str, i: impl Into<Place>, suffix: &str) -> String {
        let (root, prefix) = prefix.split_once('|').unwrap_or(("", prefix));
        let prefix = if self.is_outside { "" } else { prefix };
        format!("{root}{prefix}{}", in_full(self.hugging_face, i.into(), suffix))
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

    /// GGUF's stack of the row, if its experts stand in one.
    pub fn gguf_stack(&self) -> Option<&'static Stack> {
        self.stacks.iter().find(|stack| stack.is_gguf)
    }

    /// The stacks that a file of this kind may have, with the shape that each has there and how the row is a part of it.
    pub(crate) fn stacks_in(
        &self,
        is_gguf: bool,
        place: Place,
        config: &ModelConfig,
    ) -> impl Iterator<Item = (&'static Stack, Vec<usize>, (usize, usize))> {
        let n_experts = self.is_of_experts().then(|| letter("experts", config, 0));
        let extents = self.extents(config, place);
        self.stacks.iter().filter(move |stack| stack.is_gguf == is_gguf).map(move |stack| {
            let matrix = [stack.n_parts * extents[0], extents[1]];
            let shape = n_experts.into_iter().chain(matrix).collect();
            let part = place.expert * stack.n_parts + stack.part;
            (stack, shape, (part, n_experts.unwrap_or(1) * stack.n_parts))
        })
    }

    /// What a file has of the row: a tensor, or a part of a stack of the right shape. `prefix`: what Hugging Face's names
    /// begin with; `None` = the names are GGUF's.
    pub(crate) fn find<'a>(
        &self,
        family: &Family,
        file: &'a Checkpoint,
        prefix: Option<&str>,
        place: Place,
        suffix: &str,
        config: &ModelConfig,
    ) -> Option<Piece<'a>> {
        let name = match prefix {
            None => self.gguf_name(place, suffix),
            Some(prefix) => self.hugging_face_name(prefix, place, suffix),
        };
        if let Some(entry) = family.find(file, &name) {
            return Some(Piece::whole(entry));
        }
        if suffix != ".weight" || self.stacks.is_empty() {
            return None;
        }
        self.stacks_in(prefix.is_none(), place, config).find_map(|(stack, shape, (part, n_parts))| {
            let entry = file.find(&stack.name_in(prefix.unwrap_or(""), place.layer))?;
            (entry.shape == shape).then_some(Piece { entry, part, n_parts })
        })
    }

    /// Where a model of these sizes has the row: nowhere, once, or once in each layer, or for each expert of each layer.
    pub fn places(&self, config: &ModelConfig) -> impl Iterator<Item = Place> + use<> {
        let n_experts = if self.is_of_experts() { letter("experts", config, 0) } else { 1 };
        let all = 0..if self.is_on(config) { self.n_repeats(config) } else { 0 };
        let all: Vec<usize> = all.filter(|&layer| (self.in_layers)(config, layer)).collect();
        all.into_iter().flat_map(move |layer| (0..n_experts).map(move |expert| Place { layer, expert }))
    }

    /// In how many layers a model has the row; 0 or 1 where a letter says whether it is there.
    pub fn n_repeats(&self, config: &ModelConfig) -> usize {
        let is_on = self.when.is_empty() || config.own_opt(self.when).is_some_and(|switch| switch != 0.0);
        match (self.ours.contains("{i}"), self.times) {
            _ if !is_on => 0,
            (true, times) => letter(times, config, 0),
            (false, "L") => 1,
            (false, times) => letter(times, config, 0).min(1),
        }
    }
}

impl Spread {
    /// The deviation of a new matrix, [out, in], where the file's are `range` and `factor`.
    pub fn deviation(self, shape: &[usize], config: &ModelConfig, range: f32, factor: f32) -> f32 {
        match self {
            Spread::Given => range,
            Spread::Over(letters) => {
                let n: usize = letters.split('*').map(|l| letter(l, config, 0)).product();
                factor / (n as f32).sqrt()
            }
            Spread::Xavier => (2.0 / (shape[0] + shape[1]) as f32).sqrt(),
        }
    }
}

/// A name of a table in layer and expert, with its suffix unless it has one.
fn in_full(name: &str, place: Place, suffix: &str) -> String {
    let name = at(name, place);
    match name.split_once('|') {
        Some((weight, _)) if suffix == ".weight" => weight.to_string(),
        Some((_, bias)) if suffix == ".bias" => bias.to_string(),
        Some((weight, _)) => format!("{weight}{suffix}"),
        None => name + suffix,
    }
}

/// `name` in layer and expert.
fn at(name: &str, place: Place) -> String {
    name.replace("{i}", &place.layer.to_string()).replace("{e}", &place.expert.to_string())
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
