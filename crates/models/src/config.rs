//! The sizes and constants of a model, read from the file's own keys.

use rhetor_formats::{Array, Checkpoint, Kind, Metadata, TypedValue, Value};
use rhetor_kernels::activation::Activation;
use rhetor_kernels::rope::{RopeOptions, RopeOrder, RopeScaling, RopeTable, Yarn};
use rhetor_tensor::ops::head_norm::NormKind;

use crate::head::Head;
use crate::load::LoadError;

/// The sizes and constants of a model, in the letters of the glossary.
///
/// A family writes down what it has; the rest is [`ModelConfig::default`]: nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Name in the table of families.
    pub family: &'static str,
    /// V: rows of the embedding.
    pub vocab_size: usize,
    /// D: width of the residual stream.
    pub hidden_size: usize,
    /// L: blocks; of an encoder-decoder, those of the decoder.
    pub n_layers: usize,
    /// N: blocks of the encoder of an encoder-decoder, also where the decoder was left away; 0 = another kind of model.
    pub n_encoder_layers: usize,
    /// H: query heads.
    pub n_heads: usize,
    /// K: key and value heads.
    pub n_kv_heads: usize,
    /// K of each layer, where they differ; empty = all the same. `[L]`
    pub layer_kv_heads: Vec<usize>,
    /// d: width of a head.
    pub head_dim: usize,
    /// F: width of the feed-forward layer.
    pub ffn_size: usize,
    /// The most tokens that the model was made for.
    pub context_len: usize,
    /// P: rows of the table of learned positions; 0 if positions are not learned.
    pub position_len: usize,
    /// What the norms do.
    pub norm_kind: NormKind,
    /// ε of the norms.
    pub norm_eps: f32,
    /// The non-linearity of the feed-forward layer.
    pub activation: Activation,
    /// Factor of the scores before softmax, for layer `i`: `attention_scale / (i + 1 if by layer else 1)`.
    pub attention_scale: f32,
    /// Whether the scale of layer `i` is divided by `i + 1` (GPT-2's `scale_attn_by_inverse_layer_idx`).
    pub attention_scale_by_layer: bool,
    /// A query sees this many keys, itself included; `None` = all before it.
    pub window: Option<usize>,
    /// The window of each layer, where they differ; empty = all the same. `[L]`
    pub layer_windows: Vec<Option<usize>>,
    /// Slopes of linear biases (ALiBi), as they act on scaled scores; empty = there are none. `[H]`
    pub alibi_slopes: Vec<f32>,
    /// Biases of ALiBi are this · bf16(slope · position); `None` = they are not rounded.
    pub alibi_bf16: Option<f32>,
    /// Rotary positions.
    pub rope: Option<RopeOptions>,
    /// Rotary positions of layers with a window, where they differ from those of the others.
    pub local_rope: Option<RopeOptions>,
    /// Factor of the token's embedding.
    pub embedding_factor: f32,
    /// Scores become c · tanh(score / c). Source: arXiv:2408.00118, section 2.
    pub score_cap: Option<f32>,
    /// Logits become c · tanh(logit / c).
    pub logit_cap: Option<f32>,
    /// The head.
    pub head: Head,
    /// Whether the tokens of a sequence all see each other.
    pub is_encoder: bool,
    /// Whether the past is a state and not a list of keys and values.
    pub is_recurrent: bool,
    /// The token that a decoder with an encoder begins with.
    pub decoder_start: Option<u32>,
    /// S: rows of the table of segments; 0 if there is none.
    pub n_segments: usize,
    /// Factor of the family's own probabilities of dropout in training; `None` = what is usual for the head.
    pub drop_factor: Option<f32>,
    /// Whether the output layer is the embedding (used when the file holds no output layer).
    pub tied: bool,
    /// The models that it is made of, where it is made of several: each with its own sizes.
    pub parts: Vec<Part>,
    /// What only this family has, by names of its own: sizes, which the shapes of its tensors may use as letters, numbers,
    /// and switches, which are 0 or 1.
    pub own: Vec<(&'static str, f64)>,
}

