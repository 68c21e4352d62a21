//! From the names in a recipe to files: the model, its vocabulary and template, the data.

use crate::errors::Failure;
use crate::models;
use crate::session::Session;
use crate::voice;
use rhetor_formats::{Checkpoint, Kind};
use rhetor_generate::{ChatTemplate, TEMPLATES};
use rhetor_kernels::DType;
use rhetor_models::adapters::peft;
use rhetor_models::{Model, convert, init, presets};
use rhetor_tokenizer::{Tokenizer, train as vocabulary};
use rhetor_train::data::split::Validation;
use rhetor_train::data::{self, Found};
use rhetor_train::{Recipe, Resolved};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A part of the data: files, how they are read, and how often they are drawn from.
pub type Part = (Vec<data::Source>, data::ReadOptions, f64);

/// Whether what a run had to make first, in the folder `base` of its own, is taken again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is made anew: another run may have left it.
    Anew,
    /// It is taken as it is, if it is there: the run goes on.
    Before,
}

/// Turns every name of `recipe` into a file; what must be made first (a vocabulary, random weights) is made in `out`.
pub fn resolve(session: &Session, recipe: Recipe, out: &Path, made: Made) -> Result<Resolved, Failure> {
    let parts = recipe
        .data
        .iter()
        .map(|part| find_data(session, part.name()).map(|(sources, read)| (sources, read, part.weight())))
        .collect::<Result<Vec<Part>, Failure>>()?;
    let validation: Validation = recipe.validation.parse().map_err(Failure::from)?;
    let (base, base_name) = match (&recipe.model, &recipe.config) {
        (Some(name), None) => existing(session, name, &recipe, out, made)?,
        (None, Some(_)) => (fresh(session, &recipe, &parts, out, made)?, out.display().to_string()),
        (Some(_), Some(_)) => {
            return Err(Failure::input("a recipe has `model` or `config`, not both"));
        }
        (None, None) => {
            let hint = "`model` goes on from a model; `config` begins one with random weights";
            return Err(Failure::input("the recipe names no model to train").hint(hint));
        }
    };
    let checkpoint = Checkpoint::open(&base)?;
    let tokenizer = voice::tokenizer_of(&checkpoint)?;
    let new_template = recipe.template.as_deref().map(named_template).transpose()?;
    let template = new_template.or(tokenizer.chat_template());
    let template = template.map(|source| ChatTemplate::of(&tokenizer, source)).transpose()?;
    let teacher = recipe.teacher.as_ref().map(|name| models::find(session, name)).transpose()?;
    Ok(Resolved {
        base,
        base_name,
        teacher: teacher.map(|found| found.path),
        tokenizer: Arc::new(tokenizer),
        template: template.map(Arc::new),
        new_template: new_template.map(str::to_string),
        data: parts,
        validation,
        out: out.to_path_buf(),
        now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64),
        recipe,
    })
}

/// The source of the chat template called `name`.
fn named_template(name: &str) -> Result<&'static str, Failure> {
    let found = TEMPLATES.iter().find(|template| template.about.name == name);
    found.map(|template| template.source).ok_or_else(|| {
        let known: Vec<&str> = TEMPLATES.iter().map(|template| template.about.name).collect();
        Failure::input(format!("there is no chat template `{name}`"))
            .hint(format!("there are {}", known.join(", ")))
    })
}

