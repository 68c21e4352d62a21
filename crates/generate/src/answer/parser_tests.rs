//! Answers taken apart: every syntax, and the same result however the text is cut.

use super::parser::{Callable, Parser, Piece, Reading};
use super::syntax::{Body, TOOL_SYNTAX, ToolSyntax};
use super::thinking::THINKING;
use proptest::prelude::*;
use rhetor_lm::ToolCall;

/// What an answer was made of, pieces of a kind put together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    content: String,
    thinking: String,
    calls: Vec<ToolCall>,
    is_over: bool,
}

fn named(name: &str) -> &'static ToolSyntax {
    TOOL_SYNTAX.iter().find(|syntax| syntax.about.name == name).unwrap()
}

fn reading(syntax: &'static ToolSyntax, parallel: bool) -> Reading {
    let names = ["f".to_string(), "get_weather".to_string()];
    let tools = Callable { syntax, names: names.into(), parallel, seed: [7; 32] };
    Reading { thinking: Some(&THINKING[0]), is_thinking: false, tools: Some(tools) }
}

fn hear<'a>(reading: Reading, pieces: impl IntoIterator<Item = &'a str>) -> Heard {
    let mut parser = Parser::new(reading);
    let mut heard = Heard::default();
    let mut take = |pieces: Vec<Piece>| {
        for piece in pieces {
            match piece {
                Piece::Content(text) => heard.content.push_str(&text),
                Piece::Thinking(text) => heard.thinking.push_str(&text),
                Piece::Call(call) => heard.calls.push(call),
            }
        }
    };
    for piece in pieces {
        take(parser.push(piece));
    }
    take(parser.finish());
    heard.is_over = parser.is_over();
    heard
}

fn whole(reading: Reading, text: &str) -> Heard {
    hear(reading, [text])
}

/// Names and arguments of the calls of an answer.
fn calls(syntax: &str, text: &str) -> (String, Vec<(String, String)>) {
    let heard = whole(reading(named(syntax), true), text);
    (heard.content, heard.calls.into_iter().map(|call| (call.name, call.arguments)).collect())
}

fn call(name: &str, arguments: &str) -> (String, String) {
    (name.to_string(), arguments.to_string())
}

#[test]
fn what_a_syntax_writes_it_reads() {
    let arguments = r#"{"z": 1.50, "a": ["}", {"b": null}], "é\n": "</tool_call> [ARGS] \" "}"#;
    for syntax in TOOL_SYNTAX {
        let text = syntax.write("get_weather", arguments);
        let heard = whole(reading(syntax, true), &text);
        assert_eq!(heard.content, "", "{}", syntax.about.name);
        assert_eq!(heard.calls.len(), 1, "{}", syntax.about.name);
        assert_eq!(
            (heard.calls[0].name.as_str(), heard.calls[0].arguments.as_str()),
            ("get_weather", arguments)
        );
    }
}

