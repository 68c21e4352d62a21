//! SPLADE: a weight for each token of the vocabulary, most of them 0.
//!
//! `w_j = max over tokens i of log(1 + relu(logit_ij))`. All tokens count, those around the text too, as in the authors' code.
//! Source: SPLADE v2, arXiv:2109.10086, section 2.2, eq. 6; the sum is SPLADE's, arXiv:2107.05720, eq. 4.

use serde_json::Value;
use std::path::Path;

use crate::Error;
use crate::modules::refused;

/// How logits over the vocabulary become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SparsePooling {
    /// Whether weights of tokens are added; else the greatest counts.
    pub is_sum: bool,
    /// Whether the logarithm is taken twice.
    pub is_log_log: bool,
}

impl SparsePooling {
    /// What a module's `config.json` says, `file` for errors.
    pub fn from_json(json: &Value, file: &Path) -> Result<SparsePooling, Error> {
        let is_sum = match json["pooling_strategy"].as_str().unwrap_or("max") {
            "max" => false,
            "sum" => true,
            _ => return Err(refused(file, "pooling_strategy", &json["pooling_strategy"], "max or sum")),
        };
        let is_log_log = match json["activation_function"].as_str().unwrap_or("relu") {
            "relu" => false,
            "log1p_relu" => true,
            _ => {
                let got = &json["activation_function"];
                return Err(refused(file, "activation_function", got, "relu or log1p_relu"));
            }
        };
        Ok(SparsePooling { is_sum, is_log_log })
    }

    /// logits: [n, V], row after row → [V]
    pub fn pool(self, logits: &[f32], width: usize) -> Vec<f32> {
        let mut out = vec![0f32; width];
        if !self.is_sum {
            // The logarithm rises: it is taken once, of the greatest.
            for row in logits.chunks_exact(width) {
                out.iter_mut().zip(row).for_each(|(out, &x)| *out = out.max(x));
            }
            out.iter_mut().for_each(|x| *x = self.weight(*x));
            return out;
        }
        for row in logits.chunks_exact(width) {
            out.iter_mut().zip(row).for_each(|(out, &x)| *out += self.weight(x.max(0.0)));
        }
        out
    }

    fn weight(self, x: f32) -> f32 {
        let x = x.ln_1p();
        if self.is_log_log { x.ln_1p() } else { x }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn weights_are_logarithms_of_what_is_above_zero() {
        let logits = [1.0, -3.0, 0.5, 2.0, -1.0, 0.0];
        let close = |got: Vec<f32>, expected: [f32; 3]| {
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
        };
        close(SparsePooling::default().pool(&logits, 3), [3f32.ln(), 0.0, 1.5f32.ln()]);
        let sum = json!({"pooling_strategy": "sum"});
        let sum = SparsePooling::from_json(&sum, Path::new("config.json")).unwrap();
        close(sum.pool(&logits, 3), [6f32.ln(), 0.0, 1.5f32.ln()]);
        let twice = SparsePooling { is_log_log: true, ..SparsePooling::default() };
        close(twice.pool(&logits, 3), [3f32.ln().ln_1p(), 0.0, 1.5f32.ln().ln_1p()]);
        let wrong = SparsePooling::from_json(&json!({"pooling_strategy": "mean"}), Path::new("config.json"));
        assert!(wrong.unwrap_err().to_string().contains("pooling_strategy"));
    }
}
