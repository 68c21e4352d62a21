//! Files that are either complete or absent: written beside their place, synced, then renamed.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::Error;

/// Writes `bytes` to `path`, which then holds all of them or what it held before.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write(path, |out| out.write_all(bytes).map_err(Error::io("write", path)))
}

/// Writes `path` through `fill`. On any error the old file, if there was one, stays and the new one is removed.
pub(crate) fn write(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = || Error::io("write", path);
    let name = path.file_name().ok_or_else(|| failed()(std::io::ErrorKind::IsADirectory.into()))?;
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(part);
    let written = (|| {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&part).map_err(failed())?);
        fill(&mut out)?;
        let file = out.into_inner().map_err(|error| failed()(error.into_error()))?;
        file.sync_all().map_err(failed())?;
        fs::rename(&part, path).map_err(failed())
    })();
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&part);
    }
    written
}
