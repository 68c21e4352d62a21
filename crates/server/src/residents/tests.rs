//! On copies of the model inside the program.

use super::*;
use crate::config::Config;
use rhetor_store::{PullOptions, Store, StoredFile};

/// A store with copies of the built-in model, and a server set up as `config` says.
fn app(names: &[&str], config: Config) -> (tempfile::TempDir, Arc<App>) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path());
    let file = store.resolve("builtin").unwrap();
    for name in names {
        let folder = home.path().join("models").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::hard_link(&file, folder.join("model.gguf")).unwrap();
        let size = std::fs::metadata(&file).unwrap().len();
        let stored = StoredFile { path: "model.gguf".to_string(), size, sha256: "0".repeat(64) };
        write_manifest(home.path(), name, vec![stored]);
    }
    (home, Arc::new(App::new(config, store, PullOptions::default())))
}

fn write_manifest(home: &std::path::Path, name: &str, files: Vec<StoredFile>) {
    let manifest = rhetor_store::Manifest {
        schema: 1,
        name: name.to_string(),
        source: "a test".to_string(),
        licence: None,
        licence_terms: None,
        pulled_at: 0,
        made_by: "a test".to_string(),
        files,
        folder: None,
        settings: rhetor_store::Settings::default(),
    };
    let manifests = home.join("manifests");
    std::fs::create_dir_all(&manifests).unwrap();
    let text = serde_json::to_string(&manifest).unwrap();
    std::fs::write(manifests.join(format!("{name}.json")), text).unwrap();
}

fn loaded(app: &App) -> Vec<String> {
    app.residents.ps().iter().map(|loaded| loaded.resident.name.clone()).collect()
}

