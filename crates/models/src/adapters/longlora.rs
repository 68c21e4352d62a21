//! LongLoRA: a longer context by LoRA on attention, trained embeddings and norms, and attention in shifted groups.
//!
//! Positions are divided by `factor` (linear interpolation, arXiv:2306.15595, §2.3), which is written into the adapter's
//! configuration and, when it is merged, into the model's. The groups are for training alone: a finished model attends
//! to everything. Source: LongLoRA, arXiv:2309.12307, §3.2 and §3.3.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_kernels::attention::training::{Groups, Shift};
use rhetor_kernels::rope::RopeScaling;
use rhetor_tensor::{Parameter, Vector, Weight};

use super::lora::Lora;
use super::stored::{Saved, Stored};
use super::{
    Adapter, AdapterError, AdapterOptions, AttentionHook, EmbeddingHook, LinearHook, Method, Names, Site,
};
use crate::config::ModelConfig;
use crate::layers::Pass;

/// LoRA for longer contexts.
pub(super) static LONGLORA: Method = Method {
    about: About {
        name: "longlora",
        summary: "a longer context: LoRA on attention, trained embeddings and norms, attention in shifted groups",
        source: Source::Paper {
            title: "LongLoRA: Efficient Fine-tuning of Long-Context Large Language Models",
            id: "arXiv:2309.12307",
            section: "§3.2, §3.3",
        },
        options: &[
            Opt { name: "rank", summary: "inner extent r of A and B", default: 8.0, range: (1.0, 4096.0) },
            Opt {
                name: "alpha",
                summary: "the product counts alpha / rank",
                default: 16.0,
                range: (1e-6, 1e6),
            },
            Opt {
                name: "dropout",
                summary: "probability with which elements of the input of A are dropped in training",
                default: 0.0,
                range: (0.0, 0.99),
            },
            Opt {
                name: "target-context",
                summary: "tokens of the longer context; 0 = as it is",
                default: 0.0,
                range: (0.0, 1e8),
            },
            Opt {
                name: "group-ratio",
                summary: "tokens of a group, as a part of the longest sequence of a batch; 1 = no groups",
                default: 0.25,
                range: (1e-3, 1.0),
            },
        ],
    },
    build,
};

/// Our names of tensors that train in full have one of these in them.
const TRAINED_NAMES: &[&str] = &["embd", "norm"];

/// The key of the adapter's configuration that holds what PEFT has no key for.
pub(super) const KEY: &str = "longlora";

fn build(values: &Values, options: &AdapterOptions) -> Result<Box<dyn Adapter>, AdapterError> {
    let targets = match &options.targets {
        Names::Default => Names::Pattern(ATTENTION.to_string()),
        names => names.clone(),
    };
    let options = AdapterOptions { targets, ..options.clone() };
    let mut lora = Lora::build_with(&LONGLORA.about, values, &options)?;
    lora.base_tensors().ours = TRAINED_NAMES;
    let groups = Some(values.get("group-ratio"));
    let target = values.get("target-context") as usize;
    Ok(Box::new(LongLora { lora, groups, target, factor: None }))
}

/// Every linear layer of attention, in the families' own names.
const ATTENTION: &str =
    r".*(?:attn|attention)\.(?:[qkvo]_proj|query_key_value|dense|c_attn|c_proj|out_proj|Wqkv)";

/// The adapter: LoRA, and what stands around it.
pub(super) struct LongLora {
    lora: Lora,
    /// Part of the longest sequence that a group has; `None` = not in training.
    groups: Option<f64>,
    /// Tokens of the longer context; 0 = as it is, or as `factor` says.
    target: usize,
    /// By which positions are divided.
    factor: Option<f32>,
}

impl LongLora {
    /// An adapter that was read, without groups.
    pub fn read(mut lora: Lora, trained: Option<Stored>, factor: Option<f32>) -> LongLora {
        let base = lora.base_tensors();
        base.ours = if trained.is_some() { TRAINED_NAMES } else { &[] };
        base.file = trained;
        lora.set_about(&LONGLORA.about);
        LongLora { lora, groups: None, target: 0, factor }
    }

    fn refuse(what: &'static str, got: String, expected: &str) -> AdapterError {
        AdapterError::Refused { method: LONGLORA.about.name, what, got, expected: expected.to_string() }
    }
}

