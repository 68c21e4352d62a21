//! From one kind of checkpoint to another, and from one stored type to another.
//!
//! Between files of one kind the tensors keep their names and only their types change, whatever the architecture.
//! Between GGUF and a Hugging Face directory the family's table gives the names, and what the two kinds store
//! differently is turned: `Conv1D` weights are transposed, and rows get GGUF's order where Hugging Face has another
//! (`row_order`).
//!
//! The vocabulary is not this crate's affair: its keys come and go as [`ConvertOptions::vocabulary`] and files beside the weights.

use rhetor_formats::{
    Checkpoint, ElementType, Kind, Metadata, TensorEntry, TensorToWrite, TypedValue, Value, gguf, safetensors,
};
use rhetor_kernels::rope::{RopeOptions, RopeOrder, RopeScaling};
use rhetor_kernels::{DType, quant};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::{Key, Keys, ModelConfig};
use crate::families::Family;
use crate::head::Task;
use crate::load::{LoadError, transpose};
use crate::model::Model;
use crate::names::TensorName;
use crate::places::Piece;
use crate::quant_mix::{Mix, ModelFacts};
use crate::row_order;

/// How important each input column of a weight is: the mean square of its activations.
pub type Importance = HashMap<String, Vec<f32>>;

/// What the user chooses.
pub struct ConvertOptions<'a> {
    /// The stored types.
    pub mix: Mix,
    /// Importance by GGUF name (`blk.0.attn_q.weight`), if there is an importance matrix.
    pub importance: Option<&'a Importance>,
    /// Keys of the vocabulary that a GGUF file gets when the source is none.
    pub vocabulary: Vec<(String, TypedValue)>,
}

/// One tensor done, of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Converted<'a> {
    /// Tensors done.
    pub done: usize,
    /// Tensors in all.
    pub total: usize,
    /// The name it has in the new file.
    pub name: &'a str,
    /// The type it was stored in, and the type it is stored in now.
    pub types: (DType, DType),
}

