//! LoRA beside a table of embeddings: row `id` is `W[id] + s B A[:, id]`.
//!
//! A is `[r, V]` and begins at zero, B is `[D, r]`. Source: PEFT 0.21, `tuners/lora/layer.py`, class `Embedding`.

use rhetor_tensor::{Parameter, Tensor, Weight, ops};
use std::sync::Arc;

use super::base_tensors::PREFIX;
use super::lora::LoraSettings;
use super::lora_linear::add_product;
use super::stored::{SavedTensor, Stored};
use super::{AdapterError, EmbeddingHook, Init, Purpose, Site, init, order};
use crate::layers::Pass;

/// LoRA beside one table.
pub(super) struct LoraEmbedding {
    /// Hugging Face's name of the table.
    pub name: String,
    /// Aᵀ: [V, r], so that a token's column is a row.
    a: Parameter,
    /// [D, r]
    b: Parameter,
    scale: f32,
    base: Weight,
}

impl LoraEmbedding {
    pub fn new(
        site: &Site,
        base: &Weight,
        rank: usize,
        scale: f32,
        settings: &LoraSettings,
        stored: Option<&mut Stored>,
    ) -> Result<LoraEmbedding, AdapterError> {
        let key = format!("{PREFIX}{}", site.name);
        let (n_tokens, width) = (base.n_out(), base.n_in());
        let (a_name, b_name) = (format!("{key}.lora_embedding_A"), format!("{key}.lora_embedding_B"));
        let (a, b) = match stored {
            Some(stored) => {
                let a = stored.require(&a_name, &[rank, n_tokens])?;
                // PEFT writes the frozen table too; a vocabulary that has grown shows by its shape.
                stored.take(&format!("{key}.base_layer.weight"), &[n_tokens, width])?;
                (order::transposed(&a, rank, n_tokens), stored.require(&b_name, &[width, rank])?)
            }
            None => {
                let a = match settings.init {
                    Init::Random => init::normal(settings.seed, &a_name, n_tokens * rank, 1.0),
                    _ => vec![0.0; n_tokens * rank],
                };
                (a, init::normal(settings.seed, &b_name, width * rank, 1.0))
            }
        };
        let parameter = |name: String, shape: [usize; 2], values: Vec<f32>| {
            let parameter = Parameter::new(name, shape, values, base.precision());
            parameter.set_frozen(settings.purpose == Purpose::Inference);
            parameter
        };
        Ok(LoraEmbedding {
            name: site.name.to_string(),
            a: parameter(a_name, [n_tokens, rank], a),
            b: parameter(b_name, [width, rank], b),
            scale,
            base: base.clone(),
        })
    }

    pub fn parameters(&self) -> [Parameter; 2] {
        [self.a.clone(), self.b.clone()]
    }

    pub fn save(&self) -> [SavedTensor; 3] {
        let [n_tokens, rank] = [self.a.shape()[0], self.a.shape()[1]];
        let a = order::transposed(&self.a.read(), n_tokens, rank);
        [
            SavedTensor::new(self.a.name(), &[rank, n_tokens], a),
            SavedTensor::new(self.b.name(), self.b.shape(), self.b.read().clone()),
            saved_base(format!("{PREFIX}{}.base_layer.weight", self.name), &self.base),
        ]
    }
}

/// A frozen weight, as PEFT writes it beside an adapter.
pub(super) fn saved_base(name: String, base: &Weight) -> SavedTensor {
    let shape = [base.n_out(), base.n_in()];
    let mut values = vec![0.0; shape[0] * shape[1]];
    values.chunks_exact_mut(shape[1]).enumerate().for_each(|(i, row)| base.row(i, row));
    SavedTensor::new(name, &shape, values)
}

impl EmbeddingHook for Arc<LoraEmbedding> {
    fn output(&self, ids: &[u32], y: Tensor, _pass: &Pass) -> Tensor {
        let inner = ops::embedding::embedding(&Weight::Trained(self.a.clone()), ids); // [T, r]
        let product = ops::linear::linear(&inner, &[Weight::Trained(self.b.clone())], &[]); // [T, D]
        ops::columns::add_columns(y, 0, &product, self.scale)
    }

    fn merge(&self, weight: &mut [f32]) {
        // Rows of the table are rows of A: the product is A Bᵀ, [V, D].
        let [width, rank] = [self.b.shape()[0], self.b.shape()[1]];
        let turned = order::transposed(&self.b.read(), width, rank);
        let b = Parameter::new("Bᵀ", [rank, width], turned, self.b.precision());
        add_product(&b, &self.a, self.scale, weight);
    }
}
