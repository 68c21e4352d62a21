//! What a family's tensors are called in each kind of file, and what shape they have.

use rhetor_formats::{Checkpoint, TensorEntry};

use crate::config::ModelConfig;
use crate::head::Task;

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
    /// Whether it is held in f32 whatever the file stores: it is small, and what it says decides.
    pub is_exact: bool,
    /// Tensors with other matrices in them where files may have the weight.
    pub stacks: &'static [Stack],
}

/// A tensor in which several matrices of a row's shape stand one after another: those of all experts, `[E, out, in]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// Its name in full, with `{i}` for the layer.
    pub name: &'static str,
    /// Whether it is GGUF's; else it is Hugging Face's, without the prefix that some files leave out.
    pub is_gguf: bool,
    /// Which part of an expert's matrix is the row's.
    pub part: usize,
    /// Parts of an expert's matrix, `[E, parts · out, in]`: gate and up may be one.
    pub n_parts: usize,
}

impl Stack {
    /// GGUF's stack.
    pub const fn gguf(name: &'static str) -> Stack {
        Stack { name, is_gguf: true, part: 0, n_parts: 1 }
    }

    /// Hugging Face's stack, of which the row has one part of several.
    pub const fn hugging_face(name: &'static str, part: usize, n_parts: usize) -> Stack {
        Stack { name, is_gguf: false, part, n_parts }
    }

    /// The tensor's name in layer `i`.
    pub fn name_in(&self, prefix: &str, i: usize) -> String {
        let prefix = if self.is_gguf { "" } else { prefix };
        format!("{prefix}{}", self.name.replace("{i}", &i.to_string()))
    }
}

/// A tensor of a file, or one of several equal parts of its rows.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The tensor.
    pub entry: &'a TensorEntry,
    /// Which part of it.
    pub part: usize,
    /// How many parts it has.
    pub n_parts: usize,
}

impl<'a> Piece<'a> {
    /// All of a tensor.
    pub fn whole(entry: &'a TensorEntry) -> Piece<'a> {
        Piece { entry, part: 0, n_parts: 1 }
    }

    /// Its shape: that of the tensor, or of a matrix.
    pub fn shape(&self) -> Vec<usize> {
        match (self.n_parts, self.entry.shape.last()) {
            (2.., Some(&n_in)) => {
                vec![self.entry.shape.iter().product::<usize>() / (n_in * self.n_parts).max(1), n_in]
            }
            _ => self.entry.shape.clone(),
        }
    }

    /// Its bytes: rows are whole blocks of any type, so a part of the rows is a part of the bytes.
    pub fn bytes(&self, file: &'a Checkpoint) -> &'a [u8] {
        let bytes = file.bytes(self.entry);
        let len = bytes.len() / self.n_parts;
        &bytes[self.part * len..(self.part + 1) * len]
    }
}

/// Where a row is repeated: in which layer, and for which expert. A number is a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// The layer, from 0.
    pub layer: usize,
    /// The expert, from 0; 0 where there are none.
    pub expert: usize,
}

impl From<usize> for Place {
    fn from(layer: usize) -> Place {
        Place { layer, expert: 0 }
    }
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
        is_exact: false,
        stacks: &[],
    }
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
    pub fn hugging_face_name(&self, prefix: &str, i: impl Into<Place>, suffix: &str) -> String {
        let prefix = if self.is_outside { "" } else { prefix };
        let name = at(self.hugging_face, i.into());
        match name.split_once('|') {
            Some((weight, _)) if suffix == ".weight" => format!("{prefix}{weight}"),
            Some((_, bias)) if suffix == ".bias" => format!("{prefix}{bias}"),
            Some((weight, _)) => format!("{prefix}{weight}{suffix}"),
            None => format!("{prefix}{name}{suffix}"),
        }
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

    /// What a file, whose Hugging Face names begin with `prefix`, has of the row: a tensor, or a part of a stack of the right shape.
    pub(crate) fn find<'a>(
        &self,
        file: &'a Checkpoint,
        is_gguf: bool,
        prefix: &str,
        place: Place,
        suffix: &str,
        config: &ModelConfig,
    ) -> Option<Piece<'a>> {
        let name = match is_gguf {
            true => self.gguf_name(place, suffix),
            false => self.hugging_face_name(prefix, place, suffix),
        };
        if let Some(entry) = file.find(&name) {
            return Some(Piece::whole(entry));
        }
        if suffix != ".weight" || self.stacks.is_empty() {
            return None;
        }
        self.stacks_in(is_gguf, place, config).find_map(|(stack, shape, (part, n_parts))| {
            let entry = file.find(&stack.name_in(prefix, place.layer))?;
            (entry.shape == shape).then_some(Piece { entry, part, n_parts })
        })
    }

    /// Where a model has the row: once, or once in each layer, or for each expert of each layer.
    pub fn places(&self, config: &ModelConfig) -> impl Iterator<Item = Place> + use<> {
        let n_experts = if self.is_of_experts() { letter("experts", config, 0) } else { 1 };
        let all = 0..self.n_repeats(config);
        all.flat_map(move |layer| (0..n_experts).map(move |expert| Place { layer, expert }))
    }

    /// In how many layers a model has the row.
    pub fn n_repeats(&self, config: &ModelConfig) -> usize {
        if self.ours.contains("{i}") { letter(self.times, config, 0) } else { 1 }
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
            None => own.parse().unwrap_or_else(|_| panic!("`{own}` is no letter of a shape")),
        },
    }
}