/// Why a conversion fails.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The source cannot be read as a model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Reading or writing failed.
    #[error(transparent)]
    Format(#[from] rhetor_formats::Error),
    /// The new kind of file has no place for something that the source has.
    #[error("{}: {what} cannot be said in {kind}", file.display())]
    NoPlace {
        /// The source.
        file: PathBuf,
        /// What has no place.
        what: String,
        /// The new kind of file.
        kind: &'static str,
    },
    /// The importance matrix does not fit.
    #[error("the importance of `{name}` has {got} columns; the weight has {expected}")]
    Importance {
        /// The tensor.
        name: String,
        /// Columns of the matrix.
        got: usize,
        /// Columns of the weight.
        expected: usize,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// One tensor of the new file: where it comes from and what is done to it.
struct Planned<'a> {
    origin: Origin<'a>,
    from: DType,
    to: TensorToWrite,
    to_dtype: DType,
    turn: Turn,
}

/// Where a tensor of the new file comes from.
enum Origin<'a> {
    /// Tensors of the source, or parts of them, one after another.
    Stored(Vec<Piece<'a>>),
    /// Values that the source says by keys and the new file by a tensor.
    Computed(Vec<f32>),
}

/// What is done to a tensor's elements besides changing their type.
#[derive(Debug, Clone, PartialEq)]
enum Turn {
    Nothing,
    /// `[r, c] → [c, r]`
    Transpose,
    /// The source's row of each new row.
    Rows(Vec<usize>),
    /// This is added to each element.
    Add(f32),
}

/// Writes `source` to the GGUF file `path`; an existing file is replaced when the new one is complete.
pub fn to_gguf(
    source: &Checkpoint,
    path: &Path,
    options: &ConvertOptions,
    on_tensor: &mut dyn FnMut(Converted),
) -> Result<(), ConvertError> {
    let config = Model::config_of(source)?;
    let family = Family::of(source)?;
    // An encoder's file holds hidden states alone: GGUF has no masked language model.
    if family.gguf.is_empty() || config.head.task != family.gguf_task {
        let what = match (family.gguf, config.head.task) {
            ("", _) => format!("a model of the family {}", family.about.name),
            (_, Task::Vocabulary) => "the masked language model of an encoder".to_string(),
            _ => "a head for a task".to_string(),
        };
        let file = source.path().to_path_buf();
        return Err(ConvertError::NoPlace { file, what, kind: "GGUF" });
    }
    let (mut metadata, mut planned) = match source.kind() {
        Kind::Gguf | Kind::Llama2C => (source.metadata().clone(), same_names(source)?),
        _ => (gguf_metadata(source)?, other_names(source, true)?),
    };
    for (key, value) in &options.vocabulary {
        metadata.set(key.clone(), value.clone());
    }
    metadata.set("general.quantization_version", 2u32);
    metadata.set("general.file_type", options.mix.file_type());
    let facts = ModelFacts {
        architecture: family.gguf,
        n_layers: config.n_layers,
        n_heads: config.n_heads,
        n_kv_heads: config.n_kv_heads,
        n_experts: config.own_opt("experts").unwrap_or(0.0) as usize,
        has_output: planned.iter().any(|plan| plan.to.name == "output.weight"),
        has_importance: options.importance.is_some(),
    };
    for plan in &mut planned {
        plan.to_dtype = options.mix.dtype_for(&plan.to.name, &plan.to.shape, &facts);
        plan.to.dtype = ElementType::Known(plan.to_dtype);
    }
    let to_write: Vec<TensorToWrite> = planned.iter().map(|plan| plan.to.clone()).collect();
    check_importance(&planned, options.importance)?;
    gguf::write(path, &metadata, &to_write, |i, out| {
        let importance = options.importance.and_then(|importance| importance.get(&planned[i].to.name));
        write_tensor(source, &planned[i], importance.map(Vec::as_slice), out)?;
        on_tensor(report(&planned, i));
        Ok(())
    })?;
    Ok(())
}

/// Writes `source` to the directory `dir` as `config.json` and `model.safetensors`, weights stored as `dtype` (a dense
/// type). The files of the vocabulary are the caller's affair.
pub fn to_hugging_face(
    source: &Checkpoint,
    dir: &Path,
    dtype: DType,
    on_tensor: &mut dyn FnMut(Converted),
) -> Result<(), ConvertError> {
    if dtype.is_quantized() {
        let what = format!("a weight of type {dtype}");
        return Err(ConvertError::NoPlace { file: source.path().to_path_buf(), what, kind: "safetensors" });
    }
    if source.kind() == Kind::Onnx {
        let what = "a graph, which has no config.json,".to_string();
        return Err(ConvertError::NoPlace { file: source.path().to_path_buf(), what, kind: "safetensors" });
    }
    let from_gguf = matches!(source.kind(), Kind::Gguf | Kind::Llama2C);
    let mut planned = if from_gguf { other_names(source, false)? } else { same_names(source)? };
    for plan in &mut planned {
        plan.to_dtype = dtype;
        plan.to.dtype = ElementType::Known(dtype);
    }
    let config = if from_gguf { hugging_face_config(source, dtype)? } else { own_config(source, dtype)? };
    std::fs::create_dir_all(dir).map_err(|source| ConvertError::Io { path: dir.to_path_buf(), source })?;
    let to_write: Vec<TensorToWrite> = planned.iter().map(|plan| plan.to.clone()).collect();
    let notes = [("format", "pt")];
    safetensors::write(&dir.join("model.safetensors"), &notes, &to_write, |i, out| {
        write_tensor(source, &planned[i], None, out)?;
        on_tensor(report(&planned, i));
        Ok(())
    })?;
    let text = serde_json::to_string_pretty(&config).expect("a JSON value can be written") + "\n";
    rhetor_formats::write_bytes(&dir.join("config.json"), text.as_bytes())?;
    Ok(())
}

fn report<'a>(planned: &'a [Planned], i: usize) -> Converted<'a> {
    let plan = &planned[i];
    Converted { done: i + 1, total: planned.len(), name: &plan.to.name, types: (plan.from, plan.to_dtype) }
}

