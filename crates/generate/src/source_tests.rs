//! Tests of the engine with a model that reads its prompts with an encoder: the fake of `engine_tests`, whose logits are a
//! function of the source's pages too.

use crate::engine::{Engine, EngineOptions, Parts};
use crate::engine_tests::letters;
use crate::fake::Fake;
use rhetor_lm::{Completion, LanguageModel, Request, Sampling};
use rhetor_models::ModelConfig;
use std::ops::ControlFlow;

const START: u32 = 3;

fn engine(n_pages: usize, context: usize, chunk: usize) -> Engine {
    let tokenizer = letters();
    let fake = Fake::new(n_pages, tokenizer.n_tokens() + 3);
    let options = EngineOptions { prefill_chunk: Some(chunk), now: Some(0), ..EngineOptions::default() };
    let config = ModelConfig { n_encoder_layers: 1, decoder_start: Some(START), ..ModelConfig::default() };
    Engine::from_parts(Parts {
        name: "fake".to_string(),
        runner: Box::new(fake),
        tokenizer,
        context,
        options,
        config: Some(config),
        adapters: Vec::new(),
        sight: None,
        speculator: None,
    })
    .unwrap()
}

fn ask(engine: &Engine, request: &Request) -> Vec<Completion> {
    engine.generate(request, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn ids(completions: &[Completion]) -> Vec<Vec<u32>> {
    completions.iter().map(|completion| completion.token_ids.clone()).collect()
}

/// Without the token that ends an answer.
fn endless() -> Sampling {
    Sampling { logit_bias: vec![(1, f32::NEG_INFINITY)], ..Sampling::default() }
}

/// Requests of many kinds, some with the same source; number `i` is always the same.
fn request(i: u64) -> Request {
    let mut request = Request::text("abc ".repeat(1 + (i as usize / 2) * 5 % 17));
    request.max_tokens = Some(5 + (i * 13 % 80) as usize);
    request.n = 1 + (i % 3) as usize;
    (request.seed, request.sampling) = (i, endless());
    if i % 2 == 1 {
        request.sampling = Sampling { temperature: 0.9, repetition_penalty: 1.1, ..endless() };
    }
    if i % 5 == 4 {
        request.sampling = endless();
        (request.beams, request.n) = (3, 2);
    }
    request
}

#[test]
fn an_answer_follows_its_source_and_begins_with_the_start_token() {
    let engine = engine(64, 128, 64);
    let asked = Request { max_tokens: Some(60), sampling: endless(), ..Request::text("hello") };
    let answer = &ask(&engine, &asked)[0];
    let mut tokens = engine.encode(&asked.prompt).unwrap();
    assert_eq!(answer.usage.prompt_tokens, tokens.len());
    tokens.push(START);
    let n = engine.tokenizer().n_tokens();
    for &id in &answer.token_ids {
        let logits = &Fake::logits(tokens.iter().copied(), n + 3)[..n];
        let best =
            logits.iter().enumerate().filter(|(id, _)| *id != 1).max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        assert_eq!(id as usize, best);
        tokens.push(id);
    }
    assert_eq!(answer.token_ids.len(), 60);
}

#[test]
fn answers_are_the_same_alone_and_among_others_whatever_the_chunks_and_however_small_the_cache() {
    let n = 16;
    let alone: Vec<Vec<Vec<u32>>> = (0..n).map(|i| ids(&ask(&engine(256, 128, 64), &request(i)))).collect();
    for (n_pages, chunk) in [(256, 512), (256, 5), (24, 64), (17, 48)] {
        let engine = engine(n_pages, 128, chunk);
        let together: Vec<Vec<Vec<u32>>> = std::thread::scope(|scope| {
            let engine = &engine;
            let callers: Vec<_> =
                (0..n).map(|i| scope.spawn(move || ids(&ask(engine, &request(i))))).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        assert_eq!(together, alone, "{n_pages} pages, chunks of {chunk}");
        let stats = engine.stats();
        assert_eq!(stats.cache_pages_used, 0, "all pages come back, those of the sources too");
    }
}

#[test]
fn sequences_that_are_put_back_read_their_source_again() {
    let mut request = Request::text("abc ".repeat(20));
    (request.n, request.max_tokens) = (12, Some(100));
    request.sampling = Sampling { temperature: 1.0, ..endless() };
    let (roomy, tight) = (engine(256, 128, 64), engine(9, 128, 64));
    let one = |seed| Request { n: 1, seed, ..request.clone() };
    let expected: Vec<Vec<u32>> = ids(&ask(&roomy, &request));
    assert_eq!(ids(&ask(&tight, &request)), expected);
    assert_eq!(roomy.stats().preemptions, 0);
    assert!(tight.stats().preemptions > 0);
    assert_eq!(tight.stats().cache_pages_used, 0);
    assert_eq!(ids(&ask(&tight, &one(3))), expected[3..4]);
}

#[test]
fn completions_of_a_prompt_share_its_source_and_read_it_once() {
    let engine = engine(64, 128, 64);
    let mut asked = Request::text("x".repeat(70));
    (asked.n, asked.max_tokens) = (4, Some(8));
    asked.sampling = Sampling { temperature: 1.0, ..endless() };
    ask(&engine, &asked);
    assert_eq!(engine.stats().tokens_prefilled, 70 + 1);
    assert_eq!(engine.stats().cache_pages_used, 0);
}

#[test]
fn a_source_may_fill_the_context_alone_and_is_cut_at_its_end() {
    let engine = engine(64, 64, 64);
    let full = ask(&engine, &Request::text("x".repeat(64)));
    assert_eq!(full[0].usage.prompt_tokens, 64);
    let long = Request::text("x".repeat(64) + "yz");
    let refused = engine.generate(&long, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(refused.contains("66") && refused.contains("64"), "{refused}");
    let cut = Request { overflow: rhetor_lm::Overflow::TruncateOldest, ..long };
    assert_eq!(ids(&ask(&engine, &cut)), ids(&full));
}

#[test]
fn without_a_template_one_message_is_the_source() {
    let engine = engine(64, 128, 64);
    let text = Request { max_tokens: Some(20), ..Request::text("hello") };
    let chat = Request { max_tokens: Some(20), ..Request::chat([rhetor_lm::Message::user("hello")]) };
    assert_eq!(ids(&ask(&engine, &chat)), ids(&ask(&engine, &text)));
    let two = ["hello", "again"].map(rhetor_lm::Message::user);
    let refused = engine.generate(&Request::chat(two), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(refused.to_string().contains("template"), "{refused}");
}

#[test]
fn a_text_is_scored_as_what_is_written_after_its_source() {
    let engine = engine(64, 128, 64);
    let (source, text) = ("some source ", "and words");
    let score = engine.score(source, text).unwrap();
    let mut tokens = engine.tokenizer().encode(source, rhetor_tokenizer::Special::Literal);
    tokens.push(START);
    assert_eq!(score.tokens.len(), text.len());
    for token in &score.tokens {
        let logits = Fake::logits(tokens.iter().copied(), engine.tokenizer().n_tokens() + 3);
        let sum: f32 = logits.iter().map(|x| x.exp()).sum();
        assert!((token.logprob - (logits[token.id as usize] - sum.ln())).abs() < 1e-4);
        tokens.push(token.id);
    }
}
