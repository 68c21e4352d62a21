//! The models in memory: loaded when first asked for, under one budget of bytes, unloaded when nobody asks any more.
//!
//! Who asks gets a [`Lease`], and a model with leases is never unloaded. Requests that arrive while a model loads share
//! that load and its failure. Where memory is short, the idle model that was asked for longest ago makes room.

mod lease;
mod load;
mod memory;
mod plan;
mod timers;

pub use lease::{Lease, RunningRequest};
pub use load::{Mind, Resident};

use crate::app::App;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use axum::http::StatusCode;
use plan::Plan;
use rhetor_lm::Cancel;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, watch};

/// How long a request waits for the models in use to make room before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a model stays after its last request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    /// That long; zero: it goes as soon as nobody uses it.
    For(Duration),
    /// Until the server ends or memory is short.
    Forever,
}

/// How a request wants its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wish {
    /// How long the model stays afterwards; `None` = as the last request that said so, or as the server is set up.
    pub keep_alive: Option<KeepAlive>,
    /// Tokens of the context; `None` = whatever it has. A model with another context is loaded anew.
    pub context: Option<usize>,
}

/// A model in memory, as `ps` tells it.
pub struct Loaded {
    /// The model.
    pub resident: Arc<Resident>,
    /// Requests that use it now.
    pub n_users: usize,
    /// When it goes; `None` = never, or not before its users are through.
    pub expires_at: Option<SystemTime>,
}

/// The models in memory.
#[derive(Clone)]
pub struct Residents(Arc<Shared>);

/// What leases, loads and timers share.
struct Shared {
    /// Bytes that all models may take together.
    budget: u64,
    /// Where no request has said anything.
    keep_alive: KeepAlive,
    /// The longest time that a request may take.
    request_time: Duration,
    metrics: Arc<Metrics>,
    slots: Mutex<Slots>,
    /// Breaks off the requests that models are answering, by number.
    running: Mutex<Running>,
    /// Told when a model has gone or become idle.
    freed: Notify,
    /// Told when something may expire earlier than was known.
    timers: Arc<Notify>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.timers.notify_one();
    }
}

#[derive(Default)]
struct Slots {
    by_key: HashMap<String, Slot>,
    /// Loads so far.
    n_loads: u64,
    /// Models that went so far.
    n_unloads: u64,
    has_timers: bool,
}

#[derive(Default)]
struct Running {
    cancels: BTreeMap<u64, Cancel>,
    n: u64,
    is_over: bool,
}

/// What a load ends with; `None` while it goes on.
type Outcome = Option<Result<(), Refusal>>;

enum Slot {
    Loading { bytes: u64, outcome: watch::Receiver<Outcome> },
    Ready(Entry),
}

struct Entry {
    resident: Arc<Resident>,
    n_users: usize,
    used_at: Instant,
    keep_alive: KeepAlive,
}

impl Entry {
    /// When it may go, if nobody uses it.
    fn expires_at(&self) -> Option<Instant> {
        match self.keep_alive {
            KeepAlive::For(time) if self.n_users == 0 => self.used_at.checked_add(time),
            _ => None,
        }
    }
}

/// What a request does next.
enum Step {
    Take(Lease),
    Wait(watch::Receiver<Outcome>),
    Load(watch::Sender<Outcome>),
    Busy(Refusal),
}

