//! Ollama's options: of a request, of a model made by `create`, of a Modelfile.

use crate::refusal::Refusal;
use crate::wire::fields::Fields;
use crate::wire::request::{count, random_seed, sampling, stop, whole, wrong};
use rhetor_lm::{Request, Sampling};
use serde_json::{Map, Value, json};

/// What kind of value an option has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Float,
    Bool,
    Strings,
}

/// Every option by name. Those that have no effect are refused unless they ask for what is so anyway.
const OPTIONS: &[(&str, Kind)] = &[
    ("num_ctx", Kind::Int),
    ("num_predict", Kind::Int),
    ("seed", Kind::Int),
    ("temperature", Kind::Float),
    ("top_k", Kind::Int),
    ("top_p", Kind::Float),
    ("min_p", Kind::Float),
    ("typical_p", Kind::Float),
    ("repeat_last_n", Kind::Int),
    ("repeat_penalty", Kind::Float),
    ("presence_penalty", Kind::Float),
    ("frequency_penalty", Kind::Float),
    ("mirostat", Kind::Int),
    ("mirostat_tau", Kind::Float),
    ("mirostat_eta", Kind::Float),
    ("stop", Kind::Strings),
    ("draft_num_predict", Kind::Int),
    ("num_keep", Kind::Int),
    ("num_batch", Kind::Int),
    ("num_gpu", Kind::Int),
    ("main_gpu", Kind::Int),
    ("num_thread", Kind::Int),
    ("use_mmap", Kind::Bool),
    ("use_mlock", Kind::Bool),
    ("numa", Kind::Bool),
    ("low_vram", Kind::Bool),
    ("f16_kv", Kind::Bool),
    ("logits_all", Kind::Bool),
    ("vocab_only", Kind::Bool),
    ("embedding_only", Kind::Bool),
    ("penalize_newline", Kind::Bool),
    ("tfs_z", Kind::Float),
];

/// Options that have no effect here: the values that are so anyway, and why others are refused.
fn settled() -> [(&'static str, Vec<Value>, &'static str); 15] {
    let no = || vec![json!(false)];
    [
        ("num_keep", vec![], "it belongs to the context shift, which is not done"),
        ("num_batch", vec![json!(512)], "prompts are computed 512 tokens at a time"),
        ("num_gpu", vec![json!(0), json!(-1)], "models are computed by the CPU"),
        ("main_gpu", vec![json!(0)], "models are computed by the CPU"),
        ("num_thread", vec![json!(0)], "threads are set when the server starts"),
        ("use_mmap", vec![json!(true)], "files are always mapped"),
        ("use_mlock", no(), "no memory is locked"),
        ("numa", no(), "memory is not bound to nodes"),
        ("low_vram", no(), "models are computed by the CPU"),
        ("f16_kv", vec![json!(true)], "how keys and values are stored is set when the server starts"),
        ("logits_all", no(), "use logprobs"),
        ("vocab_only", no(), "a model is loaded as a whole"),
        ("embedding_only", no(), "a model is loaded as a whole"),
        ("penalize_newline", vec![json!(true)], "line breaks are tokens like others"),
        ("tfs_z", vec![json!(1), json!(1.0)], "tail-free sampling is not built in"),
    ]
}

/// What options say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    pub sampling: Sampling,
    pub stop: Vec<String>,
    /// `None` = at random.
    pub seed: Option<u64>,
    /// `None` = as many as there is room for.
    pub max_tokens: Option<usize>,
    /// `None` = whatever the model has.
    pub context: Option<usize>,
    pub speculate: Option<usize>,
}

impl Default for Options {
    /// Ollama's own.
    fn default() -> Options {
        let sampling =
            Sampling { temperature: 0.8, top_k: 40, top_p: 0.9, penalty_last_n: 64, ..Sampling::default() };
        Options { sampling, stop: Vec::new(), seed: None, max_tokens: None, context: None, speculate: None }
    }
}

impl Options {
    /// Ollama's, with those of a model over them.
    pub fn of_model(parameters: &Map<String, Value>) -> Result<Options, Refusal> {
        let mut options = Options::default();
        let mut fields = Fields::of(Value::Object(parameters.clone()), "parameters", false)?;
        options.read(&mut fields)?;
        fields.finish()?;
        Ok(options)
    }

    /// Puts what `fields` say over what is there.
    pub fn read(&mut self, fields: &mut Fields) -> Result<(), Refusal> {
        sampling(fields, &mut self.sampling)?;
        if fields.has("stop") {
            self.stop = stop(fields, "stop")?;
        }
        let path = fields.path("seed");
        match whole(fields, "seed")? {
            None => {}
            Some(-1) => self.seed = None,
            Some(seed) => {
                let seed = u64::try_from(seed).map_err(|_| wrong(&path, format!("{seed} is below -1")))?;
                self.seed = Some(seed);
            }
        }
        let path = fields.path("num_predict");
        match whole(fields, "num_predict")? {
            None => {}
            Some(-1 | -2) => self.max_tokens = None,
            Some(n) => {
                let n = usize::try_from(n).map_err(|_| {
                    wrong(
                        &path,
                        format!("{n} is neither a number of tokens nor -1 (no limit) or -2 (to the end)"),
                    )
                })?;
                self.max_tokens = Some(n);
            }
        }
        if let Some(context) = count(fields, "num_ctx")? {
            self.context = (context > 0).then_some(context);
        }
        if let Some(n) = count(fields, "draft_num_predict")? {
            self.speculate = Some(n);
        }
        for (name, values, why) in settled() {
            if let Some(value) = fields.value(name)
                && !values.contains(&value)
            {
                fields.unsupported(name, &format!("{why}; got {value}"))?;
            }
        }
        Ok(())
    }

