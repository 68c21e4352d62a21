//! The recipes that come with the program, by name.

/// Each recipe's name and text.
pub const RECIPES: &[(&str, &str)] =
    &[("shakespeare-char", include_str!("../../../recipes/shakespeare-char.toml"))];