/// A model to go on from, and what an adapter's file calls it. Where the weights themselves train, a GGUF file is first
/// written as a directory of f32.
fn existing(
    session: &Session,
    name: &str,
    recipe: &Recipe,
    out: &Path,
    made: Made,
) -> Result<(PathBuf, String), Failure> {
    let found = models::find(session, name)?;
    if peft::is_adapter(&found.path) {
        let hint = "merge it first: `rhetor adapter merge`";
        return Err(Failure::input(format!("{name} is an adapter, not a model")).hint(hint));
    }
    let checkpoint = Checkpoint::open(&found.path)?;
    let trains_weights = matches!(recipe.adapter.as_str(), "full" | "bitfit");
    let is_directory = checkpoint.kind() == Kind::HuggingFace;
    if !trains_weights || is_directory {
        let path = std::fs::canonicalize(&found.path).map_err(Failure::file(&found.path))?;
        let is_named = found.manifest.is_some();
        return Ok((path.clone(), if is_named { name.to_string() } else { path.display().to_string() }));
    }
    let base = out.join("base");
    if made == Made::Anew || !base.join("model.safetensors").is_file() {
        eprintln!("writing the weights of {name} as f32 to {}", base.display());
        convert::to_hugging_face(&checkpoint, &base, DType::F32, &mut |_| {})?;
        crate::commands::write_vocabulary(&checkpoint, &base)?;
    }
    Ok((base, name.to_string()))
}

/// A new model in `out/base`: vocabulary, configuration, random weights.
fn fresh(
    session: &Session,
    recipe: &Recipe,
    parts: &[Part],
    out: &Path,
    made: Made,
) -> Result<PathBuf, Failure> {
    let base = out.join("base");
    std::fs::create_dir_all(&base).map_err(Failure::file(&base))?;
    let file = base.join("tokenizer.json");
    let tokenizer = match recipe.tokenizer.as_deref() {
        None => {
            let hint = "a directory or tokenizer.json, or `train characters`, `train bpe 8000`";
            return Err(Failure::input("a new model needs `tokenizer`").hint(hint));
        }
        Some(_) if made == Made::Before && file.is_file() => Tokenizer::from_file(&file)?,
        Some(words) => {
            let tokenizer = match words.strip_prefix("train ") {
                Some(kind) => learn_vocabulary(kind, markers(&recipe.objective), parts)?,
                None => vocabulary_of(session, words)?,
            };
            tokenizer.save_json(&file)?;
            tokenizer
        }
    };
    let mut config = recipe.config.clone().unwrap_or_default();
    config.entry("vocab_size").or_insert_with(|| tokenizer.n_tokens().into());
    let ids = [("bos_token_id", tokenizer.bos()), ("eos_token_id", tokenizer.eos())];
    for (key, id) in ids {
        config.entry(key).or_insert_with(|| id.map_or(serde_json::Value::Null, Into::into));
    }
    let config = presets::fill(config).map_err(Failure::input)?;
    write_json(&base.join("config.json"), &config)?;
    let piece = |id: Option<u32>| id.and_then(|id| tokenizer.piece(id)).map(str::to_string);
    let mut settings = serde_json::json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": piece(tokenizer.bos()),
        "eos_token": piece(tokenizer.eos()),
        "unk_token": piece(tokenizer.unknown()),
    });
    if let Some(name) = &recipe.template {
        settings["chat_template"] = named_template(name)?.into();
    }
    write_json(&base.join("tokenizer_config.json"), &settings)?;
    if made == Made::Anew || !base.join("model.safetensors").is_file() {
        init::write(&base, recipe.seed)?;
    }
    // Names that the family does not read are refused now, not after training.
    Model::config_of(&Checkpoint::open(&base)?)?;
    Ok(base)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).expect("settings are always JSON") + "\n";
    Ok(rhetor_formats::write_bytes(path, text.as_bytes())?)
}

/// The vocabulary of a file, a folder or a model.
fn vocabulary_of(session: &Session, name: &str) -> Result<Tokenizer, Failure> {
    let path = Path::new(name);
    let beside = path.join("tokenizer.json");
    if let Some(file) = [path, &beside].into_iter().find(|file| file.is_file()) {
        return Ok(Tokenizer::from_file(file)?);
    }
    Ok(voice::tokenizer_of(&Checkpoint::open(&models::find(session, name)?.path)?)?)
}

/// What ends a text, in vocabularies that are learnt here.
const END: &str = "<|endoftext|>";

/// Control tokens that an objective writes between and after those of the text.
fn markers(objective: &str) -> Vec<String> {
    let end = std::iter::once(END.to_string());
    match objective {
        "span-corruption" => end.chain((0..100).map(|i| format!("<extra_id_{i}>"))).collect(),
        "seq2seq" => end.collect(),
        "fill-in-the-middle" => ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"].map(str::to_string).to_vec(),
        _ => Vec::new(),
    }
}

