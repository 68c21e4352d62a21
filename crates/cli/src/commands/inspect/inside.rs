//! What `rhetor inspect` says of the inside of a model: heads, maps, circuits, the logit lens, patching.

use super::heat_map::{self, HeatMap};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::output;
use crate::range::range;
use crate::session::Session;
use crate::voice::{self, Opened};
use rhetor_models::Model;
use rhetor_models::analysis::{self, Circuits, Composition, HeadScores, Patching, RandomTokens};
use rhetor_tokenizer::{Special, Tokenizer};
use serde_json::json;
use std::path::{Path, PathBuf};

/// What is to be seen inside; at most one of the questions.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Looking inside (loads the model)")]
pub struct Inside {
    /// Score every head on repeated random tokens: previous-token, duplicate-token, induction, prefix matching, copying
    #[arg(long, group = "question")]
    heads: bool,

    /// Show where one head looks in the text of --prompt; both numbers count from 0
    #[arg(long, group = "question", value_name = "LAYER.HEAD", value_parser = layer_and_head, requires = "prompt")]
    head: Option<(usize, usize)>,

    /// The text for --head
    #[arg(long, value_name = "TEXT", requires = "head")]
    prompt: Option<String>,

    /// Show what the model would say next after each layer
    #[arg(long, group = "question", value_name = "TEXT")]
    logit_lens: Option<String>,

    /// Show which parts of the run on CLEAN bring its answer back when put into the run on CORRUPT
    #[arg(long, group = "question", num_args = 2, value_names = ["CLEAN", "CORRUPT"])]
    patch: Option<Vec<String>>,

    /// Show which heads read what heads of earlier layers write
    #[arg(long, group = "question")]
    composition: bool,

    /// Also draw it; of --heads, --head, --logit-lens and --patch
    #[arg(long, value_name = "FILE", requires = "question", conflicts_with = "composition")]
    svg: Option<PathBuf>,

    /// Lines of the tables of --heads and --composition
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = range(1usize, 1 << 20))]
    top: usize,

    /// Tokens of a random segment of --heads; less where the context holds no four of them
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = range(4usize, 4096), requires = "heads")]
    segment: usize,

    /// Of the random segments of --heads
    #[arg(long, value_name = "N", default_value_t = 0, requires = "heads")]
    seed: u64,
}

fn layer_and_head(text: &str) -> Result<(usize, usize), String> {
    let (layer, head) = text.split_once('.').ok_or("expected a layer and a head, as in 1.3")?;
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
    Ok((number(layer)?, number(head)?))
}

impl Inside {
    /// Whether anything was asked.
    pub fn is_asked(&self) -> bool {
        self.heads
            || self.composition
            || self.head.is_some()
            || self.logit_lens.is_some()
            || self.patch.is_some()
    }

    /// Loads the model and answers.
    pub fn answer(&self, session: &Session, reference: &str, as_json: bool) -> Result<Exit, Failure> {
        session.start_threads()?;
        let Opened { model, tokenizer, .. } = voice::open(session, reference, None, &[])?;
        let svg = self.svg.as_deref();
        let encode = |text: &str| tokenizer.encode_with_specials(text, Special::Literal);
        if self.heads {
            self.heads(&model, &tokenizer, as_json)
        } else if self.composition {
            compositions(&model, self.top, as_json)
        } else if let (Some((layer, head)), Some(text)) = (self.head, &self.prompt) {
            let tokens = encode(text);
            one_map(&model, &pieces(&tokenizer, &tokens), &tokens, layer, head, svg, as_json)
        } else if let Some(text) = &self.logit_lens {
            lens(&model, &tokenizer, &encode(text), svg, as_json)
        } else {
            let texts = self.patch.as_deref().unwrap_or_default();
            let [clean, corrupt] = [&texts[0], &texts[1]].map(|text| encode(text));
            patch(&model, &tokenizer, &clean, &corrupt, svg, as_json)
        }
    }

