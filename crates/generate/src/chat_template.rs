//! Conversations become prompts: Jinja templates as Hugging Face's `apply_chat_template` renders them.
//!
//! Beyond Jinja, templates may use `raise_exception`, `strftime_now`, `tojson` without HTML escapes, methods of
//! Python's strings, lists and dictionaries, loop controls, and `{% generation %}` blocks, which mark nothing here.

use crate::Error;
use crate::go_template::{GoChat, GoWishes, is_go};
use crate::jinja::{from_json, open_generation_blocks, strftime, to_json};
use crate::templates::TEMPLATES;
use crate::turns::{Arguments, tool_values, turn_values};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use rhetor_lm::{Message, Role, Tool};
use rhetor_tokenizer::Tokenizer;

/// The name under which the one template is kept.
const NAME: &str = "chat";

/// Stands behind the last message where the prompt ends inside it: a noncharacter, which no text has.
const END: char = '\u{10FFFE}';

/// A compiled template with the model's tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    /// The template, if it is written in Go's language.
    go: Option<GoChat>,
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
    stops: &'static [&'static str],
}

/// Where the prompt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GenerationPrompt {
    /// With the header of an assistant's turn, which is to be written.
    #[default]
    Add,
    /// With the last message.
    Omit,
    /// Inside the last message, which is to be continued: what closes it is left out.
    Continue,
}

impl GenerationPrompt {
    /// An assistant's last words are continued, unless they call tools; everybody else is answered.
    pub fn after(messages: &[Message]) -> GenerationPrompt {
        match messages.last() {
            Some(last) if last.role == Role::Assistant && last.tool_calls.is_empty() => {
                GenerationPrompt::Continue
            }
            _ => GenerationPrompt::Add,
        }
    }
}

/// What a template is given beside the messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct RenderOptions<'a> {
    /// Where the prompt ends.
    pub prompt: GenerationPrompt,
    /// The tools that the model may call, for templates that know tools.
    pub tools: &'a [Tool],
    /// Whether the model is to think, for templates that ask; `None` = as the template has it.
    pub think: Option<bool>,
    /// What `strftime_now` tells, in seconds since 1970 of the local clock.
    pub now: i64,
}

impl RenderOptions<'_> {
    /// A prompt that ends there, without tools, at the time `now`.
    pub fn at(prompt: GenerationPrompt, now: i64) -> RenderOptions<'static> {
        RenderOptions { prompt, now, ..RenderOptions::default() }
    }
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
        let source = named.map_or(source, |template| template.source);
        if named.is_none() && is_go(source) {
            let invalid = |reason| Error::InvalidTemplate { reason };
            return Ok(ChatTemplate {
                go: Some(GoChat::new(source).map_err(invalid)?),
                environment,
                source: source.to_string(),
                bos: bos.to_string(),
                eos: eos.to_string(),
                stops: &[],
            });
        }
        environment
            .add_template_owned(NAME, open_generation_blocks(source))
            .map_err(|error| Error::InvalidTemplate { reason: describe(&error) })?;
        Ok(ChatTemplate {
            go: None,
            environment,
            source: source.to_string(),
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

    /// The Jinja that it is made of.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation.
    ///
    /// Arguments of calls are given as objects, or, to a template that fails on these, as JSON text. Fails in the
    /// template's own words if it refuses, or if the last message is to be continued and the template does not show it.
    pub fn render(
        &self,
        messages: &[Message],
        options: &RenderOptions<'_>,
    ) -> Result<String, rhetor_lm::Error> {
        if options.prompt != GenerationPrompt::Continue {
            return self.render_whole(messages, options);
        }
        let mut messages = messages.to_vec();
        if let Some(last) = messages.last_mut() {
            last.content.extend([END, ' ']);
        }
        let options = RenderOptions { prompt: GenerationPrompt::Omit, ..*options };
        let mut rendered = self.render_whole(&messages, &options)?;
        let Some(end) = rendered.rfind(END) else {
            let reason = "it does not show the last message, which is to be continued".to_string();
            return Err(rhetor_lm::Error::Template { reason });
        };
        // A template that cuts white space off a message cuts it off one that was begun too.
        let is_trimmed = !rendered[end..].starts_with([END, ' '].iter().collect::<String>().as_str());
        rendered.truncate(end);
        if is_trimmed {
            rendered.truncate(rendered.trim_end().len());
        }
        Ok(rendered)
    }

    fn render_whole(
        &self,
        messages: &[Message],
        options: &RenderOptions<'_>,
    ) -> Result<String, rhetor_lm::Error> {
        if let Some(go) = &self.go {
            let wishes = GoWishes { tools: options.tools, think: options.think, now: options.now };
            return go.render(messages, &wishes).map_err(|reason| rhetor_lm::Error::Template { reason });
        }
        let with = |arguments| self.render_values(turn_values(messages, arguments, &self.source), options);
        let has_calls = messages.iter().any(|message| !message.tool_calls.is_empty());
        let rendered = match with(Arguments::Object) {
            Err(error) if has_calls => with(Arguments::Text).map_err(|_| error),
            rendered => rendered,
        };
        rendered.map_err(|error| rhetor_lm::Error::Template { reason: describe(&error) })
    }

    fn render_values(
        &self,
        messages: Vec<Value>,
        options: &RenderOptions<'_>,
    ) -> Result<String, minijinja::Error> {
        let now = options.now;
        let strftime_now = Value::from_function(move |format: String| strftime(&format, now));
        let template = self.environment.get_template(NAME).expect("added when the environment was made");
        let tools = match options.tools {
            [] => Value::from(()),
            tools => from_json(&tool_values(tools)),
        };
        // Templates ask whether these are defined: they are only where something was said.
        let wishes = match options.think {
            None => context! {},
            Some(think) => context! { enable_thinking => think, thinking => think },
        };
        template.render(context! {
            messages,
            add_generation_prompt => options.prompt == GenerationPrompt::Add,
            tools,
            documents => Value::from(()),
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            strftime_now,
            ..wishes
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String, String> {
        let template = ChatTemplate::new(source, "<s>", "</s>").map_err(|error| error.to_string())?;
        template
            .render(messages, &RenderOptions::at(GenerationPrompt::Add, 0))
            .map_err(|error| error.to_string())
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
        let at = |now| template.render(&[], &RenderOptions::at(GenerationPrompt::Add, now)).unwrap();
        assert_eq!(at(0), "01 Jan 1970");
        assert_eq!(at(1_709_164_800), "29 Feb 2024");
        let noon = 1_735_646_400 + 61;
        assert_eq!(
            strftime("%Y-%m-%dT%H:%M:%S %A %a %B %j %y %-d %I %p %% %F %T %q", noon),
            "2024-12-31T12:01:01 Tuesday Tue December 366 24 31 12 PM % 2024-12-31 12:01:01 %q"
        );
        assert_eq!(strftime("%F", -1), "1969-12-31");
    }
}
