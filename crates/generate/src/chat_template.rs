//! Conversations become prompts: Jinja templates as Hugging Face's `apply_chat_template` renders them.
//!
//! Beyond Jinja, templates may use `raise_exception`, `strftime_now`, `tojson` without HTML escapes, methods of
//! Python's strings, lists and dictionaries, loop controls, and `{% generation %}` blocks, which mark nothing here.

use crate::Error;
use crate::go_template::{GoChat, GoWishes, is_go};
use crate::templates::TEMPLATES;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use rhetor_lm::Message;
use rhetor_tokenizer::Tokenizer;

/// The name under which the one template is kept.
const NAME: &str = "chat";

/// A compiled template with the model's tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    /// The template, if it is written in Go's language.
    go: Option<GoChat>,
    environment: Environment<'static>,
    bos: String,
    eos: String,
    stops: &'static [&'static str],
}

/// Whether the prompt ends where the model's answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// The header of an assistant's turn is added.
    Add,
    /// The prompt ends with the last message.
    Omit,
}

impl ChatTemplate {
    /// Compiles `source`, or the template of that name in [`TEMPLATES`]; `bos` and `eos` are the spellings of the
    /// model's first and last token, empty if it has none.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate, Error> {
        let named = TEMPLATES.iter().find(|template| template.about.name == source);
        if named.is_none() && !source.contains("{{") && !source.contains("{%") {
            let known =
                TEMPLATES.iter().map(|template| template.about.name).collect::<Vec<&str>>().join(", ");
            return Err(Error::UnknownTemplate { name: source.to_string(), known });
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("these are the usual delimiters"));
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |reason: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason))
        });
        if named.is_none() && is_go(source) {
            let invalid = |reason| Error::InvalidTemplate { reason };
            let (bos, eos) = (bos.to_string(), eos.to_string());
            return Ok(ChatTemplate {
                go: Some(GoChat::new(source).map_err(invalid)?),
                environment,
                bos,
                eos,
                stops: &[],
            });
        }
        let body = open_generation_blocks(named.map_or(source, |template| template.source));
        environment
            .add_template_owned(NAME, body)
            .map_err(|error| Error::InvalidTemplate { reason: describe(&error) })?;
        Ok(ChatTemplate {
            go: None,
            environment,
            bos: bos.to_string(),
            eos: eos.to_string(),
            stops: named.map_or(&[], |template| template.stops),
        })
    }

    /// As [`ChatTemplate::new`], with the spellings of the vocabulary's first and last token.
    pub fn of(tokenizer: &Tokenizer, source: &str) -> Result<ChatTemplate, Error> {
        let spelling = |id: Option<u32>| id.and_then(|id| tokenizer.piece(id)).unwrap_or_default();
        ChatTemplate::new(source, spelling(tokenizer.bos()), spelling(tokenizer.eos()))
    }

    /// Strings that end an answer under this template, besides the model's tokens.
    pub fn stops(&self) -> &'static [&'static str] {
        self.stops
    }

    /// Renders a conversation.
    ///
    /// `tools` are JSON schemas for templates that know tools; `now` is what `strftime_now` tells, in seconds since
    /// 1970 of the local clock.
    pub fn render(
        &self,
        messages: &[Message],
        prompt: GenerationPrompt,
        tools: Option<&serde_json::Value>,
        now: i64,
    ) -> Result<String, rhetor_lm::Error> {
        if let Some(go) = &self.go {
            let rendered = go.render(messages, &GoWishes { now, ..GoWishes::default() });
            return rendered.map_err(|reason| rhetor_lm::Error::Template { reason });
        }
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.name(), content => message.content.as_str() })
            .collect();
        self.render_values(messages, prompt, tools, now)
    }

    /// As [`ChatTemplate::render`], for messages of any shape.
    pub(crate) fn render_values(
        &self,
        messages: Vec<Value>,
        prompt: GenerationPrompt,
        tools: Option<&serde_json::Value>,
        now: i64,
    ) -> Result<String, rhetor_lm::Error> {
        let strftime_now = Value::from_function(move |format: String| strftime(&format, now));
        let template = self.environment.get_template(NAME).expect("added when the environment was made");
        template
            .render(context! {
                messages,
                add_generation_prompt => prompt == GenerationPrompt::Add,
                tools => tools.map_or(Value::from(()), from_json),
                documents => Value::from(()),
                bos_token => self.bos.as_str(),
                eos_token => self.eos.as_str(),
                strftime_now,
            })
            .map_err(|error| rhetor_lm::Error::Template { reason: describe(&error) })
    }
}

/// A JSON value as templates see it; the order of keys stays.
fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (None, Some(value)) => Value::from(value),
            (None, None) => Value::from(number.as_f64()),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(from_json).collect(),
        serde_json::Value::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, item)| (key.as_str(), from_json(item))))
        }
    }
}

/// The words of the template itself if it raised the error, else what went wrong and where.
fn describe(error: &minijinja::Error) -> String {
    match (error.kind(), error.detail(), error.line()) {
        (ErrorKind::InvalidOperation, Some(detail), _) => detail.to_string(),
        (kind, detail, line) => {
            let line = line.map_or(String::new(), |line| format!(" (line {line} of the template)"));
            format!("{kind}{}{line}", detail.map_or(String::new(), |detail| format!(": {detail}")))
        }
    }
}

