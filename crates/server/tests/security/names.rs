//! Names that try to lead out of the store.

use crate::server::{TestServer, config};
use rhetor_server::Config;
use serde_json::json;

/// As in CVE-2024-37032 and its kin.
const NAMES: &[&str] = &[
    "/etc/passwd",
    "../../../etc/passwd",
    "..",
    "./x",
    "file:///etc/passwd",
    "a/../../../etc/passwd",
    "a\0b",
    "",
    "..\\..\\x",
    "registry/../../../../etc/passwd:latest",
    "x:../../../etc/passwd",
    "@sha256:../../etc/passwd",
    "http://169.254.169.254/latest/meta-data/",
    "%2e%2e%2fetc%2fpasswd",
    "\n/etc/passwd",
    "~/.ssh/id_rsa",
];

/// Files beside the store's own that appeared.
fn strangers(server: &TestServer) -> Vec<String> {
    let known = ["builtin", "lock", "partial", "blobs", "models", "manifests"];
    let entries = std::fs::read_dir(server.home.path()).unwrap().flatten();
    entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| !known.contains(&n.as_str()))
        .collect()
}

#[test]
fn no_route_follows_a_name_out_of_the_store() {
    let server = TestServer::start(config());
    for name in NAMES {
        let bodies = [
            (
                "POST /v1/chat/completions",
                json!({ "model": name, "messages": [{ "role": "user", "content": "x" }] }),
            ),
            ("POST /v1/completions", json!({ "model": name, "prompt": "x" })),
            ("POST /v1/embeddings", json!({ "model": name, "input": "x" })),
            ("POST /tokenize", json!({ "model": name, "text": "x" })),
            ("POST /api/chat", json!({ "model": name, "messages": [{ "role": "user", "content": "x" }] })),
            ("POST /api/generate", json!({ "model": name, "prompt": "x" })),
            ("POST /api/embed", json!({ "model": name, "input": "x" })),
            ("POST /api/show", json!({ "model": name })),
            ("POST /api/copy", json!({ "source": name, "destination": "x" })),
            ("POST /api/copy", json!({ "source": "builtin", "destination": name })),
            ("DELETE /api/delete", json!({ "model": name })),
            ("POST /api/create", json!({ "model": "x", "from": name, "stream": false })),
            ("POST /api/create", json!({ "model": name, "from": "/etc/passwd", "stream": false })),
        ];
        for (line, body) in bodies {
            let reply = server.ask(line, &[], body.to_string().as_bytes());
            assert!((400..500).contains(&reply.status), "{line} {body}: {reply:?}");
            assert!(!reply.body.contains("root:"), "{line} {body}: {reply:?}");
        }
    }
    assert_eq!(strangers(&server), [""; 0]);
}

#[test]
fn no_file_of_a_made_model_and_no_blob_leads_out_of_the_store() {
    let server = TestServer::start(config());
    for digest in [
        "sha256:../../../../etc/passwd",
        "sha256-../../etc/passwd",
        "../../etc/passwd",
        "sha256:",
        "sha256:xyz",
        "sha256:0000000000000000000000000000000000000000000000000000000000000000/../x",
    ] {
        let body = json!({ "model": "x", "files": { "a.gguf": digest }, "stream": false });
        let reply = server.post("/api/create", &body.to_string());
        assert!((400..500).contains(&reply.status), "{digest}: {reply:?}");
        let path = digest.replace('/', "%2f");
        let reply = server.ask(&format!("POST /api/blobs/{path}"), &[], b"root:x:0:0");
        assert!((400..500).contains(&reply.status), "{digest}: {reply:?}");
    }
    for file in ["../../etc/passwd", "/etc/passwd", "a/../../b.gguf", ".."] {
        let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
        let body = json!({ "model": "x", "files": { file: digest }, "stream": false });
        let reply = server.post("/api/create", &body.to_string());
        assert!((400..500).contains(&reply.status), "{file}: {reply:?}");
    }
    assert_eq!(strangers(&server), [""; 0]);
}

#[test]
fn paths_of_urls_do_not_lead_out_either() {
    let runs = tempfile::tempdir().unwrap();
    let server = TestServer::start(Config { runs: Some(runs.path().to_path_buf()), ..config() });
    for path in [
        "/v1/models/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/models/%2fetc%2fpasswd",
        "/v1/models/../../etc/passwd",
        "/assets/..%2f..%2fetc%2fpasswd",
        "/assets/../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/api/runs/..%2f..%2fetc/metrics",
        "/api/runs/%2e%2e/metrics",
        "//etc/passwd",
        "/..",
        "/v1/models/a%00b",
    ] {
        let reply = server.ask(&format!("GET {path}"), &[], b"");
        assert!((400..500).contains(&reply.status), "{path}: {reply:?}");
        assert!(!reply.body.contains("root:"), "{path}");
    }
}

#[test]
fn pictures_come_with_the_request_unless_a_host_is_allowed() {
    let server = TestServer::start(config());
    let hosts = vec!["127.0.0.1".to_string(), "localhost".to_string()];
    let lax = TestServer::start(Config { image_hosts: hosts, ..config() });
    let inside = format!("http://{}/health", server.address);
    for url in [
        inside.as_str(),
        "http://localhost/",
        "http://0177.0.0.1/",
        "http://2130706433/",
        "http://[::ffff:127.0.0.1]/",
        "file:///etc/passwd",
        "http://x@127.0.0.1/",
        "http://169.254.169.254/",
    ] {
        let content = json!([{ "type": "image_url", "image_url": { "url": url } }]);
        let body = json!({ "model": "builtin", "messages": [{ "role": "user", "content": content }] });
        for server in [&server, &lax] {
            let reply = server.post("/v1/chat/completions", &body.to_string());
            assert_eq!(reply.status, 400, "{url}: {reply:?}");
            assert!(!reply.body.contains("\"status\":\"ok\""), "{url}: what was found there is not told");
        }
    }
}
