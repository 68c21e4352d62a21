//! Which layers an adapter changes, by the names that Hugging Face gives them.

use fancy_regex::Regex;

use super::{AdapterError, Site};

/// Which layers a method changes when nobody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DefaultTargets {
    family: &'static str,
    lora: &'static [&'static str],
    /// Layers whose output IA3 scales.
    ia3: &'static [&'static str],
    /// Layers whose input IA3 scales.
    ia3_inputs: &'static [&'static str],
}

/// The defaults of PEFT 0.21, `utils/constants.py`.
const DEFAULTS: &[DefaultTargets] = &[
    gated("llama"),
    gated("mistral"),
    gated("decilm"),
    gated("stablelm"),
    by_queries("qwen2"),
    by_queries("qwen3"),
    by_queries("gemma"),
    by_queries("gemma2"),
    by_queries("gemma3"),
    targets("mixtral", &["q_proj", "v_proj"], &["k_proj", "v_proj", "w2"], &["w2"]),
    gated("olmo"),
    gated("olmo2"),
    targets("phi3", &["qkv_proj"], &["qkv_proj"], &["down_proj"]),
    targets("phi", &["q_proj", "v_proj", "fc1", "fc2"], &["q_proj", "v_proj", "fc2"], &["fc2"]),
    targets("gpt2", &["c_attn"], &["c_attn"], &["mlp.c_proj"]),
    targets("gptj", &["q_proj", "v_proj"], &["k_proj", "v_proj"], &["fc_out"]),
    targets("gpt-neox", &["query_key_value"], &["query_key_value"], &["dense_4h_to_h"]),
    targets("gpt-bigcode", &["c_attn"], &["c_attn"], &["mlp.c_proj"]),
    // PEFT has no layers of CodeGen's for IA3: these are those of its kin.
    targets("codegen", &["qkv_proj"], &["qkv_proj"], &["fc_out"]),
    targets("bloom", &["query_key_value"], &["query_key_value"], &["mlp.dense_4h_to_h"]),
    targets("falcon", &["query_key_value"], &["query_key_value"], &["dense_4h_to_h"]),
    targets("mpt", &["Wqkv"], &["Wqkv"], &["down_proj"]),
    targets("opt", &["q_proj", "v_proj"], &["q_proj", "k_proj"], &["fc2"]),
    targets("bart", &["q_proj", "v_proj"], &["k_proj", "v_proj"], &["fc2"]),
    targets("t5", &["q", "v"], &["k", "v"], &["wo"]),
    targets("bert", &["query", "value"], &["key", "value"], &["output.dense"]),
    targets("roberta", &["query", "value"], &["key", "value"], &["output.dense"]),
];

const fn targets(
    family: &'static str,
    lora: &'static [&'static str],
    ia3: &'static [&'static str],
    ia3_inputs: &'static [&'static str],
) -> DefaultTargets {
    DefaultTargets { family, lora, ia3, ia3_inputs }
}

const fn gated(family: &'static str) -> DefaultTargets {
    targets(family, &["q_proj", "v_proj"], &["k_proj", "v_proj"], &["down_proj"])
}

/// As [`gated`], where IA3 scales queries and not keys.
const fn by_queries(family: &'static str) -> DefaultTargets {
    targets(family, &["q_proj", "v_proj"], &["q_proj", "v_proj"], &["down_proj"])
}

/// What a method wants of [`DEFAULTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Lora,
    Ia3,
    Ia3Inputs,
}

/// The names that `kind` of method changes in this family by default; `None` if the table has no line for it.
pub(crate) fn default_targets(family: &str, kind: Kind) -> Option<&'static [&'static str]> {
    let row = DEFAULTS.iter().find(|row| row.family == family)?;
    Some(match kind {
        Kind::Lora => row.lora,
        Kind::Ia3 => row.ia3,
        Kind::Ia3Inputs => row.ia3_inputs,
    })
}

/// Names of modules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Names {
    /// What the method changes in this family when nobody says.
    #[default]
    Default,
    /// Modules called so, or whose name ends in `.` and one of these.
    List(Vec<String>),
    /// Modules whose whole name this regular expression matches.
    Pattern(String),
    /// Every linear layer but the output layer.
    AllLinear,
}

impl Names {
    /// What a person writes: `all-linear`, names with commas between them, or `re:` and a regular expression.
    pub fn parse(text: &str) -> Names {
        match text.strip_prefix("re:") {
            Some(pattern) => Names::Pattern(pattern.to_string()),
            None if text == "all-linear" => Names::AllLinear,
            None => Names::List(text.split(',').map(|name| name.trim().to_string()).collect()),
        }
    }
}

/// [`Names`] ready for use, with what narrows them down.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    pub names: Names,
    pattern: Option<Regex>,
    pub exclude: Names,
    exclude_pattern: Option<Regex>,
    /// Only these layers; layers outside the stack of blocks are then not meant.
    pub layers: Option<Vec<usize>>,
    kind: Kind,
}

impl Targets {
    pub fn new(
        names: Names,
        exclude: Names,
        layers: Option<Vec<usize>>,
        kind: Kind,
    ) -> Result<Targets, AdapterError> {
        let pattern = |names: &Names| match names {
            Names::Pattern(pattern) => whole(pattern).map(Some),
            _ => Ok(None),
        };
        let (include_pattern, exclude_pattern) = (pattern(&names)?, pattern(&exclude)?);
        Ok(Targets { names, pattern: include_pattern, exclude, exclude_pattern, layers, kind })
    }

