//! Which kind of row an object of named fields is: the table [`SHAPES`], whose first entry that fits counts.

use super::fields::{
    Fields, Wrong, answer_at, describe, list_at, message_list, optional_text, prompt_at, scalar, text_at,
    wrong,
};
use super::options::Instructions;
use super::row::{Answer, Row};
use super::transcript;
use rhetor_catalog::{About, Source};
use rhetor_lm::Role;
use serde_json::Value;

/// A way to write a kind of row.
#[derive(Debug)]
pub struct Shape {
    /// How it introduces itself.
    pub about: About,
    /// Fields that a row of this shape has; of names divided by `|`, one.
    pub needs: &'static [&'static str],
    make: fn(&Fields, Instructions) -> Result<Made, Wrong>,
}

/// What became of an object.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Made {
    pub rows: Vec<Row>,
    /// Why something of it was left out.
    pub dropped: Vec<&'static str>,
}

/// All of them; the first that fits counts.
pub const SHAPES: &[Shape] = &[
    shape(
        "preference",
        "chosen and rejected answers: texts, HH-RLHF transcripts or message lists; prompt and margin may be there",
        "huggingface/trl, dataset formats",
        &["chosen", "rejected"],
        preference,
    ),
    shape("rated", "prompt, completion and a true or false label", "huggingface/trl, KTO", RATED, rated),
    shape(
        "messages",
        "a list of messages with role and content",
        "OpenAI, chat completions",
        &["messages"],
        messages,
    ),
    shape(
        "sharegpt",
        "conversations with from and value",
        "lm-sys/FastChat, ShareGPT",
        &["conversations"],
        conversations,
    ),
    shape(
        "pictured",
        "the file of an image, a prompt (or instruction, question) if there is one, and an answer or caption",
        "Vision-CAIR/MiniGPT-4",
        PICTURED,
        pictured,
    ),
    shape(
        "self-instruct",
        "an instruction and its instances, each with input and output",
        "yizhongw/self-instruct",
        &["instruction", "instances"],
        instances,
    ),
    shape(
        "alpaca",
        "instruction, input (or context) and output (or response)",
        "tatsu-lab/stanford_alpaca",
        &["instruction", "output|response"],
        alpaca,
    ),
    shape("question", "context, question and answers with their starts", "SQuAD", QUESTION, question),
    shape("tagged", "words (or tokens) and as many tags", "CoNLL-2003", TAGGED, tagged),
    shape(
        "translation",
        "two languages of one text",
        "huggingface/datasets, WMT",
        &["translation"],
        translation,
    ),
    shape("source-target", "source and target text", "OPUS", &["source", "target"], source_target),
    shape("classified", "a text, or a pair, and its label", "GLUE", CLASSIFIED, classified),
    shape(
        "completion",
        "prompt and completion, or question and answer",
        "OpenAI, fine-tuning",
        GIVEN,
        completion,
    ),
    shape("paragraphs", "a title and a list of paragraphs", "chinese-poetry", &["paragraphs"], paragraphs),
    shape("text", "a text", "The Pile", &["text|content"], text),
];

const RATED: &[&str] = &["prompt", "completion", "label"];
const PICTURED: &[&str] = &["image", "answer|caption|completion|response|output"];
const QUESTION: &[&str] = &["context", "question", "answers"];
const TAGGED: &[&str] = &["words|tokens", "tags|ner_tags|pos_tags"];
const CLASSIFIED: &[&str] = &["text|sentence|sentence1|premise", "label"];
const GIVEN: &[&str] = &["prompt|question", "completion|response|answer"];

const fn shape(
    name: &'static str,
    summary: &'static str,
    project: &'static str,
    needs: &'static [&'static str],
    make: fn(&Fields, Instructions) -> Result<Made, Wrong>,
) -> Shape {
    Shape { about: About { name, summary, source: Source::Project(project), options: &[] }, needs, make }
}

