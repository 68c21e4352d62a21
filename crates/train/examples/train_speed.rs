//! Tokens per second and peak memory of training steps at named sizes, as one line of JSON.
//!
//! `cargo run --release -p rhetor-train --example train_speed -- gpt2|llama15m|lora|char [f32|bf16] [steps] [threads]`
//!
//! `benches/train_torch.py` measures the same in PyTorch, `benches/train_compare.sh` compares the two.

use rhetor_catalog::Values;
use rhetor_formats::{Checkpoint, ElementType, TensorToWrite, safetensors};
use rhetor_kernels::cross_entropy::CrossEntropy;
use rhetor_kernels::gemm::Precision;
use rhetor_kernels::half::f32_to_bf16;
use rhetor_kernels::{DType, reduce, threads};
use rhetor_models::adapters::{self, AdapterOptions, Names};
use rhetor_models::{Keep, LoadOptions, Model, Training, init};
use rhetor_tensor::tape;
use rhetor_train::optimizers::{Method, Optimizer, Trained};
use rhetor_train::schedules::{Rate, Schedule};
use rhetor_train::{Policy, Sequence};
use std::path::Path;
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
        Some("lora") => (
            r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":576,"num_hidden_layers":30,
                "num_attention_heads":9,"num_key_value_heads":3,"intermediate_size":1536,
                "max_position_embeddings":2048,"vocab_size":49152,"tie_word_embeddings":true}"#,
            2,
            512,
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
    if let Some(n) = args.get(3) {
        threads::set_threads(n.parse().expect("a number of threads"));
    }
    let dir = std::env::temp_dir().join(format!("rhetor-train-speed-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.json"), config).unwrap();
    init::write(&dir, 1).unwrap();
    let is_lora = args.first().is_some_and(|arg| arg == "lora");
    if is_lora && precision == Precision::Bf16 {
        store_as_bf16(&dir);
    }
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let options = LoadOptions { precision, ..LoadOptions::default() };
    let adapter = if is_lora {
        let all = AdapterOptions { targets: Names::AllLinear, ..AdapterOptions::of(&[("dropout", 0.0)]) };
        adapters::build("lora", &all).unwrap()
    } else {
        adapters::build("full", &AdapterOptions::default()).unwrap()
    };
    let model = Model::load_adapted(&checkpoint, options, &mut [adapter]).unwrap();
    drop(checkpoint);
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
    let mut best = [f64::INFINITY; 4];
    let mut last = 0.0;
    for step in 0..n_steps {
        let start = Instant::now();
        let training = Training { seed: step as u64, keep: Keep::All };
        let scale = 1.0 / (batch as usize * seq_len) as f32;
        let (loss, tape) =
            tape::record(|| policy.next_tokens(&sequences, scale, CrossEntropy::default(), Some(training)));
        last = loss.total.data()[0];
        let forward = start.elapsed().as_secs_f64();
        tape.backward(&loss.total);
        let backward = start.elapsed().as_secs_f64();
        let squares: f64 =
            trained.iter().map(|trained| reduce::sum_of_squares(&trained.parameter.gradient())).sum();
        let factor = (1.0 / squares.sqrt()).min(1.0) as f32;
        optimizer.step(&trained, rate.at(step as u64, 100), factor);
        trained.iter().for_each(|trained| trained.parameter.clear_gradient());
        let all = start.elapsed().as_secs_f64();
        for (best, took) in best.iter_mut().zip([forward, backward - forward, all - backward, all]) {
            *best = best.min(took);
        }
    }
    let [forward, backward, optimizer, all] = best;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    let peak: f64 = peak.trim().trim_end_matches(" kB").parse().expect("kilobytes");
    println!(
        "{{\"program\": \"rhetor\", \"case\": \"{}\", \"precision\": \"{}\", \"tokens_per_second\": {:.1}, \
         \"peak_gb\": {:.3}, \"forward\": {forward:.4}, \"backward\": {backward:.4}, \
         \"optimizer\": {optimizer:.4}, \"trained\": {}, \"loss\": {last:.4}}}",
        args.first().map_or("char", |arg| arg),
        if precision == Precision::Bf16 { "bf16" } else { "f32" },
        (batch as usize * seq_len) as f64 / all,
        peak / 1024.0 / 1024.0,
        trained.iter().map(|trained| trained.parameter.n_elements()).sum::<usize>(),
    );
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Writes the checkpoint's matrices again as bf16.
fn store_as_bf16(dir: &Path) {
    const BF16: ElementType = ElementType::Known(DType::BF16);
    const F32: ElementType = ElementType::Known(DType::F32);
    let path = dir.join("model.safetensors");
    let from = Checkpoint::from_bytes(&path, std::fs::read(&path).unwrap()).unwrap();
    let tensors: Vec<TensorToWrite> = (from.tensors().iter())
        .map(|entry| TensorToWrite {
            name: entry.name.clone(),
            dtype: if entry.shape.len() == 2 { BF16 } else { F32 },
            shape: entry.shape.clone(),
        })
        .collect();
    safetensors::write(&path, &[("format", "pt")], &tensors, |i, out| {
        let bytes = from.bytes(&from.tensors()[i]);
        if tensors[i].dtype == F32 {
            return out.write_all(bytes);
        }
        let values = bytes.as_chunks().0.iter().map(|&bytes| f32_to_bf16(f32::from_le_bytes(bytes)));
        out.write_all(&values.flat_map(u16::to_le_bytes).collect::<Vec<u8>>())
    })
    .unwrap();
}
