//! Tools for templates that know none: described in the system's turn, called and answered in words.
//!
//! The words are those of Qwen2.5's template, after Hermes: many small models have seen them.

use super::syntax::ToolSyntax;
use crate::turns::{Arguments, arguments_value, tool_value};
use rhetor_lm::{Message, Role, Tool};

/// What a model without words of its own for tools is told about them.
pub(crate) fn description(tools: &[Tool]) -> String {
    let mut text = String::from(
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function \
         signatures within <tools></tools> XML tags:\n<tools>",
    );
    for tool in tools {
        text.push('\n');
        text.push_str(&tool_value(tool).to_string());
    }
    text.push_str(
        "\n</tools>\n\nFor each function call, return a json object with function name and arguments within \
         <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": \
         <args-json-object>}\n</tool_call>",
    );
    text
}

/// Whose turn describes the tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Describer {
    /// The system, whose turn is added if there is none.
    System,
    /// The first turn of the user: some templates know no system.
    User,
}

/// `messages` with tools, calls and results as words of system, assistant and user.
pub(crate) fn spelled_out(messages: &[Message], tools: &[Tool], describer: Describer) -> Vec<Message> {
    let mut turns: Vec<Message> = Vec::with_capacity(messages.len() + 1);
    for message in messages {
        match message.role {
            Role::Tool => {
                let text = format!("<tool_response>\n{}\n</tool_response>", message.content);
                // Results of one turn stand in one turn.
                match turns.last_mut() {
                    Some(last) if last.role == Role::User && last.content.starts_with("<tool_response>") => {
                        last.content = format!("{}\n{text}", last.content);
                    }
                    _ => turns.push(Message::user(text)),
                }
            }
            _ => {
                let mut content = message.content.clone();
                for call in &message.tool_calls {
                    if !content.is_empty() {
                        content.push('\n');
                    }
                    let arguments = arguments_value(call, Arguments::Object).to_string();
                    content.push_str(&ToolSyntax::generic().write(&call.name, &arguments));
                }
                turns.push(Message { content, tool_calls: Vec::new(), ..message.clone() });
            }
        }
    }
    if tools.is_empty() {
        return turns;
    }
    let text = description(tools);
    let role = if describer == Describer::System { Role::System } else { Role::User };
    match turns.iter_mut().find(|turn| turn.role == role) {
        Some(turn) if describer == Describer::System => turn.content = format!("{}\n\n{text}", turn.content),
        Some(turn) => turn.content = format!("{text}\n\n{}", turn.content),
        None => turns.insert(0, Message::new(role, text)),
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhetor_lm::ToolCall;

    #[test]
    fn tools_calls_and_results_become_words() {
        let tool = Tool {
            name: "f".to_string(),
            description: None,
            parameters: r#"{"type":"object","properties":{}}"#.to_string(),
        };
        let call = |name: &str| ToolCall {
            id: "1".to_string(),
            name: name.to_string(),
            arguments: r#"{"b":1,"a":2}"#.to_string(),
        };
        let asked = Message { tool_calls: vec![call("f"), call("f")], ..Message::assistant("Well.") };
        let result = |text: &str| Message::new(Role::Tool, text);
        let turns = [Message::user("U"), asked, result("R"), result("S"), Message::user("V")];
        let spelled = spelled_out(&turns, &[tool], Describer::System);
        let roles: Vec<&str> = spelled.iter().map(|turn| turn.role.name()).collect();
        assert_eq!(roles, ["system", "user", "assistant", "user", "user"]);
        assert!(spelled[0].content.contains(r#"{"type":"function","function":{"name":"f","#));
        let called = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\":1,\"a\":2}}\n</tool_call>";
        assert_eq!(spelled[2].content, format!("Well.\n{called}\n{called}"));
        let told = "<tool_response>\nR\n</tool_response>\n<tool_response>\nS\n</tool_response>";
        assert_eq!(spelled[3].content, told);
    }

    #[test]
    fn where_there_is_no_system_the_user_describes_the_tools() {
        let tool = Tool { name: "f".to_string(), description: None, parameters: "{}".to_string() };
        let spelled = spelled_out(&[Message::user("U")], &[tool], Describer::User);
        assert_eq!(spelled.len(), 1);
        assert!(spelled[0].content.starts_with("# Tools") && spelled[0].content.ends_with("\n\nU"));
    }
}
