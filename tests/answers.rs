//! Calls of tools and begun answers with SmolLM2-135M-Instruct, if it is in the store; nothing is fetched.
#![forbid(unsafe_code)]

use rhetor_generate::open::Opened;
use rhetor_generate::{Engine, EngineOptions, ToolSupport};
use rhetor_lm::{
    Completion, Constraint, FinishReason, LanguageModel, Message, Prompt, Request, Role, Sampling, Tool,
    ToolChoice,
};
use rhetor_store::{DEFAULT_MODEL, Store};
use std::ops::ControlFlow;
use std::path::PathBuf;

fn engine() -> Option<Engine> {
    let home = std::env::var_os("RHETOR_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share/rhetor")))?;
    let Ok(path) = Store::open(&home).resolve(DEFAULT_MODEL) else {
        println!("skipped: {DEFAULT_MODEL} is not in the store");
        return None;
    };
    let opened = Opened::read(&path, &[], None).expect("the model loads");
    Some(opened.speak(DEFAULT_MODEL, EngineOptions::default()).expect("the engine is sound"))
}

fn ask(engine: &Engine, request: &Request) -> Completion {
    engine.generate(request, &mut |_| ControlFlow::Continue(())).expect("an answer").remove(0)
}

fn weather() -> Vec<Tool> {
    let tool = |name: &str, description: &str, parameters: &str| Tool {
        name: name.to_string(),
        description: Some(description.to_string()),
        parameters: parameters.to_string(),
    };
    let city = r#"{"type": "object", "properties": {"city": {"type": "string", "maxLength": 40},
        "unit": {"enum": ["celsius", "fahrenheit"]}}, "required": ["city", "unit"], "additionalProperties": false}"#;
    vec![
        tool("get_weather", "Tells the weather of a city.", city),
        tool(
            "add",
            "Adds two numbers.",
            r#"{"type": "object", "properties": {"a": {"type": "integer"},
            "b": {"type": "integer"}}, "required": ["a", "b"], "additionalProperties": false}"#,
        ),
    ]
}

#[test]
fn a_small_model_calls_a_tool_and_speaks_about_what_it_returned() {
    let Some(engine) = engine() else { return };
    assert_eq!(engine.capabilities().tools, ToolSupport::Generic);
    let question = Message::user("What is the weather in Paris?");
    let mut request = Request::chat([question.clone()]);
    request.tools.offered = weather();
    request.tools.parallel = false;
    request.max_tokens = Some(120);
    for (choice, seed) in [(ToolChoice::Required, 0), (ToolChoice::Named("get_weather".to_string()), 1)] {
        request.tools.choice = choice;
        (request.seed, request.sampling) = (seed, Sampling { temperature: 0.3, ..Sampling::default() });
        let answer = ask(&engine, &request);
        println!("{:?}", answer.tool_calls);
        assert_eq!((answer.finish_reason, answer.text.as_str()), (FinishReason::ToolCalls, ""));
        let [call] = answer.tool_calls.as_slice() else { panic!("{answer:?}") };
        let arguments: serde_json::Value = serde_json::from_str(&call.arguments).expect("JSON");
        match call.name.as_str() {
            "get_weather" => assert!(["celsius", "fahrenheit"].iter().any(|unit| arguments["unit"] == *unit)),
            "add" => assert!(arguments["a"].is_i64() && arguments["b"].is_i64()),
            other => panic!("{other}"),
        }
        assert!(answer.usage.constrained_tokens > 0 && answer.constraint == Some("tool_call"));
    }
    request.tools.choice = ToolChoice::Named("get_weather".to_string());
    let answer = ask(&engine, &request);
    let call = answer.tool_calls[0].clone();
    assert_eq!(ask(&engine, &request).tool_calls[0], call, "the same request gives the same bytes");
    let result =
        Message { tool_call_id: Some(call.id.clone()), ..Message::new(Role::Tool, "sunny, 21 degrees") };
    request.prompt =
        Prompt::Chat(vec![question, Message { tool_calls: vec![call], ..Message::assistant("") }, result]);
    request.tools.choice = ToolChoice::None;
    let told = ask(&engine, &request);
    println!("{}", told.text);
    assert!(told.text.contains("sunny") || told.text.contains("21"), "{}", told.text);
}

#[test]
fn a_begun_answer_is_continued_and_a_constraint_holds_beside_tools() {
    let Some(engine) = engine() else { return };
    let turns =
        [Message::user("What is the capital of France?"), Message::assistant("The capital of France is")];
    let mut request = Request::chat(turns);
    request.max_tokens = Some(4);
    assert!(ask(&engine, &request).text.starts_with(" Paris"), "{:?}", ask(&engine, &request).text);
    request.prompt = Prompt::Chat(vec![Message::user("Add 2 and 3.")]);
    request.tools.offered = weather();
    request.max_tokens = Some(80);
    request.constraint = Some(Constraint::JsonSchema(
        r#"{"type": "object", "properties": {"sum": {"type": "integer",
        "maximum": 99}}, "required": ["sum"], "additionalProperties": false}"#
            .to_string(),
    ));
    let answer = ask(&engine, &request);
    println!("{answer:?}");
    let is_sum =
        serde_json::from_str::<serde_json::Value>(&answer.text).is_ok_and(|value| value["sum"].is_i64());
    assert!(is_sum == answer.tool_calls.is_empty(), "{answer:?}");
}

#[test]
fn the_prompt_s_own_log_probabilities_are_those_of_score() {
    let Some(engine) = engine() else { return };
    let mut request = Request::text("The quick brown fox jumps over the lazy dog.");
    (request.max_tokens, request.prompt_logprobs) = (Some(0), Some(3));
    let logprobs = ask(&engine, &request).prompt_logprobs.expect("asked for");
    let score = engine.score("The", " quick brown fox jumps over the lazy dog.").expect("a score");
    let found: Vec<(u32, f32)> = logprobs.iter().map(|token| (token.id, token.logprob)).collect();
    let expected: Vec<(u32, f32)> = score.tokens.iter().map(|token| (token.id, token.logprob)).collect();
    assert_eq!(found, expected);
}
