//! The engine at the waist: requests in, completions out.

use crate::Error;
use crate::answer::{CALL, Form, Manner, Parser, Reading};
use crate::chat_template::{ChatTemplate, GenerationPrompt};
use crate::constraint::{Grammar, Grammars, State, Trigger};
use crate::infill::InfillTemplate;
use crate::line::Line;
use crate::pictures;
use crate::prefix_store::{PrefixStore, PrefixStoreOptions};
use crate::prompt::{Controls, Encoded, Encoder, Room};
use crate::runner::Runner;
use crate::sampling::validate;
use crate::scheduler::Stats;
use crate::search::speculative::{DrafterOptions, Speculator, Target};
use crate::sequence::{Ending, Goal, JobSpec, Output, Pick, Picture};
use crate::steps::Steps;
use crate::stop::StopFinder;
use crate::voice::{Listening, Voice};
use rhetor_images::Preparation;
use rhetor_kernels::isa;
use rhetor_kernels::kv::{KvType, PAGE_LEN};
use rhetor_lm::{
    Cancel, Completion, Constraint, Event, FinishReason, LanguageModel, PICTURE_PLACE, Prompt, Request,
    Score, TokenLogprob, TokenScore, Usage,
};
use rhetor_models::{Active, AttachedAdapter, KvCache, Model, ModelConfig, Sight};
use rhetor_tokenizer::{Special, Tokenizer};
use sha2::{Digest, Sha256};
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Tokens of prompt and answer together; `None` = what the model was made for.
    pub context: Option<usize>,
    /// How keys and values are stored.
    pub kv: KvType,
    /// Tokens that the key-value cache holds for all requests together, sources of encoder-decoders included; `None` =
    /// what two requests need.
    pub cache_tokens: Option<usize>,
    /// Prompt tokens computed in one step; `None` = 512.
    pub prefill_chunk: Option<usize>,
    /// The most sequences that are computed side by side; a request that has more of its own is computed alone.
    /// `None` = as many as the cache has pages for.
    pub parallel: Option<usize>,
    /// The most requests that wait for a place among them; one more is refused with [`rhetor_lm::Error::Busy`].
    /// `None` = no bound.
    pub queue: Option<usize>,
    /// Where beginnings of prompts are kept for the next process; `None` = nowhere. They are those of texts of 256
    /// tokens or more, with all adapters and without pictures.
    pub prefix_store: Option<PrefixStoreOptions>,
    /// Names of the model's adapters, in the order in which they were attached; those without a name go by their number.
    pub adapters: Vec<String>,
    /// What guesses tokens ahead, so that a step may bring more than one; `None` = nothing. It changes no token.
    pub drafter: Option<DrafterOptions>,
    /// What chat templates take for the present, in seconds since 1970; `None` = the system's clock, in UTC.
    pub now: Option<i64>,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            context: None,
            kv: KvType::F16,
            cache_tokens: None,
            prefill_chunk: None,
            parallel: None,
            queue: None,
            prefix_store: None,
            adapters: Vec::new(),
            drafter: None,
            now: None,
        }
    }
}

/// A model that speaks: many requests at once on one paged cache.
///
/// A request gives the same bytes whatever else is in flight, however many threads there are and whatever the cache
/// still holds.
pub struct Engine {
    name: String,
    steps: Steps,
    tokenizer: Tokenizer,
    /// With how it speaks of tools and thoughts.
    pub(crate) template: Result<(ChatTemplate, Manner), String>,
    /// Absent where the numbers come from something else than a model: in tests.
    config: Option<ModelConfig>,
    controls: Controls,
    breakers: OnceLock<Arc<[bool]>>,
    grammars: OnceLock<Result<Grammars, String>>,
    context: usize,
    cache_tokens: usize,
    now: Option<i64>,
    /// The model's adapters by name.
    adapters: Vec<(String, AttachedAdapter)>,
    /// What the model takes and gives, if it has eyes.
    sight: Option<Sight>,
}

