//! Full fine-tuning: every tensor of the base trains, or those that are named.
//!
//! Source: BERT, arXiv:1810.04805, §3.2, which fine-tunes all parameters end to end.

use rhetor_catalog::{About, Source, Values};
use rhetor_tensor::Parameter;
use std::path::Path;

use super::base_tensors::BaseTensors;
use super::peft_config::Config;
use super::stored::{Saved, Stored};
use super::targets::{Kind, Targets};
use super::{Adapter, AdapterError, AdapterOptions, Bias, Method, Names, Purpose, Site};

/// Every tensor trains, or those of the modules that [`AdapterOptions::targets`] names.
pub(super) static FULL: Method = Method {
    about: About {
        name: "full",
        summary: "every tensor of the base trains, or those of the modules named",
        source: Source::Paper {
            title: "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
            id: "arXiv:1810.04805",
            section: "§3.2",
        },
        options: &[],
    },
    build: |_: &Values, options| Ok(Box::new(Direct::new(&FULL.about, Which::of(options)?))),
};

/// An adapter that adds nothing: it trains tensors of the base.
pub(super) struct Direct {
    about: &'static About,
    which: Which,
    tensors: BaseTensors,
    purpose: Purpose,
}

/// Which tensors of the base train.
pub(super) enum Which {
    /// All.
    All,
    /// Weights and biases of these modules.
    Modules(Box<Targets>),
    /// Biases.
    Biases,
}

impl Which {
    fn of(options: &AdapterOptions) -> Result<Which, AdapterError> {
        options.check_used("full", &["targets", "exclude", "layers"])?;
        if options.targets == Names::Default && options.layers.is_none() && options.exclude == Names::Default
        {
            return Ok(Which::All);
        }
        let names = match &options.targets {
            Names::Default => Names::Pattern(".*".to_string()),
            names => names.clone(),
        };
        let targets = Targets::new(names, options.exclude.clone(), options.layers.clone(), Kind::Lora)?;
        Ok(Which::Modules(Box::new(targets)))
    }
}

impl Direct {
    pub fn new(about: &'static About, which: Which) -> Direct {
        let mut tensors = BaseTensors::new(&[], Bias::None);
        tensors.ours = &[""];
        Direct { about, which, tensors, purpose: Purpose::Training }
    }

    /// What was trained and saved: its tensors take the place of the base's.
    pub fn read(
        method: &str,
        config: &Config,
        file: &Path,
        purpose: Purpose,
    ) -> Result<Direct, AdapterError> {
        let (about, which) = match method {
            "full" => (&FULL.about, Which::All),
            "bitfit" => (&super::bitfit::BITFIT.about, Which::Biases),
            _ => return Err(config.wrong("rhetor_method", "full or bitfit")),
        };
        let mut tensors = BaseTensors::new(&[], Bias::None);
        tensors.ours = &[""];
        tensors.file = Some(Stored::open(file)?);
        Ok(Direct { about, which, tensors, purpose })
    }
}

impl Adapter for Direct {
    fn about(&self) -> &'static About {
        self.about
    }

    fn trains(&self, site: &Site) -> bool {
        if self.purpose == Purpose::Inference {
            return false;
        }
        match &self.which {
            Which::All => true,
            _ if site.is_head() => true,
            Which::Modules(targets) => targets.has(site, site.shape.len() == 2 && site.suffix == ".weight"),
            Which::Biases => site.suffix == ".bias",
        }
    }

    fn trained(&mut self, site: &Site, parameter: &Parameter) {
        self.tensors.trained(site, false, parameter);
    }

    fn replaces(&mut self, site: &Site) -> Result<Option<Vec<f32>>, AdapterError> {
        self.tensors.replaces(site, false, None)
    }

    fn replaces_base(&self) -> bool {
        true
    }

    fn finish(&mut self) -> Result<(), AdapterError> {
        if !self.tensors.is_empty() {
            return self.tensors.finish();
        }
        let (targets, examples) = match &self.which {
            Which::Modules(targets) => (targets.describe(), "the names of the checkpoint's tensors"),
            Which::Biases => {
                ("anything that has a bias".to_string(), "the names of the checkpoint's tensors")
            }
            Which::All => ("anything".to_string(), "nothing"),
        };
        Err(AdapterError::NoTarget { method: self.about.name, targets, examples: examples.to_string() })
    }

    /// Its tensors are those of the base, which [`Model::parameters`](crate::Model::parameters) lists.
    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }

    fn save(&self) -> Saved {
        let mut config = serde_json::Map::new();
        config.insert("rhetor_method".to_string(), self.about.name.into());
        Saved { config, tensors: Vec::new(), base: self.tensors.save_bare().collect() }
    }
}
