//! A linear layer over a vector, with a non-linearity: the module `Dense` of sentence-transformers.

use rhetor_formats::{Checkpoint, TensorEntry};
use rhetor_kernels::quant;
use serde_json::Value;

use crate::Error;
use crate::modules::{refused, settings};

/// `act(W x + b)`
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    /// [out, in], row after row.
    weight: Vec<f32>,
    /// [out]
    bias: Option<Vec<f32>>,
    n_in: usize,
    is_tanh: bool,
}

impl Dense {
    /// Reads the module in `folder` beside the model: `config.json` and `model.safetensors` or `pytorch_model.bin`.
    pub fn read(beside: &Checkpoint, folder: &str) -> Result<Dense, Error> {
        let (json, file) = settings(beside, folder)?;
        let size = |key: &str| match json[key].as_u64() {
            Some(n) if (1..=1 << 24).contains(&n) => Ok(n as usize),
            _ => Err(refused(&file, key, &json[key], "a size from 1 to 16777216")),
        };
        let (n_in, n_out) = (size("in_features")?, size("out_features")?);
        let word = json["activation_function"].as_str().unwrap_or("torch.nn.modules.activation.Tanh");
        let is_tanh = match word.rsplit('.').next() {
            Some("Tanh") => true,
            Some("Identity") => false,
            _ => return Err(refused(&file, "activation_function", &word.into(), "Tanh or Identity")),
        };
        for key in ["module_input_name", "module_output_name"] {
            if json[key].as_str().is_some_and(|name| name != "sentence_embedding") {
                return Err(refused(&file, key, &json[key], "sentence_embedding"));
            }
        }
        if json["use_residual"].as_bool() == Some(true) {
            return Err(refused(&file, "use_residual", &json["use_residual"], "false"));
        }
        let weights = ["model.safetensors", "pytorch_model.bin"].map(|name| file.with_file_name(name));
        let weights = weights.iter().find(|path| path.is_file()).unwrap_or(&weights[0]);
        let checkpoint = Checkpoint::open(weights)?;
        let values = |name: &str, shape: &[usize]| -> Result<Vec<f32>, Error> {
            let expected = format!("a tensor of shape {shape:?}");
            let wrong = |got: Value| refused(weights, name, &got, &expected);
            let entry: &TensorEntry = checkpoint.find(name).ok_or_else(|| wrong(Value::Null))?;
            let dtype = entry.dtype.known().filter(|_| entry.shape == shape);
            let dtype = dtype.ok_or_else(|| wrong(format!("{} {:?}", entry.dtype, entry.shape).into()))?;
            let mut values = vec![0.0; shape.iter().product()];
            quant::dequantize(dtype, checkpoint.bytes(entry), &mut values);
            Ok(values)
        };
        let has_bias = json["bias"].as_bool().unwrap_or(true);
        Ok(Dense {
            weight: values("linear.weight", &[n_out, n_in])?,
            bias: if has_bias { Some(values("linear.bias", &[n_out])?) } else { None },
            n_in,
            is_tanh,
        })
    }

    /// Numbers of the vector that goes in.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Numbers of the vector that comes out.
    pub fn n_out(&self) -> usize {
        self.weight.len() / self.n_in
    }

    /// x: [in] → [out]
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let output = |(i, row): (usize, &[f32])| {
            let sum: f64 = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            let y = sum as f32 + self.bias.as_ref().map_or(0.0, |bias| bias[i]);
            if self.is_tanh { y.tanh() } else { y }
        };
        self.weight.chunks_exact(self.n_in).enumerate().map(output).collect()
    }
}