    /// Puts the options into a request.
    pub fn apply(&self, request: &mut Request) {
        request.sampling = self.sampling.clone();
        request.stop = self.stop.clone();
        request.seed = self.seed.unwrap_or_else(random_seed);
        request.max_tokens = self.max_tokens;
        request.speculate = self.speculate;
    }
}

/// The value that a Modelfile's `PARAMETER name text` means; `stop` may come often.
pub(crate) fn parameter(name: &str, text: &str) -> Result<Value, String> {
    let Some((_, kind)) = OPTIONS.iter().find(|(known, _)| *known == name) else {
        return Err(format!("unknown parameter '{name}'"));
    };
    let wrong = |what: &str| format!("{name}: {text:?} is no {what}");
    match kind {
        Kind::Strings => Ok(json!(text)),
        Kind::Bool => text.parse::<bool>().map(Value::from).map_err(|_| wrong("boolean")),
        Kind::Int => text.parse::<i64>().map(Value::from).map_err(|_| wrong("whole number")),
        Kind::Float => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(json!(number)),
            _ => Err(wrong("number")),
        },
    }
}

/// Adds one parameter to others: `stop` accumulates, of the others the last wins.
pub(crate) fn add_parameter(parameters: &mut Map<String, Value>, name: &str, value: Value) {
    match (parameters.get_mut(name), name) {
        (Some(Value::Array(stops)), "stop") => stops.push(value),
        (_, "stop") => {
            parameters.insert(name.to_string(), json!([value]));
        }
        _ => {
            parameters.insert(name.to_string(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Options, String> {
        let mut options = Options::default();
        let mut fields = Fields::of(value, "options", false).unwrap();
        options.read(&mut fields).map_err(|refusal| refusal.message)?;
        fields.finish().map_err(|refusal| refusal.message)?;
        Ok(options)
    }

    #[test]
    fn options_are_layered_and_stops_replaced() {
        let parameters = json!({ "temperature": 0.1, "stop": ["a", "b"], "num_ctx": 512.0, "seed": 7 });
        let mut options = Options::of_model(parameters.as_object().unwrap()).unwrap();
        assert_eq!((options.sampling.temperature, options.sampling.top_k), (0.1, 40));
        let mut fields =
            Fields::of(json!({ "stop": ["c"], "seed": -1, "top_k": 3.0 }), "options", false).unwrap();
        options.read(&mut fields).unwrap();
        assert_eq!(options.stop, ["c"]);
        assert_eq!((options.seed, options.context, options.sampling.top_k), (None, Some(512), 3));
    }

    #[test]
    fn every_option_is_known_and_those_without_effect_are_refused_by_name() {
        for (name, kind) in OPTIONS {
            let value = match (*name, kind) {
                ("num_keep", _) => continue,
                ("num_batch", _) => json!(512),
                ("f16_kv" | "use_mmap" | "penalize_newline", _) => json!(true),
                ("mirostat", _) => json!(2),
                ("tfs_z", _) => json!(1.0),
                (_, Kind::Int) => json!(0),
                (_, Kind::Float) => json!(0.5),
                (_, Kind::Bool) => json!(false),
                (_, Kind::Strings) => json!(["x"]),
            };
            read(json!({ *name: value })).unwrap();
        }
        for (name, value) in [
            ("num_gpu", json!(1)),
            ("num_keep", json!(4)),
            ("use_mmap", json!(false)),
            ("mirostat", json!(1)),
            ("num_thread", json!(8)),
            ("tfs_z", json!(0.5)),
            ("colour", json!(1)),
            ("temperature", json!("hot")),
            ("num_predict", json!(-3)),
        ] {
            let message = read(json!({ name: value })).unwrap_err();
            assert!(message.contains(&format!("options.{name}")), "{message}");
        }
    }

    #[test]
    fn parameters_of_a_modelfile_get_their_types() {
        assert_eq!(parameter("num_ctx", "10"), Ok(json!(10)));
        assert_eq!(parameter("top_p", "0.5"), Ok(json!(0.5)));
        assert_eq!(parameter("use_mmap", "true"), Ok(json!(true)));
        assert_eq!(parameter("colour", "red"), Err("unknown parameter 'colour'".to_string()));
        assert!(parameter("seed", "x").unwrap_err().contains("seed"));
        let mut all = Map::new();
        for stop in ["a", "b"] {
            add_parameter(&mut all, "stop", json!(stop));
        }
        assert_eq!(all["stop"], json!(["a", "b"]));
    }
}