impl Shape {
    fn fits(&self, fields: &Fields) -> bool {
        self.needs.iter().all(|need| need.split('|').any(|key| fields.contains_key(key)))
    }
}

/// The rows of one object.
pub(crate) fn rows_of(fields: &Fields, instructions: Instructions) -> Result<Made, Wrong> {
    match SHAPES.iter().find(|shape| shape.fits(fields)) {
        Some(shape) => (shape.make)(fields, instructions),
        None => {
            let known: Vec<String> = SHAPES.iter().map(|shape| shape.needs.join(" + ")).collect();
            let keys: Vec<&str> = fields.keys().map(String::as_str).collect();
            Err(wrong(
                format!("fields of one of these kinds: {}", known.join("; ")),
                format!("the fields {}", if keys.is_empty() { "none".to_string() } else { keys.join(", ") }),
            ))
        }
    }
}

fn one(row: Row) -> Result<Made, Wrong> {
    Ok(Made { rows: vec![row], dropped: Vec::new() })
}

fn dropped(reason: &'static str) -> Result<Made, Wrong> {
    Ok(Made { rows: Vec::new(), dropped: vec![reason] })
}

fn preference(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    let margin = match fields.get("margin") {
        None | Some(Value::Null) => None,
        Some(Value::Number(margin)) => margin.as_f64().map(|margin| margin as f32),
        other => return Err(wrong("a number at `margin`", describe(other))),
    };
    let side = |key: &str| match fields.get(key) {
        Some(Value::String(text)) if transcript::is_transcript(text) => Ok(Some(transcript::turns(text))),
        Some(Value::String(_)) => Ok(None),
        Some(Value::Array(items)) => message_list(items, "role", "content").map(Some),
        other => Err(wrong(format!("a text or a list of messages at `{key}`"), describe(other))),
    };
    let (prompt, chosen, rejected) = match (side("chosen")?, side("rejected")?) {
        // Whole conversations on both sides, or answers alone after a prompt that stands apart.
        (Some(chosen), Some(rejected)) if chosen.len() > 1 || !fields.contains_key("prompt") => {
            match transcript::common_prompt(chosen, rejected) {
                Some(parts) => parts,
                None => return dropped("chosen and rejected have no common prompt"),
            }
        }
        (Some(_), None) | (None, Some(_)) => {
            return Err(wrong("chosen and rejected of the same form", "a conversation and a text"));
        }
        _ => (prompt_at(fields, "prompt")?, answer_at(fields, "chosen")?, answer_at(fields, "rejected")?),
    };
    if chosen == rejected {
        return dropped("chosen and rejected are the same");
    }
    one(Row::Preference { prompt, chosen, rejected, margin })
}

fn rated(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    let desirable = match fields.get("label") {
        Some(Value::Bool(label)) => *label,
        Some(Value::String(label)) if label.eq_ignore_ascii_case("true") => true,
        Some(Value::String(label)) if label.eq_ignore_ascii_case("false") => false,
        other => return Err(wrong("true or false at `label`", describe(other))),
    };
    one(Row::Rated {
        prompt: prompt_at(fields, "prompt")?,
        answer: answer_at(fields, "completion")?,
        desirable,
    })
}

fn messages(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    match message_list(list_at(fields, "messages")?, "role", "content")? {
        turns if turns.is_empty() => dropped("no message"),
        turns => one(Row::Chat(turns)),
    }
}

/// A conversation that the assistant begins loses its first turn, as in Vicuna's training.
fn conversations(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    let mut turns = message_list(list_at(fields, "conversations")?, "from", "value")?;
    let mut made = Made::default();
    let first = turns.iter().position(|turn| turn.role != Role::System);
    if let Some(at) = first.filter(|&at| turns[at].role == Role::Assistant) {
        turns.remove(at);
        made.dropped.push("a first turn of the assistant, cut off its conversation");
    }
    match turns.iter().any(|turn| turn.role != Role::System) {
        true => made.rows.push(Row::Chat(turns)),
        false => made.dropped.push("no message"),
    }
    Ok(made)
}

