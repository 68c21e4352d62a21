//! Values become text: `print`, `printf` and what an action shows.

use super::value::Value;
use serde_json::Value as Json;

/// A value as an action shows it: Go's `%v`, but objects as JSON.
pub(super) fn show(value: &Value<'_>) -> String {
    show_json(&value.json())
}

fn show_json(json: &Json) -> String {
    match json {
        Json::Null => "<no value>".to_string(),
        Json::String(text) => text.clone(),
        Json::Array(items) if items.iter().any(Json::is_object) => json.to_string(),
        Json::Array(items) => {
            format!("[{}]", items.iter().map(show_json).collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// `print`: a space stands between two operands of which none is a string.
pub(super) fn print(values: &[Value<'_>]) -> String {
    let mut out = String::new();
    for (i, value) in values.iter().enumerate() {
        let is_between = i > 0 && value.as_str().is_none() && values[i - 1].as_str().is_none();
        if is_between {
            out.push(' ');
        }
        out.push_str(&show(value));
    }
    out
}

/// `println`: a space stands between all operands, a line break at the end.
pub(super) fn print_line(values: &[Value<'_>]) -> String {
    values.iter().map(show).collect::<Vec<_>>().join(" ") + "\n"
}

/// `printf`, with the verbs `%s %v %d %q %f %g %t %x %%`, a width, a precision and the flags `-`, `0` and `+`.
pub(super) fn print_format(format: &str, values: &[Value<'_>]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "-0+ #".contains(*c)) {
            flags.push(flag);
        }
        let mut number = || {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().ok()
        };
        let width = number().unwrap_or(0).min(4096);
        let precision = match chars.next_if_eq(&'.') {
            Some(_) => {
                let mut digits = String::new();
                while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                    digits.push(digit);
                }
                Some(digits.parse::<usize>().unwrap_or(0).min(64))
            }
            None => None,
        };
        let Some(verb) = chars.next() else { return Err("the format ends within a verb".to_string()) };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("nothing is left for %{verb}"))?;
        let text = verb_text(verb, value, precision)?;
        let text = if flags.contains('+') && verb == 'd' && !text.starts_with('-') {
            format!("+{text}")
        } else {
            text
        };
        let missing = width.saturating_sub(text.chars().count());
        if flags.contains('-') {
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', missing));
        } else if flags.contains('0') && value.as_f64().is_some() {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            out.push_str(sign);
            out.extend(std::iter::repeat_n('0', missing));
            out.push_str(digits);
        } else {
            out.extend(std::iter::repeat_n(' ', missing));
            out.push_str(&text);
        }
    }
    match values.len() {
        0 => Ok(out),
        n => Err(format!("{n} operands are left over")),
    }
}

fn verb_text(verb: char, value: &Value<'_>, precision: Option<usize>) -> Result<String, String> {
    let wrong = || format!("%{verb} does not take {}", value.kind());
    match verb {
        's' | 'v' => {
            let text = show(value);
            Ok(match precision {
                Some(n) if verb == 's' => text.chars().take(n).collect(),
                _ => text,
            })
        }
        'q' => Ok(Json::from(value.as_str().ok_or_else(wrong)?).to_string()),
        'd' => Ok(value.as_i64().ok_or_else(wrong)?.to_string()),
        't' => match value.json().as_bool() {
            Some(value) => Ok(value.to_string()),
            None => Err(wrong()),
        },
        'x' => match (value.as_i64(), value.as_str()) {
            (Some(int), _) => Ok(format!("{int:x}")),
            (_, Some(text)) => Ok(text.bytes().map(|byte| format!("{byte:02x}")).collect()),
            _ => Err(wrong()),
        },
        'f' => Ok(format!("{:.*}", precision.unwrap_or(6), value.as_f64().ok_or_else(wrong)?)),
        'g' => Ok(value.as_f64().ok_or_else(wrong)?.to_string()),
        _ => Err(format!("there is no verb %{verb}")),
    }
}
