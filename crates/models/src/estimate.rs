//! What a model costs before it is loaded: parameters, memory of running and training it, operations, and the wall that binds.
//!
//! Everything follows from the configuration and the family's table of tensors. Bytes are exact where something is stored, and
//! bounds where time is concerned: memory is read and operations are done as fast as the machine can at best.
//! Sources: AI and Memory Wall, arXiv:2403.14123; Scaling Laws for Neural Language Models, arXiv:2001.08361, section 2.1 (2P
//! operations a token); ZeRO, arXiv:1910.02054, section 3.1 (bytes of training); Reducing Activation Recomputation,
//! arXiv:2205.05198, section 4.1.

use rhetor_kernels::kv::{KvType, PAGE_LEN};

use crate::config::ModelConfig;
use crate::families::Family;
use crate::quant_mix::{Mix, ModelFacts};

/// A model that is not there yet.
#[derive(Clone, Copy)]
pub struct Estimate<'a> {
    /// Its family.
    pub family: &'static Family,
    /// Its sizes.
    pub config: &'a ModelConfig,
}

/// Bytes of training, without activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingBytes {
    /// Weights: of the trained ones f32 master values, of frozen ones what is stored.
    pub weights: u64,
    /// f32 gradients of what trains.
    pub gradients: u64,
    /// AdamW's two f32 moments of what trains.
    pub optimizer: u64,
}

/// How fast a machine is at best.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Bytes a second between memory and processor.
    pub bandwidth: f64,
    /// Floating-point operations a second.
    pub flops: f64,
}

/// What bounds the time of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wall {
    /// Bytes are waited for.
    Memory,
    /// Operations are waited for.
    Compute,
}

/// The least time that a step can take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Bytes that are read.
    pub bytes: f64,
    /// Floating-point operations.
    pub flops: f64,
}

impl Step {
    /// Operations for each byte. A machine is kept busy from flops / bandwidth on.
    pub fn intensity(&self) -> f64 {
        self.flops / self.bytes
    }

    /// The longer of reading and computing, seconds.
    pub fn seconds(&self, machine: &Machine) -> f64 {
        (self.bytes / machine.bandwidth).max(self.flops / machine.flops)
    }

    /// Which of the two is longer.
    pub fn wall(&self, machine: &Machine) -> Wall {
        if self.bytes / machine.bandwidth >= self.flops / machine.flops {
            Wall::Memory
        } else {
            Wall::Compute
        }
    }
}

