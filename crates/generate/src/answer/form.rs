//! How a conversation with tools and thoughts is put to a model, and which grammar its answer must follow.

use super::generic::{Describer, spelled_out};
use super::manner::Manner;
use super::parser::{Callable, Reading};
use crate::chat_template::{ChatTemplate, GenerationPrompt, RenderOptions};
use crate::prompt::Controls;
use crate::turns::one_by_one;
use rhetor_lm::{Constraint, Error, Message, Request, Role, Tool, ToolChoice};
use rhetor_tokenizer::Tokenizer;

/// The name of the constraint that makes an answer a call.
pub(crate) const CALL: &str = "tool_call";

/// What a request makes of a template.
#[derive(Debug)]
pub(crate) struct Form<'a> {
    template: &'a ChatTemplate,
    manner: Manner,
    /// The tools that the model is shown.
    pub tools: Vec<Tool>,
    think: Option<bool>,
    /// Whether the answer follows a grammar: then it is known where its thoughts end.
    is_strict: bool,
    now: i64,
}

/// A prompt as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub text: String,
    /// Whether it ends inside a thought.
    pub is_thinking: bool,
}

impl<'a> Form<'a> {
    /// The form of `request`, whose prompt is a conversation.
    ///
    /// Fails if the tools are not what they should be, or if a model that does not think is to think.
    pub fn of(
        template: &'a ChatTemplate,
        manner: Manner,
        request: &Request,
        now: i64,
    ) -> Result<Form<'a>, Error> {
        check(request)?;
        if request.think == Some(true) && manner.thinking.is_none() {
            let reason = "the model's chat template has no place for thoughts".to_string();
            return Err(Error::InvalidOption { option: "think", reason });
        }
        let tools = match request.tools.choice {
            ToolChoice::None => Vec::new(),
            _ => request.tools.offered.clone(),
        };
        let is_forced = matches!(request.tools.choice, ToolChoice::Required | ToolChoice::Named(_));
        let is_strict = is_forced || request.constraint.is_some();
        Ok(Form { template, manner, tools, think: request.think, is_strict, now })
    }

    /// The text of a conversation up to where the answer begins; `tools` are the form's own, or stand-ins for them.
    pub fn render(&self, messages: &[Message], tools: &[Tool]) -> Result<Rendered, Error> {
        let prompt = GenerationPrompt::after(messages);
        let think = self.think.filter(|_| self.manner.has_switch);
        let options = RenderOptions { prompt, tools, think, now: self.now };
        let knows_tools = |message: &Message| message.role == Role::Tool || !message.tool_calls.is_empty();
        let text = if self.manner.is_native || (tools.is_empty() && !messages.iter().any(knows_tools)) {
            let has_several = messages.iter().any(|message| message.tool_calls.len() > 1);
            match self.template.render(messages, &options) {
                Err(error) if has_several => {
                    self.template.render(&one_by_one(messages), &options).map_err(|_| error)?
                }
                rendered => rendered?,
            }
        } else {
            let options = RenderOptions { tools: &[], ..options };
            let spelled =
                |describer| self.template.render(&spelled_out(messages, tools, describer), &options);
            let has_system = messages.iter().any(|message| message.role == Role::System);
            match spelled(Describer::System) {
                Err(error) if !has_system => spelled(Describer::User).map_err(|_| error)?,
                rendered => rendered?,
            }
        };
        Ok(self.with_thoughts(text, messages))
    }

    /// Opens or closes a thought behind a prompt, where that was asked for and the template does not do it.
    ///
    /// An empty thought makes a model that always thinks speak at once: Ma et al., arXiv:2504.09858, section 2.
    fn with_thoughts(&self, mut text: String, messages: &[Message]) -> Rendered {
        let Some(tags) = self.manner.thinking else { return Rendered { text, is_thinking: false } };
        if GenerationPrompt::after(messages) == GenerationPrompt::Continue {
            let begun = messages.last().map_or("", |message| message.content.as_str());
            let before = text.strip_suffix(begun.trim_end()).unwrap_or(&text);
            let is_thinking = match tags.open_in(begun) {
                Some(is_open) => is_open,
                None => before.trim_end().ends_with(tags.open),
            };
            return Rendered { text, is_thinking };
        }
        let is_open = text.trim_end().ends_with(tags.open);
        let is_closed = text.trim_end().ends_with(tags.close);
        if self.think == Some(false) && !self.manner.has_switch {
            match is_open {
                true => text.truncate(text.trim_end().len()),
                false => text.push_str(tags.open),
            }
            text.push_str(&format!("\n\n{}\n\n", tags.close));
            return Rendered { text, is_thinking: false };
        }
        let thinks = self.think.unwrap_or(self.manner.thinks);
        let is_opened = self.is_strict && thinks && !is_open && !is_closed;
        if is_opened {
            text.push_str(&format!("{}\n", tags.open));
        }
        Rendered { text, is_thinking: is_open || is_opened }
    }

    /// What is to be looked for in an answer to a prompt that ends inside a thought or not; ids of calls come from `seed`.
    pub fn reading(&self, is_thinking: bool, parallel: bool, seed: [u8; 32]) -> Reading {
        let callable = Callable {
            syntax: self.manner.syntax,
            names: self.tools.iter().map(|tool| tool.name.clone()).collect(),
            parallel,
            seed,
        };
        let tools = (!self.tools.is_empty()).then_some(callable);
        Reading { thinking: self.manner.thinking, is_thinking, tools }
    }

    /// The texts that mark thoughts and calls in answers, in which control tokens may stand.
    pub fn spellings(&self) -> impl Iterator<Item = &'static str> {
        let thinking = self.manner.thinking.into_iter().flat_map(|tags| [tags.open, tags.close]);
        let syntax = (!self.tools.is_empty()).then_some(self.manner.syntax);
        thinking.chain(syntax.into_iter().flat_map(|syntax| syntax.spellings()))
    }

    /// The text after which the grammar of an answer begins, if the prompt ends inside a thought.
    pub fn after(&self, is_thinking: bool) -> Option<&'static str> {
        self.manner.thinking.filter(|_| is_thinking).map(|tags| tags.close)
    }

    /// What the answer must look like, and its name: a call that is required, calls or what the request's own constraint
    /// asks for, or that constraint alone. It begins behind the thoughts.
    ///
    /// Where a call is required, the request's own constraint waits.
    pub fn constraint(
        &self,
        request: &Request,
        controls: &Controls,
        tokenizer: &Tokenizer,
    ) -> Result<(Option<Constraint>, Option<&'static str>), Error> {
        let refused = |reason| Error::InvalidOption { option: "tools", reason };
        let text = |text: &str| lark_text(text, controls, tokenizer);
        let calls = |tools: &[&Tool]| {
            self.manner.syntax.grammar(tools, request.tools.parallel, &text).map_err(refused)
        };
        let own = || (request.constraint.clone(), request.constraint.as_ref().map(Constraint::name));
        let all: Vec<&Tool> = self.tools.iter().collect();
        // Line breaks behind a thought.
        let start = "start: LINES? answer\nLINES: /\\n{1,2}/\n";
        let (grammar, name) = match (&request.tools.choice, &request.constraint) {
            (ToolChoice::Required, _) => (format!("{start}answer: calls\n{}", calls(&all)?), CALL),
            (ToolChoice::Named(name), _) => {
                let named: Vec<&Tool> = all.into_iter().filter(|tool| tool.name == *name).collect();
                (format!("{start}answer: calls\n{}", calls(&named)?), CALL)
            }
            (ToolChoice::Auto, Some(constraint)) if !all.is_empty() => {
                let own = inside_lark(constraint)?;
                let grammar = format!("{start}answer: calls | own\nown: {own}\n{}", calls(&all)?);
                (grammar, constraint.name())
            }
            (ToolChoice::Auto | ToolChoice::None, _) => return Ok(own()),
        };
        Ok((Some(Constraint::Lark(grammar)), Some(name)))
    }
}

