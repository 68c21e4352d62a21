//! Prompt tuning: trained vectors stand before the embeddings of the tokens.
//!
//! The P vectors take the positions 0 to P − 1 of each sequence; its tokens follow. Source: The Power of Scale for
//! Parameter-Efficient Prompt Tuning, arXiv:2104.08691, §2 and §3.2. P-tuning's finished prompts (arXiv:2103.10385) are
//! read alike.

use rhetor_catalog::{About, Opt, Source, Values};
use rhetor_tensor::{Parameter, Tensor, Weight, ops};
use serde_json::{Map, Value};
use std::sync::Arc;

use super::base_tensors::BaseTensors;
use super::peft_config::{list_or_null, number, with_common};
use super::stored::{Saved, SavedTensor, Stored};
use super::{Adapter, AdapterError, AdapterOptions, EmbeddingHook, Init, Method, Purpose, Site, init};
use crate::layers::Pass;

/// Trained vectors before the embeddings.
pub(super) static PROMPT_TUNING: Method = Method {
    about: About {
        name: "prompt-tuning",
        summary: "trained vectors before the embeddings of the tokens; the model is frozen",
        source: Source::Paper {
            title: "The Power of Scale for Parameter-Efficient Prompt Tuning",
            id: "arXiv:2104.08691",
            section: "§2, §3.2",
        },
        options: &[Opt {
            name: "tokens",
            summary: "vectors of the prompt",
            default: 20.0,
            range: (1.0, 65536.0),
        }],
    },
    build,
};

/// Random vocabulary means one of this many first tokens: vocabularies begin with what is frequent.
const COMMON_TOKENS: usize = 5000;

/// The only tensor of the file.
pub(super) const NAME: &str = "prompt_embeddings";

fn build(values: &Values, options: &AdapterOptions) -> Result<Box<dyn Adapter>, AdapterError> {
    let method = PROMPT_TUNING.about.name;
    options.check_used(method, &["init", "initial-text", "modules-to-save"])?;
    let refuse = |got: String, expected: &str| AdapterError::Refused {
        method,
        what: "init",
        got,
        expected: expected.to_string(),
    };
    match options.init {
        Init::Gaussian => return Err(refuse("Gaussian".to_string(), "Default, Random, Vocabulary or Text")),
        Init::Text if options.initial_ids.is_empty() => {
            return Err(refuse("Text without a text".to_string(), "a text of at least one token"));
        }
        _ => {}
    }
    Ok(Box::new(PromptTuning {
        n_virtual: values.get("tokens") as usize,
        options: options.clone(),
        base: BaseTensors::new(&options.modules_to_save, Default::default()),
        stored: None,
        config: Map::new(),
        purpose: Purpose::Training,
        prompt: None,
    }))
}

/// The adapter.
pub(super) struct PromptTuning {
    n_virtual: usize,
    options: AdapterOptions,
    base: BaseTensors,
    stored: Option<Stored>,
    config: Map<String, Value>,
    purpose: Purpose,
    prompt: Option<Attached>,
}

struct Attached {
    hook: Arc<Prompt>,
    /// H and L, which PEFT writes down.
    n_heads: usize,
    n_layers: usize,
}

/// P vectors: [P, D]
struct Prompt(Parameter);

impl PromptTuning {
    /// A prompt of `n_virtual` vectors that was read.
    pub fn read(
        n_virtual: usize,
        base: BaseTensors,
        stored: Stored,
        config: Map<String, Value>,
        purpose: Purpose,
    ) -> PromptTuning {
        let options = AdapterOptions::default();
        PromptTuning { n_virtual, options, base, stored: Some(stored), config, purpose, prompt: None }
    }

    /// The first values. [P, D]
    fn draw(&self, table: &Weight) -> Result<Vec<f32>, AdapterError> {
        let (n, width, vocab_size) = (self.n_virtual, table.n_in(), table.n_out());
        let ids: Vec<usize> = match self.options.init {
            Init::Random | Init::Gaussian => {
                return Ok(init::normal(self.options.seed, NAME, n * width, 1.0));
            }
            Init::Default | Init::Vocabulary => {
                init::indices(self.options.seed, NAME, n, vocab_size.min(COMMON_TOKENS))
            }
            Init::Text => (0..n)
                .map(|i| self.options.initial_ids[i % self.options.initial_ids.len()] as usize)
                .collect(),
        };
        if let Some(id) = ids.iter().find(|&&id| id >= vocab_size) {
            return Err(AdapterError::Refused {
                method: PROMPT_TUNING.about.name,
                what: "initial-text",
                got: format!("token {id}"),
                expected: format!("a token below {vocab_size}"),
            });
        }
        let mut values = vec![0.0; n * width];
        values.chunks_exact_mut(width).zip(ids).for_each(|(row, id)| table.row(id, row));
        Ok(values)
    }
}

