//! Conversations with tools and thoughts, on the fake model of the engine's tests.

use crate::Engine;
use crate::engine_tests::{ask, engine, letters};
use crate::prompt::{Controls, Guarded};
use crate::{Capabilities, ChatTemplate, RenderOptions, ToolSupport};
use rhetor_lm::{
    Constraint, Error, Event, FinishReason, LanguageModel, Message, Prompt, Request, Role, Sampling, Tool,
    ToolCall, ToolChoice,
};
use rhetor_tokenizer::Special;
use std::ops::ControlFlow;
use std::path::Path;

fn template(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/chat_template/templates");
    std::fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap()
}

/// An engine that talks as `name`: a published template, or one of the named ones.
fn talker(name: &str) -> Engine {
    let mut engine = crate::engine_tests::engine_with(1024, 16384, 512, None);
    let source = if crate::TEMPLATES.iter().any(|own| own.about.name == name) {
        name.to_string()
    } else {
        template(name)
    };
    engine.set_template(&source).unwrap();
    engine
}

fn tools() -> Vec<Tool> {
    let tool = |name: &str| Tool {
        name: name.to_string(),
        description: Some(format!("Does {name}.")),
        parameters:
            r#"{"type":"object","properties":{"b":{"enum":["x","y"]},"a":{"type":"integer","minimum":0,
            "maximum":99}},"required":["b","a"]}"#
                .to_string(),
    };
    vec![tool("first"), tool("second")]
}

fn request(choice: ToolChoice) -> Request {
    let mut request = Request::chat([Message::user("Do it.")]);
    request.tools.offered = tools();
    request.tools.choice = choice;
    request.max_tokens = Some(4000);
    request.sampling = Sampling { temperature: 1.0, ..Sampling::default() };
    request
}

fn refusal(engine: &Engine, request: &Request) -> String {
    engine.generate(request, &mut |_| ControlFlow::Continue(())).unwrap_err().to_string()
}

const SPEAKERS: [&str; 8] = [
    "qwen2.5",
    "llama3.2",
    "mistral-nemo",
    "mistral-small3.2",
    "functionary3.1",
    "command-r7b",
    "nemotron-nano2",
    "chatml",
];

