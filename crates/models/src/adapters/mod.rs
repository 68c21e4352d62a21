//! Adapters: what moves in fine-tuning, and how it meets the frozen model.
//!
//! A method says which tensors of the base train ([`Adapter::trains`]), and what it adds to linear layers, embeddings,
//! and keys and values; everything defaults to nothing, so that a method's file shows
//! how it differs from the others. Quantized weights with LoRA are QLoRA: no file of its own.

use rhetor_catalog::{About, Values};
use rhetor_kernels::attention::training::Groups;
use rhetor_tensor::{Parameter, Tensor, Vector, Weight};

use crate::config::ModelConfig;
use crate::layers::Pass;

mod base_tensors;
mod bitfit;
mod bottleneck;
pub mod combine;
mod dora;
mod error;
mod full;
mod hub;
mod ia3;
mod init;
mod longlora;
mod lora;
mod lora_embedding;
mod lora_linear;
pub mod merge;
mod options;
pub(crate) mod order;
pub mod peft;
mod peft_config;
mod prefix;
mod prompt_tuning;
mod stored;
mod targets;

pub use error::AdapterError;
pub(crate) use init::normal;
pub use options::{AdapterOptions, Bias, Init, Purpose};
pub use stored::{Saved, SavedTensor};
pub use targets::Names;

/// A method of fine-tuning.
pub struct Method {
    /// Name, summary, paper, options.
    pub about: About,
    /// A new adapter of this kind, not yet attached to a model.
    pub build: Build,
}

/// Makes an adapter of the values of its method's options and of what else was chosen.
pub type Build = fn(&Values, &AdapterOptions) -> Result<Box<dyn Adapter>, AdapterError>;

/// Every method.
pub static ADAPTERS: &[&Method] = &[
    &full::FULL,
    &bitfit::BITFIT,
    &lora::LORA,
    &lora::DORA,
    &ia3::IA3,
    &prompt_tuning::PROMPT_TUNING,
    &prefix::PREFIX_TUNING,
    &bottleneck::HOULSBY,
    &bottleneck::PFEIFFER,
    &longlora::LONGLORA,
];

/// A new adapter of the method called `name`, not yet attached to a model.
pub fn build(name: &str, options: &AdapterOptions) -> Result<Box<dyn Adapter>, AdapterError> {
    let Some(method) = ADAPTERS.iter().find(|method| method.about.name == name) else {
        let known: Vec<&str> = ADAPTERS.iter().map(|method| method.about.name).collect();
        return Err(AdapterError::UnknownMethod { got: name.to_string(), known: known.join(", ") });
    };
    let values =
        Values::of(&method.about, options.values.iter().map(|(name, value)| (name.as_str(), *value)))?;
    (method.build)(&values, options)
}

/// One adapter, on its way into a model or attached to it. What it hands out shares its parameters.
///
/// To be asked twice about the same place gives the same parameters twice: so it can be merged or saved after training.
pub trait Adapter: Send {
    /// The method.
    fn about(&self) -> &'static About;

    /// Changes the model's constants before anything is loaded: LongLoRA stretches its rotary positions.
    fn prepare(&mut self, _config: &mut ModelConfig) -> Result<(), AdapterError> {
        Ok(())
    }

    /// Whether this tensor of the base trains too.
    fn trains(&self, _site: &Site) -> bool {
        false
    }

    /// Takes notice of a tensor of the base that trains.
    fn trained(&mut self, _site: &Site, _parameter: &Parameter) {}

    /// What takes the place of this tensor of the base, in the base's order.
    fn replaces(&mut self, _site: &Site) -> Result<Option<Vec<f32>>, AdapterError> {
        Ok(None)
    }

    /// Whether what it trains or replaces of a tied pair (embedding and output layer) leaves the other as it was.
    fn unties(&self) -> bool {
        false
    }

    /// Whether it puts tensors in the place of the base's: then it cannot be switched off.
    fn replaces_base(&self) -> bool {
        false
    }

    /// What it does to a linear layer. Layers that share their input are asked one by one.
    fn linear(
        &mut self,
        _site: &Site,
        _base: &Weight,
        _bias: Option<&Vector>,
    ) -> Result<Option<Box<dyn LinearHook>>, AdapterError> {
        Ok(None)
    }

    /// What it does to a table of embeddings, of tokens or of positions.
    fn embedding(
        &mut self,
        _site: &Site,
        _base: &Weight,
    ) -> Result<Option<Box<dyn EmbeddingHook>>, AdapterError> {
        Ok(None)
    }