/// The parts that an engine is made of, whatever runs the numbers.
pub(crate) struct Parts {
    pub name: String,
    pub runner: Box<dyn Runner>,
    pub tokenizer: Tokenizer,
    pub context: usize,
    pub options: EngineOptions,
    pub config: Option<ModelConfig>,
    pub adapters: Vec<AttachedAdapter>,
    pub sight: Option<Sight>,
    /// What guesses ahead, and how many tokens.
    pub speculator: Option<(Speculator, usize)>,
}

impl Engine {
    /// A voice of `model`, called `name`; `tokenizer` is the model's own.
    ///
    /// The cache costs memory as it fills. Fails if the options ask for more than the model or the cache allow, or if
    /// the tokenizer knows more tokens than the model.
    pub fn new(
        name: impl Into<String>,
        model: Model,
        tokenizer: Tokenizer,
        options: EngineOptions,
    ) -> Result<Engine, Error> {
        let config = model.config().clone();
        if !model.generates() {
            return Err(Error::NoGeneration { family: config.family, task: config.head.task });
        }
        let context_max = config.context_len;
        let context = options.context.unwrap_or(context_max);
        if context == 0 || context > context_max {
            return Err(Error::ContextOutOfRange { context, context_max });
        }
        let request_tokens = if config.has_encoder() { 2 * context } else { context };
        let cache_tokens = options.cache_tokens.unwrap_or(2 * request_tokens);
        if cache_tokens < request_tokens {
            return Err(Error::CacheTooSmall { cache_tokens, context: request_tokens });
        }
        let cache = KvCache::new(&config, options.kv, cache_tokens.div_ceil(PAGE_LEN));
        let (adapters, sight) = (model.adapters().to_vec(), model.sight());
        let model = Arc::new(model);
        let target =
            Target { model: &model, tokenizer: &tokenizer, kv: options.kv, n_pages: cache.n_pages() };
        let speculator = match &options.drafter {
            Some(drafter) => Some(drafter.speculator(&target)?),
            None => None,
        };
        let (name, runner) = (name.into(), Box::new((model, cache)));
        let config = Some(config);
        let parts = Parts { name, runner, tokenizer, context, options, config, adapters, sight, speculator };
        Engine::from_parts(parts)
    }

