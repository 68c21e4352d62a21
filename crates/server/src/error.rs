//! Why a server cannot start.

use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// An API key that nobody could show.
    #[error("{reason}")]
    Key {
        /// What is wrong with it; not the key.
        reason: String,
    },
    /// A file of a certificate or a key.
    #[error("{}: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        reason: String,
    },
    /// Certificate and key cannot be used.
    #[error("the certificate in {} and the key in {} cannot be used: {reason}", chain.display(), key.display())]
    Tls {
        /// The certificate chain.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls says.
        reason: String,
    },
}
