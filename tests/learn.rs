//! Trains tiny models as a person would: what is learnt is used, and what is promised of runs is true to the bit.
#![forbid(unsafe_code)]

#[allow(dead_code)]
mod learning;

use expect_test::expect;
use learning::{Shell, newest_checkpoint, speaker};
use std::fs;

/// Fine-tuning of the fixture by an adapter with dropout, its moments in eight bits.
fn lora() -> String {
    format!(
        "train --model {} --data chat.jsonl --validation off --objective sft --adapter lora --rank 4 --steps 20 \
         --batch-size 4 --seq-len 96 --learning-rate 1e-3 --set adapter-options.dropout=0.2 \
         --set optimizer=adam8bit --set save-every=6",
        speaker()
    )
}

#[test]
fn a_model_learns_from_a_recipe_and_continues_a_text() {
    let shell = Shell::new();
    let done = shell.says("train tiny.toml --out model --steps 150");
    assert_eq!(done.succeeds(), "model\n");
    let losses = shell.numbers("model", "validation", "loss");
    assert!(losses.last().unwrap() < &0.8 && losses[0] > 2.0, "{losses:?}");
    let text =
        shell.run(&["generate", "model", "--raw", "-p", "The cow says moo, moo, and ", "--max-tokens", "8"]);
    assert!(text.succeeds().trim().ends_with(" times"), "{}", text.stdout);
    for file in ["config.json", "tokenizer.json", "model.safetensors", "loss.svg", "rhetor.json"] {
        assert!(shell.path("model").join(file).is_file(), "{file}");
    }
    let receipt = fs::read_to_string(shell.path("model/rhetor.json")).unwrap();
    let receipt: serde_json::Value = serde_json::from_str(&receipt).unwrap();
    assert_eq!((&receipt["steps"], &receipt["recipe"]["seq-len"]), (&150.into(), &32.into()));
}

#[test]
fn a_small_bert_learns_what_stands_behind_masks() {
    let shell = Shell::new();
    let sizes = "--set config.hidden_size=32 --set config.intermediate_size=64 --set config.max_position_embeddings=32";
    let line = format!(
        "train bert-mlm --data text.txt --validation off --seq-len 32 --batch-size 8 --steps 800 --learning-rate 3e-3 \
         --set warmup=10 {sizes} --out bert --set"
    );
    let mut args: Vec<&str> = line.split_whitespace().collect();
    args.push("tokenizer=train wordpiece 120");
    shell.run(&args).succeeds();
    let losses = shell.numbers("bert", "step", "loss");
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..10]), mean(&losses[losses.len() - 10..]));
    assert!(last < 0.6 * first, "{first} {last}");
    let filled = shell.run(&["fill-mask", "bert", "The cow says moo, [MASK], and 3 times moo."]);
    let best = filled.succeeds().lines().next().unwrap();
    let is_sound =
        ["moo", "woof", "meow"].iter().any(|sound| best.contains(&format!("says moo , {sound} , and")));
    assert!(is_sound, "{}", filled.stdout);
}

#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let shell = Shell::new();
    let line = "train tiny.toml --steps 60 --set ema=0.9";
    shell.says(&format!("{line} --out whole")).succeeds();
    shell.kill_after(23, line, "broken");
    assert!(!shell.path("broken/model.safetensors").exists(), "it was killed in the middle");
    // What a power cut in the middle of a checkpoint leaves behind.
    fs::create_dir_all(shell.path("broken/checkpoints/.step-25.part")).unwrap();
    let resumed = shell.says(&format!("{line} --out broken --resume"));
    resumed.succeeds();
    assert!(resumed.stderr.contains("going on after step 20 of 60"), "{}", resumed.stderr);
    shell.check_same("whole", "broken");
}

#[test]
fn a_killed_run_with_dropout_and_eight_bit_moments_goes_on_to_the_same_bytes() {
    let shell = Shell::new();
    let line = lora();
    shell.says(&format!("{line} --out whole")).succeeds();
    shell.kill_after(14, &line, "broken");
    shell.says(&format!("{line} --out broken --resume")).succeeds();
    shell.check_same("whole", "broken");
    let without = line.replace("dropout=0.2", "dropout=0");
    shell.says(&format!("{without} --out without")).succeeds();
    let losses = |out| shell.numbers(out, "step", "loss");
    assert_ne!(losses("whole")[1..], losses("without")[1..], "dropout does something");
}

