//! Ctrl-C: ends the program with 130, or only what runs at the moment.

use crate::exit::Exit;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether Ctrl-C only raises a flag.
static STOPS_ANSWER: AtomicBool = AtomicBool::new(false);
static RAISED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C ends the program with 130.
pub fn listen() {
    // Fails only if there is a handler already, as in a test that runs two commands.
    let _ = ctrlc::set_handler(|| {
        if !STOPS_ANSWER.load(Ordering::SeqCst) || RAISED.swap(true, Ordering::SeqCst) {
            std::process::exit(Exit::Interrupted.code().into());
        }
    });
}

/// While it lives, the first Ctrl-C only raises a flag, which [`raised`] tells; the second ends the program.
pub struct StopsAnswer;

impl StopsAnswer {
    /// Lowers the flag and begins.
    pub fn begin() -> StopsAnswer {
        RAISED.store(false, Ordering::SeqCst);
        STOPS_ANSWER.store(true, Ordering::SeqCst);
        StopsAnswer
    }
}

impl Drop for StopsAnswer {
    fn drop(&mut self) {
        STOPS_ANSWER.store(false, Ordering::SeqCst);
    }
}

/// Whether Ctrl-C was pressed since [`StopsAnswer::begin`].
pub fn raised() -> bool {
    RAISED.load(Ordering::SeqCst)
}

/// Waits for Ctrl-C or for the system's wish that the program ends. A second of either ends it at once.
pub async fn stopped() {
    let _stops = StopsAnswer::begin();
    let pressed = async {
        while !raised() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    #[cfg(unix)]
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                () = pressed => {}
                _ = terminate.recv() => {}
            }
            tokio::spawn(async move {
                if terminate.recv().await.is_some() {
                    std::process::exit(Exit::Interrupted.code().into());
                }
            });
        }
        Err(_) => pressed.await,
    }
    #[cfg(not(unix))]
    pressed.await;
}
