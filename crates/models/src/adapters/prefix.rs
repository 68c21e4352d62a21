//! Prefix tuning: trained keys and values stand before those of the tokens, in every layer.
//!
//! The P keys and values take the positions 0 to P − 1; keys are used as they are, without rotation, and the tokens' own
//! positions begin at P. While it trains, the prefix may be the output of a two-layer perceptron (§4.3), of which only
//! the output is saved. Source: Prefix-Tuning, arXiv:2101.00190, §4; layout as in PEFT 0.21.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::activation::Activation;
use rhetor_kernels::gemm::Precision;
use rhetor_tensor::{Parameter, Tensor, Vector, Weight, ops, tape};
use serde_json::{Map, Value};
use std::sync::Arc;

use super::base_tensors::BaseTensors;
use super::peft_config::{list_or_null, with_common};
use super::prompt_tuning::NAME;
use super::stored::{Saved, SavedTensor, Stored};
use super::{Adapter, AdapterError, AdapterOptions, AttentionHook, Method, Purpose, Site};
use super::{init, order};
use crate::config::ModelConfig;
use crate::layers::Pass;

/// Trained keys and values before those of the tokens.
pub(super) static PREFIX_TUNING: Method = Method {
    about: About {
        name: "prefix-tuning",
        summary: "trained keys and values before those of the tokens, in every layer",
        source: Source::Paper {
            title: "Prefix-Tuning: Optimizing Continuous Prompts for Generation",
            id: "arXiv:2101.00190",
            section: "§4.2, §4.3",
        },
        options: &[
            Opt { name: "tokens", summary: "positions of the prefix", default: 10.0, range: (1.0, 65536.0) },
            Opt {
                name: "mlp",
                summary: "inner width of the perceptron that makes the prefix while it trains; 0 = none",
                default: 0.0,
                range: (0.0, 65536.0),
            },
        ],
    },
    build,
};

fn build(values: &Values, options: &AdapterOptions) -> Result<Box<dyn Adapter>, AdapterError> {
    options.check_used(PREFIX_TUNING.about.name, &["modules-to-save"])?;
    Ok(Box::new(PrefixTuning {
        n_virtual: values.get("tokens") as usize,
        mlp: values.get("mlp") as usize,
        seed: options.seed,
        base: BaseTensors::new(&options.modules_to_save, Default::default()),
        stored: None,
        config: Map::new(),
        purpose: Purpose::Training,
        values: None,
        inner: None,
        layers: Vec::new(),
        head: (0, 0),
    }))
}

/// The adapter.
pub(super) struct PrefixTuning {
    n_virtual: usize,
    /// Inner width of the perceptron; 0 = none.
    mlp: usize,
    seed: u64,
    base: BaseTensors,
    stored: Option<Stored>,
    config: Map<String, Value>,
    purpose: Purpose,
    /// What was read: [P, L·2·K·d]
    values: Option<Vec<f32>>,
    inner: Option<Arc<Inner>>,
    layers: Vec<Arc<Prefix>>,
    /// K and d.
    head: (usize, usize),
}

/// The layers of the perceptron that all layers of the model share: `tanh(W e + b)`.
struct Inner {
    /// [P, K·d]
    embedding: Parameter,
    /// [M, K·d]
    weight: Parameter,
    /// [M]
    bias: Parameter,
}

/// Keys and values of one layer.
struct Prefix {
    layer: usize,
    source: Made,
    n_virtual: usize,
    /// First column of the keys in a row of queries, keys and values.
    start: usize,
    interleaved: Option<usize>,
}

/// Where the `[P, 2·K·d]` keys and values of a layer come from.
enum Made {
    /// Of this parameter, in the base's order.
    Direct(Parameter),
    /// Of the perceptron, whose last layer `[2·K·d, M]` and bias `[2·K·d]` are the layer's own.
    Perceptron(Arc<Inner>, Parameter, Parameter),
}

