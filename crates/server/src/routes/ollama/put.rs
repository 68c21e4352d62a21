//! From a request of `generate` or `chat` to a model that speaks.

use super::{blocking, find};
use crate::app::App;
use crate::refusal::Refusal;
use crate::residents::{KeepAlive, Lease, Wish};
use crate::speech::Speech;
use crate::wire::ollama::asked::{Asked, Generate, What};
use crate::wire::ollama::messages::{behind, turns};
use crate::wire::ollama::options::Options;
use crate::wire::ollama::reply::{Shape, Teller, lines, object};
use crate::wire::pictures::PLACE;
use crate::wire::stream;
use axum::http::StatusCode;
use axum::response::Response;
use rhetor_generate::infill::InfillTemplate;
use rhetor_generate::{
    ChatTemplate, Controls, Engine, GenerationPrompt, Guarded, RenderOptions, ToolSupport,
};
use rhetor_lm::{Message, Prompt, Request};
use rhetor_store::Settings;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Puts the request to its model and replies as it asks.
pub(super) async fn reply(app: Arc<App>, mut asked: Asked, shape: Shape) -> Result<Response, Refusal> {
    let began = Instant::now();
    let settings = settings_of(&app, &asked.model, shape)?;
    let mut teller = Teller {
        shape,
        model: asked.model.clone(),
        began,
        load_time: Duration::ZERO,
        context: None,
        warnings: std::mem::take(&mut asked.warnings),
        n_calls: 0,
    };
    let is_empty = asked.what.is_empty();
    if is_empty && asked.keep_alive == Some(KeepAlive::For(Duration::ZERO)) {
        let name = find(&app, &asked.model).map_or_else(|_| asked.model.clone(), |found| found.name);
        app.residents.unload(&name);
        return Ok(object(&teller.nothing("unload")));
    }
    if let What::Generate(generate) = &asked.what {
        let is_told =
            generate.template.is_some() || generate.system.is_some() || !generate.context.is_empty();
        if generate.is_raw && is_told {
            let message = "raw mode does not support template, system, or context";
            return Err(Refusal::field("raw", message));
        }
    }
    let mut options = Options::of_model(&settings.parameters)?;
    if let Some(mut given) = asked.options.take() {
        options.read(&mut given)?;
        teller.warnings.extend(given.finish()?);
    }
    let wish = Wish { keep_alive: asked.keep_alive, context: options.context };
    let lease = app.residents.get(&app, &asked.model, wish).await?;
    teller.load_time = lease.load_time();
    lease.engine()?;
    if is_empty {
        return Ok(object(&teller.nothing("load")));
    }
    let (is_stream, is_rendered_only) = (asked.is_stream, asked.is_rendered_only);
    let is_raw = matches!(&asked.what, What::Generate(generate) if generate.is_raw);
    let speaker = lease.clone();
    let (request, ids, shown) = blocking(move || {
        let engine = speaker.engine()?;
        let request = request(engine, &speaker, asked, &settings, &options)?;
        if is_rendered_only {
            let shown = engine.render(&request)?;
            return Ok((request, None, Some(shown)));
        }
        let tells_context = shape == Shape::Generate && !is_raw;
        let ids = if tells_context { Some(engine.encode(&request.prompt)?) } else { None };
        Ok((request, ids, None))
    })
    .await?;
    if let Some(shown) = shown {
        return Ok(object(&teller.rendered(&shown, request.pictures.len())));
    }
    let mut speech = Speech::begin(lease.clone(), request);
    if !is_stream {
        let completions = speech.completions().await?;
        let completion = completions.into_iter().next().unwrap_or_default();
        teller.context = context(lease.engine()?, ids, &completion.text);
        return Ok(object(&teller.whole(&completion)));
    }
    let first = stream::begun(&mut speech).await?;
    let mut said = String::new();
    Ok(lines(stream::body(speech, first, move |heard, out| {
        use crate::speech::Heard;
        match &heard {
            Heard::Text { text, .. } if ids.is_some() => said.push_str(text),
            Heard::Done(Ok(_)) => {
                teller.context = lease.engine().ok().and_then(|engine| context(engine, ids.clone(), &said));
            }
            _ => {}
        }
        teller.write(heard, out);
    })))
}

/// The tokens from which the next request can go on.
fn context(engine: &Engine, prompt: Option<Vec<u32>>, said: &str) -> Option<Vec<u32>> {
    let mut ids = prompt?;
    ids.extend(engine.tokenizer().encode(said, rhetor_tokenizer::Special::Literal));
    Some(ids)
}

