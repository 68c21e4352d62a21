//! `GET /api/runs` and `GET /api/runs/{name}/metrics`: what training runs write down, for whoever draws it.
//!
//! A run is a folder of [`Config::runs`](crate::Config::runs) that holds a `metrics.jsonl`. A caller's name is never made
//! part of a path: it is looked for among the names that the folder has. Symbolic links are not followed.

use crate::app::App;
use crate::refusal::Refusal;
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};
use std::fs::{self, DirEntry, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Where a run writes down its steps.
const METRICS: &str = "metrics.jsonl";

/// Bytes of lines in one reply; a caller asks again from `next`.
const REPLY_BYTES: u64 = 1 << 20;

/// `GET /api/runs`.
pub(super) fn list() -> MethodRouter<Arc<App>> {
    get(async |State(app): State<Arc<App>>| {
        blocking(move || {
            let mut runs = entries(&app)?.iter().filter_map(describe).collect::<Vec<_>>();
            runs.sort_by_key(|run| std::cmp::Reverse(run["modified_at"].as_f64().map(f64::to_bits)));
            Ok(json!({ "enabled": app.config.runs.is_some(), "runs": runs }))
        })
        .await
    })
}

/// `GET /api/runs/{name}/metrics?from=BYTE`.
pub(super) fn metrics() -> MethodRouter<Arc<App>> {
    get(async |State(app): State<Arc<App>>, Path(name): Path<String>, RawQuery(query): RawQuery| {
        let from = from(query.as_deref())?;
        blocking(move || {
            let none = || Refusal::new(StatusCode::NOT_FOUND, format!("run '{name}' not found"));
            let entry =
                entries(&app)?.into_iter().find(|entry| entry.file_name() == *name).ok_or_else(none)?;
            let path = entry.path().join(METRICS);
            if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
                return Err(none());
            }
            let (from, lines) = File::open(&path).and_then(|file| read(file, from)).map_err(unreadable)?;
            Ok(json!({ "from": from, "next": from + lines.len() as u64, "lines": lines }))
        })
        .await
    })
}

/// The byte of the query `from=BYTE`; 0 if there is none.
fn from(query: Option<&str>) -> Result<u64, Refusal> {
    let mut from = 0;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "from" {
            return Err(Refusal::field(name, format!("unknown parameter '{name}'; there is 'from'")));
        }
        from = value
            .parse()
            .map_err(|_| Refusal::field("from", format!("from must be a number of bytes, got '{value}'")))?;
    }
    Ok(from)
}

/// Whole lines from byte `from` on, and the byte they begin at: 0 if `from` begins no line, as after a run was resumed
/// and its file written anew.
fn read(mut file: File, from: u64) -> io::Result<(u64, String)> {
    let size = file.metadata()?.len();
    let mut before = [b'\n'];
    if from > 0 && from <= size {
        file.seek(SeekFrom::Start(from - 1))?;
        file.read_exact(&mut before)?;
    }
    let from = if from <= size && before == [b'\n'] { from } else { 0 };
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(REPLY_BYTES).read_to_end(&mut bytes)?;
    bytes.truncate(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1));
    let text = String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok((from, text))
}

/// The folders of the folder of runs.
fn entries(app: &App) -> Result<Vec<DirEntry>, Refusal> {
    let Some(folder) = &app.config.runs else { return Ok(Vec::new()) };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(unreadable)?,
    };
    Ok(entries.into_iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).collect())
}

/// What the list says of a run; nothing of a folder that is none.
fn describe(entry: &DirEntry) -> Option<Value> {
    let metadata =
        fs::symlink_metadata(entry.path().join(METRICS)).ok().filter(|metadata| metadata.is_file())?;
    let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let is_finished = entry.path().join("rhetor.json").is_file();
    Some(json!({
        "name": entry.file_name().to_str()?,
        "bytes": metadata.len(),
        "modified_at": modified.as_secs_f64(),
        "finished": is_finished,
    }))
}

fn unreadable(error: io::Error) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the runs cannot be read: {error}"))
}

async fn blocking(
    work: impl FnOnce() -> Result<Value, Refusal> + Send + 'static,
) -> Result<Json<Value>, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(unreadable(io::Error::other(error)))).map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::page::tests::{app, ask};
    use axum::body::Body;
    use axum::http::Request;
    use std::path::Path;

    async fn reply(app: &Arc<App>, path: &str) -> (StatusCode, Value) {
        let (status, _, body) = ask(app, Request::get(path).body(Body::empty()).unwrap()).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    fn run(folder: &Path, name: &str, lines: &str) {
        fs::create_dir_all(folder.join(name)).unwrap();
        fs::write(folder.join(name).join(METRICS), lines).unwrap();
    }

    #[tokio::test]
    async fn runs_are_the_folders_that_have_metrics() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), "one", "{\"step\":1}\n");
        fs::create_dir(folder.path().join("empty")).unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        let (status, body) = reply(&app(Some(folder.path())), "/api/runs").await;
        assert_eq!((status, &body["enabled"]), (StatusCode::OK, &json!(true)));
        let names: Vec<_> = body["runs"].as_array().unwrap().iter().map(|run| run["name"].clone()).collect();
        assert_eq!(names, [json!("one")]);
        let (status, body) = reply(&app(None), "/api/runs").await;
        assert_eq!((status, body), (StatusCode::OK, json!({ "enabled": false, "runs": [] })));
    }

    #[tokio::test]
    async fn metrics_go_on_where_the_caller_stopped_and_lines_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), "a run", "{\"step\":1}\n{\"step\":2}\n{\"st");
        let app = app(Some(folder.path()));
        let (_, body) = reply(&app, "/api/runs/a%20run/metrics").await;
        assert_eq!(body, json!({ "from": 0, "next": 22, "lines": "{\"step\":1}\n{\"step\":2}\n" }));
        let (_, body) = reply(&app, "/api/runs/a%20run/metrics?from=11").await;
        assert_eq!(body, json!({ "from": 11, "next": 22, "lines": "{\"step\":2}\n" }));
        let (_, body) = reply(&app, "/api/runs/a%20run/metrics?from=22").await;
        assert_eq!(body, json!({ "from": 22, "next": 22, "lines": "" }));
    }

    #[tokio::test]
    async fn a_file_that_was_written_anew_is_read_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), "run", "{\"step\":1}\n");
        let app = app(Some(folder.path()));
        for from in [5, 4000] {
            let (_, body) = reply(&app, &format!("/api/runs/run/metrics?from={from}")).await;
            assert_eq!((&body["from"], &body["next"]), (&json!(0), &json!(11)));
        }
    }

    #[tokio::test]
    async fn no_name_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        run(folder.path(), "secret", "{}\n");
        run(&runs, "run", "{}\n");
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path().join("secret"), runs.join("link")).unwrap();
        let app = app(Some(&runs));
        for name in
            ["..%2fsecret", "..", "%2e%2e%2fsecret", "link", "run%2f..%2frun", "run%00", ".", "%2fetc", ""]
        {
            let (status, _) = reply(&app, &format!("/api/runs/{name}/metrics")).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{name}");
        }
    }

    #[tokio::test]
    async fn a_query_that_means_nothing_is_refused() {
        let app = app(None);
        for query in ["from=-1", "from=x", "form=3"] {
            let (status, body) = reply(&app, &format!("/api/runs/run/metrics?{query}")).await;
            assert_eq!(status, StatusCode::BAD_REQUEST);
            assert!(body["error"].as_str().unwrap().contains("from"), "{body}");
        }
    }
}