impl Adapter for LongLora {
    fn about(&self) -> &'static About {
        &LONGLORA.about
    }

    fn prepare(&mut self, config: &mut ModelConfig) -> Result<(), AdapterError> {
        self.lora.prepare(config)?;
        if config.has_encoder() {
            let expected = "a decoder alone: an encoder reads all of its rows at once";
            return Err(LongLora::refuse("model", config.family.to_string(), expected));
        }
        let old = match config.rope.as_ref().map(|rope| &rope.scaling) {
            Some(RopeScaling::None) => 1.0,
            Some(RopeScaling::Linear { factor }) => *factor,
            _ if self.target == 0 && self.factor.is_none() => return Ok(()),
            other => {
                let expected = "plain rotary positions, or linearly scaled ones";
                return Err(LongLora::refuse("positions of the base", format!("{other:?}"), expected));
            }
        };
        if self.target > 0 && self.factor.is_none() {
            let reach = config.context_len;
            if self.target <= reach {
                let expected = format!("more than {reach}, which the base reaches already");
                return Err(LongLora::refuse("target-context", self.target.to_string(), &expected));
            }
            self.factor = Some(old * self.target.div_ceil(reach) as f32);
        }
        if let (Some(factor), Some(rope)) = (self.factor, &mut config.rope) {
            rope.scaling = RopeScaling::Linear { factor };
            config.context_len = (config.context_len as f32 / old * factor) as usize;
            rope.context = config.context_len;
        }
        Ok(())
    }

    fn trains(&self, site: &Site) -> bool {
        self.lora.trains(site)
    }

    fn trained(&mut self, site: &Site, parameter: &Parameter) {
        self.lora.trained(site, parameter);
    }

    fn replaces(&mut self, site: &Site) -> Result<Option<Vec<f32>>, AdapterError> {
        self.lora.replaces(site)
    }

    fn unties(&self) -> bool {
        self.lora.unties()
    }

    /// Its positions are not the base's either.
    fn replaces_base(&self) -> bool {
        true
    }

    fn linear(
        &mut self,
        site: &Site,
        base: &Weight,
        bias: Option<&Vector>,
    ) -> Result<Option<Box<dyn LinearHook>>, AdapterError> {
        self.lora.linear(site, base, bias)
    }

    fn embedding(
        &mut self,
        site: &Site,
        base: &Weight,
    ) -> Result<Option<Box<dyn EmbeddingHook>>, AdapterError> {
        self.lora.embedding(site, base)
    }

    fn attention(
        &mut self,
        _layer: usize,
        _config: &ModelConfig,
        _interleaved: Option<usize>,
    ) -> Result<Option<Box<dyn AttentionHook>>, AdapterError> {
        let groups = self.groups.filter(|ratio| *ratio < 1.0);
        Ok(groups.map(|ratio| Box::new(Shifted { ratio }) as Box<dyn AttentionHook>))
    }

    fn finish(&mut self) -> Result<(), AdapterError> {
        self.lora.finish()
    }

    fn attached(&self, name: &str) -> Option<Box<dyn LinearHook>> {
        self.lora.attached(name)
    }

    fn attached_embedding(&self, name: &str) -> Option<Box<dyn EmbeddingHook>> {
        self.lora.attached_embedding(name)
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.lora.parameters()
    }

    fn save(&self) -> Saved {
        let mut saved = self.lora.save();
        let own = serde_json::json!({ "factor": self.factor.map(f64::from) });
        saved.config.insert(KEY.to_string(), own);
        saved
    }
}

/// Attention in shifted groups. The shift is cut at the ends of a sequence, so that no token sees a later one: the wrapped
/// shift of the paper's algorithm 1 lets the first tokens see the last, and wants sequences of whole groups.
struct Shifted {
    /// Part of the longest sequence.
    ratio: f64,
}

impl AttentionHook for Shifted {
    fn groups(&self, pass: &Pass) -> Option<Groups> {
        pass.training?;
        let longest = pass.spans.iter().map(|span| span.len).max()?;
        let len = (longest as f64 * self.ratio).ceil() as usize;
        (len > 1).then_some(Groups { len, shift: Shift::Cut })
    }
}
