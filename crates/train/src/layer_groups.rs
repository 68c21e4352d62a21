//! Groups of layers, from the embeddings up to the head: each learns at its own rate, and begins to learn at its own time.
//!
//! Source: ULMFiT, arXiv:1801.06146, section 3.2 (discriminative fine-tuning) and section 3.3 (gradual unfreezing). The same
//! serves any network of layers: ELECTRA, arXiv:2003.10555, appendix A, calls it layer-wise decay.

use rhetor_models::{ModelConfig, Task};
use rhetor_tensor::Parameter;

use crate::optimizers::Trained;

/// Which group each trained parameter belongs to, 0 = the lowest.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerGroups {
    of: Vec<usize>,
    n: usize,
}

/// Names before the number of a layer.
const LAYERS: &[&str] = &["layers", "layer", "h", "rnns", "blocks"];
/// What names of embeddings have in them.
const EMBEDDINGS: &[&str] = &["embed", "wte.", "wpe.", "0.encoder."];

impl LayerGroups {
    /// The groups of a model's parameters. An embedding that is the output layer too belongs to the head, as in fastai.
    pub fn of(parameters: &[Parameter], config: &ModelConfig) -> LayerGroups {
        let is_tied = config.tied && config.head.task == Task::Vocabulary;
        let of = parameters.iter().map(|parameter| depth(parameter.name(), config.n_layers, is_tied));
        let of: Vec<usize> = of.collect();
        let mut depths = of.clone();
        depths.sort_unstable();
        depths.dedup();
        let rank = |depth: &usize| depths.binary_search(depth).expect("it is one of them");
        LayerGroups { of: of.iter().map(rank).collect(), n: depths.len() }
    }

    /// The number of groups.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Divides the rate of each group by `factor` once for each group above it.
    pub fn decay_rates(&self, trained: &mut [Trained], factor: f64) {
        for (trained, group) in trained.iter_mut().zip(&self.of) {
            trained.rate *= factor.powi((self.n - 1 - group) as i32).recip() as f32;
        }
    }

    /// Lets the highest `n` groups learn and no others.
    pub fn thaw(&self, trained: &[Trained], n: usize) {
        for (trained, group) in trained.iter().zip(&self.of) {
            trained.parameter.set_frozen(group + n < self.n);
        }
    }
}

/// 0 of embeddings, i + 1 of layer i, one more of what stands above the layers.
fn depth(name: &str, n_layers: usize, is_tied: bool) -> usize {
    let parts: Vec<&str> = name.split('.').collect();
    let layer = parts.windows(2).find(|pair| LAYERS.contains(&pair[0])).and_then(|pair| pair[1].parse().ok());
    match layer {
        Some(layer) => 1 + std::cmp::min(layer, n_layers),
        None if EMBEDDINGS.iter().any(|part| name.contains(part)) && !is_tied => 0,
        None => n_layers + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_families_tell_their_depth() {
        let depths = |names: &[&str]| names.iter().map(|name| depth(name, 3, false)).collect::<Vec<_>>();
        let fastai =
            ["0.encoder.weight", "0.rnns.0.weight_hh_l0_raw", "0.rnns.2.module.bias_ih_l0", "1.output.bias"];
        assert_eq!(depths(&fastai), [0, 1, 3, 4]);
        let bert = [
            "bert.embeddings.LayerNorm.weight",
            "bert.encoder.layer.1.output.dense.bias",
            "classifier.weight",
        ];
        assert_eq!(depths(&bert), [0, 2, 4]);
        let others = [
            "model.embed_tokens.weight",
            "transformer.h.0.ln_1.bias",
            "transformer.wpe.weight",
            "model.norm.weight",
        ];
        assert_eq!(depths(&others), [0, 1, 0, 4]);
        assert_eq!(depth("0.encoder.weight", 3, true), 4);
    }

    #[test]
    fn lower_groups_learn_slower_and_later() {
        let names = ["0.encoder.weight", "0.rnns.0.weight_hh_l0_raw", "1.output.weight"];
        let trained = |name: &&str| {
            let parameter = Parameter::new(*name, [1], vec![0.0], Default::default());
            Trained { parameter, rate: 1.0, decays: true }
        };
        let mut trained: Vec<Trained> = names.iter().map(trained).collect();
        let groups = LayerGroups { of: vec![0, 1, 2], n: 3 };
        groups.decay_rates(&mut trained, 2.6);
        let rates: Vec<f32> = trained.iter().map(|trained| trained.rate).collect();
        assert!(
            (rates[0] - 1.0 / 6.76).abs() < 1e-6 && (rates[1] - 1.0 / 2.6).abs() < 1e-6 && rates[2] == 1.0
        );
        let learns = |n: usize| {
            groups.thaw(&trained, n);
            trained.iter().map(|trained| trained.parameter.is_trained()).collect::<Vec<_>>()
        };
        assert_eq!(learns(1), [false, false, true]);
        assert_eq!(learns(2), [false, true, true]);
        assert_eq!(learns(7), [true; 3]);
    }
}
