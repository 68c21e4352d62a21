//! One spin-then-park pool of threads for all kernels.
//!
//! [`run`] is a fork-join: the caller and the pool's workers take parts from a shared counter until none is
//! left. What a part computes must depend on its index alone; then results do not depend on the number of threads.
//!
//! Workers spin for a while after a job, since the next kernel usually follows within microseconds, then park. A worker
//! that comes late, because the machine is busy, finds the job closed and is not waited for: the caller has done
//! its parts.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a worker spins for the next job before it parks.
const SPIN: Duration = Duration::from_micros(200);

/// Spins of about 10 ns each between two looks at the clock, or before the rest of a time slice is given away.
const SPINS: u32 = 1024;

/// A job as the workers see it: a function of the part's index, valid until no worker is in the job.
#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const (), usize),
    data: *const (),
    n_parts: usize,
}

/// What is written often by one side has a cache line of its own.
#[repr(align(128))]
struct Line<T>(T);

/// In [`Shared::state`]: the job may be entered.
const OPEN: u64 = 1 << 31;
/// In [`Shared::state`]: the number of the job; below `OPEN` is the number of workers inside it.
const NUMBER: u64 = 1 << 32;

struct Shared {
    /// Number of the job, whether it is open, and how many workers are in it.
    state: Line<AtomicU64>,
    /// The next part to take.
    next: Line<AtomicUsize>,
    /// Written while the state is closed and no worker inside.
    job: UnsafeCell<Option<Job>>,
    /// Whether a part panicked.
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `job` is written only while nobody reads it, see there; its closure is `Sync` and outlives the job.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

struct Worker {
    thread: thread::JoinHandle<()>,
    /// Whether it must be woken for a job.
    parked: Arc<AtomicBool>,
}

struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

static POOL: OnceLock<Mutex<Pool>> = OnceLock::new();
static THREADS: AtomicUsize = AtomicUsize::new(0);

impl Pool {
    /// A pool of `n` threads counting the caller.
    fn new(n: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: Line(AtomicU64::new(0)),
            next: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers = (1..n)
            .map(|i| {
                let (shared, parked) = (shared.clone(), Arc::new(AtomicBool::new(false)));
                let own = parked.clone();
                let thread = thread::Builder::new()
                    .name(format!("rhetor-{i}"))
                    .spawn(move || work(&shared, &own))
                    .expect("the system refuses another thread");
                Worker { thread, parked }
            })
            .collect();
        Pool { shared, workers }
    }

    fn wake(&self) {
        for worker in &self.workers {
            if worker.parked.load(Ordering::SeqCst) {
                worker.thread.thread().unpark();
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.state.0.fetch_add(NUMBER, Ordering::SeqCst);
        self.wake();
        for worker in self.workers.drain(..) {
            let _ = worker.thread.join();
        }
    }
}

fn work(shared: &Shared, parked: &AtomicBool) {
    let mut seen = 0;
    loop {
        let state = wait(shared, parked, seen);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // Enter, unless the job is closed, or the state has moved and must be looked at again.
        if state & OPEN == 0 {
            seen = state / NUMBER;
            continue;
        }
        if shared.state.0.compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            seen = state / NUMBER;
            // SAFETY: this worker is inside, so nobody writes the job.
            let job = unsafe { *shared.job.get() };
            if let Some(job) = job {
                take_parts(shared, job);
            }
            shared.state.0.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Waits for a job with another number than `seen`; returns the state that says so.
fn wait(shared: &Shared, parked: &AtomicBool, seen: u64) -> u64 {
    let start = Instant::now();
    let mut spins = 0u32;
    loop {
        let state = shared.state.0.load(Ordering::Acquire);
        if state / NUMBER != seen {
            return state;
        }
        std::hint::spin_loop();
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(SPINS) && start.elapsed() > SPIN {
            // The caller first changes the state, then looks whether to wake; so one of the two sees the other.
            parked.store(true, Ordering::SeqCst);
            while shared.state.0.load(Ordering::SeqCst) / NUMBER == seen {
                thread::park();
            }
            parked.store(false, Ordering::SeqCst);
        }
    }
}

fn take_parts(shared: &Shared, job: Job) {
    loop {
        let part = shared.next.0.fetch_add(1, Ordering::Relaxed);
        if part >= job.n_parts {
            return;
        }
        // SAFETY: `run` does not return before every worker has left the job, so `data` is alive.
        let done = catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.data, part) }));
        if done.is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
    }
}

/// Sets the number of threads, the caller included; at least 1.
pub fn set_threads(n: usize) {
    let n = n.max(1);
    let pool = POOL.get_or_init(|| Mutex::new(Pool::new(n)));
    let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
    if pool.workers.len() + 1 != n {
        *pool = Pool::new(n);
    }
    THREADS.store(n, Ordering::Relaxed);
}

/// The number of threads in use, the caller included: the number of CPUs unless [`set_threads`] said otherwise.
pub fn threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            set_threads(thread::available_parallelism().map_or(1, |n| n.get()));
            THREADS.load(Ordering::Relaxed)
        }
        n => n,
    }
}

/// Calls `part(i)` once for each `i` in `0..n_parts`, on all threads, and returns when all are done.
///
/// Do not call it from inside a part. Panics if a part panicked.
pub fn run<F: Fn(usize) + Sync>(n_parts: usize, part: F) {
    if n_parts <= 1 || threads() == 1 {
        (0..n_parts).for_each(part);
        return;
    }
    unsafe fn call<F: Fn(usize)>(data: *const (), part: usize) {
        // SAFETY: `data` is the `&F` that `run` made below.
        unsafe { (*data.cast::<F>())(part) }
    }
    let pool =
        POOL.get().expect("threads() has made the pool").lock().unwrap_or_else(PoisonError::into_inner);
    let shared = &*pool.shared;
    let job = Job { call: call::<F>, data: (&raw const part).cast(), n_parts };
    // SAFETY: the last job was closed and left by all before the pool's lock was given back.
    unsafe { *shared.job.get() = Some(job) };
    shared.next.0.store(0, Ordering::Relaxed);
    shared.panicked.store(false, Ordering::Relaxed);
    shared.state.0.fetch_add(NUMBER + OPEN, Ordering::SeqCst);
    pool.wake();
    take_parts(shared, job);
    let mut inside = shared.state.0.fetch_sub(OPEN, Ordering::AcqRel) & (OPEN - 1);
    let mut spins = 0u32;
    while inside > 0 {
        std::hint::spin_loop();
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(SPINS) {
            // A worker was interrupted in its part: leave it the CPU, should this be the one it waits for.
            thread::yield_now();
        }
        inside = shared.state.0.load(Ordering::Acquire) & (OPEN - 1);
    }
    let panicked = shared.panicked.load(Ordering::Relaxed);
    drop(pool);
    assert!(!panicked, "a part of a kernel panicked");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once() {
        for n_threads in [1, 2, 3] {
            set_threads(n_threads);
            for n_parts in [0, 1, 2, 100] {
                let counts: Vec<AtomicUsize> = (0..n_parts).map(|_| AtomicUsize::new(0)).collect();
                run(n_parts, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_in_a_part_reaches_the_caller_and_the_pool_lives_on() {
        set_threads(2);
        assert!(catch_unwind(|| run(10, |i| assert!(i != 5))).is_err());
        let sum = AtomicUsize::new(0);
        for _ in 0..10_000 {
            run(3, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 30_000);
    }
}
