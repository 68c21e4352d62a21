//! `rhetor generate`.

use super::Run;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::interrupt::{self, StopsAnswer};
use crate::range::range;
use crate::sampling::SamplingArgs;
use crate::session::Session;
use crate::tools::{self, Switch, ToolArgs};
use crate::voice::{self, VoiceArgs};
use crate::{input, output};
use rhetor_images::Picture;
use rhetor_lm::{
    Completion, Event, FinishReason, LanguageModel, Message, Overflow, PICTURE_PLACE, Prompt, Request,
    Sampling, TokenLogprob,
};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

/// Answer one prompt, or continue a text
///
/// The prompt is one turn of a conversation, rendered by the model's chat template; with --raw it is a text to be
/// continued. Without sampling flags the most likely token is taken each time, and the same prompt gives the same text.
#[derive(Debug, clap::Args)]
pub struct Generate {
    /// Name, reference or path of a model
    model: String,

    #[command(flatten)]
    prompt: PromptArgs,

    /// A picture (PNG, JPEG or WebP) that the prompt is about; may be repeated. The prompt says where each stands with
    /// `<Img><ImageHere></Img>`; else they come first
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,

    /// With --image: what MiniGPT-v2 is to do with the picture
    #[arg(long, value_name = "TASK", requires = "image")]
    task: Option<VisionTask>,

    /// Continue the text as it is, without a chat template
    #[arg(long, conflicts_with_all = ["system", "template"])]
    raw: bool,

    /// With --raw: read control tokens in the text, such as <|im_end|>, as what they are
    #[arg(long, requires = "raw")]
    parse_special: bool,

    /// Write what stands between the prompt and this text: for models of code that were trained to infill
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with_all = ["system", "template", "raw"])]
    suffix: Option<String>,

    /// Instructions that stand before the prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    #[command(flatten)]
    answer: AnswerArgs,

    /// Completions to generate; number i uses the seed plus i
    #[arg(long, value_name = "N", default_value = "1", value_parser = range(1usize, 1024))]
    n: usize,

    /// Report the log-probability of each token and of the N most likely alternatives (with --json)
    #[arg(long, value_name = "N", requires = "json", value_parser = range(0usize, 100))]
    logprobs: Option<usize>,

    /// Report the log-probability of each token of the prompt and of the N most likely alternatives (with --json)
    #[arg(long, value_name = "N", requires = "json", value_parser = range(0usize, 100))]
    prompt_logprobs: Option<usize>,

    /// Search with N beams instead of sampling
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "speculate", value_parser = range(1usize, 256))]
    beams: usize,

    /// Print JSON when all is done: an object, or a list of them with --n
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    tools: ToolArgs,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    voice: VoiceArgs,
}

/// The task identifiers of MiniGPT-v2, arXiv:2310.09478, table 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum VisionTask {
    /// A question about it
    Vqa,
    /// A sentence that describes it
    Caption,
    /// A description whose things have boxes
    Grounding,
    /// The box of what the prompt names
    Refer,
    /// The boxes of all that the prompt names
    Detection,
    /// What stands in a box
    Identify,
}

impl VisionTask {
    /// What stands before the text of a prompt.
    fn prefix(self) -> &'static str {
        match self {
            VisionTask::Vqa => "[vqa] ",
            VisionTask::Caption => "[caption] ",
            VisionTask::Grounding => "[grounding] ",
            VisionTask::Refer => "[refer] ",
            VisionTask::Detection => "[detection] ",
            VisionTask::Identify => "[identify] ",
        }
    }
}

/// Where the prompt comes from.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct PromptArgs {
    /// The prompt
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,

    /// Read the prompt from a file; `-` is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// `-` reads the prompt from stdin
    #[arg(value_name = "-", value_parser = ["-"])]
    stdin: Option<String>,
}

/// How prompts are put and how answers begin and end.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AnswerArgs {
    /// The most tokens to generate [default: until the model stops or the context is full]
    #[arg(long, value_name = "N", value_parser = range(0usize, u32::MAX as usize))]
    pub max_tokens: Option<usize>,

    /// End the answer before this text; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,

    /// Seed of the random choices: the same seed gives the same text
    #[arg(long, value_name = "N", default_value = "0")]
    pub seed: u64,

    /// Chat template to use in place of the model's own: a name such as chatml or llama3, or Jinja
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,

    /// Whether a model that thinks before it speaks does so [default: as its template has it]. Thoughts go to stderr
    #[arg(long, value_name = "SWITCH")]
    pub think: Option<Switch>,

    /// What happens when prompt and answer do not fit into the context
    #[arg(long, value_name = "POLICY", default_value = "error")]
    pub overflow: OverflowArg,
}

/// [`Overflow`] as the person types it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum OverflowArg {
    /// Refuse, with both numbers
    Error,
    /// Drop the oldest turns, or the first tokens of a text, and say how many
    TruncateOldest,
}

impl From<OverflowArg> for Overflow {
    fn from(arg: OverflowArg) -> Overflow {
        match arg {
            OverflowArg::Error => Overflow::Error,
            OverflowArg::TruncateOldest => Overflow::TruncateOldest,
        }
    }
}