impl Estimate<'_> {
    /// Elements of all weights, tied ones counted once.
    pub fn n_parameters(&self) -> u64 {
        self.family.n_parameters(self.config)
    }

    /// Elements that a token meets: of experts only those that read it.
    pub fn n_active(&self) -> u64 {
        let (all, of_experts) = self.rows().fold((0, 0), |(all, of_experts), (row, n)| {
            (all + n, of_experts + if is_of_experts(row.ours) { n } else { 0 })
        });
        all - of_experts + (of_experts as f64 * self.share_of_experts()) as u64
    }

    /// Elements of the experts' own weights that one token is read by, of all.
    fn share_of_experts(&self) -> f64 {
        let (used, all) = (self.config.own_opt("experts_used"), self.config.own_opt("experts"));
        match (used, all) {
            (Some(used), Some(all)) if all > 0.0 => used / all,
            _ => 1.0,
        }
    }

    /// The rows of the table that a model of these sizes has, with their elements.
    fn rows(&self) -> impl Iterator<Item = (&'static crate::TensorName, u64)> + '_ {
        let rows = self.family.tensors.iter().filter(|row| row.is_new_in(self.config));
        rows.map(|row| (row, row.n_elements(self.config)))
    }

    /// Bytes of the weights in a file: elements times bytes for `f32`, `f16` and `bf16`; of a quantized mix what each tensor
    /// becomes, as in GGUF files.
    pub fn weight_bytes(&self, mix: Mix) -> u64 {
        if let Some(per_element) = mix.base().bytes_of(1) {
            return self.n_parameters() * per_element as u64;
        }
        let config = self.config;
        let facts = ModelFacts {
            architecture: if self.family.gguf.is_empty() { self.family.about.name } else { self.family.gguf },
            n_layers: config.n_layers,
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            n_experts: config.own_opt("experts").unwrap_or(0.0) as usize,
            has_output: self.rows().any(|(row, _)| row.ours == "output"),
            has_importance: false,
        };
        let bytes = self.rows().map(|(row, n)| {
            let n_repeats = row.n_repeats(config).max(1);
            let of_layer = |i: usize| {
                let shape = row.extents(config, i);
                let n_weights: usize = shape.iter().product();
                let dtype = mix.dtype_for(&row.gguf_name(i, ".weight"), &shape, &facts);
                // Whatever cannot be cut into blocks stays f32.
                dtype.bytes_of(n_weights).unwrap_or(4 * n_weights) as u64
            };
            let weights: u64 = (0..n_repeats).map(of_layer).sum();
            let elements = |i| row.extents(config, i).iter().product::<usize>() as u64;
            let of_one: u64 = (0..n_repeats).map(elements).sum();
            // What is more than the weights of each layer is biases, or the same again for each expert.
            if is_of_experts(row.ours) { weights * (n / of_one) } else { weights + 4 * (n - of_one) }
        });
        bytes.sum()
    }

    /// Bytes of keys and values of one sequence of `n_tokens`, as [`KvCache`](crate::KvCache) holds them: 2·K·d numbers for each
    /// layer and token, in whole pages, each head's values filled up to 16.
    pub fn kv_bytes(&self, kind: KvType, n_tokens: usize) -> u64 {
        if self.config.is_encoder || self.config.is_recurrent {
            return 0;
        }
        let d = self.config.head_dim;
        let (width, scales) = match kind {
            KvType::F32 => (4, 0),
            KvType::F16 => (2, 0),
            KvType::Q8 => (1, 2 * 4 * d.div_ceil(32)),
        };
        let of_head = width * (d + d.next_multiple_of(16)) + scales;
        let n_heads: usize = (0..self.config.n_layers).map(|i| self.config.kv_heads_of(i)).sum();
        (n_tokens.next_multiple_of(PAGE_LEN) * n_heads * of_head) as u64
    }

    /// The same if no layer kept more tokens than its window.
    pub fn windowed_kv_bytes(&self, kind: KvType, n_tokens: usize) -> u64 {
        let kept = |i: usize| self.config.window_of(i).map_or(n_tokens, |window| window.min(n_tokens));
        let layer = |i: usize| {
            let config = ModelConfig {
                n_layers: 1,
                n_kv_heads: self.config.kv_heads_of(i),
                layer_kv_heads: Vec::new(),
                ..self.config.clone()
            };
            Estimate { family: self.family, config: &config }.kv_bytes(kind, kept(i))
        };
        (0..self.config.n_layers).map(layer).sum()
    }

    /// Bytes of training all weights with AdamW, in f32: 16 for each parameter.
    pub fn full_training(&self) -> TrainingBytes {
        let n = 4 * self.n_parameters();
        TrainingBytes { weights: n, gradients: n, optimizer: 2 * n }
    }

    /// Bytes of training LoRA of rank `rank` at every matrix of attention, over weights of `weight_bytes`.
    pub fn lora_training(&self, rank: usize, weight_bytes: u64) -> TrainingBytes {
        let n = 4 * self.n_lora(rank);
        TrainingBytes { weights: weight_bytes + n, gradients: n, optimizer: 2 * n }
    }

    /// Elements of LoRA's matrices of rank `rank` at every matrix of attention.
    pub fn n_lora(&self, rank: usize) -> u64 {
        let is_matrix = |row: &&crate::TensorName| row.ours.contains(".attn") && row.shape.contains(' ');
        let rows = self.family.tensors.iter().filter(|row| row.is_new_in(self.config)).filter(is_matrix);
        let of_row = |row: &crate::TensorName| {
            let layers = 0..row.n_repeats(self.config);
            layers.map(|i| (rank * row.extents(self.config, i).iter().sum::<usize>()) as u64).sum::<u64>()
        };
        rows.map(of_row).sum()
    }

    /// Bytes of activations of a step in 16-bit training: s·b·D·(34 + 5·H·s/D) for each layer, or 2·s·b·D if each block is
    /// computed again on the way back. Source: arXiv:2205.05198, equations 2 and 4.
    pub fn activations_16_bit(&self, seq_len: usize, batch: usize, recomputes: bool) -> f64 {
        let (s, b, d) = (seq_len as f64, batch as f64, self.config.hidden_size as f64);
        let of_token = if recomputes { 2.0 } else { 34.0 + 5.0 * self.config.n_heads as f64 * s / d };
        s * b * d * of_token * self.config.n_layers as f64
    }

    /// Bytes of what the tape keeps of `n_rows` rows in training here, about; or of what it keeps if each block is computed again
    /// on the way back.
    pub fn activations_here(&self, n_rows: usize, recomputes: bool) -> u64 {
        let config = self.config;
        // The residual stream, queries, keys and values, the mixed values and both sides of the feed-forward layer.
        let of_block = 3 * config.hidden_size
            + (config.n_heads + 2 * config.n_kv_heads) * config.head_dim
            + 2 * config.ffn_size;
        let kept = match recomputes {
            false => config.n_layers * of_block,
            true => config.n_layers * config.hidden_size + of_block,
        };
        (4 * n_rows * kept) as u64
    }

    /// Operations for one token after `n_before` others: 2 for each active parameter, and 4·H·d for each key that is seen.
    pub fn forward_flops(&self, n_before: usize) -> f64 {
        let config = self.config;
        let seen = |i: usize| (n_before + 1).min(config.window_of(i).unwrap_or(usize::MAX)) as f64;
        let keys: f64 = if config.is_recurrent { 0.0 } else { (0..config.n_layers).map(seen).sum() };
        2.0 * self.n_active() as f64 + 4.0 * (config.n_heads * config.head_dim) as f64 * keys
    }

    /// Operations of training on one token in a sequence of `seq_len`: forward, and twice that on the way back.
    pub fn training_flops(&self, seq_len: usize) -> f64 {
        3.0 * self.forward_flops(seq_len / 2)
    }

    /// The next token of each of `batch` sequences of `n_tokens`: all weights that any of them needs are read once, and the keys
    /// and values of each sequence.
    pub fn decode(&self, weight_bytes: u64, kv: KvType, n_tokens: usize, batch: usize) -> Step {
        let active = self.n_active() as f64 / self.n_parameters() as f64;
        let share = self.share_of_experts();
        // Experts are chosen evenly: so many of them are needed by none.
        let read = if share < 1.0 {
            let needed = 1.0 - (1.0 - share).powi(batch as i32);
            let of_experts = (1.0 - active) / (1.0 - share);
            1.0 - of_experts * (1.0 - needed)
        } else {
            1.0
        };
        let kv_bytes = self.windowed_kv_bytes(kv, n_tokens) as f64;
        Step {
            bytes: weight_bytes as f64 * read + batch as f64 * kv_bytes,
            flops: batch as f64 * self.forward_flops(n_tokens.saturating_sub(1)),
        }
    }

    /// A prompt of `n_tokens`: 2·P·T operations and those of attention, the weights read once.
    pub fn prefill(&self, weight_bytes: u64, kv: KvType, n_tokens: usize) -> Step {
        Step {
            bytes: weight_bytes as f64 + self.kv_bytes(kv, n_tokens) as f64,
            flops: n_tokens as f64 * self.forward_flops(n_tokens / 2),
        }
    }
}

/// Whether a tensor belongs to one of several experts, and not to what chooses them.
fn is_of_experts(ours: &str) -> bool {
    ours.contains("{e}") || ours.contains("_exps")
}