    /// Scores every head.
    fn heads(&self, model: &Model, tokenizer: &Tokenizer, as_json: bool) -> Result<Exit, Failure> {
        let vocab_size = model.config().vocab_size.min(tokenizer.n_tokens()) as u32;
        let choice: Vec<u32> = (0..vocab_size).filter(|&id| !tokenizer.is_special(id)).collect();
        let first = if tokenizer.adds_bos() { tokenizer.bos() } else { None };
        let fits = model.config().context_len.saturating_sub(1) / 4;
        let segment_len = self.segment.min(choice.len()).min(fits);
        if segment_len < 4 {
            return Err(Failure::refused(format!(
                "random segments of {segment_len} tokens say nothing: {} tokens to choose from, a context of {}",
                choice.len(),
                model.config().context_len
            )));
        }
        let options = RandomTokens { choice, segment_len, n_sequences: 8, first, seed: self.seed };
        let report = analysis::score_heads(model, &options)?;
        if let Some(file) = &self.svg {
            draw(file, &maps_of_scores(&report.heads))?;
        }
        if as_json {
            let heads = report.heads.iter().map(|head| {
                json!({
                    "layer": head.layer, "head": head.head, "kind": head.kind().map(|kind| kind.name()),
                    "previous_token": head.previous_token, "duplicate_token": head.duplicate_token,
                    "induction": head.induction, "prefix_matching": head.prefix_matching, "copying": head.copying,
                })
            });
            output::json(&json!({
                "segment": segment_len,
                "sequences": options.n_sequences,
                "heads": heads.collect::<Vec<_>>(),
                "loss_first_copy": report.loss_first,
                "loss_second_copy": report.loss_second,
                "in_context_score": report.in_context_score(),
            }))?;
            return Ok(Exit::Done);
        }
        let names = ["HEAD", "KIND", "PREVIOUS", "DUPLICATE", "INDUCTION", "PREFIX", "COPYING"];
        let mut rows = vec![names.map(String::from).to_vec()];
        let mut heads = report.heads.clone();
        let best = |h: &HeadScores| h.previous_token.max(h.duplicate_token).max(h.induction);
        heads.sort_by(|a, b| best(b).total_cmp(&best(a)));
        for head in heads.iter().take(self.top) {
            let numbers = SCORES.map(|(_, of)| format!("{:.3}", of(head)));
            let name = format!("{}.{}", head.layer, head.head);
            let kind = head.kind().map_or("", |kind| kind.name()).to_string();
            rows.push([name, kind].into_iter().chain(numbers).collect());
        }
        output::table(&rows)?;
        output::line(&format!(
            "\nloss of random tokens {:.3} nats, of the same ones again {:.3}: {:+.3} from the context",
            report.loss_first,
            report.loss_second,
            report.in_context_score()
        ))?;
        Ok(Exit::Done)
    }
}

