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
}
