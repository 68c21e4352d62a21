//! Responses that may be asked for again, and continued: in memory, the oldest forgotten first.

use rhetor_lm::Message;
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most responses that are kept.
const MAX_RESPONSES: usize = 1000;
/// The most bytes of all together.
const MAX_BYTES: usize = 64 << 20;

/// A response that is over.
#[derive(Debug, Default, Clone)]
pub(crate) struct Kept {
    /// The response as it was told.
    pub response: Value,
    /// All turns up to its end, instructions left out.
    pub turns: Vec<Message>,
    /// The pictures that these show.
    pub pictures: Vec<Arc<[u8]>>,
}

impl Kept {
    /// About as many bytes as it takes.
    fn bytes(&self) -> usize {
        let of_turn = |turn: &Message| {
            let calls = turn.tool_calls.iter().map(|call| call.arguments.len() + 100);
            turn.content.len() + turn.thinking.as_ref().map_or(0, String::len) + calls.sum::<usize>() + 100
        };
        let pictures = self.pictures.iter().map(|picture| picture.len());
        // A parsed value takes several times its text.
        4 * self.response.to_string().len()
            + self.turns.iter().map(of_turn).sum::<usize>()
            + pictures.sum::<usize>()
    }
}

/// Responses by id.
#[derive(Default)]
pub(crate) struct ResponseStore {
    kept: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    by_id: HashMap<String, (Arc<Kept>, usize)>,
    /// Ids, the oldest first; some may be deleted already.
    order: VecDeque<String>,
    bytes: usize,
}

impl ResponseStore {
    /// Keeps a response as long as there is room. One that is larger than all room is not kept.
    pub fn keep(&self, id: &str, kept: Kept) {
        let bytes = kept.bytes();
        if bytes > MAX_BYTES {
            return;
        }
        let mut shelf = self.lock();
        shelf.bytes += bytes;
        shelf.by_id.insert(id.to_string(), (Arc::new(kept), bytes));
        shelf.order.push_back(id.to_string());
        while shelf.bytes > MAX_BYTES || shelf.order.len() > MAX_RESPONSES {
            let Some(oldest) = shelf.order.pop_front() else { return };
            shelf.forget(&oldest);
        }
    }

    /// The response of that id.
    pub fn get(&self, id: &str) -> Option<Arc<Kept>> {
        self.lock().by_id.get(id).map(|(kept, _)| kept.clone())
    }

    /// Forgets a response; false if there was none.
    pub fn delete(&self, id: &str) -> bool {
        self.lock().forget(id)
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn forget(&mut self, id: &str) -> bool {
        let Some((_, bytes)) = self.by_id.remove(id) else { return false };
        self.bytes -= bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_bytes(n: usize) -> Kept {
        Kept { turns: vec![Message::user("x".repeat(n))], ..Kept::default() }
    }

    #[test]
    fn the_oldest_are_forgotten_when_there_are_too_many() {
        let store = ResponseStore::default();
        (0..MAX_RESPONSES + 2).for_each(|i| store.keep(&i.to_string(), of_bytes(1)));
        assert!(store.get("1").is_none() && store.get("2").is_some());
        assert!(store.delete("2") && !store.delete("2") && store.get("2").is_none());
    }

    #[test]
    fn all_together_stay_below_a_number_of_bytes() {
        let store = ResponseStore::default();
        for id in ["a", "b", "c"] {
            store.keep(id, of_bytes(MAX_BYTES / 2 - 1000));
        }
        assert!(store.get("a").is_none() && store.get("b").is_some() && store.get("c").is_some());
        store.keep("d", of_bytes(MAX_BYTES + 1));
        assert!(store.get("d").is_none() && store.get("c").is_some());
        assert!(store.lock().bytes <= MAX_BYTES);
    }
}
