//! Where a template puts answers, found by rendering a stand-in for each.

use crate::Skip;
use rhetor_lm::{Message, Role};
use std::ops::Range;

/// What a stand-in for an answer is made of: the first character of the private use area of the basic plane.
const STAND_IN: char = '\u{E000}';

/// Where the words of each turn of the assistant stand in the whole, by rendering stand-ins for them.
pub(crate) fn places(
    render: &impl Fn(&[Message]) -> Result<String, Skip>,
    turns: &[Message],
    whole: &str,
) -> Result<Vec<Range<usize>>, Skip> {
    if whole.contains(STAND_IN) {
        return Err(Skip::AnswerNotShown);
    }
    let mut replaced = turns.to_vec();
    for turn in replaced.iter_mut().filter(|turn| turn.role == Role::Assistant) {
        turn.content = STAND_IN.to_string();
    }
    let rendered = render(&replaced)?;
    let mut frames = rendered.split(STAND_IN);
    let mut at = frames.next().filter(|frame| whole.starts_with(frame)).ok_or(Skip::AnswerNotShown)?.len();
    let mut places = vec![0..0; turns.len()];
    for (place, turn) in places.iter_mut().zip(turns).filter(|(_, turn)| turn.role == Role::Assistant) {
        let frame = frames.next().ok_or(Skip::AnswerNotShown)?;
        // Templates show an answer as it is, trimmed on both sides or on one, or without its reasoning.
        let content = turn.content.as_str();
        let spoken =
            content.rsplit_once("</think>").map_or(content, |(_, spoken)| spoken).trim_start_matches('\n');
        let forms =
            [content, content.trim(), content.trim_start(), content.trim_end(), spoken, spoken.trim()];
        let fits = |form: &&str| whole[at..].strip_prefix(form).is_some_and(|rest| rest.starts_with(frame));
        let form = forms.iter().find(|form| fits(form)).ok_or(Skip::AnswerNotShown)?;
        *place = at..at + form.len();
        at += form.len() + frame.len();
    }
    if at == whole.len() && frames.next().is_none() { Ok(places) } else { Err(Skip::AnswerNotShown) }
}
