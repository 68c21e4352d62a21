//! How calls of tools look: one line for each way in which models were taught to write them.

use super::json::{Scan, container, items, members, text_of};
use rhetor_catalog::{About, Source};
use rhetor_lm::Tool;

/// A way to write calls.
#[derive(Debug)]
pub struct ToolSyntax {
    /// How it introduces itself.
    pub about: About,
    /// Stands before a call; empty where a call is all that an answer has.
    pub begin: &'static str,
    /// Stands after it.
    pub end: &'static str,
    /// Stands between two calls.
    pub between: &'static str,
    /// What stands between `begin` and `end`.
    pub body: Body,
    /// A control token that may stand before a call that has no `begin`.
    pub prefix: Option<&'static str>,
}

/// What a call is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// A JSON object with the name and the arguments under these keys.
    Object(&'static str, &'static str),
    /// A list of such objects: all calls of an answer in one.
    List(&'static str, &'static str),
    /// The name, this text, and the arguments as a JSON object.
    Named(&'static str),
}

/// Every way; the last is used where a template knows no tools: they are described in the system's turn.
pub const TOOL_SYNTAX: &[ToolSyntax] = &[
    syntax(
        "hermes",
        "<tool_call>{\"name\": .., \"arguments\": ..}</tool_call>: Hermes, Qwen2.5, Qwen3, QwQ, Granite 4",
        "NousResearch/Hermes-Function-Calling",
        ["<tool_call>\n", "\n</tool_call>", "\n"],
        Body::Object("name", "arguments"),
    ),
    ToolSyntax {
        prefix: Some("<|python_tag|>"),
        ..syntax(
            "llama3",
            "{\"name\": .., \"parameters\": ..} and nothing else: Llama 3.1, 3.2 and 3.3",
            "meta-llama/llama-models, models/llama3_1/prompt_format.md",
            ["", "", ""],
            Body::Object("name", "parameters"),
        )
    },
    syntax(
        "mistral",
        "[TOOL_CALLS][{\"name\": .., \"arguments\": ..}]: Mistral 7B v0.3, Nemo, Mixtral 8x22B",
        "mistralai/mistral-common, instruct tokenizer v3",
        ["[TOOL_CALLS]", "", ""],
        Body::List("name", "arguments"),
    ),
    syntax(
        "mistral-args",
        "[TOOL_CALLS]name[ARGS]{..}: Mistral Small 3.2, Devstral, Ministral 3",
        "mistralai/mistral-common, instruct tokenizer v11 and v13",
        ["[TOOL_CALLS]", "", ""],
        Body::Named("[ARGS]"),
    ),
    syntax(
        "functionary",
        "<function=name>{..}</function>: Functionary 3.1, Llama 3.1 with tools of one's own",
        "MeetKai/functionary, v3.1 prompt template",
        ["<function=", "</function>", ""],
        Body::Named(">"),
    ),
    syntax(
        "command-r7b",
        "<|START_ACTION|>[{\"tool_name\": .., \"parameters\": ..}]<|END_ACTION|>: Command R7B, Command A",
        "CohereForAI/c4ai-command-r7b-12-2024",
        ["<|START_ACTION|>", "<|END_ACTION|>", ""],
        Body::List("tool_name", "parameters"),
    ),
    syntax(
        "nemotron",
        "<TOOLCALL>[{\"name\": .., \"arguments\": ..}]</TOOLCALL>: Nemotron Nano 2",
        "nvidia/NVIDIA-Nemotron-Nano-9B-v2",
        ["<TOOLCALL>", "</TOOLCALL>", ""],
        Body::List("name", "arguments"),
    ),
    syntax(
        "generic",
        "as hermes, the tools described in the system's turn: for templates that know no tools",
        "Qwen/Qwen2.5-7B-Instruct, chat template",
        ["<tool_call>\n", "\n</tool_call>", "\n"],
        Body::Object("name", "arguments"),
    ),
];

const fn syntax(
    name: &'static str,
    summary: &'static str,
    project: &'static str,
    [begin, end, between]: [&'static str; 3],
    body: Body,
) -> ToolSyntax {
    let about = About { name, summary, source: Source::Project(project), options: &[] };
    ToolSyntax { about, begin, end, between, body, prefix: None }
}

/// A call as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub name: String,
    /// A JSON object, as text.
    pub arguments: String,
}

