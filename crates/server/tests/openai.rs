//! OpenAI's API, asked on the model inside the program.

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use rhetor_server::{App, Config, router};
use rhetor_store::{PullOptions, Store};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

const MODEL: &str = "builtin";

/// A server and the folder of its store.
struct Server {
    routes: axum::Router,
    _home: tempfile::TempDir,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The events of a stream, without the end.
    fn events(&self) -> Vec<Value> {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

impl Server {
    fn new(config: Config) -> Server {
        let home = tempfile::tempdir().unwrap();
        let app = App::new(config, Store::open(home.path()), PullOptions::default());
        Server { routes: router(Arc::new(app)), _home: home }
    }

    async fn ask(&self, method: &str, path: &str, body: impl Into<Body>) -> Reply {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("content-type", "application/json").body(body.into()).unwrap();
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).expect("replies are text");
        Reply { status: head.status, headers: head.headers, text }
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.ask("POST", path, body.to_string()).await
    }
}

fn chat(more: Value) -> Value {
    let mut body = json!({
        "model": MODEL, "messages": [{ "role": "user", "content": "Who are you?" }], "max_tokens": 12, "seed": 3,
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn fragments_of_a_stream_are_the_text_that_comes_in_one_piece() {
    let server = Server::new(Config::default());
    let whole = server.post("/v1/chat/completions", chat(json!({ "n": 2 }))).await.json();
    let stream = chat(json!({ "n": 2, "stream": true, "stream_options": { "include_usage": true } }));
    let streamed = server.post("/v1/chat/completions", stream).await;
    assert_eq!(streamed.headers["content-type"], "text/event-stream; charset=utf-8");
    assert!(streamed.text.ends_with("data: [DONE]\n\n"), "{}", streamed.text);
    let mut texts = [String::new(), String::new()];
    for event in streamed.events() {
        for choice in event["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap() as usize;
            texts[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        }
    }
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(whole["choices"][i]["message"]["content"], text.as_str());
    }
    let last = streamed.events().pop().unwrap();
    let count = |usage: &Value| (usage["prompt_tokens"].clone(), usage["completion_tokens"].clone());
    assert_eq!(count(&last["usage"]), count(&whole["usage"]));

    let body = json!({ "model": MODEL, "input": "Who are you?", "max_output_tokens": 12, "seed": 3 });
    let whole = server.post("/v1/responses", body.clone()).await.json();
    let mut body = body;
    body["stream"] = true.into();
    let events = server.post("/v1/responses", body).await.events();
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    let text: String = deltas.map(|event| event["delta"].as_str().unwrap()).collect();
    assert_eq!(whole["output"][0]["content"][0]["text"], text.as_str());
    assert!(events.iter().enumerate().all(|(i, event)| event["sequence_number"] == i));
}

#[tokio::test]
async fn there_is_a_log_probability_for_each_token() {
    let server = Server::new(Config::default());
    let body = chat(json!({ "logprobs": true, "top_logprobs": 2 }));
    let reply = server.post("/v1/chat/completions", body).await.json();
    let content = reply["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len() as u64, reply["usage"]["completion_tokens"].as_u64().unwrap());
    assert!(content.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 2));

    let body = json!({ "model": MODEL, "prompt": "One two", "echo": true, "logprobs": 1, "max_tokens": 3 });
    let reply = server.post("/v1/completions", body).await.json();
    let logprobs = &reply["choices"][0]["logprobs"];
    let n = |name: &str| logprobs[name].as_array().unwrap().len();
    assert_eq!(n("tokens"), n("token_logprobs"));
    assert_eq!(n("tokens"), n("text_offset"));
    let told: String = logprobs["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert!(told.starts_with("One two"), "{told}");
}

#[tokio::test]
async fn errors_have_four_keys_and_a_request_id() {
    let server = Server::new(Config::default());
    let asked = [
        (chat(json!({ "model": "nobody" })), StatusCode::NOT_FOUND, "model", "model_not_found"),
        (chat(json!({ "model": "../../etc/passwd" })), StatusCode::NOT_FOUND, "model", "model_not_found"),
        (chat(json!({ "colour": 1 })), StatusCode::BAD_REQUEST, "colour", "unknown_parameter"),
        (chat(json!({ "audio": {} })), StatusCode::BAD_REQUEST, "audio", "unsupported_parameter"),
        (chat(json!({ "top_p": 7 })), StatusCode::BAD_REQUEST, "top_p", "invalid_value"),
    ];
    for (body, status, param, code) in asked {
        for stream in [false, true] {
            let mut body = body.clone();
            body["stream"] = stream.into();
            let reply = server.post("/v1/chat/completions", body).await;
            let error = &reply.json()["error"];
            assert_eq!(
                (reply.status, &error["param"], &error["code"]),
                (status, &json!(param), &json!(code))
            );
            assert_eq!(error["type"], "invalid_request_error");
            assert!(error["message"].is_string());
            assert!(reply.headers.contains_key("x-request-id"));
        }
    }
    for body in ["", "{", "[]", "\"\\ud800\"", &"[".repeat(500)] {
        let reply = server.ask("POST", "/v1/chat/completions", body.to_string()).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(reply.json()["error"].as_object().unwrap().len(), 4);
    }
    let reply = server.ask("POST", "/v1/chat/completions", vec![0xff, 0xfe]).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_prompt_without_room_is_refused_with_both_numbers_or_cut_with_a_report() {
    let server = Server::new(Config::default());
    let turns: Vec<Value> =
        (0..2000).map(|i| json!({ "role": "user", "content": format!("word {i}") })).collect();
    let reply = server.post("/v1/chat/completions", chat(json!({ "messages": turns }))).await;
    let error = &reply.json()["error"];
    assert_eq!((reply.status, &error["code"]), (StatusCode::BAD_REQUEST, &json!("context_length_exceeded")));
    let numbers = error["message"]
        .as_str()
        .unwrap()
        .split(' ')
        .filter(|word| word.trim_end_matches(';').parse::<u32>().is_ok());
    assert!(numbers.count() >= 2, "{error}");
    let body = chat(json!({ "messages": turns, "overflow": "truncate" }));
    let reply = server.post("/v1/chat/completions", body).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    assert!(reply.json()["usage"]["truncated_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_lenient_server_answers_and_says_what_it_passed_over() {
    let server = Server::new(Config { lenient: true, ..Config::default() });
    let reply = server.post("/v1/chat/completions", chat(json!({ "colour": 1, "audio": {} }))).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    let warnings = reply.json()["warnings"].to_string();
    assert!(warnings.contains("colour") && warnings.contains("audio"), "{warnings}");
}

#[tokio::test]
async fn the_constraint_in_force_is_said_and_kept() {
    let server = Server::new(Config::default());
    let schema = json!({ "type": "object", "properties": { "a": { "enum": ["x", "y"] } }, "required": ["a"],
        "additionalProperties": false });
    let format =
        json!({ "type": "json_schema", "json_schema": { "name": "s", "schema": schema, "strict": true } });
    let body = chat(json!({ "response_format": format, "max_tokens": 60 }));
    let reply = server.post("/v1/chat/completions", body).await.json();
    assert_eq!(reply["constraint"], "json_schema");
    assert!(reply["usage"]["constrained_tokens"].as_u64().unwrap() > 0);
    if reply["choices"][0]["finish_reason"] == "stop" {
        let content: Value =
            serde_json::from_str(reply["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
        assert!(["x", "y"].contains(&content["a"].as_str().unwrap()));
    }
}

#[tokio::test]
async fn a_response_is_kept_until_it_is_deleted() {
    let server = Server::new(Config::default());
    let body = json!({ "model": MODEL, "input": "Who are you?", "max_output_tokens": 8 });
    let made = server.post("/v1/responses", body).await.json();
    let path = format!("/v1/responses/{}", made["id"].as_str().unwrap());
    assert_eq!(server.ask("GET", &path, Body::empty()).await.json(), made);
    let next = json!({ "model": MODEL, "input": "And?", "previous_response_id": made["id"], "max_output_tokens": 4 });
    let next = server.post("/v1/responses", next).await.json();
    assert!(next["usage"]["input_tokens"].as_u64() > made["usage"]["input_tokens"].as_u64());
    assert_eq!(server.ask("DELETE", &path, Body::empty()).await.json()["deleted"], true);
    assert_eq!(server.ask("GET", &path, Body::empty()).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn tokens_go_there_and_back() {
    let server = Server::new(Config::default());
    let body = json!({ "model": MODEL, "content": "One two three", "add_special": false });
    let tokens = server.post("/tokenize", body).await.json()["tokens"].clone();
    let text = server.post("/detokenize", json!({ "model": MODEL, "tokens": tokens })).await.json();
    assert_eq!(text["content"], "One two three");
    let unknown = json!({ "model": MODEL, "tokens": [4_000_000] });
    assert_eq!(server.post("/detokenize", unknown).await.status, StatusCode::BAD_REQUEST);
    let prompt = server.post("/apply-template", chat(json!({}))).await.json()["prompt"].clone();
    assert!(prompt.as_str().unwrap().contains("Who are you?"), "{prompt}");
    let catalogue = server.ask("GET", "/api/catalog", Body::empty()).await.json();
    assert!(catalogue["models"].as_array().unwrap().iter().all(|model| model["licence"].is_string()));
    assert!(catalogue["families"].as_array().unwrap().len() > 20);
}

/// A JSON value of any kind, small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..40).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,8}".prop_map(Value::from),
        prop_oneof![
            Just("user"),
            Just("function"),
            Just("text"),
            Just("json_object"),
            Just("required"),
            Just("auto")
        ]
        .prop_map(Value::from),
        Just(json!({ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } })),
        Just(
            json!({ "type": "json_schema", "json_schema": { "name": "s", "schema": { "type": "integer" } } })
        ),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field_name(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn field_name() -> impl Strategy<Value = String> {
    let known = [
        "model",
        "messages",
        "prompt",
        "input",
        "max_tokens",
        "n",
        "temperature",
        "top_p",
        "stop",
        "stream",
        "seed",
        "stream_options",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "response_format",
        "tools",
        "tool_choice",
        "suffix",
        "echo",
        "best_of",
        "role",
        "content",
        "type",
        "text",
        "name",
        "function",
        "parameters",
        "arguments",
        "tool_calls",
        "tool_call_id",
        "reasoning",
        "reasoning_effort",
        "grammar",
        "guided_json",
        "guided_regex",
        "keep_alive",
        "adapters",
        "speculate",
        "overflow",
        "think",
        "truncation",
        "include",
        "instructions",
        "previous_response_id",
        "encoding_format",
        "dimensions",
        "tokens",
        "context",
        "continuation",
        "min_p",
        "top_k",
        "mirostat",
        "repeat_last_n",
        "dry_multiplier",
        "xtc_probability",
        "image_url",
        "url",
    ];
    prop_oneof![9 => prop::sample::select(known.to_vec()).prop_map(String::from), 1 => "[a-z_]{1,8}"]
}

/// A field as somebody might mean it.
fn likely_field() -> impl Strategy<Value = (String, Value)> {
    let fields: Vec<(String, Value)> = serde_json::from_str(
        r#"[
        ["temperature", 0], ["temperature", 1.7], ["top_p", 0.3], ["top_k", 5], ["min_p", 0.1], ["n", 3], ["seed", 1],
        ["stop", ["a", "."]], ["logprobs", true], ["logprobs", 2], ["top_logprobs", 2], ["echo", true],
        ["max_tokens", 0], ["max_output_tokens", 1], ["stream", true], ["stream_options", { "include_usage": true }],
        ["response_format", { "type": "json_object" }], ["tools", [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }]], ["tools", [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }, { "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }]],
        ["tool_choice", "required"], ["tool_choice", "none"], ["parallel_tool_calls", false], ["best_of", 4],
        ["suffix", "b"], ["prompt", [1, 2]], ["prompt", ["", "a"]], ["prompt", ""], ["input", [[1]]], ["think", true],
        ["think", false], ["reasoning_effort", "low"], ["grammar", "start: \"a\""], ["grammar", "start: ("],
        ["guided_regex", "(ab)+"], ["guided_regex", "("], ["guided_json", { "type": "object", "properties": { "a": { "type": "boolean" } }, "required": ["a"] }], ["guided_choice", ["x", "y"]],
        ["logit_bias", { "5": -100 }], ["logit_bias", { "999999": 1 }], ["overflow", "truncate"], ["speculate", 4],
        ["adapters", []], ["adapters", ["x"]], ["keep_alive", "5m"], ["repeat_penalty", 1.3], ["repeat_last_n", -1],
        ["mirostat", 2], ["dry_multiplier", 0.8], ["xtc_probability", 0.5], ["frequency_penalty", -1.5],
        ["model", "all-minilm-l6-v2"], ["text", { "format": { "type": "json_schema", "name": "s", "schema": { "type": "object", "properties": { "a": { "type": "boolean" } }, "required": ["a"] } } }],
        ["messages", [{ "role": "assistant", "content": "Well" }]], ["with_pieces", true], ["tokens", [0, 1, 2]],
        ["messages", [{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "data:,x" } }] }]],
        ["context", ""], ["continuation", ""], ["content", ""], ["truncation", "auto"], ["instructions", "Be brief."]
        ]"#,
    )
    .unwrap();
    prop::sample::select(fields)
}

/// Bodies that are right but for a few fields.
fn any_body() -> impl Strategy<Value = (&'static str, Value)> {
    let paths = [
        ("/v1/chat/completions", chat(json!({ "max_tokens": 3 }))),
        ("/v1/completions", json!({ "model": MODEL, "prompt": "a", "max_tokens": 3 })),
        ("/v1/embeddings", json!({ "model": MODEL, "input": "a" })),
        ("/v1/responses", json!({ "model": MODEL, "input": "a", "max_output_tokens": 3 })),
        ("/tokenize", json!({ "model": MODEL, "content": "a" })),
        ("/detokenize", json!({ "model": MODEL, "tokens": [1] })),
        ("/apply-template", chat(json!({}))),
        ("/score", json!({ "model": MODEL, "context": "a", "continuation": " b" })),
    ];
    let change = prop_oneof![4 => likely_field(), 1 => (field_name(), any_json())];
    let changes = prop::collection::vec(change, 1..4);
    (prop::sample::select(paths.to_vec()), changes).prop_map(|((path, mut body), changes)| {
        body.as_object_mut().unwrap().extend(changes);
        (path, body)
    })
}

#[test]
fn no_body_is_the_servers_fault() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    // Where unknown fields are passed over, more bodies come as far as the model.
    let servers = [false, true].map(|lenient| {
        Server::new(Config { lenient, request_time: Duration::from_secs(2), ..Config::default() })
    });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(400)
    });
    let n_answered = std::cell::Cell::new(0);
    let outcome = runner.run(&(any_body(), any::<bool>()), |((path, body), lenient)| {
        let reply = runtime.block_on(servers[usize::from(lenient)].post(path, body.clone()));
        n_answered.set(n_answered.get() + usize::from(reply.status.is_success()));
        prop_assert!(reply.status.as_u16() < 500, "{path} {body}: {} {}", reply.status, reply.text);
        prop_assert!(!reply.text.contains("server_error"), "{path} {body}: {}", reply.text);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(n_answered.get() > 40, "{} answers only", n_answered.get());
}

#[test]
fn the_manual_shows_routes_as_they_are() {
    let manual = std::fs::read_to_string("../../docs/serving.md").unwrap();
    let rows = manual.lines().filter(|line| line.starts_with("| `/"));
    let mut n_rows = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let route = rhetor_server::ROUTES.iter().find(|route| route.path == cells[1].trim_matches('`'));
        assert_eq!(route.unwrap_or_else(|| panic!("no route {}", cells[1])).summary, cells[2]);
        n_rows += 1;
    }
    assert!(n_rows > 10);
}
