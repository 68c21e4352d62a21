//! Where pictures stand in prompts, and the tokens of such prompts.

use rhetor_lm::{Message, PICTURE_PLACE, Prompt, Role};
use rhetor_models::ModelConfig;
use rhetor_tokenizer::Tokenizer;
use std::borrow::Cow;

use crate::prompt::with_bos;

/// `prompt` with places for `n` pictures: its own, or, if it has none, at the beginning of the last message of the user or
/// of the text, each as `<Img><ImageHere></Img>` and a space.
pub fn placed(prompt: &Prompt, n: usize) -> Cow<'_, Prompt> {
    let has_places = match prompt {
        // What fills a hole is code or text.
        Prompt::Infill { .. } | Prompt::Ids(_) => true,
        Prompt::Text { text, .. } => text.contains(PICTURE_PLACE),
        Prompt::Chat(messages) => messages.iter().any(|message| message.content.contains(PICTURE_PLACE)),
    };
    if has_places {
        return Cow::Borrowed(prompt);
    }
    let before = |text: &str| format!("<Img>{PICTURE_PLACE}</Img> ").repeat(n) + text;
    Cow::Owned(match prompt {
        Prompt::Infill { .. } | Prompt::Ids(_) => return Cow::Borrowed(prompt),
        Prompt::Text { text, parse_special } => {
            Prompt::Text { text: before(text), parse_special: *parse_special }
        }
        Prompt::Chat(messages) => {
            let last = messages.iter().rposition(|message| message.role == Role::User);
            let mut messages = messages.clone();
            match last {
                Some(last) => messages[last].content = before(&messages[last].content),
                None => messages.push(Message::user(before(""))),
            }
            Prompt::Chat(messages)
        }
    })
}

/// The ids of a text with pictures, and where the rows of each begin among them. What stands between pictures is encoded
/// piece by piece, BOS is put before the first alone, and each of the `n_rows` rows of a picture has the id 0.
///
/// Source: MiniGPT-4, `minigpt4/models/minigpt_base.py`, `get_context_emb`.
pub fn pieces(
    tokenizer: &Tokenizer,
    text: &str,
    n_rows: usize,
    encode: impl Fn(&str) -> Vec<u32>,
) -> (Vec<u32>, Vec<usize>) {
    let mut pieces = text.split(PICTURE_PLACE);
    let mut ids = with_bos(tokenizer, encode(pieces.next().unwrap_or_default()));
    let mut places = Vec::new();
    for piece in pieces {
        places.push(ids.len());
        ids.extend(std::iter::repeat_n(0, n_rows));
        ids.extend(encode(piece));
    }
    (ids, places)
}

