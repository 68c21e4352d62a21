//! Amounts of time and of bytes, as people write them in flags.

use std::time::Duration;

/// `300`, `300s`, `5m`, `1h30m`, `250ms`; a number alone is seconds.
pub fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time, as in 30s, 5m or 1h30m".to_string();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        sum = sum.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(sum) }
}

/// A [`time`], or `None` for `forever` and for a number below 0.
pub fn time_or_forever(text: &str) -> Result<Option<Duration>, String> {
    match text.strip_prefix('-') {
        _ if text.eq_ignore_ascii_case("forever") => Ok(None),
        Some(rest) => time(rest).map(|_| None),
        None => time(text).map(Some),
    }
    .map_err(|reason| format!("{reason}; -1 or `forever` = without end"))
}

/// `1048576`, `512MiB`, `1.5GB`, `8g`: a letter alone, like `iB`, counts in powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number of bytes, as in 512MiB or 4GB".to_string();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => f64::from(1 << 20),
        "g" | "gib" => f64::from(1 << 30),
        "t" | "tib" => 1024.0 * f64::from(1 << 30),
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(wrong()),
    };
    Ok((number * bytes) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_units() {
        let seconds = |text| time(text).map(|time| time.as_secs_f64());
        assert_eq!(seconds("300"), Ok(300.0));
        assert_eq!(seconds("1h30m"), Ok(5400.0));
        assert_eq!(seconds("250ms"), Ok(0.25));
        assert_eq!(seconds("1.5m"), Ok(90.0));
        for wrong in ["", "5x", "m", "-1", "5m3", "1e400", "NaN", "inf"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(time_or_forever("-1"), Ok(None));
        assert_eq!(time_or_forever("forever"), Ok(None));
        assert_eq!(time_or_forever("0"), Ok(Some(Duration::ZERO)));
        assert!(time_or_forever("-x").is_err());
    }

    #[test]
    fn sizes_are_read_in_both_kinds_of_units() {
        assert_eq!(size("1048576"), Ok(1 << 20));
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("1.5gb"), Ok(1_500_000_000));
        assert_eq!(size("8g"), Ok(8 << 30));
        for wrong in ["", "g", "-1", "5x", "1..2"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
