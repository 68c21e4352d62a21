//! A conversation becomes the data of a Go template, as Ollama hands it over.
//!
//! Source: Ollama, template/template.go, `Execute` and `collate`.

use super::run::RunOptions;
use super::{GoTemplate, OUTPUT_MAX};
use rhetor_lm::{Message, Role, Tool, ToolCall};
use serde_json::{Value as Json, json};

/// A chat template in Go's language.
#[derive(Debug)]
pub(crate) struct GoChat {
    template: GoTemplate,
    /// Whether it is given the whole conversation, rather than one exchange after the other.
    is_whole: bool,
}

/// What a template is given beside the messages.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct GoWishes<'a> {
    /// The tools that the model may call.
    pub tools: &'a [Tool],
    /// Whether the model is to think; `None` = nothing was said.
    pub think: Option<bool>,
    /// What the clock says, in seconds since 1970.
    pub now: i64,
}

impl GoChat {
    /// Reads a template. One that shows neither messages nor the answer shows the answer at its end.
    pub fn new(source: &str) -> Result<GoChat, String> {
        let template = GoTemplate::new(source)?;
        let is_whole = template.asks_for("Messages");
        if is_whole || template.asks_for("Response") {
            return Ok(GoChat { template, is_whole });
        }
        Ok(GoChat { template: GoTemplate::new(&format!("{source}{{{{ .Response }}}}"))?, is_whole })
    }

    /// Renders a conversation, up to where the answer begins or the last words of the assistant end.
    pub fn render(&self, messages: &[Message], wishes: &GoWishes<'_>) -> Result<String, String> {
        let turns = collate(messages);
        if self.is_whole { self.whole(&turns, wishes) } else { self.exchanges(&turns, wishes) }
    }

    fn whole(&self, turns: &[Message], wishes: &GoWishes<'_>) -> Result<String, String> {
        let system: Vec<&str> =
            turns.iter().filter(|turn| turn.role == Role::System).map(|turn| turn.content.as_str()).collect();
        let messages: Vec<Json> = turns.iter().map(|turn| turn_value(turn, turns)).collect();
        let data = data(
            wishes,
            json!({
                "System": system.join("\n\n"), "Messages": messages, "Prompt": "", "Response": "",
            }),
        );
        self.template.run_with(&data, RunOptions { now: wishes.now, ends_at_response: false })
    }

    fn exchanges(&self, turns: &[Message], wishes: &GoWishes<'_>) -> Result<String, String> {
        let mut out = String::new();
        let (mut system, mut prompt, mut response) = ("", "", "");
        let mut show = |system: &str, prompt: &str, response: &str, ends_at_response| {
            let data = data(wishes, json!({ "System": system, "Prompt": prompt, "Response": response }));
            out.push_str(&self.template.run_with(&data, RunOptions { now: wishes.now, ends_at_response })?);
            match out.len() {
                len if len > OUTPUT_MAX => Err(format!("the template writes more than {OUTPUT_MAX} bytes")),
                _ => Ok(()),
            }
        };
        for turn in turns {
            let is_next = match turn.role {
                Role::System => !prompt.is_empty() || !response.is_empty(),
                Role::User => !response.is_empty(),
                Role::Assistant | Role::Tool => false,
            };
            if is_next {
                show(system, prompt, response, false)?;
                (system, prompt, response) = ("", "", "");
            }
            match turn.role {
                Role::System => system = &turn.content,
                Role::User => prompt = &turn.content,
                Role::Assistant => response = &turn.content,
                Role::Tool => return Err("it has no place for what tools return".to_string()),
            }
        }
        show(system, prompt, response, true)?;
        Ok(out)
    }
}

/// Turns of the same speaker that follow one another become one, with a blank line between.
fn collate(messages: &[Message]) -> Vec<Message> {
    let mut turns: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        let is_plain =
            |turn: &Message| turn.role != Role::Tool && turn.tool_calls.is_empty() && turn.thinking.is_none();
        match turns.last_mut() {
            Some(last) if last.role == message.role && is_plain(last) && is_plain(message) => {
                last.content.push_str("\n\n");
                last.content.push_str(&message.content);
            }
            _ => turns.push(message.clone()),
        }
    }
    turns
}

