//! RETRO against retro-pytorch, and what may depend on a neighbour.

use rhetor_formats::{Checkpoint, ElementType, TensorToWrite, safetensors};
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_kernels::kv::KvType;
use rhetor_models::adapters::{self, AdapterOptions};
use rhetor_models::{Batch, KvCache, LoadOptions, Model, SequenceSpan, SourceTokens};
use rhetor_tensor::ops::cross_entropy::{self, Targets};
use rhetor_tensor::{Tensor, tape};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/retro")
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn load(folder: &Path) -> Model {
    Model::load(&open(folder), LoadOptions::default()).expect("it loads")
}

fn trained() -> Model {
    let full = &mut [adapters::build("full", &AdapterOptions::default()).expect("a method")];
    Model::load_adapted(&open(&fixture()), LoadOptions::default(), full).expect("it loads")
}

/// A text, its neighbours, and the logits with and without them.
struct Text {
    ids: Vec<u32>,
    neighbours: SourceTokens,
    logits: Vec<f32>,
    alone: Vec<f32>,
}

/// Text `i` of a file whose tensors are called `ids`, `retrieved`, `logits` and `alone`.
fn text(file: &Checkpoint, [ids, retrieved, logits, alone]: [&str; 4]) -> Text {
    let entry = |name: &str| file.find(name).unwrap_or_else(|| panic!("{name} is there"));
    let ids_of = |name: &str| -> Vec<u32> {
        assert_eq!(entry(name).dtype, ElementType::Other("i64"));
        let (ids, _) = file.bytes(entry(name)).as_chunks::<8>();
        ids.iter().map(|id| i64::from_le_bytes(*id) as u32).collect()
    };
    let floats = |name: &str| {
        file.bytes(entry(name)).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let mut neighbours = SourceTokens { tokens: Vec::new(), passages: vec![Vec::new()] };
    // Zeros fill a passage up.
    for passage in ids_of(retrieved).chunks(*entry(retrieved).shape.last().expect("passages have a length")) {
        let passage: Vec<u32> = passage.iter().copied().filter(|&id| id != 0).collect();
        neighbours.passages[0].push(passage.len());
        neighbours.tokens.extend(passage);
    }
    Text { ids: ids_of(ids), neighbours, logits: floats(logits), alone: floats(alone) }
}

fn texts() -> [Text; 2] {
    let file = open(&fixture().join("expected.safetensors"));
    [0, 1].map(|i| {
        let names = ["input_ids", "retrieved", "logits", "alone"].map(|name| format!("{name}.{i}"));
        text(&file, [&names[0], &names[1], &names[2], &names[3]])
    })
}

fn batch(ids: &[u32], neighbours: &SourceTokens) -> Batch {
    Batch { source: Some(Arc::new(neighbours.clone())), ..Batch::whole(ids) }
}

#[track_caller]
fn assert_close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    let off = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("off by {off:.1e}");
    assert!(off < 1e-4, "off by {off}");
}

#[test]
fn logits_with_and_without_neighbours_are_those_of_retro_pytorch() {
    let model = load(&fixture());
    assert!(!model.generates());
    for text in texts() {
        assert_close(model.forward(&batch(&text.ids, &text.neighbours), None).data(), &text.logits);
        assert_close(model.forward(&Batch::whole(&text.ids), None).data(), &text.alone);
    }
}

#[test]
fn texts_side_by_side_read_their_own_neighbours() {
    let model = load(&fixture());
    let [a, b] = texts();
    let span = |ids: &[u32]| SequenceSpan { len: ids.len(), ..SequenceSpan::default() };
    let neighbours = SourceTokens {
        tokens: [a.neighbours.tokens, b.neighbours.tokens].concat(),
        passages: [a.neighbours.passages, b.neighbours.passages].concat(),
    };
    let ids = [&a.ids[..], &b.ids].concat();
    let both = Batch { spans: vec![span(&a.ids), span(&b.ids)], ..batch(&ids, &neighbours) };
    assert_close(model.forward(&both, None).data(), &[a.logits, b.logits].concat());
}

#[test]
fn without_neighbours_tokens_one_by_one_have_the_logits_of_the_whole_text() {
    let model = load(&fixture());
    let [text, _] = texts();
    let mut cache = KvCache::new(model.config(), KvType::F32, 1);
    for (start, &id) in text.ids.iter().enumerate() {
        let span = SequenceSpan { pages: vec![0], start, len: 1, ..SequenceSpan::default() };
        let one = Batch { spans: vec![span], ..Batch::whole(&[id]) };
        assert_close(model.forward(&one, Some(&mut cache)).data(), &text.alone[start * 30..][..30]);
    }
}

