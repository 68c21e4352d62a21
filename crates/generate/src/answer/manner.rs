//! How a chat template speaks of tools and thoughts: found out by asking it.

use super::syntax::{TOOL_SYNTAX, ToolSyntax};
use super::thinking::Thinking;
use crate::chat_template::{ChatTemplate, GenerationPrompt, RenderOptions};
use rhetor_lm::{Message, Role, Tool, ToolCall};

/// What a template knows beside turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// How calls are written.
    pub syntax: &'static ToolSyntax,
    /// Whether the template itself shows tools, calls and what they return.
    pub is_native: bool,
    /// How thoughts are marked, if the model thinks.
    pub thinking: Option<&'static Thinking>,
    /// Whether thinking can be switched on and off.
    pub has_switch: bool,
    /// Whether the model thinks if nothing is said about it.
    pub thinks: bool,
}

/// A name that no template has.
const NAME: &str = "probe_of_tools";
/// What it returns.
const RESULT: &str = "result of the probe";

impl Manner {
    /// Renders small conversations and looks at what becomes of them.
    pub fn of(template: &ChatTemplate) -> Manner {
        let native = native(template);
        let asked = [Message::user("Hi")];
        let with = |think: Option<bool>| {
            let options = RenderOptions { think, ..RenderOptions::default() };
            template.render(&asked, &options).ok()
        };
        let thinking = Thinking::of(template.source());
        let (on, off) = (with(Some(true)), with(Some(false)));
        Manner {
            syntax: native.unwrap_or_else(ToolSyntax::generic),
            is_native: native.is_some(),
            thinking,
            has_switch: on != off,
            thinks: thinking.is_some() && with(None) == on,
        }
    }
}

/// How a template writes calls, if it shows all there is to tools.
fn native(template: &ChatTemplate) -> Option<&'static ToolSyntax> {
    let parameters = r#"{"type": "object", "properties": {"a": {"type": "integer", "description": "A"}}}"#;
    let tool = Tool {
        name: NAME.to_string(),
        description: Some("A probe".to_string()),
        parameters: parameters.to_string(),
    };
    let (id, arguments) = ("abcdefgh1".to_string(), r#"{"a": 1}"#.to_string());
    let call = ToolCall { id: id.clone(), name: NAME.to_string(), arguments };
    let asked = [
        Message::user("Hi"),
        Message { tool_calls: vec![call], ..Message::assistant("") },
        Message { tool_call_id: Some(id), ..Message::new(Role::Tool, RESULT) },
    ];
    let options = RenderOptions { tools: std::slice::from_ref(&tool), ..RenderOptions::default() };
    let offered = template.render(&asked[..1], &options).ok()?;
    let whole = template.render(&asked, &options).ok()?;
    let before = RenderOptions { prompt: GenerationPrompt::Omit, ..options };
    let before = template.render(&asked[..1], &before).ok()?;
    let n_common = whole.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
    let n_common = (0..=n_common).rev().find(|&n| whole.is_char_boundary(n)).unwrap_or(0);
    let (shown, _) = whole[n_common..].split_once(RESULT)?;
    let is_offered = offered.contains(NAME);
    let (_, natives) = TOOL_SYNTAX.split_last().expect("the table has lines");
    natives.iter().find(|syntax| is_offered && syntax.wrote(shown, NAME))
}
