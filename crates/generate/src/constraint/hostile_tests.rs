//! Constraints made to do harm, and nonsense: an error or a grammar, never a panic; and what is drawn is drawn fairly.

use super::Grammars;
use crate::Rng;
use crate::engine_tests::letters;
use crate::sampling::{Mask, Past, Sampler, Scratch};
use rhetor_lm::{Constraint, Sampling};
use std::sync::Arc;

/// Compiles, and takes the first steps of the walk.
fn try_out(grammars: &Grammars, constraint: &Constraint) -> Result<(), String> {
    let grammar = grammars.compile(constraint).map_err(|error| error.to_string())?;
    let mut state = grammar.begin(Arc::from([1]), None);
    for _ in 0..3 {
        let mask = state.mask()?;
        match (0..100).rev().find(|&id| mask.allows(id)) {
            Some(id) if id != 1 => state.commit(id)?,
            _ => break,
        }
    }
    Ok(())
}

#[test]
fn bombs_are_refused_or_defused() {
    let grammars = Grammars::new(&letters()).unwrap();
    let schema = |text: String| Constraint::JsonSchema(text);
    let doubled = |name: &str, body: &dyn Fn(usize) -> String| -> String {
        (0..40).map(|i| format!("{name}{i} {}\n", body(i + 1))).collect::<String>()
    };
    let all_of = (0..30).fold("{}".to_string(), |inner, i| {
        format!("{{\"anyOf\":[{{\"minLength\":{i}}},{{\"maxLength\":{i}}}],\"allOf\":[{inner}]}}")
    });
    let properties: String = (0..3000).map(|i| format!("\"p{i}\":{{\"type\":\"string\"}},")).collect();
    let bombs = [
        Constraint::Regex("((a{1000}){1000}){1000}".to_string()),
        Constraint::Regex("(((a?){100}){100}){100}b".to_string()),
        Constraint::Regex(".*".repeat(500) + "x"),
        Constraint::Regex("(".repeat(100_000)),
        Constraint::Regex("(x".repeat(200) + &")*".repeat(200)),
        Constraint::Regex("[^a]{1,1000}[^b]{1,1000}c".to_string()),
        Constraint::Regex("x".repeat(2 << 20)),
        Constraint::Lark(format!("start: a0\n{}a40: \"x\"", doubled("a", &|i| format!(": a{i} a{i}"))).replace("a0 :", "a0:")),
        Constraint::Lark(format!("start: A0\n{}A40: \"x\"", doubled("A", &|i| format!(": A{i} A{i}"))).replace(" :", ":")),
        Constraint::Lark("start: ".to_string() + &"(".repeat(10_000)),
        Constraint::Lark("start: start start | \"a\" | \"\"".to_string()),
        Constraint::Gbnf(format!("root ::= a0\n{}a40 ::= \"x\"", doubled("a", &|i| format!("::= a{i} a{i}")))),
        Constraint::Gbnf("root ::= ((((\"a\"{2000}){2000}){2000}){2000})".to_string()),
        Constraint::Gbnf("root ::= root root | \"\"".to_string()),
        Constraint::Gbnf("root ::= ".to_string() + &"(".repeat(100_000)),
        schema("[".repeat(100_000)),
        schema(all_of),
        schema(format!("{{\"properties\":{{{properties}\"z\":{{}}}},\"additionalProperties\":false}}")),
        schema(r#"{"type":"string","minLength":100000,"pattern":"(a|b)*c"}"#.to_string()),
        schema(r#"{"type":"string","pattern":"^(([a-z]{1,50}){1,50}){1,50}$"}"#.to_string()),
        schema(r#"{"type":"array","minItems":10000,"items":{"type":"array","minItems":10000,"items":{"type":"array","minItems":10000}}}"#.to_string()),
        schema(r##"{"anyOf":[{"$ref":"#"},{"$ref":"#"}]}"##.to_string()),
        schema(r##"{"allOf":[{"$ref":"#"},{"type":"object"}]}"##.to_string()),
        schema(r#"{"type":"integer","multipleOf":1e-300}"#.to_string()),
        schema(r#"{"type":"integer","multipleOf":0}"#.to_string()),
        schema(r#"{"type":"number","minimum":1e308,"maximum":1.7e308}"#.to_string()),
        schema(r#"{"enum":[]}"#.to_string()),
    ];
    for bomb in bombs {
        let result = try_out(&grammars, &bomb);
        let text = format!("{bomb:?}").chars().take(90).collect::<String>();
        let result = format!("{result:?}").chars().take(160).collect::<String>();
        assert!(!result.contains("NoExtension"), "{text}: {result}");
        assert!(!result.contains("panic"), "{text}: {result}");
    }
}

#[test]
fn nonsense_of_every_kind_never_panics() {
    let grammars = Grammars::new(&letters()).unwrap();
    let words = [
        "root",
        "start",
        " ::= ",
        ": ",
        "\n",
        "\"a\"",
        "\"",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "{2,3}",
        "*",
        "+",
        "?",
        "|",
        "[a-z]",
        "[^\\x00]",
        "\\",
        "/",
        "/x/",
        "&",
        "~",
        "%json ",
        "%lark",
        "%ignore /x/",
        "{\"type\":",
        "\"object\"",
        "\"properties\":",
        ",",
        "1",
        "-1e400",
        "null",
        "\"$ref\":\"#\"",
        "\"pattern\":\"(\"",
        "é",
        "😀",
        "\u{0}",
        "^",
        "$",
        "(?i)",
        "\\p{L}",
        "\\b",
        "(?=x)",
        "<|x|>",
        "<[1-5]>",
        "#",
        "//",
        "@x",
        "::_",
        "[max_tokens=1]",
        "true",
        "A: ",
        "A",
    ];
    let mut n_compiled = 0;
    for seed in 0..1500 {
        let mut rng = Rng::new(seed, 0);
        let mut below = |n: usize| (rng.uniform() * n as f64) as usize;
        let text: String = (0..1 + below(12)).map(|_| words[below(words.len())]).collect();
        let constraint = match seed % 4 {
            0 => Constraint::Regex(text),
            1 => Constraint::Lark(format!("start: {text}")),
            2 => Constraint::Gbnf(format!("root ::= {text}")),
            _ => Constraint::JsonSchema(format!("{{\"type\":\"object\",{text}}}")),
        };
        match try_out(&grammars, &constraint) {
            Ok(()) => n_compiled += 1,
            Err(reason) => assert!(!reason.contains("panic"), "{constraint:?}: {reason}"),
        }
    }
    assert!(n_compiled > 50, "{n_compiled}");
}

#[test]
fn what_is_drawn_under_a_constraint_has_the_model_s_distribution_among_the_tokens_allowed() {
    let tokenizer = letters();
    let constraint = Constraint::Regex("[b-f]x|[bd]y".to_string());
    let mut state =
        Grammars::new(&tokenizer).unwrap().compile(&constraint).unwrap().begin(Arc::from([1]), None);
    let mask = state.mask().unwrap();
    let n = tokenizer.n_tokens();
    let logits: Vec<f32> = (0..n).map(|i| ((i * 37 % 11) as f32) / 3.0).collect();
    let past = Past { tokens: &[], n_prompt: 0, breakers: &[] };
    let mut scratch = Scratch::default();
    let mut drawn = |mask: Option<&Mask>, sampling: Sampling| -> Vec<f64> {
        let mut sampler = Sampler::new(Arc::new(sampling), 5, 0);
        let mut counts = vec![0.0; n];
        for _ in 0..20_000 {
            counts[sampler.next_of(&logits, mask, &past, &mut scratch).unwrap() as usize] += 1.0 / 20_000.0;
        }
        counts
    };
    let allowed: Vec<usize> =
        ["b", "c", "d", "e", "f"].iter().map(|c| tokenizer.id(c).unwrap() as usize).collect();
    for temperature in [1.0f32, 0.6] {
        let sum: f64 = allowed.iter().map(|&i| f64::from((logits[i] / temperature).exp())).sum();
        let found = drawn(Some(&mask), Sampling { temperature, ..Sampling::default() });
        for id in 0..n {
            let weight = f64::from((logits[id] / temperature).exp());
            let expected = if allowed.contains(&id) { weight / sum } else { 0.0 };
            // Six standard deviations of 20,000 draws at p = 1/2.
            assert!((found[id] - expected).abs() < 0.0213, "token {id}: {} and {expected}", found[id]);
        }
    }
    // Two of the allowed tokens are kept by top-k, however many others are more likely.
    let sampling = Sampling { temperature: 1.0, top_k: 2, ..Sampling::default() };
    let found = drawn(Some(&mask), sampling);
    let mut best = allowed.clone();
    best.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let mut kept: Vec<usize> = (0..n).filter(|&id| found[id] > 0.0).collect();
    kept.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    assert_eq!(kept, best[..2]);
}
