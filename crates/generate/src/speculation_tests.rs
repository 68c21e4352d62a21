//! Tests of guessing ahead: it changes how many steps an answer takes, and nothing else.

use crate::engine::{Engine, EngineOptions};
use crate::engine_tests::{ask, fake_engine, ids, letters_to, request};
use crate::fake::Fake;
use crate::search::speculative::{Asked, Drafter, DrafterOptions, Guess, Speculator};
use rhetor_formats::Checkpoint;
use rhetor_lm::{Completion, FinishReason, LanguageModel, Prompt, Request, Sampling, Timings};
use rhetor_models::{LoadOptions, Model};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Knows the model, and is wrong wherever the length of the text is a multiple of `wrong_every`.
struct Knowing {
    n_tokens: usize,
    wrong_every: usize,
    /// Added to the logit of the token that ends a text.
    end_bias: f32,
}

impl Drafter for Knowing {
    fn draft(&mut self, asked: &[Asked]) -> Vec<Guess> {
        let guess = |asked: &Asked| {
            let mut text = asked.tokens.clone();
            for _ in 0..asked.n_max {
                let right = likeliest(&text, self.n_tokens, self.end_bias);
                let is_wrong = text.len().is_multiple_of(self.wrong_every);
                text.push(if is_wrong { (right + 1) % self.n_tokens as u32 } else { right });
            }
            let tokens = text.split_off(asked.tokens.len());
            Guess { classes: vec![1; tokens.len()], tokens }
        };
        asked.iter().map(guess).collect()
    }

    fn is_costly(&self) -> bool {
        false
    }
}

/// The likeliest token, control tokens left out but for the one that ends a text.
fn likeliest(text: &[u32], n_tokens: usize, end_bias: f32) -> u32 {
    let mut logits = Fake::logits(text.iter().copied(), n_tokens + 3);
    logits[1] += end_bias;
    let speaking = (0..n_tokens).filter(|id| *id == 1 || *id > 3);
    speaking.max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("a token") as u32
}

const N_TOKENS: usize = 100;

/// An engine on the fake model that guesses `n` tokens ahead in every step.
fn knowing(n_pages: usize, wrong_every: usize, n: usize) -> Engine {
    knowing_end(n_pages, wrong_every, n, f32::NEG_INFINITY)
}

fn knowing_end(n_pages: usize, wrong_every: usize, n: usize, end_bias: f32) -> Engine {
    let drafter = Box::new(Knowing { n_tokens: N_TOKENS, wrong_every, end_bias });
    fake_engine(n_pages, 512, 64, None, Some((Speculator::new(drafter, false), n)))
}

fn plain(n_pages: usize) -> Engine {
    fake_engine(n_pages, 512, 64, None, None)
}

/// An answer without what guesses may change.
fn unhurried(mut answers: Vec<Completion>) -> Vec<Completion> {
    for answer in &mut answers {
        answer.timings = Timings::default();
        answer.usage.cached_tokens = 0;
        (answer.usage.drafted_tokens, answer.usage.accepted_tokens) = (0, 0);
    }
    answers
}

