//! Ollama's API, asked on the model inside the program.

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use rhetor_server::{App, Config, router};
use rhetor_store::{Network, PullOptions, Store};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceExt;

const MODEL: &str = "builtin";

/// A server and the folder of its store.
struct Server {
    routes: axum::Router,
    home: tempfile::TempDir,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Reply {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn lines(&self) -> Vec<Value> {
        let text = self.text();
        assert!(text.ends_with('\n') && !text.contains("\n\n"), "{text:?}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("{}", self.text())).to_string()
    }
}

impl Server {
    fn new(config: Config) -> Server {
        let home = tempfile::tempdir().unwrap();
        let options = PullOptions { network: Network::Offline, ..PullOptions::default() };
        let app = App::new(config, Store::open(home.path()), options);
        Server { routes: router(Arc::new(app)), home }
    }

    async fn ask(&self, method: &str, path: &str, range: &str, body: impl Into<Body>) -> Reply {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("content-type", "application/json").header("range", range);
        let response = self.routes.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        Reply { status: head.status, headers: head.headers, bytes }
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "", "").await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.ask("POST", path, "", body.to_string()).await
    }

    /// Makes a model of the one inside the program.
    async fn create(&self, name: &str, more: Value) -> Reply {
        let body = with(json!({ "model": name, "from": MODEL, "stream": false }), more);
        self.post("/api/create", body).await
    }
}

fn with(mut body: Value, more: Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn generate(more: Value) -> Value {
    let options = json!({ "seed": 3, "num_predict": 8 });
    with(json!({ "model": MODEL, "prompt": "Once", "raw": true, "options": options }), more)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn lines_of_a_stream_are_the_text_that_comes_in_one_object() {
    let server = Server::new(Config::default());
    let whole = server.post("/api/generate", generate(json!({ "stream": false }))).await;
    assert_eq!(whole.headers["content-type"], "application/json; charset=utf-8");
    let streamed = server.post("/api/generate", generate(json!({}))).await;
    assert_eq!(streamed.headers["content-type"], "application/x-ndjson");
    let lines = streamed.lines();
    let text: String = lines.iter().map(|line| line["response"].as_str().unwrap()).collect();
    assert_eq!(json!(text), whole.json()["response"]);
    let (last, others) = lines.split_last().unwrap();
    assert!(others.iter().all(|line| line["done"] == false) && last["done"] == true);
    assert!(last["eval_count"].as_u64() <= Some(8) && last.get("context").is_none());
}

#[tokio::test]
async fn models_are_loaded_and_unloaded_by_empty_requests() {
    let server = Server::new(Config::default());
    for (path, body) in [
        ("/api/generate", json!({ "model": MODEL, "keep_alive": -1 })),
        ("/api/chat", json!({ "model": MODEL, "messages": [] })),
    ] {
        let loaded = server.post(path, body.clone()).await.json();
        assert_eq!((&loaded["done"], &loaded["done_reason"]), (&json!(true), &json!("load")));
        let ps = server.get("/api/ps").await.json();
        assert_eq!(ps["models"][0]["name"], "builtin:latest");
        let gone = server.post(path, with(body, json!({ "keep_alive": 0 }))).await.json();
        assert_eq!(gone["done_reason"], "unload");
        assert_eq!(server.get("/api/ps").await.json(), json!({ "models": [] }));
    }
}

#[tokio::test]
async fn a_model_is_made_shown_copied_and_deleted() {
    let server = Server::new(Config::default());
    assert_eq!(server.get("/api/tags").await.json(), json!({ "models": [] }));
    let more = json!({
        "system": "Be brief.", "parameters": { "num_predict": 3, "stop": ["a", "b"] }, "license": ["L1", "L2"],
        "messages": [{ "role": "user", "content": "Hi" }], "template": "<{{ .System }}|{{ .Prompt }}>",
    });
    assert_eq!(server.create("Mine:v1", more).await.json(), json!({ "status": "success" }));
    let tags = server.get("/api/tags").await.json();
    assert_eq!(tags["models"][0]["name"], "Mine:v1");
    assert_eq!(tags["models"][0]["digest"].as_str().unwrap().len(), 64);
    let shown = server.post("/api/show", json!({ "model": "mine:V1" })).await.json();
    assert_eq!((&shown["system"], &shown["license"]), (&json!("Be brief."), &json!("L1\nL2")));
    let modelfile = shown["modelfile"].as_str().unwrap();
    for line in
        ["FROM builtin:latest", "SYSTEM Be brief.", "PARAMETER stop b", "MESSAGE user Hi", "LICENSE L2"]
    {
        assert!(modelfile.lines().any(|found| found == line), "{line}: {modelfile}");
    }
    let asked = json!({ "model": "mine:v1", "prompt": "P", "_debug_render_only": true });
    let rendered = server.post("/api/generate", asked).await.json();
    // The turn of the model's own and the prompt are both the user's, and become one.
    assert_eq!(rendered["_debug_info"]["rendered_template"], "<Be brief.|Hi\n\nP>");
    let copied = server.post("/api/copy", json!({ "source": "mine:v1", "destination": "other" })).await;
    assert_eq!((copied.status, copied.bytes.len()), (StatusCode::OK, 0));
    for name in ["MINE:v1", "other:latest"] {
        let gone = server.ask("DELETE", "/api/delete", "", json!({ "model": name }).to_string()).await;
        assert_eq!((gone.status, gone.bytes.len()), (StatusCode::OK, 0), "{}", gone.text());
    }
    assert_eq!(server.get("/api/tags").await.json(), json!({ "models": [] }));
    assert_eq!(std::fs::read_dir(server.home.path().join("blobs")).unwrap().count(), 0);
}

#[tokio::test]
async fn no_name_and_no_digest_leads_out_of_the_store() {
    let server = Server::new(Config::default());
    for name in ["../secret", "a/../../secret", "/etc/passwd", "..", "a/b/c/d", "x:..", "m@sha256:0"] {
        for (path, body) in [
            ("/api/show", json!({ "model": name })),
            ("/api/generate", json!({ "model": name, "prompt": "x" })),
            ("/api/chat", json!({ "model": name, "messages": [{ "role": "user", "content": "x" }] })),
            ("/api/copy", json!({ "source": name, "destination": "x" })),
            ("/api/copy", json!({ "source": MODEL, "destination": name })),
            ("/api/create", json!({ "model": name, "from": MODEL, "stream": false })),
            ("/api/create", json!({ "model": "x", "from": name, "stream": false })),
            ("/api/pull", json!({ "model": name, "stream": false })),
        ] {
            let reply = server.post(path, body).await;
            assert!(reply.status.is_client_error(), "{path} {name}: {} {}", reply.status, reply.text());
        }
        let reply = server.ask("DELETE", "/api/delete", "", json!({ "model": name }).to_string()).await;
        assert!(reply.status.is_client_error(), "{name}");
    }
    for digest in ["sha256:..%2f..%2f..%2fsecret", "secret", "sha256:0"] {
        for method in ["HEAD", "POST"] {
            let reply = server.ask(method, &format!("/api/blobs/{digest}"), "", "x").await;
            assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{digest}");
        }
        let files = json!({ "model": "x", "files": { "m.gguf": digest }, "stream": false });
        assert_eq!(server.post("/api/create", files).await.status, StatusCode::BAD_REQUEST);
        let reply = server.get(&format!("/v2/library/builtin/blobs/{digest}")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{digest}");
    }
    let zeros = format!("sha256:{}", "0".repeat(64));
    for file in ["../m.gguf", "/m.gguf", "C:m.gguf", "a/../../m.gguf", "nul"] {
        let files = json!({ "model": "x", "files": { file: zeros }, "stream": false });
        assert_eq!(server.post("/api/create", files).await.status, StatusCode::BAD_REQUEST, "{file}");
    }
    assert!(server.get("/api/tags").await.json()["models"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn blobs_are_kept_if_they_are_what_their_digest_says() {
    let server = Server::new(Config::default());
    let bytes = b"some bytes";
    let path = format!("/api/blobs/sha256:{}", sha256(bytes));
    assert_eq!(server.ask("HEAD", &path, "", "").await.status, StatusCode::NOT_FOUND);
    let wrong = server.ask("POST", &path, "", "other bytes").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(wrong.error().contains(&sha256(bytes)) && wrong.error().contains(&sha256(b"other bytes")));
    assert_eq!(server.ask("POST", &path, "", &bytes[..]).await.status, StatusCode::CREATED);
    assert_eq!(server.ask("POST", &path, "", &bytes[..]).await.status, StatusCode::OK);
    assert_eq!(server.ask("HEAD", &path, "", "").await.status, StatusCode::OK);
    let files = json!({ "m.gguf": format!("sha256:{}", sha256(bytes)) });
    let made = server.post("/api/create", json!({ "model": "x", "files": files, "stream": false })).await;
    assert_eq!(made.status, StatusCode::BAD_REQUEST, "{}", made.text());
}

#[tokio::test]
async fn other_instances_find_manifests_and_parts_of_blobs() {
    let server = Server::new(Config::default());
    server.create("mine", json!({ "system": "Be brief." })).await;
    let manifest = server.get("/v2/library/mine/manifests/latest").await;
    assert_eq!(manifest.headers["content-type"], "application/vnd.docker.distribution.manifest.v2+json");
    let tags = server.get("/api/tags").await.json();
    assert_eq!(tags["models"][0]["digest"], json!(sha256(&manifest.bytes)));
    let manifest = manifest.json();
    for layer in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
        let path = format!("/v2/library/mine/blobs/{}", layer["digest"].as_str().unwrap());
        let whole = server.get(&path).await;
        assert_eq!(whole.bytes.len() as u64, layer["size"].as_u64().unwrap());
        assert_eq!(format!("sha256:{}", sha256(&whole.bytes)), layer["digest"].as_str().unwrap());
        let part = server.ask("GET", &path, "bytes=3-", "").await;
        assert!(part.status == StatusCode::PARTIAL_CONTENT && part.bytes[..] == whole.bytes[3..]);
        let outside = server.ask("GET", &path, "bytes=999999999-", "").await;
        assert_eq!(outside.status, StatusCode::RANGE_NOT_SATISFIABLE);
    }
    assert_eq!(server.get("/v2/library/none/manifests/latest").await.status, StatusCode::NOT_FOUND);
    let nowhere = format!("/v2/library/mine/blobs/sha256:{}", "0".repeat(64));
    assert_eq!(server.get(&nowhere).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn refusals_are_said_in_ollamas_way() {
    let server = Server::new(Config::default());
    for (path, body, status, words) in [
        ("/api/generate", json!({ "model": "none", "prompt": "x" }), 404, "model 'none' not found"),
        ("/api/chat", json!({ "messages": [] }), 400, "model is required"),
        ("/api/show", json!({}), 400, "model is required"),
        ("/api/create", json!({ "model": "x" }), 400, "neither 'from' or 'files' was specified"),
        (
            "/api/create",
            json!({ "model": MODEL, "from": MODEL, "stream": false }),
            400,
            "belongs to the model",
        ),
        ("/api/copy", json!({ "source": "none", "destination": "x" }), 404, "model \"none\" not found"),
        ("/api/embed", json!({ "model": MODEL, "input": "x" }), 400, "does not support embeddings"),
        ("/api/embed", json!({ "model": MODEL, "input": [1] }), 400, "invalid input type"),
        ("/api/generate", generate(json!({ "colour": 1 })), 400, "unknown field colour"),
        ("/api/generate", generate(json!({ "images": ["aGk="] })), 400, "vision"),
        ("/api/generate", generate(json!({ "shift": true })), 400, "shift"),
        ("/api/generate", generate(json!({ "options": { "num_gpu": 3 } })), 400, "options.num_gpu"),
        ("/api/pull", json!({ "model": "none", "stream": false }), 404, "none"),
        ("/api/pull", json!({ "model": "pypi:none", "stream": false }), 400, "network"),
    ] {
        let reply = server.post(path, body).await;
        assert_eq!(reply.status.as_u16(), status, "{path}: {}", reply.text());
        assert!(reply.error().contains(words), "{path}: {}", reply.text());
    }
    let pushed = server.post("/api/push", json!({ "model": MODEL })).await;
    assert!(pushed.lines().last().unwrap()["error"].as_str().unwrap().contains("not pushed"));
    assert_eq!(server.ask("PUT", "/api/tags", "", "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(server.ask("HEAD", "/api/version", "", "").await.status, StatusCode::OK);
    assert_eq!(server.ask("POST", "/api/generate", "", "").await.error(), "missing request body");
    let lenient = Server::new(Config { lenient: true, ..Config::default() });
    let body = generate(json!({ "colour": 1, "shift": true, "stream": false }));
    assert_eq!(lenient.post("/api/generate", body).await.json()["warnings"].as_array().unwrap().len(), 2);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..300).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z./:]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((field_name(), inner), 0..3)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

/// Names of fields, most of them known.
fn field_name() -> impl Strategy<Value = String> {
    let known = "model prompt messages role content suffix system template context stream raw format images think \
                 keep_alive options truncate shift logprobs top_logprobs tools input dimensions from files adapters \
                 parameters quantize license verbose source destination num_ctx num_predict temperature stop seed \
                 top_k tool_calls function";
    let known: Vec<&str> = known.split_whitespace().collect();
    prop_oneof![9 => prop::sample::select(known).prop_map(String::from), 1 => "[a-z_]{1,8}"]
}

/// Bodies that are right but for a few fields.
fn any_body() -> impl Strategy<Value = (&'static str, Value)> {
    let talk = json!([{ "role": "user", "content": "Hi" }]);
    let paths = vec![
        ("/api/generate", generate(json!({ "options": { "num_predict": 3 } }))),
        ("/api/chat", json!({ "model": MODEL, "messages": talk, "options": { "num_predict": 3 } })),
        ("/api/embed", json!({ "model": MODEL, "input": "a" })),
        ("/api/embeddings", json!({ "model": MODEL, "prompt": "a" })),
        ("/api/show", json!({ "model": MODEL })),
        ("/api/copy", json!({ "source": MODEL, "destination": "x" })),
        ("/api/create", json!({ "model": "x", "from": MODEL, "stream": false })),
    ];
    let changes = prop::collection::vec((field_name(), any_json()), 1..4);
    (prop::sample::select(paths), changes).prop_map(|((path, mut body), changes)| {
        body.as_object_mut().unwrap().extend(changes);
        (path, body)
    })
}

#[test]
fn no_body_is_the_servers_fault() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = Server::new(Config { request_time: Duration::from_secs(2), ..Config::default() });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(300)
    });
    let outcome = runner.run(&any_body(), |(path, body)| {
        let reply = runtime.block_on(server.post(path, body.clone()));
        prop_assert!(reply.status.as_u16() < 500, "{path} {body}: {} {}", reply.status, reply.text());
        prop_assert!(!reply.text().contains("the model failed"), "{path} {body}: {}", reply.text());
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn what_a_made_model_brings_along_holds_in_both_dialects() {
    let server = Server::new(Config::default());
    let turns = json!([{ "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Ho" }]);
    let made = server.create("brief", json!({ "system": "Be brief.", "messages": turns })).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text());
    let asked = json!({ "model": "brief", "messages": [{ "role": "user", "content": "Why?" }] });
    let ours = server.post("/apply-template", asked.clone()).await.json()["prompt"].clone();
    let shown = server.post("/api/chat", with(asked, json!({ "_debug_render_only": true }))).await;
    assert_eq!(ours, shown.json()["_debug_info"]["rendered_template"]);
    let (system, begun) = (ours.as_str().unwrap().find("Be brief."), ours.as_str().unwrap().find("Ho"));
    assert!(system.is_some() && system < begun, "{ours}");
}