/// What the model of that name brings; adapters that the server lends bring nothing.
fn settings_of(app: &App, name: &str, shape: Shape) -> Result<Settings, Refusal> {
    if name.is_empty() && shape == Shape::Chat {
        return Err(Refusal::field("model", "model is required"));
    }
    if app.config.adapters.iter().any(|(adapter, ..)| adapter == name) {
        return Ok(Settings::default());
    }
    Ok(find(app, name)?.manifest.map(|manifest| manifest.settings).unwrap_or_default())
}

/// The request, complete.
fn request(
    engine: &Engine,
    lease: &Lease,
    asked: Asked,
    settings: &Settings,
    options: &Options,
) -> Result<Request, Refusal> {
    let mut request = match asked.what {
        What::Chat { talk, tools } => {
            let mut request = Request::chat(behind(settings, talk.messages));
            request.tools.offered = tools;
            request.pictures = talk.pictures;
            request
        }
        What::Generate(generate) => of_generate(engine, *generate, settings)?,
    };
    if !request.pictures.is_empty() && !engine.has_eyes() {
        let message = format!("\"{}\" does not support vision: images cannot be read", asked.model);
        return Err(Refusal::field("images", message));
    }
    let capabilities = engine.capabilities();
    if !request.tools.offered.is_empty() && capabilities.tools == ToolSupport::No {
        return Err(Refusal::field("tools", format!("\"{}\" does not support tools", asked.model)));
    }
    // Not to think is what a model does anyway that cannot.
    request.think = asked.think.filter(|think| *think || capabilities.thinking);
    if request.think == Some(true) && !capabilities.thinking {
        return Err(Refusal::field("think", format!("\"{}\" does not support thinking", asked.model)));
    }
    options.apply(&mut request);
    request.constraint = asked.constraint;
    request.overflow = asked.overflow;
    request.logprobs = asked.logprobs;
    request.adapters = lease.adapters();
    Ok(request)
}

fn of_generate(engine: &Engine, generate: Generate, settings: &Settings) -> Result<Request, Refusal> {
    if generate.is_raw {
        let prompt = Prompt::Text { text: generate.prompt, parse_special: true };
        return Ok(Request { pictures: generate.pictures, ..Request::new(prompt) });
    }
    if let Some(suffix) = generate.suffix {
        if InfillTemplate::of(engine.tokenizer()).is_none() {
            return Err(Refusal::field("suffix", "the model does not support insert"));
        }
        return Ok(Request::new(Prompt::Infill { prefix: generate.prompt, suffix }));
    }
    let mut messages = Vec::new();
    messages.extend(
        generate.system.as_ref().or(settings.system.as_ref()).map(|text| Message::system(text.as_str())),
    );
    if generate.context.is_empty() {
        messages.extend(turns(&settings.messages));
    }
    let places = PLACE.repeat(generate.pictures.len());
    messages.push(Message::user(format!("{places}{}", generate.prompt)));
    if generate.template.is_none() && !engine.capabilities().chat {
        return of_base(generate, messages);
    }
    if generate.template.is_none() && generate.context.is_empty() {
        return Ok(Request { pictures: generate.pictures, ..Request::chat(messages) });
    }
    if !generate.pictures.is_empty() {
        let message = "pictures go with the model's own template, and without context";
        return Err(Refusal::field("images", message));
    }
    let tokenizer = engine.tokenizer();
    let ids = match &generate.template {
        None => engine.encode(&Prompt::Chat(messages))?,
        Some(source) => {
            let template = ChatTemplate::of(tokenizer, source).map_err(|error| {
                let message = format!("template: {error}");
                Refusal {
                    param: Some("template".to_string()),
                    ..Refusal::new(StatusCode::BAD_REQUEST, message)
                }
            })?;
            let guarded = Guarded::new(&Controls::of(tokenizer), &messages, &[]);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let now = now.map_or(0, |now| now.as_secs() as i64);
            let options = RenderOptions::at(GenerationPrompt::Add, now);
            let rendered = template.render(&guarded.messages, &options)?;
            guarded.encode(tokenizer, &rendered)
        }
    };
    let begins_twice = !generate.context.is_empty() && ids.first().copied() == tokenizer.bos();
    let ids = [&generate.context[..], &ids[usize::from(begins_twice)..]].concat();
    Ok(Request::new(Prompt::Ids(ids)))
}

/// What a model without a chat template is asked: the prompt alone, which it continues.
fn of_base(generate: Generate, messages: Vec<Message>) -> Result<Request, Refusal> {
    if messages.len() > 1 {
        let message = "the model has no chat template: it continues the prompt, and knows no other turns";
        return Err(Refusal::field("system", message));
    }
    if !generate.context.is_empty() {
        let message = "the model has no chat template: send the text so far as the prompt";
        return Err(Refusal::field("context", message));
    }
    let prompt = Prompt::Text { text: generate.prompt, parse_special: false };
    Ok(Request { pictures: generate.pictures, ..Request::new(prompt) })
}
