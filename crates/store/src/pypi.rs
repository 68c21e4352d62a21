//! Finds a package's archive in a Python package index.
//!
//! Source: the simple repository API in JSON, PEP 691, with sizes, PEP 700; versions are ordered by PEP 440.

use crate::archive::some_of;
use crate::download::{Client, Download};
use crate::pull::Progress;
use crate::reference::normalise_package;
use crate::{Error, PullOptions};
use serde::Deserialize;
use std::cmp::Reverse;
use std::ops::ControlFlow;

const ACCEPT: &str = "application/vnd.pypi.simple.v1+json";

#[derive(Deserialize)]
struct Project {
    files: Vec<ProjectFile>,
}

#[derive(Deserialize)]
struct ProjectFile {
    filename: String,
    url: String,
    hashes: std::collections::HashMap<String, String>,
    size: Option<u64>,
    /// `false`, `true` or the reason.
    #[serde(default)]
    yanked: serde_json::Value,
}

/// An archive found in the index.
pub struct Found {
    /// Its exact version.
    pub version: String,
    /// Where it is.
    pub download: Download,
}

/// Finds the archive of `package`, of `version` or the newest.
pub fn find(
    client: &Client<'_>,
    options: &PullOptions,
    package: &str,
    version: Option<&str>,
    on_progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Found, Error> {
    let url = format!("{}/{package}/", options.index_url.trim_end_matches('/'));
    let place = match version {
        Some(version) => format!("{package}=={version}"),
        None => package.to_string(),
    };
    let not_found = |reason: String| Error::NotFound { place: place.clone(), reason };
    let answer = client.json(&url, ACCEPT, on_progress).map_err(|error| match error {
        Error::Status { status: 404, .. } => {
            not_found("the package index does not know this package".to_string())
        }
        other => other,
    })?;
    let project: Project = serde_json::from_value(answer)
        .map_err(|e| Error::Protocol { url: url.clone(), reason: e.to_string() })?;
    let file = choose(&project.files, version).map_err(&not_found)?;
    if !is_zip(&file.filename) {
        let reason =
            "it is a source archive of a kind that is not read; only wheels and .zip files are".to_string();
        return Err(Error::Archive { archive: file.filename.clone(), reason });
    }
    let sha256 = file.hashes.get("sha256").map(|hash| hash.to_ascii_lowercase());
    if sha256.is_none() {
        let reason = format!("the index gives no sha256 of {}", file.filename);
        return Err(Error::Protocol { url, reason });
    }
    let download =
        Download { url: join(&url, &file.url), name: file.filename.clone(), size: file.size, sha256 };
    Ok(Found { version: version_of(&file.filename).unwrap_or_default().to_string(), download })
}

/// The best archive: of the newest version, a wheel for every machine, then any wheel, then a zip.
fn choose<'a>(files: &'a [ProjectFile], wanted: Option<&str>) -> Result<&'a ProjectFile, String> {
    let is_wanted = |file: &&ProjectFile| match (wanted, version_of(&file.filename)) {
        (Some(wanted), Some(version)) => order(version) == order(wanted),
        (None, Some(_)) => matches!(file.yanked, serde_json::Value::Bool(false) | serde_json::Value::Null),
        (_, None) => false,
    };
    let rank = |file: &&ProjectFile| {
        let version = version_of(&file.filename).unwrap_or_default();
        let name = file.filename.as_str();
        let kind = [name.ends_with("-none-any.whl"), name.ends_with(".whl"), is_zip(name)];
        let is_final = !is_prerelease(version);
        (is_final, order(version), kind, Reverse(name.to_string()))
    };
    files.iter().filter(is_wanted).max_by_key(rank).ok_or_else(|| {
        let mut versions: Vec<&str> = files.iter().filter_map(|file| version_of(&file.filename)).collect();
        versions.sort_by_key(|version| Reverse(order(version)));
        versions.dedup();
        format!("the package index has no such version; there are {}", some_of(&versions))
    })
}

fn is_zip(filename: &str) -> bool {
    filename.ends_with(".whl") || filename.ends_with(".zip")
}