#[test]
fn calls_are_read_as_models_write_them() {
    let f = call("f", r#"{"a": 1}"#);
    let hermes = "I look.\n<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>\n<tool_call>\n\
        {\"arguments\": {}, \"name\": \"get_weather\"}\n</tool_call>\nDone.";
    assert_eq!(
        calls("hermes", hermes),
        ("I look.Done.".to_string(), vec![f.clone(), call("get_weather", "{}")])
    );
    let list = r#"<tool_call>[{"name": "f", "arguments": {"a": 1}}, {"name": "f"}]</tool_call>"#;
    assert_eq!(calls("generic", list).1, [f.clone(), call("f", "{}")]);
    let quoted = r#"<tool_call>{"name": "f", "arguments": "{\"a\": 1}"}</tool_call>"#;
    assert_eq!(calls("hermes", quoted).1, [f.clone()]);
    let llama = r#" {"type": "function", "name": "f", "parameters": {"a": 1}}"#;
    assert_eq!(calls("llama3", llama), (String::new(), vec![f.clone()]));
    assert_eq!(calls("llama3", r#"<|python_tag|>{"name": "f", "parameters": {"a": 1}}"#).1, [f.clone()]);
    let mistral =
        r#"[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "get_weather", "arguments": {}}]"#;
    assert_eq!(calls("mistral", mistral).1, [f.clone(), call("get_weather", "{}")]);
    let mistral = r#"[TOOL_CALLS]f[CALL_ID]abc123XYZ[ARGS]{"a": 1}[TOOL_CALLS]get_weather[ARGS]{}"#;
    assert_eq!(calls("mistral-args", mistral).1, [f.clone(), call("get_weather", "{}")]);
    assert_eq!(calls("functionary", r#"<function=f>{"a": 1}</function>"#).1, [f.clone()]);
    let command = r#"<|START_ACTION|>[
        {"tool_call_id": "0", "tool_name": "f", "parameters": {"a": 1}}
    ]<|END_ACTION|>"#;
    assert_eq!(calls("command-r7b", command).1, [f]);
}

#[test]
fn what_is_no_call_of_a_tool_that_was_offered_stays_text() {
    for text in [
        "<tool_call>\n{\"name\": \"rm\", \"arguments\": {}}\n</tool_call>",
        "<tool_call> is a tag.",
        "<tool_call>{\"name\": \"f\", \"arguments\": 1}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {}",
        "{\"name\": \"f\", \"arguments\": {}}",
        "a < b, and <tool",
    ] {
        assert_eq!(calls("hermes", text), (text.to_string(), Vec::new()));
    }
    for text in
        ["{\"answer\": 42}", "Say {\"name\": \"f\", \"parameters\": {}}", "{", "<|python_tag|>print(1)"]
    {
        assert_eq!(calls("llama3", text), (text.to_string(), Vec::new()));
    }
    for text in ["[TOOL_CALLS]rm[ARGS]{}", "[TOOL_CALLS]f[ARGS][]", "[TOOL_CALLS] nothing"] {
        assert_eq!(calls("mistral-args", text), (text.to_string(), Vec::new()));
    }
}

#[test]
fn a_call_whose_closing_tag_never_came_is_a_call() {
    let text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n";
    assert_eq!(calls("hermes", text).1, [call("f", "{}")]);
    assert_eq!(calls("hermes", &format!("{text}</tool_")).1, [call("f", "{}")]);
}

#[test]
fn where_one_call_is_allowed_the_answer_is_over_after_it() {
    let text = "<tool_call>{\"name\": \"f\"}</tool_call> and <tool_call>{\"name\": \"f\"}</tool_call>";
    let heard = whole(reading(named("hermes"), false), text);
    assert!(heard.is_over);
    assert_eq!((heard.calls.len(), heard.content.as_str()), (1, ""));
    let list = r#"[TOOL_CALLS][{"name": "f"}, {"name": "f"}]"#;
    assert_eq!(whole(reading(named("mistral"), false), list).calls.len(), 1);
}

#[test]
fn thoughts_stand_apart_from_what_is_said() {
    let thinks = |is_thinking| Reading { thinking: Some(&THINKING[0]), is_thinking, tools: None };
    let heard = |is_thinking, text| {
        let heard = whole(thinks(is_thinking), text);
        (heard.thinking, heard.content)
    };
    let pair = |thinking: &str, content: &str| (thinking.to_string(), content.to_string());
    assert_eq!(heard(false, "\n<think>\n a b\n</think>\n\nHi <think> "), pair("a b", "Hi <think> "));
    assert_eq!(heard(true, "\na\n\nb</think>c"), pair("a\n\nb", "c"));
    assert_eq!(heard(false, " Hi <think>a</think>"), pair("", " Hi <think>a</think>"));
    assert_eq!(heard(false, "<think>never closed </thin"), pair("never closed </thin", ""));
    assert_eq!(heard(false, "<thi"), pair("", "<thi"));
    let free = whole(Reading::default(), " <think>a</think>");
    assert_eq!((free.thinking.as_str(), free.content.as_str()), ("", " <think>a</think>"));
}

#[test]
fn ids_come_from_the_seed_and_the_number_of_the_call() {
    let text = "<tool_call>{\"name\": \"f\"}</tool_call><tool_call>{\"name\": \"f\"}</tool_call>";
    let ids = |seed: u8| -> Vec<String> {
        let mut reading = reading(named("hermes"), true);
        reading.tools.as_mut().unwrap().seed = [seed; 32];
        whole(reading, text).calls.into_iter().map(|call| call.id).collect()
    };
    let first = ids(1);
    assert_eq!(first, ids(1));
    assert!(first[0] != first[1] && first[0] != ids(2)[0]);
    let letters = first[0].strip_prefix("call_").unwrap();
    assert!(letters.len() == 24 && letters.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{letters}");
}

#[test]
fn nothing_is_held_back_but_what_may_become_a_tag_or_a_call() {
    let mut parser = Parser::new(reading(named("hermes"), true));
    let mut said = |text: &str| match parser.push(text).as_slice() {
        [] => String::new(),
        [Piece::Content(text)] => text.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(said("Hello,"), "Hello,");
    assert_eq!(said(" wor"), " wor");
    assert_eq!(said("ld \n<tool"), "ld");
    assert_eq!(said("box>"), " \n<toolbox>");
}

/// Texts in which tags, calls and halves of them stand close together.
fn texts() -> impl Strategy<Value = String> {
    let mut parts = vec![
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<tool_",
        "</thi",
        " ",
        "\n",
        "x",
        "é",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "[TOOL_CALLS]",
        "[ARGS]",
        "f",
        "[CALL_ID]",
        "<function=",
        ">",
        "</function>",
        "<|python_tag|>",
        "{}",
    ];
    parts.push(r#"{"name": "f", "arguments": {"a": "<tool_call>"}}"#);
    parts.push(r#"{"name": "g", "parameters": {}}"#);
    parts.push("<tool_call>\n{\"name\": \"f\"}\n</tool_call>");
    parts.push("[TOOL_CALLS]f[ARGS]{\"b\": 1}");
    prop::collection::vec(prop::sample::select(parts), 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn an_answer_is_the_same_however_it_is_cut(
        text in texts(),
        which in 0..TOOL_SYNTAX.len(),
        parallel: bool,
        is_thinking: bool,
        has_tools: bool,
        sizes in prop::collection::vec(1usize..9, 1..40),
    ) {
        let mut reading = reading(&TOOL_SYNTAX[which], parallel);
        reading.is_thinking = is_thinking;
        reading.tools = reading.tools.filter(|_| has_tools);
        let chars: Vec<String> = text.chars().map(String::from).collect();
        let mut sizes = sizes.iter().cycle();
        let mut pieces = Vec::new();
        let mut rest = chars.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            pieces.push(piece.concat());
            rest = after;
        }
        let heard = hear(reading.clone(), pieces.iter().map(String::as_str));
        prop_assert_eq!(&heard, &whole(reading.clone(), &text));
        prop_assert_eq!(&heard, &hear(reading, chars.iter().map(String::as_str)));
        for call in &heard.calls {
            let arguments: serde_json::Value = serde_json::from_str(&call.arguments).unwrap();
            prop_assert!(arguments.is_object());
        }
    }

    #[test]
    fn of_plain_text_nothing_is_lost(text in "[a-z{}<>\" \n]{0,60}", which in 0..TOOL_SYNTAX.len()) {
        let mut reading = reading(&TOOL_SYNTAX[which], true);
        reading.thinking = None;
        prop_assert_eq!(whole(reading, &text).content, text);
    }
}

#[test]
fn every_line_of_the_table_has_a_name_of_its_own_and_a_grammar() {
    let mut names: Vec<&str> = TOOL_SYNTAX.iter().map(|syntax| syntax.about.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TOOL_SYNTAX.len());
    let tool = rhetor_lm::Tool { name: "f".to_string(), description: None, parameters: "{}".to_string() };
    for syntax in TOOL_SYNTAX {
        let grammar = syntax.grammar(&[&tool], true, &|text| format!("{text:?}")).unwrap();
        assert!(grammar.contains("tool_0") && grammar.contains("%json {"), "{grammar}");
        assert_eq!(matches!(syntax.body, Body::List(..)), grammar.contains("\"[\""), "{grammar}");
    }
}
