//! One spin-then-park pool of threads for all kernels.
//!
//! [`run`] is a fork-join: the caller and the pool's workers take parts from a shared counter until none is
//! left. What a part computes must depend on its index alone; then results do not depend on the number of threads.
//! Workers spin for a while after a job, since the next kernel usually follows within microseconds, then park.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// How long a worker spins for the next job before it parks.
const SPIN: Duration = Duration::from_micros(200);

/// A job as the workers see it: a function of the part's index, valid until the caller has seen all workers leave.
#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const (), usize),
    data: *const (),
    n_parts: usize,
}

// SAFETY: `data` points to a `Sync` closure, which `run` keeps alive until every worker has left the job.
unsafe impl Send for Job {}

struct Shared {
    /// Raised by one for each job; workers compare it with the last that they have seen.
    epoch: AtomicUsize,
    job: Mutex<Option<Job>>,
    /// The next part to take.
    next: AtomicUsize,
    /// Workers that have not yet left the current job.
    busy: AtomicUsize,
    /// Whether a part panicked.
    panicked: AtomicBool,
    stop: AtomicBool,
}

struct Pool {
    shared: Arc<Shared>,
    workers: Vec<thread::JoinHandle<()>>,
}

static POOL: OnceLock<Mutex<Pool>> = OnceLock::new();
static THREADS: AtomicUsize = AtomicUsize::new(0);

impl Pool {
    /// A pool of `n` threads counting the caller.
    fn new(n: usize) -> Pool {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: Mutex::new(None),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers = (1..n)
            .map(|i| {
                let shared = shared.clone();
                thread::Builder::new()
                    .name(format!("rhetor-{i}"))
                    .spawn(move || work(&shared))
                    .expect("the system refuses another thread")
            })
            .collect();
        Pool { shared, workers }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared) {
    let mut seen = 0;
    loop {
        let start = Instant::now();
        let mut spins = 0u32;
        while shared.epoch.load(Ordering::Acquire) == seen {
            std::hint::spin_loop();
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(256) && start.elapsed() > SPIN {
                thread::park();
            }
        }
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        seen = shared.epoch.load(Ordering::Acquire);
        let job = *shared.job.lock().unwrap();
        if let Some(job) = job {
            take_parts(shared, job);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

fn take_parts(shared: &Shared, job: Job) {
    loop {
        let part = shared.next.fetch_add(1, Ordering::Relaxed);
        if part >= job.n_parts {
            return;
        }
        let done = std::panic::catch_unwind(|| {
            // SAFETY: `run` does not return before every worker has left the job, so `data` is alive.
            unsafe { (job.call)(job.data, part) }
        });
        if done.is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
    }
}

/// Sets the number of threads, the caller included; at least 1.
pub fn set_threads(n: usize) {
    let n = n.max(1);
    let pool = POOL.get_or_init(|| Mutex::new(Pool::new(n)));
    let mut pool = pool.lock().unwrap();
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
    let pool = POOL.get().expect("threads() has made the pool").lock().unwrap();
    let shared = &*pool.shared;
    let job = Job { call: call::<F>, data: (&raw const part).cast(), n_parts };
    *shared.job.lock().unwrap() = Some(job);
    shared.next.store(0, Ordering::Relaxed);
    shared.panicked.store(false, Ordering::Relaxed);
    shared.busy.store(pool.workers.len(), Ordering::Relaxed);
    shared.epoch.fetch_add(1, Ordering::Release);
    for worker in &pool.workers {
        worker.thread().unpark();
    }
    take_parts(shared, job);
    while shared.busy.load(Ordering::Acquire) > 0 {
        std::hint::spin_loop();
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
}
