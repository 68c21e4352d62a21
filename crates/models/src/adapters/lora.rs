//! LoRA: a product of two thin matrices beside each frozen weight, `y = W x + s B (A x)`.
//!
//! A is `[r, in]`, B is `[out, r]` and begins at zero, s = α / r. Over a quantized base this is QLoRA (arXiv:2305.14314).
//! Source: LoRA, arXiv:2106.09685, §4.1; rank-stabilised scale α / √r: arXiv:2312.03732, §3. Names as in PEFT 0.21.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::gemm::Precision;
use rhetor_tensor::{Parameter, Vector, Weight};
use serde_json::{Map, Value};
use std::sync::Arc;

use super::base_tensors::{BaseTensors, PREFIX};
use super::dora::Magnitude;
use super::lora_embedding::LoraEmbedding;
use super::lora_linear::LoraLinear;
use super::peft_config;
use super::stored::{Saved, SavedTensor, Stored};
use super::targets::{Kind, Patterns, Targets};
use super::{Adapter, AdapterError, AdapterOptions, EmbeddingHook, Init, LinearHook, Method, Purpose, Site};
use super::{init, order};

const RANK: Opt =
    Opt { name: "rank", summary: "inner extent r of A and B", default: 16.0, range: (1.0, 4096.0) };
const ALPHA: Opt =
    Opt { name: "alpha", summary: "the product counts alpha / rank", default: 32.0, range: (1e-6, 1e6) };
const DROPOUT: Opt = Opt {
    name: "dropout",
    summary: "probability with which elements of the input of A are dropped in training",
    default: 0.05,
    range: (0.0, 0.99),
};
const RSLORA: Opt = Opt {
    name: "rslora",
    summary: "1: the product counts alpha / √rank (arXiv:2312.03732)",
    default: 0.0,
    range: (0.0, 1.0),
};
const LORA_BIAS: Opt = Opt { name: "lora-bias", summary: "1: B has a bias", default: 0.0, range: (0.0, 1.0) };

/// Low-rank matrices beside frozen weights.
pub(super) static LORA: Method = Method {
    about: About {
        name: "lora",
        summary: "two thin matrices beside each frozen weight; over a quantized base: QLoRA",
        source: Source::Paper {
            title: "LoRA: Low-Rank Adaptation of Large Language Models",
            id: "arXiv:2106.09685",
            section: "§4.1",
        },
        options: &[RANK, ALPHA, DROPOUT, RSLORA, LORA_BIAS],
    },
    build: |values, options| Lora::build(&LORA.about, values, options),
};

/// LoRA that trains the length of each row of the weight apart from its direction.
pub(super) static DORA: Method = Method {
    about: About {
        name: "dora",
        summary: "LoRA for the direction of each row of a weight, and a trained magnitude for its length",
        source: Source::Paper {
            title: "DoRA: Weight-Decomposed Low-Rank Adaptation",
            id: "arXiv:2402.09353",
            section: "§4.1, eq. 5",
        },
        options: &[RANK, ALPHA, DROPOUT, RSLORA, LORA_BIAS],
    },
    build: |values, options| Lora::build(&DORA.about, values, options),
};

/// What [`AdapterOptions`] LoRA heeds.
const USED: &[&str] =
    &["targets", "exclude", "layers", "rank-pattern", "alpha-pattern", "modules-to-save", "bias", "init"];

/// The numbers of a LoRA adapter.
#[derive(Debug, Clone)]
pub(super) struct LoraSettings {
    pub rank: usize,
    pub alpha: f64,
    pub dropout: f32,
    pub is_rank_stabilised: bool,
    pub has_bias: bool,
    pub is_dora: bool,
    pub rank_pattern: Patterns<usize>,
    pub alpha_pattern: Patterns<f64>,
    pub init: Init,
    pub seed: u64,
    pub purpose: Purpose,
}

