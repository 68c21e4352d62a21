//! Writes an adapter of every kind that PEFT knows, with random values, and the logits that rhetor computes with it.
//!
//! `cargo run -p rhetor-models --example save_adapters -- OUT` and then `python fixtures/peft/load_ours.py OUT`
//! compares them with those that PEFT computes.

use rhetor_formats::Checkpoint;
use rhetor_models::adapters::{AdapterOptions, Bias, Init, Names, build, peft};
use rhetor_models::{Batch, LoadOptions, Model};
use std::path::{Path, PathBuf};

const IDS: &[u32] = &[3, 9, 27, 11, 60, 2, 33];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::args().nth(1).ok_or("a directory is wanted")?);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let list = |names: &str| Names::List(names.split(',').map(str::to_string).collect());
    let lora = |targets| AdapterOptions { targets, ..AdapterOptions::of(&[("rank", 4.0), ("alpha", 8.0)]) };
    let cases = [
        ("peft/base", "lora", "lora", lora(Names::Default)),
        ("peft/base", "lora-all-linear", "lora", lora(Names::AllLinear)),
        ("peft/base", "lora-embedding", "lora", lora(list("embed_tokens,q_proj,lm_head"))),
        ("peft/base", "lora-bias", "lora", {
            let values = [("rank", 4.0), ("lora-bias", 1.0), ("rslora", 1.0)];
            AdapterOptions {
                rank_pattern: vec![("k_proj".into(), 2)],
                targets: list("q_proj,k_proj"),
                ..AdapterOptions::of(&values)
            }
        }),
        (
            "peft/base",
            "lora-head",
            "lora",
            AdapterOptions { modules_to_save: vec!["lm_head".into()], ..lora(Names::Default) },
        ),
        ("peft/base", "lora-layer", "lora", AdapterOptions { layers: Some(vec![1]), ..lora(list("v_proj")) }),
        ("models/gpt2", "lora-gpt2", "lora", AdapterOptions { bias: Bias::All, ..lora(Names::Default) }),
        (
            "models/gpt2",
            "lora-gpt2-head",
            "lora",
            AdapterOptions { modules_to_save: vec!["lm_head".into()], ..lora(Names::Default) },
        ),
        (
            "models/gpt2",
            "lora-gpt2-embedding",
            "lora",
            AdapterOptions { modules_to_save: vec!["wte".into()], ..lora(Names::Default) },
        ),
        ("peft/base", "dora", "dora", lora(Names::Default)),
        ("models/gpt2", "dora-gpt2", "dora", lora(Names::AllLinear)),
        ("peft/base", "ia3", "ia3", AdapterOptions::default()),
        ("models/gpt2", "ia3-gpt2", "ia3", AdapterOptions::default()),
        ("peft/base", "prompt", "prompt-tuning", AdapterOptions::of(&[("tokens", 4.0)])),
        ("models/gpt2", "prompt-gpt2", "prompt-tuning", AdapterOptions::of(&[("tokens", 4.0)])),
        ("peft/base", "prefix", "prefix-tuning", AdapterOptions::of(&[("tokens", 4.0)])),
        ("models/gpt2", "prefix-gpt2", "prefix-tuning", AdapterOptions::of(&[("tokens", 4.0), ("mlp", 8.0)])),
    ];
    for (base, name, method, options) in cases {
        let path = fixtures.join(base).canonicalize()?;
        let init = if matches!(method, "lora" | "dora") { Init::Random } else { Init::Default };
        let mut adapters = [build(method, &AdapterOptions { init, seed: 11, ..options })?];
        let model = Model::load_adapted(&Checkpoint::open(&path)?, LoadOptions::default(), &mut adapters)?;
        for (i, parameter) in model.parameters().iter().enumerate() {
            let shake = |(j, x): (usize, &mut f32)| *x += 0.01 * ((5 * i + 3 * j) % 7) as f32;
            parameter.write().iter_mut().enumerate().for_each(shake);
        }
        let dir = out.join(name);
        peft::save(&*adapters[0], &dir, path.to_str().ok_or("a path in UTF-8")?, Some("CAUSAL_LM"))?;
        let logits = model.forward(&Batch::whole(IDS), None);
        let report = serde_json::json!({ "ids": IDS, "logits": logits.data() });
        std::fs::write(dir.join("ours.json"), report.to_string())?;
    }
    Ok(())
}