/// Every tensor under its own name.
fn same_names(source: &Checkpoint) -> Result<Vec<Planned<'_>>, ConvertError> {
    let same = |entry| plan(source, vec![Piece::whole(entry)], entry.name.clone(), Turn::Nothing);
    source.tensors().iter().map(same).collect()
}

/// Every tensor under its name in the other kind of file, to GGUF or from it.
fn other_names(source: &Checkpoint, to_gguf: bool) -> Result<Vec<Planned<'_>>, ConvertError> {
    let family = Family::of(source)?;
    let config = Model::config_of(source)?;
    let has_prefix = source.tensors().iter().any(|tensor| tensor.name.starts_with(family.prefix));
    let prefix_in = if has_prefix { family.prefix } else { "" };
    let mut planned = Vec::new();
    // What stands beside the model is of a head; a pooler is nobody's without one.
    let task = config.head.task;
    let is_of_head = |row: &&TensorName| task == Task::Vocabulary || row.belongs_to(task);
    for row in family.tensors.iter().filter(|row| row.is_on(&config)).filter(is_of_head) {
        let stack = row.gguf_stack().filter(|_| to_gguf);
        let mut stacked: Vec<Piece> = Vec::new();
        for place in row.places(&config) {
            for suffix in [".weight", ".bias"] {
                let prefix = to_gguf.then_some(prefix_in);
                let Some(piece) = row.find(family, source, prefix, place, suffix, &config) else {
                    continue;
                };
                if row.ours == "rope_freqs" {
                    let (what, kind) = ("a table of rotary factors".to_string(), "config.json");
                    return Err(ConvertError::NoPlace { file: source.path().to_path_buf(), what, kind });
                }
                let Some(stack) = stack else {
                    let to = match to_gguf {
                        true => row.gguf_name(place, suffix),
                        false => row.hugging_face_name(family.prefix, place, suffix),
                    };
                    planned.push(plan(
                        source,
                        vec![piece],
                        to,
                        turn(row, &config, place.layer, suffix, to_gguf),
                    )?);
                    continue;
                };
                stacked.push(piece);
                if stacked.len() == config.own_size("experts") {
                    let (all, to) = (std::mem::take(&mut stacked), stack.name_in("", place.layer));
                    planned.push(plan(source, all, to, Turn::Nothing)?);
                }
            }
        }
    }
    if let Some(factors) = config.rope_factors().filter(|_| to_gguf) {
        let to = TensorToWrite {
            name: "rope_freqs.weight".to_string(),
            dtype: ElementType::Known(DType::F32),
            shape: vec![factors.len()],
        };
        let origin = Origin::Computed(factors);
        planned.push(Planned { origin, from: DType::F32, to, to_dtype: DType::F32, turn: Turn::Nothing });
    }
    Ok(planned)
}

fn turn(row: &TensorName, config: &ModelConfig, i: usize, suffix: &str, to_gguf: bool) -> Turn {
    match row.gguf_order(config, i) {
        Some(order) if to_gguf => Turn::Rows(order),
        Some(order) => Turn::Rows(row_order::inverse(&order)),
        None if row.is_transposed() && suffix == ".weight" => Turn::Transpose,
        None if row.offset(suffix) != 0.0 => Turn::Add(if to_gguf { 1.0 } else { -1.0 } * row.offset(suffix)),
        None => Turn::Nothing,
    }
}