#[test]
fn guesses_right_or_wrong_change_no_answer_whoever_else_asks_and_however_small_the_cache() {
    let engine = plain(256);
    let expected: Vec<_> = (0..16).map(|i| ids(&ask(&engine, &request(i)))).collect();
    for (n_pages, wrong_every, n) in [(256, 3, 6), (256, 1, 2), (36, 7, 16), (36, 2, 6)] {
        let engine = knowing(n_pages, wrong_every, n);
        let found: Vec<_> = std::thread::scope(|scope| {
            let engine = &engine;
            let callers = (0..16).map(|i| scope.spawn(move || ids(&ask(engine, &request(i)))));
            let callers: Vec<_> = callers.collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert_eq!(found, expected, "{n_pages} pages, every {wrong_every}th guess wrong");
        let stats = engine.stats();
        assert_eq!(stats.cache_pages_used, 0, "every page came back");
        assert!(stats.tokens_drafted > 0 && (wrong_every == 1 || stats.tokens_accepted > 20), "{stats:?}");
        // And again on what was left in the cache: no wrong guess was ever registered.
        let again: Vec<_> = (0..16).map(|i| ids(&ask(&engine, &request(i)))).collect();
        assert_eq!(again, expected);
    }
}

#[test]
fn sequences_that_are_put_back_lose_no_accepted_token() {
    let mut asked = Request::text("abc");
    (asked.n, asked.max_tokens) = (12, Some(400));
    asked.sampling =
        Sampling { temperature: 0.3, logit_bias: vec![(1, f32::NEG_INFINITY)], ..Sampling::default() };
    let tight = knowing(20, 5, 6);
    assert_eq!(ids(&ask(&tight, &asked)), ids(&ask(&plain(512), &asked)));
    let stats = tight.stats();
    assert!(stats.preemptions > 0 && stats.tokens_accepted > 100, "{stats:?}");
}

#[test]
fn an_answer_ends_where_it_would_also_in_the_middle_of_right_guesses() {
    let (slow, fast) = (plain(64), knowing(64, 1000, 16));
    let mut asked = Request::text("hello");
    asked.sampling.logit_bias = (0..4).map(|id| (id, f32::NEG_INFINITY)).collect();
    (asked.max_tokens, asked.logprobs) = (Some(75), Some(2));
    let whole = ask(&slow, &asked).remove(0);
    assert_eq!(unhurried(ask(&fast, &asked)), unhurried(vec![whole.clone()]), "at the limit");
    let usage = ask(&fast, &asked)[0].usage;
    assert_eq!(usage.drafted_tokens, usage.accepted_tokens, "nothing is guessed beyond the limit");
    // One token in the prompt's step, four steps of 17, and one of the 6 that are left.
    assert_eq!(usage.accepted_tokens, 4 * 16 + 5);
    asked.stop = vec![whole.text.chars().skip(30).take(3).collect()];
    let stopped = ask(&fast, &asked);
    assert_eq!(stopped[0].finish_reason, FinishReason::Stop);
    assert_eq!(unhurried(stopped), unhurried(ask(&slow, &asked)));
    asked.stop.clear();
    // The end is itself a guess, and right.
    let (mut asked, bias) = (asked, 0.7);
    asked.sampling.logit_bias = [0, 2, 3].map(|id| (id, f32::NEG_INFINITY)).into_iter().collect();
    asked.sampling.logit_bias.push((1, bias));
    let fast = knowing_end(64, 1000, 16, bias);
    let ends_within_a_step = |c: &char| {
        let asked = Request { prompt: Request::text(c.to_string()).prompt, ..asked.clone() };
        (5..15).contains(&ask(&slow, &asked)[0].token_ids.len())
    };
    asked.prompt =
        Request::text(('a'..='z').find(ends_within_a_step).expect("one of them").to_string()).prompt;
    let ended = ask(&fast, &asked);
    assert_eq!((ended[0].finish_reason, ended[0].token_ids.last()), (FinishReason::Stop, Some(&1)));
    let usage = ended[0].usage;
    assert_eq!((usage.accepted_tokens + 1, usage.drafted_tokens), (usage.completion_tokens, 16));
    assert_eq!(unhurried(ended), unhurried(ask(&slow, &asked)));
}

#[test]
fn a_request_says_how_far_ahead_is_guessed_and_an_engine_without_a_drafter_refuses() {
    let fast = knowing(64, 1000, 8);
    let usage = |engine: &Engine, speculate| {
        let mut asked = Request::text("hello");
        asked.sampling.logit_bias = (0..4).map(|id| (id, f32::NEG_INFINITY)).collect();
        (asked.max_tokens, asked.speculate) = (Some(61), speculate);
        engine.generate(&asked, &mut |_| ControlFlow::Continue(())).map(|answers| answers[0].usage)
    };
    let steps = |speculate| {
        let before = fast.stats().steps;
        let usage = usage(&fast, speculate).unwrap();
        (fast.stats().steps - before, usage.drafted_tokens)
    };
    assert_eq!(steps(Some(0)), (61, 0));
    // After the prompt's step 60 tokens are left, two, or nine, with each step.
    assert_eq!(steps(Some(1)), (1 + 30, 30));
    assert_eq!(steps(None), (1 + 7, 53));
    assert_eq!(steps(Some(100)), steps(None));
    assert_eq!(usage(&plain(64), Some(0)).unwrap().drafted_tokens, 0);
    let refused = usage(&plain(64), Some(1)).unwrap_err();
    assert!(matches!(refused, rhetor_lm::Error::InvalidOption { option: "speculate", .. }), "{refused}");
    let beams = Request { beams: 2, speculate: Some(1), ..Request::text("hello") };
    let refused = fast.generate(&beams, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(refused, rhetor_lm::Error::InvalidOption { option: "speculate", .. }), "{refused}");
}

#[test]
fn accepted_and_rejected_tokens_together_have_the_distribution_of_the_model() {
    // Two tokens after the first, each of the three likeliest at most: nine cells.
    let sampling = Sampling { temperature: 1.3, top_k: 3, ..Sampling::default() };
    let engine = knowing(64, 1000, 2);
    let top = |text: &[u32]| {
        let logits = Fake::logits(text.iter().copied(), N_TOKENS + 3);
        let mut ids: Vec<u32> = (0..N_TOKENS as u32).collect();
        ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        let weights: Vec<f64> =
            ids[..3].iter().map(|&id| (f64::from(logits[id as usize]) / 1.3).exp()).collect();
        let sum: f64 = weights.iter().sum();
        ids[..3].iter().copied().zip(weights.into_iter().map(move |w| w / sum)).collect::<Vec<_>>()
    };
    // A beginning after which no token ends the text.
    let speaks = |text: &[u32]| top(text).iter().all(|(id, _)| *id >= 4);
    let is_fit = |prompt: &[u32; 3]| {
        let begun = [&prompt[..], &[top(prompt)[0].0]].concat();
        let next = top(&begun).into_iter().map(|(id, _)| [&begun[..], &[id]].concat());
        speaks(prompt) && speaks(&begun) && next.into_iter().all(|text| speaks(&text))
    };
    let prompt = (10..90).map(|id| [40, 41, id]).find(is_fit).expect("most are");
    let first = top(&prompt)[0].0;
    let (mut counts, mut n, mut n_accepted, n_seeds) = (std::collections::HashMap::new(), 0, 0, 12_000);
    for seed in 0..n_seeds {
        let mut asked = Request::new(Prompt::Ids(prompt.to_vec()));
        (asked.max_tokens, asked.seed, asked.sampling) = (Some(3), seed, sampling.clone());
        let answer = ask(&engine, &asked).remove(0);
        if answer.token_ids[0] == first && answer.token_ids.len() == 3 {
            *counts.entry((answer.token_ids[1], answer.token_ids[2])).or_insert(0) += 1;
            n += 1;
            n_accepted += usize::from(answer.usage.accepted_tokens > 0);
        }
    }
    assert!(n > n_seeds / 4, "{n}");
    let mut chi_square = 0.0;
    for (second, p) in top(&[&prompt[..], &[first]].concat()) {
        for (third, q) in top(&[&prompt[..], &[first, second]].concat()) {
            let expected = n as f64 * p * q;
            let found = f64::from(counts.remove(&(second, third)).unwrap_or(0));
            chi_square += (found - expected).powi(2) / expected;
        }
    }
    assert!(counts.is_empty(), "{counts:?} can never be drawn");
    // 8 degrees of freedom: more than 26.1 comes once in a thousand.
    assert!(chi_square < 26.1, "χ² = {chi_square}");
    // A guess is accepted as often as the model would say it.
    let p = top(&[&prompt[..], &[first]].concat())[0].1;
    let (rate, sigma) = (n_accepted as f64 / n as f64, (p * (1.0 - p) / n as f64).sqrt());
    assert!((rate - p).abs() < 4.0 * sigma, "{rate} are accepted, {p} expected");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name)
}

fn engine(path: &Path, last: char, drafter: Option<DrafterOptions>) -> Option<Engine> {
    let checkpoint = Checkpoint::open(path).unwrap();
    let model = Model::load(&checkpoint, LoadOptions::default()).unwrap();
    let options = EngineOptions { drafter, now: Some(0), ..EngineOptions::default() };
    model.generates().then(|| Engine::new("fixture", model, letters_to(last), options).unwrap())
}

#[test]
fn every_decoder_says_the_same_with_prompt_look_up() {
    let (mut n_models, mut n_accepted) = (0, 0);
    for entry in std::fs::read_dir(fixture("")).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() || !path.join("config.json").is_file() {
            continue;
        }
        let look_up = DrafterOptions { is_adaptive: false, ..DrafterOptions::new("prompt-lookup") };
        let Some(slow) = engine(&path, '}', None) else { continue };
        let fast = engine(&path, '}', Some(look_up)).unwrap();
        for temperature in [0.0, 0.7] {
            let ids: Vec<u32> = (0..17).map(|i| 5 + i * i % 23).collect();
            let mut asked = Request::new(Prompt::Ids(ids));
            // Over the border of a page, and to the end of what the model was made for.
            asked.max_tokens = Some(40.min(slow.context_len() - 17));
            asked.sampling = Sampling { temperature, presence_penalty: 0.1, ..Sampling::default() };
            asked.sampling.logit_bias = vec![(1, f32::NEG_INFINITY)];
            (asked.n, asked.logprobs) = (2, Some(1));
            let found = ask(&fast, &asked);
            n_accepted += found.iter().map(|answer| answer.usage.accepted_tokens).sum::<usize>();
            let expected = ask(&slow, &asked);
            assert_eq!(unhurried(found), unhurried(expected), "{} at {temperature}", path.display());
        }
        n_models += 1;
    }
    assert!(n_models > 40 && n_accepted > 500, "{n_models} models, {n_accepted} tokens accepted");
}

