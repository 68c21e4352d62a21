//! Read-only memory maps behind a safe type.
//!
//! Whoever changes a mapped file under a running program can change what the program reads; truncating it can end
//! the program. That is the system's contract for maps and the price of not copying weights.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

/// The bytes of a file, mapped where the system can map, otherwise read.
#[derive(Debug)]
pub struct Map {
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    #[cfg(unix)]
    Mapped {
        address: *const u8,
        len: usize,
    },
    Read(Vec<u8>),
}

// SAFETY: the mapping is private to this value and only ever read.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the file at `path`; an empty file is an empty map.
    pub fn open(path: &Path) -> io::Result<Map> {
        let file = File::open(path)?;
        let bytes = match Bytes::map(&file)? {
            Some(bytes) => bytes,
            None => Bytes::Read(std::fs::read(path)?),
        };
        Ok(Map { bytes })
    }

    /// Lets the system drop the pages that lie wholly within `range` from memory; reading them again reads the file.
    ///
    /// Does nothing where the file was read and not mapped. Panics if the range is outside the map.
    #[track_caller]
    pub fn release(&self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {} bytes", self.len());
        self.bytes.release(range);
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            // SAFETY: the mapping has this length and lives as long as `self`.
            #[cfg(unix)]
            &Bytes::Mapped { address, len } => unsafe { std::slice::from_raw_parts(address, len) },
            Bytes::Read(bytes) => bytes,
        }
    }
}

#[cfg(unix)]
mod system {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        pub fn mmap(
            address: *mut c_void,
            len: usize,
            protection: c_int,
            flags: c_int,
            file: c_int,
            offset: i64,
        ) -> *mut c_void;
        pub fn munmap(address: *mut c_void, len: usize) -> c_int;
        pub fn madvise(address: *mut c_void, len: usize, advice: c_int) -> c_int;
    }

    pub const READ: c_int = 1;
    pub const PRIVATE: c_int = 2;
    pub const DONT_NEED: c_int = 4;
}

impl Bytes {
    /// The mapped file; `None` where there is nothing to map: no unix, or an empty or special file.
    #[cfg(unix)]
    fn map(file: &File) -> io::Result<Option<Bytes>> {
        use std::os::fd::AsRawFd;
        let metadata = file.metadata()?;
        let len = usize::try_from(metadata.len()).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        if len == 0 || !metadata.is_file() {
            return Ok(None);
        }
        let (file, null) = (file.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: a fresh private mapping of a file that is open; no memory of ours is touched.
        let address = unsafe { system::mmap(null, len, system::READ, system::PRIVATE, file, 0) };
        if address.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        Ok(Some(Bytes::Mapped { address: address.cast(), len }))
    }

    #[cfg(not(unix))]
    fn map(_file: &File) -> io::Result<Option<Bytes>> {
        Ok(None)
    }

    fn release(&self, range: Range<usize>) {
        match self {
            #[cfg(unix)]
            Bytes::Mapped { address, .. } => {
                // The greatest page size in use; smaller pages at the ends stay, which is harmless.
                const PAGE: usize = 64 * 1024;
                let (start, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
                if start < end {
                    // SAFETY: within the mapping, whose pages are clean copies of the file: none is lost.
                    unsafe {
                        let address = address.add(start).cast_mut().cast();
                        system::madvise(address, end - start, system::DONT_NEED);
                    }
                }
            }
            Bytes::Read(_) => {}
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        match self {
            #[cfg(unix)]
            Bytes::Mapped { address, len } => {
                // SAFETY: the mapping is ours, and no reference to it outlives the value.
                unsafe { system::munmap(address.cast_mut().cast(), *len) };
            }
            Bytes::Read(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(name: &str, content: &[u8], check: impl FnOnce(&Path)) {
        let path = std::env::temp_dir().join(format!("rhetor-map-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        check(&path);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_map_reads_as_the_file_also_after_its_pages_were_released() {
        let content: Vec<u8> = (0..1_000_003u32).map(|i| (i % 251) as u8).collect();
        with_file("read", &content, |path| {
            let map = Map::open(path).unwrap();
            assert!(map[..] == content[..]);
            map.release(0..content.len());
            map.release(70_000..70_001);
            assert!(map[..] == content[..]);
        });
    }

    #[test]
    fn an_empty_file_is_an_empty_map_and_a_missing_one_an_error() {
        with_file("empty", &[], |path| assert!(Map::open(path).unwrap().is_empty()));
        let missing = Map::open(Path::new("/no/such/file"));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    #[should_panic(expected = "of 3 bytes")]
    fn releasing_what_is_not_there_panics() {
        with_file("outside", &[1, 2, 3], |path| Map::open(path).unwrap().release(2..4));
    }
}
