//! What grammars accept, token by token, over a vocabulary of single characters.

use super::{Grammars, State};
use crate::engine_tests::letters;
use rhetor_lm::{Constraint, Error};
use rhetor_tokenizer::Tokenizer;
use std::sync::Arc;

fn begin(constraint: &Constraint) -> Result<State, Error> {
    Ok(Grammars::new(&letters()).unwrap().compile(constraint)?.begin(Arc::from([1]), None))
}

/// How many characters of `text` the grammar takes, and whether the text may end there.
fn walk(constraint: &Constraint, text: &str) -> (usize, bool) {
    let tokenizer: Tokenizer = letters();
    let mut state = begin(constraint).unwrap_or_else(|error| panic!("{constraint:?}: {error}"));
    for (n, c) in text.chars().enumerate() {
        let id = tokenizer.encode(&c.to_string(), rhetor_tokenizer::Special::Literal)[0];
        let mask = state.mask().unwrap();
        if !mask.allows(id) {
            return (n, mask.allows(1));
        }
        state.commit(id).unwrap();
    }
    (text.chars().count(), state.mask().unwrap().allows(1))
}

fn schema(text: &str) -> Constraint {
    Constraint::JsonSchema(text.to_string())
}

fn refusal(constraint: &Constraint) -> String {
    match begin(constraint) {
        Err(Error::Constraint { kind, reason }) => {
            assert_eq!(kind, constraint.name());
            reason
        }
        other => panic!("{constraint:?} gives {other:?}"),
    }
}

#[test]
fn a_schema_takes_what_it_describes_and_ends_with_it() {
    let object = schema(
        r#"{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
            "additionalProperties": false}"#,
    );
    assert_eq!(walk(&object, "{\"a\":12}"), (8, true));
    assert_eq!(walk(&object, "{\n  \"a\": 12}"), (12, true));
    assert_eq!(walk(&object, "{\"a\":12}\n").0, 8, "nothing follows the end");
    assert_eq!(walk(&object, " {").0, 0);
    assert_eq!(walk(&object, "{\"b").0, 2);
    assert_eq!(walk(&object, "{\"a\":12,").0, 7);
    assert_eq!(walk(&object, "{}").0, 1);
}

#[test]
fn a_text_is_complete_as_soon_as_nothing_may_follow() {
    let tokenizer = letters();
    let mut state = begin(&Constraint::Regex("ab?c|abd*".to_string())).unwrap();
    let mut found = Vec::new();
    for c in ["a", "b", "c"] {
        state.commit(tokenizer.id(c).unwrap()).unwrap();
        found.push((state.is_complete(), state.mask().unwrap().allows(1)));
    }
    assert_eq!(found, [(false, false), (false, true), (true, true)]);
    assert_eq!(state.mask().unwrap().n_allowed(), 1, "a complete text allows its end alone");
}

#[test]
fn a_regular_expression_must_match_the_whole_text() {
    let regex = |text: &str| Constraint::Regex(text.to_string());
    assert_eq!(walk(&regex("[0-9]{3}"), "1234"), (3, true));
    assert_eq!(walk(&regex("(ab|abc)d"), "abcd"), (4, true));
    assert_eq!(walk(&regex("^a/b$"), "a/b"), (3, true));
    assert_eq!(walk(&regex("a.c"), "a\nc"), (1, false));
    assert_eq!(walk(&regex(""), "a"), (0, true));
    for (bad, why) in [
        ("(", "unclosed group"),
        ("a{2,1}", "invalid repetition count range"),
        (r"(a)\1", "backreferences are not supported"),
        ("(?=a)b", "look-around"),
        ("a\\", "incomplete escape"),
    ] {
        let reason = refusal(&regex(bad));
        assert!(reason.contains(why), "{bad}: {reason}");
    }
}

#[test]
fn a_lark_grammar_may_name_control_tokens_and_schemas() {
    let lark = |text: &str| Constraint::Lark(text.to_string());
    let sum = lark("start: item (\"+\" item)*\nitem: NUMBER | \"(\" start \")\"\nNUMBER: /[0-9]+/\n");
    assert_eq!(walk(&sum, "12+(3+4)"), (8, true));
    assert_eq!(walk(&sum, "12+)").0, 3);
    let call = lark("start: \"x=\" %json {\"type\": \"boolean\"} \";\"");
    assert_eq!(walk(&call, "x=true;"), (7, true));
    let mut state = begin(&lark("start: <|x|> \"a\"")).unwrap();
    assert_eq!(state.mask().unwrap().n_allowed(), 1);
    state.commit(2).unwrap();
    state.commit(letters().id("a").unwrap()).unwrap();
    assert!(state.is_complete());
    assert!(refusal(&lark("start: \"a\" nothing")).contains("unknown name: \"nothing\""));
    assert!(refusal(&lark("begin: \"a\"")).contains("no start rule"));
}

#[test]
fn a_grammar_is_compiled_once_and_walks_do_not_meet() {
    let grammars = Grammars::new(&letters()).unwrap();
    let json = Constraint::Json;
    let (first, second) = (grammars.compile(&json).unwrap(), grammars.compile(&json).unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    let mut one = first.begin(Arc::from([1]), None);
    let mut other = second.begin(Arc::from([1]), None);
    let mut fork = one.clone();
    one.commit(letters().id("{").unwrap()).unwrap();
    assert_eq!(other.mask().unwrap(), fork.mask().unwrap());
    assert_ne!(one.mask().unwrap(), fork.mask().unwrap());
}
