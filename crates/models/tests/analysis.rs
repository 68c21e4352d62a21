//! Looking into models: what a probe sees is what the kernels computed, for every decoder under `fixtures/models`.

use rhetor_formats::Checkpoint;
use rhetor_models::analysis::{self, AnalysisError, Circuits, LayerMaps, RandomTokens};
use rhetor_models::convert::{ConvertOptions, to_gguf};
use rhetor_models::layers::Probe;
use rhetor_models::quant_mix::Mix;
use rhetor_models::{Batch, LoadOptions, Model, init};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn load(path: &Path) -> Model {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Model::load(&checkpoint, LoadOptions::default())
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every decoder of the fixtures, by its folder's name.
fn decoders() -> Vec<(String, Model)> {
    let entries = std::fs::read_dir(fixtures().join("models")).unwrap().map(|entry| entry.unwrap().path());
    let folders = entries.filter(|folder| folder.join("expected.json").exists());
    let models =
        folders.map(|folder| (folder.file_name().unwrap().to_string_lossy().into_owned(), load(&folder)));
    let found: Vec<_> = models.filter(|(_, m)| m.generates() && !m.config().has_encoder()).collect();
    assert!(found.len() >= 14, "found {} decoders only", found.len());
    found
}

/// Different tokens, far enough for a window to end.
fn tokens(model: &Model, n: usize, step: u32) -> Vec<u32> {
    let n = n.min(model.config().context_len);
    (0..n as u32).map(|i| (i * step + 3) % model.config().vocab_size as u32).collect()
}

/// Checks that each map is one of a causal decoder and makes of the values what the kernel made.
fn check_maps(name: &str, layers: &[LayerMaps], lens: &[usize]) {
    for maps in layers {
        let places = (0..lens.len()).flat_map(|s| (0..maps.n_heads()).map(move |head| (s, head)));
        for (s, head) in places {
            let (n, map) = (lens[s], maps.map(s, head));
            let (values, mixed) = (maps.values(s, head), maps.mixed(s, head));
            let d = values.len() / n;
            for i in 0..n {
                let row = &map[i * n..(i + 1) * n];
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{name}");
                assert!(row[i + 1..].iter().all(|&p| p == 0.0), "{name} looks ahead");
                for c in 0..d {
                    let sum: f32 = row.iter().enumerate().map(|(j, p)| p * values[j * d + c]).sum();
                    let kernel = mixed[i * d + c];
                    let is_near = (sum - kernel).abs() < 1e-4 * kernel.abs().max(1.0);
                    assert!(is_near, "{name} layer {} head {head}: {sum} for {kernel}", maps.layer());
                }
            }
        }
    }
}

#[test]
fn a_map_times_the_values_is_what_the_kernel_mixed() {
    for (name, model) in decoders() {
        let sequences = [tokens(&model, 11, 7), tokens(&model, 6, 5)];
        let lens = sequences.each_ref().map(Vec::len);
        let layers = analysis::attention_maps(&model, &sequences).unwrap();
        assert_eq!(layers.len(), model.config().n_layers, "{name}");
        assert!(layers.iter().enumerate().all(|(i, maps)| maps.layer() == i), "{name}");
        check_maps(&name, &layers, &lens);
    }
}

#[test]
fn quantized_models_have_maps_and_circuits_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    let source = fixtures().join("models/llama-tied-wide-head");
    let options = ConvertOptions { mix: Mix::Q8_0, importance: None, vocabulary: Vec::new() };
    to_gguf(&Checkpoint::open(&source).unwrap(), &file, &options, &mut |_| ()).unwrap();
    let (whole, packed) = (load(&source), load(&file));
    assert!(packed.n_bytes() < whole.n_bytes() / 2);
    let sequence = tokens(&packed, 9, 7);
    check_maps("q8_0", &analysis::attention_maps(&packed, std::slice::from_ref(&sequence)).unwrap(), &[9]);
    let strongest = |model: &Model| Circuits::of(model).unwrap().compositions();
    let (a, b) = (strongest(&whole), strongest(&packed));
    assert_eq!(a.len(), b.len());
    for one in &a {
        let other = b.iter().find(|o| (o.from, o.to, o.by) == (one.from, one.to, one.by)).unwrap();
        assert!((one.score - other.score).abs() < 0.02, "{one:?} {other:?}");
    }
}

#[test]
fn a_probe_that_only_looks_changes_no_bit() {
    struct Looks;
    impl Probe for Looks {}
    for (name, model) in decoders() {
        let batch = Batch::whole(&tokens(&model, 8, 3));
        let (with, without) = (model.forward_probed(&batch, Arc::new(Looks)), model.forward(&batch, None));
        let bits = |x: &rhetor_tensor::Tensor| x.data().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&with), bits(&without), "{name}");
    }
}

