//! Finds a model's files in a repository of the Hugging Face hub, pinned to one commit.

use crate::archive::{is_model_file, some_of};
use crate::download::{Client, Download};
use crate::pull::Progress;
use crate::{Error, PullOptions, file_name};
use serde::Deserialize;
use std::ops::ControlFlow;

#[derive(Deserialize)]
struct Repository {
    sha: String,
    siblings: Vec<RepositoryFile>,
    #[serde(rename = "cardData")]
    card: Option<Card>,
}

#[derive(Deserialize)]
struct Card {
    license: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct RepositoryFile {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: Option<String>,
    size: Option<u64>,
}

/// A model found on the hub.
pub struct Found {
    /// The exact commit.
    pub commit: String,
    /// The licence that the model card names.
    pub licence: Option<String>,
    /// Its files; each `name` is the path inside the repository.
    pub downloads: Vec<Download>,
}

/// Finds the files of `repository` at `revision`: `file`, or the only model there is.
pub fn find(
    client: &Client<'_>,
    options: &PullOptions,
    repository: &str,
    revision: Option<&str>,
    file: Option<&str>,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Found, Error> {
    let hub = options.hub_url.trim_end_matches('/');
    let revision = revision.unwrap_or("main").replace('/', "%2F");
    let url = format!("{hub}/api/models/{repository}/revision/{revision}?blobs=true");
    let protocol = |reason: String| Error::Protocol { url: url.clone(), reason };
    let not_found = |reason: String| Error::NotFound { place: repository.to_string(), reason };
    let answer = client.json(&url, "application/json", on_progress).map_err(|error| match error {
        Error::Status { status: 401 | 403 | 404, .. } => {
            not_found("the hub has no such repository or revision, or it wants a token".to_string())
        }
        other => other,
    })?;
    let answer: Repository = serde_json::from_value(answer).map_err(|e| protocol(e.to_string()))?;
    if !answer.sha.chars().all(|c| c.is_ascii_hexdigit()) || answer.sha.is_empty() {
        return Err(protocol(format!("`{}` is no commit", answer.sha)));
    }
    let names: Vec<&str> = answer.siblings.iter().map(|sibling| sibling.rfilename.as_str()).collect();
    let chosen = choose(&names, file).map_err(not_found)?;
    let mut downloads = Vec::new();
    for sibling in answer.siblings.iter().filter(|sibling| chosen.contains(&sibling.rfilename.as_str())) {
        let path = file_name::check(&sibling.rfilename)?;
        let lfs = sibling.lfs.as_ref();
        downloads.push(Download {
            url: format!("{hub}/{repository}/resolve/{}/{}", answer.sha, percent_encode(path)),
            name: path.to_string(),
            size: lfs.and_then(|lfs| lfs.size).or(sibling.size),
            sha256: lfs.and_then(|lfs| lfs.sha256.clone()),
        });
    }
    let licence = answer.card.and_then(|card| card.license).and_then(|l| l.as_str().map(str::to_string));
    Ok(Found { commit: answer.sha, licence, downloads })
}

/// The files that make the model: `wanted`, the only GGUF, or safetensors (else PyTorch) with their configuration.
fn choose<'a>(names: &[&'a str], wanted: Option<&str>) -> Result<Vec<&'a str>, String> {
    if let Some(wanted) = wanted {
        return match names.iter().find(|name| **name == wanted) {
            Some(name) => Ok(vec![*name]),
            None => Err(format!("no file `{wanted}`; there are {}", some_of(names))),
        };
    }
    let at_top: Vec<&str> = names.iter().copied().filter(|name| !name.contains('/')).collect();
    let ends = |end: &str| at_top.iter().copied().filter(|name| name.ends_with(end)).collect::<Vec<_>>();
    let ggufs: Vec<&str> = names.iter().copied().filter(|name| name.ends_with(".gguf")).collect();
    let mut weights = ends(".safetensors");
    // Repositories also carry the same weights as one consolidated file, or adapters and other variants.
    let is_standard = |name: &&str| name.starts_with("model.") || name.starts_with("model-");
    if weights.iter().any(is_standard) {
        weights.retain(is_standard);
    }
    if weights.is_empty() && ggufs.is_empty() {
        weights = ends(".bin").into_iter().filter(|name| name.starts_with("pytorch_model")).collect();
    }
    if weights.is_empty() {
        return match ggufs.as_slice() {
            [name] => Ok(vec![*name]),
            [] => Err(format!("no model file; there are {}", some_of(names))),
            several => Err(format!("several models: {}; name one after `:`", some_of(several))),
        };
    }
    let beside = at_top.iter().copied().filter(|name| is_model_file(name) && !name.ends_with(".safetensors"));
    Ok(weights.iter().copied().chain(beside).collect())
}

fn percent_encode(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], wanted: Option<&str>, expected: &str) {
        let got = match choose(names, wanted) {
            Ok(files) => files.join(" "),
            Err(reason) => reason,
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn the_files_of_a_model_are_chosen_and_ambiguity_is_refused() {
        check(&["README.md", "m.gguf"], None, "m.gguf");
        check(&["a.gguf", "b.gguf"], Some("b.gguf"), "b.gguf");
        check(&["a.gguf", "b.gguf"], None, "several models: `a.gguf`, `b.gguf`; name one after `:`");
        check(&["README.md"], None, "no model file; there are `README.md`");
        check(
            &[
                "config.json",
                "model-1.safetensors",
                "model-2.safetensors",
                "consolidated.safetensors",
                "x.py",
                "original/x.json",
                "tokenizer.json",
                "pytorch_model.bin",
            ],
            None,
            "model-1.safetensors model-2.safetensors config.json tokenizer.json",
        );
        check(&["config.json", "pytorch_model.bin"], None, "pytorch_model.bin config.json");
    }

    #[test]
    fn odd_characters_in_a_path_are_encoded() {
        assert_eq!(percent_encode("a b/ü#.gguf"), "a%20b/%C3%BC%23.gguf");
    }
}
