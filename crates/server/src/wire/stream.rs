//! A reply that grows while a model speaks.

use crate::refusal::Refusal;
use crate::speech::{Heard, Speech};
use axum::body::{Body, Bytes};
use futures_util::stream::unfold;
use std::convert::Infallible;

/// Waits until `speech` has begun; returns what was heard first, or why nothing will be. Until then the status of the
/// reply is open.
pub(crate) async fn begun(speech: &mut Speech) -> Result<Heard, Refusal> {
    match speech.next().await {
        Heard::Done(Err(error)) => Err(error.into()),
        Heard::Panicked => Err(Refusal::panicked()),
        heard => Ok(heard),
    }
}

/// A body in which `write` puts what is heard, from `first` to the end of the speech. Dropping it breaks the speech off.
pub(crate) fn body(
    speech: Speech,
    first: Heard,
    write: impl FnMut(Heard, &mut Vec<u8>) + Send + 'static,
) -> Body {
    let state = (speech, Some(first), write, false);
    Body::from_stream(unfold(state, async |(mut speech, mut first, mut write, is_over)| {
        if is_over {
            return None;
        }
        let (mut out, mut is_over) = (Vec::new(), false);
        while out.is_empty() && !is_over {
            let heard = match first.take() {
                Some(heard) => heard,
                None => speech.next().await,
            };
            is_over = matches!(heard, Heard::Done(_) | Heard::Panicked);
            write(heard, &mut out);
        }
        Some((Ok::<_, Infallible>(Bytes::from(out)), (speech, None, write, is_over)))
    }))
}
