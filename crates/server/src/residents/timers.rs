//! Unloads models whose time is over.

use super::{Shared, Slot};
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::Notify;

/// Sleeps until the next model expires, again and again, as long as somebody holds the models.
pub(super) async fn run(shared: Weak<Shared>, told: Arc<Notify>) {
    loop {
        let Some(next) = shared.upgrade().map(|shared| shared.expire(Instant::now())) else { return };
        match next {
            Some(at) => {
                let _ = tokio::time::timeout_at(at.into(), told.notified()).await;
            }
            None => told.notified().await,
        }
    }
}

impl Shared {
    /// Unloads what has expired; says when the next model does.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut slots = self.slots();
        let mut next: Option<Instant> = None;
        let mut over = Vec::new();
        for (name, slot) in &slots.by_key {
            let Slot::Ready(entry) = slot else { continue };
            match entry.expires_at() {
                Some(at) if at <= now => over.push(name.clone()),
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        let gone: Vec<Slot> = over.iter().filter_map(|name| slots.by_key.remove(name)).collect();
        slots.n_unloads += gone.len() as u64;
        drop(slots);
        for name in &over {
            tracing::info!(model = %name, "unload: nobody asked any more");
        }
        if !gone.is_empty() {
            drop(gone);
            self.freed.notify_waiters();
        }
        next
    }
}
