//! Tokens per second and peak memory of training steps at named sizes.
//!
//! `cargo run --release -p rhetor-train --example train_speed -- gpt2|llama15m|char [f32|bf16] [steps]`

use rhetor_catalog::Values;
use rhetor_formats::Checkpoint;
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_kernels::gemm::Precision;
use rhetor_models::adapters::{self, AdapterOptions};
use rhetor_models::{Keep, LoadOptions, Model, Training, init};
use rhetor_tensor::tape;
use rhetor_train::optimizers::{Method, Optimizer, Trained};
use rhetor_train::schedules::{Rate, Schedule};
use rhetor_train::{Policy, Sequence};
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (config, batch, seq_len) = match args.first().map(String::as_str) {
        Some("gpt2") => (
            r#"{"architectures":["GPT2LMHeadModel"],"model_type":"gpt2","n_embd":768,"n_layer":12,"n_head":12,
                "n_positions":1024,"vocab_size":50257}"#,
            4,
            256,
        ),
        Some("llama15m") => (
            r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":288,"num_hidden_layers":6,
                "num_attention_heads":6,"intermediate_size":768,"max_position_embeddings":256,"vocab_size":32000,
                "tie_word_embeddings":true}"#,
            16,
            256,
        ),
        _ => (
            r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":128,"num_hidden_layers":4,
                "num_attention_heads":8,"intermediate_size":344,"max_position_embeddings":64,"vocab_size":65,
                "tie_word_embeddings":false}"#,
            32,
            64,
        ),
    };
    let precision =
        if args.get(1).is_some_and(|arg| arg == "bf16") { Precision::Bf16 } else { Precision::F32 };
    let n_steps: usize = args.get(2).map_or(5, |arg| arg.parse().expect("a number of steps"));
    let dir = std::env::temp_dir().join(format!("rhetor-train-speed-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.json"), config).unwrap();
    init::write(&dir, 1).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let options = LoadOptions { precision, ..LoadOptions::default() };
    let model = Model::load_adapted(
        &checkpoint,
        options,
        &mut [adapters::build("full", &AdapterOptions::default()).unwrap()],
    )
    .unwrap();
    let policy = Policy::of(model);
    let vocab_size = policy.model.config().vocab_size as u32;
    let trained: Vec<Trained> = (policy.model.parameters().iter())
        .map(|parameter| Trained { parameter: parameter.clone(), rate: 1.0, decays: true })
        .collect();
    let mut optimizer = Optimizer::new(Method::find("adamw").unwrap().build([]).unwrap(), &trained);
    let schedule = Schedule::find("constant").unwrap();
    let values = Values::of(&schedule.about, []).unwrap();
    let rate = Rate { schedule, values, peak: 1e-4, n_warmup: 0 };
    let sequence = |i: u32| {
        let ids: Vec<u32> = (0..=seq_len as u32).map(|t| (t * 7919 + i * 104729) % vocab_size).collect();
        Sequence::next_token(&ids)
    };
    let sequences: Vec<Sequence> = (0..batch).map(sequence).collect();
    let mut best = f64::INFINITY;
    for step in 0..n_steps {
        let start = Instant::now();
        let training = Training { seed: step as u64, keep: Keep::All };
        let scale = 1.0 / (batch as usize * seq_len) as f32;
        let (loss, tape) =
            tape::record(|| policy.next_tokens(&sequences, scale, CrossEntropy::default(), Some(training)));
        let forward = start.elapsed().as_secs_f64();
        tape.backward(&loss.total);
        let backward = start.elapsed().as_secs_f64();
        optimizer.step(&trained, rate.at(step as u64, 100), 1.0);
        trained.iter().for_each(|trained| trained.parameter.clear_gradient());
        let all = start.elapsed().as_secs_f64();
        best = best.min(all);
        println!(
            "step {step}: loss {:.4}, forward {forward:.3} s, backward {:.3} s, optimizer {:.3} s",
            loss.total.data()[0],
            backward - forward,
            all - backward
        );
    }
    let n_tokens = (batch as usize * seq_len) as f64;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("").to_string();
    println!("{:.0} tokens/s at best; {peak}", n_tokens / best);
    std::fs::remove_dir_all(&dir).unwrap();
}
