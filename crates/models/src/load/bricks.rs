//! The bricks of `layers`, each with its tensors.

use rhetor_kernels::DType;
use rhetor_kernels::matmul::Packed;
use rhetor_kernels::rope::{RopeOptions, RopeScaling, RopeTable};
use rhetor_tensor::ops::head_norm::NormKind;
use rhetor_tensor::ops::lstm::Lstm;
use rhetor_tensor::ops::scored_attention::Scores;
use rhetor_tensor::{Tensor, Vector, Weight};
use std::sync::Arc;

use crate::head::Task;
use crate::layers::{
    Attached, Attention, CrossAttention, Embedding, HeadNorm, LayerNorm, Linear, Norm, RmsNorm,
};
use crate::names::{Stored, TensorName};
use crate::places::Place;

use super::{LoadError, Weights};

impl Weights<'_> {
    /// The root-mean-square norm called `ours` in layer `i`.
    pub fn rms_norm(&mut self, ours: &str, i: usize) -> Result<RmsNorm, LoadError> {
        Ok(RmsNorm { weight: self.required_vector(ours, i, ".weight")?, eps: self.config.norm_eps })
    }

    /// The layer norm called `ours` in layer `i`.
    pub fn layer_norm(&mut self, ours: &str, i: usize) -> Result<LayerNorm, LoadError> {
        let weight = self.required_vector(ours, i, ".weight")?;
        Ok(LayerNorm { weight, bias: self.required_vector(ours, i, ".bias")?, eps: self.config.norm_eps })
    }

    /// The norm called `ours` in layer `i`, of the model's kind.
    pub fn norm(&mut self, ours: &str, i: usize) -> Result<Norm, LoadError> {
        Ok(match self.config.norm_kind {
            NormKind::Layer => Norm::Layer(self.layer_norm(ours, i)?),
            NormKind::Rms => Norm::Rms(self.rms_norm(ours, i)?),
        })
    }

    /// The norm of each head called `ours` in layer `i`, if such models have it: of the model's kind, without a bias.
    pub(super) fn head_norm(&mut self, ours: &str, i: usize) -> Result<Option<HeadNorm>, LoadError> {
        if !self.has(ours) {
            return Ok(None);
        }
        let weight = self.required_vector(ours, i, ".weight")?;
        Ok(Some(HeadNorm { kind: self.config.norm_kind, weight, eps: self.config.norm_eps }))
    }

    /// The linear layers `ours` of layer `i`, which share their input. Biases are taken where the file has them: all or none.
    pub fn linear(&mut self, ours: &[&str], i: impl Into<Place>) -> Result<Linear, LoadError> {
        let i = i.into();
        let mut weights: Vec<Weight> = Vec::with_capacity(ours.len());
        let (mut biases, mut hooks) = (Vec::new(), Vec::new());
        for &name in ours {
            let weight = self.required_matrix(name, i)?;
            let bias = self.vector(name, i, ".bias")?;
            let start = weights.iter().map(Weight::n_out).sum();
            hooks.extend(self.hooks(name, i, start, &weight, bias.as_ref())?);
            match bias {
                Some(values) if biases.len() == weights.len() => biases.push(values),
                None if biases.is_empty() => {}
                // Some of them have a bias and others not.
                _ => {
                    let lacking = if biases.is_empty() { ours[0] } else { name };
                    let lacking = self.file_name(self.row(lacking), i, ".bias");
                    self.misfits.lacks(lacking);
                }
            }
            weights.push(weight);
        }
        Ok(Linear { weights, bias: join(biases), hooks, soft_cap: None })
    }

    /// What adapters do to the linear layer `ours` of layer `i`, whose outputs begin at column `start`.
    pub(super) fn hooks(
        &mut self,
        ours: &str,
        i: impl Into<Place>,
        start: usize,
        weight: &Weight,
        bias: Option<&Vector>,
    ) -> Result<Vec<Attached>, LoadError> {
        let mut hooks = Vec::new();
        let shape = [weight.n_out(), weight.n_in()];
        self.for_each_adapter(self.row(ours), i, ".weight", &shape, |adapter, kind, site| {
            hooks.extend(kind.linear(site, weight, bias)?.map(|hook| Attached { adapter, start, hook }));
            Ok(())
        })?;
        Ok(hooks)
    }

    /// The recurrent layer `i` with weights from inputs and from the step before. No adapter changes it but those that train it.
    pub fn lstm(&mut self, inputs: &str, step: &str, i: usize) -> Result<Lstm, LoadError> {
        let mut weight = |ours: &str| {
            let weight = self.required_matrix(ours, i)?;
            Ok::<_, LoadError>((weight, self.required_vector(ours, i, ".bias")?))
        };
        let ((w_ih, b_ih), (w_hh, b_hh)) = (weight(inputs)?, weight(step)?);
        Ok(Lstm { w_ih, w_hh, b_ih, b_hh })
    }

    /// The table of embeddings.
    pub fn embedding(&mut self, ours: &str) -> Result<Embedding, LoadError> {
        let weight = self.required_matrix(ours, 0)?;
        let mut hooks = Vec::new();
        let shape = [weight.n_out(), weight.n_in()];
        self.for_each_adapter(self.row(ours), 0, ".weight", &shape, |adapter, kind, site| {
            hooks.extend(kind.embedding(site, &weight)?.map(|hook| (adapter, hook)));
            Ok(())
        })?;
        Ok(Embedding { weight, hooks })
    }

    /// The output layer of the model's head; over the vocabulary it is `embedding` again if the file holds none and the
    /// model may tie them. Without a head it changes nothing.
    pub fn output(&mut self, embedding: &Embedding) -> Result<Linear, LoadError> {
        match self.config.head.task {
            Task::Vocabulary => {}
            Task::Hidden | Task::Pooled => return Ok(Linear::identity()),
            _ => return self.linear(&["cls.output"], 0),
        }
        let ours = "output";
        let row = self.row(ours);
        if self.checkpoint.find(&self.file_name(row, 0, ".weight")).is_some() {
            return self.linear(&[ours], 0);
        }
        // GGUF leaves the output layer out exactly when it is tied.
        if self.config.tied || self.speaks_gguf() {
            let weight = self.untied(row, embedding)?;
            let hooks = self.hooks(ours, 0, 0, &weight, None)?;
            return Ok(Linear { hooks, ..Linear::of(weight) });
        }
        let weight = self.absent(row, 0.into());
        Ok(Linear::of(weight))
    }

    /// The weight of a tied output layer: the embedding, or a tensor of its own where an adapter has or trains one, or
    /// has changed the embedding alone.
    pub(super) fn untied(
        &mut self,
        row: &'static TensorName,
        embedding: &Embedding,
    ) -> Result<Weight, LoadError> {
        let shape = [embedding.weight.n_out(), embedding.weight.n_in()];
        let (mut values, mut trains, mut is_apart) = (None, false, false);
        let embedding_row = self.row("token_embd");
        self.for_each_adapter(embedding_row, 0, ".weight", &shape, |_, adapter, site| {
            is_apart |= adapter.unties() && (adapter.trains(site) || adapter.replaces(site)?.is_some());
            Ok(())
        })?;
        self.for_each_adapter(row, 0, ".weight", &shape, |_, adapter, site| {
            if adapter.unties() {
                trains |= adapter.trains(site);
                values = adapter.replaces(site)?.or(values.take());
            }
            Ok(())
        })?;
        if values.is_none() && !trains {
            // What stays of the file's table when an adapter has another embedding.
            let entry = self.checkpoint.find(&self.file_name(embedding_row, 0, ".weight"));
            let Some(entry) = entry.filter(|_| is_apart) else { return Ok(embedding.weight.clone()) };
            let packed =
                Packed::pack(self.dtype_of(entry)?, shape[0], shape[1], self.checkpoint.bytes(entry));
            self.n_bytes += packed.n_bytes();
            return Ok(Weight::Packed(Arc::new(packed), self.precision));
        }
        let values = values.unwrap_or_else(|| {
            let mut values = vec![0.0; shape[0] * shape[1]];
            let rows = values.chunks_exact_mut(shape[1]).enumerate();
            rows.for_each(|(i, row)| embedding.weight.row(i, row));
            values
        });
        self.n_bytes += values.len() * size_of::<f32>();
        self.n_parameters += values.len();
        if trains {
            return Ok(Weight::Trained(self.parameter(row, 0, ".weight", &shape, values)?));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Ok(Weight::Packed(Arc::new(Packed::pack(DType::F32, shape[0], shape[1], &bytes)), self.precision))
    }

    /// Attention of layer `i` to the source, with the tensors `q`, `kv` (keys and values) and `output`.
    pub fn cross_attention(
        &mut self,
        q: &str,
        kv: &[&str],
        output: &str,
        i: usize,
    ) -> Result<CrossAttention, LoadError> {
        Ok(CrossAttention {
            q: self.linear(&[q], i)?,
            kv: self.linear(kv, i)?,
            output: self.linear(&[output], i)?,
            n_heads: self.config.n_heads,
            n_kv_heads: self.config.kv_heads_of(i),
            head_dim: self.config.head_dim,
            scale: self.config.attention_scale_of(i),
            precision: self.precision,
        })
    }

    /// Attention of layer `i` with the tensors `qkv` (fused, or query, key and value) and `output`.
    pub fn attention(&mut self, qkv: &[&str], output: &str, i: usize) -> Result<Attention, LoadError> {
        let qkv = self.linear(qkv, i)?;
        let stem = output.strip_suffix("output").unwrap_or(output);
        let (q_norm, k_norm) = (format!("{stem}q_norm"), format!("{stem}k_norm"));
        let (q_norm, k_norm) = (self.head_norm(&q_norm, i)?, self.head_norm(&k_norm, i)?);
        let output = self.linear(&[output], i)?;
        let rope = self.config.rope_of(i).map(|options| self.rope_table(options)).transpose()?;
        let config = self.config;
        let mut hooks = Vec::new();
        let is_interleaved = self.speaks_gguf()
            && config.rope.is_some()
            && self.family.tensors.iter().any(|row| matches!(row.stored, Stored::HeadRows));
        for (number, adapter) in self.adapters.iter_mut().enumerate() {
            let hook = adapter.attention(i, config, is_interleaved.then_some(config.head_dim))?;
            hooks.extend(hook.map(|hook| (number, hook)));
        }
        Ok(Attention {
            layer: i,
            qkv,
            output,
            n_heads: config.n_heads,
            n_kv_heads: config.kv_heads_of(i),
            head_dim: config.head_dim,
            scale: config.attention_scale_of(i),
            window: config.window_of(i),
            precision: self.precision,
            q_norm,
            k_norm,
            rope,
            scores: Scores {
                alibi: (!config.alibi_slopes.is_empty()).then(|| config.alibi_slopes.as_slice().into()),
                alibi_bf16: config.alibi_bf16,
                soft_cap: config.score_cap,
                ..Scores::default()
            },
            hooks,
        })
    }

    /// The table of rotations, made once for all layers with these; with GGUF's per-pair factors if the file has them.
    pub(super) fn rope_table(&mut self, wanted: &RopeOptions) -> Result<Arc<RopeTable>, LoadError> {
        if let Some((_, table)) = self.rope_tables.iter().find(|(options, _)| options == wanted) {
            return Ok(table.clone());
        }
        let mut options = wanted.clone();
        let is_local = self.config.local_rope.as_ref() == Some(wanted);
        let has_factors = self.has("rope_freqs") && self.speaks_gguf() && !is_local;
        let factors = if has_factors { self.values_of("rope_freqs", 0, ".weight")? } else { None };
        if let Some(factors) = factors {
            options.scaling = RopeScaling::Factors(factors);
        }
        let table = Arc::new(RopeTable::new(options));
        self.rope_tables.push((wanted.clone(), table.clone()));
        Ok(table)
    }
}

/// Biases of layers that share their input, side by side in one vector if none of them trains.
pub(crate) fn join(biases: Vec<Vector>) -> Vec<Vector> {
    if biases.len() < 2 || biases.iter().any(|bias| matches!(bias, Vector::Trained(_))) {
        return biases;
    }
    let values: Vec<f32> = biases.iter().flat_map(|bias| bias.with(<[f32]>::to_vec)).collect();
    let len = values.len();
    vec![Vector::Fixed(Tensor::from_vec(values, [len]))]
}
