//! The rows of a text as one vector.
//!
//! Source: sentence-transformers 6.2, `Pooling`; Sentence-BERT, arXiv:1908.10084, section 3.

use serde_json::Value;
use std::path::Path;

use crate::Error;

/// How rows become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolingMode {
    /// The first row.
    Cls,
    /// The greatest number of each column.
    Max,
    /// The mean.
    Mean,
    /// The sum over the root of the number of rows.
    MeanSqrtLen,
    /// The mean with weights 1, 2, 3 ...: later rows of a decoder have seen more (arXiv:2202.08904, section 4).
    WeightedMean,
    /// The last row.
    LastToken,
}

/// What `1_Pooling` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooling {
    /// One vector after another, side by side.
    pub modes: Vec<PoolingMode>,
    /// Whether the rows of the prompt count.
    pub include_prompt: bool,
}

/// Old key, new word, mode; in the order in which several stand side by side.
const MODES: &[(&str, &str, PoolingMode)] = &[
    ("pooling_mode_cls_token", "cls", PoolingMode::Cls),
    ("pooling_mode_max_tokens", "max", PoolingMode::Max),
    ("pooling_mode_mean_tokens", "mean", PoolingMode::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", PoolingMode::MeanSqrtLen),
    ("pooling_mode_weightedmean_tokens", "weightedmean", PoolingMode::WeightedMean),
    ("pooling_mode_lasttoken", "lasttoken", PoolingMode::LastToken),
];

impl Pooling {
    /// The mean of all rows.
    pub fn mean() -> Pooling {
        Pooling { modes: vec![PoolingMode::Mean], include_prompt: true }
    }

    /// What a `1_Pooling/config.json` says, `file` for errors: `pooling_mode` if there, a word or a list of words; else the
    /// old switches; else the mean.
    pub fn from_json(json: &Value, file: &Path) -> Result<Pooling, Error> {
        let refuse = |got: &Value| Error::Setting {
            file: file.to_path_buf(),
            key: "pooling_mode".to_string(),
            got: got.to_string(),
            expected: MODES.iter().map(|(_, word, _)| *word).collect::<Vec<_>>().join(", "),
        };
        let mode = |word: &Value| {
            let row = MODES.iter().find(|(_, name, _)| Some(*name) == word.as_str());
            row.map(|(_, _, mode)| *mode).ok_or_else(|| refuse(word))
        };
        let mut modes = match &json["pooling_mode"] {
            Value::Null => {
                let is_on = |key: &str| json[key].as_bool() == Some(true);
                MODES.iter().filter(|(key, _, _)| is_on(key)).map(|(_, _, mode)| *mode).collect()
            }
            Value::Array(words) => words.iter().map(mode).collect::<Result<Vec<_>, _>>()?,
            word => vec![mode(word)?],
        };
        if modes.is_empty() {
            modes.push(PoolingMode::Mean);
        }
        Ok(Pooling { modes, include_prompt: json["include_prompt"].as_bool().unwrap_or(true) })
    }

    /// The rows of a text that are needed, of `len`, of which the first `n_prompt` are the prompt's.
    pub(crate) fn rows(&self, len: usize, n_prompt: usize) -> std::ops::Range<usize> {
        let first = if self.include_prompt { 0 } else { n_prompt.min(len - 1) };
        match self.modes.as_slice() {
            [PoolingMode::Cls] => first..first + 1,
            [PoolingMode::LastToken] => len - 1..len,
            _ => first..len,
        }
    }

    /// One vector of the rows from `first` on in their text. rows: [n, D], row after row → [modes · D]
    pub fn pool(&self, rows: &[f32], width: usize, first: usize) -> Vec<f32> {
        let n = rows.len() / width;
        let row = |i: usize| &rows[i * width..(i + 1) * width];
        let weighted = |weight: &dyn Fn(usize) -> f64, divisor: f64| -> Vec<f32> {
            let mut sum = vec![0f64; width];
            for (i, row) in rows.chunks_exact(width).enumerate() {
                let weight = weight(i);
                sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += weight * f64::from(x));
            }
            sum.into_iter().map(|sum| (sum / divisor) as f32).collect()
        };
        let mut out = Vec::with_capacity(self.modes.len() * width);
        for mode in &self.modes {
            match mode {
                PoolingMode::Cls => out.extend_from_slice(row(0)),
                PoolingMode::LastToken => out.extend_from_slice(row(n - 1)),
                PoolingMode::Max => {
                    let greatest = |j| (0..n).map(|i| row(i)[j]).fold(f32::NEG_INFINITY, f32::max);
                    out.extend((0..width).map(greatest));
                }
                PoolingMode::Mean => out.extend(weighted(&|_| 1.0, n as f64)),
                PoolingMode::MeanSqrtLen => out.extend(weighted(&|_| 1.0, (n as f64).sqrt())),
                PoolingMode::WeightedMean => {
                    let weight = |i: usize| (first + i + 1) as f64;
                    out.extend(weighted(&weight, (0..n).map(weight).sum()));
                }
            }
        }
        out
    }
}

/// `x / max(‖x‖₂, 10⁻¹²)`, as PyTorch's `normalize`.
pub(crate) fn normalize(x: &mut [f32]) {
    let norm = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt().max(1e-12);
    x.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(json: Value) -> Result<Pooling, Error> {
        Pooling::from_json(&json, Path::new("1_Pooling/config.json"))
    }

    #[test]
    fn old_and_new_keys_say_the_same() {
        let old =
            json!({"pooling_mode_lasttoken": true, "pooling_mode_cls_token": true, "include_prompt": false});
        let new = json!({"pooling_mode": ["cls", "lasttoken"], "include_prompt": false});
        assert_eq!(read(old).unwrap(), read(new).unwrap());
        assert_eq!(read(json!({})).unwrap(), Pooling::mean());
        assert_eq!(read(json!({"pooling_mode": "max"})).unwrap().modes, [PoolingMode::Max]);
        let error = read(json!({"pooling_mode": "median"})).unwrap_err().to_string();
        assert!(error.contains("median") && error.contains("weightedmean"), "{error}");
    }

    #[test]
    fn all_modes_side_by_side() {
        let modes: Vec<PoolingMode> = MODES.iter().map(|(_, _, mode)| *mode).collect();
        let pooling = Pooling { modes, include_prompt: true };
        let got = pooling.pool(&[1.0, -2.0, 4.0, 1.0], 2, 0);
        let root = 2f32.sqrt();
        let expected = [1.0, -2.0, 4.0, 1.0, 2.5, -0.5, 5.0 / root, -1.0 / root, 3.0, 0.0, 4.0, 1.0];
        assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
    }

    #[test]
    fn rows_of_a_prompt_are_left_out_where_the_model_says_so() {
        let pooling = |word: &str, include: bool| {
            read(json!({"pooling_mode": word, "include_prompt": include})).unwrap()
        };
        assert_eq!(pooling("mean", true).rows(9, 3), 0..9);
        assert_eq!(pooling("mean", false).rows(9, 3), 3..9);
        assert_eq!(pooling("cls", false).rows(9, 3), 3..4);
        assert_eq!(pooling("lasttoken", false).rows(9, 3), 8..9);
        assert_eq!(pooling("mean", false).rows(2, 3), 1..2, "one row is always left");
    }
}
