//! Which names from outside may become files.

use crate::{Error, sha256};

/// Names that Windows keeps for devices, whatever follows the first dot.
const RESERVED: [&str; 6] = ["con", "prn", "aux", "nul", "conin$", "conout$"];

/// Returns `path` if every part of it is a plain name, on every system, and none leads out of the folder.
pub fn check(path: &str) -> Result<&str, Error> {
    let refuse = |reason| Err(Error::FileName { name: path.to_string(), reason });
    if path.is_empty() || path.len() > 512 {
        return refuse("it must have 1 to 512 bytes");
    }
    for part in path.split('/') {
        let stem = part.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let is_port = |prefix: &str| {
            stem.strip_prefix(prefix).is_some_and(|n| n.chars().count() == 1 && !matches!(n, "0"))
                && !stem.ends_with(|c: char| c.is_ascii_alphabetic())
        };
        if part.is_empty() {
            return refuse("a part of it is empty or it is absolute");
        } else if part == "." || part == ".." {
            return refuse("it leaves its folder");
        } else if part.len() > 200 {
            return refuse("a part of it is longer than 200 bytes");
        } else if part.contains(|c: char| c.is_control() || r#"\:*?"<>|"#.contains(c)) {
            return refuse("it has a character that not every system can hold");
        } else if part.ends_with(['.', ' ']) || part.starts_with(' ') {
            return refuse("a part of it begins or ends with a space or ends with a dot");
        } else if RESERVED.contains(&stem.as_str()) || is_port("com") || is_port("lpt") {
            return refuse("Windows keeps that name for a device");
        }
    }
    Ok(path)
}

/// A file name for `name`: itself if it is plain, else made plain and told apart by a hash.
pub fn slug(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.chars().all(is_plain) && name.len() <= 80 && !name.starts_with('.') && check(name).is_ok() {
        return name.to_string();
    }
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let short: String = plain.trim_matches('-').chars().take(60).collect();
    format!("{short}-{}", &sha256::of_bytes(name.as_bytes())[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_their_folder_or_hurt_some_system_are_refused() {
        for good in [
            "model.gguf",
            "1_Pooling/config.json",
            "a b.txt",
            "common.json",
            "com10.txt",
            "lpt0",
            "模型.gguf",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            ".",
            "a/.",
            r"a\b",
            "c:x",
            "nul",
            "NUL.gguf",
            "com1",
            "Lpt9.txt",
            "x.",
            "x ",
            " x",
            "a\nb",
            "a*b",
            "con/x",
        ] {
            assert!(matches!(check(bad), Err(Error::FileName { .. })), "{bad:?}");
        }
        assert!(check(&"x".repeat(201)).is_err() && check(&"x/".repeat(300)).is_err());
    }

    #[test]
    fn a_slug_is_plain_and_tells_names_apart() {
        assert_eq!(slug("smollm2-135m-instruct"), "smollm2-135m-instruct");
        let (a, b) = (slug("hf:a/b"), slug("hf:a-b"));
        assert!(a.starts_with("hf-a-b-") && b.starts_with("hf-a-b-") && a != b);
        assert!(check(&slug("nul")).is_ok() && check(&slug("../..")).is_ok() && check(&slug("")).is_ok());
    }
}
