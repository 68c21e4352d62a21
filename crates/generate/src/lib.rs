//! The engine: schedules, runs and samples; implements the waist.
#![forbid(unsafe_code)]