fn pictured(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    let answer = text_at(fields, "answer|caption|completion|response|output")?;
    if answer.trim().is_empty() {
        return dropped("an image without an answer");
    }
    let prompt = optional_text(fields, "prompt|instruction|question")?.unwrap_or_default();
    one(Row::Pictured { image: text_at(fields, "image")?.into(), prompt, answer })
}

fn instances(fields: &Fields, instructions: Instructions) -> Result<Made, Wrong> {
    let instruction = text_at(fields, "instruction")?;
    let mut made = Made::default();
    for item in list_at(fields, "instances")? {
        let item = item.as_object().ok_or_else(|| wrong("an object in `instances`", describe(Some(item))))?;
        let (input, output) = (optional_text(item, "input")?, text_at(item, "output")?);
        if output.trim().is_empty() {
            made.dropped.push("an instance without output");
            continue;
        }
        made.rows.push(instructions.row(&instruction, input.as_deref(), output));
    }
    Ok(made)
}

fn alpaca(fields: &Fields, instructions: Instructions) -> Result<Made, Wrong> {
    let (instruction, output) = (text_at(fields, "instruction")?, text_at(fields, "output|response")?);
    let input = optional_text(fields, "input|context")?;
    if output.trim().is_empty() {
        return dropped("an instruction without output");
    }
    one(instructions.row(&instruction, input.as_deref(), output))
}

/// SQuAD as one row for each question: `{"answers": {"text": [...], "answer_start": [...]}}`.
fn question(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    let Some(Value::Object(answers)) = fields.get("answers") else {
        return Err(wrong(
            "an object with text and answer_start at `answers`",
            describe(fields.get("answers")),
        ));
    };
    let (texts, starts) = (list_at(answers, "text")?, list_at(answers, "answer_start")?);
    if texts.len() != starts.len() {
        let got = format!("{} texts and {} starts", texts.len(), starts.len());
        return Err(wrong("as many texts as starts in `answers`", got));
    }
    let answer = |(text, start): (&Value, &Value)| match (text, start.as_u64()) {
        (Value::String(text), Some(start)) => Ok(Answer { text: text.clone(), start: start as usize }),
        _ => Err(wrong("a text and its start in `answers`", describe(Some(text)))),
    };
    one(Row::Question {
        context: text_at(fields, "context")?,
        question: text_at(fields, "question")?,
        answers: texts.iter().zip(starts).map(answer).collect::<Result<_, Wrong>>()?,
    })
}

fn tagged(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    let texts = |keys: &str| {
        let item = |value: &Value| {
            scalar(value).ok_or_else(|| wrong(format!("texts at `{keys}`"), describe(Some(value))))
        };
        list_at(fields, keys)?.iter().map(item).collect::<Result<Vec<String>, Wrong>>()
    };
    let (words, tags) = (texts("words|tokens")?, texts("tags|ner_tags|pos_tags")?);
    if words.len() != tags.len() {
        return Err(wrong("as many tags as words", format!("{} words and {} tags", words.len(), tags.len())));
    }
    if words.is_empty() { dropped("no word") } else { one(Row::Tagged { words, tags }) }
}

fn translation(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    let pair = fields.get("translation").and_then(Value::as_object).filter(|pair| pair.len() == 2);
    let pair: Option<Vec<&str>> = pair.map(|pair| pair.values().filter_map(Value::as_str).collect());
    match pair.as_deref() {
        Some([source, target]) => {
            one(Row::Translation { source: source.to_string(), target: target.to_string() })
        }
        _ => Err(wrong("two texts at `translation`", describe(fields.get("translation")))),
    }
}

fn source_target(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    one(Row::Translation { source: text_at(fields, "source")?, target: text_at(fields, "target")? })
}

fn classified(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    let label = fields.get("label").and_then(scalar);
    let label = label.ok_or_else(|| wrong("a text or number at `label`", describe(fields.get("label"))))?;
    let text = text_at(fields, "text|sentence|sentence1|premise")?;
    one(Row::Classified { text, text_pair: optional_text(fields, "text_pair|sentence2|hypothesis")?, label })
}