impl Residents {
    /// No models yet.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Residents {
        Residents(Arc::new(Shared {
            budget: config.memory.unwrap_or_else(|| memory::of_machine() / 4 * 3),
            keep_alive: config.keep_alive.map_or(KeepAlive::Forever, KeepAlive::For),
            request_time: config.request_time,
            metrics,
            running: Mutex::default(),
            slots: Mutex::default(),
            freed: Notify::new(),
            timers: Arc::default(),
        }))
    }

    /// Bytes that all models may take together.
    pub fn budget(&self) -> u64 {
        self.0.budget
    }

    /// The model or adapter of that name, loaded if it is not in memory.
    ///
    /// 404: there is no such model, or it may not be used; 400: it can never be loaded as wanted; 503: the models in use
    /// leave no room.
    pub async fn get(&self, app: &Arc<App>, name: &str, wish: Wish) -> Result<Lease, Refusal> {
        let began = Instant::now();
        let choice = plan::choose(app, name)?;
        let mut plan = None;
        loop {
            if let Some(lease) = self.0.lease(&choice, wish, began) {
                return Ok(lease);
            }
            let plan = match &plan {
                Some(plan) => plan,
                None => {
                    let (app, choice, budget) = (app.clone(), choice.clone(), self.0.budget);
                    let read = move || Plan::read(&app, &choice, wish.context, budget);
                    plan.insert(tokio::task::spawn_blocking(read).await.map_err(|_| fell_over(name))??)
                }
            };
            let freed = self.0.freed.notified();
            match self.0.step(&choice, plan, wish, began) {
                Step::Take(lease) => return Ok(lease),
                Step::Wait(outcome) => settled(outcome, name).await?,
                Step::Load(tell) => {
                    let outcome = tell.subscribe();
                    // On a task of its own: the request may be broken off, and others wait for the load too.
                    tokio::spawn(self.0.clone().load(plan.clone(), tell));
                    settled(outcome, name).await?;
                }
                Step::Busy(refusal) => {
                    let left = PATIENCE.saturating_sub(began.elapsed());
                    if tokio::time::timeout(left, freed).await.is_err() {
                        return Err(refusal);
                    }
                }
            }
        }
    }

    /// The models in memory, by name.
    pub fn ps(&self) -> Vec<Loaded> {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let slots = self.0.slots();
        let ready = slots.by_key.values().filter_map(|slot| match slot {
            Slot::Ready(entry) => Some(entry),
            Slot::Loading { .. } => None,
        });
        let loaded = ready.map(|entry| Loaded {
            resident: entry.resident.clone(),
            n_users: entry.n_users,
            expires_at: entry.expires_at().map(|at| clock + at.saturating_duration_since(now)),
        });
        let mut loaded: Vec<Loaded> = loaded.collect();
        loaded.sort_by(|a, b| a.resident.name.cmp(&b.resident.name));
        loaded
    }

    /// Has the model of that name go: now, or when its last user is through. False if it is not in memory.
    pub fn unload(&self, name: &str) -> bool {
        let mut slots = self.0.slots();
        let Some(key) = plan::key(name) else { return false };
        let Some(Slot::Ready(entry)) = slots.by_key.get_mut(&key) else { return false };
        entry.keep_alive = KeepAlive::For(Duration::ZERO);
        let gone = if entry.n_users == 0 { slots.by_key.remove(&key) } else { None };
        slots.n_unloads += u64::from(gone.is_some());
        drop(slots);
        self.0.freed.notify_waiters();
        true
    }

    /// Breaks off whatever models are answering, now and from now on: the server ends.
    pub fn cancel_all(&self) {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.is_over = true;
        running.cancels.values().for_each(Cancel::cancel);
    }

    /// Loads and unloads since the start.
    pub fn n_loads_and_unloads(&self) -> (u64, u64) {
        let slots = self.0.slots();
        (slots.n_loads, slots.n_unloads)
    }
}

/// Waits for the end of a load.
async fn settled(mut outcome: watch::Receiver<Outcome>, name: &str) -> Result<(), Refusal> {
    match outcome.wait_for(Option::is_some).await {
        Ok(ended) => ended.clone().unwrap_or(Ok(())),
        Err(_) => Err(fell_over(name)),
    }
}