impl Default for ModelConfig {
    /// Nothing of anything, and scores as they are.
    fn default() -> ModelConfig {
        ModelConfig {
            family: "",
            vocab_size: 0,
            hidden_size: 0,
            n_layers: 0,
            n_encoder_layers: 0,
            n_heads: 1,
            n_kv_heads: 1,
            layer_kv_heads: Vec::new(),
            head_dim: 0,
            ffn_size: 0,
            context_len: 0,
            position_len: 0,
            norm_kind: NormKind::Layer,
            norm_eps: 0.0,
            activation: Activation::Gelu,
            attention_scale: 1.0,
            attention_scale_by_layer: false,
            window: None,
            layer_windows: Vec::new(),
            alibi_slopes: Vec::new(),
            alibi_bf16: None,
            rope: None,
            local_rope: None,
            embedding_factor: 1.0,
            score_cap: None,
            logit_cap: None,
            head: Head::VOCABULARY,
            is_encoder: false,
            is_recurrent: false,
            decoder_start: None,
            n_segments: 0,
            drop_factor: None,
            tied: false,
            parts: Vec::new(),
            own: Vec::new(),
        }
    }
}

/// A model inside a model: where it stands in the files, and its sizes. Its family is [`ModelConfig::family`].
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The key of `config.json` under which its own keys stand.
    pub section: &'static str,
    /// What its tensors' names begin with, besides its family's own prefix.
    pub root: &'static str,
    /// Its sizes and constants.
    pub config: ModelConfig,
}

impl ModelConfig {
    /// What the family calls `name`, if it has such a thing.
    pub fn own_opt(&self, name: &str) -> Option<f64> {
        self.own.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }

    /// What the family calls `name`. Panics if its `config` says nothing of it.
    #[track_caller]
    pub fn own(&self, name: &str) -> f64 {
        self.own_opt(name).unwrap_or_else(|| panic!("{} has no `{name}`", self.family))
    }

    /// As [`own`](ModelConfig::own), of a size.
    #[track_caller]
    pub fn own_size(&self, name: &str) -> usize {
        self.own(name) as usize
    }

    /// As [`own`](ModelConfig::own), of a switch.
    #[track_caller]
    pub fn own_switch(&self, name: &str) -> bool {
        self.own(name) != 0.0
    }

    /// R: rows that a picture becomes among the words of a model with eyes.
    pub fn picture_rows(&self) -> Option<usize> {
        if self.parts.is_empty() { None } else { self.own_opt("R").map(|n_rows| n_rows as usize) }
    }

    /// Whether it reads a source with an encoder and writes with a decoder.
    pub fn has_encoder(&self) -> bool {
        self.n_encoder_layers > 0 && !self.is_encoder
    }

    /// K of layer `i`.
    pub fn kv_heads_of(&self, i: usize) -> usize {
        self.layer_kv_heads.get(i).copied().unwrap_or(self.n_kv_heads)
    }

    /// The window of layer `i`.
    pub fn window_of(&self, i: usize) -> Option<usize> {
        self.layer_windows.get(i).copied().unwrap_or(self.window)
    }

    /// The rotary positions of layer `i`.
    pub fn rope_of(&self, i: usize) -> Option<&RopeOptions> {
        self.local_rope.as_ref().filter(|_| self.window_of(i).is_some()).or(self.rope.as_ref())
    }

    /// Bytes of keys and values for one token, at `bytes_per_element`.
    pub fn kv_bytes_per_token(&self, bytes_per_element: f64) -> f64 {
        let n_heads: usize = (0..self.n_layers).map(|i| self.kv_heads_of(i)).sum();
        2.0 * (n_heads * self.head_dim) as f64 * bytes_per_element
    }