fn plan<'a>(
    source: &Checkpoint,
    pieces: Vec<Piece<'a>>,
    name: String,
    turn: Turn,
) -> Result<Planned<'a>, ConvertError> {
    let known = |entry: &TensorEntry| {
        entry.dtype.known().ok_or_else(|| LoadError::ElementType {
            file: source.path().to_path_buf(),
            name: entry.name.clone(),
            got: entry.dtype.to_string(),
            expected: "f32, f16, bf16 or a quantized type",
        })
    };
    let first = pieces[0];
    let from = known(first.entry)?;
    for piece in &pieces {
        known(piece.entry)?;
    }
    let mut shape = first.shape();
    if pieces.len() > 1 {
        shape.insert(0, pieces.len());
    }
    if turn == Turn::Transpose {
        shape.reverse();
    }
    Ok(Planned {
        origin: Origin::Stored(pieces),
        from,
        to: TensorToWrite { name, dtype: first.entry.dtype, shape },
        to_dtype: from,
        turn,
    })
}

fn check_importance(planned: &[Planned], importance: Option<&Importance>) -> Result<(), ConvertError> {
    for plan in planned {
        let Some(columns) = importance.and_then(|importance| importance.get(&plan.to.name)) else { continue };
        let expected = plan.to.shape.last().copied().unwrap_or(1);
        if columns.len() != expected {
            return Err(ConvertError::Importance {
                name: plan.to.name.clone(),
                got: columns.len(),
                expected,
            });
        }
    }
    Ok(())
}

/// Turns, converts and writes one tensor.
fn write_tensor(
    source: &Checkpoint,
    plan: &Planned,
    importance: Option<&[f32]>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let pieces = match &plan.origin {
        Origin::Stored(pieces) => pieces,
        Origin::Computed(values) => {
            return values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()));
        }
    };
    pieces.iter().try_for_each(|piece| write_piece(source, piece, plan, importance, out))
}

/// One of the tensors, or parts of one, that a new tensor is made of.
fn write_piece(
    source: &Checkpoint,
    piece: &Piece,
    plan: &Planned,
    importance: Option<&[f32]>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let (entry, bytes) = (piece.entry, piece.bytes(source));
    let from = entry.dtype.known().unwrap_or(plan.from);
    let shape = &entry.shape;
    let turned;
    let bytes = match &plan.turn {
        Turn::Nothing | Turn::Add(_) => bytes,
        Turn::Transpose => {
            turned = transpose(bytes, from.block_bytes(), shape[0], shape[1]);
            &turned[..]
        }
        Turn::Rows(order) => {
            turned = row_order::in_order(bytes, order);
            &turned[..]
        }
    };
    let offset = match plan.turn {
        Turn::Add(offset) => offset,
        _ => 0.0,
    };
    if from == plan.to_dtype && offset == 0.0 {
        out.write_all(bytes)?;
    } else {
        let n_columns = plan.to.shape.last().copied().unwrap_or(1);
        let n_rows = piece.shape().iter().product::<usize>() / n_columns.max(1);
        // A slab of rows at a time keeps the memory small: about 16 MB of f32.
        let slab_rows = ((1 << 22) / n_columns.max(1)).max(1);
        let row_bytes = from.bytes_of(n_columns).unwrap_or(0);
        let mut values = Vec::new();
        let mut encoded = Vec::new();
        for start in (0..n_rows).step_by(slab_rows) {
            let n_slab = slab_rows.min(n_rows - start);
            values.resize(n_slab * n_columns, 0.0);
            quant::dequantize(from, &bytes[start * row_bytes..(start + n_slab) * row_bytes], &mut values);
            values.iter_mut().for_each(|value| *value += offset);
            encoded.resize(plan.to_dtype.bytes_of(values.len()).unwrap_or(0), 0);
            quant::quantize(plan.to_dtype, &values, importance, &mut encoded);
            out.write_all(&encoded)?;
        }
    }
    source.release(entry);
    Ok(())
}

