//! What training refuses, and how it fails: each with its message and exit code, and with its last checkpoint whole.
#![forbid(unsafe_code)]

#[allow(dead_code)]
mod learning;

use learning::{Shell, newest_checkpoint, program, speaker};
use std::fs;

#[test]
fn recipes_that_cannot_be_are_refused_with_what_could() {
    let shell = Shell::new();
    let check = |flags: &str, message: &str| {
        shell.says(&format!("train tiny.toml --out model {flags}")).fails(2, message);
        assert!(!shell.path("model/checkpoints").exists());
    };
    check("--set learning-pace=1", "unknown field `learning-pace`");
    check("--objective guessing", "there is no objective `guessing`; there are causal-lm, ");
    check("--adapter glue", "glue");
    check("--set optimizer=luck", "there is no optimizer `luck`; there are adamw, ");
    check("--set schedule=whim", "there is no schedule `whim`; there are ");
    check("--set optimizer-options.colour=1", "adamw has no option `colour`; its options are: ");
    check("--set optimizer-options.beta1=7", "beta1 = 7 is outside 0 to ");
    check("--set objective-options.colour=1", "causal-lm has no option `colour`");
    check("--set schedule-options.colour=1", "cosine has no option `colour`");
    check("--set adapter-options.colour=1", "full has no option `colour`");
    check("--precision f8", "there is no precision `f8`; there are f32, bf16");
    check("--validation most", "most");
    check("--data no-such-data", "there is no data set `no-such-data`");
    check("--set config.vocab_size=10", "the model's embedding 10 rows: they do not belong together");
    check("--seq-len 100000", "fewer than one window of 100001");
    check("--set quantize=nf3", "there is no quantize `nf3`; there are nf4, nf4-plain");
    check("--set decay=some", "there is no decay `some`");
    check("--set windows=big", "there is no windows `big`");
    check("--model m", "a recipe has `model` or `config`, not both");
    check("--batch-size 0", "option `batch-size`: it must be at least 1");
    check("--seq-len 0", "option `seq-len`: it must be at least 1");
    check("--learning-rate nan", "option `learning-rate`: it must be a number from 0 on, got NaN");
    check("--set ema=1", "option `ema`: it must be from 0 to below 1, got 1");
    shell.says("train nothing.toml").fails(2, "nothing.toml does not exist");
    shell.says("train nothing.toml").fails(2, "hint: recipes with a name are shakespeare-char");
    shell.says("train --data text.txt").fails(2, "--out DIR must say where the model is written");
    shell.says("train --data text.txt --out model").fails(2, "the recipe names no model to train");
    shell.says("train tiny.toml --set=x --out model").fails(2, "--set x: it must be KEY=VALUE");
}

#[test]
fn data_without_anything_to_learn_are_refused_by_reason() {
    let shell = Shell::new();
    let tune = |data: &str, flags: &str| {
        let line = format!("--objective sft --adapter lora --validation off --out model {flags}");
        shell.says(&format!("train --model {} --data {data} {line}", speaker()))
    };
    shell.write("strange.jsonl", "{\"colour\": 1}\n{\"colour\": 2}\n");
    tune("strange.jsonl", "").fails(2, "strange.jsonl, line 1: expected fields of one of these kinds: ");
    shell.write("empty.jsonl", "");
    tune("empty.jsonl", "").fails(2, "empty.jsonl has no row to train on");
    let question = r#"{"messages": [{"role": "user", "content": "Is nobody there?"}]}"#;
    shell.write("questions.jsonl", &format!("{question}\n{question}\n"));
    tune("questions.jsonl", "").fails(2, "none of 2 rows gives an example: ");
    // So short that the question alone fills it: every label is masked.
    tune("chat.jsonl", "--seq-len 8").fails(2, "none of 30 rows gives an example: ");
    shell.write("broken.jsonl", "{\"messages\": [\n");
    tune("broken.jsonl", "").fails(2, "broken.jsonl");
}

