//! The engine with many callers: nobody waits for ever, nothing grows for ever, and nobody hears another's words.

use crate::engine::{Engine, EngineOptions, Parts};
use crate::engine_tests::{ask, letters, settled};
use crate::fake::Fake;
use crate::line::Line;
use crate::runner::Runner;
use crate::scheduler::{Plan, Scheduler};
use crate::sequence::{Ending, Goal, JobSpec, Output, Picture};
use rhetor_kernels::kv::PAGE_LEN;
use rhetor_lm::{Cancel, Error, FinishReason, LanguageModel, Request, Sampling};
use rhetor_models::Active;
use rhetor_tensor::Tensor;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) fn engine_on(fake: Fake, options: EngineOptions) -> Engine {
    let (name, tokenizer, adapters) = ("fake".to_string(), letters(), Vec::new());
    let (runner, context) = (Box::new(fake), 1024);
    let parts = Parts {
        name,
        runner,
        tokenizer,
        context,
        options,
        config: None,
        adapters,
        sight: None,
        speculator: None,
    };
    Engine::from_parts(parts).unwrap()
}

fn fake(n_pages: usize) -> Fake {
    Fake::new(n_pages, letters().n_tokens() + 3)
}

/// A request that goes on until the context is full.
fn endless(text: &str) -> Request {
    let sampling = Sampling { logit_bias: vec![(1, f32::NEG_INFINITY)], ..Sampling::default() };
    Request { sampling, ..Request::text(text) }
}

#[test]
fn a_request_whose_time_is_over_ends_in_line_and_says_so_for_each_completion() {
    let engine = engine_on(fake(64), EngineOptions::default());
    let asked = Request { deadline: Some(Instant::now()), n: 3, ..endless("hello") };
    let answers = ask(&engine, &asked);
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|answer| answer.finish_reason == FinishReason::Deadline));
    assert!(answers.iter().all(|answer| answer.text.is_empty()));
    let later = Request { deadline: Some(Instant::now() + Duration::from_secs(3600)), ..asked };
    assert!(ask(&engine, &later).iter().all(|answer| answer.finish_reason == FinishReason::Length));
    settled(&engine);
}

#[test]
fn cancelled_and_late_callers_leave_while_the_model_is_busy_with_a_step() {
    let gate = Arc::new(Mutex::new(()));
    let options = EngineOptions { parallel: Some(1), ..EngineOptions::default() };
    let engine = engine_on(Fake { gate: Some(gate.clone()), ..fake(64) }, options);
    let closed = gate.lock().unwrap();
    std::thread::scope(|scope| {
        let (running, waiting) = (endless("running"), endless("waiting"));
        let late = Request { deadline: Some(Instant::now()), ..endless("late") };
        let cancels = [running.cancel.clone(), waiting.cancel.clone()];
        let asked = [running, waiting, late];
        let engine = &engine;
        let callers = asked.map(|asked| scope.spawn(move || ask(engine, &asked).remove(0)));
        cancels.iter().for_each(Cancel::cancel);
        // The step stands still until all have left.
        let reasons = callers.map(|caller| caller.join().unwrap().finish_reason);
        let (cancelled, late) = (FinishReason::Cancelled, FinishReason::Deadline);
        assert_eq!(reasons, [cancelled, cancelled, late]);
        drop(closed);
    });
    settled(&engine);
}

#[test]
fn a_line_that_is_full_refuses_one_more_with_both_numbers() {
    let gate = Arc::new(Mutex::new(()));
    let options = EngineOptions { parallel: Some(1), queue: Some(2), ..EngineOptions::default() };
    let engine = engine_on(Fake { gate: Some(gate.clone()), ..fake(64) }, options);
    let closed = gate.lock().unwrap();
    let until = |waiting: usize| {
        while (engine.stats().sequences_running, engine.stats().requests_waiting) != (1, waiting) {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        let one = |i: usize| Request { max_tokens: Some(5), ..endless(&format!("number {i}")) };
        let mut callers = Vec::new();
        for i in 0..3 {
            let engine = &engine;
            callers.push(scope.spawn(move || ask(engine, &one(i)).len()));
            until(i);
        }
        let refused = engine.generate(&one(3), &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(refused, Error::Busy { waiting: 2, limit: 2 }), "{refused}");
        drop(closed);
        assert!(callers.into_iter().all(|caller| caller.join().unwrap() == 1));
    });
    assert_eq!(ask(&engine, &Request { max_tokens: Some(5), ..endless("later") }).len(), 1);
}