/// The template that a model with eyes was trained with, where its files carry none.
///
/// Source: MiniGPT-4, `minigpt4/conversation/conversation.py`.
pub(crate) fn template(config: &ModelConfig) -> Option<&'static str> {
    let has_qformer = config.parts.iter().any(|part| part.section == "qformer");
    match (config.family, has_qformer) {
        ("minigpt4", true) => Some("minigpt4"),
        ("minigpt4", false) => Some("minigpt-v2"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, EngineOptions, Parts};
    use crate::fake::Fake;
    use rhetor_lm::{Completion, Error, LanguageModel, Overflow, Request};
    use rhetor_models::Sight;
    use std::ops::ControlFlow;
    use std::sync::Arc;

    #[test]
    fn a_prompt_without_places_gets_them_at_its_beginning() {
        let text = |text: &str| Prompt::Text { text: text.to_string(), parse_special: false };
        let with_place = text("a <ImageHere> b");
        assert_eq!(*placed(&with_place, 1), with_place);
        let expected = "<Img><ImageHere></Img> <Img><ImageHere></Img> What?";
        assert_eq!(*placed(&text("What?"), 2), text(expected));
        let turns = [Message::system("S"), Message::user("U"), Message::assistant("A"), Message::user("V")];
        let Prompt::Chat(messages) = placed(&Prompt::Chat(turns.to_vec()), 1).into_owned() else {
            panic!("a conversation stays one")
        };
        assert_eq!(messages[..3], turns[..3]);
        assert_eq!(messages[3].content, "<Img><ImageHere></Img> V");
    }

    /// Every ASCII sign is a token; texts begin with `<s>`.
    fn signs() -> Tokenizer {
        let mut vocab = serde_json::Map::new();
        vocab.insert("<s>".to_string(), 0.into());
        for c in ('!'..='~').chain(['Ġ']) {
            let id = vocab.len();
            vocab.insert(c.to_string(), id.into());
        }
        let sequence = serde_json::json!({"Sequence": {"id": "A", "type_id": 0}});
        let bos = serde_json::json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
        let json = serde_json::json!({
            "version": "1.0", "normalizer": null,
            "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true}],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "post_processor": {"type": "TemplateProcessing", "single": [bos, sequence], "pair": [bos, sequence, sequence],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "unk_token": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                "merges": []},
        });
        Tokenizer::from_json_bytes(json.to_string().as_bytes()).expect("a small vocabulary")
    }

    fn engine(chunk: usize, sight: Option<Sight>) -> Engine {
        let tokenizer = signs();
        let parts = Parts {
            name: "fake".to_string(),
            runner: Box::new(Fake::new(64, tokenizer.n_tokens())),
            tokenizer,
            context: 256,
            options: EngineOptions { prefill_chunk: Some(chunk), ..EngineOptions::default() },
            config: None,
            adapters: Vec::new(),
            sight,
            speculator: None,
        };
        Engine::from_parts(parts).expect("the engine is small and sound")
    }

    const SIGHT: Option<Sight> = Some(Sight { side: 8, patch: 4, n_rows: 3 });

    fn bright() -> Arc<[u8]> {
        Arc::from(&include_bytes!("../../../fixtures/vision/drawn.png")[..])
    }

    fn dark() -> Arc<[u8]> {
        Arc::from(&include_bytes!("../../../fixtures/vision/dark.png")[..])
    }

    fn request(text: &str, pictures: &[Arc<[u8]>]) -> Request {
        Request { pictures: pictures.to_vec(), max_tokens: Some(12), ..Request::text(text) }
    }

    fn ask(engine: &Engine, request: &Request) -> Completion {
        engine.generate(request, &mut |_| ControlFlow::Continue(())).expect("it answers").remove(0)
    }

    #[test]
    fn cached_pages_of_one_picture_are_not_those_of_another() {
        let engine = engine(64, SIGHT);
        let text = "<ImageHere> what may be seen on this picture, and on which side of it?";
        let first = ask(&engine, &request(text, &[bright()]));
        let other = ask(&engine, &request(text, &[dark()]));
        assert_ne!(first.token_ids, other.token_ids);
        assert_eq!(other.usage.cached_tokens, 0);
        let again = ask(&engine, &request(text, &[bright()]));
        assert_eq!((&again.token_ids, again.usage.cached_tokens), (&first.token_ids, 32));
        let turned = ask(&engine, &request(text, &[dark()]));
        assert_eq!((&turned.token_ids, turned.usage.cached_tokens), (&other.token_ids, 32));
    }

    #[test]
    fn answers_about_pictures_do_not_depend_on_the_chunks_of_the_prompt() {
        let text = "this: <ImageHere> and that: <ImageHere>.";
        let answer = |chunk, pictures: &[Arc<[u8]>]| {
            let completion = ask(&engine(chunk, SIGHT), &request(text, pictures));
            // BOS, 6 signs, 3 rows, 11 signs, 3 rows, 1 sign.
            assert_eq!(completion.usage.prompt_tokens, 25);
            completion.token_ids
        };
        let whole = answer(64, &[bright(), dark()]);
        assert!([1, 2, 5, 8, 9].into_iter().all(|chunk| answer(chunk, &[bright(), dark()]) == whole));
        assert_ne!(answer(64, &[dark(), bright()]), whole);
    }

    #[test]
    fn pictures_that_cannot_be_looked_at_are_refused() {
        let refused = |engine: &Engine, request: &Request| {
            let answer = engine.generate(request, &mut |_| ControlFlow::Continue(()));
            answer.expect_err("it is refused").to_string()
        };
        let blind = refused(&engine(64, None), &request("what?", &[bright()]));
        assert!(blind.contains("it has no eyes"), "{blind}");
        let two = refused(&engine(64, SIGHT), &request("<ImageHere>", &[bright(), dark()]));
        assert!(two.contains("2 given, and the prompt has 1 places"), "{two}");
        let text = refused(&engine(64, SIGHT), &request("what?", &[Arc::from(&b"no picture"[..])]));
        assert!(text.contains("no PNG, JPEG or WebP"), "{text}");
        let cut = Request { overflow: Overflow::TruncateOldest, ..request("what?", &[bright()]) };
        let cut = refused(&engine(64, SIGHT), &cut);
        assert!(cut.contains("is not shortened"), "{cut}");
        let long = request(&"long ".repeat(60), &[bright()]);
        let answer = engine(64, SIGHT).generate(&long, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(answer, Err(Error::ContextOverflow { context: 256, .. })));
    }
}
