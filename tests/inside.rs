//! Looks inside models as a person would: a model is trained until it has induction heads, and they are found.
#![forbid(unsafe_code)]

#[allow(dead_code)]
mod learning;

use learning::{Shell, speaker};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The highest score of that name in a layer.
fn highest(report: &Value, layer: u64, score: &str) -> f64 {
    let heads = report["heads"].as_array().unwrap().iter().filter(|head| head["layer"] == layer);
    heads.map(|head| head[score].as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn two_layers_of_attention_learn_an_induction_head_from_a_previous_token_head() {
    let shell = Shell::new();
    shell.says("train induction --out model").succeeds();
    let heads = |model: &str| json(shell.says(&format!("inspect {model} --heads --json")).succeeds());
    let (before, after) = (heads("model/base"), heads("model"));
    for layer in [0, 1] {
        for score in ["previous_token", "induction", "prefix_matching"] {
            let got = highest(&before, layer, score);
            assert!(got < 0.3, "{score} of {got} in layer {layer} before training");
        }
    }
    assert!(highest(&after, 0, "previous_token") > 0.5, "{after}");
    assert!(highest(&after, 1, "induction") > 0.5, "{after}");
    assert!(highest(&after, 1, "copying") > 0.5, "an induction head copies what it finds: {after}");
    assert!(highest(&after, 0, "induction") < 0.2, "one layer cannot: {after}");
    let kinds = after["heads"].as_array().unwrap().iter().map(|head| (&head["layer"], &head["kind"]));
    let kinds: Vec<String> = kinds.map(|(layer, kind)| format!("{layer} {kind}")).collect();
    assert!(
        kinds.contains(&"0 \"previous-token\"".into()) && kinds.contains(&"1 \"induction\"".into()),
        "{kinds:?}"
    );

    // What has been seen once is foretold the second time, by the trained model alone.
    let number = |report: &Value, name: &str| report[name].as_f64().unwrap();
    assert!(number(&before, "in_context_score").abs() < 0.1, "{before}");
    assert!(number(&after, "loss_second_copy") < 0.5 * number(&after, "loss_first_copy"), "{after}");
    assert!(number(&after, "in_context_score") < -1.5, "{after}");

    // The induction heads read where the previous-token head has written, in their keys.
    let pairs = json(shell.says("inspect model --composition --json").succeeds());
    let writes: Vec<&Value> = after["heads"].as_array().unwrap().iter().filter(|h| h["layer"] == 0).collect();
    let most = |a: &&&Value, b: &&&Value| {
        a["previous_token"].as_f64().unwrap().total_cmp(&b["previous_token"].as_f64().unwrap())
    };
    let previous = &writes.iter().max_by(most).unwrap()["head"];
    assert_eq!((&pairs[0]["by"], &pairs[0]["from"][1]), (&"key".into(), previous), "{}", pairs[0]);
    assert!(pairs[0]["score"].as_f64().unwrap() > 0.1);

    // And patching shows it: the answer depends on the token after the earlier occurrence.
    let said = shell.run(&["inspect", "model", "--patch", "eKzUnO4eK", "eKxUnO4eK", "--json"]);
    let patching = json(said.succeeds());
    assert_eq!((&patching["answer"], &patching["wrong"]), (&"z".into(), &"x".into()));
    let recovered = |depth: u64, position: u64| {
        let all = patching["residual"].as_array().unwrap();
        all.iter().find(|p| p["depth"] == depth && p["position"] == position).unwrap()["recovered"]
            .as_f64()
            .unwrap()
    };
    assert!((recovered(0, 2) - 1.0).abs() < 1e-3 && (recovered(2, 8) - 1.0).abs() < 1e-3);
    assert!(recovered(1, 2) > 0.5 && recovered(2, 2).abs() < 1e-3, "{patching}");
}

#[test]
fn pictures_are_drawn_and_tables_are_printed() {
    let shell = Shell::new();
    let model = speaker();
    let said = shell.says(&format!("inspect {model} --heads --segment 8 --svg heads.svg"));
    assert!(
        said.succeeds().contains("INDUCTION") && said.stdout.contains("loss of random tokens"),
        "{}",
        said.stdout
    );
    let said = shell.run(&["inspect", &model, "--head", "0.1", "--prompt", "one two", "--svg", "map.svg"]);
    assert!(said.succeeds().starts_with("TOKEN"), "{}", said.stdout);
    let said = shell.run(&["inspect", &model, "--logit-lens", "one two", "--svg", "lens.svg"]);
    assert!(said.succeeds().contains("after layer 1"), "{}", said.stdout);
    for file in ["heads.svg", "map.svg", "lens.svg"] {
        let svg = std::fs::read_to_string(shell.path(file)).unwrap();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("<rect x="), "{file}");
    }
    let map =
        json(shell.run(&["inspect", &model, "--head", "0.1", "--prompt", "one two", "--json"]).succeeds());
    let rows = map["map"].as_array().unwrap();
    assert_eq!(rows.len(), map["tokens"].as_array().unwrap().len());
    for row in rows {
        let sum: f64 = row.as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5);
    }
}