/// Refuses tools that cannot be called, and choices among tools that are not there.
fn check(request: &Request) -> Result<(), Error> {
    let invalid = |option, reason: String| Err(Error::InvalidOption { option, reason });
    let tools = &request.tools.offered;
    for (i, tool) in tools.iter().enumerate() {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if tool.name.is_empty() || tool.name.len() > 64 || !tool.name.chars().all(is_letter) {
            let reason = format!("a name has 1 to 64 letters, digits, `_` and `-`; `{}` has not", tool.name);
            return invalid("tools", reason);
        }
        if tools[..i].iter().any(|other| other.name == tool.name) {
            return invalid("tools", format!("there are two of the name `{}`", tool.name));
        }
        if !matches!(serde_json::from_str(&tool.parameters), Ok(serde_json::Value::Object(_))) {
            let reason = format!("the parameters of `{}` are no JSON object: {}", tool.name, tool.parameters);
            return invalid("tools", reason);
        }
    }
    match &request.tools.choice {
        ToolChoice::Required if tools.is_empty() => {
            invalid("tool_choice", "a call is required, and no tools are offered".to_string())
        }
        ToolChoice::Named(name) if tools.iter().all(|tool| tool.name != *name) => {
            let known: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
            invalid("tool_choice", format!("there is no tool `{name}`; there are: {}", known.join(", ")))
        }
        _ => Ok(()),
    }
}

