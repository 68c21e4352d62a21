//! Numbers from flags, checked against the range that makes sense.

use std::fmt::Display;
use std::str::FromStr;

/// A parser of numbers from `min` to `max`, both allowed.
pub fn range<T>(min: T, max: T) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Copy,
{
    move |text| match text.parse::<T>() {
        // A NaN is not inside any range.
        Ok(value) if value >= min && value <= max => Ok(value),
        Ok(_) => Err(format!("it must be from {min} to {max}")),
        Err(_) => Err(format!("it must be a number from {min} to {max}")),
    }
}

/// A parser of numbers of at least `min`.
pub fn at_least<T>(min: T) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Copy,
{
    move |text| match text.parse::<T>() {
        Ok(value) if value >= min => Ok(value),
        _ => Err(format!("it must be a whole number of at least {min}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_outside_its_range_is_refused_with_the_range() {
        assert_eq!(range(0.0, 1.0)("0.5"), Ok(0.5));
        assert_eq!(range(0.0, 1.0)("1.5").unwrap_err(), "it must be from 0 to 1");
        assert_eq!(range(0.0, 1.0)("NaN").unwrap_err(), "it must be from 0 to 1");
        assert_eq!(range(0, 9)("x").unwrap_err(), "it must be a number from 0 to 9");
        assert_eq!(at_least(1usize)("0").unwrap_err(), "it must be a whole number of at least 1");
        assert_eq!(at_least(1usize)("-1").unwrap_err(), "it must be a whole number of at least 1");
    }
}
