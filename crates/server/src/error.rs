//! Why a server cannot start.

use std::net::SocketAddr;

/// Why a server cannot start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Anybody on the network could use it.
    #[error("{address} can be reached by other machines, and no API key is set")]
    Open {
        /// Where it should have listened.
        address: SocketAddr,
    },
}