#[test]
fn the_lens_after_the_last_block_shows_what_the_model_says() {
    for (name, model) in decoders() {
        let tokens = tokens(&model, 8, 3);
        let lens = analysis::logit_lens(&model, &tokens, 2).unwrap();
        assert_eq!((lens.len(), lens[0].len(), lens[0][0].len()), (model.config().n_layers + 1, 8, 2));
        let logits = model.forward(&Batch::whole(&tokens), None);
        for (i, guesses) in lens.last().unwrap().iter().enumerate() {
            let row = logits.row(i);
            assert_eq!(guesses[0].id as usize, rhetor_kernels::select::argmax(row), "{name}");
            let ratio = (row[guesses[0].id as usize] - row[guesses[1].id as usize]).exp();
            assert!((guesses[0].probability / guesses[1].probability / ratio - 1.0).abs() < 1e-3, "{name}");
        }
    }
}

#[test]
fn the_clean_residual_where_prompts_differ_brings_the_clean_answer_back() {
    for (name, model) in decoders() {
        let clean = tokens(&model, 6, 3);
        let mut corrupt = clean.clone();
        corrupt[4] = (corrupt[4] + 1) % model.config().vocab_size as u32;
        let patching = analysis::patch_residual(&model, &clean, &corrupt).unwrap();
        let depths = model.config().n_layers + 1;
        assert_eq!(patching.patched.len(), depths * 6);
        let at = |layer: usize, place: usize| patching.patched[layer * 6 + place].recovered;
        let near = |got: f32, expected: f32| {
            assert!((got - expected).abs() < 1e-3, "{name}: {got} for {expected}");
        };
        near(at(0, 4), 1.0);
        near(at(depths - 1, 5), 1.0);
        (0..4).for_each(|place| near(at(0, place), 0.0));
        near(at(depths - 1, 4), 0.0);
    }
}

#[test]
fn all_heads_of_a_layer_are_patched_one_by_one() {
    let model = load(&fixtures().join("models/mistral-window-4"));
    let clean = tokens(&model, 6, 3);
    let mut corrupt = clean.clone();
    corrupt[5] = (corrupt[5] + 1) % model.config().vocab_size as u32;
    let patching = analysis::patch_heads(&model, &clean, &corrupt).unwrap();
    assert_eq!(patching.patched.len(), model.config().n_layers * model.config().n_heads);
    assert!(patching.patched.iter().any(|patch| patch.recovered.abs() > 1e-3));
    // The same prompt for both has nothing to recover.
    let refused = analysis::patch_heads(&model, &clean, &clean).unwrap_err();
    assert!(matches!(refused, AnalysisError::NoDifference { .. }), "{refused}");
    let refused = analysis::patch_heads(&model, &clean, &clean[1..]).unwrap_err();
    assert_eq!(refused, AnalysisError::Lengths { clean: 6, corrupt: 5 });
}

#[test]
fn random_models_have_no_heads_of_a_kind() {
    for (name, model) in decoders().into_iter().filter(|(name, _)| !name.contains("window")) {
        let choice: Vec<u32> = (3..model.config().vocab_size as u32).collect();
        let segment_len = 8.min(model.config().context_len / 4);
        let options = RandomTokens { choice, segment_len, n_sequences: 4, first: None, seed: 1 };
        let report = analysis::score_heads(&model, &options).unwrap();
        assert_eq!(report.heads.len(), model.config().n_layers * model.config().n_heads, "{name}");
        for head in &report.heads {
            assert!(head.induction < 0.5 && head.prefix_matching < 0.6, "{name}: {head:?}");
            assert!(head.copying.abs() <= 1.0 + 1e-4, "{name}: {head:?}");
        }
    }
}

#[test]
fn what_has_no_heads_or_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"architectures": ["AwdLstmForCausalLM"], "model_type": "awd_lstm", "vocab_size": 9,
        "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "tie_word_embeddings": true}"#;
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    init::write(folder.path(), 1).unwrap();
    let recurrent = load(folder.path());
    let family = "awd-lstm";
    let refused = analysis::attention_maps(&recurrent, &[vec![1, 2]]).map(|_| ()).unwrap_err();
    assert_eq!(refused, AnalysisError::NotADecoder { family });
    let model = load(&fixtures().join("models/llama"));
    let long = vec![1; model.config().context_len + 1];
    let refused = analysis::attention_maps(&model, &[long]).map(|_| ()).unwrap_err();
    assert!(matches!(refused, AnalysisError::ContextTooShort { .. }), "{refused}");
    assert_eq!(analysis::attention_maps(&model, &[vec![]]).map(|_| ()).unwrap_err(), AnalysisError::NoTokens);
}