    /// What it does to queries, keys and values in layer `layer`. `interleaved` is the width of a head whose rotary pairs
    /// are neighbours in the base and halves in Hugging Face's files.
    fn attention(
        &mut self,
        _layer: usize,
        _config: &ModelConfig,
        _interleaved: Option<usize>,
    ) -> Result<Option<Box<dyn AttentionHook>>, AdapterError> {
        Ok(None)
    }

    /// Virtual positions that it puts before each sequence.
    fn n_virtual(&self) -> usize {
        0
    }

    /// Ends the attaching: a target that met no layer, or a tensor of its file that met no place, is an error.
    fn finish(&mut self) -> Result<(), AdapterError> {
        Ok(())
    }

    /// The parameters that it made, by the names under which they are saved.
    fn parameters(&self) -> Vec<Parameter>;

    /// What is saved of it, in Hugging Face's order of rows.
    fn save(&self) -> Saved;

    /// What [`linear`](Adapter::linear) has made for the layer of this name.
    fn attached(&self, _name: &str) -> Option<Box<dyn LinearHook>> {
        None
    }

    /// What [`embedding`](Adapter::embedding) has made for the table of this name.
    fn attached_embedding(&self, _name: &str) -> Option<Box<dyn EmbeddingHook>> {
        None
    }

    /// Whether its hooks can be merged into weights.
    fn check_mergeable(&self) -> Result<(), AdapterError> {
        Ok(())
    }
}

/// A tensor of the base model, as an adapter meets it.
#[derive(Debug, Clone, PartialEq)]
pub struct Site<'a> {
    /// Our name with `{i}`, without a suffix: `blk.{i}.attn_q`.
    pub ours: &'static str,
    /// Hugging Face's name without a suffix: `model.layers.3.self_attn.q_proj`.
    pub name: &'a str,
    /// `.weight` or `.bias`.
    pub suffix: &'static str,
    /// The layer, from 0.
    pub layer: usize,
    /// Shape: `[out, in]` of a matrix, `[n]` of a vector.
    pub shape: &'a [usize],
    /// Whether Hugging Face stores the matrix as `[in, out]`.
    pub is_transposed: bool,
    /// Hugging Face's row of each row of weight and bias, where the base has them in another order.
    pub order: order::RowOrder,
    /// What is added to a value in the adapter's file to get the base's: 1 for Gemma's norms.
    pub offset: f32,
    /// The sizes of the model.
    pub config: &'a ModelConfig,
}

impl Site<'_> {
    /// Whether it belongs to a head that is not over the vocabulary.
    pub fn is_head(&self) -> bool {
        self.ours.starts_with("cls")
    }

    /// Whether it is repeated in each layer.
    pub fn is_in_layer(&self) -> bool {
        self.ours.contains("{i}")
    }
}

/// What an adapter does to a linear layer.
pub trait LinearHook: Send + Sync {
    /// Whether [`input`](LinearHook::input) does anything.
    fn changes_input(&self) -> bool {
        false
    }

    /// Changes the input. x: [T, in] → [T, in]
    fn input(&self, x: Tensor) -> Tensor {
        x
    }

    /// Changes the outputs, which begin at column `start` of `y`. x: [T, in], y: [T, Σ out] → [T, Σ out]
    fn output(&self, _x: &Tensor, y: Tensor, _start: usize, _pass: &Pass) -> Tensor {
        y
    }

    /// Does to the weight what the hook does to its layer, so that the hook is needed no more. weight: [out, in]
    fn merge(&self, weight: &mut [f32]);

    /// Undoes [`merge`](LinearHook::merge) but for rounding; `false` if that cannot be. weight: [out, in]
    fn unmerge(&self, _weight: &mut [f32]) -> bool {
        false
    }

    /// Does the same to the layer's bias. bias: [out]
    fn merge_bias(&self, _bias: &mut [f32]) {}

    /// Whether a layer without a bias would need one after a merge.
    fn adds_bias(&self) -> bool {
        false
    }
}

/// What an adapter does to an embedding.
pub trait EmbeddingHook: Send + Sync {
    /// Changes the rows. ids: [T], y: [T, D] → [T, D]
    fn output(&self, ids: &[u32], y: Tensor, pass: &Pass) -> Tensor;

    /// Does the same to the table. weight: [V, D]
    fn merge(&self, weight: &mut [f32]);
}

/// What an adapter does inside attention.
pub trait AttentionHook: Send + Sync {
    /// Changes queries, keys and values after their rotation. qkv: [T, (H + 2K)·d] → the same
    fn qkv(&self, qkv: Tensor, _pass: &Pass) -> Tensor {
        qkv
    }

    /// Groups of neighbours that attention is held in, in a pass of training.
    fn groups(&self, _pass: &Pass) -> Option<Groups> {
        None
    }
}