/// Waits until the timers have done what is due.
async fn until(app: &App, names: &[&str]) {
    while loaded(app) != names {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn requests_for_one_model_share_one_load() {
    let (_home, app) = app(&["a"], Config::default());
    let get = || app.residents.get(&app, "a", Wish::default());
    let (one, two, three) = tokio::join!(get(), get(), app.residents.get(&app, "A:latest", Wish::default()));
    let (one, two, three) = (one.ok().unwrap(), two.ok().unwrap(), three.ok().unwrap());
    assert!(Arc::ptr_eq(&one, &two) && Arc::ptr_eq(&two, &three));
    assert_eq!(app.residents.n_loads_and_unloads(), (1, 0));
    assert_eq!(app.residents.ps()[0].n_users, 3);
    assert!(app.residents.ps()[0].expires_at.is_none(), "it is in use");
    drop((one, two, three));
    assert!(app.residents.ps()[0].expires_at.is_some());
}

#[tokio::test]
async fn the_idle_model_that_was_used_longest_ago_makes_room() {
    let (_home, app1) = app(&["a", "b", "c"], Config::default());
    let bytes = app1.residents.get(&app1, "a", Wish::default()).await.ok().unwrap().bytes;
    let memory = Some(2 * bytes + bytes / 2);
    let (_home, app) = app(&["a", "b", "c"], Config { memory, ..Config::default() });
    let get = |name| app.residents.get(&app, name, Wish::default());
    drop(get("a").await.ok().unwrap());
    let b = get("b").await.ok().unwrap();
    drop(get("a").await.ok().unwrap());
    drop(get("c").await.ok().unwrap());
    assert_eq!(loaded(&app), ["b", "c"], "b was used longest ago, but it is in use");
    drop(b);
    drop(get("a").await.ok().unwrap());
    assert_eq!(loaded(&app), ["a", "b"], "c was asked for before b was given back");
}

#[tokio::test(start_paused = true)]
async fn models_in_use_are_never_unloaded_and_who_waits_in_vain_is_told_when_to_come_back() {
    let (_home, app1) = app(&["a"], Config::default());
    let bytes = app1.residents.get(&app1, "a", Wish::default()).await.ok().unwrap().bytes;
    let (_home, app) = app(&["a", "b"], Config { memory: Some(bytes + bytes / 2), ..Config::default() });
    let a = app.residents.get(&app, "a", Wish::default()).await.ok().unwrap();
    let refusal = app.residents.get(&app, "b", Wish::default()).await.err().unwrap();
    assert_eq!((refusal.status, refusal.retry_after), (StatusCode::SERVICE_UNAVAILABLE, Some(5)));
    assert!(refusal.message.contains("models in use take"), "{}", refusal.message);
    assert_eq!(loaded(&app), ["a"]);
    // Who waits gets his turn as soon as there is room.
    let waiting = tokio::spawn({
        let app = app.clone();
        async move { app.residents.get(&app, "b", Wish::default()).await.is_ok() }
    });
    tokio::task::yield_now().await;
    drop(a);
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn a_model_that_never_fits_is_refused_with_the_numbers() {
    let (_home, app) = app(&["a"], Config { memory: Some(1 << 20), ..Config::default() });
    let refusal = app.residents.get(&app, "a", Wish::default()).await.err().unwrap();
    assert_eq!((refusal.status, refusal.code), (StatusCode::BAD_REQUEST, Some("model_too_large")));
    assert!(refusal.message.ends_with("all models may take 0.00 GiB together"), "{}", refusal.message);
    assert!(app.residents.ps().is_empty());
}

#[tokio::test]
async fn what_a_request_says_of_keep_alive_replaces_what_was_said_before() {
    let (_home, app) = app(&["a"], Config::default());
    let get = |keep_alive| app.residents.get(&app, "a", Wish { keep_alive, context: None });
    drop(get(Some(KeepAlive::Forever)).await.ok().unwrap());
    assert_eq!(app.residents.ps()[0].expires_at, None);
    drop(get(None).await.ok().unwrap());
    assert_eq!(app.residents.ps()[0].expires_at, None, "nothing new was said");
    let lease = get(Some(KeepAlive::For(Duration::ZERO))).await.ok().unwrap();
    assert_eq!(loaded(&app), ["a"], "it is in use");
    let also = lease.clone();
    drop(lease);
    assert_eq!(loaded(&app), ["a"], "it is still in use");
    drop(also);
    until(&app, &[]).await;
    drop(get(Some(KeepAlive::For(Duration::from_millis(20)))).await.ok().unwrap());
    until(&app, &[]).await;
    assert_eq!(app.residents.n_loads_and_unloads(), (2, 2));
}

#[tokio::test]
async fn another_context_loads_the_model_anew() {
    let (_home, app) = app(&["a"], Config::default());
    let get = |context| app.residents.get(&app, "a", Wish { keep_alive: None, context });
    let whole = get(None).await.ok().unwrap().context;
    drop(get(Some(whole)).await.ok().unwrap());
    assert_eq!(app.residents.n_loads_and_unloads(), (1, 0), "it has that context");
    assert_eq!(get(Some(64)).await.ok().unwrap().engine().unwrap().context_len(), 64);
    assert_eq!(app.residents.n_loads_and_unloads(), (2, 1));
    assert_eq!(get(None).await.ok().unwrap().context, 64, "any context will do");
    let refusal = get(Some(1 << 30)).await.err().unwrap();
    assert_eq!(refusal.code, Some("context_length_exceeded"), "{}", refusal.message);
}

#[tokio::test]
async fn an_unload_waits_for_the_users() {
    let (_home, app) = app(&["a"], Config::default());
    assert!(!app.residents.unload("a"));
    let lease = app.residents.get(&app, "a", Wish::default()).await.ok().unwrap();
    assert!(app.residents.unload("a"));
    assert_eq!(loaded(&app), ["a"]);
    drop(lease);
    until(&app, &[]).await;
}

#[tokio::test]
async fn no_name_leads_out_of_the_store() {
    let (home, app) = app(&["a"], Config::default());
    let file = home.path().join("models/a/model.gguf");
    let own = file.to_str().unwrap();
    let names = [
        own,
        "/etc/passwd",
        "../a",
        "./a",
        "models/a",
        "..",
        ".",
        "",
        "file:///etc/passwd",
        "a\0b",
        "a/../../b",
        "http://127.0.0.1/x",
        "https://example.org/m.gguf",
        "hf:a/../b",
        "pypi:../x",
        "model.gguf",
        "C:\\x",
        "\\\\host\\share",
        "a\n",
        "%2e%2e%2fa",
        "nothing",
    ];
    for name in names {
        let refusal = app.residents.get(&app, name, Wish::default()).await.err().expect(name);
        assert_eq!(
            (refusal.status, refusal.code),
            (StatusCode::NOT_FOUND, Some("model_not_found")),
            "{name}"
        );
    }
}

#[tokio::test]
async fn only_allowed_models_can_be_used() {
    let config = Config { models: vec!["b".to_string()], ..Config::default() };
    let (_home, app) = app(&["a", "b"], config);
    assert!(app.residents.get(&app, "b", Wish::default()).await.is_ok());
    let refusal = app.residents.get(&app, "a", Wish::default()).await.err().unwrap();
    assert_eq!(refusal.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_load_that_fails_tells_all_who_wait_and_can_be_tried_again() {
    let (home, app) = app(&["a"], Config::default());
    let file = home.path().join("models/a/model.gguf");
    let whole = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    // The header is whole, the weights are not.
    std::fs::write(&file, &whole[..whole.len() - 4096]).unwrap();
    let get = || app.residents.get(&app, "a", Wish::default());
    let (one, two) = tokio::join!(get(), get());
    let (one, two) = (one.err().unwrap(), two.err().unwrap());
    assert_eq!((one.status, one.code), (StatusCode::BAD_REQUEST, Some("model_not_loadable")));
    assert_eq!(one, two);
    std::fs::write(&file, &whole).unwrap();
    assert!(get().await.is_ok());
}

#[tokio::test]
async fn the_drafter_of_the_server_is_that_of_its_models() {
    let drafter = Some(rhetor_generate::DrafterOptions::new("prompt-lookup"));
    let (_home, app) = app(&["a"], Config { drafter, ..Config::default() });
    let resident = app.residents.get(&app, "a", Wish::default()).await.ok().unwrap();
    let mut request = rhetor_lm::Request::text("one two one two one two");
    (request.speculate, request.max_tokens) = (Some(2), Some(3));
    let engine = resident.engine().ok().unwrap();
    let answers =
        rhetor_lm::LanguageModel::generate(engine, &request, &mut |_| std::ops::ControlFlow::Continue(()));
    assert!(answers.is_ok(), "an engine without a drafter refuses to speculate");
}

/// A model with a vocabulary of three letters, in a store, with two adapters that a server's owner attaches to it.
fn adapted() -> (tempfile::TempDir, Arc<App>) {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/peft");
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("models/base");
    std::fs::create_dir_all(&folder).unwrap();
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": null,
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "c": 2 }, "merges": [] },
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let mut files = Vec::new();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        if name != "tokenizer.json" {
            std::fs::copy(fixtures.join("base").join(name), folder.join(name)).unwrap();
        }
        let size = std::fs::metadata(folder.join(name)).unwrap().len();
        files.push(StoredFile { path: name.to_string(), size, sha256: "0".repeat(64) });
    }
    write_manifest(home.path(), "base", files);
    let adapter = |name: &str, dir: &str| (name.to_string(), "base".to_string(), fixtures.join(dir));
    let adapters = vec![adapter("one", "lora_all_rs"), adapter("two", "ia3")];
    let config = Config { adapters, ..Config::default() };
    let store = Store::open(home.path());
    (home, Arc::new(App::new(config, store, PullOptions::default())))
}

#[tokio::test]
async fn adapters_are_chosen_by_name_and_the_base_is_loaded_once() {
    use rhetor_lm::{LanguageModel, Prompt, Request};
    let (_home, app) = adapted();
    let mut logprobs = Vec::new();
    for (name, adapters) in
        [("base", vec![]), ("one", vec!["one"]), ("two:latest", vec!["two"]), ("base", vec![])]
    {
        let lease = app.residents.get(&app, name, Wish::default()).await.map_err(|r| r.message).unwrap();
        assert_eq!(lease.adapters().unwrap(), adapters, "{name}");
        let request = Request {
            adapters: lease.adapters(),
            max_tokens: Some(3),
            ..Request::new(Prompt::Ids(vec![0, 1, 2]))
        };
        let said =
            lease.engine().unwrap().generate(&request, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        logprobs.push(said[0].logprob_sum);
    }
    assert_eq!(logprobs[0], logprobs[3], "the base is itself again");
    assert!(
        logprobs[0] != logprobs[1] && logprobs[1] != logprobs[2] && logprobs[0] != logprobs[2],
        "{logprobs:?}"
    );
    assert_eq!(app.residents.n_loads_and_unloads(), (1, 0));
    assert_eq!(loaded(&app), ["base"]);
}