/// The adapter.
pub(super) struct Lora {
    about: &'static About,
    settings: LoraSettings,
    targets: Targets,
    base: BaseTensors,
    stored: Option<Stored>,
    /// Keys of the configuration that it was read with.
    config: Map<String, Value>,
    layers: Vec<Arc<LoraLinear>>,
    embeddings: Vec<Arc<LoraEmbedding>>,
    /// Names of layers that it met, for messages.
    met: Vec<String>,
    /// The model's family.
    family: Option<&'static str>,
}

impl Lora {
    fn build(
        about: &'static About,
        values: &Values,
        options: &AdapterOptions,
    ) -> Result<Box<dyn Adapter>, AdapterError> {
        Ok(Box::new(Lora::build_with(about, values, options)?))
    }

    /// A new adapter of a method whose options these are; those that it does not have are off.
    pub fn build_with(
        about: &'static About,
        values: &Values,
        options: &AdapterOptions,
    ) -> Result<Lora, AdapterError> {
        options.check_used(about.name, USED)?;
        let is_on = |name: &str| values.iter().any(|(option, value)| option == name && value != 0.0);
        if matches!(options.init, Init::Vocabulary | Init::Text) {
            return Err(AdapterError::Refused {
                method: about.name,
                what: "init",
                got: format!("{:?}", options.init),
                expected: "Default, Gaussian or Random".to_string(),
            });
        }
        let settings = LoraSettings {
            rank: values.get("rank") as usize,
            alpha: values.get("alpha"),
            dropout: values.get("dropout") as f32,
            is_rank_stabilised: is_on("rslora"),
            has_bias: is_on("lora-bias"),
            is_dora: about.name == "dora",
            rank_pattern: Patterns::new(&options.rank_pattern)?,
            alpha_pattern: Patterns::new(&options.alpha_pattern)?,
            init: options.init,
            seed: options.seed,
            purpose: Purpose::Training,
        };
        if settings.is_dora && settings.has_bias {
            return Err(AdapterError::Refused {
                method: about.name,
                what: "lora-bias",
                got: "1".to_string(),
                expected: "0: a scaled row has no place for it".to_string(),
            });
        }
        let targets = Targets::new(
            options.targets.clone(),
            options.exclude.clone(),
            options.layers.clone(),
            Kind::Lora,
        )?;
        let base = BaseTensors::new(&options.modules_to_save, options.bias);
        let mut lora = Lora::new(settings, targets, base, None, Map::new());
        lora.about = about;
        Ok(lora)
    }

    /// The tensors of the base that train in full.
    pub fn base_tensors(&mut self) -> &mut BaseTensors {
        &mut self.base
    }

    /// Gives it the name of a method that contains it.
    pub fn set_about(&mut self, about: &'static About) {
        self.about = about;
    }

    /// An adapter whose values come from `stored`, or are drawn if there is none.
    pub fn new(
        settings: LoraSettings,
        targets: Targets,
        base: BaseTensors,
        stored: Option<Stored>,
        config: Map<String, Value>,
    ) -> Lora {
        let about = if settings.is_dora { &DORA.about } else { &LORA.about };
        let (layers, embeddings, met) = (Vec::new(), Vec::new(), Vec::new());
        Lora { about, settings, targets, base, stored, config, layers, embeddings, met, family: None }
    }

    /// Rank and scale of the layer called `name`.
    fn size(&self, name: &str) -> (usize, f32) {
        let rank = self.settings.rank_pattern.find(name).unwrap_or(self.settings.rank);
        let alpha = self.settings.alpha_pattern.find(name).unwrap_or(self.settings.alpha);
        let by = if self.settings.is_rank_stabilised { (rank as f64).sqrt() } else { rank as f64 };
        (rank, (alpha / by) as f32)
    }

    /// Whether the adapter changes the layer of this site; of a bias, whether it changes its weight.
    fn is_adapted(&self, site: &Site) -> bool {
        self.targets.has(site, true) && !self.base.is_module(site)
    }