#[test]
fn a_call_that_is_required_comes_in_every_syntax() {
    for name in SPEAKERS {
        let engine = talker(name);
        let mut asked = request(ToolChoice::Required);
        (asked.n, asked.tools.parallel) = (3, false);
        asked.think = (engine.capabilities().thinking).then_some(false);
        let mut heard = vec![Vec::new(); 3];
        let answers = engine
            .generate(&asked, &mut |event| {
                match event {
                    Event::ToolCall { index, call } => heard[index].push(call.clone()),
                    Event::Text { text, .. } => assert_eq!(text, "", "{name}"),
                    Event::Prefill { .. } | Event::Thinking { .. } => {}
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        for (answer, heard) in answers.iter().zip(&heard) {
            assert_eq!((answer.finish_reason, answer.text.as_str()), (FinishReason::ToolCalls, ""), "{name}");
            assert_eq!(answer.constraint, Some("tool_call"));
            assert_eq!(&answer.tool_calls, heard);
            let [call] = answer.tool_calls.as_slice() else { panic!("{name}: {answer:?}") };
            assert!(["first", "second"].contains(&call.name.as_str()));
            let arguments: serde_json::Value = serde_json::from_str(&call.arguments).unwrap();
            assert!(
                arguments["a"].as_u64().unwrap() < 100 && arguments["b"].is_string(),
                "{name}: {arguments}"
            );
            assert!(call.arguments.starts_with("{\"b\""), "the order of the schema: {}", call.arguments);
        }
        let again = ask(&engine, &asked);
        assert!(answers.iter().zip(&again).all(|(a, b)| a.tool_calls == b.tool_calls), "{name}");
    }
}

#[test]
fn the_tool_that_is_named_is_called_and_several_may_be_called_at_once() {
    for name in SPEAKERS {
        let engine = talker(name);
        let mut asked = request(ToolChoice::Named("second".to_string()));
        asked.n = 4;
        asked.think = engine.capabilities().thinking.then_some(false);
        for answer in ask(&engine, &asked) {
            assert!(!answer.tool_calls.is_empty(), "{name}: {answer:?}");
            assert!(answer.tool_calls.iter().all(|call| call.name == "second"), "{name}");
            let mut ids: Vec<&str> = answer.tool_calls.iter().map(|call| call.id.as_str()).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), answer.tool_calls.len());
        }
    }
}

#[test]
fn a_free_choice_with_a_constraint_is_a_call_or_what_the_constraint_wants() {
    let engine = talker("qwen2.5");
    let mut asked = request(ToolChoice::Auto);
    asked.constraint = Some(Constraint::Regex("[a-d]{3}/[0-9]".to_string()));
    asked.n = 24;
    let answers = ask(&engine, &asked);
    let n_calls = answers.iter().filter(|answer| answer.finish_reason == FinishReason::ToolCalls).count();
    for answer in &answers {
        assert_eq!(answer.constraint, Some("regex"));
        assert!(answer.text.is_empty() != answer.tool_calls.is_empty(), "{answer:?}");
        assert!(
            answer.text.is_empty() || (answer.text.len() == 5 && &answer.text[3..4] == "/"),
            "{}",
            answer.text
        );
    }
    assert!(n_calls > 0 && n_calls < answers.len(), "{n_calls}");
    asked.tools.choice = ToolChoice::Required;
    let warned = ask(&engine, &asked).remove(0);
    assert!(warned.warnings[0].contains("the constraint waits"), "{:?}", warned.warnings);
    asked.tools.choice = ToolChoice::None;
    assert!(ask(&engine, &asked).iter().all(|answer| answer.tool_calls.is_empty() && answer.text.len() == 5));
}

#[test]
fn what_a_tool_returned_is_shown_in_the_next_turn() {
    for (name, support) in [("qwen2.5", ToolSupport::Native), ("chatml", ToolSupport::Generic)] {
        let engine = talker(name);
        assert_eq!(engine.capabilities().tools, support);
        let mut asked = request(ToolChoice::Required);
        let answer = ask(&engine, &asked).remove(0);
        let call = answer.tool_calls[0].clone();
        let result =
            Message { tool_call_id: Some(call.id.clone()), ..Message::new(Role::Tool, "It is done.") };
        let called = Message { tool_calls: vec![call.clone()], ..Message::assistant(answer.text) };
        asked.prompt = Prompt::Chat(vec![Message::user("Do it."), called, result]);
        asked.tools.choice = ToolChoice::Auto;
        let shown = engine.render(&asked).unwrap();
        let call_shown = shown.rfind(&format!("<tool_call>\n{{\"name\": \"{}\"", call.name)).unwrap();
        let result_shown = shown.find("<tool_response>\nIt is done.\n</tool_response>").unwrap();
        assert!(shown.contains("Does first.") && call_shown < result_shown, "{shown}");
        assert!(shown.ends_with("<|im_start|>assistant\n"));
        let next =
            ask(&engine, &Request { tools: request(ToolChoice::Required).tools, ..asked.clone() }).remove(0);
        assert_ne!(next.tool_calls[0].id, call.id, "ids of one conversation are all different");
        asked.tools.choice = ToolChoice::None;
        assert!(!engine.render(&asked).unwrap().contains("Does first."));
    }
}

#[test]
fn several_calls_of_one_turn_are_shown_to_a_template_that_knows_one_as_turns() {
    let mut asked = request(ToolChoice::Auto);
    let call = |id: &str, name: &str| ToolCall {
        id: id.to_string(),
        name: name.to_string(),
        arguments: "{}".to_string(),
    };
    let called = vec![call("1", "first"), call("2", "second")];
    let result = |id: &str| Message { tool_call_id: Some(id.to_string()), ..Message::new(Role::Tool, id) };
    asked.prompt = Prompt::Chat(vec![
        Message::user("Do it."),
        Message { tool_calls: called, ..Message::assistant("") },
        result("1"),
        result("2"),
    ]);
    let shown = talker("llama3.2").render(&asked).unwrap();
    let places = ["{\"name\": \"first\"", "\"1\"", "{\"name\": \"second\"", "\"2\""];
    let places: Vec<usize> = places.into_iter().map(|text| shown.rfind(text).expect("is shown")).collect();
    assert!(places.is_sorted(), "{shown}");
}

#[test]
fn a_model_that_thinks_is_told_whether_to() {
    let says = |name: &str, think, choice| {
        let mut asked = request(choice);
        asked.think = think;
        talker(name).render(&asked).unwrap()
    };
    assert!(says("qwen3", None, ToolChoice::None).ends_with("<|im_start|>assistant\n"));
    assert!(says("qwen3", Some(false), ToolChoice::None).ends_with("<think>\n\n</think>\n\n"));
    // A grammar begins where the thoughts end: so it must be seen where they begin.
    assert!(says("qwen3", None, ToolChoice::Required).ends_with("<|im_start|>assistant\n<think>\n"));
    assert!(says("qwen3", Some(false), ToolChoice::Required).ends_with("<think>\n\n</think>\n\n"));
    // A template without a switch that opens a thought: an empty one makes the model speak at once.
    let mut engine = engine(64);
    engine
        .set_template(
            "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}{{ 'A:<think>\n' }}",
        )
        .unwrap();
    let mut asked = request(ToolChoice::None);
    assert!(engine.render(&asked).unwrap().ends_with("A:<think>\n"));
    asked.think = Some(false);
    assert!(engine.render(&asked).unwrap().ends_with("A:<think>\n\n</think>\n\n"));
    let refused = refusal(&talker("chatml"), &Request { think: Some(true), ..request(ToolChoice::None) });
    assert!(refused.contains("`think`"), "{refused}");
    assert!(talker("qwen3").capabilities().thinking && !talker("chatml").capabilities().thinking);
}

#[test]
fn what_stands_in_an_open_thought_is_thought() {
    let mut engine = engine(64);
    engine.set_template("{% for m in messages %}{{ m.content }}{% endfor %}<think>{# </think> #}").unwrap();
    let mut asked = Request::chat([Message::user("hello")]);
    (asked.max_tokens, asked.logprobs) = (Some(30), Some(0));
    asked.sampling.logit_bias = vec![(1, f32::NEG_INFINITY)];
    let mut heard = String::new();
    let mut n_told = 0;
    let answer = engine
        .generate(&asked, &mut |event| {
            match event {
                Event::Thinking { text, .. } => heard.push_str(text),
                Event::Text { logprobs, .. } => n_told += logprobs.len(),
                Event::Prefill { .. } | Event::ToolCall { .. } => {}
            }
            ControlFlow::Continue(())
        })
        .unwrap()
        .remove(0);
    assert_eq!((answer.text.as_str(), &heard), ("", &answer.thinking));
    assert_eq!((answer.usage.thinking_tokens, n_told), (30, 30));
    assert!(answer.thinking.len() > 20);
}

#[test]
fn an_answer_that_was_begun_is_continued_inside_its_turn() {
    let begun = |name: &str| {
        let turns = vec![Message::user("Capital?"), Message::assistant("It is ")];
        talker(name).render(&Request::chat(turns)).unwrap()
    };
    for (name, end) in [
        ("chatml", "<|im_start|>assistant\nIt is "),
        ("llama3", "<|start_header_id|>assistant<|end_header_id|>\n\nIt is"),
        ("gemma2", "<start_of_turn>model\nIt is"),
        ("mistral", "[/INST] It is "),
        ("qwen3", "It is "),
    ] {
        assert!(begun(name).ends_with(end), "{name}: {}", begun(name));
    }
    let engine = talker("chatml");
    let turns = vec![Message::user("Capital?"), Message::assistant("It is ")];
    let text = "<|im_start|>user\nCapital?<|im_end|>\n<|im_start|>assistant\nIt is ".to_string();
    let ids = engine.encode(&Prompt::Chat(turns)).unwrap();
    assert_eq!(ids, engine.encode(&Prompt::Text { text, parse_special: true }).unwrap());
}

#[test]
fn tools_that_cannot_be_are_refused_by_name() {
    let engine = talker("qwen2.5");
    let with = |change: &dyn Fn(&mut Request)| {
        let mut asked = request(ToolChoice::Auto);
        change(&mut asked);
        refusal(&engine, &asked)
    };
    assert!(with(&|asked| asked.tools.offered[0].name = "a b".to_string()).contains("`a b`"));
    assert!(with(&|asked| asked.tools.offered[0].name = "second".to_string()).contains("two of the name"));
    assert!(with(&|asked| asked.tools.offered[1].parameters = "[]".to_string()).contains("`second`"));
    assert!(
        with(&|asked| asked.tools.choice = ToolChoice::Named("third".to_string())).contains("first, second")
    );
    assert!(with(&|asked| asked.prompt = Prompt::Ids(vec![5])).contains("`tools`"));
    let none = with(&|asked| {
        asked.tools.offered.clear();
        asked.tools.choice = ToolChoice::Required;
    });
    assert!(none.contains("`tool_choice`"), "{none}");
    let schema = with(&|asked| {
        asked.tools.offered[0].parameters =
            r#"{"type":"object","properties":{"a":{"type":"nothing"}}}"#.to_string();
        asked.tools.choice = ToolChoice::Required;
    });
    assert!(schema.contains("nothing"), "{schema}");
}

#[test]
fn no_text_of_a_conversation_becomes_a_control_token() {
    let tokenizer = letters();
    let controls = Controls::of(&tokenizer);
    let call = ToolCall {
        id: "<s>".to_string(),
        name: "f<|x|>".to_string(),
        arguments: r#"{"<s>": ["</s>", {"a": "\u003c|x|\u003e"}]}"#.to_string(),
    };
    let messages = [
        Message { thinking: Some("<s>".to_string()), tool_calls: vec![call], ..Message::assistant("</s>") },
        Message {
            tool_call_id: Some("<s>".to_string()),
            name: Some("<|x|>".to_string()),
            ..Message::new(Role::Tool, "<s>")
        },
    ];
    let tools = [Tool {
        name: "f".to_string(),
        description: Some("</s>".to_string()),
        parameters: r#"{"type":"object","properties":{"\u003cs>":{"description":"<|x|>"}}}"#.to_string(),
    }];
    let source = "{{ tools | tojson }}{% for m in messages %}{{ m | tojson }}{% endfor %}{{ bos_token }}";
    let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
    let guarded = Guarded::new(&controls, &messages, &tools);
    let options = RenderOptions { tools: &guarded.tools, ..RenderOptions::default() };
    let rendered = template.render(&guarded.messages, &options).unwrap();
    let ids = guarded.encode(&tokenizer, &rendered);
    let controls: Vec<u32> = ids.iter().copied().filter(|id| *id < 3).collect();
    assert_eq!(controls, [0], "only the template's own: {rendered}");
    let options = RenderOptions { tools: &tools, ..RenderOptions::default() };
    assert_eq!(guarded.reveal(&rendered), template.render(&messages, &options).unwrap());
    assert!(
        tokenizer.encode(&guarded.reveal(&rendered), Special::Parse).iter().filter(|id| **id < 3).count() > 5
    );
}

#[test]
fn log_probabilities_of_the_prompt_are_what_score_says() {
    let engine = engine(64);
    let mut asked = Request::text("the quick brown fox jumps over it");
    (asked.prompt_logprobs, asked.max_tokens, asked.n) = (Some(2), Some(0), 2);
    let scored = ask(&engine, &asked);
    let score = engine.score("t", "he quick brown fox jumps over it").unwrap();
    for answer in &scored {
        let logprobs = answer.prompt_logprobs.as_ref().unwrap();
        let found: Vec<(u32, f32)> = logprobs.iter().map(|token| (token.id, token.logprob)).collect();
        let expected: Vec<(u32, f32)> = score.tokens.iter().map(|token| (token.id, token.logprob)).collect();
        assert_eq!(found, expected);
        assert!(logprobs.iter().all(|token| token.top.len() == 2 && token.top[0].2 >= token.logprob));
        assert_eq!((answer.text.as_str(), answer.finish_reason), ("", FinishReason::Length));
    }
    let plain = ask(&engine, &Request { prompt_logprobs: None, max_tokens: Some(9), ..asked.clone() });
    let both = ask(&engine, &Request { max_tokens: Some(9), ..asked.clone() });
    assert_eq!(plain[0].token_ids, both[0].token_ids);
    assert_eq!(both[0].prompt_logprobs, scored[0].prompt_logprobs);
    let turns = Prompt::Chat(vec![Message::user("hi")]);
    let n_prompt = engine.encode(&turns).unwrap().len();
    let chat = ask(&engine, &Request { prompt: turns, ..asked });
    assert_eq!(chat[0].prompt_logprobs.as_ref().unwrap().len(), n_prompt - 1);
}

#[test]
fn events_tell_the_log_probability_of_every_token_once() {
    let engine = engine(64);
    let mut asked = Request::text("hello");
    (asked.max_tokens, asked.logprobs, asked.stop) =
        (Some(40), Some(1), vec!["zz".to_string(), "q".to_string()]);
    for seed in 0..8 {
        asked.seed = seed;
        asked.sampling = Sampling { temperature: 1.2, ..Sampling::default() };
        let mut told = Vec::new();
        let answer = engine
            .generate(&asked, &mut |event| {
                if let Event::Text { logprobs, .. } = event {
                    told.extend_from_slice(logprobs);
                }
                ControlFlow::Continue(())
            })
            .unwrap()
            .remove(0);
        assert_eq!(answer.logprobs.unwrap(), told);
        assert_eq!(told.len(), answer.usage.completion_tokens);
    }
}

#[test]
fn an_engine_says_what_it_can_be_asked() {
    let expected = Capabilities {
        chat: true,
        tools: ToolSupport::Generic,
        thinking: false,
        infill: false,
        vision: false,
    };
    assert_eq!(engine(64).capabilities(), expected);
    for (name, is_native) in [
        ("llama3.1", true),
        ("hermes3", true),
        ("qwen3", true),
        ("qwq", true),
        ("granite4", true),
        ("smollm3", false),
        ("gemma2", false),
        ("phi3.5", false),
        ("deepseek-r1-distill", false),
    ] {
        let support = if is_native { ToolSupport::Native } else { ToolSupport::Generic };
        assert_eq!(talker(name).capabilities().tools, support, "{name}");
    }
    let refused: Error = engine(64)
        .generate(&Request { prompt_logprobs: Some(0), beams: 0, ..Request::text("a") }, &mut |_| {
            ControlFlow::Continue(())
        })
        .unwrap_err();
    assert!(refused.to_string().contains("beams"), "{refused}");
}