    pub(crate) fn from_parts(parts: Parts) -> Result<Engine, Error> {
        let Parts { name, runner, tokenizer, context, options, config, adapters, sight, speculator } = parts;
        AttachedAdapter::check(&adapters, &Active::All)?;
        let n_virtual: usize = adapters.iter().map(|adapter| adapter.n_virtual).sum();
        if n_virtual >= context {
            return Err(Error::ContextOutOfRange { context, context_max: context - n_virtual.min(context) });
        }
        let mut names = options.adapters.iter();
        let named = |(i, adapter): (usize, AttachedAdapter)| {
            (names.next().cloned().unwrap_or_else(|| i.to_string()), adapter)
        };
        let adapters: Vec<(String, AttachedAdapter)> = adapters.into_iter().enumerate().map(named).collect();
        let (n_tokens, vocab_size) = (tokenizer.n_tokens(), runner.vocab_size());
        if n_tokens > vocab_size {
            return Err(Error::TokenizerTooLarge { n_tokens, vocab_size });
        }
        let cache_tokens = runner.n_pages() * PAGE_LEN;
        // A source may be as long as what is written.
        let reads_source = config.as_ref().is_some_and(ModelConfig::has_encoder);
        let request_tokens = if reads_source { 2 * context } else { context };
        if cache_tokens < request_tokens {
            return Err(Error::CacheTooSmall { cache_tokens, context: request_tokens });
        }
        let line = Line {
            parallel: options.parallel.unwrap_or(usize::MAX).max(1),
            queue: options.queue.unwrap_or(usize::MAX),
        };
        let store = options.prefix_store.as_ref().map(|wanted| {
            let settings = format!("{} {}", options.kv.name(), isa::active().name());
            PrefixStore::open(wanted, &settings, runner.page_bytes())
                .map_err(|source| Error::PrefixStore { dir: wanted.dir.clone(), source })
        });
        let store = store.transpose()?;
        let controls = Controls::of(&tokenizer);
        let source = tokenizer.chat_template().or_else(|| config.as_ref().and_then(pictures::template));
        let template = match source {
            Some(source) => template_of(&tokenizer, source).map_err(|error| error.to_string()),
            None => Err("the model comes without a chat template; choose one by name".to_string()),
        };
        Ok(Engine {
            name,
            steps: Steps::new(
                runner,
                speculator,
                options.prefill_chunk.unwrap_or(512),
                n_tokens,
                line,
                store,
            ),
            tokenizer,
            template,
            config,
            controls,
            breakers: OnceLock::new(),
            grammars: OnceLock::new(),
            context,
            cache_tokens,
            now: options.now,
            adapters,
            sight,
        })
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The model's sizes and constants.
    pub fn model_config(&self) -> &ModelConfig {
        self.config.as_ref().expect("every engine that leaves this crate runs a model")
    }

    /// Tokens that prompt and answer may have together, where a request asks for no other adapters.
    pub fn context_len(&self) -> usize {
        self.context - self.adapters.iter().map(|(_, adapter)| adapter.n_virtual).sum::<usize>()
    }

    /// Whether requests may have pictures.
    pub fn has_eyes(&self) -> bool {
        self.sight.is_some()
    }

    /// The names of the model's adapters.
    pub fn adapters(&self) -> impl Iterator<Item = &str> {
        self.adapters.iter().map(|(name, _)| name.as_str())
    }

    /// The spellings of its control tokens.
    pub(crate) fn controls(&self) -> &Controls {
        &self.controls
    }

    /// The adapters of these names, or all, and the virtual positions that they put before a sequence.
    fn active(&self, names: Option<&[String]>) -> Result<(Active, usize), rhetor_lm::Error> {
        let invalid = |reason: String| rhetor_lm::Error::InvalidOption { option: "adapters", reason };
        let active = match names {
            None => Active::All,
            Some(names) => {
                let mut numbers = Vec::new();
                for name in names {
                    let number = self.adapters.iter().position(|(known, _)| known == name);
                    numbers.push(number.ok_or_else(|| {
                        let known: Vec<&str> = self.adapters().collect();
                        invalid(format!("there is no `{name}`; there are: {}", known.join(", ")))
                    })?);
                }
                // The order is that of attachment: equal sets share their pages.
                numbers.sort_unstable();
                numbers.dedup();
                if numbers.len() == self.adapters.len() { Active::All } else { Active::Only(numbers.into()) }
            }
        };
        let attached: Vec<AttachedAdapter> = self.adapters.iter().map(|(_, adapter)| *adapter).collect();
        AttachedAdapter::check(&attached, &active).map_err(|error| invalid(error.to_string()))?;
        let on = attached.iter().enumerate().filter(|(i, _)| active.has(*i));
        let n_virtual = on.map(|(_, adapter)| adapter.n_virtual).sum();
        Ok((active, n_virtual))
    }

    /// The token that the model begins to write with, if it reads its prompt with an encoder.
    pub(crate) fn decoder_start(&self) -> Option<u32> {
        let config = self.config.as_ref().filter(|config| config.has_encoder())?;
        Some(config.decoder_start.unwrap_or(0))
    }

    /// What the engine has done so far, and how full its cache is.
    pub fn stats(&self) -> Stats {
        self.steps.stats()
    }

    /// Callers that wait.
    #[cfg(test)]
    pub(crate) fn n_bells(&self) -> usize {
        self.steps.n_bells()
    }

    /// Replaces the chat template: by one of [`crate::TEMPLATES`], or by Jinja source.
    pub fn set_template(&mut self, name_or_source: &str) -> Result<(), Error> {
        self.template = Ok(template_of(&self.tokenizer, name_or_source)?);
        Ok(())
    }

    /// The ids that a prompt becomes, before anything is dropped for want of room.
    pub fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>, rhetor_lm::Error> {
        self.encode_request(&Request::new(prompt.clone()))
    }

    /// The ids that a request's prompt becomes with its tools, before anything is dropped for want of room. Pictures
    /// stand there as their places.
    pub fn encode_request(&self, request: &Request) -> Result<Vec<u32>, rhetor_lm::Error> {
        let room = Room { context: usize::MAX, max_tokens: None, overflow: rhetor_lm::Overflow::Error };
        let form = self.form(request)?;
        Ok(self.encode_into(&request.prompt, form.as_ref(), &room, None)?.ids)
    }

    /// How likely each of `ids[from..]` is, given all ids before it; `from` is at least 1. The first `from` are the source of
    /// an encoder-decoder.
    ///
    /// The ids must fit into the context: a longer text is scored in windows by the caller.
    pub fn score_ids(&self, ids: &[u32], from: usize) -> Result<Vec<TokenScore>, rhetor_lm::Error> {
        let picks = self.picks(ids, from, self.active(None)?, 0, None)?;
        let score = |pick: &Pick| TokenScore {
            text: self.token_text(pick.id),
            id: pick.id,
            logprob: pick.logprob,
            is_greedy: pick.is_greedy,
        };
        Ok(picks.iter().map(score).collect())
    }

    /// As [`Engine::score_ids`], with these adapters on (and their virtual positions), and `n_top` alternatives for each
    /// token; broken off as `request` says.
    fn picks(
        &self,
        ids: &[u32],
        from: usize,
        (adapters, n_virtual): (Active, usize),
        n_top: usize,
        request: Option<&Request>,
    ) -> Result<Vec<Pick>, rhetor_lm::Error> {
        let n_source = if self.decoder_start().is_some() { from.min(ids.len()) } else { 0 };
        let n_tokens = n_source.max(ids.len() - n_source);
        if n_tokens > self.context - n_virtual {
            let (prompt_tokens, context) = (n_tokens, self.context - n_virtual);
            return Err(rhetor_lm::Error::ContextOverflow { prompt_tokens, max_tokens: 0, context });
        }
        if from == 0 {
            return Err(rhetor_lm::Error::EmptyPrompt);
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.tokenizer.n_tokens()) {
            let what = format!("score token {id}: its vocabulary has {} tokens", self.tokenizer.n_tokens());
            return Err(self.unsupported(what));
        }
        let mut scores = Vec::new();
        if from >= ids.len() {
            return Ok(scores);
        }
        let (source, ids) = ids.split_at(n_source);
        let ids = self.decoder_start().into_iter().chain(ids.iter().copied());
        let from = if n_source > 0 { 1 } else { from };
        let ticket = self.steps.submit(JobSpec {
            source: source.into(),
            prompt: std::iter::repeat_n(0, n_virtual).chain(ids).collect(),
            n_virtual,
            pictures: Vec::new(),
            adapters,
            goal: Goal::Score { from: from + n_virtual },
            constraint: None,
            n_top,
            breakers: Arc::default(),
            speculate: None,
            deadline: request.and_then(|request| request.deadline),
            cancel: request.map_or_else(Cancel::default, |request| request.cancel.clone()),
            run: None,
            digests: None,
        })?;
        loop {
            let outputs = ticket.next();
            if outputs.is_empty() {
                return Ok(scores);
            }
            for output in outputs {
                match output {
                    Output::Scores(picks) => scores.extend(picks),
                    Output::Failed(reason) => {
                        return Err(self.unsupported(format!("score this text: {reason}")));
                    }
                    Output::Prefill { .. }
                    | Output::Token { .. }
                    | Output::Guessed { .. }
                    | Output::Finished { .. } => {}
                }
            }
        }
    }

    pub(crate) fn now(&self) -> i64 {
        self.now.unwrap_or_else(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
        })
    }

