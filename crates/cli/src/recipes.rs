//! The recipes that come with the program, by name.

use crate::errors::Failure;
use std::path::Path;

/// Each recipe's name and text.
pub const RECIPES: &[(&str, &str)] = &[
    ("shakespeare-char", include_str!("../../../recipes/shakespeare-char.toml")),
    ("mixtral-tiny", include_str!("../../../recipes/mixtral-tiny.toml")),
    ("gpt2-124m", include_str!("../../../recipes/gpt2-124m.toml")),
    ("gpt3-125m", include_str!("../../../recipes/gpt3-125m.toml")),
    ("bert-mlm", include_str!("../../../recipes/bert-mlm.toml")),
    ("t5-span", include_str!("../../../recipes/t5-span.toml")),
    ("transformer-reverse", include_str!("../../../recipes/transformer-reverse.toml")),
    ("lora-smollm2", include_str!("../../../recipes/lora-smollm2.toml")),
    ("qlora", include_str!("../../../recipes/qlora.toml")),
    ("longlora", include_str!("../../../recipes/longlora.toml")),
    ("induction", include_str!("../../../recipes/induction.toml")),
    ("ulmfit-lm", include_str!("../../../recipes/ulmfit-lm.toml")),
    ("ulmfit-classify", include_str!("../../../recipes/ulmfit-classify.toml")),
];

/// The text of a recipe: one with a name, or a file.
pub fn text_of(name: &str) -> Result<String, Failure> {
    if let Some((_, text)) = RECIPES.iter().find(|(known, _)| *known == name) {
        return Ok(text.to_string());
    }
    let known: Vec<&str> = RECIPES.iter().map(|(name, _)| *name).collect();
    let hint = format!("recipes with a name are {}", known.join(", "));
    let path = Path::new(name);
    std::fs::read_to_string(path).map_err(Failure::file(path)).map_err(|failure| failure.hint(hint))
}

#[cfg(test)]
mod tests {
    use super::RECIPES;
    use rhetor_models::adapters;
    use rhetor_train::{Recipe, data::DataSet, objectives, optimizers, schedules::Schedule};

    #[test]
    fn every_recipe_has_methods_that_exist_with_options_that_they_have() {
        for (name, text) in RECIPES {
            let recipe = Recipe::from_toml(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(recipe.name.as_deref(), Some(*name));
            assert!(recipe.summary.as_ref().is_some_and(|summary| !summary.ends_with('.')), "{name}");
            assert!(recipe.model.is_some() != recipe.config.is_some(), "{name} has a model or makes one");
            for data in &recipe.data {
                DataSet::named(data.name()).unwrap();
            }
            let values = |about, options: &rhetor_train::Options| {
                let given = options.iter().map(|(name, value)| (name.as_str(), *value));
                if let Err(error) = rhetor_catalog::Values::of(about, given) {
                    panic!("{name}: {error}");
                }
            };
            values(objectives::Method::find(&recipe.objective).unwrap().about, &recipe.objective_options);
            values(optimizers::Method::find(&recipe.optimizer).unwrap().about, &recipe.optimizer_options);
            values(&Schedule::find(&recipe.schedule).unwrap().about, &recipe.schedule_options);
            let adapter = adapters::ADAPTERS.iter().find(|method| method.about.name == recipe.adapter);
            values(&adapter.unwrap().about, &recipe.adapter_options);
            recipe
                .adapter_options(Vec::new())
                .and_then(|options| Ok(adapters::build(&recipe.adapter, &options)?))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