    /// The factors that GGUF's tensor `rope_freqs` holds where LLaMA 3 scales its rotary positions. `[r/2]`
    pub fn rope_factors(&self) -> Option<Vec<f32>> {
        let rope = self.rope.as_ref().filter(|rope| matches!(rope.scaling, RopeScaling::Llama3 { .. }))?;
        let plain = RopeTable::new(RopeOptions { scaling: RopeScaling::None, ..rope.clone() });
        let scaled = RopeTable::new(rope.clone());
        let pairs = plain.inverse_frequencies().iter().zip(scaled.inverse_frequencies());
        Some(pairs.map(|(plain, scaled)| plain / scaled).collect())
    }

    /// The factor of the attention scores in layer `i`.
    pub fn attention_scale_of(&self, i: usize) -> f32 {
        if self.attention_scale_by_layer {
            self.attention_scale / (i + 1) as f32
        } else {
            self.attention_scale
        }
    }
}

/// A checkpoint's keys, read by GGUF's name or by Hugging Face's, whichever the file speaks.
pub struct Keys<'a> {
    checkpoint: &'a Checkpoint,
    metadata: &'a Metadata,
    /// `llama.` in GGUF files, empty else.
    prefix: String,
    /// `vision.` and the like where the keys are those of a part of a model, empty else.
    section: String,
}

impl<'a> Keys<'a> {
    /// The keys of `checkpoint`, whose architecture in GGUF is `architecture`.
    pub fn new(checkpoint: &'a Checkpoint, architecture: &str) -> Keys<'a> {
        let prefix = match checkpoint.kind() {
            Kind::Gguf | Kind::Llama2C => format!("{architecture}."),
            Kind::HuggingFace | Kind::Safetensors | Kind::PyTorch | Kind::Onnx => String::new(),
        };
        Keys { checkpoint, metadata: checkpoint.metadata(), prefix, section: String::new() }
    }

    /// The keys of a part of the model, which stand under `section` in `config.json`.
    pub fn section(&self, section: &str) -> Keys<'a> {
        let section = format!("{}{section}.", self.section);
        Keys { checkpoint: self.checkpoint, metadata: self.metadata, prefix: self.prefix.clone(), section }
    }

    /// Whether the file has a tensor whose name begins so.
    pub fn has_tensors(&self, beginning: &str) -> bool {
        self.checkpoint.tensors().iter().any(|tensor| tensor.name.starts_with(beginning))
    }

