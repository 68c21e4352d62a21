//! `keep_alive`: how long a model stays in memory after a request.

use crate::refusal::Refusal;
use crate::residents::KeepAlive;
use crate::wire::fields::Fields;
use crate::wire::request::wrong;
use serde_json::Value;
use std::time::Duration;

/// Reads `keep_alive`: seconds, or a duration as Go writes it (`"1h30m"`); what is negative means for ever.
pub(crate) fn keep_alive(fields: &mut Fields) -> Result<Option<KeepAlive>, Refusal> {
    let path = fields.path("keep_alive");
    let seconds = match fields.value("keep_alive") {
        None => return Ok(None),
        Some(Value::Number(number)) => number.as_f64().unwrap_or(f64::NAN),
        Some(Value::String(text)) => seconds(&text).ok_or_else(|| {
            wrong(&path, format!("{text:?} is no duration; expected one as `5m`, `1h30m` or `-1s`"))
        })?,
        Some(_) => return Err(wrong(&path, "expected seconds, or a duration such as `5m`")),
    };
    match seconds {
        seconds if seconds < 0.0 => Ok(Some(KeepAlive::Forever)),
        seconds => match Duration::try_from_secs_f64(seconds) {
            Ok(time) => Ok(Some(KeepAlive::For(time))),
            Err(_) => Ok(Some(KeepAlive::Forever)),
        },
    }
}

/// Seconds of a duration as Go writes it; a bare number is seconds too.
fn seconds(text: &str) -> Option<f64> {
    if let Ok(number) = text.parse::<f64>() {
        return Some(number).filter(|number| number.is_finite());
    }
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut sum = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let n_digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..n_digits].parse().ok()?;
        rest = &rest[n_digits..];
        let n_unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..n_unit] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += number * unit;
        rest = &rest[n_unit..];
    }
    Some(sign * sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let read = |value: Value| {
            keep_alive(&mut Fields::of(json!({ "keep_alive": value }), "", false).unwrap())
        };
        let time = |millis| Ok(Some(KeepAlive::For(Duration::from_millis(millis))));
        assert_eq!(read(json!(null)), Ok(None));
        assert_eq!(read(json!(0)), time(0));
        assert_eq!(read(json!(2.5)), time(2500));
        assert_eq!(read(json!("1h30m")), time(5_400_000));
        assert_eq!(read(json!("1.5s")), time(1500));
        assert_eq!(read(json!("250ms")), time(250));
        assert_eq!(read(json!("5")), time(5000));
        for forever in [json!(-1), json!("-1s"), json!("-5m"), json!(1e300)] {
            assert_eq!(read(forever), Ok(Some(KeepAlive::Forever)));
        }
        for bad in [json!("soon"), json!("5x"), json!(""), json!("-"), json!("m5"), json!([1]), json!("inf")] {
            assert_eq!(read(bad).unwrap_err().param.as_deref(), Some("keep_alive"));
        }
    }
}
