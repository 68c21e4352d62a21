//! The formats of strings.

use serde_json::Value;

/// Formats that the compiler has patterns for.
const COMPILED: &[&str] = &["duration", "ipv4", "ipv6", "uuid", "uri"];

/// A day of every month, 29 February of leap years alone. RFC 3339, section 5.6 and appendix C.
const DATE: &str = concat!(
    r"(?:[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])",
    r"|[0-9]{4}-(?:0[13-9]|1[0-2])-(?:29|30)",
    r"|[0-9]{4}-(?:0[13578]|1[02])-31",
    r"|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)",
);

/// Without leap seconds: which days have one is not in a pattern.
const TIME: &str = concat!(
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?",
    r"(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])",
);

/// A label of a name of the net. RFC 1123, section 2.1.
const LABEL: &str = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,38}[a-zA-Z0-9])?";

/// Part of a mailbox's name between dots. RFC 5321, section 4.1.2.
const ATOM: &str = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,20}";

/// The pattern of a format that has one here.
pub(super) fn pattern(format: &Value) -> Option<String> {
    Some(match format.as_str()? {
        "date" => format!("^{DATE}$"),
        "time" => format!("^{TIME}$"),
        "date-time" => format!("^{DATE}[tT]{TIME}$"),
        // Short enough that no part and no whole is too long.
        "hostname" => format!(r"^{LABEL}(?:\.{LABEL}){{0,5}}$"),
        "email" => format!(r"^{ATOM}(?:\.{ATOM}){{0,2}}@{LABEL}(?:\.{LABEL}){{1,3}}$"),
        _ => return None,
    })
}

/// Refuses formats that are not known.
pub(super) fn check(format: &Value) -> Result<(), String> {
    match format.as_str() {
        Some(name) if COMPILED.contains(&name) || pattern(format).is_some() => Ok(()),
        Some(name) => Err(format!("the format `{name}` is not supported")),
        None => Err(format!("the name of a format is expected, not {format}")),
    }
}
