//! Text from files and stdin.

use crate::errors::Failure;
use std::io::Read;
use std::path::Path;

/// All of stdin, which must be UTF-8.
pub fn stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|e| Failure::refused(format!("stdin: {e}")))?;
    utf8(bytes, "stdin")
}

/// All of the file `path`, or of stdin if it is `-`; it must be UTF-8.
pub fn file(path: &Path) -> Result<String, Failure> {
    if path == Path::new("-") {
        return stdin();
    }
    utf8(std::fs::read(path).map_err(Failure::file(path))?, &path.display().to_string())
}

fn utf8(bytes: Vec<u8>, name: &str) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|e| {
        let offset = e.utf8_error().valid_up_to();
        Failure::input(format!("{name} is not UTF-8: the byte at offset {offset} cannot be read"))
    })
}
