//! What is made of texts, against sentence-transformers and the pipelines of transformers.

use rhetor_encode::{Aggregation, AnswerOptions, Embedder, Error, Reader, ReaderOptions, Text};
use rhetor_formats::Checkpoint;
use rhetor_models::Task;
use rhetor_tokenizer::{Special, Tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encode").join(name)
}

fn expected(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir(name).join("expected.json")).unwrap()).unwrap()
}

fn open(name: &str) -> (Checkpoint, Tokenizer) {
    let checkpoint = Checkpoint::open(&dir(name)).unwrap();
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
    (checkpoint, tokenizer)
}

fn reader(name: &str) -> Reader {
    let (checkpoint, tokenizer) = open(name);
    Reader::open(&checkpoint, tokenizer, ReaderOptions::default()).unwrap()
}

fn embedder(name: &str, sparse: bool) -> Embedder {
    let (checkpoint, tokenizer) = open(name);
    Embedder::open(&checkpoint, tokenizer, ReaderOptions::default(), sparse).unwrap()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
}

/// The greatest difference between vectors and those of a list of lists.
fn difference(vectors: &[Vec<f32>], expected: &Value) -> f64 {
    let expected = expected.as_array().unwrap();
    assert_eq!(vectors.len(), expected.len());
    let pairs = vectors.iter().zip(expected).flat_map(|(vector, expected)| {
        let expected = expected.as_array().unwrap();
        assert_eq!(vector.len(), expected.len());
        vector.iter().zip(expected).map(|(&x, expected)| (f64::from(x) - expected.as_f64().unwrap()).abs())
    });
    pairs.fold(0.0, f64::max)
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    let golden = expected("st_tiny");
    let embedder = embedder("st_tiny", false);
    let texts = strings(&golden["texts"]);
    let found = embedder.embed(&texts, None).unwrap();
    assert!(difference(&found.vectors, &golden["embeddings"]) < 1e-5);
    assert_eq!((embedder.max_len(), embedder.prompts().len()), (24, 1));
    assert_eq!(found.n_cut.iter().filter(|&&n| n > 0).count(), 1, "one text is too long: {:?}", found.n_cut);
    let prompted = embedder.embed(&texts, Some("query")).unwrap();
    assert!(difference(&prompted.vectors, &golden["with_query_prompt"]) < 1e-5);
    let error = embedder.embed(&texts, Some("title")).unwrap_err();
    assert!(matches!(&error, Error::UnknownPrompt { known, .. } if known == "query"), "{error}");
}

#[test]
fn every_pooling_a_dense_layer_and_a_decoder_give_the_vectors_of_sentence_transformers() {
    for name in ["st-cls", "st-all", "st-dense", "st-last"] {
        let (golden, embedder) = (expected(name), embedder(name, false));
        let texts = strings(&golden["texts"]);
        let found = embedder.embed(&texts, None).unwrap();
        let off = difference(&found.vectors, &golden["vectors"]);
        assert!(off < 1e-5, "{name}: {off}");
        if let Some(prompt) = golden["prompt"].as_str() {
            let off =
                difference(&embedder.embed(&texts, Some(prompt)).unwrap().vectors, &golden["with_prompt"]);
            assert!(off < 1e-5, "{name} with its prompt: {off}");
        }
        // A text's vector does not depend on what is read beside it.
        for (text, vector) in texts.iter().zip(&found.vectors) {
            assert_eq!(&embedder.embed(&[text], None).unwrap().vectors[0], vector, "{name}: {text}");
        }
    }
}

#[test]
fn splade_weights_are_those_of_its_authors() {
    for name in ["bert-masked", "roberta-masked"] {
        let golden = expected(name);
        let found = embedder(name, true).embed(&strings(&golden["sparse_texts"]), None).unwrap();
        let off = difference(&found.vectors, &golden["sparse"]);
        assert!(off < 1e-5, "{name}: {off}");
    }
}

#[test]
fn hidden_words_are_filled_as_the_pipeline_fills_them() {
    for name in ["bert-masked", "roberta-masked"] {
        let (golden, reader) = (expected(name), reader(name));
        for (text, expected) in strings(&golden["texts"]).iter().zip(golden["fillings"].as_array().unwrap()) {
            let found = reader.fill_mask(text, 5).unwrap();
            let several = expected[0].is_array();
            assert_eq!(found.len(), if several { expected.as_array().unwrap().len() } else { 1 });
            for (i, fillings) in found.iter().enumerate() {
                let expected = if several { &expected[i] } else { expected };
                for (filling, expected) in fillings.iter().zip(expected.as_array().unwrap()) {
                    let what = format!("{name} {text}: {filling:?}, not {expected}");
                    assert_eq!(u64::from(filling.id), expected["token"].as_u64().unwrap(), "{what}");
                    assert!((filling.score - expected["score"].as_f64().unwrap()).abs() < 1e-5, "{what}");
                    let word = expected["token_str"].as_str().unwrap().trim();
                    assert_eq!(filling.token.trim(), word, "{what}");
                    let spaced = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                    let sequence = expected["sequence"].as_str().unwrap();
                    if !several {
                        assert_eq!(spaced(&filling.text), spaced(sequence), "{what}");
                    }
                }
            }
        }
        let error = reader.fill_mask("no hidden word", 5).unwrap_err();
        assert!(matches!(error, Error::NoMask { .. }), "{error}");
        let error = reader.fill_mask(&"word ".repeat(60), 5).unwrap_err();
        assert!(matches!(error, Error::TooLong { max: 40, .. }), "{error}");
    }
}