impl ToolSyntax {
    /// The line for templates that know no tools.
    pub fn generic() -> &'static ToolSyntax {
        TOOL_SYNTAX.last().expect("the table has lines")
    }

    /// Whether `shown`, a call of `name` as a template writes it, is written in this way.
    pub(crate) fn wrote(&self, shown: &str, name: &str) -> bool {
        match self.body {
            Body::Object(key, arguments) | Body::List(key, arguments) => {
                let is_list = matches!(self.body, Body::List(..));
                let begin = format!("{}{}", self.begin.trim_end(), if is_list { "[" } else { "" });
                shown.contains(&begin)
                    && shown.contains(&format!("\"{key}\": \"{name}\""))
                    && shown.contains(&format!("\"{arguments}\": {{"))
            }
            Body::Named(between) => {
                shown.contains(&format!("{}{name}", self.begin)) && shown.contains(&format!("{between}{{"))
            }
        }
    }

    /// Where in `text` a call may begin, `at_begin` if nothing but calls stands before it; the second value is the
    /// number of bytes after which it is looked at again if it is none.
    pub(crate) fn opening(&self, text: &str, at_begin: bool) -> Option<(usize, usize)> {
        let marker = self.marker();
        let marked = text.find(marker).map(|at| (at, marker.len()));
        let first = text.len() - text.trim_start().len();
        let is_bare = self.begin.is_empty() && at_begin && text[first..].starts_with('{');
        if is_bare { Some((first, 1)) } else { marked }
    }

    /// What announces a call.
    pub(crate) fn marker(&self) -> &'static str {
        self.prefix.unwrap_or(self.begin.trim_end())
    }

    /// The texts that announce and close calls, in which control tokens may stand.
    pub(crate) fn spellings(&self) -> impl Iterator<Item = &'static str> {
        let inside = match self.body {
            Body::Named(between) => between,
            Body::Object(..) | Body::List(..) => "",
        };
        // Mistral writes the id of a call between its name and its arguments.
        [self.prefix.unwrap_or(""), self.begin, inside, self.end, CALL_ID].into_iter()
    }

    /// The calls at the beginning of `text`, where [`ToolSyntax::opening`] found that some may begin. If the text is over,
    /// what closes them may be missing.
    pub(crate) fn calls(&self, text: &str, is_over: bool) -> Scan<Vec<Written>> {
        let mut at = 0;
        let marker = self.marker();
        if let Some(rest) = text.strip_prefix(marker) {
            at = text.len() - rest.len();
        }
        at += white(&text[at..]);
        let written = match self.body {
            Body::Named(between) => {
                let (name, n_bytes) = match name(&text[at..], between) {
                    Scan::Done(name, n_bytes) => (name, n_bytes),
                    Scan::Partial => return Scan::Partial,
                    Scan::Broken => return Scan::Broken,
                };
                at += n_bytes;
                at += white(&text[at..]);
                match container(&text[at..]) {
                    Scan::Done(arguments, n_bytes) => {
                        at += n_bytes;
                        if !arguments.starts_with('{') {
                            return Scan::Broken;
                        }
                        vec![Written { name, arguments: arguments.to_string() }]
                    }
                    Scan::Partial => return Scan::Partial,
                    Scan::Broken => return Scan::Broken,
                }
            }
            Body::Object(..) | Body::List(..) => match container(&text[at..]) {
                Scan::Done(value, n_bytes) => {
                    at += n_bytes;
                    let objects = if value.starts_with('[') { items(value) } else { vec![value] };
                    match objects.into_iter().map(|object| self.object(object)).collect() {
                        Some(written) => written,
                        None => return Scan::Broken,
                    }
                }
                Scan::Partial => return Scan::Partial,
                Scan::Broken => return Scan::Broken,
            },
        };
        let end = self.end.trim();
        let rest = &text[at + white(&text[at..])..];
        if rest.starts_with(end) {
            return Scan::Done(
                written,
                if end.is_empty() { at } else { text.len() - rest.len() + end.len() },
            );
        }
        match end.starts_with(rest) {
            true if is_over => Scan::Done(written, text.len()),
            true => Scan::Partial,
            false => Scan::Broken,
        }
    }

    /// A call that is written as an object. Keys of other families are understood too: small models mix them up.
    fn object(&self, object: &str) -> Option<Written> {
        let members = if object.starts_with('{') { members(object) } else { return None };
        let find = |keys: &[&str]| {
            keys.iter().find_map(|key| members.iter().find(|(own, _)| own == key)).map(|(_, value)| *value)
        };
        if let Some(inside) = find(&["function"]).filter(|value| value.starts_with('{')) {
            return self.object(inside);
        }
        let (name_key, arguments_key) = match self.body {
            Body::Object(name, arguments) | Body::List(name, arguments) => (name, arguments),
            Body::Named(_) => return None,
        };
        let name = find(&[name_key, "name", "function"]).filter(|value| value.starts_with('"'))?;
        let arguments = match find(&[arguments_key, "arguments", "parameters"]) {
            None | Some("null") => "{}".to_string(),
            Some(value) if value.starts_with('{') => value.to_string(),
            // JSON in a JSON string.
            Some(value) => {
                let inside = text_of(value);
                let is_object =
                    matches!(container(inside.trim()), Scan::Done(all, _) if all == inside.trim());
                let is_object = is_object && inside.trim_start().starts_with('{') && value.starts_with('"');
                if is_object { inside.trim().to_string() } else { return None }
            }
        };
        Some(Written { name: text_of(name).into_owned(), arguments })
    }

    /// A call as text, for a turn of the past.
    pub(crate) fn write(&self, name: &str, arguments: &str) -> String {
        let quoted = || serde_json::Value::from(name).to_string();
        let body = match self.body {
            Body::Object(key, values) => format!("{{\"{key}\": {}, \"{values}\": {arguments}}}", quoted()),
            Body::List(key, values) => format!("[{{\"{key}\": {}, \"{values}\": {arguments}}}]", quoted()),
            Body::Named(between) => format!("{name}{between}{arguments}"),
        };
        format!("{}{body}{}", self.begin, self.end)
    }

    /// A grammar in Lark of one call of one of `tools`, or of several if they may stand in `parallel`; each with
    /// arguments that its JSON Schema accepts. `text` writes a text that may have control tokens in it as Lark.
    pub(crate) fn grammar(
        &self,
        tools: &[&Tool],
        parallel: bool,
        text: &dyn Fn(&str) -> String,
    ) -> Result<String, String> {
        let mut rules = Vec::new();
        for (i, tool) in tools.iter().enumerate() {
            let schema = schema(tool)?;
            let name = serde_json::Value::from(tool.name.as_str());
            let (before, after) = match self.body {
                Body::Object(key, values) | Body::List(key, values) => {
                    (format!("{{\"{key}\": {name}, \"{values}\": "), "}")
                }
                Body::Named(between) => (format!("{}{between}", tool.name), ""),
            };
            rules.push(format!("tool_{i}: {} arguments_{i} {}", text(&before), text(after)));
            rules.push(format!("arguments_{i}: %json {schema}"));
        }
        let any: Vec<String> = (0..tools.len()).map(|i| format!("tool_{i}")).collect();
        let any = format!("({})", any.join(" | "));
        let more = |item: &str, between: &str| match (parallel, between) {
            (false, _) => item.to_string(),
            (true, between) => format!("{item} ({} {item}){{0,{}}}", text(between), CALLS_MAX - 1),
        };
        let calls = match self.body {
            Body::List(..) => {
                format!(
                    "{} {} {} {}",
                    text(self.begin),
                    text("["),
                    more(&any, ", "),
                    text(&format!("]{}", self.end))
                )
            }
            // An answer that is a call and nothing else has one.
            Body::Object(..) if self.begin.is_empty() => any,
            Body::Object(..) | Body::Named(_) => {
                more(&format!("{} {any} {}", text(self.begin), text(self.end)), self.between)
            }
        };
        rules.insert(0, format!("calls: {calls}"));
        Ok(rules.join("\n"))
    }
}