    /// The keys that a GGUF file of this architecture would have, before it is written; errors name `checkpoint`.
    pub(crate) fn of_gguf(
        checkpoint: &'a Checkpoint,
        metadata: &'a Metadata,
        architecture: &str,
    ) -> Keys<'a> {
        Keys { checkpoint, metadata, prefix: format!("{architecture}."), section: String::new() }
    }

    /// Whether the file uses GGUF's names and row orders.
    pub fn speaks_gguf(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// Whether the file is a graph, which has no keys: its tensors' shapes must do.
    pub fn are_shapes(&self) -> bool {
        self.checkpoint.kind() == Kind::Onnx
    }

    /// The shape of the tensor `name`, which must be there and have `n` extents, none of them 0.
    pub fn shape(&self, name: &str, n: usize) -> Result<&'a [usize], LoadError> {
        let file = || self.checkpoint.path().to_path_buf();
        let Some(entry) = self.checkpoint.find(name) else {
            return Err(LoadError::MissingTensor { file: file(), name: name.to_string() });
        };
        if entry.shape.len() != n || entry.shape.contains(&0) {
            let (key, got) = (format!("shape of {name}"), format!("{:?}", entry.shape));
            return Err(LoadError::BadValue { file: file(), key, got, expected: format!("{n} extents") });
        }
        Ok(&entry.shape)
    }

    /// Whether the file holds the tensor of this name.
    pub fn has(&self, tensor: &str) -> bool {
        self.checkpoint.find(tensor).is_some()
    }

    /// The file's name for the key that is `gguf` (after the architecture) or `hugging_face`.
    fn key(&self, gguf: &str, hugging_face: &str) -> String {
        match self.speaks_gguf() {
            // What belongs to the vocabulary stands beside the architecture.
            true if gguf.starts_with("tokenizer.") => gguf.to_string(),
            true => format!("{}{gguf}", self.prefix),
            false => format!("{}{hugging_face}", self.section),
        }
    }

    /// A size that may be absent.
    pub fn size_opt(&self, gguf: &str, hugging_face: &str) -> Result<Option<usize>, LoadError> {
        let value = self.metadata.get_u64(&self.key(gguf, hugging_face))?;
        Ok(value.map(|value| usize::try_from(value).unwrap_or(usize::MAX)))
    }

    /// A size, at least 1 and at most 2³¹: beyond that the file is broken.
    pub fn size(&self, gguf: &str, hugging_face: &str) -> Result<usize, LoadError> {
        let value = self.size_opt(gguf, hugging_face)?;
        self.checked(value, gguf, hugging_face)
    }

    /// A size with the default that the architecture's class gives.
    pub fn size_or(&self, gguf: &str, hugging_face: &str, default: usize) -> Result<usize, LoadError> {
        let value = self.size_opt(gguf, hugging_face)?.or(Some(default));
        self.checked(value, gguf, hugging_face)
    }

    fn checked(&self, value: Option<usize>, gguf: &str, hugging_face: &str) -> Result<usize, LoadError> {
        let key = || self.key(gguf, hugging_face);
        match value {
            Some(value) if (1..=1 << 31).contains(&value) => Ok(value),
            Some(value) => Err(LoadError::BadValue {
                file: self.checkpoint.path().to_path_buf(),
                key: key(),
                got: value.to_string(),
                expected: "a size from 1 to 2147483648".to_string(),
            }),
            None => Err(LoadError::MissingKey { file: self.checkpoint.path().to_path_buf(), key: key() }),
        }
    }

    /// Sizes, one for each layer or one for all.
    pub fn sizes_or(&self, gguf: &str, hugging_face: &str, default: usize) -> Result<Vec<usize>, LoadError> {
        let key = self.key(gguf, hugging_face);
        if !matches!(self.metadata.get(&key), Some(Value::Array(_))) {
            return Ok(vec![self.size_or(gguf, hugging_face, default)?]);
        }
        let values = self.metadata.get_u64s(&key)?.unwrap_or_default();
        let sizes = values.into_iter().map(|value| usize::try_from(value).unwrap_or(usize::MAX));
        sizes.map(|size| self.checked(Some(size), gguf, hugging_face)).collect()
    }

    /// A count of Hugging Face's with a default, which may be 0; GGUF files have none of these.
    pub fn count_or(&self, hugging_face: &str, default: usize) -> Result<usize, LoadError> {
        if self.speaks_gguf() {
            return Ok(default);
        }
        Ok(self.size_opt("", hugging_face)?.unwrap_or(default))
    }

    /// The cap of a tanh with a default, which both kinds of files call the same; 0 and null mean none.
    pub fn cap_or(&self, name: &str, default: Option<f32>) -> Result<Option<f32>, LoadError> {
        // A list of keys holds no nulls.
        let config = if self.speaks_gguf() { None } else { self.checkpoint.json("config.json")? };
        let is_null = config.is_some_and(|config| config.get(name).is_some_and(|cap| cap.is_null()));
        let default = default.filter(|_| !is_null);
        match self.number_opt(name, name)?.or(default).filter(|&cap| cap != 0.0) {
            Some(cap) if cap.is_nan() || cap < 0.0 => Err(self.refuse(name, name, cap, "a positive number")),
            cap => Ok(cap),
        }
    }

    /// A number with a default.
    pub fn number_or(&self, gguf: &str, hugging_face: &str, default: f32) -> Result<f32, LoadError> {
        Ok(self.metadata.get_f32(&self.key(gguf, hugging_face))?.unwrap_or(default))
    }

    /// A number that may be absent; an empty name means that this kind of file has no such key.
    pub fn number_opt(&self, gguf: &str, hugging_face: &str) -> Result<Option<f32>, LoadError> {
        if (if self.speaks_gguf() { gguf } else { hugging_face }).is_empty() {
            return Ok(None);
        }
        Ok(self.metadata.get_f32(&self.key(gguf, hugging_face))?)
    }

    /// Whether a key of Hugging Face's is there and says something; GGUF files have none of these.
    pub fn says(&self, hugging_face: &str) -> bool {
        !self.speaks_gguf() && self.metadata.get(hugging_face).is_some()
    }

    /// The number under the first of these keys of Hugging Face's that is there.
    fn first_number(&self, hugging_face: &[&str]) -> Result<Option<f32>, LoadError> {
        for name in hugging_face {
            if let Some(number) = self.number_opt("", name)? {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// A switch of Hugging Face's with a default; GGUF files have none of these.
    pub fn switch_or(&self, hugging_face: &str, default: bool) -> Result<bool, LoadError> {
        if self.speaks_gguf() {
            return Ok(default);
        }
        Ok(self.metadata.get_bool(&self.key("", hugging_face))?.unwrap_or(default))
    }

    /// A switch of both kinds of files, with a default; an empty name means that this kind of file has no such key.
    pub fn flag_or(&self, gguf: &str, hugging_face: &str, default: bool) -> Result<bool, LoadError> {
        if (if self.speaks_gguf() { gguf } else { hugging_face }).is_empty() {
            return Ok(default);
        }
        Ok(self.metadata.get_bool(&self.key(gguf, hugging_face))?.unwrap_or(default))
    }

    /// Whether layers have biases, 1 or 0: GGUF says it by the bias of our tensor `ours`, Hugging Face by a key.
    pub fn bias_or(&self, ours: &str, hugging_face: &str, default: bool) -> Result<f64, LoadError> {
        let has_bias = match self.speaks_gguf() {
            true => self.has_tensor(&format!("{ours}.bias")),
            false => self.switch_or(hugging_face, default)?,
        };
        Ok(f64::from(u8::from(has_bias)))
    }

    /// Whether the file holds a tensor of this name.
    pub fn has_tensor(&self, name: &str) -> bool {
        self.checkpoint.find(name).is_some()
    }

    /// Refuses heads that are not together as wide as the model.
    pub fn check_heads(&self, config: &ModelConfig) -> Result<(), LoadError> {
        if config.n_heads.checked_mul(config.head_dim) == Some(config.hidden_size) {
            return Ok(());
        }
        let expected = format!("a divisor of the width {}", config.hidden_size);
        Err(self.refuse("attention.head_count", "num_attention_heads", config.n_heads, &expected))
    }

    /// D / H, where the width must be that of all heads together; the number of heads is known under these names.
    pub fn head_dim(
        &self,
        hidden_size: usize,
        n_heads: usize,
        gguf: &str,
        hugging_face: &str,
    ) -> Result<usize, LoadError> {
        if !hidden_size.is_multiple_of(n_heads) {
            let expected = format!("a divisor of the width {hidden_size}");
            return Err(self.refuse(gguf, hugging_face, n_heads, &expected));
        }
        Ok(hidden_size / n_heads)
    }

    /// A word that may be absent.
    pub fn word_opt(&self, gguf: &str, hugging_face: &str) -> Result<Option<String>, LoadError> {
        if (if self.speaks_gguf() { gguf } else { hugging_face }).is_empty() {
            return Ok(None);
        }
        Ok(self.metadata.get_str(&self.key(gguf, hugging_face))?.map(str::to_string))
    }

    /// The list of words under a key of Hugging Face's, if there; GGUF files have none of these.
    pub fn words_opt(&self, hugging_face: &str) -> Result<Option<Vec<String>>, LoadError> {
        if self.speaks_gguf() {
            return Ok(None);
        }
        let words = self.metadata.get_strings(hugging_face)?;
        Ok(words.map(|words| words.iter().map(str::to_string).collect()))
    }

    /// The list of numbers under a key of Hugging Face's, if there.
    pub fn numbers_opt(&self, hugging_face: &str) -> Result<Option<Vec<f32>>, LoadError> {
        Ok(self.metadata.get_f32s(&self.key("", hugging_face))?)
    }

    /// A value that we do not support.
    pub fn refuse(&self, gguf: &str, hugging_face: &str, got: impl ToString, expected: &str) -> LoadError {
        LoadError::BadValue {
            file: self.checkpoint.path().to_path_buf(),
            key: self.key(gguf, hugging_face),
            got: got.to_string(),
            expected: expected.to_string(),
        }
    }

    /// The sliding window, if the file gives one.
    pub fn window_opt(&self) -> Result<Option<usize>, LoadError> {
        Ok(self.size_opt("attention.sliding_window", "sliding_window")?.filter(|&window| window > 0))
    }

    /// The size of the vocabulary: the key if there, else the length of GGUF's list of tokens.
    pub fn vocab_size(&self) -> Result<usize, LoadError> {
        match self.size_opt("vocab_size", "vocab_size")? {
            Some(value) => self.checked(Some(value), "vocab_size", "vocab_size"),
            None => {
                let n_tokens = self.metadata.get_array("tokenizer.ggml.tokens")?.map(|tokens| tokens.len());
                self.checked(n_tokens, "vocab_size", "vocab_size")
            }
        }
    }

    /// The non-linearity named by a key of Hugging Face's; GGUF leaves it to the architecture.
    pub fn activation(&self, hugging_face: &str, default: &str) -> Result<Activation, LoadError> {
        let word = self.word_opt("", hugging_face)?.unwrap_or_else(|| default.to_string());
        Ok(match word.as_str() {
            "silu" | "swish" => Activation::Silu,
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            _ => {
                return Err(self.refuse(
                    "",
                    hugging_face,
                    word,
                    "silu, gelu, gelu_new, quick_gelu, relu or tanh",
                ));
            }
        })
    }

    /// Rotary positions over heads of `head_dim`, pairs in GGUF's order `gguf_order` or in Hugging Face's halves.
    ///
    /// Hugging Face's keys are looked for under `rope_parameters` (transformers 5), then flat and under `rope_scaling` (4).
    pub fn rope(&self, head_dim: usize, gguf_order: RopeOrder, theta: f32) -> Result<RopeOptions, LoadError> {
        self.partial_rope(head_dim, gguf_order, theta, 1.0)
    }

    /// The same, where Hugging Face turns the first `factor` of each head if it does not say how much.
    pub fn partial_rope(
        &self,
        head_dim: usize,
        gguf_order: RopeOrder,
        theta: f32,
        factor: f32,
    ) -> Result<RopeOptions, LoadError> {
        let (order, theta, rotary_dim) = if self.speaks_gguf() {
            let rotary_dim = self.size_opt("rope.dimension_count", "")?.unwrap_or(head_dim);
            (gguf_order, self.number_or("rope.freq_base", "", theta)?, rotary_dim)
        } else {
            let nested = format!("{}.rope_theta", self.rope_section());
            let names = [nested.as_str(), "rope_theta", "rotary_emb_base"];
            let theta = self.first_number(&names)?.unwrap_or(theta);
            let names = ["rope_parameters.partial_rotary_factor", "partial_rotary_factor", "rotary_pct"];
            let factor = self.first_number(&names)?.unwrap_or(factor);
            (RopeOrder::Half, theta, (head_dim as f32 * factor) as usize)
        };
        if rotary_dim % 2 != 0 || rotary_dim > head_dim {
            let expected = format!("an even number up to {head_dim}, the width of a head");
            return Err(self.refuse("rope.dimension_count", "partial_rotary_factor", rotary_dim, &expected));
        }
        if theta.is_nan() || theta <= 0.0 {
            return Err(self.refuse("rope.freq_base", "rope_theta", theta, "a positive number"));
        }
        // Falcon's class has this for files that do not say it; a family that needs the key refuses its absence itself.
        let context = self.size_or("context_length", "max_position_embeddings", 2048)?;
        Ok(RopeOptions { theta, rotary_dim, order, context, scaling: self.rope_scaling(context)? })
    }

    /// Where Hugging Face's keys of rotary positions are: transformers 5 has one section, or one for each kind of layer, of
    /// which this is the one for layers that see everything.
    fn rope_section(&self) -> &'static str {
        let sections = ["rope_parameters.full_attention", "rope_parameters"];
        let is_there = |section: &&str| self.says(&format!("{section}.rope_type"));
        sections.into_iter().find(is_there).unwrap_or("rope_scaling")
    }

    fn rope_scaling(&self, context_len: usize) -> Result<RopeScaling, LoadError> {
        if self.speaks_gguf() {
            let kind = self.word_opt("rope.scaling.type", "")?;
            let factor = self.number_or("rope.scaling.factor", "", 1.0)?;
            let original = self.size_opt("rope.scaling.original_context_length", "")?.unwrap_or(context_len);
            return match kind.as_deref() {
                None | Some("none") => Ok(RopeScaling::None),
                Some("linear") => Ok(RopeScaling::Linear { factor }),
                Some("yarn") => Ok(RopeScaling::Yarn(Yarn {
                    factor,
                    original_context: original,
                    beta_fast: self.number_or("rope.scaling.yarn_beta_fast", "", 32.0)?,
                    beta_slow: self.number_or("rope.scaling.yarn_beta_slow", "", 1.0)?,
                    attention_factor: self.number_opt("rope.scaling.attn_factor", "")?,
                    mscale: None,
                    mscale_all_dim: None,
                    truncate: true,
                })),
                Some(other) => Err(self.refuse("rope.scaling.type", "", other, "none, linear or yarn")),
            };
        }
        let section = self.rope_section();
        let key = |name: &str| format!("{section}.{name}");
        let kind = match self.word_opt("", &key("rope_type"))? {
            Some(kind) => kind,
            None => self.word_opt("", &key("type"))?.unwrap_or_else(|| "default".to_string()),
        };
        let number = |name: &str| self.number_opt("", &key(name));
        let required = |name: &str| {
            let file = self.checkpoint.path().to_path_buf();
            number(name)?.ok_or_else(|| LoadError::MissingKey { file, key: key(name) })
        };
        let original =
            number("original_max_position_embeddings")?.map_or(context_len, |value| value as usize);
        Ok(match kind.as_str() {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: required("factor")? },
            "dynamic" => RopeScaling::DynamicNtk { factor: required("factor")?, original_context: original },
            "llama3" => RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor: required("low_freq_factor")?,
                high_freq_factor: required("high_freq_factor")?,
                original_context: required("original_max_position_embeddings")? as usize,
            },
            "yarn" => RopeScaling::Yarn(Yarn {
                factor: required("factor")?,
                original_context: original,
                beta_fast: number("beta_fast")?.unwrap_or(32.0),
                beta_slow: number("beta_slow")?.unwrap_or(1.0),
                attention_factor: number("attention_factor")?,
                mscale: number("mscale")?,
                mscale_all_dim: number("mscale_all_dim")?,
                truncate: self.switch_or(&key("truncate"), true)?,
            }),
            other => {
                if self.numbers_opt(&key("short_factor"))?.is_some() {
                    return Err(self.refuse(
                        "",
                        &key("rope_type"),
                        other,
                        "a scaling without per-length factors",
                    ));
                }
                return Err(self.refuse(
                    "",
                    &key("rope_type"),
                    other,
                    "default, linear, dynamic, llama3 or yarn",
                ));
            }
        })
    }
}

