//! Bottleneck adapters: a thin perceptron after a sublayer, before the residual sum: `h + U act(D h + b) + b'`.
//!
//! Houlsby's stand after attention and after the feed-forward layer, and the norms train too (arXiv:1902.00751, §2.1);
//! Pfeiffer's after the feed-forward layer alone (arXiv:2005.00247, §3.2.2). Files as AdapterHub's `adapters` 1.3 has them.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::activation::Activation;
use rhetor_tensor::{Parameter, Tensor, Vector, Weight, ops};
use serde_json::{Map, Value};
use std::sync::Arc;

use super::base_tensors::BaseTensors;
use super::stored::{Saved, SavedTensor, Stored};
use super::{Adapter, AdapterError, AdapterOptions, LinearHook, Method, Purpose, Site, hub, init};
use crate::layers::Pass;

const SIZE: Opt =
    Opt { name: "size", summary: "inner width of the perceptrons", default: 64.0, range: (1.0, 65536.0) };
const NORMS: Opt = Opt {
    name: "norms",
    summary: "1: the norms of the base train too, and are saved in trainable_params.safetensors",
    default: 1.0,
    range: (0.0, 1.0),
};

/// Perceptrons after both sublayers.
pub(super) static HOULSBY: Method = Method {
    about: About {
        name: "houlsby",
        summary: "thin perceptrons after attention and after the feed-forward layer, and trained norms",
        source: Source::Paper {
            title: "Parameter-Efficient Transfer Learning for NLP",
            id: "arXiv:1902.00751",
            section: "§2.1",
        },
        options: &[SIZE, NORMS],
    },
    build: |values, options| build(&HOULSBY.about, values, options),
};

/// Perceptrons after the feed-forward layer alone.
pub(super) static PFEIFFER: Method = Method {
    about: About {
        name: "pfeiffer",
        summary: "thin perceptrons after the feed-forward layer",
        source: Source::Paper {
            title: "AdapterFusion: Non-Destructive Task Composition for Transfer Learning",
            id: "arXiv:2005.00247",
            section: "§3.2.2",
        },
        options: &[SIZE, Opt { default: 0.0, ..NORMS }],
    },
    build: |values, options| build(&PFEIFFER.about, values, options),
};

fn build(
    about: &'static About,
    values: &Values,
    options: &AdapterOptions,
) -> Result<Box<dyn Adapter>, AdapterError> {
    options.check_used(about.name, &["modules-to-save", "layers"])?;
    let mut base = BaseTensors::new(&options.modules_to_save, Default::default());
    base.ours = if values.is_on("norms") { NORM_NAMES } else { &[] };
    let settings = Settings {
        size: values.get("size") as usize,
        divisor: None,
        has_attention: about.name == "houlsby",
        activation: if about.name == "houlsby" { Activation::Gelu } else { Activation::Relu },
        scale: 1.0,
        layers: options.layers.clone(),
        skipped: Vec::new(),
    };
    let purpose = Purpose::Training;
    Ok(Box::new(Bottleneck::new(
        settings,
        base,
        None,
        Map::new(),
        purpose,
        options.seed,
        "default".to_string(),
    )))
}

/// What our names of norms have in them.
pub(super) const NORM_NAMES: &[&str] = &["norm"];

/// The shape of the perceptrons, and where they stand.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Inner width.
    pub size: usize,
    /// The inner width is the width of the model by this, where a file says so.
    pub divisor: Option<f64>,
    /// Whether they stand after attention too.
    pub has_attention: bool,
    pub activation: Activation,
    /// Factor of their output.
    pub scale: f32,
    /// Only in these layers.
    pub layers: Option<Vec<usize>>,
    /// Not in these.
    pub skipped: Vec<usize>,
}

/// The adapter.
pub(super) struct Bottleneck {
    settings: Settings,
    base: BaseTensors,
    stored: Option<Stored>,
    config: Map<String, Value>,
    purpose: Purpose,
    seed: u64,
    /// The adapter's own name, which is part of its tensors' names.
    name: String,
    layers: Vec<Arc<Perceptron>>,
    /// The model's family and width.
    family: Option<&'static str>,
    width: usize,
}

struct Perceptron {
    /// The name of its tensors, without their ends.
    key: String,
    /// [M, D] and [M]
    down: (Parameter, Parameter),
    /// [D, M] and [D]
    up: (Parameter, Parameter),
    activation: Activation,
    scale: f32,
}

impl Bottleneck {
    pub fn new(
        settings: Settings,
        base: BaseTensors,
        stored: Option<Stored>,
        config: Map<String, Value>,
        purpose: Purpose,
        seed: u64,
        name: String,
    ) -> Bottleneck {
        let layers = Vec::new();
        Bottleneck { settings, base, stored, config, purpose, seed, name, layers, family: None, width: 0 }
    }