/// `characters`, or `bpe 8000`, learnt from the data, with further control tokens.
pub fn learn_vocabulary(kind: &str, markers: Vec<String>, parts: &[Part]) -> Result<Tokenizer, Failure> {
    let words: Vec<&str> = kind.split_whitespace().collect();
    let size =
        |text: &str| text.parse().map_err(|_| Failure::input(format!("`{text}` is no size of a vocabulary")));
    let mut texts = Vec::new();
    for (sources, read, _) in parts {
        let (rows, _) = data::read_all(sources, read)?;
        texts.extend(rows.into_iter().filter_map(|row| row.into_text()));
    }
    let n_characters = texts.iter().flat_map(|text| text.chars()).collect::<BTreeSet<char>>().len();
    let (kind, vocab_size, mut specials) = match words.as_slice() {
        ["characters"] => (vocabulary::Kind::Characters, n_characters + 1 + markers.len(), Vec::new()),
        ["bpe", n] => (vocabulary::Kind::Bpe, size(n)?, vec![END.to_string()]),
        ["unigram", n] => (vocabulary::Kind::Unigram, size(n)?, vec!["<s>".into(), "</s>".into()]),
        ["wordpiece", n] => {
            let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_string);
            (vocabulary::Kind::WordPiece, size(n)?, specials.to_vec())
        }
        _ => {
            let hint = "there are `train characters`, `train bpe N`, `train unigram N`, `train wordpiece N`";
            return Err(Failure::input(format!("`train {kind}` is no kind of vocabulary")).hint(hint));
        }
    };
    specials.extend(markers.into_iter().filter(|marker| marker != END || words[0] == "characters"));
    let options = vocabulary::TrainOptions { kind, vocab_size, specials, min_frequency: 1 };
    let lines = texts.iter().flat_map(|text| text.split_inclusive('\n'));
    Ok(vocabulary::train(&options, lines)?)
}

/// The files of a data set: a path, or a name of the catalogue, which is fetched if no data folder has it.
pub fn find_data(session: &Session, name: &str) -> Result<(Vec<data::Source>, data::ReadOptions), Failure> {
    let path = data::Source::parse(name);
    if path.path.exists() {
        return Ok((vec![path], data::ReadOptions::default()));
    }
    let own = session.store.home().join("data");
    let mut folders: Vec<PathBuf> = std::env::var_os("RHETOR_DATA").map(PathBuf::from).into_iter().collect();
    folders.extend([PathBuf::from("../shared/data"), own.clone()]);
    let set = data::DataSet::named(name)
        .map_err(|error| Failure::input(error).hint(format!("and there is no file or folder {name}")))?;
    let folder = match data::find(name, &folders)? {
        Found::Path(folder) => folder,
        Found::Missing(set) => {
            let verb = if set.files.iter().all(|file| file.made.is_some()) { "making" } else { "fetching" };
            eprintln!("{verb} {} ({})", set.name, set.licence);
            let folder = own.join(set.folder);
            for file in set.files {
                if let Some(made) = file.made {
                    std::fs::create_dir_all(&folder).map_err(Failure::file(&folder))?;
                    rhetor_formats::write_bytes(&folder.join(file.path), &made.bytes())?;
                    continue;
                }
                let Some(url) = file.url else {
                    let hint = format!("put {} into a folder that RHETOR_DATA names", file.path);
                    let message = format!("{}: {} has no address to fetch it from", set.name, file.path);
                    return Err(Failure::refused(message).hint(hint));
                };
                let mut quiet = |_: rhetor_store::Progress<'_>| ControlFlow::Continue(());
                let target = folder.join(file.path);
                session.store.fetch(url, file.sha256, &target, &session.pull_options, &mut quiet)?;
            }
            folder
        }
    };
    Ok((set.sources(&folder), set.options()))
}