impl Prefix {
    /// Keys and values side by side: [P, 2·K·d]
    fn rows(&self) -> Tensor {
        let ids: Vec<u32> = (0..self.n_virtual as u32).collect();
        match &self.source {
            Made::Direct(parameter) => ops::embedding::embedding(&Weight::Trained(parameter.clone()), &ids),
            Made::Perceptron(inner, weight, bias) => {
                let rows = ops::embedding::embedding(&Weight::Trained(inner.embedding.clone()), &ids);
                let (inner_weight, inner_bias) = (inner.weight.clone(), Vector::Trained(inner.bias.clone()));
                let rows = ops::linear::linear(&rows, &[Weight::Trained(inner_weight)], &[inner_bias]);
                let rows = ops::activation::activation(rows, Activation::Tanh); // [P, M]
                let bias = Vector::Trained(bias.clone());
                ops::linear::linear(&rows, &[Weight::Trained(weight.clone())], &[bias])
            }
        }
    }

    /// The same in the file's order, untracked, row after row.
    fn values(&self) -> Vec<f32> {
        let rows = tape::pause(|| self.rows());
        let half = rows.row_len() / 2;
        let turned = rows.data().chunks_exact(2 * half).flat_map(|row| {
            let keys = order::to_file(&order::of_heads(self.interleaved, half), row[..half].to_vec());
            keys.into_iter().chain(row[half..].iter().copied()).collect::<Vec<_>>()
        });
        turned.collect()
    }
}

impl PrefixTuning {
    /// A prefix of `n_virtual` positions that was read.
    pub fn read(
        n_virtual: usize,
        base: BaseTensors,
        stored: Stored,
        config: Map<String, Value>,
        purpose: Purpose,
    ) -> PrefixTuning {
        PrefixTuning {
            n_virtual,
            mlp: 0,
            seed: 0,
            base,
            stored: Some(stored),
            config,
            purpose,
            values: None,
            inner: None,
            layers: Vec::new(),
            head: (0, 0),
        }
    }

    /// The part of what was read, or of what is drawn, that belongs to layer `layer`.
    fn made(
        &mut self,
        layer: usize,
        config: &ModelConfig,
        interleaved: Option<usize>,
    ) -> Result<Made, AdapterError> {
        let width = config.n_kv_heads * config.head_dim;
        let (n, total) = (self.n_virtual, 2 * width * config.n_layers);
        if let (Some(stored), None) = (&mut self.stored, &self.values) {
            self.values = Some(stored.require(NAME, &[n, total])?);
        }
        let name = |what: &str| format!("{NAME}.{what}");
        if let Some(values) = &self.values {
            let rows = values.chunks_exact(total).flat_map(|row| {
                let (keys, values) = row[2 * layer * width..][..2 * width].split_at(width);
                let keys = order::to_base(&order::of_heads(interleaved, width), keys.to_vec());
                keys.into_iter().chain(values.iter().copied()).collect::<Vec<_>>()
            });
            let parameter =
                Parameter::new(name(&layer.to_string()), [n, 2 * width], rows.collect(), Precision::F32);
            parameter.set_frozen(self.purpose == Purpose::Inference);
            return Ok(Made::Direct(parameter));
        }
        let new = |what: String, shape: &[usize], values: Vec<f32>| match *shape {
            [n] => Parameter::new(what, [n], values, Precision::F32),
            _ => Parameter::new(what, [shape[0], shape[1]], values, Precision::F32),
        };
        let (seed, mlp) = (self.seed, self.mlp);
        let uniform =
            |what: &str, n: usize, n_in: usize| init::uniform(seed, what, n, (n_in as f32).sqrt().recip());
        if mlp == 0 {
            let key = name(&layer.to_string());
            let values = init::normal(seed, &key, n * 2 * width, 1.0);
            return Ok(Made::Direct(new(key, &[n, 2 * width], values)));
        }
        let inner = self.inner.get_or_insert_with(|| {
            Arc::new(Inner {
                embedding: new(
                    name("embedding"),
                    &[n, width],
                    init::normal(seed, "embedding", n * width, 1.0),
                ),
                weight: new(name("inner.weight"), &[mlp, width], uniform("inner.weight", mlp * width, width)),
                bias: new(name("inner.bias"), &[mlp], uniform("inner.bias", mlp, width)),
            })
        });
        let key = name(&format!("{layer}.weight"));
        let weight = new(key.clone(), &[2 * width, mlp], uniform(&key, 2 * width * mlp, mlp));
        let key = name(&format!("{layer}.bias"));
        let bias = new(key.clone(), &[2 * width], uniform(&key, 2 * width, mlp));
        Ok(Made::Perceptron(inner.clone(), weight, bias))
    }
}