fn data(wishes: &GoWishes<'_>, mut data: Json) -> Json {
    let tools: Vec<Json> = wishes.tools.iter().map(tool_value).collect();
    data["Tools"] = if tools.is_empty() { Json::Null } else { json!(tools) };
    data["Think"] = json!(wishes.think.unwrap_or(false));
    data["ThinkLevel"] = json!("");
    data["IsThinkSet"] = json!(wishes.think.is_some());
    data["Suffix"] = json!("");
    data
}

/// A turn with the fields of Ollama's `Message`.
fn turn_value(turn: &Message, turns: &[Message]) -> Json {
    let calls: Vec<Json> = turn.tool_calls.iter().enumerate().map(|(i, call)| call_value(i, call)).collect();
    let answered = |id: &String| {
        turns
            .iter()
            .flat_map(|turn| &turn.tool_calls)
            .find(|call| call.id == *id)
            .map(|call| call.name.clone())
    };
    let tool_name = turn.name.clone().or_else(|| turn.tool_call_id.as_ref().and_then(answered));
    json!({
        "Role": turn.role.name(),
        "Content": turn.content,
        "Thinking": turn.thinking.clone().unwrap_or_default(),
        "Images": [],
        "ToolCalls": calls,
        "ToolName": tool_name.unwrap_or_default(),
        "ToolCallID": turn.tool_call_id.clone().unwrap_or_default(),
    })
}

fn call_value(i: usize, call: &ToolCall) -> Json {
    let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!(call.arguments));
    json!({ "ID": call.id, "Function": { "Index": i, "Name": call.name, "Arguments": arguments } })
}

