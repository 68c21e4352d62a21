//! Hashes as the store writes them.

use crate::Error;
use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// Returns `digest` if it is a sha256 in lower-case hex, and so a plain file name.
pub fn check(digest: &str) -> Result<&str, Error> {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if digest.len() == 64 && digest.chars().all(is_hex) {
        return Ok(digest);
    }
    Err(Error::Digest { text: digest.to_string() })
}

/// sha256 of `bytes` in hex.
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Adds all that `reader` has left to `hash`; returns how many bytes that were.
pub fn absorb(reader: &mut impl Read, hash: &mut Sha256, mut on_bytes: impl FnMut(u64)) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(done),
            Ok(n) => {
                hash.update(&buffer[..n]);
                done += n as u64;
                on_bytes(done);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Lower-case hex digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