/// The scores of a head and what they are called.
type Score = (&'static str, fn(&HeadScores) -> f32);

const SCORES: [Score; 5] = [
    ("previous-token", |head| head.previous_token),
    ("duplicate-token", |head| head.duplicate_token),
    ("induction", |head| head.induction),
    ("prefix matching", |head| head.prefix_matching),
    ("copying", |head| head.copying),
];

/// Layers by heads, one map for each score.
fn maps_of_scores(heads: &[HeadScores]) -> Vec<HeatMap> {
    let n_layers = heads.iter().map(|head| head.layer + 1).max().unwrap_or(0);
    let n_heads = heads.iter().map(|head| head.head + 1).max().unwrap_or(0);
    let map = |(title, of): Score| {
        let mut values = vec![0.0; n_layers * n_heads];
        heads.iter().for_each(|head| values[head.layer * n_heads + head.head] = of(head));
        HeatMap {
            title: title.to_string(),
            rows: (0..n_layers).map(|layer| format!("layer {layer}")).collect(),
            columns: (0..n_heads).map(|head| head.to_string()).collect(),
            values,
            texts: Vec::new(),
        }
    };
    SCORES.map(map).into()
}

/// Where one head looks.
fn one_map(
    model: &Model,
    pieces: &[String],
    tokens: &[u32],
    layer: usize,
    head: usize,
    svg: Option<&Path>,
    as_json: bool,
) -> Result<Exit, Failure> {
    let layers = analysis::attention_maps(model, &[tokens.to_vec()])?;
    let found = layers.iter().find(|maps| maps.layer() == layer && head < maps.n_heads());
    let Some(maps) = found else {
        let (n_layers, n_heads) = (layers.len(), model.config().n_heads);
        let message = format!("there is no head {layer}.{head} in {n_layers} layers of {n_heads} heads");
        return Err(Failure::input(message).hint("both numbers count from 0"));
    };
    let (n, values) = (tokens.len(), maps.map(0, head));
    if let Some(file) = svg {
        let title = format!("head {layer}.{head}: each row looks at");
        let (rows, columns) = (visible(pieces), visible(pieces));
        draw(file, &[HeatMap { title, rows, columns, values: values.clone(), texts: Vec::new() }])?;
    }
    let rows: Vec<&[f32]> = values.chunks_exact(n).collect();
    if as_json {
        output::json(&json!({ "layer": layer, "head": head, "tokens": pieces, "map": rows }))?;
        return Ok(Exit::Done);
    }
    let mut lines = vec![["TOKEN", "LOOKS AT"].map(String::from).to_vec()];
    for (i, row) in rows.iter().enumerate() {
        let mut order: Vec<usize> = (0..=i).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let seen = order.iter().take(4).map(|&j| format!("{j} {} {:.2}", pieces[j], row[j]));
        lines.push(vec![format!("{i} {}", pieces[i]), seen.collect::<Vec<_>>().join("   ")]);
    }
    output::table(&lines)?;
    Ok(Exit::Done)
}

/// What the model would say after each layer.
fn lens(
    model: &Model,
    tokenizer: &Tokenizer,
    tokens: &[u32],
    svg: Option<&Path>,
    as_json: bool,
) -> Result<Exit, Failure> {
    let guesses = analysis::logit_lens(model, tokens, 3)?;
    let positions = pieces(tokenizer, tokens);
    let piece = |id: u32| pieces(tokenizer, &[id]).remove(0);
    let depth = |i: usize| if i == 0 { "embeddings".to_string() } else { format!("after layer {}", i - 1) };
    if let Some(file) = svg {
        let all = || guesses.iter().flatten().map(|guesses| guesses[0]);
        let map = HeatMap {
            title: "logit lens: the most likely next token at each depth".to_string(),
            rows: (0..guesses.len()).map(depth).collect(),
            columns: visible(&positions),
            values: all().map(|guess| guess.probability).collect(),
            texts: visible(&all().map(|guess| piece(guess.id)).collect::<Vec<_>>()),
        };
        draw(file, &[map])?;
    }
    if as_json {
        let of = |guess: &analysis::Guess| json!({ "id": guess.id, "piece": piece(guess.id), "p": guess.probability });
        let at = |guesses: &Vec<analysis::Guess>| guesses.iter().map(of).collect::<Vec<_>>();
        let depths = guesses.iter().map(|depth| depth.iter().map(at).collect::<Vec<_>>());
        output::json(&json!({ "tokens": positions, "depths": depths.collect::<Vec<_>>() }))?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![["DEPTH", "NEXT TOKEN AFTER THE TEXT"].map(String::from).to_vec()];
    for (i, depths) in guesses.iter().enumerate() {
        let last = depths.last().expect("there are tokens");
        let words = last.iter().map(|guess| format!("{} {:.2}", piece(guess.id), guess.probability));
        rows.push(vec![depth(i), words.collect::<Vec<_>>().join("   ")]);
    }
    output::table(&rows)?;
    Ok(Exit::Done)
}

/// What brings the clean answer back.
fn patch(
    model: &Model,
    tokenizer: &Tokenizer,
    clean: &[u32],
    corrupt: &[u32],
    svg: Option<&Path>,
    as_json: bool,
) -> Result<Exit, Failure> {
    let residual = analysis::patch_residual(model, clean, corrupt)?;
    let heads = analysis::patch_heads(model, clean, corrupt)?;
    let columns = pieces(tokenizer, corrupt);
    if let Some(file) = svg {
        let map = |title: &str, row: &str, columns: Vec<String>, patching: &Patching| HeatMap {
            title: title.to_string(),
            rows: (0..patching.patched.len() / columns.len()).map(|i| format!("{row} {i}")).collect(),
            columns,
            values: patching.patched.iter().map(|patch| patch.recovered).collect(),
            texts: Vec::new(),
        };
        let names = (0..model.config().n_heads).map(|head| head.to_string()).collect();
        let maps = [
            map("recovered by the residual stream", "depth", visible(&columns), &residual),
            map("recovered by a head", "layer", names, &heads),
        ];
        draw(file, &maps)?;
    }
    let piece = |id: u32| pieces(tokenizer, &[id]).remove(0);
    if as_json {
        let list = |patching: &Patching, layer: &str, place: &str| {
            let of = patching.patched.iter();
            of.map(|p| json!({ layer: p.layer, place: p.place, "recovered": p.recovered }))
                .collect::<Vec<_>>()
        };
        output::json(&json!({
            "answer": piece(residual.answer),
            "wrong": piece(residual.wrong),
            "clean": residual.clean,
            "corrupt": residual.corrupt,
            "residual": list(&residual, "depth", "position"),
            "heads": list(&heads, "layer", "head"),
        }))?;
        return Ok(Exit::Done);
    }
    output::line(&format!(
        "logit of {} less that of {}: {:.3} clean, {:.3} corrupted\n",
        piece(residual.answer),
        piece(residual.wrong),
        residual.clean,
        residual.corrupt
    ))?;
    let mut rows = vec![["DEPTH", "RECOVERED AT EACH TOKEN"].map(String::from).to_vec()];
    for depth in residual.patched.chunks(columns.len()) {
        let cells = depth.iter().map(|patch| format!("{} {:.2}", columns[patch.place], patch.recovered));
        rows.push(vec![depth[0].layer.to_string(), cells.collect::<Vec<_>>().join("   ")]);
    }
    output::table(&rows)?;
    let mut best = heads.patched.clone();
    best.sort_by(|a, b| b.recovered.abs().total_cmp(&a.recovered.abs()));
    let mut rows = vec![["\nHEAD", "RECOVERED"].map(String::from).to_vec()];
    for patch in best.iter().take(8) {
        rows.push(vec![format!("{}.{}", patch.layer, patch.place), format!("{:.3}", patch.recovered)]);
    }
    output::table(&rows)?;
    Ok(Exit::Done)
}

/// The pairs of heads that compose most.
fn compositions(model: &Model, top: usize, as_json: bool) -> Result<Exit, Failure> {
    let pairs = Circuits::of(model)?.compositions();
    let by = |by: Composition| match by {
        Composition::Query => "query",
        Composition::Key => "key",
        Composition::Value => "value",
    };
    let name = |(layer, head): (usize, usize)| format!("{layer}.{head}");
    if as_json {
        let pair =
            |p: &analysis::Composed| json!({ "from": p.from, "to": p.to, "by": by(p.by), "score": p.score });
        output::json(&pairs.iter().map(pair).collect())?;
        return Ok(Exit::Done);
    }
    let mut rows = vec![["FROM", "TO", "BY", "SCORE"].map(String::from).to_vec()];
    for pair in pairs.iter().take(top) {
        rows.push(vec![name(pair.from), name(pair.to), by(pair.by).into(), format!("{:+.4}", pair.score)]);
    }
    output::table(&rows)?;
    Ok(Exit::Done)
}

/// Each token as text.
fn pieces(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<String> {
    let text = |&id: &u32| match tokenizer.is_special(id) {
        true => tokenizer.piece(id).unwrap_or_default().to_string(),
        false => String::from_utf8_lossy(tokenizer.token_bytes(id)).escape_debug().to_string(),
    };
    tokens.iter().map(text).collect()
}

/// Tokens as names of rows and columns, where blanks must be seen.
fn visible(pieces: &[String]) -> Vec<String> {
    pieces.iter().map(|piece| piece.replace(' ', "␣")).collect()
}

fn draw(file: &Path, maps: &[HeatMap]) -> Result<(), Failure> {
    Ok(rhetor_formats::write_bytes(file, heat_map::svg(maps).as_bytes())?)
}
