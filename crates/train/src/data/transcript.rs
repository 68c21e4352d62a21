//! Conversations written as one text with `Human:` and `Assistant:`, as Anthropic's HH-RLHF does.

use rhetor_lm::{Message, Role};

/// What begins a turn; a turn's text follows after an optional space.
const HEADS: [(&str, Role); 2] = [("\n\nHuman:", Role::User), ("\n\nAssistant:", Role::Assistant)];

/// Whether `text` is such a transcript.
pub(crate) fn is_transcript(text: &str) -> bool {
    text.starts_with(HEADS[0].0) || text.starts_with(HEADS[1].0)
}

/// The turns of a transcript; turns of the same speaker that follow each other are joined by a blank line.
pub(crate) fn turns(text: &str) -> Vec<Message> {
    let mut turns: Vec<Message> = Vec::new();
    let mut rest = text;
    while let Some((at, head, role)) = next_head(rest) {
        let after = &rest[at + head.len()..];
        let end = next_head(after).map_or(after.len(), |(at, _, _)| at);
        let content = after[..end].strip_prefix(' ').unwrap_or(&after[..end]);
        match turns.last_mut() {
            Some(last) if last.role == role => last.content = format!("{}\n\n{content}", last.content),
            _ => turns.push(Message::new(role, content)),
        }
        rest = &after[end..];
    }
    turns
}

/// Where the next turn begins, with its head.
fn next_head(text: &str) -> Option<(usize, &'static str, Role)> {
    let found = HEADS.iter().filter_map(|&(head, role)| Some((text.find(head)?, head, role)));
    found.min_by_key(|(at, _, _)| *at)
}

/// Splits two conversations into what they have in common and the last answers, if that is all in which they
/// differ.
pub(crate) fn common_prompt(
    mut chosen: Vec<Message>,
    mut rejected: Vec<Message>,
) -> Option<(Vec<Message>, String, String)> {
    let better = chosen.pop().filter(|last| last.role == Role::Assistant)?;
    let worse = rejected.pop().filter(|last| last.role == Role::Assistant)?;
    (chosen == rejected && !chosen.is_empty()).then_some((chosen, better.content, worse.content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_becomes_turns_and_keeps_the_line_breaks_inside() {
        let text = "\n\nHuman: a\n\nb\n\nAssistant: c\n\nAssistant: d\n\nHuman:e";
        let expected = [Message::user("a\n\nb"), Message::assistant("c\n\nd"), Message::user("e")];
        assert_eq!(turns(text), expected);
        assert!(is_transcript(text) && !is_transcript("Human: a"));
    }

    #[test]
    fn a_pair_that_differs_before_the_answer_has_no_common_prompt() {
        let pair = |a: &str, b: &str| common_prompt(turns(a), turns(b));
        let (prompt, chosen, rejected) =
            pair("\n\nHuman: q\n\nAssistant: x", "\n\nHuman: q\n\nAssistant: y").unwrap();
        assert_eq!((prompt, chosen.as_str(), rejected.as_str()), (vec![Message::user("q")], "x", "y"));
        assert!(pair("\n\nHuman: q\n\nAssistant: x", "\n\nHuman: r\n\nAssistant: y").is_none());
        assert!(pair("\n\nHuman: q", "\n\nHuman: q\n\nAssistant: y").is_none());
        assert!(pair("\n\nAssistant: x", "\n\nAssistant: y").is_none());
    }
}