fn completion(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    let prompt = text_at(fields, "prompt|question")?;
    let completion = text_at(fields, "completion|response|answer")?;
    if completion.is_empty() {
        return dropped("a prompt without completion");
    }
    one(Row::Completion { prompt, completion })
}

fn paragraphs(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    let line = |value: &Value| match value {
        Value::String(line) => Ok(line.clone()),
        other => Err(wrong("texts at `paragraphs`", describe(Some(other)))),
    };
    let mut lines =
        list_at(fields, "paragraphs")?.iter().map(line).collect::<Result<Vec<String>, Wrong>>()?;
    if lines.iter().all(|line| line.trim().is_empty()) {
        return dropped("an empty text");
    }
    if let Some(title) = optional_text(fields, "title")? {
        lines.insert(0, title);
    }
    one(Row::Text(lines.join("\n") + "\n"))
}

fn text(fields: &Fields, _: Instructions) -> Result<Made, Wrong> {
    match text_at(fields, "text|content")? {
        text if text.trim().is_empty() => dropped("an empty text"),
        text => one(Row::Text(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(json: &str, expected: Expect) {
        let fields: Fields = serde_json::from_str(json).unwrap();
        let shown = match rows_of(&fields, Instructions::Chat) {
            Ok(made) => {
                let rows = made.rows.iter().map(|row| format!("{row:?}"));
                rows.chain(made.dropped.iter().map(|why| format!("dropped: {why}")))
                    .collect::<Vec<_>>()
                    .join("\n")
            }
            Err(wrong) => format!("expected {}\ngot {}", wrong.expected, wrong.got),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn every_shape_has_a_name_of_its_own() {
        for (i, shape) in SHAPES.iter().enumerate() {
            let about = shape.about;
            assert!(
                about.name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
                    && !about.summary.ends_with('.')
            );
            assert!(
                SHAPES[..i].iter().all(|other| other.about.name != about.name && other.needs != shape.needs)
            );
        }
    }

    #[test]
    fn every_shape_is_told_by_its_fields() {
        check(r#"{"text": "a", "meta": 1}"#, expect![[r#"Text("a")"#]]);
        check(
            r#"{"prompt": "a", "completion": "b"}"#,
            expect![[r#"Completion { prompt: "a", completion: "b" }"#]],
        );
        check(
            r#"{"question": "a", "answer": "b"}"#,
            expect![[r#"Completion { prompt: "a", completion: "b" }"#]],
        );
        check(
            r#"{"instruction": "a", "input": "b", "output": "c"}"#,
            expect![[
                r#"Chat([Message { role: User, content: "a\n\nb" }, Message { role: Assistant, content: "c" }])"#
            ]],
        );
        check(
            r#"{"instruction": "a", "context": "", "response": "c"}"#,
            expect![[
                r#"Chat([Message { role: User, content: "a" }, Message { role: Assistant, content: "c" }])"#
            ]],
        );
        check(
            r#"{"instruction": "a", "instances": [{"input": "", "output": "b"}, {"input": "c", "output": "d"}, {"input": "e", "output": ""}]}"#,
            expect![[r#"
                Chat([Message { role: User, content: "a" }, Message { role: Assistant, content: "b" }])
                Chat([Message { role: User, content: "a\n\nc" }, Message { role: Assistant, content: "d" }])
                dropped: an instance without output"#]],
        );
        check(
            r#"{"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}"#,
            expect![[
                r#"Chat([Message { role: System, content: "a" }, Message { role: User, content: "b" }])"#
            ]],
        );
        check(
            r#"{"conversations": [{"from": "gpt", "value": "x"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#,
            expect![[r#"
                Chat([Message { role: User, content: "a" }, Message { role: Assistant, content: "b" }])
                dropped: a first turn of the assistant, cut off its conversation"#]],
        );
        check(
            r#"{"prompt": "a", "chosen": "b", "rejected": "c", "margin": 0.5}"#,
            expect![[
                r#"Preference { prompt: [Message { role: User, content: "a" }], chosen: "b", rejected: "c", margin: Some(0.5) }"#
            ]],
        );
        check(
            r#"{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}"#,
            expect![[
                r#"Preference { prompt: [Message { role: User, content: "a" }], chosen: "b", rejected: "c", margin: None }"#
            ]],
        );
        check(
            r#"{"prompt": "a", "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}"#,
            expect![[
                r#"Preference { prompt: [Message { role: User, content: "a" }], chosen: "b", rejected: "c", margin: None }"#
            ]],
        );
        check(
            r#"{"prompt": "a", "completion": "b", "label": false}"#,
            expect![[
                r#"Rated { prompt: [Message { role: User, content: "a" }], answer: "b", desirable: false }"#
            ]],
        );
        check(
            r#"{"text": "a", "label": 1}"#,
            expect![[r#"Classified { text: "a", text_pair: None, label: "1" }"#]],
        );
        check(
            r#"{"premise": "a", "hypothesis": "b", "label": "entails"}"#,
            expect![[r#"Classified { text: "a", text_pair: Some("b"), label: "entails" }"#]],
        );
        check(
            r#"{"tokens": ["a", "b"], "ner_tags": [0, 3]}"#,
            expect![[r#"Tagged { words: ["a", "b"], tags: ["0", "3"] }"#]],
        );
        check(
            r#"{"translation": {"en": "a", "de": "b"}}"#,
            expect![[r#"Translation { source: "a", target: "b" }"#]],
        );
        check(r#"{"title": "t", "paragraphs": ["a", "b"]}"#, expect![[r#"Text("t\na\nb\n")"#]]);
        check(
            r#"{"context": "ab", "question": "q", "answers": {"text": ["b"], "answer_start": [1]}}"#,
            expect![[
                r#"Question { context: "ab", question: "q", answers: [Answer { text: "b", start: 1 }] }"#
            ]],
        );
    }

    #[test]
    fn wrong_rows_say_what_was_expected_and_what_is_there() {
        check(
            r#"{"text": 5}"#,
            expect![[r#"
            expected a text at `text|content`
            got a number, 5"#]],
        );
        check(
            r#"{"prompt": "a"}"#,
            expect![[r#"
            expected fields of one of these kinds: chosen + rejected; prompt + completion + label; messages; conversations; instruction + instances; instruction + output|response; context + question + answers; words|tokens + tags|ner_tags|pos_tags; translation; source + target; text|sentence|sentence1|premise + label; prompt|question + completion|response|answer; paragraphs; text|content
            got the fields prompt"#]],
        );
        check(
            r#"{"messages": "a"}"#,
            expect![[r#"
            expected a list at `messages`
            got a text, "a""#]],
        );
        check(
            r#"{"messages": [{"role": "narrator", "content": "a"}]}"#,
            expect![[r#"
            expected a speaker that is known at `role`
            got the speaker "narrator""#]],
        );
        check(
            r#"{"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}"#,
            expect![[r#"
            expected messages of text only
            got a message with `tool_calls`"#]],
        );
        check(
            r#"{"tokens": ["a"], "tags": ["X", "Y"]}"#,
            expect![[r#"
            expected as many tags as words
            got 1 words and 2 tags"#]],
        );
        check(
            r#"{"prompt": "a", "completion": "b", "label": 1}"#,
            expect![[r#"
            expected true or false at `label`
            got a number, 1"#]],
        );
        check(
            r#"{"chosen": "a", "rejected": "b"}"#,
            expect![[r#"
            expected a text or a list of messages at `prompt`
            got nothing"#]],
        );
        check(
            r#"{"prompt": "a", "chosen": "b", "rejected": "b"}"#,
            expect!["dropped: chosen and rejected are the same"],
        );
        check(
            r#"{"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"}"#,
            expect!["dropped: chosen and rejected have no common prompt"],
        );
    }
}