/// A tool, which prints as the JSON that the caller gave and can be asked for its parts by Go's names.
fn tool_value(tool: &Tool) -> Json {
    let parameters: Json = serde_json::from_str(&tool.parameters).unwrap_or_default();
    let mut function = json!({ "name": tool.name });
    if let Some(description) = &tool.description {
        function["description"] = json!(description);
    }
    function["parameters"] = parameters;
    json!({ "type": "function", "function": function })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA3: &str = "{{ if .System }}<|start_header_id|>system<|end_header_id|>\n\n{{ .System }}<|eot_id|>{{ end }}\
        {{ if .Prompt }}<|start_header_id|>user<|end_header_id|>\n\n{{ .Prompt }}<|eot_id|>{{ end }}\
        <|start_header_id|>assistant<|end_header_id|>\n\n{{ .Response }}<|eot_id|>";
    const CHATML: &str = "{{- range $i, $_ := .Messages }}\n{{- $last := eq (len (slice $.Messages $i)) 1 -}}\n\
        <|im_start|>{{ .Role }}\n{{ .Content }}{{ if not $last }}<|im_end|>\n{{ end }}\n\
        {{- if and (ne .Role \"assistant\") $last }}<|im_end|>\n<|im_start|>assistant\n{{ end }}\n{{- end }}";
    const MISTRAL: &str = "[INST] {{ if .System }}{{ .System }} {{ end }}{{ .Prompt }} [/INST]";
    const GEMMA: &str = "<start_of_turn>user\n{{ if .System }}{{ .System }} {{ end }}{{ .Prompt }}<end_of_turn>\n\
        <start_of_turn>model\n{{ .Response }}<end_of_turn>\n";
    const QWEN25: &str = r#"{{- if .Messages }}
{{- if or .System .Tools }}<|im_start|>system
{{- if .System }}
{{ .System }}
{{- end }}
{{- if .Tools }}

# Tools

<tools>
{{- range .Tools }}
{"type": "function", "function": {{ .Function }}}
{{- end }}
</tools>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Content }}{{ .Content }}
{{- else if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}
{{ end }}</tool_call>
{{- end }}{{ if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}<|im_start|>user
<tool_response>
{{ .Content }}
</tool_response><|im_end|>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<|im_start|>assistant
{{ end }}
{{- end }}
{{- else }}{{ .Prompt }}{{ end }}"#;

    fn check(source: &str, messages: &[Message], tools: &[Tool], expected: &str) {
        let wishes = GoWishes { tools, ..GoWishes::default() };
        assert_eq!(GoChat::new(source).unwrap().render(messages, &wishes).unwrap(), expected);
    }

    fn talk() -> Vec<Message> {
        vec![Message::system("S"), Message::user("U1"), Message::assistant("A1"), Message::user("U2")]
    }

    #[test]
    fn llama3_and_gemma_show_one_exchange_after_the_other() {
        let llama3 = "<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>\
            <|start_header_id|>user<|end_header_id|>\n\nU1<|eot_id|>\
            <|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>\
            <|start_header_id|>user<|end_header_id|>\n\nU2<|eot_id|>\
            <|start_header_id|>assistant<|end_header_id|>\n\n";
        check(LLAMA3, &talk(), &[], llama3);
        let gemma = "<start_of_turn>user\nS U1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n\
            <start_of_turn>user\nU2<end_of_turn>\n<start_of_turn>model\n";
        check(GEMMA, &talk(), &[], gemma);
        // The last words of the assistant are continued.
        check(GEMMA, &talk()[..3], &[], "<start_of_turn>user\nS U1<end_of_turn>\n<start_of_turn>model\nA1");
    }

    #[test]
    fn a_template_without_an_answer_gets_it_at_its_end() {
        check(MISTRAL, &talk(), &[], "[INST] S U1 [/INST]A1[INST] U2 [/INST]");
        check("{{ .Prompt }}", &[Message::user("U")], &[], "U");
    }

    #[test]
    fn chatml_shows_all_messages_and_leaves_the_last_answer_open() {
        let all = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n\
            <|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n";
        check(CHATML, &talk(), &[], all);
        check(CHATML, &talk()[1..3], &[], "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1");
    }

    #[test]
    fn turns_of_one_speaker_become_one() {
        let talk = [Message::system("S1"), Message::system("S2"), Message::user("U1"), Message::user("U2")];
        check(MISTRAL, &talk, &[], "[INST] S1\n\nS2 U1\n\nU2 [/INST]");
    }

    #[test]
    fn qwen_shows_tools_calls_and_what_they_return() {
        let tool = Tool {
            name: "weather".to_string(),
            description: Some("Tells it.".to_string()),
            parameters: r#"{"type":"object","properties":{"city":{"type":"string"}}}"#.to_string(),
        };
        let call = ToolCall {
            id: "c1".to_string(),
            name: "weather".to_string(),
            arguments: r#"{"city": "Oslo"}"#.to_string(),
        };
        let asked = Message { tool_calls: vec![call], ..Message::assistant("") };
        let told = Message { tool_call_id: Some("c1".to_string()), ..Message::new(Role::Tool, "7 C") };
        let expected = concat!(
            "<|im_start|>system\n\n# Tools\n\n<tools>\n",
            r#"{"type": "function", "function": {"name":"weather","description":"Tells it.","parameters":"#,
            r#"{"type":"object","properties":{"city":{"type":"string"}}}}}"#,
            "\n</tools><|im_end|>\n<|im_start|>user\nWarm?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n",
            r#"{"name": "weather", "arguments": {"city":"Oslo"}}"#,
            "\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n7 C\n</tool_response><|im_end|>\n",
            "<|im_start|>assistant\n",
        );
        check(QWEN25, &[Message::user("Warm?"), asked, told], &[tool], expected);
        check(QWEN25, &[Message::user("U")], &[], "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n");
    }

    #[test]
    fn the_names_of_tools_are_found_by_their_calls() {
        let call = ToolCall { id: "7".to_string(), name: "f".to_string(), arguments: "{}".to_string() };
        let asked = Message { tool_calls: vec![call], ..Message::assistant("") };
        let told = Message { tool_call_id: Some("7".to_string()), ..Message::new(Role::Tool, "R") };
        check("{{ range .Messages }}{{ .ToolName }},{{ end }}", &[asked, told], &[], ",f,");
        let refused = GoChat::new("{{ .Prompt }}").unwrap();
        let message = Message::new(Role::Tool, "R");
        assert!(refused.render(&[message], &GoWishes::default()).unwrap_err().contains("tools"));
    }
}