impl Adapter for PromptTuning {
    fn about(&self) -> &'static About {
        &PROMPT_TUNING.about
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

    fn embedding(
        &mut self,
        site: &Site,
        base: &Weight,
    ) -> Result<Option<Box<dyn EmbeddingHook>>, AdapterError> {
        if site.ours != "token_embd" {
            return Ok(None);
        }
        if let Some(attached) = &self.prompt {
            return Ok(Some(Box::new(attached.hook.clone())));
        }
        let shape = [self.n_virtual, base.n_in()];
        let values = match &mut self.stored {
            Some(stored) => stored.require(NAME, &shape)?,
            None => self.draw(base)?,
        };
        let prompt = Parameter::new(NAME, shape, values, base.precision());
        prompt.set_frozen(self.purpose == Purpose::Inference);
        let hook = Arc::new(Prompt(prompt));
        let (n_heads, n_layers) = (site.config.n_heads, site.config.n_layers);
        self.prompt = Some(Attached { hook: hook.clone(), n_heads, n_layers });
        Ok(Some(Box::new(hook)))
    }

    fn n_virtual(&self) -> usize {
        self.n_virtual
    }

    fn finish(&mut self) -> Result<(), AdapterError> {
        self.stored.as_ref().map_or(Ok(()), Stored::finish)
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.prompt.iter().map(|attached| attached.hook.0.clone()).collect()
    }

    fn save(&self) -> Saved {
        let Some(Attached { hook, n_heads, n_layers }) = &self.prompt else { return Saved::default() };
        let prompt = &hook.0;
        let mut tensors = vec![SavedTensor::new(NAME, prompt.shape(), prompt.read().clone())];
        tensors.extend(self.base.save());
        let (init, text) = match (self.options.init, &self.options.initial_text) {
            (Init::Text, Some(text)) => ("TEXT", Value::from(text.as_str())),
            (Init::Default | Init::Vocabulary, _) => ("SAMPLE_VOCAB", Value::Null),
            _ => ("RANDOM", Value::Null),
        };
        let config = if self.config.is_empty() {
            with_common(
                "PROMPT_TUNING",
                vec![
                    ("modules_to_save", list_or_null(&self.base.module_names())),
                    ("num_attention_heads", (*n_heads).into()),
                    ("num_layers", (*n_layers).into()),
                    ("num_transformer_submodules", 1.into()),
                    ("num_virtual_tokens", number(self.n_virtual as f64)),
                    ("prompt_tuning_init", init.into()),
                    ("prompt_tuning_init_text", text),
                    ("token_dim", prompt.shape()[1].into()),
                    ("tokenizer_name_or_path", Value::Null),
                ],
            )
        } else {
            self.config.clone()
        };
        Saved { config, tensors, base: Vec::new() }
    }

    fn check_mergeable(&self) -> Result<(), AdapterError> {
        let reason = "its vectors are not those of any token";
        Err(AdapterError::NotMergeable { method: PROMPT_TUNING.about.name, reason })
    }
}

impl EmbeddingHook for Arc<Prompt> {
    fn output(&self, _ids: &[u32], y: Tensor, pass: &Pass) -> Tensor {
        let n_virtual = self.0.shape()[0];
        let rows = pass.rows_below(n_virtual);
        if rows.is_empty() {
            return y;
        }
        let ids: Vec<u32> = (0..n_virtual as u32).collect();
        let prompt = ops::embedding::embedding(&Weight::Trained(self.0.clone()), &ids); // [P, D]
        ops::rows::replace(y, 0, &rows, &prompt)
    }

    fn merge(&self, _weight: &mut [f32]) {
        unreachable!("check_mergeable refuses before");
    }
}
