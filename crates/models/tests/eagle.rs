//! Draft heads against what their authors' code computes.

use rhetor_formats::{Checkpoint, ElementType, TensorToWrite, safetensors};
use rhetor_kernels::DType;
use rhetor_kernels::kv::KvType;
use rhetor_kernels::matmul::Packed;
use rhetor_models::eagle::{DraftOptions, EagleHead, feature_depths};
use rhetor_models::layers::Linear;
use rhetor_models::{Batch, KvCache, LoadError, LoadOptions, Model, SequenceSpan, init};
use rhetor_tensor::Tensor;
use std::path::{Path, PathBuf};

fn fixtures(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A tensor of 8-byte or 4-byte numbers, as f64.
fn numbers(file: &Checkpoint, name: &str) -> Vec<f64> {
    let entry = file.find(name).unwrap_or_else(|| panic!("{name} is there"));
    let bytes = file.bytes(entry);
    match entry.dtype {
        ElementType::Known(_) => {
            bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
        }
        ElementType::Other(_) => {
            bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect()
        }
    }
}

fn tensor(file: &Checkpoint, name: &str, width: usize) -> Tensor {
    let values: Vec<f32> = numbers(file, name).into_iter().map(|x| x as f32).collect();
    let n_rows = values.len() / width;
    Tensor::from_vec(values, [n_rows, width])
}

fn ids(file: &Checkpoint, name: &str) -> Vec<u32> {
    numbers(file, name).into_iter().map(|id| id as u32).collect()
}

#[track_caller]
fn assert_close(got: &Tensor, expected: &Tensor) {
    assert_eq!(got.shape(), expected.shape());
    let off = got.data().iter().zip(expected.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-5, "off by {off}");
}

/// A target of 40 tokens, 16 wide, for the head of EAGLE-2.
fn target(folder: &Path, width: usize) -> Model {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 40, "hidden_size": width,
        "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).expect("a folder to write to");
    init::write(folder, 1).expect("a new model");
    Model::load(&open(folder), LoadOptions::default()).expect("the new model loads")
}

fn span(pages: &[u32], start: usize, tokens: &[u32]) -> Batch {
    let span = SequenceSpan { pages: pages.to_vec(), start, len: tokens.len(), ..SequenceSpan::default() };
    Batch { spans: vec![span], ..Batch::whole(tokens) }
}

#[test]
fn the_head_of_eagle_2_and_its_tree_are_those_of_the_authors() {
    let folder = tempfile::tempdir().expect("a folder");
    let expected = open(&fixtures("eagle/eagle2/expected.safetensors"));
    let head =
        EagleHead::load(&open(&fixtures("eagle/eagle2")), &target(folder.path(), 16)).expect("it loads");
    let features = tensor(&expected, "x.hidden", 16);
    let all_ids = ids(&expected, "x.input_ids");
    let tokens = &all_ids[1..];
    assert_close(&head.forward(&Batch::whole(tokens), &features, None), &tensor(&expected, "y.forward", 16));

    let values = tensor(&expected, "x.head", 16);
    let bytes: Vec<u8> = values.data().iter().flat_map(|value| value.to_le_bytes()).collect();
    let output = Linear::of(Packed::pack(DType::F32, 40, 16, &bytes).into());
    let options = DraftOptions { n_nodes: 12, depth: 3, top_k: 3 };
    let mut cache = KvCache::new(head.config(), KvType::F32, 2);
    let draft = head.draft(&span(&[1, 0], 0, tokens), &features, &output, options, &mut cache);
    assert_eq!(draft.tokens, ids(&expected, "y.draft_tokens"));
    let depths: Vec<u32> = draft.tree.depths().iter().map(|&depth| depth as u32).collect();
    assert_eq!(depths, ids(&expected, "y.position_ids"));
    let mask = numbers(&expected, "y.tree_mask");
    for (at, seen) in mask.iter().enumerate() {
        assert_eq!(draft.tree.sees(at / 12, at % 12), *seen == 1.0, "node {} sees {}", at / 12, at % 12);
    }
    let rows = numbers(&expected, "y.retrieve_indices");
    let paths = draft.tree.paths();
    assert_eq!(paths.len(), rows.len() / 5);
    for (path, row) in paths.iter().zip(rows.chunks(5)) {
        let padded = path.iter().map(|&node| node as f64).chain(std::iter::repeat(-1.0)).take(5);
        assert_eq!(padded.collect::<Vec<f64>>(), row);
    }

    // The cache keeps what is accepted and nothing of a draft.
    let head_of = |n| Tensor::from_vec(features.data()[..n * 16].to_vec(), [n, 16]);
    let mut cache = KvCache::new(head.config(), KvType::F32, 2);
    head.draft(&span(&[1, 0], 0, &tokens[..4]), &head_of(4), &output, options, &mut cache);
    let rest = Tensor::from_vec(features.data()[4 * 16..].to_vec(), [2, 16]);
    assert_eq!(head.draft(&span(&[1, 0], 4, &tokens[4..]), &rest, &output, options, &mut cache), draft);
}

#[test]
fn the_head_of_eagle_3_reads_three_features_and_then_its_own() {
    let target = Model::load(&open(&fixtures("models/llama")), LoadOptions::default()).expect("it loads");
    let expected = open(&fixtures("eagle/eagle3/expected.safetensors"));
    let file = open(&fixtures("eagle/eagle3"));
    let head = EagleHead::load(&file, &target).expect("it loads");
    let tokens = ids(&expected, "ids");
    let first = head.forward(&Batch::whole(&tokens), &tensor(&expected, "features", 96), None);
    assert_close(&first, &tensor(&expected, "first", 24));
    let turned: Vec<u32> = tokens.iter().rev().copied().collect();
    let second = head.forward(&Batch::whole(&turned), &first, None);
    assert_close(&second, &tensor(&expected, "second", 24));
    assert_close(&head.logits(&first, target.output()), &tensor(&expected, "logits", 40));
    let chosen = file.find("t2d").map(|entry| file.bytes(entry)).expect("it is there");
    let known: Vec<u32> = (0..99).filter(|&id| chosen[id as usize] != 0).collect();
    assert_eq!((0..40).map(|column| head.token_of(column)).collect::<Vec<u32>>(), known);
}

#[test]
fn a_models_features_feed_a_draft_that_the_model_can_verify() {
    let target = Model::load(&open(&fixtures("models/llama")), LoadOptions::default()).expect("it loads");
    let head = EagleHead::load(&open(&fixtures("eagle/eagle3")), &target).expect("it loads");
    let tokens = [1u32, 7, 42, 3, 88, 19];
    let depths = feature_depths(target.config().n_layers);
    let mut cache = KvCache::new(target.config(), KvType::F32, 2);
    let batch = span(&[0, 1], 0, &tokens);
    let (hidden, residual) = target.features(&batch, Some(&mut cache), &depths);
    assert_close(&hidden, &target.hidden(&Batch::whole(&tokens), None));
    // The last depth's norm is what goes into the output layer.
    assert_close(&target.read_out(&residual[0]), &target.forward(&Batch::whole(&tokens), None));
    let rows = (0..5).flat_map(|i| residual.iter().flat_map(move |x| x.row(i).to_vec()));
    let features = Tensor::from_vec(rows.collect(), [5, 96]);
    let mut own = KvCache::new(head.config(), KvType::F32, 2);
    let options = DraftOptions { n_nodes: 8, depth: 2, top_k: 2 };
    let draft = head.draft(&span(&[0, 1], 0, &tokens[1..]), &features, target.output(), options, &mut own);
    assert_eq!((draft.tokens.len(), draft.tokens[0]), (8, 19));
    // The root is the sequence's last token: its row is computed again in its place.
    let tree = std::sync::Arc::new(draft.tree.clone());
    let mut verify = span(&[0, 1], 5, &draft.tokens);
    verify.spans[0].tree = Some(tree);
    let logits = target.forward(&verify, Some(&mut cache));
    let path = draft.tree.path(7);
    let alone: Vec<u32> =
        tokens[..5].iter().copied().chain(path.iter().map(|&node| draft.tokens[node])).collect();
    let expected = target.forward(&Batch::whole(&alone), None);
    let last = |x: &Tensor, row| Tensor::from_vec(x.row(row).to_vec(), [1, 99]);
    assert_close(&last(&logits, 7), &last(&expected, alone.len() - 1));
}

#[test]
fn a_head_without_an_embedding_takes_the_targets_and_one_of_another_width_is_refused() {
    let (folder, bare) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("another"));
    let target = target(folder.path(), 16);
    let source = open(&fixtures("eagle/eagle2"));
    let kept: Vec<_> =
        source.tensors().iter().filter(|tensor| tensor.name != "embed_tokens.weight").collect();
    let to_write: Vec<TensorToWrite> = (kept.iter())
        .map(|t| TensorToWrite { name: t.name.clone(), dtype: t.dtype, shape: t.shape.clone() })
        .collect();
    let file = bare.path().join("model.safetensors");
    safetensors::write(&file, &[], &to_write, |i, out| out.write_all(source.bytes(kept[i])))
        .expect("written");
    std::fs::copy(fixtures("eagle/eagle2/config.json"), bare.path().join("config.json")).expect("copied");
    let head = EagleHead::load(&open(bare.path()), &target).expect("it loads");
    let whole = EagleHead::load(&source, &target).expect("it loads");
    let features = Tensor::from_vec(vec![0.5; 16], [1, 16]);
    let run = |head: &EagleHead| head.forward(&Batch::whole(&[3]), &features, None);
    assert!(run(&head).data().iter().all(|x| x.is_finite()));
    assert_ne!(run(&head).data(), run(&whole).data());

    let other = tempfile::tempdir().expect("a folder");
    let wide = self::target(other.path(), 32);
    let refused = EagleHead::load(&source, &wide).err().expect("16 is not 32");
    assert!(matches!(refused, LoadError::BadValue { .. }) && refused.to_string().contains("32"), "{refused}");
}
