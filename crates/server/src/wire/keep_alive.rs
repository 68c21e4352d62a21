//! How long a model stays in memory after a request.

use crate::refusal::Refusal;
use crate::residents::KeepAlive;
use crate::wire::fields::Fields;
use crate::wire::request::wrong;
use serde_json::Value;
use std::time::Duration;

/// The field `keep_alive`: seconds, or a duration of Go such as `5m`, `1h30m` or `250ms`; below 0 = for ever.
pub(crate) fn keep_alive(fields: &mut Fields) -> Result<Option<KeepAlive>, Refusal> {
    let path = fields.path("keep_alive");
    let Some(value) = fields.value("keep_alive") else { return Ok(None) };
    let seconds = match &value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => seconds(text),
        _ => None,
    };
    let seconds =
        seconds.ok_or_else(|| wrong(&path, format!("{value} is no number of seconds, nor a time as 5m")))?;
    Ok(Some(match seconds < 0.0 {
        true => KeepAlive::Forever,
        // What is longer than can be counted is for ever too.
        false => Duration::try_from_secs_f64(seconds).map_or(KeepAlive::Forever, KeepAlive::For),
    }))
}

/// The seconds of a duration as Go writes it: numbers with units, `0`, or a sign before them.
fn seconds(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if matches!(rest, "0" | "1") && (rest == "0" || sign < 0.0) {
        return Some(sign * rest.parse::<f64>().ok()?);
    }
    let mut sum = 0.0;
    while {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        sum += number.parse::<f64>().ok()? * scale;
        rest = after;
        !rest.is_empty()
    } {}
    Some(sign * sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_numbers_of_seconds_or_written_as_go_does() {
        let of = |value| {
            let mut fields = Fields::of(json!({ "keep_alive": value }), "", false).unwrap();
            keep_alive(&mut fields).map_err(|refusal| refusal.param.unwrap())
        };
        let seconds = |seconds| Ok(Some(KeepAlive::For(Duration::from_secs_f64(seconds))));
        assert_eq!(of(json!(null)), Ok(None));
        assert_eq!(of(json!(0)), seconds(0.0));
        assert_eq!(of(json!("0")), seconds(0.0));
        assert_eq!(of(json!(2.5)), seconds(2.5));
        assert_eq!(of(json!("1h30m")), seconds(5400.0));
        assert_eq!(of(json!("250ms")), seconds(0.25));
        assert_eq!(of(json!(-1)), Ok(Some(KeepAlive::Forever)));
        assert_eq!(of(json!("-1m")), Ok(Some(KeepAlive::Forever)));
        assert_eq!(of(json!("-1")), Ok(Some(KeepAlive::Forever)));
        for wrong in [json!("5"), json!("soon"), json!("5 m"), json!(""), json!([]), json!("m")] {
            assert_eq!(of(wrong.clone()), Err("keep_alive".to_string()), "{wrong}");
        }
    }
}
