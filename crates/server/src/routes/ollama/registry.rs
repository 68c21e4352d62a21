//! `GET /v2/...`: other instances pull from here as from a registry.

use super::{blocking, find, refusal};
use crate::app::App;
use crate::refusal::Refusal;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use futures_util::stream::unfold;
use rhetor_store::{ModelName, parse_digest};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

/// Bytes of a file that are read at once.
const PIECE: usize = 256 << 10;

/// `GET /v2/{namespace}/{model}/manifests/{tag}`.
pub(in crate::routes) fn manifests() -> MethodRouter<Arc<App>> {
    get(manifest)
}

/// `GET /v2/{namespace}/{model}/blobs/{digest}`.
pub(in crate::routes) fn blobs() -> MethodRouter<Arc<App>> {
    get(blob)
}

fn name_of(namespace: &str, model: &str, tag: &str) -> Result<ModelName, Refusal> {
    ModelName::parse(&format!("{namespace}/{model}:{tag}")).map_err(|error| Refusal::wrong(error.to_string()))
}

async fn manifest(
    State(app): State<Arc<App>>,
    Path((namespace, model, tag)): Path<(String, String, String)>,
) -> Result<Response, Refusal> {
    let name = name_of(&namespace, &model, &tag)?;
    let text = blocking(move || {
        find(&app, &name.stored())?;
        let manifest = app.store.share(&name.stored()).map_err(|error| refusal(&error))?;
        Ok(manifest.to_registry())
    })
    .await?;
    let kind = HeaderValue::from_static("application/vnd.docker.distribution.manifest.v2+json");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn blob(
    State(app): State<Arc<App>>,
    Path((namespace, model, digest)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let no_blob = || Refusal::new(StatusCode::NOT_FOUND, format!("blob {digest:?} not found"));
    name_of(&namespace, &model, "latest")?;
    let sha256 = parse_digest(&digest).map_err(|error| Refusal::wrong(error.to_string()))?.to_string();
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok()).map(str::to_string);
    let (text, path) = (app.clone(), sha256.clone());
    let found = blocking(move || {
        let manifests = text.store.list().map_err(|error| refusal(&error))?;
        // Only what belongs to a model is given out.
        let mut layers = manifests.iter().flat_map(|m| m.layers().into_iter().chain([m.config_layer()]));
        let layer = layers.find(|layer| layer.sha256 == path);
        let builtin = || text.store.share(rhetor_store::BUILTIN).ok().filter(|m| m.files[0].sha256 == path);
        match layer {
            Some(layer) => {
                Ok(layer.bytes.map(Found::Text).or_else(|| text.store.find_blob(&path).ok().map(Found::File)))
            }
            None => Ok(builtin().and_then(|_| text.store.find_blob(&path).ok().map(Found::File))),
        }
    })
    .await?;
    let (source, len) = match found.ok_or_else(no_blob)? {
        Found::Text(bytes) => {
            let len = bytes.len() as u64;
            (Source::Text(bytes), len)
        }
        Found::File(path) => {
            let file = File::open(&path).map_err(|_| no_blob())?;
            let len = file.metadata().map_err(|_| no_blob())?.len();
            (Source::File(file), len)
        }
    };
    let (from, to, is_part) = match range.as_deref().map(|range| part(range, len)) {
        None | Some(Part::All) => (0, len, false),
        Some(Part::Of(from, to)) => (from, to, true),
        Some(Part::Outside) => {
            let range = HeaderValue::from_str(&format!("bytes */{len}")).map_err(|_| no_blob())?;
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, range)]).into_response());
        }
    };
    let body = match source {
        Source::Text(bytes) => Body::from(bytes[from as usize..to as usize].to_vec()),
        Source::File(file) => file_body(file, from, to),
    };
    let mut response = body.into_response();
    let set = |headers: &mut HeaderMap, name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    let headers = response.headers_mut();
    set(headers, header::CONTENT_TYPE, "application/octet-stream".to_string());
    set(headers, header::ACCEPT_RANGES, "bytes".to_string());
    set(headers, header::ETAG, format!("\"sha256:{sha256}\""));
    set(headers, header::CONTENT_LENGTH, (to - from).to_string());
    if is_part {
        set(headers, header::CONTENT_RANGE, format!("bytes {from}-{}/{len}", to.saturating_sub(1)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

enum Found {
    Text(Vec<u8>),
    File(std::path::PathBuf),
}

enum Source {
    Text(Vec<u8>),
    File(File),
}

/// A part of a blob.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    All,
    /// From the first byte to the one after the last.
    Of(u64, u64),
    Outside,
}

/// Reads `Range`: one part in bytes; anything else means the whole, as RFC 9110, section 14.2, allows.
fn part(range: &str, len: u64) -> Part {
    let Some((from, to)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Part::All;
    };
    match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), _) if from >= len => Part::Outside,
        (Ok(from), Ok(to)) if to >= from => Part::Of(from, len.min(to.saturating_add(1))),
        (Ok(from), _) if to.is_empty() => Part::Of(from, len),
        (Err(_), Ok(last)) if from.is_empty() && last > 0 => Part::Of(len.saturating_sub(last), len),
        _ => Part::All,
    }
}

/// The bytes `from..to` of a file.
fn file_body(file: File, from: u64, to: u64) -> Body {
    Body::from_stream(unfold((Some(file), from), move |(file, at)| async move {
        let mut file = file?;
        if at >= to {
            return None;
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; PIECE.min(usize::try_from(to - at).unwrap_or(PIECE))];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut bytes)?;
            Ok::<_, std::io::Error>((bytes, file))
        });
        match read.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok((bytes, file)) => {
                let after = at + bytes.len() as u64;
                Some((Ok(Bytes::from(bytes)), (Some(file), after)))
            }
            Err(error) => Some((Err(error), (None, at))),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        assert_eq!(part("bytes=0-4", 10), Part::Of(0, 5));
        assert_eq!(part("bytes=5-", 10), Part::Of(5, 10));
        assert_eq!(part("bytes=5-99", 10), Part::Of(5, 10));
        assert_eq!(part("bytes=-3", 10), Part::Of(7, 10));
        assert_eq!(part("bytes=10-", 10), Part::Outside);
        for whole in ["", "items=0-1", "bytes=4-2", "bytes=a-b", "bytes=0-1,3-4"] {
            assert_eq!(part(whole, 10), Part::All, "{whole}");
        }
    }
}
