//! Times as Ollama's clients read them: RFC 3339 in UTC, and nanoseconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, as in `2025-10-17T23:14:07.414671Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
    let (days, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Now.
pub(crate) fn now() -> String {
    rfc3339(SystemTime::now())
}

/// The moment that many seconds after 1970.
pub(crate) fn of_seconds(seconds: u64) -> String {
    rfc3339(UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799)))
}

/// When a model goes that stays for ever: a date that every reader of dates can hold.
pub(crate) fn forever() -> String {
    "2318-01-01T00:00:00.000000Z".to_string()
}

/// Nanoseconds.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds of that many seconds.
pub(crate) fn nanos_of(seconds: f64) -> u64 {
    nanos(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// Year, month and day of a count of days since 1970-01-01. Source: Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc_with_fractions() {
        let time = UNIX_EPOCH + Duration::from_micros(1_760_742_847_414_671);
        assert_eq!(rfc3339(time), "2025-10-17T23:14:07.414671Z");
        assert_eq!(of_seconds(951_782_400), "2000-02-29T00:00:00.000000Z");
        assert_eq!(of_seconds(u64::MAX), "9999-12-31T23:59:59.000000Z");
    }
}
