//! Models that made history, by the month of their report.
//!
//! Numbers are those of the reports; of models that can be run here the parameters are counted exactly. What no report says is
//! not said here either.

use crate::families::Licence;

/// A model that was reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Landmark {
    /// What it is called; as in [`Family::published`](crate::Family::published) where it is there.
    pub name: &'static str,
    /// Who made it.
    pub organisation: &'static str,
    /// Year and month of the report.
    pub month: (u16, u8),
    /// Elements of its weights; `None` = not told.
    pub n_parameters: Option<u64>,
    /// Tokens that it was pre-trained on; `None` = not told, or those of its base.
    pub n_tokens: Option<f64>,
    /// Which half of the Transformer it is.
    pub shape: Shape,
    /// The model that it was made from, and how.
    pub base: Option<(&'static str, &'static str)>,
    /// What can be done with its weights.
    pub licence: Licence,
    /// The report.
    pub reference: &'static str,
}

/// Which half of the Transformer a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Reads.
    Encoder,
    /// Writes.
    Decoder,
    /// Reads and writes.
    EncoderDecoder,
}

impl Shape {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Encoder => "encoder",
            Shape::Decoder => "decoder",
            Shape::EncoderDecoder => "encoder-decoder",
        }
    }
}

/// What an entry says only if it differs.
const PLAIN: Landmark = Landmark {
    name: "",
    organisation: "",
    month: (0, 0),
    n_parameters: None,
    n_tokens: None,
    shape: Shape::Decoder,
    base: None,
    licence: Licence::Open,
    reference: "",
};

/// An entry of a model with weights to count.
const fn model(
    month: (u16, u8),
    name: &'static str,
    organisation: &'static str,
    n_parameters: u64,
    licence: Licence,
    reference: &'static str,
) -> Landmark {
    Landmark { name, organisation, month, n_parameters: Some(n_parameters), licence, reference, ..PLAIN }
}

use Licence::{Open, Research, Restricted, Unpublished};

/// Every entry, the earliest first.
#[rustfmt::skip]
pub const TIMELINE: &[Landmark] = &[
    model((2018, 6), "openai-gpt", "OpenAI", 116_534_784, Open,
        "Improving Language Understanding by Generative Pre-Training (2018)"),
    Landmark { shape: Shape::Encoder, ..model((2018, 10), "bert-large-uncased", "Google", 335_141_888, Open,
        "arXiv:1810.04805") },
    model((2019, 2), "gpt2-xl", "OpenAI", 1_557_611_200, Open,
        "Language Models are Unsupervised Multitask Learners (2019)"),
    Landmark { shape: Shape::Encoder, ..model((2019, 7), "roberta-large", "Meta", 355_359_744, Open,
        "arXiv:1907.11692") },
    Landmark { shape: Shape::Encoder, ..model((2019, 9), "albert-xxlarge-v2", "Google", 222_595_584, Open,
        "arXiv:1909.11942") },
    Landmark { shape: Shape::EncoderDecoder, n_tokens: Some(1e12), ..model((2019, 10), "t5-11b", "Google",
        11_307_321_344, Open, "arXiv:1910.10683, section 3.7") },
    Landmark { n_tokens: Some(300e9), ..model((2020, 5), "gpt-3", "OpenAI", 175_000_000_000, Unpublished,
        "arXiv:2005.14165, table 2.1") },
    model((2022, 3), "codegen-16b", "Salesforce", 16_032_155_648, Open, "arXiv:2203.13474"),
    model((2022, 4), "gpt-neox-20b", "EleutherAI", 20_554_567_680, Open, "arXiv:2204.06745"),
    Landmark { n_tokens: Some(1e12), ..model((2023, 2), "llama-7b", "Meta", 6_738_415_616, Research,
        "arXiv:2302.13971, table 2") },
    Landmark { n_tokens: Some(1.4e12), ..model((2023, 2), "llama-65b", "Meta", 65_285_660_672, Research,
        "arXiv:2302.13971, table 2") },
    Landmark { name: "gpt-4", organisation: "OpenAI", month: (2023, 3), licence: Unpublished,
        reference: "arXiv:2303.08774", ..PLAIN },
    Landmark { n_tokens: Some(300e9), ..model((2023, 4), "pythia-12b", "EleutherAI", 11_846_072_320, Open,
        "arXiv:2304.01373, section 2") },
    Landmark { n_tokens: Some(1e12), ..model((2023, 5), "starcoder", "BigCode", 15_517_456_384, Restricted,
        "arXiv:2305.06161, abstract") },
    Landmark { n_tokens: Some(2e12), ..model((2023, 7), "llama-2-70b", "Meta", 68_976_648_192, Restricted,
        "arXiv:2307.09288, table 1") },
    model((2023, 10), "mistral-7b", "Mistral AI", 7_241_732_096, Open, "arXiv:2310.06825"),
    Landmark { base: Some(("mistral-7b", "distilled SFT, then DPO")), ..model((2023, 10), "zephyr-7b-beta",
        "Hugging Face", 7_241_732_096, Open, "arXiv:2310.16944, section 3") },
    Landmark { base: Some(("llama-2-13b", "instructions with explanations")), ..model((2023, 11), "orca-2-13b",
        "Microsoft", 13_015_895_040, Research, "arXiv:2311.11045") },
    Landmark { n_tokens: Some(1e12), ..model((2023, 11), "falcon-40b", "TII", 41_303_293_952, Open,
        "arXiv:2311.16867, table 1") },
    Landmark { n_tokens: Some(3.5e12), ..model((2023, 11), "falcon-180b", "TII", 178_557_088_768, Restricted,
        "arXiv:2311.16867, table 1") },
    Landmark { n_tokens: Some(1.4e12), ..model((2023, 12), "phi-2", "Microsoft", 2_779_683_840, Open,
        "Phi-2: The surprising power of small language models (Microsoft Research, 2023)") },
    Landmark { base: Some(("mistral-7b", "layers doubled in depth, trained on")), ..model((2023, 12),
        "solar-10.7b", "Upstage", 10_731_524_096, Open, "arXiv:2312.15166, section 2") },
    model((2024, 1), "Mixtral-8x7B-v0.1", "Mistral AI", 46_702_792_704, Open, "arXiv:2401.04088"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FAMILIES;

    #[test]
    fn entries_are_in_order_and_agree_with_the_families() {
        assert!(TIMELINE.is_sorted_by_key(|entry| entry.month));
        for (i, entry) in TIMELINE.iter().enumerate() {
            assert!(!entry.reference.is_empty() && (1..=12).contains(&entry.month.1), "{}", entry.name);
            assert!(TIMELINE[..i].iter().all(|other| other.name != entry.name), "{} twice", entry.name);
            let known = FAMILIES.iter().flat_map(|family| family.published).find(|p| p.name == entry.name);
            if let Some(known) = known {
                assert_eq!(entry.n_parameters, Some(known.n_parameters), "{}", entry.name);
                assert_eq!(entry.licence, known.licence, "{}", entry.name);
            }
        }
    }

    #[test]
    fn a_report_on_arxiv_is_of_the_month_that_its_number_says() {
        let numbers =
            TIMELINE.iter().filter_map(|entry| Some((entry, entry.reference.strip_prefix("arXiv:")?)));
        for (entry, number) in numbers {
            let digits = |range: std::ops::Range<usize>| number[range].parse::<u16>().unwrap();
            assert_eq!((2000 + digits(0..2), digits(2..4) as u8), entry.month, "{}", entry.name);
        }
    }
}