    /// A parameter: read, or drawn by `draw`. `turn` brings what was read into the base's order.
    fn parameter(
        &mut self,
        key: String,
        shape: [usize; 2],
        precision: Precision,
        turn: impl FnOnce(Vec<f32>) -> Vec<f32>,
        draw: impl FnOnce(&LoraSettings, &str) -> Vec<f32>,
    ) -> Result<Parameter, AdapterError> {
        let values = match &mut self.stored {
            Some(stored) => turn(stored.require(&key, &shape)?),
            None => draw(&self.settings, &key),
        };
        let parameter = Parameter::new(key, shape, values, precision);
        parameter.set_frozen(self.settings.purpose == Purpose::Inference);
        Ok(parameter)
    }

    /// A number for each output of the layer: read, or `first`.
    fn vector(
        &mut self,
        key: String,
        site: &Site,
        base: &Weight,
        first: impl FnOnce() -> Vec<f32>,
    ) -> Result<Parameter, AdapterError> {
        let n_out = base.n_out();
        let values = match &mut self.stored {
            Some(stored) => order::to_base(&site.order, stored.require(&key, &[n_out])?),
            None => first(),
        };
        let parameter = Parameter::new(key, [n_out], values, base.precision());
        parameter.set_frozen(self.settings.purpose == Purpose::Inference);
        Ok(parameter)
    }

    fn new_linear(
        &mut self,
        site: &Site,
        base: &Weight,
        bias: Option<&Vector>,
    ) -> Result<LoraLinear, AdapterError> {
        let key = format!("{PREFIX}{}", site.name);
        let (rank, scale) = self.size(site.name);
        let (n_out, n_in, precision) = (base.n_out(), base.n_in(), base.precision());
        let a = self.parameter(
            format!("{key}.lora_A.weight"),
            [rank, n_in],
            precision,
            |values| values,
            |settings, name| match settings.init {
                Init::Gaussian => init::normal(settings.seed, name, rank * n_in, 1.0 / rank as f32),
                _ => init::uniform(settings.seed, name, rank * n_in, (n_in as f32).sqrt().recip()),
            },
        )?;
        let b = self.parameter(
            format!("{key}.lora_B.weight"),
            [n_out, rank],
            precision,
            |values| order::to_base(&site.order, values),
            |settings, name| match settings.init {
                Init::Random => {
                    init::uniform(settings.seed, name, n_out * rank, (rank as f32).sqrt().recip())
                }
                _ => vec![0.0; n_out * rank],
            },
        )?;
        let b_bias = if self.settings.has_bias {
            Some(self.vector(format!("{key}.lora_B.bias"), site, base, || vec![0.0; n_out])?)
        } else {
            None
        };
        let magnitude = if self.settings.is_dora {
            let key = format!("{key}.lora_magnitude_vector");
            let magnitude = self.vector(key, site, base, || super::dora::norms(base, None))?;
            Some(Magnitude::new(magnitude, base.clone(), bias.cloned()))
        } else {
            None
        };
        Ok(LoraLinear {
            name: site.name.to_string(),
            place: init::place(a.name()),
            a,
            b,
            b_bias,
            scale,
            dropout: self.settings.dropout,
            magnitude,
            order: site.order.clone(),
            is_transposed: site.is_transposed,
            keeps_base: site.ours == "output",
            base: base.clone(),
        })
    }
}