/// The keys of a GGUF file, from a Hugging Face directory's config.
fn gguf_metadata(source: &Checkpoint) -> Result<Metadata, ConvertError> {
    let family = Family::of(source)?;
    let config = Model::config_of(source)?;
    let mut metadata = Metadata::new(source.path());
    metadata.set("general.architecture", family.gguf);
    if let Some(name) = source.path().file_name().and_then(|name| name.to_str()) {
        metadata.set("general.name", name);
    }
    for key in keys(source, family, &config)? {
        if !key.gguf.is_empty() {
            metadata.set(key.gguf_name(family.gguf), key.value);
        }
    }
    let mut read_back = (family.config)(&Keys::of_gguf(source, &metadata, family.gguf))?;
    read_back.head = config.head;
    match difference(&config, &read_back) {
        Some(what) => Err(ConvertError::NoPlace { file: source.path().to_path_buf(), what, kind: "GGUF" }),
        None => Ok(metadata),
    }
}

/// The first constant of `config` that is another in `read_back`: GGUF leaves some to the architecture.
///
/// What the tensors of the file say is left out: a separate output layer, biases, which norms there are (what a family
/// calls `..._bias` and `..._norms`), and LLaMA 3's table of rotary factors.
fn difference(config: &ModelConfig, read_back: &ModelConfig) -> Option<String> {
    // What a file's tensors say has no key, and what only training reads has none either.
    let is_told =
        |name: &str| !name.ends_with("_bias") && !name.ends_with("_norms") && !name.starts_with("train.");
    let told_by_keys = |config: &ModelConfig| {
        let mut config = ModelConfig { tied: true, ..config.clone() };
        config.own.retain(|(name, _)| is_told(name));
        for rope in config.rope.iter_mut().chain(&mut config.local_rope) {
            rope.order = RopeOrder::Half;
            if matches!(rope.scaling, RopeScaling::Llama3 { .. }) {
                rope.scaling = RopeScaling::None;
            }
        }
        format!("{config:#?}")
    };
    let own = |config: &ModelConfig| -> Vec<(&str, f64)> {
        config.own.iter().filter(|(name, _)| is_told(name)).copied().collect()
    };
    let other = |pair: &&(&str, f64)| !own(read_back).contains(pair);
    if let Some((name, value)) = own(config).iter().find(other) {
        return Some(format!("{name}: {value}"));
    }
    let (ours, theirs) = (told_by_keys(config), told_by_keys(read_back));
    let line = ours.lines().zip(theirs.lines()).find(|(a, b)| a != b)?.0;
    Some(line.trim().trim_end_matches(',').to_string())
}

fn keys(source: &Checkpoint, family: &Family, config: &ModelConfig) -> Result<Vec<Key>, ConvertError> {
    let mut keys = (family.keys)(config);
    if let Some(rope) = &config.rope {
        keys.extend(rope_keys(rope, source)?);
    }
    Ok(keys)
}

/// `config.json` of a source that has one, with the new type.
pub(crate) fn own_config(source: &Checkpoint, dtype: DType) -> Result<serde_json::Value, ConvertError> {
    let mut config = source.json("config.json")?.unwrap_or_else(|| serde_json::json!({}));
    config["torch_dtype"] = torch_name(dtype).into();
    if config.get("dtype").is_some() {
        config["dtype"] = torch_name(dtype).into();
    }
    Ok(config)
}

/// Copies what stands beside the weights of a Hugging Face directory: the tokenizer's files and the like.
pub(crate) fn copy_files(source: &Checkpoint, dir: &Path) -> Result<(), ConvertError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ConvertError::Io { path, source }
    };
    std::fs::create_dir_all(dir).map_err(io(dir))?;
    let from = if source.path().is_dir() { source.path() } else { source.path().parent().unwrap_or(dir) };
    for entry in std::fs::read_dir(from).map_err(io(from))? {
        let path = entry.map_err(io(from))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let is_text = [".json", ".txt", ".model", ".jinja"].iter().any(|end| name.ends_with(end));
        let is_weights =
            name.ends_with(".index.json") || name == "config.json" || name == "adapter_config.json";
        if path.is_file() && is_text && !is_weights {
            let bytes = std::fs::read(&path).map_err(io(&path))?;
            rhetor_formats::write_bytes(&dir.join(name), &bytes)?;
        }
    }
    Ok(())
}

