//! BitFit: only the biases of the base train.
//!
//! Source: BitFit, arXiv:2106.10199, §3.

use rhetor_catalog::{About, Source, Values};

use super::Method;
use super::full::{Direct, Which};

/// Only the biases of the base train.
pub(super) static BITFIT: Method = Method {
    about: About {
        name: "bitfit",
        summary: "only the biases of the base train; for models that have biases",
        source: Source::Paper {
            title: "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models",
            id: "arXiv:2106.10199",
            section: "§3",
        },
        options: &[],
    },
    build: |_: &Values, options| {
        options.check_used("bitfit", &[])?;
        Ok(Box::new(Direct::new(&BITFIT.about, Which::Biases)))
    },
};
