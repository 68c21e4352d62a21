//! LoRA beside one linear layer: `y + s B (A x)`, and the same for a weight.

use rhetor_kernels::gemm::{Operand, Precision, Update, View, gemm};
use rhetor_tensor::{Parameter, Tensor, Vector, Weight, ops};
use std::sync::Arc;

use super::base_tensors::PREFIX;
use super::dora::Magnitude;
use super::stored::SavedTensor;
use super::{LinearHook, lora_embedding, order};
use crate::layers::Pass;

/// LoRA beside one linear layer.
pub(super) struct LoraLinear {
    /// Hugging Face's name of the layer.
    pub name: String,
    /// [r, in]
    pub a: Parameter,
    /// [out, r], rows in the base's order.
    pub b: Parameter,
    /// [out]
    pub b_bias: Option<Parameter>,
    pub scale: f32,
    pub dropout: f32,
    /// Tells its dropout from that of other layers.
    pub place: u64,
    pub magnitude: Option<Magnitude>,
    pub order: order::RowOrder,
    /// Whether Hugging Face stores the weight as `[in, out]`.
    pub is_transposed: bool,
    /// Whether PEFT writes the frozen weight into the adapter's file: that of the output layer.
    pub keeps_base: bool,
    pub base: Weight,
}

#[cfg(test)]
impl LoraLinear {
    /// LoRA beside a weight that is known otherwise.
    pub fn test(a: Parameter, b: Parameter, scale: f32, magnitude: Magnitude) -> LoraLinear {
        LoraLinear {
            name: String::new(),
            base: Weight::Trained(a.clone()),
            a,
            b,
            b_bias: None,
            scale,
            dropout: 0.0,
            place: 0,
            magnitude: Some(magnitude),
            order: None,
            is_transposed: false,
            keeps_base: false,
        }
    }
}

impl LoraLinear {
    pub fn parameters(&self) -> Vec<Parameter> {
        let rest = self.b_bias.iter().chain(self.magnitude.iter().map(|magnitude| &magnitude.magnitude));
        [&self.a, &self.b].into_iter().chain(rest).cloned().collect()
    }

    pub fn save(&self) -> Vec<SavedTensor> {
        let mut saved = vec![
            SavedTensor::new(self.a.name(), self.a.shape(), self.a.read().clone()),
            SavedTensor::new(self.b.name(), self.b.shape(), self.to_file(&self.b)),
        ];
        let vectors = self.b_bias.iter().chain(self.magnitude.iter().map(|magnitude| &magnitude.magnitude));
        saved.extend(
            vectors.map(|vector| SavedTensor::new(vector.name(), vector.shape(), self.to_file(vector))),
        );
        if self.keeps_base {
            let name = format!("{PREFIX}{}.base_layer.weight", self.name);
            saved.push(lora_embedding::saved_base(name, &self.base));
        }
        saved
    }

    fn to_file(&self, parameter: &Parameter) -> Vec<f32> {
        order::to_file(&self.order, parameter.read().clone())
    }

    /// `delta += s B A`. delta: [out, in]
    pub fn add_product(&self, delta: &mut [f32]) {
        add_product(&self.a, &self.b, self.scale, delta);
    }
}

/// `to += scale · B A`. a: [r, in], b: [out, r], to: [out, in]
pub(super) fn add_product(a: &Parameter, b: &Parameter, scale: f32, to: &mut [f32]) {
    let (rank, n_in, n_out) = (a.shape()[0], a.shape()[1], b.shape()[0]);
    let (a, b) = (a.read(), b.read());
    let (a, b) = (View::new(&a, rank, n_in), View::new(&b, n_out, rank));
    gemm(Precision::F32, scale, b, Operand::View(a), Update::Add, None, to, n_in);
}

impl LinearHook for Arc<LoraLinear> {
    fn output(&self, x: &Tensor, y: Tensor, start: usize, pass: &Pass) -> Tensor {
        let x = match pass.dropout(self.place) {
            Some(stream) if self.dropout > 0.0 => &ops::dropout::dropout(x.clone(), self.dropout, stream),
            _ => x,
        };
        let inner = ops::linear::linear(x, &[Weight::Trained(self.a.clone())], &[]); // [T, r]
        let bias: Vec<Vector> = self.b_bias.iter().cloned().map(Vector::Trained).collect();
        let product = ops::linear::linear(&inner, &[Weight::Trained(self.b.clone())], &bias); // [T, out]
        let y = ops::columns::add_columns(y, start, &product, self.scale);
        match &self.magnitude {
            Some(magnitude) => magnitude.apply(y, start, self),
            None => y,
        }
    }

    fn merge(&self, weight: &mut [f32]) {
        self.add_product(weight);
        if let Some(magnitude) = &self.magnitude {
            magnitude.merge(weight);
        }
    }

    fn unmerge(&self, weight: &mut [f32]) -> bool {
        if self.magnitude.is_none() {
            add_product(&self.a, &self.b, -self.scale, weight);
        }
        self.magnitude.is_none()
    }

    fn merge_bias(&self, bias: &mut [f32]) {
        if let Some(b_bias) = &self.b_bias {
            let values = b_bias.read();
            bias.iter_mut().zip(values.iter()).for_each(|(bias, value)| *bias += self.scale * value);
        }
    }

    fn adds_bias(&self) -> bool {
        self.b_bias.is_some()
    }
}
