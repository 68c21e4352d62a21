//! `GET /` and `GET /assets/...`: the web page, which the binary carries; clients of Ollama get its greeting.
//!
//! The page is built from `crates/server/web` (TypeScript) into `web/dist`, which is committed, so that building the
//! program needs no node. File names under `assets` carry a digest of what is in them, so they never change.

use crate::app::App;
use crate::refusal::Refusal;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use include_dir::{Dir, File, include_dir};
use sha2::{Digest, Sha256};
use std::sync::{Arc, LazyLock};

/// What `vite build` made.
static DIST: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/web/dist");

/// What a browser may do with the page: its own files, its own server, and nothing else.
///
/// Source: Content Security Policy Level 3, W3C.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// What answers clients that ask whether Ollama is there.
const GREETING: &str = "Ollama is running";

/// The entity tag of the page, which has one address for all its versions.
static PAGE_TAG: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest(DIST.get_file("index.html").map_or(&[][..], File::contents));
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
});

/// `GET /` and `HEAD /`.
pub(super) fn root() -> MethodRouter<Arc<App>> {
    get(
        async |headers: HeaderMap| {
            if wants_page(&headers) { page(&headers) } else { GREETING.into_response() }
        },
    )
}

/// `GET /assets/{*path}`.
pub(super) fn assets() -> MethodRouter<Arc<App>> {
    get(async |Path(path): Path<String>| -> Result<Response, Refusal> {
        let file = DIST.get_file(format!("assets/{path}")).ok_or_else(|| {
            Refusal::new(StatusCode::NOT_FOUND, format!("the page has no file assets/{path}"))
        })?;
        Ok(reply(file, "public, max-age=31536000, immutable"))
    })
}

/// Whether a browser asks: programs send `application/json` or `*/*`.
fn wants_page(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        range.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
    })
}

fn page(headers: &HeaderMap) -> Response {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == PAGE_TAG.as_str()));
    let mut response = match DIST.get_file("index.html") {
        _ if is_known => StatusCode::NOT_MODIFIED.into_response(),
        Some(file) => reply(file, "no-cache"),
        None => GREETING.into_response(),
    };
    if let Ok(tag) = HeaderValue::from_str(&PAGE_TAG) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    // A browser takes the headers of a 304 for the page that it keeps, the policy among them.
    let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn reply(file: &'static File<'static>, caching: &'static str) -> Response {
    let extension = file.path().extension().and_then(|extension| extension.to_str());
    let kind = match extension {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    let headers: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, caching),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Body::from(file.contents())).into_response()
}

#[cfg(test)]
pub(in crate::routes) mod tests {
    use super::*;
    use crate::config::Config;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use std::path::Path as Folder;
    use tower::ServiceExt;

    /// A server's insides with no store and a folder of runs.
    pub(in crate::routes) fn app(runs: Option<&Folder>) -> Arc<App> {
        let config = Config { runs: runs.map(Folder::to_path_buf), ..Config::default() };
        let store = rhetor_store::Store::open(Folder::new("no-such-store"));
        Arc::new(App::new(config, store, rhetor_store::PullOptions::default()))
    }

    /// The reply to a request.
    pub(in crate::routes) async fn ask(
        app: &Arc<App>,
        request: Request<Body>,
    ) -> (StatusCode, HeaderMap, String) {
        let response = crate::serve::router(app.clone()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8_lossy(&bytes).into_owned())
    }

    fn request(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
        let request = Request::get(path);
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value))
            .body(Body::empty())
            .unwrap()
    }

    const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

    #[tokio::test]
    async fn a_browser_gets_the_page_and_a_program_gets_the_greeting() {
        let app = app(None);
        let (status, headers, body) = ask(&app, request("/", &[BROWSER])).await;
        assert_eq!(
            (status, &headers["content-type"]),
            (StatusCode::OK, &"text/html; charset=utf-8".parse().unwrap())
        );
        assert_eq!(headers["content-security-policy"], CONTENT_SECURITY_POLICY);
        assert!(body.contains("<script type=\"module\""));
        for accept in ["*/*", "application/json"] {
            let (status, headers, body) = ask(&app, request("/", &[("accept", accept)])).await;
            assert_eq!((status, body.as_str()), (StatusCode::OK, GREETING));
            assert!(headers["content-type"].to_str().unwrap().starts_with("text/plain"));
        }
    }

    #[tokio::test]
    async fn a_page_that_the_browser_has_is_not_sent_again() {
        let app = app(None);
        let (_, headers, _) = ask(&app, request("/", &[BROWSER])).await;
        let tag = headers["etag"].to_str().unwrap().to_string();
        let (status, headers, body) = ask(&app, request("/", &[BROWSER, ("if-none-match", &tag)])).await;
        assert_eq!(
            (status, body.as_str(), headers["etag"].to_str().unwrap()),
            (StatusCode::NOT_MODIFIED, "", &*tag)
        );
        assert_eq!(headers["content-security-policy"], CONTENT_SECURITY_POLICY);
        assert_eq!(headers["cache-control"], "no-cache");
    }

    #[tokio::test]
    async fn every_file_of_the_page_is_served_and_nothing_else() {
        let app = app(None);
        let files: Vec<_> = DIST.get_dir("assets").expect("the page was built").files().collect();
        assert!(files.iter().any(|file| file.path().extension().is_some_and(|extension| extension == "js")));
        for file in files {
            let (status, headers, _) = ask(&app, request(&format!("/{}", file.path().display()), &[])).await;
            assert_eq!(status, StatusCode::OK);
            assert_ne!(headers["content-type"], "application/octet-stream", "{}", file.path().display());
            assert!(headers["cache-control"].to_str().unwrap().contains("immutable"));
        }
        for path in [
            "/assets/none.js",
            "/assets/../index.html",
            "/assets/%2e%2e/index.html",
            "/assets/..%2findex.html",
        ] {
            let (status, _, _) = ask(&app, request(path, &[])).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn the_page_names_no_other_host() {
        let html = DIST.get_file("index.html").unwrap().contents_utf8().unwrap();
        assert!(!html.contains("http:") && !html.contains("https:") && !html.contains("style="), "{html}");
    }
}