/// One key as both kinds of files write it; an empty name means that this kind has none.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// GGUF's name, after the architecture.
    pub gguf: &'static str,
    /// Hugging Face's name.
    pub hugging_face: &'static str,
    /// The value, with GGUF's type.
    pub value: TypedValue,
}

impl Key {
    /// A key with any value.
    pub fn new(gguf: &'static str, hugging_face: &'static str, value: impl Into<TypedValue>) -> Key {
        Key { gguf, hugging_face, value: value.into() }
    }

    /// GGUF's name in a file of this architecture; what belongs to the vocabulary stands beside the architecture.
    pub fn gguf_name(&self, architecture: &str) -> String {
        match self.gguf.starts_with("tokenizer.") {
            true => self.gguf.to_string(),
            false => format!("{architecture}.{}", self.gguf),
        }
    }

    /// A size, which GGUF stores in 32 bits.
    pub fn size(gguf: &'static str, hugging_face: &'static str, value: usize) -> Key {
        Key::new(gguf, hugging_face, u32::try_from(value).unwrap_or(u32::MAX))
    }

    /// Sizes of the layers, each stored in 32 bits by GGUF.
    pub fn sizes(gguf: &'static str, hugging_face: &'static str, values: &[usize]) -> Key {
        let values = values.iter().map(|&value| u32::try_from(value).unwrap_or(u32::MAX));
        Key::new(gguf, hugging_face, Array::U32(values.collect()))
    }