#[test]
fn numbers_that_are_not_finite_end_a_run_and_spare_its_checkpoint() {
    let shell = Shell::new();
    let line = "train tiny.toml --steps 60";
    shell.says(&format!("{line} --out whole")).succeeds();
    shell.kill_after(22, line, "run");
    let burst = shell.says(&format!("{line} --out run --resume --learning-rate 1e38 --set clip=0"));
    burst.fails(1, "are not finite, so the step was not made; not finite are: ");
    assert!(burst.stderr.contains("error: step 2"), "{}", burst.stderr);
    assert!(burst.stderr.contains("model.layers.0."), "tensors are named: {}", burst.stderr);
    assert!(burst.stderr.contains("hint: the last checkpoint is intact"), "{}", burst.stderr);
    assert!(newest_checkpoint(&shell.path("run")).unwrap().ends_with("step-20"));
    shell.says(&format!("{line} --out run --resume")).succeeds();
    shell.check_same("whole", "run");
}

/// The limit of the size of a file stands for a disk that is full: it lets the model be written, and no checkpoint.
#[cfg(unix)]
#[test]
fn a_full_disk_is_told_and_spares_the_last_checkpoint() {
    let shell = Shell::new();
    let line = "train tiny.toml --steps 60";
    shell.says(&format!("{line} --out whole")).succeeds();
    shell.kill_after(22, line, "run");
    let trainer = newest_checkpoint(&shell.path("run")).unwrap().join("trainer.safetensors");
    let n_blocks = fs::metadata(trainer).unwrap().len() / 512 / 2;
    let limited = format!(
        "trap '' XFSZ; ulimit -f {n_blocks}; exec \"$0\" {line} --out run --resume --set save-every=5"
    );
    let output = shell.command("sh", &["-c", &limited, program()]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("trainer.safetensors"), "{stderr}");
    assert!(stderr.contains("hint: checkpoints that were complete are intact"), "{stderr}");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let left: Vec<_> = fs::read_dir(shell.path("run/checkpoints")).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_str().unwrap().ends_with(".part")));
    assert!(newest_checkpoint(&shell.path("run")).unwrap().ends_with("step-20"));
    shell.says(&format!("{line} --out run --resume")).succeeds();
    shell.check_same("whole", "run");
}

#[test]
fn a_folder_that_holds_a_run_is_neither_overwritten_nor_taken_for_another() {
    let shell = Shell::new();
    shell.says("train tiny.toml --steps 6 --out run").succeeds();
    let before = fs::read(shell.path("run/model.safetensors")).unwrap();
    let held = shell.says("train tiny.toml --steps 6 --out run");
    held.fails(2, "run holds a run already");
    assert!(held.stderr.contains("hint: --resume goes on with it"), "{}", held.stderr);
    shell.write("other.txt", &fs::read_to_string(shell.path("text.txt")).unwrap().replace("woof", "wow"));
    for other in ["--seed 2", "--set optimizer=lion", "--batch-size 4", "--set ema=0.5", "--data other.txt"] {
        let line = format!("train tiny.toml --steps 6 --out run --resume {other}");
        shell.says(&line).fails(2, "it belongs to a run with another model, other data or other options");
    }
    fs::write(shell.path("run/checkpoints/step-6/trainer.json"), "{").unwrap();
    shell.says("train tiny.toml --steps 6 --out run --resume").fails(2, "step-6");
    assert_eq!(fs::read(shell.path("run/model.safetensors")).unwrap(), before);
}

#[test]
fn an_adapter_of_another_run_is_refused_as_a_model_to_train() {
    let shell = Shell::new();
    let line = format!(
        "train --model {} --data chat.jsonl --validation off --objective sft --adapter lora --steps 2 --batch-size 2",
        speaker()
    );
    shell.says(&format!("{line} --out adapter")).succeeds();
    let again = line.replace(&speaker(), "adapter");
    shell.says(&format!("{again} --out two")).fails(2, "adapter is an adapter, not a model");
}