impl Adapter for Lora {
    fn about(&self) -> &'static About {
        self.about
    }

    fn trains(&self, site: &Site) -> bool {
        self.base.trains(site, self.is_adapted(site), self.settings.purpose)
    }

    fn trained(&mut self, site: &Site, parameter: &Parameter) {
        let is_adapted = self.is_adapted(site);
        self.base.trained(site, is_adapted, parameter);
    }

    fn replaces(&mut self, site: &Site) -> Result<Option<Vec<f32>>, AdapterError> {
        let is_adapted = self.is_adapted(site);
        self.base.replaces(site, is_adapted, self.stored.as_mut())
    }

    fn unties(&self) -> bool {
        self.base.unties()
    }

    fn replaces_base(&self) -> bool {
        self.base.is_any()
    }

    fn linear(
        &mut self,
        site: &Site,
        base: &Weight,
        bias: Option<&Vector>,
    ) -> Result<Option<Box<dyn LinearHook>>, AdapterError> {
        if let Some(layer) = self.layers.iter().find(|layer| layer.name == site.name) {
            return Ok(Some(Box::new(layer.clone())));
        }
        self.family = Some(site.config.family);
        if self.met.len() < 8 {
            self.met.push(site.name.to_string());
        }
        if !self.is_adapted(site) {
            return Ok(None);
        }
        let layer = Arc::new(self.new_linear(site, base, bias)?);
        self.layers.push(layer.clone());
        Ok(Some(Box::new(layer)))
    }

    fn embedding(
        &mut self,
        site: &Site,
        base: &Weight,
    ) -> Result<Option<Box<dyn EmbeddingHook>>, AdapterError> {
        if let Some(embedding) = self.embeddings.iter().find(|embedding| embedding.name == site.name) {
            return Ok(Some(Box::new(embedding.clone())));
        }
        let is_module = self.base.is_module(site);
        if is_module || !self.targets.has(site, false) {
            return Ok(None);
        }
        if self.settings.is_dora {
            return Err(AdapterError::Refused {
                method: self.about.name,
                what: "targets",
                got: site.name.to_string(),
                expected: "linear layers: embeddings have no magnitudes here".to_string(),
            });
        }
        let (rank, scale) = self.size(site.name);
        let embedding = LoraEmbedding::new(site, base, rank, scale, &self.settings, self.stored.as_mut())?;
        let embedding = Arc::new(embedding);
        self.embeddings.push(embedding.clone());
        Ok(Some(Box::new(embedding)))
    }

    fn finish(&mut self) -> Result<(), AdapterError> {
        if self.layers.is_empty() && self.embeddings.is_empty() {
            let (targets, examples) = (self.targets.describe(), self.met.join(", "));
            return Err(AdapterError::NoTarget { method: self.about.name, targets, examples });
        }
        if let Some(stored) = &mut self.stored {
            // PEFT writes the frozen table beside its adapter; the base has it already.
            for layer in &self.layers {
                let shape = [layer.base.n_out(), layer.base.n_in()];
                stored.take(&format!("{PREFIX}{}.base_layer.weight", layer.name), &shape)?;
            }
            stored.finish()?;
        }
        self.base.finish()
    }

    fn attached(&self, name: &str) -> Option<Box<dyn LinearHook>> {
        let layer = self.layers.iter().find(|layer| layer.name == name)?;
        Some(Box::new(layer.clone()))
    }

    fn attached_embedding(&self, name: &str) -> Option<Box<dyn EmbeddingHook>> {
        let embedding = self.embeddings.iter().find(|embedding| embedding.name == name)?;
        Some(Box::new(embedding.clone()))
    }

    fn parameters(&self) -> Vec<Parameter> {
        let of_layers = self.layers.iter().flat_map(|layer| layer.parameters());
        of_layers.chain(self.embeddings.iter().flat_map(|embedding| embedding.parameters())).collect()
    }

    fn save(&self) -> Saved {
        let mut tensors: Vec<SavedTensor> = self.layers.iter().flat_map(|layer| layer.save()).collect();
        tensors.extend(self.embeddings.iter().flat_map(|embedding| embedding.save()));
        tensors.extend(self.base.save());
        let names = self.layers.iter().map(|layer| layer.name.as_str());
        let names = names.chain(self.embeddings.iter().map(|embedding| embedding.name.as_str()));
        let config = if self.config.is_empty() {
            let names: Vec<&str> = names.collect();
            let is_transposed = self.layers.iter().any(|layer| layer.is_transposed);
            peft_config::lora(&self.settings, &self.targets, &self.base, &names, self.family, is_transposed)
        } else {
            self.config.clone()
        };
        Saved { config, tensors, base: self.base.save_bare().collect() }
    }
}