/// Calls that an answer may have at most where a grammar makes them: a small model would never end.
const CALLS_MAX: usize = 16;

/// Between name and arguments of a call in Mistral's later templates.
const CALL_ID: &str = "[CALL_ID]";

/// Bytes of white space at the beginning.
fn white(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// A name and what stands between it and its arguments; an id of the call is passed over.
fn name(text: &str, between: &str) -> Scan<String> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let end = text.find(|c| !is_letter(c)).unwrap_or(text.len());
    let name = &text[..end];
    let mut rest = &text[end..];
    if name.len() > 128 || (name.is_empty() && !rest.is_empty()) {
        return Scan::Broken;
    }
    if let Some(id) = rest.strip_prefix(CALL_ID) {
        rest = id.trim_start_matches(is_letter);
    }
    if rest.starts_with(between) {
        return Scan::Done(name.to_string(), text.len() - rest.len() + between.len());
    }
    let may_be = between.starts_with(rest) || CALL_ID.starts_with(rest);
    if may_be { Scan::Partial } else { Scan::Broken }
}

/// The schema of a tool's arguments, which are an object, for llguidance: without white space that nobody asked for.
fn schema(tool: &Tool) -> Result<serde_json::Value, String> {
    let parameters: serde_json::Value = serde_json::from_str(&tool.parameters)
        .map_err(|error| format!("the parameters of `{}` are not JSON: {error}", tool.name))?;
    let serde_json::Value::Object(mut schema) = parameters else {
        return Err(format!("the parameters of `{}` are not a JSON Schema: {parameters}", tool.name));
    };
    schema.entry("type").or_insert_with(|| "object".into());
    // Arguments that the tool does not declare serve nobody, unless something else in the schema may declare them.
    let declares_elsewhere = [
        "additionalProperties",
        "patternProperties",
        "unevaluatedProperties",
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
    ];
    if schema.contains_key("properties") && !declares_elsewhere.iter().any(|key| schema.contains_key(*key)) {
        schema.insert("additionalProperties".to_string(), false.into());
    }
    let layout =
        serde_json::json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    schema.insert("x-guidance".to_string(), layout);
    Ok(schema.into())
}