/// Writes rotary positions and the context of `config` over those of `json`, where they are not the source's.
pub(crate) fn set_rope(
    json: &mut serde_json::Value,
    config: &ModelConfig,
    source: &Checkpoint,
) -> Result<(), ConvertError> {
    let before = Model::config_of(source)?;
    let Some(rope) = config.rope.as_ref().filter(|rope| before.rope.as_ref() != Some(*rope)) else {
        return Ok(());
    };
    json["max_position_embeddings"] = config.context_len.into();
    // Of the two ways to say it, the older is read by all.
    if let Some(keys) = json.as_object_mut() {
        keys.remove("rope_parameters");
        keys.remove("rope_scaling");
    }
    for key in rope_keys(rope, source)? {
        match key.hugging_face.split_once('.') {
            Some((section, name)) => json[section][name] = to_json(&key.value.value),
            None if !key.hugging_face.is_empty() => json[key.hugging_face] = to_json(&key.value.value),
            None => {}
        }
    }
    Ok(())
}

/// As [`set_rope`], for the keys of a GGUF file.
pub(crate) fn set_gguf_rope(
    metadata: &mut Metadata,
    config: &ModelConfig,
    family: &Family,
    source: &Checkpoint,
) -> Result<(), ConvertError> {
    let before = Model::config_of(source)?;
    let Some(rope) = config.rope.as_ref().filter(|rope| before.rope.as_ref() != Some(*rope)) else {
        return Ok(());
    };
    let context = u32::try_from(config.context_len).unwrap_or(u32::MAX);
    metadata.set(format!("{}.context_length", family.gguf), context);
    for key in rope_keys(rope, source)? {
        if !key.gguf.is_empty() {
            metadata.set(format!("{}.{}", family.gguf, key.gguf), key.value);
        }
    }
    Ok(())
}

fn rope_keys(rope: &RopeOptions, source: &Checkpoint) -> Result<Vec<Key>, ConvertError> {
    Key::rope(rope).map_err(|what| {
        let (file, what) = (source.path().to_path_buf(), what.to_string());
        ConvertError::NoPlace { file, what, kind: "the other kind of file" }
    })
}

/// `config.json` for a GGUF source.
fn hugging_face_config(source: &Checkpoint, dtype: DType) -> Result<serde_json::Value, ConvertError> {
    let config = Model::config_of(source)?;
    let family = Family::of(source)?;
    let class = family.architectures.iter().find(|(_, task)| *task == config.head.task);
    let mut json = serde_json::json!({
        "architectures": [class.expect("every head has its class").0],
        "model_type": family.model_type,
        "torch_dtype": torch_name(dtype),
    });
    for key in keys(source, family, &config)? {
        if !key.hugging_face.is_empty() {
            // `rope_scaling.factor` is `factor` inside `rope_scaling`.
            match key.hugging_face.split_once('.') {
                Some((section, name)) => json[section][name] = to_json(&key.value.value),
                None => json[key.hugging_face] = to_json(&key.value.value),
            }
        }
    }
    let is_tied = !source.tensors().iter().any(|tensor| tensor.name == "output.weight");
    json["tie_word_embeddings"] = is_tied.into();
    for (key, id) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
        if let Some(id) = source.metadata().get_u64(&format!("tokenizer.ggml.{id}_token_id"))? {
            json[key] = id.into();
        }
    }
    Ok(json)
}

fn torch_name(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::U64(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        // An f32 widened to f64 would be written with digits that nobody meant.
        Value::F64(value) => {
            serde_json::from_str(&(*value as f32).to_string()).unwrap_or(serde_json::Value::Null)
        }
        Value::String(value) => value.as_str().into(),
        Value::Array(values) => values.iter().map(|value| to_json(&value)).collect(),
    }
}