/// The version in the name of a wheel (PEP 427) or source archive (PEP 625).
fn version_of(filename: &str) -> Option<&str> {
    if let Some(stem) = filename.strip_suffix(".whl") {
        return stem.split('-').nth(1);
    }
    let stem = [".tar.gz", ".zip", ".tar.bz2"].iter().find_map(|end| filename.strip_suffix(end))?;
    let (name, version) = stem.rsplit_once('-')?;
    (!normalise_package(name).is_empty()).then_some(version)
}

/// A key that sorts versions as PEP 440 says; local parts are ignored.
fn order(version: &str) -> (u64, Vec<u64>, i64, u64, u64, u64) {
    let version = version.trim_start_matches('v').to_ascii_lowercase();
    let version = version.split('+').next().unwrap_or_default();
    let (epoch, rest) = version.split_once('!').unwrap_or(("0", version));
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let mut release: Vec<u64> = rest[..end].split('.').filter_map(|n| n.parse().ok()).collect();
    while release.last() == Some(&0) {
        release.pop();
    }
    let number_after = |word: &str| {
        let after = rest[end..].split_once(word)?.1.trim_start_matches(['.', '-', '_']);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        Some(after[..digits].parse().unwrap_or(0))
    };
    let dev = number_after("dev");
    let post = number_after("post").map_or(0, |n| n + 1);
    let (phase, number) = match (number_after("rc"), number_after("b"), number_after("a")) {
        (Some(n), ..) => (-1, n),
        (None, Some(n), _) => (-2, n),
        (None, None, Some(n)) => (-3, n),
        _ if dev.is_some() && post == 0 => (-4, 0),
        _ => (0, 0),
    };
    (epoch.parse().unwrap_or(0), release, phase, number, post, dev.unwrap_or(u64::MAX))
}

fn is_prerelease(version: &str) -> bool {
    let (_, _, phase, _, _, dev) = order(version);
    phase < 0 || dev != u64::MAX
}

/// `link` seen from the page `base`.
fn join(base: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_string();
    }
    let host_end =
        base.find("://").and_then(|i| base[i + 3..].find('/').map(|j| i + 3 + j)).unwrap_or(base.len());
    match link.strip_prefix('/') {
        Some(rest) => format!("{}/{rest}", &base[..host_end]),
        None => format!("{base}{link}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_pep_440_says() {
        let sorted = [
            "0.9",
            "1.0.dev1",
            "1.0a1",
            "1.0a2.dev1",
            "1.0a2",
            "1.0b1",
            "1.0rc1",
            "1.0",
            "1.0.post1",
            "1.0.1",
            "1.1",
            "1.10",
            "2!0.1",
        ];
        for pair in sorted.windows(2) {
            assert!(order(pair[0]) < order(pair[1]), "{} {}", pair[0], pair[1]);
        }
        assert_eq!(order("1.0"), order("1.0.0"));
    }

    #[test]
    fn the_newest_final_wheel_is_chosen_unless_a_version_is_named() {
        let file = |filename: &str, yanked: bool| ProjectFile {
            filename: filename.to_string(),
            url: String::new(),
            hashes: Default::default(),
            size: None,
            yanked: yanked.into(),
        };
        let files = [
            file("p-1.0.tar.gz", false),
            file("p-1.0-py3-none-any.whl", false),
            file("p-1.0-cp311-cp311-linux_x86_64.whl", false),
            file("p-1.1-py3-none-any.whl", true),
            file("p-2.0rc1-py3-none-any.whl", false),
            file("p-0.9.tar.gz", false),
        ];
        let name = |wanted| choose(&files, wanted).map(|file| file.filename.as_str());
        assert_eq!(name(None), Ok("p-1.0-py3-none-any.whl"));
        assert_eq!(name(Some("1.1")), Ok("p-1.1-py3-none-any.whl"));
        assert_eq!(name(Some("2.0rc1")), Ok("p-2.0rc1-py3-none-any.whl"));
        assert_eq!(name(Some("0.9")), Ok("p-0.9.tar.gz"));
        let there_are = "there are `2.0rc1`, `1.1`, `1.0`, `0.9`";
        assert_eq!(name(Some("3")), Err(format!("the package index has no such version; {there_are}")));
    }

    #[test]
    fn links_are_seen_from_their_page() {
        assert_eq!(join("http://h/simple/p/", "https://f/x"), "https://f/x");
        assert_eq!(join("http://h/simple/p/", "/f/x"), "http://h/f/x");
        assert_eq!(join("http://h/simple/p/", "x"), "http://h/simple/p/x");
    }
}
