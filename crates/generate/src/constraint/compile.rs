//! From the text of a constraint to a grammar that can be walked.

use super::vocabulary::trie_of;
use super::{State, Trigger, gbnf, in_short, is_dead_end, lark, schema};
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::derivre::RegexBuilder;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Matcher, ParserFactory};
use rhetor_lm::{Constraint, Error};
use rhetor_tokenizer::Tokenizer;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// The longest text of a constraint, in bytes.
pub(super) const TEXT_MAX: usize = 1 << 20;

/// Compiled grammars that are kept.
const KEPT: usize = 32;

/// Stack of the thread that compiles. Schemas nest deeper than the stack of a thread that serves a request may be.
const STACK: usize = 64 << 20;

/// The longest that a constraint may take to compile.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Constraints that took longer and are still being compiled; with so many no other is begun.
const STUCK_MAX: usize = 2;

/// The grammars of one vocabulary.
pub(crate) struct Grammars {
    compiler: Arc<Compiler>,
    n_tokens: usize,
    /// The last ones compiled, latest last.
    kept: Mutex<Vec<(Constraint, Arc<Grammar>)>>,
}

/// What a thread that compiles needs.
struct Compiler {
    factory: ParserFactory,
    n_stuck: AtomicUsize,
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
        let compiler = Arc::new(Compiler { factory, n_stuck: AtomicUsize::new(0) });
        Ok(Grammars { compiler, n_tokens: tokenizer.n_tokens(), kept: Mutex::default() })
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
        let matcher = Mutex::new(self.in_time(constraint).map_err(refused)?);
        Ok(Grammar { kind, matcher, n_tokens: self.n_tokens })
    }

    /// Compiles on a thread of its own: it has the stack for that, and may be left behind.
    fn in_time(&self, constraint: &Constraint) -> Result<Matcher, String> {
        if self.compiler.n_stuck.load(Ordering::Acquire) >= STUCK_MAX {
            return Err("others that take too long are still being compiled".to_string());
        }
        let (compiler, constraint) = (self.compiler.clone(), constraint.clone());
        let (done, result) = mpsc::sync_channel(0);
        let compile = move || {
            let matcher = catch_unwind(AssertUnwindSafe(|| compiler.matcher(&constraint)));
            let matcher = matcher.unwrap_or_else(|_| Err("it cannot be compiled".to_string()));
            if done.send(matcher).is_err() {
                compiler.n_stuck.fetch_sub(1, Ordering::AcqRel);
            }
        };
        let builder = std::thread::Builder::new().name("grammar".to_string()).stack_size(STACK);
        builder.spawn(compile).map_err(|error| format!("no thread to compile it: {error}"))?;
        result.recv_timeout(TIME_MAX).unwrap_or_else(|_| {
            self.compiler.n_stuck.fetch_add(1, Ordering::AcqRel);
            Err(format!("it takes more than {} seconds to compile", TIME_MAX.as_secs()))
        })
    }
}

impl Compiler {
    fn matcher(&self, constraint: &Constraint) -> Result<Matcher, String> {
        let grammar = match constraint {
            Constraint::Json => TopLevelGrammar::from_json_schema(schema::prepare(r#"{"type": "object"}"#)?),
            Constraint::JsonSchema(text) => {
                let prepared = schema::prepare(text)?;
                let compile = |part| self.walk(TopLevelGrammar::from_json_schema(part));
                return compile(prepared.clone()).map_err(|reason| {
                    let place = schema::locate(&prepared, &reason, |part| compile(part).err());
                    format!("at {place}: {reason}")
                });
            }
            Constraint::Regex(text) => {
                // In the words of the crate regex-syntax, before it is wrapped into a grammar.
                RegexBuilder::new().mk_regex(text).map_err(|error| in_short(&error))?;
                TopLevelGrammar::from_regex(text)
            }
            Constraint::Lark(text) => TopLevelGrammar::from_lark(lark::prepare(text)?),
            Constraint::Gbnf(text) => TopLevelGrammar::from_lark(gbnf::to_lark(text)?),
        };
        self.walk(grammar)
    }

    /// The beginning of a walk through `grammar`. What it does not do as written it refuses.
    fn walk(&self, grammar: TopLevelGrammar) -> Result<Matcher, String> {
        let parser = self.factory.create_parser(grammar).map_err(|error| in_short(&error))?;
        let mut matcher = Matcher::new(Ok(parser));
        if let Some(error) = matcher.get_error() {
            return Err(in_short(&error));
        }
        if let Some(warning) = matcher.grammar_warnings().first() {
            return Err(in_short(warning));
        }
        // A grammar that cannot begin is refused here, not in the middle of a request.
        let mut probe = matcher.clone();
        match probe.is_accepting().and_then(|may_end| Ok(may_end || !probe.compute_mask()?.is_zero())) {
            Ok(true) => Ok(matcher),
            Ok(false) => Err("no text of this vocabulary satisfies it".to_string()),
            Err(error) if is_dead_end(&error) => Err("no text of this vocabulary satisfies it".to_string()),
            Err(error) => Err(in_short(&error)),
        }
    }
}
