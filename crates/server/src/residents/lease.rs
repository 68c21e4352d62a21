//! The use of a model in memory.

use super::plan::OWN_ADAPTER;
use super::{Resident, Shared};
use crate::metrics::Metrics;
use rhetor_lm::Cancel;
use std::ops::Deref;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// The use of a model: as long as one lives, the model is not unloaded.
pub struct Lease {
    shared: Arc<Shared>,
    resident: Arc<Resident>,
    adapters: Option<Vec<String>>,
    load_time: Duration,
}

impl Lease {
    pub(super) fn new(
        shared: Arc<Shared>,
        resident: Arc<Resident>,
        mut adapters: Option<Vec<String>>,
        load_time: Duration,
    ) -> Lease {
        if let Some(adapters) = adapters.as_mut().filter(|_| resident.has_own_adapter) {
            adapters.push(OWN_ADAPTER.to_string());
        }
        Lease { shared, resident, adapters, load_time }
    }

    /// What [`rhetor_lm::Request::adapters`] is to be where the request does not say: the adapter by whose name the
    /// model was asked for; none for a base that has adapters; `None` for a model without any.
    pub fn adapters(&self) -> Option<Vec<String>> {
        self.adapters.clone()
    }

    /// How long this request waited for the model; next to nothing if it was in memory.
    pub fn load_time(&self) -> Duration {
        self.load_time
    }

    /// When a request that is put to the model now has to end.
    pub fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.shared.request_time)
    }

    /// What the server has done so far.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Has `cancel` raised when the server ends, as long as what is returned lives.
    pub fn running(&self, cancel: Cancel) -> RunningRequest {
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_over {
            cancel.cancel();
        }
        running.n += 1;
        let number = running.n;
        running.cancels.insert(number, cancel);
        RunningRequest { shared: self.shared.clone(), number }
    }
}

/// A request that a model is answering.
pub struct RunningRequest {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.cancels.remove(&self.number);
    }
}

impl Deref for Lease {
    type Target = Arc<Resident>;

    fn deref(&self) -> &Arc<Resident> {
        &self.resident
    }
}

impl Clone for Lease {
    fn clone(&self) -> Lease {
        self.shared.again(&self.resident);
        Lease {
            shared: self.shared.clone(),
            resident: self.resident.clone(),
            adapters: self.adapters.clone(),
            load_time: self.load_time,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.release(&self.resident);
    }
}
