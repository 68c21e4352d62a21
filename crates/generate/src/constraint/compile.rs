//! From the text of a constraint to a grammar that can be walked.

use super::vocabulary::trie_of;
use super::{State, Trigger, in_short};
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::derivre::RegexBuilder;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Matcher, ParserFactory};
use rhetor_lm::{Constraint, Error};
use rhetor_tokenizer::Tokenizer;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// The longest text of a constraint, in bytes.
pub(super) const TEXT_MAX: usize = 1 << 20;

/// Compiled grammars that are kept.
const KEPT: usize = 32;

/// Stack of the thread that compiles. Schemas nest deeper than the stack of a thread that serves a request may be.
const STACK: usize = 64 << 20;

/// The grammars of one vocabulary.
pub(crate) struct Grammars {
    factory: ParserFactory,
    n_tokens: usize,
    /// The last ones compiled, latest last.
    kept: Mutex<Vec<(Constraint, Arc<Grammar>)>>,
}

/// A compiled constraint.
pub(crate) struct Grammar {
    kind: &'static str,
    /// At the beginning; never moved on.
    matcher: Mutex<Matcher>,
    n_tokens: usize,
}

impl Grammar {
    /// The beginning of the grammar for a new sequence, which ends with one of `stops` (sorted). With a trigger it begins
    /// when that was written.
    pub fn begin(&self, stops: Arc<[u32]>, waits: Option<Trigger>) -> State {
        // What a walk learns about the grammar stays with it: a request depends on no other, and leaves nothing behind.
        let matcher = self.matcher.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        State::new(self.kind, matcher, stops, self.n_tokens, waits)
    }
}

impl Grammars {
    /// Builds the trie of the vocabulary.
    pub fn new(tokenizer: &Tokenizer) -> Result<Grammars, String> {
        let build = || {
            let slices = SlicedBiasComputer::json_slices();
            let mut factory =
                ParserFactory::new(&trie_of(tokenizer), InferenceCapabilities::default(), &slices)
                    .map_err(|error| in_short(&error))?;
            factory.quiet();
            *factory.limits_mut() =
                ParserLimits { max_lexer_states: 50_000, verbose_errors: false, ..ParserLimits::default() };
            Ok(factory)
        };
        let factory = catch_unwind(AssertUnwindSafe(build))
            .unwrap_or_else(|_| Err("the vocabulary cannot be made into a trie".to_string()))?;
        Ok(Grammars { factory, n_tokens: tokenizer.n_tokens(), kept: Mutex::default() })
    }

    /// Compiles a constraint, or finds it among those compiled before.
    pub fn compile(&self, constraint: &Constraint) -> Result<Arc<Grammar>, Error> {
        let known =
            |kept: &[(Constraint, Arc<Grammar>)]| kept.iter().position(|(known, _)| known == constraint);
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = known(&kept) {
                let latest = kept.remove(at);
                let grammar = latest.1.clone();
                kept.push(latest);
                return Ok(grammar);
            }
        }
        let grammar = Arc::new(self.compile_anew(constraint)?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Another caller may have compiled the same in the meantime.
        if known(&kept).is_none() {
            if kept.len() == KEPT {
                kept.remove(0);
            }
            kept.push((constraint.clone(), grammar.clone()));
        }
        Ok(grammar)
    }

    fn compile_anew(&self, constraint: &Constraint) -> Result<Grammar, Error> {
        let kind = constraint.name();
        let refused = |reason: String| Error::Constraint { kind, reason };
        let text = match constraint {
            Constraint::Json => "",
            Constraint::JsonSchema(text)
            | Constraint::Regex(text)
            | Constraint::Lark(text)
            | Constraint::Gbnf(text) => text,
        };
        if text.len() > TEXT_MAX {
            return Err(refused(format!("its text has {} bytes, more than {TEXT_MAX}", text.len())));
        }
        let compile = || self.matcher(constraint);
        let matcher = std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("grammar".to_string()).stack_size(STACK);
            match builder.spawn_scoped(scope, compile) {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err("it cannot be compiled".to_string())),
                Err(error) => Err(format!("no thread to compile it: {error}")),
            }
        });
        let matcher = Mutex::new(matcher.map_err(refused)?);
        Ok(Grammar { kind, matcher, n_tokens: self.n_tokens })
    }

    fn matcher(&self, constraint: &Constraint) -> Result<Matcher, String> {
        let grammar = match constraint {
            Constraint::Json => TopLevelGrammar::from_json_schema(serde_json::json!({"type": "object"})),
            Constraint::JsonSchema(text) => {
                let schema = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
                TopLevelGrammar::from_json_schema(schema)
            }
            Constraint::Regex(text) => {
                // In the words of the crate regex-syntax, before it is wrapped into a grammar.
                RegexBuilder::new().mk_regex(text).map_err(|error| in_short(&error))?;
                TopLevelGrammar::from_regex(text)
            }
            Constraint::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
            Constraint::Gbnf(_) => return Err("GBNF is not known".to_string()),
        };
        self.walk(grammar)
    }

    /// The beginning of a walk through `grammar`. What it does not do as written it refuses.
    pub(super) fn walk(&self, grammar: TopLevelGrammar) -> Result<Matcher, String> {
        let parser = self.factory.create_parser(grammar).map_err(|error| in_short(&error))?;
        let mut matcher = Matcher::new(Ok(parser));
        if let Some(error) = matcher.get_error() {
            return Err(in_short(&error));
        }
        match matcher.grammar_warnings().first() {
            Some(warning) => Err(in_short(warning)),
            None => Ok(matcher),
        }
    }
}