/// A text as Lark: its control tokens by number, for their letters are not what the model writes.
fn lark_text(text: &str, controls: &Controls, tokenizer: &Tokenizer) -> String {
    let mut parts = Vec::new();
    let literal = |text: &str| serde_json::Value::from(text).to_string();
    let mut at = 0;
    for range in controls.find(text) {
        let Some(id) = tokenizer.id(&text[range.clone()]) else { continue };
        if range.start > at {
            parts.push(literal(&text[at..range.start]));
        }
        parts.push(format!("<[{id}]>"));
        at = range.end;
    }
    if at < text.len() {
        parts.push(literal(&text[at..]));
    }
    parts.join(" ")
}

/// A constraint as a part of a grammar in Lark.
fn inside_lark(constraint: &Constraint) -> Result<String, Error> {
    let refused = |reason: String| Error::Constraint { kind: constraint.name(), reason };
    match constraint {
        Constraint::Json => Ok("%json {\"type\": \"object\"}".to_string()),
        Constraint::JsonSchema(text) => {
            let schema: serde_json::Value =
                serde_json::from_str(text).map_err(|error| refused(format!("it is no JSON: {error}")))?;
            Ok(format!("%json {schema}"))
        }
        Constraint::Regex(text) if text.is_empty() => Ok("\"\"".to_string()),
        Constraint::Regex(text) => Ok(format!("/{}/", slashed(text))),
        Constraint::Lark(text) => Ok(format!("%lark {{\n{text}\n}}")),
        Constraint::Gbnf(_) => {
            Err(refused("beside tools that may be called it must be JSON, a regex or Lark".to_string()))
        }
    }
}

/// A regular expression as it stands between slashes.
fn slashed(regex: &str) -> String {
    let mut out = String::with_capacity(regex.len() + 2);
    let mut is_escaped = false;
    for c in regex.chars() {
        match c {
            '/' if !is_escaped => out.push_str("\\/"),
            // An escaped line break is a line break.
            '\n' if is_escaped => out.push('n'),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_expression_stands_between_slashes_as_it_was_meant() {
        let found = [r"a/b", r"a\/b", r"a\\/b", "a\nb", "[/]"].map(slashed);
        assert_eq!(found, [r"a\/b", r"a\/b", r"a\\\/b", r"a\nb", r"[\/]"]);
    }
}