    fn encoder(&self) -> Encoder<'_> {
        Encoder { tokenizer: &self.tokenizer, controls: &self.controls, picture_rows: None }
    }

    /// `form`: how a conversation is put, where there is a template; `picture_rows`: rows that a picture becomes, if the
    /// prompt has places for some.
    fn encode_into(
        &self,
        prompt: &Prompt,
        form: Option<&Form<'_>>,
        room: &Room,
        picture_rows: Option<usize>,
    ) -> Result<Encoded, rhetor_lm::Error> {
        let encoder = Encoder { picture_rows, ..self.encoder() };
        match prompt {
            Prompt::Text { text, parse_special } => {
                let special = if *parse_special { Special::Parse } else { Special::Literal };
                match self.decoder_start() {
                    Some(_) => encoder.source(text, special, room),
                    None => encoder.text(text, special, room),
                }
            }
            Prompt::Chat(messages) => match form {
                Some(form) => encoder.chat(form, messages, room),
                // Text-to-text models know no turns: one message is what they read.
                None => encoder.source(&messages[0].content, Special::Literal, room),
            },
            Prompt::Ids(ids) => self.encoder().ids(ids, room),
            Prompt::Infill { prefix, suffix } => {
                let template = InfillTemplate::of(&self.tokenizer).ok_or_else(|| {
                    let what =
                        "fill a hole in a text: its vocabulary has no tokens for it, such as <fim_prefix>";
                    self.unsupported(what.to_string())
                })?;
                self.encoder().infill(template, prefix, suffix, room)
            }
        }
    }

    /// The tokens of a prompt with pictures, and the rows of these.
    fn look(
        &self,
        request: &Request,
        form: Option<&Form<'_>>,
        room: &Room,
        n_virtual: usize,
    ) -> Result<(Encoded, Vec<Picture>), rhetor_lm::Error> {
        let invalid = |reason: String| rhetor_lm::Error::InvalidOption { option: "pictures", reason };
        let Some(sight) = self.sight else {
            return Err(self.unsupported("look at pictures: it has no eyes".to_string()));
        };
        if request.overflow != rhetor_lm::Overflow::Error {
            return Err(invalid("a prompt with pictures is not shortened".to_string()));
        }
        let prompt = pictures::placed(&request.prompt, request.pictures.len());
        let encoded = self.encode_into(&prompt, form, room, Some(sight.n_rows))?;
        if encoded.places.len() != request.pictures.len() {
            let (n, places) = (request.pictures.len(), encoded.places.len());
            return Err(invalid(format!("{n} given, and the prompt has {places} places {PICTURE_PLACE}")));
        }
        let preparation = Preparation::square(sight.side);
        let see = |(place, file): (&usize, &Arc<[u8]>)| {
            let picture = rhetor_images::Picture::decode(file).map_err(|error| invalid(error.to_string()))?;
            let rows = self.steps.see(preparation.apply(&picture));
            Ok(Picture { first: n_virtual + place, rows, digest: Sha256::digest(file).into() })
        };
        let seen = encoded.places.iter().zip(&request.pictures).map(see).collect::<Result<_, _>>()?;
        Ok((encoded, seen))
    }

    /// By token id: whether the token ends the repeats that DRY looks for.
    fn breakers(&self) -> Arc<[bool]> {
        let breaks = |id| self.tokenizer.token_bytes(id).iter().any(|byte| b"\n:\"*".contains(byte));
        self.breakers.get_or_init(|| (0..self.tokenizer.n_tokens() as u32).map(breaks).collect()).clone()
    }

    /// The grammar of a constraint over this model's tokens.
    fn grammar(&self, constraint: &Constraint) -> Result<Arc<Grammar>, rhetor_lm::Error> {
        match self.grammars.get_or_init(|| Grammars::new(&self.tokenizer)) {
            Ok(grammars) => grammars.compile(constraint),
            Err(reason) => Err(self.unsupported(format!("follow a constraint: {reason}"))),
        }
    }

    /// Where an answer begins in its grammar: at once, or when the model has written `after`.
    fn begin(&self, grammar: &Grammar, goal: &Goal, after: Option<&str>) -> State {
        let waits = after.map(|text| Trigger::new(text, &self.tokenizer));
        grammar.begin(goal.stops(), waits)
    }

    /// Refuses what no engine can do.
    fn check(&self, request: &Request) -> Result<(), rhetor_lm::Error> {
        let invalid = |option, reason: String| Err(rhetor_lm::Error::InvalidOption { option, reason });
        validate(&request.sampling, self.tokenizer.n_tokens())?;
        if request.speculate.is_some_and(|n| n > 0) {
            if !self.steps.speculates() {
                return invalid("speculate", "this engine was set up without a drafter".to_string());
            }
            if request.beams > 1 {
                return invalid("speculate", format!("{} beams exclude guessing ahead", request.beams));
            }
        }
        if request.n == 0 || request.n > 1024 {
            return invalid("n", format!("{} is outside 1 to 1024", request.n));
        }
        if request.beams == 0 || request.beams > 256 {
            return invalid("beams", format!("{} is outside 1 to 256", request.beams));
        }
        if request.beams > 1 && request.sampling.temperature != 0.0 {
            let reason =
                format!("{} beams exclude a temperature of {}", request.beams, request.sampling.temperature);
            return invalid("beams", reason);
        }
        if request.beams > 1 && request.n > request.beams {
            return invalid(
                "n",
                format!("{} completions need as many beams; there are {}", request.n, request.beams),
            );
        }
        if request.prompt_logprobs.is_some() && self.decoder_start().is_some() {
            let reason = "the model reads its prompt and does not write it: no token of it has a probability";
            return invalid("prompt-logprobs", reason.to_string());
        }
        if request.prompt_logprobs.is_some() && !request.pictures.is_empty() {
            return invalid("prompt-logprobs", "a prompt with pictures is not scored".to_string());
        }
        if request.beams > 1 && request.constraint.is_some() && self.tokenizer.stops().is_empty() {
            let reason = "beams with a constraint need a token that ends a text; the vocabulary has none";
            return invalid("beams", reason.to_string());
        }
        if request.stop.iter().any(String::is_empty) {
            return invalid("stop", "an empty string would end every answer before it begins".to_string());
        }
        Ok(())
    }

    /// What is to be done with a prompt of `n_prompt` tokens after a source of `n_source`; the second value is the most tokens a completion may have.
    /// Virtual positions count as tokens of the prompt.
    fn goal(
        &self,
        request: &Request,
        n_prompt: usize,
        n_source: usize,
        ends: &[u32],
    ) -> Result<(Goal, usize), rhetor_lm::Error> {
        let room = self.context - n_prompt;
        let sampling = Arc::new(request.sampling.clone());
        let stops: Arc<[u32]> = {
            let mut stops = [self.tokenizer.stops(), ends].concat();
            stops.sort_unstable();
            stops.into()
        };
        if request.beams == 1 {
            let max_tokens = request.max_tokens.map_or(room, |max| max.min(room));
            let ending = Ending { stops, max_tokens };
            return Ok((Goal::Sample { sampling, seed: request.seed, n: request.n, ending }, max_tokens));
        }
        // In the worst case the beams share nothing, and each needs a page more while it is copied.
        let n_pages = (self.cache_tokens / PAGE_LEN).saturating_sub(n_source.div_ceil(PAGE_LEN));
        let tokens_each = (n_pages / request.beams).saturating_sub(1) * PAGE_LEN;
        let room = room.min(tokens_each.saturating_sub(n_prompt));
        let max_tokens = request.max_tokens.unwrap_or(room);
        if room == 0 || max_tokens > room {
            let reason = format!(
                "{} beams of {} tokens do not fit into a cache of {} tokens",
                request.beams,
                n_prompt + max_tokens.max(1),
                self.cache_tokens
            );
            return Err(rhetor_lm::Error::InvalidOption { option: "beams", reason });
        }
        let ending = Ending { stops, max_tokens };
        Ok((Goal::Beam { sampling, width: request.beams, n: request.n, ending }, max_tokens))
    }

    fn token_text(&self, id: u32) -> String {
        let bytes = self.tokenizer.token_bytes(id);
        match self.tokenizer.piece(id) {
            Some(piece) if bytes.is_empty() => piece.to_string(),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        }
    }

    pub(crate) fn token_logprob(&self, pick: &Pick) -> TokenLogprob {
        TokenLogprob {
            text: self.token_text(pick.id),
            bytes: self.tokenizer.token_bytes(pick.id).to_vec(),
            id: pick.id,
            logprob: pick.logprob,
            top: pick.top.iter().map(|&(id, logprob)| (self.token_text(id), id, logprob)).collect(),
        }
    }

    pub(crate) fn unsupported(&self, what: String) -> rhetor_lm::Error {
        rhetor_lm::Error::Unsupported { model: self.name.clone(), what }
    }
}