#[test]
fn a_draft_head_changes_no_answer_among_others_and_in_a_small_cache() {
    // The head of EAGLE-3 is for the fixture `llama`; that of EAGLE-2 for a model of 40 tokens, 16 wide.
    let small = tempfile::tempdir().unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 40, "hidden_size": 16,
        "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64,
        "initializer_range": 0.2,
    });
    std::fs::write(small.path().join("config.json"), config.to_string()).unwrap();
    rhetor_models::init::write(small.path(), 1).unwrap();
    let heads = [("eagle2", small.path().to_path_buf(), '@'), ("eagle3", fixture("llama"), '}')];
    for (head, path, last) in heads {
        let slow = engine(&path, last, None).unwrap();
        let checkpoint = Some(fixture("").join("../eagle").join(head));
        let options = DrafterOptions { checkpoint, is_adaptive: false, ..DrafterOptions::new("eagle") };
        let fast = engine(&path, last, Some(options)).unwrap();
        let asked = |i: u64| {
            let ids: Vec<u32> = (0..9 + i as u32 % 5).map(|j| 5 + (j * j + i as u32) % 23).collect();
            let mut asked = Request::new(Prompt::Ids(ids));
            (asked.n, asked.logprobs) = (1 + i as usize % 2, Some(1));
            (asked.max_tokens, asked.seed) = (Some(slow.context_len() - 14), i);
            asked.sampling = Sampling { temperature: 0.5 * (i % 3) as f32, ..Sampling::default() };
            asked.sampling.logit_bias = vec![(1, f32::NEG_INFINITY)];
            asked
        };
        let expected: Vec<_> = (0..8).map(|i| unhurried(ask(&slow, &asked(i)))).collect();
        let together: Vec<_> = std::thread::scope(|scope| {
            let (fast, asked) = (&fast, &asked);
            let callers = (0..8).map(|i| scope.spawn(move || unhurried(ask(fast, &asked(i)))));
            let callers: Vec<_> = callers.collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert_eq!(together, expected, "{head}");
        let stats = fast.stats();
        assert!(stats.tokens_drafted > 500 && stats.preemptions > 0, "{head}: {stats:?}");
    }
}

#[test]
fn a_constraint_holds_for_what_was_guessed_too() {
    let (slow, fast) = (plain(64), knowing(64, 4, 6));
    let mut asked = Request::text("say something");
    asked.constraint = Some(rhetor_lm::Constraint::Regex("(abc|[x-z]{4}){8,20}!".to_string()));
    for temperature in [0.0, 1.2] {
        asked.sampling.temperature = temperature;
        let found = ask(&fast, &asked);
        assert!(found[0].text.ends_with('!') && found[0].usage.drafted_tokens > 20, "{found:?}");
        assert_eq!(unhurried(found), unhurried(ask(&slow, &asked)));
    }
}