    /// The keys of rotary positions. What GGUF cannot say by keys is returned as the error: its name.
    ///
    /// LLaMA 3's scaling has no keys in GGUF: there it is the tensor `rope_freqs` ([`ModelConfig::rope_factors`]).
    pub fn rope(rope: &RopeOptions) -> Result<Vec<Key>, &'static str> {
        let mut keys = vec![
            Key::new("rope.freq_base", "rope_theta", rope.theta),
            Key::size("rope.dimension_count", "", rope.rotary_dim),
        ];
        match &rope.scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => keys.extend([
                Key::new("rope.scaling.type", "rope_scaling.rope_type", "linear"),
                Key::new("rope.scaling.factor", "rope_scaling.factor", *factor),
            ]),
            RopeScaling::Yarn(yarn) => {
                if yarn.mscale.is_some() || yarn.mscale_all_dim.is_some() || !yarn.truncate {
                    return Err("YaRN with mscale or without truncation");
                }
                keys.extend([
                    Key::new("rope.scaling.type", "rope_scaling.rope_type", "yarn"),
                    Key::new("rope.scaling.factor", "rope_scaling.factor", yarn.factor),
                    Key::new("rope.scaling.yarn_beta_fast", "rope_scaling.beta_fast", yarn.beta_fast),
                    Key::new("rope.scaling.yarn_beta_slow", "rope_scaling.beta_slow", yarn.beta_slow),
                    Key::size(
                        "rope.scaling.original_context_length",
                        "rope_scaling.original_max_position_embeddings",
                        yarn.original_context,
                    ),
                ]);
                let factor = yarn.attention_factor;
                keys.extend(
                    factor.map(|f| Key::new("rope.scaling.attn_factor", "rope_scaling.attention_factor", f)),
                );
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => keys
                .extend([
                    Key::new("", "rope_scaling.rope_type", "llama3"),
                    Key::new("", "rope_scaling.factor", *factor),
                    Key::new("", "rope_scaling.low_freq_factor", *low_freq_factor),
                    Key::new("", "rope_scaling.high_freq_factor", *high_freq_factor),
                    Key::size("", "rope_scaling.original_max_position_embeddings", *original_context),
                ]),
            RopeScaling::DynamicNtk { .. } => return Err("rotary positions with dynamic scaling"),
            RopeScaling::Factors(_) => return Err("rotary positions with a factor for each pair"),
        }
        Ok(keys)
    }
}