#[test]
fn a_finished_run_that_is_resumed_changes_nothing() {
    let shell = Shell::new();
    shell.says("train tiny.toml --out whole").succeeds();
    shell.says("train tiny.toml --out whole --resume").succeeds();
    let checkpoint = newest_checkpoint(&shell.path("whole")).unwrap();
    assert!(checkpoint.ends_with("step-24"), "a run that has ended has nothing to do");
    assert_eq!(shell.numbers("whole", "step", "loss").len(), 24);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let shell = Shell::new();
    for (line, name) in [("train tiny.toml".to_string(), "full"), (lora(), "lora")] {
        let out = |n| format!("{name}-{n}");
        for n in [1, 2] {
            shell.says(&format!("{line} --threads {n} --out {}", out(n))).succeeds();
        }
        shell.check_same(&out(1), &out(2));
    }
}

#[test]
fn a_batch_in_many_passes_learns_as_in_one() {
    let shell = Shell::new();
    // 8 examples of 32 rows: one pass, and one for each example.
    shell.says("train tiny.toml --out one --set rows-max=4096").succeeds();
    shell.says("train tiny.toml --out many --set rows-max=32").succeeds();
    for kind in ["step", "validation"] {
        let (one, many) = (shell.numbers("one", kind, "loss"), shell.numbers("many", kind, "loss"));
        assert_eq!(one.len(), many.len());
        for (one, many) in one.iter().zip(&many) {
            assert!((one - many).abs() < 1e-4 * one, "{one} and {many}");
        }
    }
}

#[test]
fn packed_examples_have_the_loss_of_unpacked_ones() {
    let shell = Shell::new();
    let without = |line: String, flag: &str| line.replace(flag, "");
    let line = without(without(lora(), "--steps 20 --batch-size 4 --seq-len 96"), "=0.2");
    let line = line.replace("options.dropout", "options.dropout=0");
    let epoch = |packing: bool, out: &str| {
        let line = format!("{line} --set packing={packing} --out {out} --seq-len 256");
        let plan = shell.says(&format!("{line} --batch-size 1 --dry-run --json"));
        let plan: serde_json::Value = serde_json::from_str(plan.succeeds()).unwrap();
        let n_items = plan["n_steps"].as_u64().unwrap();
        shell.says(&format!("{line} --steps 1 --batch-size {n_items}")).succeeds();
        let number = |name| shell.numbers(out, "step", name)[0];
        (n_items, number("weight"), number("loss"), number("gradient_norm"))
    };
    let (n_examples, weight, loss, norm) = epoch(false, "unpacked");
    let (n_packed, weight_packed, loss_packed, norm_packed) = epoch(true, "packed");
    assert_eq!(n_examples, 30);
    assert!(n_packed <= 15, "{n_packed} rows of the batch hold 30 examples");
    assert_eq!(weight, weight_packed);
    assert!((loss - loss_packed).abs() < 1e-5 * loss, "{loss} and {loss_packed}");
    assert!((norm - norm_packed).abs() < 1e-4 * norm, "{norm} and {norm_packed}");
}

