//! Pictures of requests: where they stand in a text, and their bytes.

use crate::app::App;
use crate::doors;
use crate::refusal::Refusal;
use crate::wire::request::wrong;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

/// What stands in a text for a picture.
pub(crate) const PLACE: &str = "<Img><ImageHere></Img> ";

/// A picture that a message shows: its URL, and the field that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// `data:image/png;base64,...`
    pub url: String,
    /// As in `messages[0].content[1].image_url.url`.
    pub path: String,
}

/// The files of the pictures, in order.
pub(crate) async fn files(app: &App, shown: &[Shown]) -> Result<Vec<Arc<[u8]>>, Refusal> {
    let mut files = Vec::with_capacity(shown.len());
    for Shown { url, path } in shown {
        files.push(match url.strip_prefix("data:") {
            Some(rest) => of_data(rest, path)?,
            None => fetched(app, url, path).await?,
        });
    }
    Ok(files)
}

/// From a host that the server's owner allows.
async fn fetched(app: &App, url: &str, path: &str) -> Result<Arc<[u8]>, Refusal> {
    let (config, url, field) = (app.config.clone(), url.to_string(), path.to_string());
    let fetch = move || doors::pictures::fetch(&config, &url, &field);
    tokio::task::spawn_blocking(fetch).await.unwrap_or_else(|_| Err(wrong(path, "it cannot be fetched")))
}

/// What stands after `data:`, of RFC 2397.
fn of_data(rest: &str, path: &str) -> Result<Arc<[u8]>, Refusal> {
    let (kind, data) = rest.split_once(',').ok_or_else(|| wrong(path, "a `data:` URL without a comma"))?;
    match kind.strip_suffix(";base64") {
        Some(_) => of_base64(data, path),
        None => Ok(percent_decode_str(data).collect::<Vec<u8>>().into()),
    }
}

/// A file in base64, white space passed over.
pub(crate) fn of_base64(text: &str, path: &str) -> Result<Arc<[u8]>, Refusal> {
    let bytes: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let file = STANDARD.decode(bytes).map_err(|error| wrong(path, format!("no base64: {error}")))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_url_is_base64_or_percent_encoded() {
        assert_eq!(*of_data("image/png;base64,iVBO\nRw==", "p").unwrap(), [0x89, b'P', b'N', b'G']);
        assert_eq!(*of_data("image/png,%89PNG", "p").unwrap(), [0x89, b'P', b'N', b'G']);
        let refusal = of_data("image/png;base64,?", "messages[0].content").unwrap_err();
        assert_eq!(refusal.param.as_deref(), Some("messages[0].content"));
        assert!(of_data("image/png", "p").is_err());
    }
}