impl LanguageModel for Engine {
    fn name(&self) -> &str {
        &self.name
    }

    /// A token that ends an answer is among its `token_ids`, counted and scored, but has no text. With beams, text comes
    /// when the search is over, and a stop string shortens the text but does not steer the search.
    fn generate(
        &self,
        request: &Request,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Completion>, rhetor_lm::Error> {
        let began = Instant::now();
        self.check(request)?;
        let (adapters, n_virtual) = self.active(request.adapters.as_deref())?;
        let context = self.context - n_virtual;
        let room = Room { context, max_tokens: request.max_tokens, overflow: request.overflow };
        let form = self.form(request)?;
        let (encoded, seen) = match request.pictures.is_empty() {
            true => (self.encode_into(&request.prompt, form.as_ref(), &room, None)?, Vec::new()),
            false => self.look(request, form.as_ref(), &room, n_virtual)?,
        };
        let (constraint, in_force) = match &form {
            Some(form) => form.constraint(request, encoded.is_thinking, &self.controls, &self.tokenizer)?,
            None => (request.constraint.clone(), request.constraint.as_ref().map(Constraint::name)),
        };
        let grammar = constraint.as_ref().map(|constraint| self.grammar(constraint)).transpose()?;
        let prompt_logprobs = match request.prompt_logprobs {
            None => None,
            Some(n_top) => {
                let picks =
                    self.picks(&encoded.ids, 1, (adapters.clone(), n_virtual), n_top, Some(request))?;
                Some(picks.iter().map(|pick| self.token_logprob(pick)).collect::<Vec<TokenLogprob>>())
            }
        };
        let n_prompt = encoded.ids.len();
        let start = self.decoder_start();
        let mut stops = request.stop.clone();
        let mut stream = self.tokenizer.stream();
        match (&request.prompt, &self.template) {
            (Prompt::Chat(messages), Ok((template, _))) => {
                stops.extend(template.stops().iter().map(|stop| stop.to_string()));
                if GenerationPrompt::after(messages) == GenerationPrompt::Continue {
                    stream = stream.continuing();
                }
            }
            (Prompt::Chat(_), Err(_)) => {}
            // What is written after a source is a text of its own.
            (Prompt::Text { .. } | Prompt::Infill { .. } | Prompt::Ids(_), _) if start.is_some() => {}
            (Prompt::Text { .. } | Prompt::Infill { .. } | Prompt::Ids(_), _) => stream = stream.continuing(),
        }
        let marks = form.as_ref().map_or_else(Vec::new, |form| self.marks(form));
        let voice = |index: usize| {
            let reading = form.as_ref().map_or_else(Reading::default, |form| {
                let seed = call_seed(request.seed.wrapping_add(index as u64), &encoded.ids);
                form.reading(encoded.is_thinking, request.tools.parallel, seed)
            });
            let stops = StopFinder::new(stops.clone());
            Voice::new(stream.clone(), stops, Parser::new(reading), request.logprobs.is_some())
        };
        let mut conversation = Listening {
            engine: self,
            voices: (0..request.n).map(voice).collect(),
            marks,
            n_prompt,
            n_cached: 0,
            ends: encoded.ends.clone(),
            on_event,
            is_cancelled: false,
        };
        if request.max_tokens == Some(0) {
            conversation.voices.iter_mut().for_each(|voice| voice.reason = Some(FinishReason::Length));
        } else {
            let (source, prompt) = match start {
                Some(start) => (encoded.ids, vec![start]),
                None => (Vec::new(), encoded.ids),
            };
            let n_tokens = n_virtual + prompt.len();
            let (goal, _) = self.goal(request, n_tokens, source.len(), &encoded.ends)?;
            let after = form.as_ref().and_then(|form| form.after(encoded.is_thinking));
            let constraint = grammar.map(|grammar| self.begin(&grammar, &goal, after));
            let breakers =
                if request.sampling.dry_multiplier > 0.0 { self.breakers() } else { Arc::default() };
            let n_top = request.logprobs.unwrap_or(0);
            let prompt = std::iter::repeat_n(0, n_virtual).chain(prompt).collect();
            let source = source.into();
            let spec = JobSpec {
                source,
                prompt,
                n_virtual,
                pictures: seen,
                adapters,
                goal,
                constraint,
                n_top,
                breakers,
                speculate: request.speculate,
                deadline: request.deadline,
                cancel: request.cancel.clone(),
                run: None,
                digests: None,
            };
            let ticket = self.steps.submit(spec)?;
            conversation.listen(&ticket)?;
        }
        let Listening { voices, n_cached, .. } = conversation;
        let usage = Usage {
            prompt_tokens: n_prompt,
            cached_tokens: n_cached,
            truncated_tokens: encoded.n_truncated,
            ..Usage::default()
        };
        let completions = voices.into_iter().filter(|voice| voice.reason.is_some());
        Ok(completions
            .map(|voice| {
                let mut completion = voice.into_completion(usage, encoded.warnings.clone(), began);
                completion.prompt_logprobs = prompt_logprobs.clone();
                completion.constraint = in_force;
                if in_force == Some(CALL) && request.constraint.is_some() {
                    completion
                        .warnings
                        .push("a call of a tool is required: the constraint waits".to_string());
                }
                let is_full =
                    completion.finish_reason == FinishReason::Length && request.max_tokens.is_none();
                if is_full {
                    completion.warnings.push(format!("the context of {} tokens is full", self.context));
                }
                completion
            })
            .collect())
    }

    /// An encoder-decoder reads the context and writes the continuation. Of other models:
    /// The text is tokenized as a whole; tokens that begin within the context are not scored. With an empty context the
    /// first token is scored after the token that begins a text.
    fn score(&self, context: &str, continuation: &str) -> Result<Score, rhetor_lm::Error> {
        let whole = format!("{context}{continuation}");
        let room = Room { context: usize::MAX, max_tokens: None, overflow: rhetor_lm::Overflow::Error };
        if self.decoder_start().is_some() {
            let mut ids = self.encoder().source(context, Special::Literal, &room)?.ids;
            let from = ids.len();
            ids.extend(self.tokenizer.encode(continuation, Special::Literal));
            return Ok(Score { tokens: self.score_ids(&ids, from)?, n_bytes: continuation.len() });
        }
        let mut ids = self.encoder().text(&whole, Special::Literal, &room)?.ids;
        let from = if context.is_empty() {
            let start = self.tokenizer.bos().or(self.tokenizer.eos()).ok_or(rhetor_lm::Error::EmptyPrompt)?;
            if !self.tokenizer.adds_bos() && !whole.is_empty() {
                ids.insert(0, start);
            }
            1
        } else {
            let before = self.encoder().text(context, Special::Literal, &room)?.ids;
            ids.iter().zip(&before).take_while(|(a, b)| a == b).count().max(1)
        };
        Ok(Score { tokens: self.score_ids(&ids, from)?, n_bytes: continuation.len() })
    }
}

/// A template, by name or by its source, and how it speaks.
fn template_of(tokenizer: &Tokenizer, name_or_source: &str) -> Result<(ChatTemplate, Manner), Error> {
    let template = ChatTemplate::of(tokenizer, name_or_source)?;
    let manner = Manner::of(&template);
    Ok((template, manner))
}

/// What the ids of calls come from: the same request gives the same, another turn others.
fn call_seed(seed: u64, prompt: &[u32]) -> [u8; 32] {
    let mut digest = Sha256::new().chain_update(seed.to_le_bytes());
    prompt.iter().for_each(|id| digest.update(id.to_le_bytes()));
    digest.finalize().into()
}