#[test]
fn classes_are_those_of_the_pipeline() {
    for name in ["bert-classes", "bert-score", "bert-several"] {
        let (golden, reader) = (expected(name), reader(name));
        let texts = strings(&golden["texts"]);
        let alone: Vec<Text> = texts.iter().map(|text| reader.text(text, Special::Literal)).collect();
        let pairs =
            texts.iter().zip(&texts[1..]).map(|(a, b)| reader.pair(a, b).unwrap()).collect::<Vec<_>>();
        for (texts, expected) in [(&alone, &golden["classes"]), (&pairs, &golden["of_pairs"])] {
            let found = reader.classify(texts, reader.normalization()).unwrap();
            for (classes, expected) in found.iter().zip(expected.as_array().unwrap()) {
                assert_eq!(classes.len(), expected.as_array().unwrap().len());
                for (class, expected) in classes.iter().zip(expected.as_array().unwrap()) {
                    assert_eq!(class.label, expected["label"].as_str().unwrap(), "{name}: {classes:?}");
                    let off = (class.score - expected["score"].as_f64().unwrap()).abs();
                    assert!(off < 1e-5, "{name}: {classes:?}, not {expected}");
                }
            }
        }
    }
}

#[test]
fn tags_are_those_of_the_pipeline() {
    let ways = [
        ("none", Aggregation::None),
        ("simple", Aggregation::Simple),
        ("first", Aggregation::First),
        ("average", Aggregation::Average),
        ("max", Aggregation::Max),
    ];
    for name in ["bert-tags", "roberta-tags"] {
        let (golden, reader) = (expected(name), reader(name));
        let mut n_tags = 0;
        for (way, aggregation) in ways {
            let of_texts = golden["tags"][way].as_array().unwrap();
            for (text, expected) in strings(&golden["texts"]).iter().zip(of_texts) {
                let found = reader.tag(text, aggregation).unwrap();
                let expected = expected.as_array().unwrap();
                assert_eq!(found.len(), expected.len(), "{name} {way} {text}: {found:?}, not {expected:?}");
                let place = |at: usize| text[..at].chars().count() as u64;
                for (tag, expected) in found.iter().zip(expected) {
                    n_tags += 1;
                    let key = if way == "none" { "entity" } else { "entity_group" };
                    let got = (tag.label.as_str(), place(tag.bytes.start), place(tag.bytes.end));
                    let [start, end] = ["start", "end"].map(|key| expected[key].as_u64().unwrap());
                    let wanted = (expected[key].as_str().unwrap(), start, end);
                    assert_eq!(got, wanted, "{name} {way} {text}");
                    assert!((tag.score - expected["score"].as_f64().unwrap()).abs() < 1e-5, "{name} {way}");
                }
            }
        }
        assert!(n_tags > 60, "{name}: {n_tags}");
    }
}

#[test]
fn a_text_longer_than_the_context_is_tagged_to_its_end() {
    let reader = reader("bert-tags");
    let text = "the cat sat on the mat . ".repeat(20);
    let tags = reader.tag(&text, Aggregation::None).unwrap();
    assert!(tags.windows(2).all(|pair| pair[0].bytes.end <= pair[1].bytes.start));
    let (first, last) = (&tags[0], &tags[tags.len() - 1]);
    assert!(first.bytes.start < 25 && last.bytes.end > text.len() - 30, "{first:?} {last:?}");
}

#[test]
fn answers_are_those_of_the_pipeline() {
    for name in ["bert-answers", "roberta-answers"] {
        let (golden, reader) = (expected(name), reader(name));
        for case in golden.as_array().unwrap() {
            let [question, context] = ["question", "context"].map(|key| case[key].as_str().unwrap());
            let option = |key: &str| case["options"][key].as_u64().map(|n| n as usize);
            let usual = AnswerOptions::default();
            let options = AnswerOptions {
                n: option("top_k").unwrap(),
                max_answer_len: option("max_answer_len").unwrap_or(usual.max_answer_len),
                window: option("max_seq_len").unwrap_or(usual.window),
                stride: option("doc_stride"),
                may_be_none: case["options"]["handle_impossible_answer"].as_bool() == Some(true),
            };
            let found = reader.answer(question, context, options).unwrap();
            let place = |at: usize| context[..at].chars().count() as u64;
            for (answer, expected) in found.iter().zip(case["answers"].as_array().unwrap()) {
                let what = format!("{name} {case}: {found:?}");
                assert!((answer.score - expected["score"].as_f64().unwrap()).abs() < 1e-5, "{what}");
                let [start, end] = ["start", "end"].map(|key| expected[key].as_u64().unwrap());
                assert_eq!((place(answer.bytes.start), place(answer.bytes.end)), (start, end), "{what}");
            }
            assert_eq!(found.len(), case["answers"].as_array().unwrap().len());
        }
    }
}

#[test]
fn a_model_with_another_head_is_refused() {
    let error = reader("bert-tags").fill_mask("[MASK]", 1).unwrap_err();
    assert!(
        matches!(error, Error::WrongHead { expected: Task::Vocabulary, got: Task::Tokens, .. }),
        "{error}"
    );
    assert!(reader("bert-masked").tag("a", Aggregation::None).is_err());
    assert!(reader("bert-masked").answer("a", "b", AnswerOptions::default()).is_err());
    assert!(reader("bert-answers").choose("a", &["b"]).is_err());
    let texts = [reader("bert-masked").text("a", Special::Literal)];
    assert!(reader("bert-masked").classify(&texts, reader("bert-classes").normalization()).is_err());
}
