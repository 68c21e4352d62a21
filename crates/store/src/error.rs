//! Why a model cannot be had.

use std::io;
use std::path::{Path, PathBuf};

/// Why a model cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no reference.
    #[error("`{text}` is no model reference: {reason}")]
    Reference {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text is no sha256.
    #[error("`{text}` is no digest; expected `sha256:` and 64 hexadecimal digits in lower case")]
    Digest {
        /// What was given.
        text: String,
    },
    /// No blob of the store has this digest.
    #[error("blob sha256:{sha256} not found; upload it first")]
    NoBlob {
        /// sha256 in hex.
        sha256: String,
    },
    /// No catalogue entry, stored model or file has this name.
    #[error("there is no model `{name}`: neither the catalogue nor the store nor this folder has it")]
    UnknownModel {
        /// What was asked for.
        name: String,
    },
    /// The path leads nowhere.
    #[error("there is no file or folder {path}")]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The model is known but was never pulled.
    #[error("`{name}` is not in the store {home}")]
    NotPulled {
        /// What was asked for.
        name: String,
        /// Where the store is.
        home: PathBuf,
    },
    /// The network would be needed and is forbidden.
    #[error("`{wanted}` would have to come from the network, which is switched off")]
    Offline {
        /// What would have been fetched.
        wanted: String,
    },
    /// Plain http to another machine: anyone on the way could change the model.
    #[error("{url} is not https")]
    Insecure {
        /// The address.
        url: String,
    },
    /// A server answered with a status that retrying does not change, or kept answering it.
    #[error("{url} answered {status}")]
    Status {
        /// The address asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The connection failed again and again.
    #[error("{url} cannot be read after {attempts} attempts without progress: {reason}")]
    Connection {
        /// The address asked.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// What the last attempt met.
        reason: String,
    },
    /// A server's answer breaks the protocol or is not what its documentation says.
    #[error("{url} answered something else than expected: {reason}")]
    Protocol {
        /// The address asked.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// What arrived is not what was promised.
    #[error("{what} has sha256 {got}; expected {expected}")]
    Hash {
        /// The file or address.
        what: String,
        /// sha256 promised, in hex.
        expected: String,
        /// sha256 of the bytes that arrived, in hex.
        got: String,
    },
    /// The package, version or file does not exist, or there is more than one.
    #[error("{place}: {reason}")]
    NotFound {
        /// The package, repository or archive.
        place: String,
        /// What was looked for, and what there is.
        reason: String,
    },
    /// The archive is broken or of a kind that is not read.
    #[error("the archive {archive} cannot be read: {reason}")]
    Archive {
        /// The archive's name.
        archive: String,
        /// What is wrong.
        reason: String,
    },
    /// A file name from outside that could leave its folder or that some system cannot hold.
    #[error("the file name `{name}` is refused: {reason}")]
    FileName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The disk has too little space, found out before anything was written.
    #[error("the pull needs {needed} bytes; {home} has {free} left")]
    Space {
        /// Bytes that the pull will write.
        needed: u64,
        /// Bytes left.
        free: u64,
        /// Where the store is.
        home: PathBuf,
    },
    /// The disk became full during the pull; what was written of the file has been removed.
    #[error("the disk became full while writing {path}; the unfinished file has been removed")]
    DiskFull {
        /// The file being written.
        path: PathBuf,
    },
    /// A manifest in the store cannot be read.
    #[error("the manifest {path} is broken: {reason}")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file or folder of the store cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The caller broke off; what has arrived stays for the next pull.
    #[error("the pull was broken off; the next one continues where it stopped")]
    Cancelled,
}

/// Turns what the system says into an [`Error`] that names `path`.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::DiskFull { path: path.to_path_buf() }
        }
        _ => Error::Io { path: path.to_path_buf(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_other_failures() {
        let path = Path::new("m.gguf");
        assert!(matches!(at(path)(io::ErrorKind::StorageFull.into()), Error::DiskFull { .. }));
        assert!(matches!(at(path)(io::ErrorKind::PermissionDenied.into()), Error::Io { .. }));
    }
}
