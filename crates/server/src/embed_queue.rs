//! Texts that wait for their vectors: those of requests that come together go through the model together.

use crate::refusal::Refusal;
use crate::residents::Lease;
use axum::http::StatusCode;
use rhetor_encode::Text;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Texts of one request that go into one pass: whoever has many does not hold up whoever has few.
const TEXTS_EACH: usize = 32;

/// A model, by where it lies: it stays there as long as somebody holds a lease of it.
type Place = usize;

/// Texts that wait for their vectors, by model. A model that has an entry is at work.
#[derive(Default)]
pub(crate) struct EmbedQueue {
    waiting: Mutex<HashMap<Place, Vec<Job>>>,
}

/// The texts of a request.
struct Job {
    texts: Vec<Text>,
    n_prompt: usize,
    vectors: Vec<Vec<f32>>,
    tell: oneshot::Sender<Vec<Vec<f32>>>,
}

impl EmbedQueue {
    /// The vectors of `texts`, of each of which the first `n_prompt` tokens are the prompt's. At most `limit` requests
    /// wait.
    pub async fn embed(
        self: &Arc<EmbedQueue>,
        lease: &Lease,
        texts: Vec<Text>,
        n_prompt: usize,
        limit: usize,
    ) -> Result<Vec<Vec<f32>>, Refusal> {
        lease.embedder()?;
        let place: Place = Arc::as_ptr(lease).addr();
        let (tell, told) = oneshot::channel();
        let job = Job { vectors: Vec::with_capacity(texts.len()), texts, n_prompt, tell };
        {
            let mut waiting = self.lock();
            match waiting.get_mut(&place) {
                Some(jobs) if jobs.len() >= limit => {
                    let message =
                        format!("{} requests wait already, and no more than {limit} may", jobs.len());
                    let busy = Refusal::new(StatusCode::TOO_MANY_REQUESTS, message);
                    return Err(Refusal { retry_after: Some(1), ..busy });
                }
                Some(jobs) => jobs.push(job),
                None => {
                    waiting.insert(place, vec![job]);
                    let work = Work { queue: self.clone(), lease: lease.clone(), place };
                    tokio::task::spawn_blocking(move || work.go_on());
                }
            }
        }
        told.await.map_err(|_| Refusal::panicked())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Vec<Job>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model at work.
struct Work {
    queue: Arc<EmbedQueue>,
    lease: Lease,
    place: Place,
}

impl Work {
    /// Makes passes until nobody waits.
    fn go_on(&self) {
        let mut at_work: Vec<Job> = Vec::new();
        loop {
            {
                let mut waiting = self.queue.lock();
                at_work.extend(waiting.get_mut(&self.place).into_iter().flat_map(std::mem::take));
                // Nobody listens any more to those whose request was broken off.
                at_work.retain(|job| !job.tell.is_closed());
                if at_work.is_empty() {
                    waiting.remove(&self.place);
                    return;
                }
            }
            self.pass(&mut at_work);
            for i in (0..at_work.len()).rev() {
                if at_work[i].vectors.len() == at_work[i].texts.len() {
                    let job = at_work.swap_remove(i);
                    let _ = job.tell.send(job.vectors);
                }
            }
        }
    }

    /// One pass over some texts of each job that has the first job's prompt.
    fn pass(&self, jobs: &mut [Job]) {
        let Ok(embedder) = self.lease.embedder() else { return };
        let n_prompt = jobs[0].n_prompt;
        let next = |job: &Job| match job.n_prompt == n_prompt {
            true => job.vectors.len()..job.texts.len().min(job.vectors.len() + TEXTS_EACH),
            false => 0..0,
        };
        let texts: Vec<Text> = jobs.iter().flat_map(|job| job.texts[next(job)].iter().cloned()).collect();
        let mut vectors = embedder.embed_tokens(&texts, n_prompt).vectors.into_iter();
        for job in jobs {
            let n = next(job).len();
            job.vectors.extend(vectors.by_ref().take(n));
        }
    }
}

/// Also after a panic: the next request begins anew, and those that waited are told.
impl Drop for Work {
    fn drop(&mut self) {
        self.queue.lock().remove(&self.place);
    }
}