    /// Whether the layer is meant. `is_linear` is false for tables of embeddings.
    pub fn has(&self, site: &Site, is_linear: bool) -> bool {
        let name = site.name;
        let is_excluded = match &self.exclude {
            Names::Default => false,
            Names::List(names) => names.iter().any(|end| ends_with(name, end)),
            Names::Pattern(_) => self.exclude_pattern.as_ref().is_some_and(|pattern| matches(pattern, name)),
            Names::AllLinear => is_linear,
        };
        // As in PEFT, heads train in full or not at all.
        if is_excluded || (site.is_head() && matches!(self.names, Names::AllLinear | Names::Default)) {
            return false;
        }
        let in_layers =
            || self.layers.as_ref().is_none_or(|layers| site.is_in_layer() && layers.contains(&site.layer));
        match &self.names {
            Names::Pattern(_) => self.pattern.as_ref().is_some_and(|pattern| matches(pattern, name)),
            Names::AllLinear => is_linear && !matches!(site.ours, "output" | "cls.output") && in_layers(),
            // A name in full is meant whatever its layer.
            Names::List(names) => {
                names.iter().any(|full| full == name)
                    || (in_layers() && names.iter().any(|end| ends_with(name, end)))
            }
            Names::Default => match default_targets(site.config.family, self.kind) {
                Some(names) => in_layers() && names.iter().any(|end| ends_with(name, end)),
                None => is_linear && !matches!(site.ours, "output" | "cls.output") && in_layers(),
            },
        }
    }

    /// What was asked for, for messages.
    pub fn describe(&self) -> String {
        match &self.names {
            Names::Default => "by one of the names that the method changes by default".to_string(),
            Names::List(names) => names.join(" or "),
            Names::Pattern(pattern) => format!("as the pattern `{pattern}` says"),
            Names::AllLinear => "a linear layer".to_string(),
        }
    }
}

/// Whether `name` is `end`, or ends in `.` and `end`.
pub(crate) fn ends_with(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// `pattern` as an expression that must match all of a name.
fn whole(pattern: &str) -> Result<Regex, AdapterError> {
    Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|error| AdapterError::Pattern { pattern: pattern.to_string(), reason: error.to_string() })
}

fn matches(pattern: &Regex, name: &str) -> bool {
    // An expression that takes too many steps on a name of 40 letters matches nothing that anybody means.
    pattern.is_match(name).unwrap_or(false)
}

/// Values for some modules by pattern: the first pattern that matches the end of the name gives the value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patterns<T> {
    rows: Vec<(String, Regex, T)>,
}

impl<T: Copy> Patterns<T> {
    pub fn new(given: &[(String, T)]) -> Result<Patterns<T>, AdapterError> {
        let row = |(pattern, value): &(String, T)| {
            Ok((pattern.clone(), whole(&format!(r"(?:.*\.)?(?:{pattern})"))?, *value))
        };
        Ok(Patterns { rows: given.iter().map(row).collect::<Result<_, AdapterError>>()? })
    }

    pub fn find(&self, name: &str) -> Option<T> {
        self.rows.iter().find(|(_, pattern, _)| matches(pattern, name)).map(|(_, _, value)| *value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, T)> {
        self.rows.iter().map(|(pattern, _, value)| (pattern.as_str(), *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ia3_scales_queries_of_gemma_and_keys_of_llama() {
        assert_eq!(default_targets("gemma3", Kind::Ia3), Some(&["q_proj", "v_proj"][..]));
        assert_eq!(default_targets("llama", Kind::Ia3), Some(&["k_proj", "v_proj"][..]));
        assert_eq!(default_targets("stablelm", Kind::Lora), Some(&["q_proj", "v_proj"][..]));
    }

    #[test]
    fn names_end_at_a_dot() {
        assert!(ends_with("model.layers.0.self_attn.q_proj", "q_proj"));
        assert!(ends_with("lm_head", "lm_head"));
        assert!(!ends_with("model.layers.0.self_attn.qq_proj", "q_proj"));
        assert!(ends_with("h.0.mlp.c_proj", "mlp.c_proj") && !ends_with("h.0.attn.c_proj", "mlp.c_proj"));
    }

    #[test]
    fn the_first_pattern_that_matches_gives_the_value() {
        let given = [("layers\\.1\\..*".to_string(), 3), ("down_proj".to_string(), 2)];
        let patterns = Patterns::new(&given).unwrap();
        assert_eq!(patterns.find("model.layers.1.mlp.down_proj"), Some(3));
        assert_eq!(patterns.find("model.layers.0.mlp.down_proj"), Some(2));
        assert_eq!(patterns.find("model.layers.0.mlp.up_proj"), None);
        assert!(matches!(Patterns::new(&[("(".to_string(), 1)]), Err(AdapterError::Pattern { .. })));
    }

    #[test]
    fn a_person_writes_names_a_pattern_or_all_linear() {
        assert_eq!(Names::parse("all-linear"), Names::AllLinear);
        assert_eq!(Names::parse("re:.*q_proj"), Names::Pattern(".*q_proj".to_string()));
        assert_eq!(Names::parse("q_proj, v_proj"), Names::List(vec!["q_proj".into(), "v_proj".into()]));
    }
}