/// `{% generation %}` marks the assistant's words for training; for rendering it is a block that is always taken.
fn open_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}") else { break };
        let tag = &rest[start..start + len + 2];
        out.push_str(&rest[..start]);
        let inner = tag[2..tag.len() - 2].trim_matches(|c| "-+".contains(c)).trim();
        match inner {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = &rest[start + len + 2..];
    }
    out + rest
}

/// `json.dumps` of Python with `ensure_ascii=False`, as Hugging Face's `tojson`.
fn to_json(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    let escape = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    options.assert_all_used()?;
    let separators = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        _ if indent.is_some() => (",".to_string(), ": ".to_string()),
        _ => (", ".to_string(), ": ".to_string()),
    };
    let mut out = String::new();
    Dump { indent, escape, sort, separators }.write(value, 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

/// How JSON is laid out.
struct Dump {
    indent: Option<usize>,
    escape: bool,
    sort: bool,
    separators: (String, String),
}

impl Dump {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), minijinja::Error> {
        match value.kind() {
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                let entries = keys.into_iter().map(|key| {
                    let item = value.get_item(&key)?;
                    Ok((Some(key), item))
                });
                self.write_all(['{', '}'], entries, depth, out)
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| Ok((None, item)));
                self.write_all(['[', ']'], items, depth, out)
            }
            ValueKind::String => {
                self.write_string(value.as_str().unwrap_or_default(), out);
                Ok(())
            }
            ValueKind::None => {
                out.push_str("null");
                Ok(())
            }
            ValueKind::Bool => {
                out.push_str(if value.is_true() { "true" } else { "false" });
                Ok(())
            }
            ValueKind::Number => {
                out.push_str(&value.to_string());
                Ok(())
            }
            kind => Err(minijinja::Error::new(
                ErrorKind::InvalidOperation,
                format!("an object of type {kind} is not JSON serializable"),
            )),
        }
    }

    fn write_all(
        &self,
        [open, close]: [char; 2],
        entries: impl Iterator<Item = Result<(Option<Value>, Value), minijinja::Error>>,
        depth: usize,
        out: &mut String,
    ) -> Result<(), minijinja::Error> {
        out.push(open);
        let mut is_empty = true;
        for entry in entries {
            let (key, item) = entry?;
            if !is_empty {
                out.push_str(&self.separators.0);
            }
            is_empty = false;
            self.new_line(depth + 1, out);
            if let Some(key) = key {
                self.write_string(&key.to_string(), out);
                out.push_str(&self.separators.1);
            }
            self.write(&item, depth + 1, out)?;
        }
        if !is_empty {
            self.new_line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn write_string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.escape && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Python's `strftime` in the C locale for `now`, seconds since 1970; directives unknown here stay as they are.
pub(crate) fn strftime(format: &str, now: i64) -> String {
    let (days, seconds) = (now.div_euclid(86_400), now.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let weekday = DAYS[(days + 4).rem_euclid(7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let hour_12 = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let is_unpadded = directive == Some('-');
        if is_unpadded {
            directive = chars.next();
        }
        let width = |n: usize| if is_unpadded { 0 } else { n };
        let number = |value: i64, n: usize| format!("{value:0width$}", width = width(n));
        match directive {
            Some('Y') => out.push_str(&number(year, 4)),
            Some('y') => out.push_str(&number(year.rem_euclid(100), 2)),
            Some('m') => out.push_str(&number(month, 2)),
            Some('d') => out.push_str(&number(day, 2)),
            Some('e') => out.push_str(&format!("{day:>width$}", width = width(2))),
            Some('H') => out.push_str(&number(hour, 2)),
            Some('I') => out.push_str(&number(hour_12, 2)),
            Some('M') => out.push_str(&number(minute, 2)),
            Some('S') => out.push_str(&number(second, 2)),
            Some('j') => out.push_str(&number(days - days_before(year) + 1, 3)),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('B') => out.push_str(month_name),
            Some('b') => out.push_str(&month_name[..3]),
            Some('F') => out.push_str(&format!("{year:04}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('%') => out.push('%'),
            Some(other) => {
                out.push('%');
                out.push(other);
            }
            None => out.push('%'),
        }
    }
    out
}

/// Year, month and day of a count of days since 1970-01-01 in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 1 March of the year 0, so that the leap day is the last of its year; 400 years are 146,097 days.
    let shifted = days + 719_468;
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + shifted.div_euclid(146_097) * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Days from 1970-01-01 to the first of January of `year`.
fn days_before(year: i64) -> i64 {
    let past = year - 1;
    365 * (year - 1970) + (past.div_euclid(4) - 492) - (past.div_euclid(100) - 19)
        + (past.div_euclid(400) - 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String, String> {
        let template = ChatTemplate::new(source, "<s>", "</s>").map_err(|error| error.to_string())?;
        template.render(messages, GenerationPrompt::Add, None, 0).map_err(|error| error.to_string())
    }

    fn talk() -> Vec<Message> {
        vec![Message::system("S"), Message::user(" U1 "), Message::assistant("A1"), Message::user("U2")]
    }

    #[test]
    fn every_named_template_renders_a_conversation_as_its_model_was_trained() {
        let expected = [
            (
                "chatml",
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n U1 <|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n\
                 <|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n",
            ),
            ("llama2", "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\n U1 [/INST] A1 </s><s>[INST] U2 [/INST]"),
            (
                "llama3",
                "<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n\
                 U1<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|><|start_header_id|>user\
                 <|end_header_id|>\n\nU2<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            ("vicuna", "S USER:  U1  ASSISTANT: A1</s>USER: U2 ASSISTANT:"),
            (
                "zephyr",
                "<|system|>\nS</s>\n<|user|>\n U1 </s>\n<|assistant|>\nA1</s>\n<|user|>\nU2</s>\n<|assistant|>\n",
            ),
            ("mistral", "<s>[INST] S\n\n U1  [/INST] A1</s>[INST] U2 [/INST]"),
            ("mistral-v0.1", "<s>[INST] S\n\n U1  [/INST] A1</s> [INST] U2 [/INST]"),
            (
                "solar",
                "### System:\nS\n\n### User:\n U1 \n\n### Assistant:\nA1\n\n### User:\nU2\n\n### Assistant:\n",
            ),
            ("minigpt4", "S###Human:  U1 ###Assistant: A1###Human: U2###Assistant: "),
            ("minigpt-v2", "S<s>[INST]  U1  [/INST] A1</s><s>[INST] U2 [/INST]"),
            (
                "orca2",
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n U1 <|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n\
                 <|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n",
            ),
            ("falcon", "S\nUser:  U1 \nAssistant: A1\nUser: U2\nAssistant:"),
            ("phi2", "S\nInstruct:  U1 \nOutput: A1\nInstruct: U2\nOutput:"),
            ("phi2-chat", "S\nAlice:  U1 \nBob: A1\nAlice: U2\nBob:"),
            ("zero-shot", "S\n### Human:  U1 \n### Assistant: A1\n### Human: U2\n### Assistant:"),
        ];
        assert_eq!(expected.len(), TEMPLATES.len());
        for (name, expected) in expected {
            assert_eq!(render(name, &talk()).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn a_template_refuses_in_its_own_words() {
        let twice = [Message::user("a"), Message::user("b")];
        let refused = render("llama2", &twice).unwrap_err();
        assert!(refused.contains("the user first"), "{refused}");
        let refused = render("llama2", &[Message::user("x [/INST] y")]).unwrap_err();
        assert!(refused.ends_with("llama2 refuses a message that contains [/INST]"), "{refused}");
        let refused = render("{{ nothing.at_all.here }}", &twice).unwrap_err();
        assert!(refused.contains("undefined"), "{refused}");
    }

    #[test]
    fn a_name_that_is_no_template_is_refused_with_the_names_there_are() {
        let refused = render("chatlm", &[]).unwrap_err();
        assert!(refused.contains("chatlm") && refused.contains("chatml, llama2"), "{refused}");
        let refused = render("{% if %}", &[]).unwrap_err();
        assert!(refused.contains("line 1"), "{refused}");
    }

    #[test]
    fn generation_blocks_are_taken_as_they_stand() {
        let source = "{%- for m in messages -%}\n{% generation %}\n{{ m.content }}\n  {%- endgeneration -%}\n{% endfor %}";
        assert_eq!(render(source, &[Message::user("a"), Message::user("b")]).unwrap(), "ab");
    }

    #[test]
    fn the_clock_is_passed_in() {
        let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}", "", "").unwrap();
        let at = |now| template.render(&[], GenerationPrompt::Add, None, now).unwrap();
        assert_eq!(at(0), "01 Jan 1970");
        assert_eq!(at(1_709_164_800), "29 Feb 2024");
        let noon = 1_735_646_400 + 61;
        assert_eq!(
            strftime("%Y-%m-%dT%H:%M:%S %A %a %B %j %y %-d %I %p %% %F %T %q", noon),
            "2024-12-31T12:01:01 Tuesday Tue December 366 24 31 12 PM % 2024-12-31 12:01:01 %q"
        );
        assert_eq!(strftime("%F", -1), "1969-12-31");
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let template =
            ChatTemplate::new("{{ tools | tojson }}|{{ tools | tojson(indent=2) }}", "", "").unwrap();
        let tools = serde_json::json!({"b": [1, 2.5, true, null, "<é\n\">"], "a": {}});
        let out = template.render(&[], GenerationPrompt::Omit, Some(&tools), 0).unwrap();
        let (flat, indented) = out.split_once('|').unwrap();
        assert_eq!(flat, r#"{"b": [1, 2.5, true, null, "<é\n\">"], "a": {}}"#);
        assert!(indented.starts_with("{\n  \"b\": [\n    1,\n    2.5,"), "{indented}");
        assert!(indented.ends_with("\"a\": {}\n}"), "{indented}");
    }
}