    fn perceptron(&mut self, key: String, width: usize, base: &Weight) -> Result<Perceptron, AdapterError> {
        let size = match self.settings.divisor {
            // As AdapterHub rounds.
            Some(divisor) => ((width as f64 / divisor) as usize).max(1),
            None => self.settings.size,
        };
        let (seed, purpose) = (self.seed, self.purpose);
        let stored = &mut self.stored;
        let mut parameter = |end: &str, shape: &[usize]| -> Result<Parameter, AdapterError> {
            let name = format!("{key}.{end}");
            let n = shape.iter().product();
            let values = match stored {
                Some(stored) => stored.require(&name, shape)?,
                None if shape.len() == 1 => vec![0.0; n],
                // Cut at two deviations, as adapter-bert does: the sublayer's output stays nearly as it was.
                None => {
                    let drawn = init::normal(seed, &name, n, 1e-3);
                    drawn.into_iter().map(|value| value.clamp(-2e-3, 2e-3)).collect()
                }
            };
            let parameter = match *shape {
                [n] => Parameter::new(name, [n], values, base.precision()),
                _ => Parameter::new(name, [shape[0], shape[1]], values, base.precision()),
            };
            parameter.set_frozen(purpose == Purpose::Inference);
            Ok(parameter)
        };
        Ok(Perceptron {
            down: (
                parameter("adapter_down.0.weight", &[size, width])?,
                parameter("adapter_down.0.bias", &[size])?,
            ),
            up: (parameter("adapter_up.weight", &[width, size])?, parameter("adapter_up.bias", &[width])?),
            activation: self.settings.activation,
            scale: self.settings.scale,
            key,
        })
    }
}

impl Adapter for Bottleneck {
    fn about(&self) -> &'static About {
        if self.settings.has_attention { &HOULSBY.about } else { &PFEIFFER.about }
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

    fn linear(
        &mut self,
        site: &Site,
        base: &Weight,
        _bias: Option<&Vector>,
    ) -> Result<Option<Box<dyn LinearHook>>, AdapterError> {
        let is_attention = match site.ours {
            "blk.{i}.attn_output" if self.settings.has_attention => true,
            "blk.{i}.ffn_down" => false,
            _ => return Ok(None),
        };
        let is_meant = self.settings.layers.as_ref().is_none_or(|layers| layers.contains(&site.layer));
        if !is_meant || self.settings.skipped.contains(&site.layer) {
            return Ok(None);
        }
        let key = hub::place(site, is_attention, &self.name);
        (self.family, self.width) = (Some(site.config.family), base.n_out());
        if let Some(layer) = self.layers.iter().find(|layer| layer.key == key) {
            return Ok(Some(Box::new(layer.clone())));
        }
        let layer = Arc::new(self.perceptron(key, base.n_out(), base)?);
        self.layers.push(layer.clone());
        Ok(Some(Box::new(layer)))
    }

    fn finish(&mut self) -> Result<(), AdapterError> {
        if self.layers.is_empty() {
            return Err(AdapterError::NoTarget {
                method: self.about().name,
                targets: "the end of a sublayer".to_string(),
                examples: "attn_output, ffn_down".to_string(),
            });
        }
        self.base.finish()?;
        self.stored.as_ref().map_or(Ok(()), Stored::finish)
    }

    fn parameters(&self) -> Vec<Parameter> {
        let of = |layer: &Arc<Perceptron>| {
            let Perceptron { down, up, .. } = &**layer;
            [&down.0, &down.1, &up.0, &up.1].map(Parameter::clone)
        };
        self.layers.iter().flat_map(of).collect()
    }

    fn save(&self) -> Saved {
        let own = self.parameters();
        let tensors = own
            .iter()
            .map(|parameter| SavedTensor::new(parameter.name(), parameter.shape(), parameter.read().clone()));
        let tensors = tensors.chain(self.base.save()).collect();
        let config = if self.config.is_empty() {
            let size = self.layers.first().map_or(1, |layer| layer.down.1.n_elements());
            hub::config(&self.settings, size, self.width, self.family.unwrap_or_default(), &self.name)
        } else {
            self.config.clone()
        };
        Saved { config, tensors, base: self.base.save_bare().collect() }
    }

    fn check_mergeable(&self) -> Result<(), AdapterError> {
        let reason = "a non-linearity stands between its matrices";
        Err(AdapterError::NotMergeable { method: self.about().name, reason })
    }
}

impl LinearHook for Arc<Perceptron> {
    fn output(&self, _x: &Tensor, y: Tensor, start: usize, _pass: &Pass) -> Tensor {
        let linear = |x: &Tensor, (weight, bias): &(Parameter, Parameter)| {
            let bias = Vector::Trained(bias.clone());
            ops::linear::linear(x, &[Weight::Trained(weight.clone())], &[bias])
        };
        let inner = ops::activation::activation(linear(&y, &self.down), self.activation); // [T, M]
        ops::columns::add_columns(y, start, &linear(&inner, &self.up), self.scale)
    }

    fn merge(&self, _weight: &mut [f32]) {
        unreachable!("check_mergeable refuses before");
    }
}