#[test]
fn a_dry_run_says_what_would_be_and_writes_nothing() {
    let shell = Shell::new();
    let said = shell.says("train tiny.toml --out model --dry-run");
    let kept = said.succeeds().lines().filter(|line| !line.starts_with("time"));
    expect![[r#"
        parameters  19k in the model, 19k trained
        memory      902 kB (weights 78.0 kB, gradients 78.0 kB, optimizer 156 kB, activations 590 kB)
        steps       24 of 8 examples, about 256 tokens each
        validation  15 examples
        first example, what is learnt in ⟦brackets⟧:
        m⟦es meow.
        The dog says woof, woof⟧
    "#]]
    .assert_eq(&kept.map(|line| format!("{line}\n")).collect::<String>());
    assert!(!shell.path("model").exists());
}

#[test]
fn the_answer_and_nothing_else_is_learnt_in_conversations() {
    let shell = Shell::new();
    let said = shell.says(&format!("{} --out model --dry-run", lora()));
    let (_, first) = said.succeeds().split_once("brackets⟧:\n").unwrap();
    expect![[r#"
        <|im_start|>user
        What is 25?<|im_end|>
        <|im_start|>assistant
        ⟦one and nothing more<|im_end|>⟧
    "#]]
    .assert_eq(first);
}

#[test]
fn flags_take_precedence_over_the_recipe_and_all_values_are_shown() {
    let shell = Shell::new();
    let line = "train tiny.toml --seq-len 16 --rank 4 --set optimizer=lion --set optimizer-options.beta1=0.95 \
                --show-recipe";
    let shown = shell.says(line);
    expect![[r#"
        tokenizer = "train characters"
        data = ["text.txt"]
        validation = "tail 10%"
        validation-max = 1000
        objective = "causal-lm"
        adapter = "full"
        targets = ""
        modules-to-save = []
        layers = []
        bias = "none"
        init = "default"
        optimizer = "lion"
        decay = "no-bias-norm"
        learning-rate = 0.005
        rate-decay = 1.0
        unfreeze-every = 0.0
        schedule = "cosine"
        warmup = 2.0
        steps = 24
        epochs = 1.0
        batch-size = 8
        seq-len = 16
        rows-max = 2048
        packing = false
        document-mask = false
        windows = "anywhere"
        clip = 1.0
        precision = "f32"
        recompute = false
        ema = 0.0
        seed = 0
        validate-every = 6
        save-every = 5
        keep = 2
        best = false
        patience = 0

        [config]
        architectures = ["LlamaForCausalLM"]
        hidden_size = 32
        intermediate_size = 64
        max_position_embeddings = 64
        model_type = "llama"
        num_attention_heads = 4
        num_hidden_layers = 2
        num_key_value_heads = 2
        rms_norm_eps = 0.000001
        tie_word_embeddings = true

        [objective-options]

        [adapter-options]
        rank = 4.0

        [optimizer-options]
        beta1 = 0.95

        [schedule-options]
    "#]]
    .assert_eq(shown.succeeds());
    // What is shown is a recipe.
    shell.write("again.toml", &shown.stdout);
    assert_eq!(shell.says("train again.toml --show-recipe").succeeds(), shown.stdout);
}

#[test]
fn a_ladder_of_models_foretells_the_next() {
    let shell = Shell::new();
    let line =
        "train scaling tiny.toml --widths 8,16,24,32 --held-out 40 --tokens-per-parameter 4 --out ladder";
    let said = shell.says(&format!("{line} --json"));
    let report: serde_json::Value = serde_json::from_str(said.succeeds()).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let losses: Vec<f64> =
        report["rungs"].as_array().unwrap().iter().map(|rung| number(&rung["loss"])).collect();
    assert!(losses.len() == 4 && losses[3] < losses[0], "{losses:?}");
    assert!(number(&report["law"]["b"]) < 0.0);
    let (predicted, actual) = (number(&report["predicted"]), number(&report["held_out"]["loss"]));
    assert!((number(&report["error"]) - (predicted - actual).abs() / actual).abs() < 1e-12);
    // Parameters of width 8, counted by hand: 1 layer (2 layers at 32), 1 head of 8 with its own keys and values, 16 inside.
    let n_parameters = number(&report["rungs"][0]["n_parameters"]);
    assert_eq!(n_parameters, f64::from(4 * 8 * 8 + 3 * 8 * 16 + 2 * 8 + 8));
    for file in ["runs.csv", "scaling.json", "scaling.svg", "width-8/model.safetensors"] {
        assert!(shell.path("ladder").join(file).is_file(), "{file}");
    }
    // What is finished is not run again.
    assert_eq!(shell.says(&format!("{line} --json")).succeeds(), said.stdout);
    shell
        .says("train scaling tiny.toml --widths 8,12,16 --out x")
        .fails(2, "heads of this recipe are 8 wide");
    shell.says("train scaling tiny.toml --widths 8,16 --out x").fails(2, "needs three widths or more");
}