#[test]
fn a_seeded_answer_is_the_same_alone_and_among_63_others() {
    let request = |i: u64| {
        let sampling = Sampling { temperature: 1.0, ..Sampling::default() };
        let text = format!("a beginning that all of them have in common, then {i}");
        Request { seed: i, sampling, max_tokens: Some(40), ..Request::text(text) }
    };
    let alone = engine_on(fake(512), EngineOptions::default());
    let expected: Vec<_> = (0..64).map(|i| ask(&alone, &request(i)).remove(0).token_ids).collect();
    let options = EngineOptions { parallel: Some(64), queue: Some(64), ..EngineOptions::default() };
    let engine = engine_on(fake(512), options);
    let found: Vec<_> = std::thread::scope(|scope| {
        let engine = &engine;
        let ask = |i| move || ask(engine, &request(i)).remove(0).token_ids;
        let callers: Vec<_> = (0..64).map(|i| scope.spawn(ask(i))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(found, expected);
    settled(&engine);
}

/// A scheduler whose steps are made by hand.
struct Bench {
    scheduler: Scheduler,
    fake: Fake,
}

impl Bench {
    fn new(n_pages: usize, chunk: usize, parallel: usize) -> Bench {
        let line = Line { parallel, queue: usize::MAX };
        Bench { scheduler: Scheduler::new(n_pages, chunk, 64, 64, line), fake: Fake::new(n_pages, 64) }
    }

    /// A job of a prompt whose tokens are `tokens`, for `max_tokens` more.
    fn submit(&mut self, tokens: impl Iterator<Item = u32>, max_tokens: usize, picture: Option<u32>) -> u64 {
        let ending = Ending { stops: Arc::default(), max_tokens };
        let rows = Tensor::from_vec(vec![0.5], [1, 1]);
        let digest = |number: u32| std::array::from_fn(|i| number.to_le_bytes()[i % 4]);
        let picture = picture.map(|number| Picture { first: 0, rows, digest: digest(number) });
        let spec = JobSpec {
            source: Arc::default(),
            prompt: tokens.map(|token| token % 64).collect(),
            n_virtual: 0,
            pictures: picture.into_iter().collect(),
            adapters: Active::All,
            goal: Goal::Sample { sampling: Arc::default(), seed: 0, n: 1, ending },
            constraint: None,
            n_top: 0,
            breakers: Arc::default(),
            speculate: None,
            deadline: None,
            cancel: Cancel::default(),
            run: None,
            digests: None,
        };
        self.scheduler.submit(spec).unwrap()
    }

    fn step(&mut self) -> Plan {
        let plan = self.scheduler.schedule();
        for &(from, to) in &plan.copies {
            self.fake.copy_page(from, to);
        }
        if !plan.is_empty() {
            let scheduler = &mut self.scheduler;
            self.fake.forward(&plan.batch, &mut |logits| scheduler.postprocess(&plan, logits));
        }
        plan
    }

    /// Tokens that the job has written since this was asked last.
    fn written(&mut self, id: u64) -> usize {
        let outbox = std::mem::take(&mut self.scheduler.job(id).unwrap().outbox);
        outbox.iter().filter(|output| matches!(output, Output::Token { .. })).count()
    }

    fn close(&mut self, id: u64) {
        self.scheduler.job(id).unwrap().is_closed = true;
    }
}

/// Rows of a step that belong to prompts, and spans of one row.
fn rows(plan: &Plan) -> (usize, usize) {
    let n_single = plan.batch.spans.iter().filter(|span| span.len == 1).count();
    (plan.batch.tokens.len() - n_single, n_single)
}

#[test]
fn a_request_cancelled_while_it_is_answered_ends_before_the_next_step_and_gives_its_pages_back() {
    let mut bench = Bench::new(256, 512, 64);
    let (one, other) = (bench.submit(0..300, 100, None), bench.submit(7..40, 100, None));
    (0..5).for_each(|_| drop(bench.step()));
    bench.scheduler.job(one).unwrap().cancel.cancel();
    assert_eq!(bench.step().batch.spans.len(), 1);
    let cancelled = Output::Finished { index: 0, reason: FinishReason::Cancelled };
    assert_eq!(bench.scheduler.job(one).unwrap().outbox.last(), Some(&cancelled));
    assert_eq!(bench.written(one), 5);
    assert_eq!(bench.scheduler.stats().cache_pages_used, 2);
    assert_eq!(bench.written(other), 6);
    // While a prompt is computed.
    let long = bench.submit((0..2000).map(|i| i * i), 100, None);
    bench.step();
    bench.scheduler.job(long).unwrap().deadline = Some(Instant::now());
    assert_eq!(bench.step().batch.tokens.len(), 1);
    let outbox = &bench.scheduler.job(long).unwrap().outbox;
    assert!(matches!(outbox.last(), Some(Output::Finished { reason: FinishReason::Deadline, .. })));
    assert_eq!(bench.scheduler.stats().cache_pages_used, 2);
}

#[test]
fn a_long_prompt_takes_a_bounded_share_of_the_steps_of_those_who_are_answered() {
    let mut bench = Bench::new(256, 512, 64);
    let decoders: Vec<u64> = (0..16).map(|i| bench.submit(i..i + 3, 200, None)).collect();
    bench.step();
    decoders.iter().for_each(|&id| assert_eq!(bench.written(id), 1));
    let long = bench.submit((0..2048).map(|i| i * i / 7), 1, None);
    for n_done in (128..=2048).step_by(128) {
        let plan = bench.step();
        assert_eq!(rows(&plan), (128, 16), "after {n_done} tokens");
        assert!(decoders.iter().all(|&id| bench.written(id) == 1), "nobody misses a step");
    }
    assert_eq!(bench.written(long), 1);
}

#[test]
fn a_short_prompt_overtakes_a_long_one_and_many_short_ones_do_not_stop_it() {
    let mut bench = Bench::new(256, 128, 64);
    let long = bench.submit((0..2048).map(|i| i * i / 7), 1, None);
    bench.step();
    let short = bench.submit(40..60, 1, None);
    bench.step();
    assert_eq!((bench.written(short), bench.written(long)), (1, 0));
    bench.close(short);
    // A new prompt of 100 tokens at each step would fill them all.
    let mut n_steps = 0;
    while bench.written(long) == 0 {
        n_steps += 1;
        assert!(n_steps <= 32, "half of each step is the long prompt's");
        bench.submit((0..100).map(|i| i * n_steps + 1), 1, None);
        bench.step();
    }
}

#[test]
fn prompts_with_a_common_beginning_that_come_together_compute_it_once() {
    let mut bench = Bench::new(256, 512, 64);
    let common = 20 * PAGE_LEN as u32;
    let prompt = |i: u32| (0..common).map(|t| t * t / 5).chain([i, i + 1, i + 2]);
    let jobs: Vec<u64> = (0..8).map(|i| bench.submit(prompt(i), 1, None)).collect();
    while !bench.step().is_empty() {}
    let stats = bench.scheduler.stats();
    assert_eq!(stats.tokens_prefilled, u64::from(common) + 8 * 3);
    assert_eq!(stats.tokens_cached, 7 * u64::from(common));
    let n_cached = |id| bench.scheduler.job(id).unwrap().n_cached;
    let found: Vec<Option<usize>> = jobs.into_iter().map(n_cached).collect();
    assert_eq!(found[0], Some(0));
    assert_eq!(found[1..], [Some(common as usize); 7]);
}

#[test]
fn no_more_sequences_than_wanted_are_computed_side_by_side() {
    let mut bench = Bench::new(256, 512, 3);
    let jobs: Vec<u64> = (0..7).map(|i| bench.submit(i..i + 3, 10, None)).collect();
    loop {
        let plan = bench.step();
        if plan.is_empty() {
            break;
        }
        assert!(plan.batch.spans.len() <= 3);
    }
    assert!(jobs.into_iter().all(|id| bench.written(id) == 10));
}

#[test]
fn ten_thousand_requests_with_and_without_pictures_leave_nothing_behind() {
    let mut bench = Bench::new(32, 128, 8);
    for i in 0..10_000u32 {
        let picture = (i % 2 == 0).then_some(i);
        let id = bench.submit((0..40).map(|t| t * i + t), 2, picture);
        while !bench.step().is_empty() {}
        assert_eq!(bench.written(id), 2);
        bench.close(id);
    }
    bench.step();
    let sizes = bench.scheduler.sizes();
    assert_eq!(sizes.jobs, 0);
    assert!(sizes.roots <= 256 && sizes.pages <= 32 && sizes.scratches <= 8, "{sizes:?}");
    assert_eq!(bench.scheduler.stats().cache_pages_used, 0);
}

#[test]
fn ten_thousand_callers_leave_no_bell_behind() {
    let engine = engine_on(fake(64), EngineOptions::default());
    for i in 0..10_000 {
        ask(&engine, &Request { max_tokens: Some(2), ..endless(&format!("{i}")) });
    }
    assert_eq!(engine.n_bells(), 0);
    settled(&engine);
}
