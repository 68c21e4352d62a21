//! Trees of tokens in one pass against each of their paths alone.

use rhetor_formats::Checkpoint;
use rhetor_kernels::kv::KvType;
use rhetor_models::{Batch, KvCache, LoadOptions, Model, SequenceSpan, TokenTree};
use std::path::Path;
use std::sync::Arc;

const PREFIX: [u32; 13] = [1, 7, 42, 3, 88, 19, 5, 61, 2, 30, 11, 54, 70];

/// The nodes of a tree: what each hangs on, and its token.
const NODES: [(Option<usize>, u32); 9] = [
    (None, 8),
    (Some(0), 15),
    (Some(0), 23),
    (Some(1), 4),
    (Some(1), 16),
    (Some(2), 42),
    (Some(4), 90),
    (Some(5), 33),
    (Some(6), 51),
];

fn model(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name);
    let checkpoint = Checkpoint::open(&folder).expect("the fixture is there");
    Model::load(&checkpoint, LoadOptions::default()).expect("and loads")
}

/// The logits of all `tokens`, which continue the sequence in `pages` from `start` on. → [T, V]
fn run(
    model: &Model,
    cache: &mut KvCache,
    tokens: &[u32],
    pages: &[u32],
    start: usize,
    tree: Option<Arc<TokenTree>>,
) -> Vec<f32> {
    let pages = pages.to_vec();
    let span = SequenceSpan { pages, start, len: tokens.len(), tree, ..SequenceSpan::default() };
    let batch = Batch { spans: vec![span], ..Batch::whole(tokens) };
    model.forward(&batch, Some(cache)).data().to_vec()
}

#[test]
fn every_path_of_a_tree_has_the_logits_of_its_tokens_in_a_row_and_the_kept_path_goes_on() {
    let tree = Arc::new(TokenTree::new(NODES.map(|(parent, _)| parent).to_vec()));
    let tokens = NODES.map(|(_, token)| token);
    for name in ["llama", "llama-rope-dynamic", "mistral-window-4"] {
        let model = model(name);
        let vocab_size = model.config().vocab_size;
        for (kind, bound) in [(KvType::F32, 1e-5), (KvType::F16, 1e-3)] {
            let mut cache = KvCache::new(model.config(), kind, 4);
            for path in tree.paths() {
                // Pages 2 and 0 hold the tree's sequence, 3 and 1 the path's.
                run(&model, &mut cache, &PREFIX, &[2, 0], 0, None);
                let together = run(&model, &mut cache, &tokens, &[2, 0], PREFIX.len(), Some(tree.clone()));
                let alone: Vec<u32> =
                    PREFIX.into_iter().chain(path.iter().map(|&node| tokens[node])).collect();
                let expected = run(&model, &mut cache, &alone, &[3, 1], 0, None);
                let close = |got: &[f32], expected: &[f32], what: &str| {
                    let off = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(off <= bound, "{name} {kind:?} {what} of {path:?}: {off}");
                };
                for (i, &node) in path.iter().enumerate() {
                    let row = &together[node * vocab_size..][..vocab_size];
                    close(row, &expected[(PREFIX.len() + i) * vocab_size..][..vocab_size], "a node");
                }
                cache.keep(&[2, 0], PREFIX.len(), &path);
                let next = run(&model, &mut cache, &[77, 12], &[2, 0], alone.len(), None);
                close(&next, &run(&model, &mut cache, &[77, 12], &[3, 1], alone.len(), None), "what follows");
            }
        }
    }
}
