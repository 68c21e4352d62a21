//! Flags for every way of choosing tokens, made from the engine's table of sampling steps.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use rhetor_generate::sampling::SAMPLING;
use rhetor_lm::Sampling;

/// What was said about sampling; what was not said stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingArgs {
    values: Vec<(&'static str, f64)>,
    logit_bias: Vec<(u32, f32)>,
}

/// Where a value of the table goes.
type Setter = fn(&mut Sampling, f64);

/// Option of the table, field of [`Sampling`].
const SETTERS: &[(&str, Setter)] = &[
    ("temperature", |s, x| s.temperature = x as f32),
    ("top-k", |s, x| s.top_k = x as usize),
    ("top-p", |s, x| s.top_p = x as f32),
    ("min-p", |s, x| s.min_p = x as f32),
    ("typical-p", |s, x| s.typical_p = x as f32),
    ("repetition-penalty", |s, x| s.repetition_penalty = x as f32),
    ("frequency-penalty", |s, x| s.frequency_penalty = x as f32),
    ("presence-penalty", |s, x| s.presence_penalty = x as f32),
    ("penalty-last-n", |s, x| s.penalty_last_n = x as usize),
    ("dry-multiplier", |s, x| s.dry_multiplier = x as f32),
    ("dry-base", |s, x| s.dry_base = x as f32),
    ("dry-allowed-length", |s, x| s.dry_allowed_length = x as usize),
    ("xtc-probability", |s, x| s.xtc_probability = x as f32),
    ("xtc-threshold", |s, x| s.xtc_threshold = x as f32),
    ("mirostat-tau", |s, x| s.mirostat_tau = x as f32),
    ("mirostat-eta", |s, x| s.mirostat_eta = x as f32),
];

/// Options that count something.
const WHOLE: &[&str] = &["top-k", "penalty-last-n", "dry-allowed-length"];

impl SamplingArgs {
    /// Changes what was said in `sampling`.
    pub fn apply(&self, sampling: &mut Sampling) {
        for (name, value) in &self.values {
            let (_, set) =
                SETTERS.iter().find(|(option, _)| option == name).expect("a test compares the tables");
            set(sampling, *value);
        }
        if !self.logit_bias.is_empty() {
            sampling.logit_bias.clone_from(&self.logit_bias);
        }
    }
}

impl Args for SamplingArgs {
    fn augment_args(mut command: Command) -> Command {
        let options =
            SAMPLING.iter().flat_map(|step| step.about().options.iter().map(|o| (step.about().name, o)));
        for (step, option) in options {
            let (min, max) = option.range;
            let is_whole = WHOLE.contains(&option.name);
            let parse = move |text: &str| match text.parse::<f64>() {
                Ok(x) if !(x >= min && x <= max) => Err(format!("it must be from {min} to {max}")),
                Ok(x) if is_whole && x.fract() != 0.0 => Err("it must be a whole number".to_string()),
                Ok(x) => Ok(x),
                Err(_) => Err(format!("it must be a number from {min} to {max}")),
            };
            // A step with several options names them after itself.
            let summary = match option.name.split('-').next() == step.split('-').next() {
                true => option.summary.to_string(),
                false => format!("{step}: {}", option.summary),
            };
            command = command.arg(
                Arg::new(option.name)
                    .long(option.name)
                    .value_name(if is_whole { "N" } else { "X" })
                    .value_parser(parse)
                    .allow_hyphen_values(true)
                    .help(summary)
                    .help_heading("Sampling"),
            );
        }
        command.arg(
            Arg::new("logit-bias")
                .long("logit-bias")
                .value_name("ID=X")
                .value_parser(parse_bias)
                .action(clap::ArgAction::Append)
                .help("Add X to the logit of token ID; X may be -inf to forbid it; may be repeated")
                .help_heading("Sampling"),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        SamplingArgs::augment_args(command)
    }
}

impl FromArgMatches for SamplingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SamplingArgs, clap::Error> {
        let value = |(name, _): &(&'static str, Setter)| Some((*name, *matches.get_one::<f64>(name)?));
        let bias = matches.get_many::<(u32, f32)>("logit-bias");
        Ok(SamplingArgs {
            values: SETTERS.iter().filter_map(value).collect(),
            logit_bias: bias.map(|values| values.copied().collect()).unwrap_or_default(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SamplingArgs::from_arg_matches(matches)?;
        Ok(())
    }
}

fn parse_bias(text: &str) -> Result<(u32, f32), String> {
    let parsed =
        text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse::<f32>().ok()?)));
    match parsed {
        Some((id, bias)) if !bias.is_nan() && bias < f32::INFINITY => Ok((id, bias)),
        _ => Err("it must be ID=X, such as 42=-inf".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Sampling, String> {
        let command = SamplingArgs::augment_args(Command::new("x").no_binary_name(true));
        let matches = command.try_get_matches_from(args).map_err(|e| e.to_string())?;
        let mut sampling = Sampling::default();
        SamplingArgs::from_arg_matches(&matches).unwrap().apply(&mut sampling);
        Ok(sampling)
    }

    #[test]
    fn every_option_of_the_table_has_a_flag_that_sets_its_field() {
        let options = SAMPLING.iter().flat_map(|step| step.about().options);
        let mut names: Vec<_> =
            options.map(|option| option.name).filter(|name| *name != "logit-bias").collect();
        for name in &names {
            assert_ne!(
                parse(&[&format!("--{name}=2")]).or_else(|_| parse(&[&format!("--{name}=0.05")])),
                Ok(Sampling::default()),
                "{name}"
            );
        }
        let mut setters: Vec<_> = SETTERS.iter().map(|(name, _)| *name).collect();
        names.sort();
        setters.sort();
        assert_eq!(names, setters);
    }

    #[test]
    fn a_value_outside_its_range_is_refused() {
        for bad in [
            "--top-p=1.5",
            "--temperature=-1",
            "--temperature=nan",
            "--top-k=1.5",
            "--min-p=x",
            "--logit-bias=1",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
        let sampling = parse(&["--logit-bias", "5=-inf", "--logit-bias=7=1.5"]).unwrap();
        assert_eq!(sampling.logit_bias, [(5, f32::NEG_INFINITY), (7, 1.5)]);
    }
}