fn fell_over(name: &str) -> Refusal {
    let message = format!("model '{name}' cannot be loaded: the attempt broke down");
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease of a model in memory whose context is as wanted.
    fn lease(self: &Arc<Self>, choice: &plan::Choice, wish: Wish, began: Instant) -> Option<Lease> {
        let mut slots = self.slots();
        let Some(Slot::Ready(entry)) = slots.by_key.get_mut(&choice.base) else { return None };
        if !entry.resident.fits(wish.context) {
            return None;
        }
        entry.n_users += 1;
        entry.used_at = Instant::now();
        entry.keep_alive = wish.keep_alive.unwrap_or(entry.keep_alive);
        Some(Lease::new(self.clone(), entry.resident.clone(), choice.adapters.clone(), began.elapsed()))
    }

    /// Takes the model, or joins its load, or makes room and begins one.
    fn step(self: &Arc<Self>, choice: &plan::Choice, plan: &Plan, wish: Wish, began: Instant) -> Step {
        if let Some(lease) = self.lease(choice, wish, began) {
            return Step::Take(lease);
        }
        let mut gone = Vec::new();
        let mut slots = self.slots();
        match slots.by_key.get(&plan.key) {
            Some(Slot::Loading { outcome, .. }) => return Step::Wait(outcome.clone()),
            Some(Slot::Ready(entry)) if entry.n_users > 0 => {
                return Step::Busy(plan.in_use(entry.resident.context));
            }
            Some(Slot::Ready(_)) => gone.extend(slots.by_key.remove(&plan.key)),
            None => {}
        }
        let (in_use, idle) = slots.bytes();
        if in_use + plan.bytes > self.budget {
            slots.n_unloads += gone.len() as u64;
            return Step::Busy(plan.no_room(in_use, self.budget));
        }
        let mut surplus = (in_use + idle + plan.bytes).saturating_sub(self.budget);
        while surplus > 0 {
            let Some(name) = slots.least_recently_used() else { break };
            if let Some(Slot::Ready(entry)) = slots.by_key.remove(&name) {
                tracing::info!(model = %name, bytes = entry.resident.bytes, "unload: room is needed");
                surplus = surplus.saturating_sub(entry.resident.bytes);
                gone.push(Slot::Ready(entry));
            }
        }
        slots.n_unloads += gone.len() as u64;
        let (tell, outcome) = watch::channel(None);
        slots.by_key.insert(plan.key.clone(), Slot::Loading { bytes: plan.bytes, outcome });
        drop(slots);
        // Weights are given back outside the lock, before others are read.
        drop(gone);
        Step::Load(tell)
    }

    /// Loads what was planned and tells those who wait.
    async fn load(self: Arc<Self>, plan: Plan, tell: watch::Sender<Outcome>) {
        let name = plan.key.clone();
        let loaded = tokio::task::spawn_blocking(move || load::load(plan)).await;
        let loaded = loaded.unwrap_or_else(|_| Err(fell_over(&name)));
        let outcome = {
            let mut slots = self.slots();
            slots.by_key.remove(&name);
            match loaded {
                Ok(resident) => {
                    tracing::info!(
                        model = %name,
                        bytes = resident.bytes,
                        seconds = resident.load_time.as_secs_f64(),
                        "load"
                    );
                    slots.n_loads += 1;
                    let resident = Arc::new(resident);
                    let keep_alive = self.keep_alive;
                    let entry = Entry { resident, n_users: 0, used_at: Instant::now(), keep_alive };
                    slots.by_key.insert(name, Slot::Ready(entry));
                    if !std::mem::replace(&mut slots.has_timers, true) {
                        tokio::spawn(timers::run(Arc::downgrade(&self), self.timers.clone()));
                    }
                    Ok(())
                }
                Err(refusal) => {
                    tracing::warn!(model = %name, reason = %refusal.message, "load failed");
                    Err(refusal)
                }
            }
        };
        self.freed.notify_waiters();
        self.timers.notify_one();
        tell.send_replace(Some(outcome));
    }

    /// A lease ended.
    fn release(&self, resident: &Arc<Resident>) {
        let mut slots = self.slots();
        let Some(Slot::Ready(entry)) = slots.by_key.get_mut(&resident.key) else { return };
        if !Arc::ptr_eq(&entry.resident, resident) {
            return;
        }
        entry.n_users -= 1;
        entry.used_at = Instant::now();
        if entry.n_users == 0 {
            drop(slots);
            self.freed.notify_waiters();
            self.timers.notify_one();
        }
    }

    /// One more lease of a model that has one.
    fn again(&self, resident: &Arc<Resident>) {
        if let Some(Slot::Ready(entry)) = self.slots().by_key.get_mut(&resident.key)
            && Arc::ptr_eq(&entry.resident, resident)
        {
            entry.n_users += 1;
        }
    }
}

impl Slots {
    /// Bytes of models that are used or being loaded, and of idle ones.
    fn bytes(&self) -> (u64, u64) {
        let mut bytes = (0, 0);
        for slot in self.by_key.values() {
            match slot {
                Slot::Loading { bytes: n, .. } => bytes.0 += n,
                Slot::Ready(entry) if entry.n_users > 0 => bytes.0 += entry.resident.bytes,
                Slot::Ready(entry) => bytes.1 += entry.resident.bytes,
            }
        }
        bytes
    }

    /// The idle model that was asked for longest ago.
    fn least_recently_used(&self) -> Option<String> {
        let idle = self.by_key.iter().filter_map(|(name, slot)| match slot {
            Slot::Ready(entry) if entry.n_users == 0 => Some((entry.used_at, name)),
            _ => None,
        });
        idle.min().map(|(_, name)| name.clone())
    }
}

#[cfg(test)]
mod tests;
