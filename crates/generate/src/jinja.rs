//! What Hugging Face's renderer adds to Jinja: Python's JSON, its clock, and `{% generation %}` blocks.

use minijinja::ErrorKind;
use minijinja::value::{Kwargs, Value, ValueKind};

/// A JSON value as templates see it; the order of keys stays.
pub(crate) fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (None, Some(value)) => Value::from(value),
            (None, None) => Value::from(number.as_f64()),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(from_json).collect(),
        serde_json::Value::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, item)| (key.as_str(), from_json(item))))
        }
    }
}

/// `{% generation %}` marks the assistant's words for training; for rendering it is a block that is always taken.
pub(crate) fn open_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}") else { break };
        let tag = &rest[start..start + len + 2];
        out.push_str(&rest[..start]);
        let inner = tag[2..tag.len() - 2].trim_matches(|c| "-+".contains(c)).trim();
        match inner {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = &rest[start + len + 2..];
    }
    out + rest
}

/// `json.dumps` of Python with `ensure_ascii=False`, as Hugging Face's `tojson`.
pub(crate) fn to_json(
    value: &Value,
    indent: Option<usize>,
    options: Kwargs,
) -> Result<Value, minijinja::Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    let escape = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    options.assert_all_used()?;
    let separators = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        _ if indent.is_some() => (",".to_string(), ": ".to_string()),
        _ => (", ".to_string(), ": ".to_string()),
    };
    let mut out = String::new();
    Dump { indent, escape, sort, separators }.write(value, 0, &mut out)?;
    Ok(Value::from_safe_string(out))
}

/// How JSON is laid out.
struct Dump {
    indent: Option<usize>,
    escape: bool,
    sort: bool,
    separators: (String, String),
}

impl Dump {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), minijinja::Error> {
        match value.kind() {
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort {
                    keys.sort();
                }
                let entries = keys.into_iter().map(|key| {
                    let item = value.get_item(&key)?;
                    Ok((Some(key), item))
                });
                self.write_all(['{', '}'], entries, depth, out)
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter()?.map(|item| Ok((None, item)));
                self.write_all(['[', ']'], items, depth, out)
            }
            ValueKind::String => {
                self.write_string(value.as_str().unwrap_or_default(), out);
                Ok(())
            }
            ValueKind::None => {
                out.push_str("null");
                Ok(())
            }
            ValueKind::Bool => {
                out.push_str(if value.is_true() { "true" } else { "false" });
                Ok(())
            }
            ValueKind::Number => {
                out.push_str(&value.to_string());
                Ok(())
            }
            kind => Err(minijinja::Error::new(
                ErrorKind::InvalidOperation,
                format!("an object of type {kind} is not JSON serializable"),
            )),
        }
    }

    fn write_all(
        &self,
        [open, close]: [char; 2],
        entries: impl Iterator<Item = Result<(Option<Value>, Value), minijinja::Error>>,
        depth: usize,
        out: &mut String,
    ) -> Result<(), minijinja::Error> {
        out.push(open);
        let mut is_empty = true;
        for entry in entries {
            let (key, item) = entry?;
            if !is_empty {
                out.push_str(&self.separators.0);
            }
            is_empty = false;
            self.new_line(depth + 1, out);
            if let Some(key) = key {
                self.write_string(&key.to_string(), out);
                out.push_str(&self.separators.1);
            }
            self.write(&item, depth + 1, out)?;
        }
        if !is_empty {
            self.new_line(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn write_string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.escape && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Python's `strftime` in the C locale for `now`, seconds since 1970; directives unknown here stay as they are.
pub(crate) fn strftime(format: &str, now: i64) -> String {
    let (days, seconds) = (now.div_euclid(86_400), now.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let weekday = DAYS[(days + 4).rem_euclid(7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let hour_12 = (hour + 11) % 12 + 1;
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let is_unpadded = directive == Some('-');
        if is_unpadded {
            directive = chars.next();
        }
        let width = |n: usize| if is_unpadded { 0 } else { n };
        let number = |value: i64, n: usize| format!("{value:0width$}", width = width(n));
        match directive {
            Some('Y') => out.push_str(&number(year, 4)),
            Some('y') => out.push_str(&number(year.rem_euclid(100), 2)),
            Some('m') => out.push_str(&number(month, 2)),
            Some('d') => out.push_str(&number(day, 2)),
            Some('e') => out.push_str(&format!("{day:>width$}", width = width(2))),
            Some('H') => out.push_str(&number(hour, 2)),
            Some('I') => out.push_str(&number(hour_12, 2)),
            Some('M') => out.push_str(&number(minute, 2)),
            Some('S') => out.push_str(&number(second, 2)),
            Some('j') => out.push_str(&number(days - days_before(year) + 1, 3)),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('B') => out.push_str(month_name),
            Some('b') => out.push_str(&month_name[..3]),
            Some('F') => out.push_str(&format!("{year:04}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('%') => out.push('%'),
            Some(other) => {
                out.push('%');
                out.push(other);
            }
            None => out.push('%'),
        }
    }
    out
}

/// Year, month and day of a count of days since 1970-01-01 in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 1 March of the year 0, so that the leap day is the last of its year; 400 years are 146,097 days.
    let shifted = days + 719_468;
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + shifted.div_euclid(146_097) * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Days from 1970-01-01 to the first of January of `year`.
fn days_before(year: i64) -> i64 {
    let past = year - 1;
    365 * (year - 1970) + (past.div_euclid(4) - 492) - (past.div_euclid(100) - 19)
        + (past.div_euclid(400) - 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::Environment;

    #[test]
    fn json_is_written_as_python_writes_it() {
        let mut environment = Environment::new();
        environment.add_filter("tojson", to_json);
        let tools = serde_json::json!({"b": [1, 2.5, true, null, "<é\n\">"], "a": {}});
        let values = minijinja::context! { tools => from_json(&tools) };
        let out =
            environment.render_str("{{ tools | tojson }}|{{ tools | tojson(indent=2) }}", values).unwrap();
        let (flat, indented) = out.split_once('|').unwrap();
        assert_eq!(flat, r#"{"b": [1, 2.5, true, null, "<é\n\">"], "a": {}}"#);
        assert!(indented.starts_with("{\n  \"b\": [\n    1,\n    2.5,"), "{indented}");
        assert!(indented.ends_with("\"a\": {}\n}"), "{indented}");
    }
}
