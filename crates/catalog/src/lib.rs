//! How every method of rhetor introduces itself: to the command line, the manual and the tests.
//!
//! A table of methods is a plain `const` slice whose entries each carry one [`About`]. From it come `list`,
//! `explain`, option parsing with range checks and the tests "every method has a source and a test".
//! This crate knows no method.
#![forbid(unsafe_code)]

/// How a method introduces itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct About {
    /// What the user types: kebab-case, unique within its table.
    pub name: &'static str,
    /// One sentence without a period at the end.
    pub summary: &'static str,
    /// Where the method comes from.
    pub source: Source,
    /// What can be set.
    pub options: &'static [Opt],
}

/// Where a method comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A paper: its title, its identifier (arXiv id or DOI) and the section or equation followed.
    Paper {
        /// The title as printed.
        title: &'static str,
        /// `arXiv:1706.03762`, a DOI or a proceedings reference.
        id: &'static str,
        /// The section, equation or algorithm that the code follows.
        section: &'static str,
    },
    /// A program or specification without a paper, by its name.
    Project(&'static str),
    /// Common knowledge of the field.
    Folklore,
}

/// One option of a method.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Opt {
    /// kebab-case name.
    pub name: &'static str,
    /// What it does, with its unit.
    pub summary: &'static str,
    /// The value used when nothing is said.
    pub default: f64,
    /// The least and the greatest value allowed.
    pub range: (f64, f64),
}

impl Opt {
    /// Returns `value` if it is inside the range.
    pub fn check(&self, value: f64) -> Result<f64, OutOfRange> {
        let (min, max) = self.range;
        if value >= min && value <= max {
            Ok(value)
        } else {
            Err(OutOfRange { option: self.name, value, min, max })
        }
    }
}

/// A value outside the range that its [`Opt`] allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutOfRange {
    /// The option's name.
    pub option: &'static str,
    /// What was given.
    pub value: f64,
    /// The least value allowed.
    pub min: f64,
    /// The greatest value allowed.
    pub max: f64,
}

impl std::fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {} is outside {} to {}", self.option, self.value, self.min, self.max)
    }
}

impl std::error::Error for OutOfRange {}

/// The values of a method's options: what was given, and the defaults for the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    about: &'static About,
    /// In the order of `about.options`.
    values: Vec<f64>,
}

impl Values {
    /// Checks what was given against the method's options: every name must be one of them, every value in its range.
    pub fn of<'a>(
        about: &'static About,
        given: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<Values, BadOption> {
        let mut values: Vec<f64> = about.options.iter().map(|option| option.default).collect();
        for (name, value) in given {
            let Some(i) = about.options.iter().position(|option| option.name == name) else {
                let known: Vec<&str> = about.options.iter().map(|option| option.name).collect();
                return Err(BadOption::Unknown {
                    method: about.name,
                    name: name.to_string(),
                    known: if known.is_empty() { "none".to_string() } else { known.join(", ") },
                });
            };
            values[i] = about.options[i].check(value).map_err(BadOption::OutOfRange)?;
        }
        Ok(Values { about, values })
    }

    /// The value of an option. Panics if the method has none of that name.
    #[track_caller]
    pub fn get(&self, name: &str) -> f64 {
        match self.about.options.iter().position(|option| option.name == name) {
            Some(i) => self.values[i],
            None => panic!("`{}` has no option `{name}`", self.about.name),
        }
    }

    /// Whether an option that is 0 or 1 is on.
    #[track_caller]
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name) != 0.0
    }

    /// Every option with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.about.options.iter().map(|option| option.name).zip(self.values.iter().copied())
    }
}

/// An option that a method does not have, or a value that it does not allow.
#[derive(Debug, Clone, PartialEq)]
pub enum BadOption {
    /// The method has no such option.
    Unknown {
        /// The method.
        method: &'static str,
        /// What was given.
        name: String,
        /// The options that it has.
        known: String,
    },
    /// The value is outside the range.
    OutOfRange(OutOfRange),
}

impl std::fmt::Display for BadOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadOption::Unknown { method, name, known } => {
                write!(f, "{method} has no option `{name}`; its options are: {known}")
            }
            BadOption::OutOfRange(out) => out.fmt(f),
        }
    }
}

impl std::error::Error for BadOption {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_outside_the_range_is_named_with_its_bounds() {
        let top_p = Opt { name: "top-p", summary: "", default: 1.0, range: (0.0, 1.0) };
        assert_eq!(top_p.check(0.5), Ok(0.5));
        assert_eq!(top_p.check(1.5).unwrap_err().to_string(), "top-p = 1.5 is outside 0 to 1");
        assert!(top_p.check(f64::NAN).is_err());
    }

    #[test]
    fn options_are_checked_by_name_and_range_and_default_to_their_defaults() {
        const RATE: Opt = Opt { name: "rate", summary: "", default: 0.5, range: (0.0, 1.0) };
        static ABOUT: About =
            About { name: "method", summary: "", source: Source::Folklore, options: &[RATE] };
        assert_eq!(Values::of(&ABOUT, []).unwrap().get("rate"), 0.5);
        assert_eq!(Values::of(&ABOUT, [("rate", 0.25)]).unwrap().get("rate"), 0.25);
        let unknown = Values::of(&ABOUT, [("pace", 1.0)]).unwrap_err().to_string();
        assert_eq!(unknown, "method has no option `pace`; its options are: rate");
        assert!(Values::of(&ABOUT, [("rate", 2.0)]).is_err());
    }
}
