//! Directories of AdapterHub: another `adapter_config.json` than PEFT's, and `adapter.safetensors`.
//!
//! Source: `adapters` 1.3, `configuration/adapter_config.py`, `methods/modeling.py`, `models/*/mixin_*.py`.

use rhetor_kernels::activation::Activation;
use serde_json::{Map, Value, json};
use std::path::Path;

use super::base_tensors::BaseTensors;
use super::bottleneck::{Bottleneck, NORM_NAMES, Settings};
use super::peft::BASE_TENSORS;
use super::peft_config::Config;
use super::stored::Stored;
use super::{AdapterError, Bias, Purpose, Site};

/// The tensors' file.
pub(super) const TENSORS: &str = "adapter.safetensors";
/// The tensors' file of old adapters.
pub(super) const OLD_TENSORS: &str = "pytorch_adapter.bin";

/// The name of the tensors of the perceptron behind a sublayer's last matrix, without their ends.
pub(super) fn place(site: &Site, is_attention: bool, adapter: &str) -> String {
    if matches!(site.config.family, "bert" | "roberta") {
        // `encoder.layer.0.attention.output.dense` → `encoder.layer.0.attention.output.adapters.NAME`
        let module = site.name.rsplit_once('.').map_or(site.name, |(module, _)| module);
        return format!("{module}.adapters.{adapter}");
    }
    // `model.layers.0.self_attn.o_proj` → `model.layers.0`
    let number = format!(".{}.", site.layer);
    let end = site.name.find(&number).map_or(site.name.len(), |start| start + number.len() - 1);
    let sublayer = if is_attention { "attention" } else { "output" };
    format!("{}.{sublayer}_adapters.adapters.{adapter}", &site.name[..end])
}

const ACTIVATIONS: &[(&str, Activation)] = &[
    ("relu", Activation::Relu),
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("swish", Activation::Silu),
    ("tanh", Activation::Tanh),
];

/// The configuration of a new adapter; `size` is the inner width.
pub(super) fn config(
    settings: &Settings,
    size: usize,
    width: usize,
    family: &str,
    name: &str,
) -> Map<String, Value> {
    let activation = ACTIVATIONS.iter().find(|(_, activation)| *activation == settings.activation);
    let keys = json!({
        "config": {
            "adapter_residual_before_ln": false,
            "cross_adapter": false,
            "dropout": 0.0,
            "inv_adapter": null,
            "inv_adapter_reduction_factor": null,
            "is_parallel": false,
            "leave_out": settings.skipped,
            "ln_after": false,
            "ln_before": false,
            "mh_adapter": settings.has_attention,
            "non_linearity": activation.map_or("relu", |(name, _)| name),
            "original_ln_after": true,
            "original_ln_before": false,
            "output_adapter": true,
            "phm_layer": false,
            "reduction_factor": width as f64 / size as f64,
            "residual_before_ln": true,
            "scaling": f64::from(settings.scale),
            "use_gating": false,
        },
        "hidden_size": width,
        "model_type": family,
        "name": name,
        "version": "adapters.1.3.0",
    });
    match keys {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}

/// Features of AdapterHub, and the value without which they compute something that is not built here.
const REFUSED: &[(&str, bool)] = &[
    ("original_ln_before", false),
    ("ln_before", false),
    ("ln_after", false),
    ("adapter_residual_before_ln", false),
    ("is_parallel", false),
    ("phm_layer", false),
    ("use_gating", false),
    ("cross_adapter", false),
    ("output_adapter", true),
    ("original_ln_after", true),
    ("residual_before_ln", true),
];

/// Reads a bottleneck adapter.
pub(super) fn open(dir: &Path, config: &Config, purpose: Purpose) -> Result<Bottleneck, AdapterError> {
    let Some(Value::Object(keys)) = config.get("config") else {
        return Err(config.wrong("config", "an object"));
    };
    let inner = Config { file: config.file.clone(), keys: keys.clone() };
    for (feature, expected) in REFUSED {
        let got = inner.get(feature).cloned().unwrap_or(Value::Bool(*expected));
        if got != Value::Bool(*expected) {
            let (file, feature) = (config.file.clone(), feature.to_string());
            return Err(AdapterError::Unsupported { file, feature, got: got.to_string() });
        }
    }
    inner.refuse_if_set(&["inv_adapter", "stochastic_depth"])?;
    let word = inner.word("non_linearity").unwrap_or("relu");
    let activation = ACTIVATIONS.iter().find(|(name, _)| *name == word);
    let (_, activation) =
        activation.ok_or_else(|| inner.wrong("non_linearity", "relu, gelu, gelu_new, swish or tanh"))?;
    let settings = Settings {
        size: 0,
        divisor: Some(inner.number_or("reduction_factor", 16.0)?),
        has_attention: inner.switch("mh_adapter")?,
        activation: *activation,
        scale: inner.number_or("scaling", 1.0)? as f32,
        layers: None,
        skipped: inner.layers("leave_out")?.unwrap_or_default(),
    };
    let mut base = BaseTensors::new(&[], Bias::None);
    let trained = dir.join(BASE_TENSORS);
    if trained.is_file() {
        base.ours = NORM_NAMES;
        base.file = Some(Stored::open(&trained)?);
    }
    let files = [TENSORS, OLD_TENSORS].map(|name| dir.join(name));
    let Some(file) = files.iter().find(|file| file.is_file()) else {
        return Err(AdapterError::NoAdapter { dir: dir.to_path_buf(), expected: TENSORS });
    };
    let name = config.word("name").unwrap_or("default").to_string();
    Ok(Bottleneck::new(settings, base, Some(Stored::open(file)?), config.keys.clone(), purpose, 0, name))
}