#[test]
fn questions_that_a_model_cannot_answer_are_refused() {
    let shell = Shell::new();
    let model = speaker();
    shell.run(&["inspect", &model, "--head", "9.0", "--prompt", "one"]).fails(2, "there is no head 9.0");
    shell.run(&["inspect", &model, "--head", "0.1"]).fails(2, "--prompt");
    shell.run(&["inspect", &model, "--svg", "x.svg"]).fails(2, "required");
    shell.run(&["inspect", &model, "--heads", "--composition"]).fails(2, "cannot be used with");
    shell.run(&["inspect", &model, "--patch", "a", "a a a a"]).fails(2, "they must have as many");
    std::fs::create_dir(shell.path("lstm")).unwrap();
    shell.write(
        "lstm/config.json",
        r#"{"architectures": ["AwdLstmForCausalLM"], "model_type": "awd_lstm",
        "vocab_size": 9, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2}"#,
    );
    let vocabulary = std::fs::read(std::path::Path::new(&model).join("tokenizer.json")).unwrap();
    std::fs::write(shell.path("lstm/tokenizer.json"), vocabulary).unwrap();
    rhetor_models::init::write(&shell.path("lstm"), 1).unwrap();
    shell.says("inspect lstm --heads").fails(1, "awd-lstm is no decoder with attention heads of its own");
}

#[test]
fn a_model_is_estimated_by_name_by_configuration_and_by_file() {
    let shell = Shell::new();
    let estimate = |line: &str| json(shell.says(&format!("estimate {line} --json")).succeeds());
    let llama = estimate("llama-2-7b --train full --bandwidth 50 --flops 1000");
    for (name, expected) in [
        ("parameters", 6_738_415_616u64),
        ("weight_bytes", 13_476_831_232),
        ("kv_bytes", 2_147_483_648),
        ("training_optimizer_bytes", 8 * 6_738_415_616),
    ] {
        assert_eq!(llama[name], expected, "{name}");
    }
    assert_eq!(llama["given_machine_decode"]["wall"], "memory binds");
    assert_eq!(llama["given_machine_prefill"]["wall"], "operations bind");
    let config = r#"{"model_type": "llama", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}"#;
    shell.write("small.json", config);
    let small = estimate("small.json --dtype f32 --kv f32 --context 32 --batch 3");
    let n_parameters = 2 * 100 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32;
    assert_eq!(
        (&small["parameters"], &small["weight_bytes"]),
        (&n_parameters.into(), &(4 * n_parameters).into())
    );
    // Values of a head of 8 are kept as 16.
    assert_eq!(small["kv_bytes"], 3 * 2 * 4 * 32 * (8 + 16) * 4);
    let stored = estimate(&format!("{} --context 64", speaker()));
    let inspected = json(shell.says(&format!("inspect {} --json", speaker())).succeeds());
    assert_eq!(
        (&stored["parameters"], &stored["weight_bytes"]),
        (&inspected["parameters"], &inspected["tensor_bytes"])
    );
    shell.says("estimate llama-99b").fails(2, "known without files: llama-7b");
    shell.says("estimate llama-7b --dtype q9").fails(2, "there are f32, f16");
    shell.says("estimate llama-7b --flops 5").fails(2, "--bandwidth");
}

#[test]
fn families_and_their_history_are_listed_and_explained() {
    let shell = Shell::new();
    let listed = json(shell.says("list families --json").succeeds());
    let falcon = listed.as_array().unwrap().iter().find(|family| family["name"] == "falcon").unwrap();
    assert_eq!((&falcon["classes"][0], &falcon["gguf"]), (&"FalconForCausalLM".into(), &"falcon".into()));
    let published = falcon["published"].as_array().unwrap();
    let seven = published.iter().find(|known| known["name"] == "falcon-7b").unwrap();
    assert_eq!((&seven["parameters"], &seven["licence"]), (&6_921_720_704u64.into(), &"open".into()));
    assert!(shell.says("list families").succeeds().contains("FalconForCausalLM"));

    let said = shell.says("explain falcon");
    for part in [
        "falcon-40b: 41,303,293,952 parameters, context 2,048, open",
        "in GGUF files: falcon",
        "blk.{i}.attn_qkv",
        "\"n_head\":71",
        "arXiv:2311.16867",
    ] {
        assert!(said.succeeds().contains(part), "no {part} in\n{}", said.stdout);
    }

    let chosen = json(shell.says("list timeline --since 2023-01 --min-size 10b --open --json").succeeds());
    let names: Vec<&str> =
        chosen.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"falcon-40b") && names.contains(&"Mixtral-8x7B-v0.1"), "{names:?}");
    for other in ["t5-11b", "phi-2", "llama-2-70b", "gpt-4"] {
        assert!(!names.contains(&other), "{other} is too old, too small or not open");
    }
    assert!(shell.says("list timeline").succeeds().contains("gpt-4"));
    shell.says("list recipes --open").fails(2, "choose from the timeline, not from recipes");
    shell.says("list timeline --since 2023-13").fails(2, "expected a month");
    shell.says("list timeline --min-size many").fails(2, "expected a number");
}