impl Adapter for PrefixTuning {
    fn about(&self) -> &'static About {
        &PREFIX_TUNING.about
    }

    fn trains(&self, site: &Site) -> bool {
        self.base.trains(site, false, self.purpose)
    }

    fn trained(&mut self, site: &Site, parameter: &Parameter) {
        self.base.trained(site, false, parameter);
    }

    fn replaces(&mut self, site: &Site) -> Result<Option<Vec<f32>>, AdapterError> {
        self.base.replaces(site, false, self.stored.as_mut())
    }

    fn unties(&self) -> bool {
        self.base.unties()
    }

    fn replaces_base(&self) -> bool {
        self.base.is_any()
    }

    fn attention(
        &mut self,
        layer: usize,
        config: &ModelConfig,
        interleaved: Option<usize>,
    ) -> Result<Option<Box<dyn AttentionHook>>, AdapterError> {
        if let Some(prefix) = self.layers.iter().find(|prefix| prefix.layer == layer) {
            return Ok(Some(Box::new(prefix.clone())));
        }
        self.head = (config.n_kv_heads, config.head_dim);
        let source = self.made(layer, config, interleaved)?;
        let (n_virtual, start) = (self.n_virtual, config.n_heads * config.head_dim);
        let prefix = Arc::new(Prefix { layer, source, n_virtual, start, interleaved });
        self.layers.push(prefix.clone());
        Ok(Some(Box::new(prefix)))
    }

    fn n_virtual(&self) -> usize {
        self.n_virtual
    }

    fn finish(&mut self) -> Result<(), AdapterError> {
        self.stored.as_ref().map_or(Ok(()), Stored::finish)
    }

    fn parameters(&self) -> Vec<Parameter> {
        let inner = self.inner.iter().flat_map(|inner| [&inner.embedding, &inner.weight, &inner.bias]);
        let of_layers = self.layers.iter().flat_map(|prefix| match &prefix.source {
            Made::Direct(parameter) => vec![parameter],
            Made::Perceptron(_, weight, bias) => vec![weight, bias],
        });
        inner.chain(of_layers).cloned().collect()
    }

    fn save(&self) -> Saved {
        let of_layers: Vec<Vec<f32>> = self.layers.iter().map(|prefix| prefix.values()).collect();
        let width = 2 * self.head.0 * self.head.1;
        let rows = (0..self.n_virtual).flat_map(|i| {
            of_layers.iter().flat_map(move |values| values[i * width..][..width].iter().copied())
        });
        let shape = [self.n_virtual, self.layers.len() * width];
        let mut tensors = vec![SavedTensor::new(NAME, &shape, rows.collect())];
        tensors.extend(self.base.save());
        let config = if self.config.is_empty() {
            let hidden = if self.mlp == 0 { width / 2 } else { self.mlp };
            with_common(
                "PREFIX_TUNING",
                vec![
                    ("encoder_hidden_size", hidden.into()),
                    ("modules_to_save", list_or_null(&self.base.module_names())),
                    ("num_attention_heads", self.head.0.into()),
                    ("num_layers", self.layers.len().into()),
                    ("num_transformer_submodules", 1.into()),
                    ("num_virtual_tokens", self.n_virtual.into()),
                    ("prefix_projection", (self.mlp > 0).into()),
                    ("token_dim", (width / 2).into()),
                ],
            )
        } else {
            self.config.clone()
        };
        Saved { config, tensors, base: Vec::new() }
    }

    fn check_mergeable(&self) -> Result<(), AdapterError> {
        let reason = "its keys and values are not those of any token";
        Err(AdapterError::NotMergeable { method: PREFIX_TUNING.about.name, reason })
    }
}

impl AttentionHook for Arc<Prefix> {
    fn qkv(&self, qkv: Tensor, pass: &Pass) -> Tensor {
        let rows = pass.rows_below(self.n_virtual);
        if rows.is_empty() { qkv } else { ops::rows::replace(qkv, self.start, &rows, &self.rows()) }
    }
}