#[test]
fn a_chunks_neighbours_change_logits_from_its_last_token_on() {
    let model = load(&fixture());
    let [text, _] = texts();
    let before = model.forward(&batch(&text.ids, &text.neighbours), None);
    let mut at = 0;
    for (passage, len) in text.neighbours.passages[0].clone().into_iter().enumerate() {
        let chunk = passage / 2;
        let mut changed = text.neighbours.clone();
        match len {
            // A neighbour where there was none.
            0 => {
                changed.passages[0][passage] = 2;
                changed.tokens.splice(at..at, [3, 4]);
            }
            len => changed.tokens[at + len / 2] = 1 + changed.tokens[at + len / 2] % 29,
        }
        at += len;
        let after = model.forward(&batch(&text.ids, &changed), None);
        let first = (0..18).find(|&i| before.row(i) != after.row(i));
        assert_eq!(first, Some((chunk + 1) * 4 - 1), "passage {passage}");
    }
    // A token is seen by no position before it, through neighbours neither.
    for t in 0..18 {
        let mut ids = text.ids.clone();
        ids[t] = 1 + ids[t] % 29;
        let after = model.forward(&batch(&ids, &text.neighbours), None);
        assert_eq!((0..18).find(|&i| before.row(i) != after.row(i)), Some(t));
    }
}

#[test]
fn a_cross_attention_that_adds_nothing_leaves_the_base_as_it_is_in_every_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = open(&fixture());
    let to_write: Vec<TensorToWrite> = (source.tensors().iter())
        .map(|t| TensorToWrite { name: t.name.clone(), dtype: t.dtype, shape: t.shape.clone() })
        .collect();
    let file = folder.path().join("model.safetensors");
    safetensors::write(&file, &[], &to_write, |i, out| {
        let bytes = source.bytes(&source.tensors()[i]);
        match source.tensors()[i].name.contains("decoder") && to_write[i].name.contains("cross_attn.to_out") {
            true => out.write_all(&vec![0; bytes.len()]),
            false => out.write_all(bytes),
        }
    })
    .expect("written");
    std::fs::copy(fixture().join("config.json"), folder.path().join("config.json")).expect("copied");
    let model = load(folder.path());
    let bits = |x: Tensor| x.data().iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    for text in texts() {
        let read = bits(model.forward(&batch(&text.ids, &text.neighbours), None));
        assert_eq!(read, bits(model.forward(&Batch::whole(&text.ids), None)));
    }
}

/// The mean loss of both texts' next tokens, and its tape.
fn loss(model: &Model) -> (f64, tape::Tape, Tensor) {
    let [text, _] = texts();
    let targets: Vec<u32> = text.ids[1..].to_vec();
    let ((total, sum), tape) = tape::record(|| {
        let mut batch = batch(&text.ids, &text.neighbours);
        batch.outputs.pop();
        let logits = model.forward(&batch, None);
        let targets = Targets { tokens: &targets, weights: None, scale: 1.0 / 17.0 };
        let loss = cross_entropy::cross_entropy(logits, targets, CrossEntropy::default());
        (loss.total, loss.rows.iter().map(|&row| f64::from(row)).sum::<f64>() / 17.0)
    });
    (sum, tape, total)
}

#[test]
fn gradients_reach_encoder_cross_attention_and_null_key_and_equal_central_differences() {
    let model = trained();
    let (_, tape, total) = loss(&model);
    tape.backward(&total);
    for name in [
        "encoder.layers.0.1.fn.to_q.weight",
        "encoder.layers.0.1.fn.to_v.weight",
        "encoder.project_out.weight",
        "decoder.layers.0.1.fn.cross_attn.null_k",
        "decoder.layers.1.1.fn.cross_attn.null_v",
        "decoder.layers.1.1.fn.cross_attn.to_k.weight",
        "decoder.layers.0.0.fn.to_v.weight",
        "token_emb.weight",
    ] {
        let parameter = model.parameters().iter().find(|p| p.name() == name);
        let parameter = parameter.unwrap_or_else(|| panic!("{name} trains"));
        let gradient = parameter.gradient().clone();
        let largest = gradient.iter().fold(0f32, |max, g| max.max(g.abs()));
        assert!(largest > 0.0, "{name} has a gradient");
        let at = gradient.iter().position(|g| g.abs() == largest).expect("one is the largest");
        let moved = |step: f32| {
            parameter.write()[at] += step;
            let (sum, ..) = loss(&model);
            parameter.write()[at] -= step;
            sum
        };
        let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
        assert!(
            (f64::from(gradient[at]) - expected).abs() < 0.02 * expected.abs() + 2e-4,
            "{name}: {expected}"
        );
    }
}

#[test]
fn training_on_neighbours_makes_the_loss_fall() {
    let model = trained();
    let first = loss(&model).0;
    for _ in 0..40 {
        let (_, tape, total) = loss(&model);
        tape.backward(&total);
        for parameter in model.parameters() {
            let gradient = parameter.gradient().clone();
            parameter.write().iter_mut().zip(gradient).for_each(|(x, g)| *x -= 0.1 * g);
            parameter.clear_gradient();
        }
    }
    let last = loss(&model).0;
    assert!(last < 0.5 * first, "{first} to {last}");
}