impl Run for Generate {
    const NAME: &str = "generate";

    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let text = match (self.prompt.prompt, self.prompt.file) {
            (Some(text), _) => text,
            (None, Some(path)) => input::file(&path)?,
            (None, None) => input::stdin()?,
        };
        let text = match self.task {
            None => text,
            Some(_) if text.contains(PICTURE_PLACE) => {
                let message = "the prompt has a place for the picture; write the task behind it";
                return Err(Failure::input(format!("--task: {message}")));
            }
            Some(task) => task.prefix().to_string() + &text,
        };
        let read = |file: &PathBuf| Picture::read(file).map(Arc::from).map_err(Failure::input);
        let pictures = self.image.iter().map(read).collect::<Result<Vec<Arc<[u8]>>, Failure>>()?;
        let prompt = match (self.raw, self.suffix) {
            (_, Some(suffix)) => Prompt::Infill { prefix: text, suffix },
            (true, None) => Prompt::Text { text, parse_special: self.parse_special },
            (false, None) => {
                let system = self.system.map(Message::system);
                Prompt::Chat(system.into_iter().chain([Message::user(text)]).collect())
            }
        };
        let mut sampling = Sampling::default();
        self.sampling.apply(&mut sampling);
        let mut request = Request {
            pictures,
            max_tokens: self.answer.max_tokens,
            sampling,
            stop: self.answer.stop,
            seed: self.answer.seed,
            n: self.n,
            logprobs: self.logprobs,
            overflow: self.answer.overflow.into(),
            beams: self.beams,
            prompt_logprobs: self.prompt_logprobs,
            think: self.answer.think.map(Switch::is_on),
            ..Request::new(prompt)
        };
        self.tools.apply(&mut request)?;
        let lm = voice::load(session, &self.model, &self.voice, self.answer.template.as_deref())?;
        if !request.pictures.is_empty() && !lm.has_eyes() {
            return Err(Failure::input(format!("--image: {} has no eyes", self.model)));
        }
        // One completion is shown as it grows; several would run into each other.
        let is_streamed = !self.json && self.n == 1;
        let mut output_failed = None;
        let stops = StopsAnswer::begin();
        let completions = lm.generate(&request, &mut |event| {
            let written = match event {
                Event::Text { text, .. } if is_streamed => output::piece(text),
                Event::Thinking { text, .. } if is_streamed => {
                    eprint!("{text}");
                    Ok(())
                }
                _ => Ok(()),
            };
            if let Err(failure) = written {
                output_failed = Some(failure);
                return ControlFlow::Break(());
            }
            if interrupt::raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        drop(stops);
        if let Some(failure) = output_failed {
            return Err(failure);
        }
        let completions = completions?;
        if self.json {
            let mut values: Vec<Value> = completions.iter().map(to_json).collect();
            output::json(&if self.n == 1 { values.remove(0) } else { Value::Array(values) })?;
        } else {
            for (i, completion) in completions.iter().enumerate() {
                if !is_streamed {
                    output::line(&format!("--- {} of {} ---\n{}", i + 1, self.n, completion.text))?;
                } else if !completion.text.is_empty() || completion.tool_calls.is_empty() {
                    output::line("")?;
                }
                for call in &completion.tool_calls {
                    output::line(&tools::call_to_json(call).to_string())?;
                }
            }
        }
        for warning in completions.iter().flat_map(|completion| &completion.warnings) {
            eprintln!("warning: {warning}");
        }
        let is_cancelled =
            completions.iter().any(|completion| completion.finish_reason == FinishReason::Cancelled);
        Ok(if is_cancelled { Exit::Interrupted } else { Exit::Done })
    }
}

/// A completion as the JSON that scripts read.
pub(super) fn to_json(completion: &Completion) -> Value {
    let timings = &completion.timings;
    let usage = &completion.usage;
    let per_second = |n: usize, seconds: f64| if seconds > 0.0 { Some(n as f64 / seconds) } else { None };
    let mut value = json!({
        "text": completion.text,
        "token_ids": completion.token_ids,
        "finish_reason": completion.finish_reason.name(),
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": usage.cached_tokens,
            "truncated_tokens": usage.truncated_tokens,
            "drafted_tokens": usage.drafted_tokens,
            "accepted_tokens": usage.accepted_tokens,
        },
        "timings": {
            "prefill_seconds": timings.prefill_seconds,
            "decode_seconds": timings.decode_seconds,
            "prefill_tokens_per_second":
                per_second(usage.prompt_tokens - usage.cached_tokens, timings.prefill_seconds),
            // The first token belongs to the prefill.
            "decode_tokens_per_second":
                per_second(usage.completion_tokens.saturating_sub(1), timings.decode_seconds),
        },
    });
    if let Some(logprobs) = &completion.logprobs {
        value["logprobs"] = logprobs.iter().map(token_to_json).collect();
        value["logprob_sum"] = json!(completion.logprob_sum);
    }
    if let Some(logprobs) = &completion.prompt_logprobs {
        value["prompt_logprobs"] = logprobs.iter().map(token_to_json).collect();
    }
    tools::add_parts(completion, &mut value);
    if !completion.warnings.is_empty() {
        value["warnings"] = json!(completion.warnings);
    }
    value
}

fn token_to_json(token: &TokenLogprob) -> Value {
    let top =
        token.top.iter().map(|(text, id, logprob)| json!({ "text": text, "id": id, "logprob": logprob }));
    json!({
        "text": token.text, "bytes": token.bytes, "id": token.id, "logprob": token.logprob,
        "top": top.collect::<Vec<_>>(),
    })
}
