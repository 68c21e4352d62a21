//! Names of models as Ollama's clients write them: `[HOST/][NAMESPACE/]MODEL[:TAG]`.

use crate::Error;
use std::fmt;

/// The host that a name without one has.
pub const DEFAULT_HOST: &str = "registry.ollama.ai";
/// The namespace that a name without one has.
pub const DEFAULT_NAMESPACE: &str = "library";
/// The tag that a name without one has.
pub const DEFAULT_TAG: &str = "latest";

/// A model's name, taken apart and checked: no part can lead out of a folder.
///
/// `Display` gives the shortest spelling with its tag, as in `smollm2-135m-instruct:latest`. Two names are the same model if they
/// differ in case only: compare [`ModelName::key`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// Where it can be pulled from: a name or address, with a port or without.
    pub host: String,
    /// Whose it is.
    pub namespace: String,
    /// What it is called.
    pub model: String,
    /// Which of its versions.
    pub tag: String,
}

impl ModelName {
    /// Takes `text` apart.
    pub fn parse(text: &str) -> Result<ModelName, Error> {
        let refuse = |reason| Err(Error::Reference { text: text.to_string(), reason });
        let mut parts: Vec<&str> = text.split('/').collect();
        let last = parts.pop().unwrap_or_default();
        let (model, tag) = last.split_once(':').unwrap_or((last, DEFAULT_TAG));
        let (host, namespace) = match parts.as_slice() {
            [] => (DEFAULT_HOST, DEFAULT_NAMESPACE),
            [namespace] => (DEFAULT_HOST, *namespace),
            [host, namespace] => (*host, *namespace),
            _ => return refuse("a name has at most three parts, as in `HOST/NAMESPACE/MODEL:TAG`"),
        };
        if !is_part(host, 350, "_-.:") {
            return refuse("the host must have 1 to 350 letters, digits, `_`, `-`, `.` or `:`");
        }
        if !is_part(namespace, 80, "_-") {
            return refuse("the namespace must have 1 to 80 letters, digits, `_` or `-`");
        }
        if !is_part(model, 80, "_-.") {
            return refuse("the model must have 1 to 80 letters, digits, `_`, `-` or `.`");
        }
        if !is_part(tag, 80, "_-.") {
            return refuse("the tag must have 1 to 80 letters, digits, `_`, `-` or `.`");
        }
        let own = str::to_string;
        Ok(ModelName { host: own(host), namespace: own(namespace), model: own(model), tag: own(tag) })
    }

    /// The name in the store: the shortest spelling, without the tag `latest`.
    pub fn stored(&self) -> String {
        let name = self.to_string();
        match name.rsplit_once(':') {
            Some((name, tag)) if tag.eq_ignore_ascii_case(DEFAULT_TAG) => name.to_string(),
            _ => name,
        }
    }

    /// What all spellings of this name share.
    pub fn key(&self) -> String {
        self.stored().to_ascii_lowercase()
    }

    /// Whether the name says where the model can be pulled from.
    pub fn has_host(&self) -> bool {
        !self.host.eq_ignore_ascii_case(DEFAULT_HOST)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_host() {
            write!(f, "{}/{}/", self.host, self.namespace)?;
        } else if !self.namespace.eq_ignore_ascii_case(DEFAULT_NAMESPACE) {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}:{}", self.model, self.tag)
    }
}

/// Whether `part` has 1 to `len_max` characters, all letters, digits or of `others`, the first a letter, a digit or `_`.
fn is_part(part: &str, len_max: usize, others: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    let is_first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    part.len() <= len_max && part.starts_with(is_first) && part.chars().all(is_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, shown: &str, stored: &str) {
        let name = ModelName::parse(text).unwrap();
        assert_eq!((name.to_string().as_str(), name.stored().as_str()), (shown, stored), "{text}");
        assert_eq!(ModelName::parse(shown).unwrap(), name);
        assert_eq!(ModelName::parse(stored).unwrap().key(), name.key());
    }

    #[test]
    fn names_are_shown_without_what_goes_without_saying() {
        check("m", "m:latest", "m");
        check("Llama3.2:1B-q4_0", "Llama3.2:1B-q4_0", "Llama3.2:1B-q4_0");
        check("me/m", "me/m:latest", "me/m");
        check("library/m:v1", "m:v1", "m:v1");
        check("registry.ollama.ai/library/m", "m:latest", "m");
        check("127.0.0.1:8080/library/m", "127.0.0.1:8080/library/m:latest", "127.0.0.1:8080/library/m");
    }

    #[test]
    fn no_name_leads_out_of_a_folder() {
        for bad in [
            "",
            ":",
            "m:",
            ":v1",
            "../m",
            "a/../m",
            "..",
            ".m",
            "m:..",
            "m:.x",
            "m/",
            "/m",
            "a//m",
            "a/b/c/d",
            "m:v1:v2",
            "m@sha256:00",
            "a b",
            "m\0",
            r"a\b",
            "a:80/m",
            "m%2f..",
            "模型",
        ] {
            assert!(matches!(ModelName::parse(bad), Err(Error::Reference { .. })), "{bad:?}");
        }
        assert!(ModelName::parse(&"x".repeat(81)).is_err());
    }
}
