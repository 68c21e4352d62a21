//! Constrained answers of the engine on a fake model: every way of choosing, alone and in company.

use crate::engine_tests::{ask, engine, engine_with};
use rhetor_lm::{Completion, Constraint, Error, FinishReason, LanguageModel, Request, Sampling};
use std::ops::ControlFlow;

fn request(constraint: Constraint) -> Request {
    let mut request = Request::text("say something");
    (request.constraint, request.max_tokens) = (Some(constraint), Some(300));
    request
}

fn regex(text: &str) -> Constraint {
    Constraint::Regex(text.to_string())
}

fn texts(completions: &[Completion]) -> Vec<&str> {
    completions.iter().map(|completion| completion.text.as_str()).collect()
}

/// Whether a text is `[a-c]{2,9}` in parentheses.
fn is_word(text: &str) -> bool {
    let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    inner.is_some_and(|inner| {
        (2..=9).contains(&inner.len()) && inner.bytes().all(|byte| (b'a'..=b'c').contains(&byte))
    })
}

#[test]
fn every_sampler_sees_only_what_may_follow() {
    let engine = engine(64);
    let base = Sampling { temperature: 1.5, ..Sampling::default() };
    let samplings = [
        Sampling::default(),
        base.clone(),
        Sampling { top_k: 2, ..base.clone() },
        Sampling { top_p: 0.3, ..base.clone() },
        Sampling { min_p: 0.9, ..base.clone() },
        Sampling { typical_p: 0.2, ..base.clone() },
        Sampling { xtc_probability: 1.0, ..base.clone() },
        Sampling { mirostat_tau: 3.0, ..base.clone() },
        Sampling { repetition_penalty: 1.5, frequency_penalty: 1.0, presence_penalty: 1.0, ..base.clone() },
        Sampling { dry_multiplier: 2.0, ..base.clone() },
        Sampling { logit_bias: vec![(90, 50.0)], ..base.clone() },
    ];
    for sampling in samplings {
        let mut asked = request(regex(r"\([a-c]{2,9}\)"));
        (asked.sampling, asked.n) = (sampling, 5);
        for answer in ask(&engine, &asked) {
            assert!(is_word(&answer.text), "{:?} of {:?}", answer.text, asked.sampling);
            assert_eq!(answer.finish_reason, FinishReason::Stop);
            assert_eq!(answer.constraint, Some("regex"));
            assert_eq!(answer.usage.constrained_tokens, answer.usage.completion_tokens);
            assert_eq!(answer.usage.completion_tokens, answer.text.len(), "no token is spent on the end");
        }
    }
}

#[test]
fn beams_follow_the_constraint_each_on_its_own() {
    let engine = engine(64);
    let mut asked = request(regex(r"\([a-c]{2,9}\)"));
    (asked.beams, asked.n) = (4, 3);
    let answers = ask(&engine, &asked);
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| is_word(&answer.text)), "{:?}", texts(&answers));
    assert!(answers.iter().all(|answer| answer.finish_reason == FinishReason::Stop));
    assert_ne!(answers[0].text, answers[1].text);
    assert_eq!(answers[0].token_ids.last(), Some(&1), "a beam pays for its end");
}

#[test]
fn a_sequence_that_is_put_back_keeps_its_place_in_the_grammar() {
    let mut asked = request(regex("([a-c]{40} ){7}"));
    asked.n = 12;
    asked.sampling = Sampling { temperature: 1.0, ..Sampling::default() };
    let (roomy, tight) = (engine(512), engine(20));
    let expected = ask(&roomy, &asked);
    assert_eq!(texts(&expected), texts(&ask(&tight, &asked)));
    assert!(tight.stats().preemptions > 0);
    assert!(expected.iter().all(|answer| answer.text.len() == 7 * 41));
}

#[test]
fn constrained_answers_are_the_same_alone_and_among_others() {
    let one = |engine: &crate::Engine, i: u64| {
        let constraint = match i % 3 {
            0 => Constraint::Json,
            1 => regex("[a-z]+( [a-z]+)*"),
            _ => Constraint::Lark("start: \"(\" start* \")\"".to_string()),
        };
        let mut asked = request(constraint);
        (asked.seed, asked.n, asked.max_tokens) = (i, 2, Some(60));
        asked.sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        ask(engine, &asked).iter().map(|answer| answer.token_ids.clone()).collect::<Vec<_>>()
    };
    let alone: Vec<_> = (0..12).map(|i| one(&engine(256), i)).collect();
    let engine = engine_with(64, 512, 48, None);
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..12)
            .map(|i| {
                scope.spawn({
                    let engine = &engine;
                    move || one(engine, i)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
}

#[test]
fn an_answer_that_is_cut_off_says_so_and_one_that_is_complete_does_not() {
    let engine = engine(64);
    let mut asked = request(regex("a{20}"));
    asked.max_tokens = Some(19);
    let cut = &ask(&engine, &asked)[0];
    assert_eq!((cut.text.len(), cut.finish_reason), (19, FinishReason::Length));
    asked.max_tokens = Some(20);
    let whole = &ask(&engine, &asked)[0];
    assert_eq!((whole.text.len(), whole.finish_reason), (20, FinishReason::Stop));
    // An open end is the model's to choose; cut off, it is not complete.
    let mut open = request(regex("a+"));
    open.max_tokens = Some(5);
    open.sampling.logit_bias = vec![(1, f32::NEG_INFINITY)];
    assert_eq!(ask(&engine, &open)[0].finish_reason, FinishReason::Length);
}

#[test]
fn a_trivial_constraint_changes_nothing_but_the_end() {
    let engine = engine(64);
    let mut free = Request::text("say something");
    (free.max_tokens, free.n) = (Some(200), 4);
    // Control tokens are no text: a constraint forbids them.
    free.sampling = Sampling { temperature: 1.0, ..Sampling::default() };
    free.sampling.logit_bias = [0, 2, 3].map(|id| (id, f32::NEG_INFINITY)).to_vec();
    let mut any = free.clone();
    any.constraint = Some(regex("(?s:.*)"));
    let (free, any) = (ask(&engine, &free), ask(&engine, &any));
    assert_eq!(texts(&free), texts(&any));
    assert!(any[0].usage.constrained_tokens > 0);
    assert_eq!((free[0].usage.constrained_tokens, free[0].constraint), (0, None));
}

#[test]
fn a_request_whose_tokens_are_all_forbidden_fails_and_says_why() {
    let engine = engine(64);
    let mut asked = request(regex("a"));
    let a = engine.tokenizer().id("a").unwrap();
    asked.sampling.logit_bias = vec![(a, f32::NEG_INFINITY)];
    let error = engine.generate(&asked, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("no token that may follow"), "{error}");
    let bad = request(Constraint::JsonSchema("{".to_string()));
    let error = engine.generate(&bad, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, Error::Constraint { kind: "json_schema", .. }), "{error}");
}

#[test]
fn log_probabilities_stay_those_of_the_model() {
    let engine = engine(64);
    let mut asked = request(regex("abc"));
    asked.logprobs = Some(1);
    let answer = &ask(&engine, &asked)[0];
    let prompt = engine.encode(&asked.prompt).unwrap();
    let whole: Vec<u32> = prompt.iter().chain(&answer.token_ids).copied().collect();
    let scored = engine.score_ids(&whole, prompt.len()).unwrap();
    let found: Vec<f32> = answer.logprobs.as_ref().unwrap().iter().map(|token| token.logprob).collect();
    assert_eq!(found, scored.iter().map(|token| token.logprob).collect::<Vec<_>>());
}
