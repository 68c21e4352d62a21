//! Data sets with a layout of their own: SQuAD's articles, and the sentences of CoNLL-U.

use super::fields::{Fields, Wrong, describe, wrong};
use super::row::{Answer, Row};
use super::sink::{Halt, Lines, Sink};
use serde_json::Value;
use std::io::BufRead;

/// Whether an element of `data` is an article of SQuAD: one whose paragraphs are objects with a context.
pub(crate) fn is_article(fields: &Fields) -> bool {
    let paragraphs = fields.get("paragraphs").and_then(Value::as_array);
    paragraphs.and_then(|list| list.first()).is_some_and(|first| first.get("context").is_some())
}

/// The questions of an article. Source: SQuAD 1.1 (arXiv:1606.05250) and 2.0 (arXiv:1806.03822) as
/// distributed.
///
/// An answer that does not stand at its place is left out and counted; a question all of whose answers are
/// left out is left out as well.
pub(crate) fn article(fields: &Fields, sink: &mut Sink<'_>) -> Result<(), Halt> {
    for paragraph in fields.get("paragraphs").and_then(Value::as_array).into_iter().flatten() {
        let parts = (
            paragraph.get("context").and_then(Value::as_str),
            paragraph.get("qas").and_then(Value::as_array),
        );
        let (Some(context), Some(questions)) = parts else {
            sink.wrong("a paragraph with context and qas", describe(Some(paragraph)))?;
            continue;
        };
        for asked in questions {
            match question(context, asked) {
                Ok((row, n_misplaced)) => {
                    for _ in 0..n_misplaced {
                        sink.drop("an answer that does not stand at its place");
                    }
                    match row {
                        Some(row) => sink.row(row)?,
                        None => sink.drop("a question all of whose answers are misplaced"),
                    }
                }
                Err(wrong) => sink.wrong(wrong.expected, wrong.got)?,
            }
        }
    }
    Ok(())
}

/// The row of a question, if an answer is left, and how many are misplaced.
fn question(context: &str, asked: &Value) -> Result<(Option<Row>, usize), Wrong> {
    let question = asked.get("question").and_then(Value::as_str);
    let question = question.ok_or_else(|| wrong("a text at `question`", describe(asked.get("question"))))?;
    let given = match asked.get("answers") {
        None => &[][..],
        Some(Value::Array(answers)) => answers,
        other => return Err(wrong("a list at `answers`", describe(other))),
    };
    let mut answers: Vec<Answer> = Vec::new();
    for answer in given {
        let text = answer.get("text").and_then(Value::as_str);
        let start = answer.get("answer_start").and_then(Value::as_u64);
        let (Some(text), Some(start)) = (text, start) else {
            return Err(wrong("an answer with text and answer_start", describe(Some(answer))));
        };
        answers.push(Answer { text: text.to_string(), start: start as usize });
    }
    answers.retain(|answer| stands_at(context, answer));
    let n_misplaced = given.len() - answers.len();
    let is_useless = answers.is_empty() && n_misplaced > 0;
    let row = Row::Question { context: context.to_string(), question: question.to_string(), answers };
    Ok(((!is_useless).then_some(row), n_misplaced))
}

/// Whether the context has the answer's words where it says.
fn stands_at(context: &str, answer: &Answer) -> bool {
    let at = context.char_indices().map(|(at, _)| at).nth(answer.start);
    !answer.text.is_empty() && at.is_some_and(|at| context[at..].starts_with(&answer.text))
}

/// Sentences of words with their universal part of speech. Source: universaldependencies.org/format.html;
/// ranges of words (`1-2`) and empty nodes (`1.1`) are no words.
pub(crate) fn conllu(text: &mut dyn BufRead, sink: &mut Sink<'_>) -> Result<(), Halt> {
    let (mut lines, mut words, mut tags) = (Lines::default(), Vec::new(), Vec::new());
    loop {
        let more = sink.next_line(text, &mut lines)?;
        let line = lines.text.trim_end();
        if !more || line.is_empty() {
            if !words.is_empty() {
                let row = Row::Tagged { words: std::mem::take(&mut words), tags: std::mem::take(&mut tags) };
                sink.row(row)?;
            }
            if !more {
                return Ok(());
            }
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.split('\t').collect();
        let &[id, form, _, tag, ..] = columns.as_slice() else {
            sink.wrong("10 columns divided by tabs", format!("{} columns", columns.len()))?;
            continue;
        };
        if id.parse::<u32>().is_ok() {
            words.push(form.to_string());
            tags.push(tag.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::ReadOptions;
    use super::super::readers::tests::shown;
    use expect_test::{Expect, expect};

    fn check(name: &str, content: &str, expected: Expect) {
        expected.assert_eq(&shown(name, content.as_bytes(), &ReadOptions::default()));
    }

    #[test]
    fn questions_come_with_their_context_and_misplaced_answers_are_counted() {
        check(
            "a.json",
            r#"{"version": "1", "data": [{"title": "t", "paragraphs": [{"context": "é ab", "qas": [
              {"id": "1", "question": "q1", "answers": [{"text": "ab", "answer_start": 2}, {"text": "ab", "answer_start": 3}]},
              {"id": "2", "question": "q2", "answers": [], "is_impossible": true},
              {"id": "3", "question": "q3", "answers": [{"text": "x", "answer_start": 0}]}]}]}]}"#,
            expect![[r#"
                row 1: Question { context: "é ab", question: "q1", answers: [Answer { text: "ab", start: 2 }] }
                row 1: Question { context: "é ab", question: "q2", answers: [] }
                dropped 1: a question all of whose answers are misplaced, first at a.json, row 1
                dropped 2: an answer that does not stand at its place, first at a.json, row 1"#]],
        );
        check(
            "a.json",
            r#"{"data": [{"paragraphs": [{"context": "a"}]}]}"#,
            expect![[
                r#"error: a.json, row 1: expected a paragraph with context and qas; got an object, {"context":"a"}"#
            ]],
        );
        check(
            "a.json",
            r#"{"data": [{"paragraphs": [{"context": "a", "qas": [{"answers": []}]}]}]}"#,
            expect!["error: a.json, row 1: expected a text at `question`; got nothing"],
        );
    }

    #[test]
    fn sentences_are_words_with_tags() {
        check(
            "a.conllu",
            "# text = du lac\n1-2\tdu\t_\t_\n1\tde\t_\tADP\t_\n2\tle\t_\tDET\t_\n3\tlac\t_\tNOUN\t_\n\n1\ta\t_\tX\t_\n",
            expect![[r#"
                line 6: Tagged { words: ["de", "le", "lac"], tags: ["ADP", "DET", "NOUN"] }
                line 7: Tagged { words: ["a"], tags: ["X"] }"#]],
        );
        check(
            "a.conllu",
            "1 a X\n",
            expect!["error: a.conllu, line 1: expected 10 columns divided by tabs; got 1 columns"],
        );
    }
}
