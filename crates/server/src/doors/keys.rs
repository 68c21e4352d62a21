//! API keys: `Authorization: Bearer KEY`.

use crate::refusal::Refusal;
use argon2::password_hash::PasswordVerifier;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::Semaphore;

/// A key that requests may show: itself, or its hash as an argon2 PHC string (`$argon2id$v=19$...`), so that no file or
/// list of processes need hold it. Is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Why it cannot be a key; `None` if it can.
    pub fn fault(&self) -> Option<String> {
        if self.0.is_empty() || self.0.contains(|c: char| c.is_control() || c == ' ') {
            return Some("an API key is empty, or has spaces or control characters".to_string());
        }
        let is_hash = self.0.starts_with("$argon2");
        let fault = argon2::password_hash::phc::PasswordHash::new(&self.0).err().filter(|_| is_hash);
        fault.map(|error| format!("an API key's argon2 hash cannot be read: {error}"))
    }
}

impl<T: Into<String>> From<T> for ApiKey {
    fn from(key: T) -> ApiKey {
        ApiKey(key.into())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// The keys that are known, by their digests: equal lengths, and nothing to be read in a memory dump.
pub(super) struct Keys {
    plain: Vec<[u8; 32]>,
    hashed: Vec<String>,
    /// Digests of keys that have been found among the hashed ones: a hash costs some ten milliseconds and 19 MiB.
    found: Mutex<Vec<[u8; 32]>>,
    /// One hash at a time.
    turn: Semaphore,
}

impl Keys {
    pub fn new(keys: &[ApiKey]) -> Keys {
        let (hashed, plain): (Vec<&ApiKey>, Vec<&ApiKey>) =
            keys.iter().partition(|key| key.0.starts_with("$argon2"));
        Keys {
            plain: plain.iter().map(|key| digest(&key.0)).collect(),
            hashed: hashed.iter().map(|key| key.0.clone()).collect(),
            found: Mutex::default(),
            turn: Semaphore::new(1),
        }
    }

    fn is_wanted(&self) -> bool {
        !self.plain.is_empty() || !self.hashed.is_empty()
    }

    /// Whether `key` is one of them. Takes equally long whichever of the plain ones it is or is like.
    async fn know(self: &Arc<Self>, key: &str) -> bool {
        let shown = digest(key);
        if is_among(&shown, &self.plain) {
            return true;
        }
        if self.hashed.is_empty()
            || is_among(&shown, &self.found.lock().unwrap_or_else(PoisonError::into_inner))
        {
            return !self.hashed.is_empty();
        }
        let Ok(_turn) = self.turn.acquire().await else { return false };
        let (keys, key) = (self.clone(), key.to_string());
        let is_known = tokio::task::spawn_blocking(move || {
            let argon2 = argon2::Argon2::default();
            keys.hashed.iter().any(|hash| argon2.verify_password(key.as_bytes(), hash.as_str()).is_ok())
        });
        let is_known = is_known.await.unwrap_or(false);
        if is_known {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).push(shown);
        }
        is_known
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn is_among(shown: &[u8; 32], known: &[[u8; 32]]) -> bool {
    known.iter().fold(Choice::from(0), |found, key| found | shown.ct_eq(key)).into()
}

/// Asks for a key, if there are any, but for what is open.
pub(super) async fn ask(State(keys): State<Arc<Keys>>, request: Request, next: Next) -> Response {
    if !keys.is_wanted() || is_open(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let reason = match shown(request.headers()) {
        Some(key) if keys.know(key).await => return next.run(request).await,
        Some(_) => "the API key is wrong",
        None => "an API key is wanted: `Authorization: Bearer KEY`",
    };
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, reason).code("invalid_api_key");
    let mut response = refusal.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The key that a request shows.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// What needs no key: whether the server is alive, and the files of the page, which asks for the key itself.
fn is_open(method: &Method, path: &str) -> bool {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    is_read
        && (matches!(path, "/" | "/health" | "/favicon.ico" | "/index.html") || path.starts_with("/assets/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `hunter42` with little memory and one pass.
    fn hashed() -> String {
        use argon2::password_hash::PasswordHasher;
        let params = argon2::Params::new(64, 1, 1, None).unwrap();
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        argon2.hash_password(b"hunter42").unwrap().to_string()
    }

    #[tokio::test]
    async fn keys_are_known_plain_or_hashed() {
        let keys = Arc::new(Keys::new(&["one".into(), hashed().into()]));
        for key in ["one", "hunter42", "hunter42"] {
            assert!(keys.know(key).await, "{key}");
        }
        for key in ["", "on", "one ", "ones", "hunter4", hashed().as_str()] {
            assert!(!keys.know(key).await, "{key}");
        }
        assert_eq!(keys.found.lock().unwrap().len(), 1, "the hash was computed once for the right key");
    }

    #[test]
    fn a_key_is_not_shown_and_a_broken_one_is_told() {
        let key = ApiKey::from("secret");
        assert_eq!((format!("{key:?}").as_str(), key.fault()), ("ApiKey(..)", None));
        assert_eq!(ApiKey::from(hashed()).fault(), None);
        for broken in ["", "a b", "a\n", "$argon2id$nonsense"] {
            assert!(ApiKey::from(broken).fault().is_some(), "{broken}");
        }
    }

    #[test]
    fn only_reading_the_page_and_its_health_is_open() {
        assert!(is_open(&Method::GET, "/") && is_open(&Method::HEAD, "/health"));
        assert!(is_open(&Method::GET, "/assets/index.js"));
        for path in ["/v1/models", "/api/tags", "/metrics", "/assets", "/healthy", "//", "/v1/../assets/x"] {
            assert!(!is_open(&Method::GET, path), "{path}");
        }
        assert!(!is_open(&Method::POST, "/"));
    }
}
