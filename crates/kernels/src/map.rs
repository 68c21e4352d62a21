//! Read-only memory maps of files: the bytes of weights, without a copy.
//!
//! It does not watch the file: another program that truncates a mapped file makes the kernel end this process, as
//! with every map; writers that replace files by rename (all of rhetor's) are safe.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

/// A file's bytes, mapped read-only.
#[derive(Debug)]
pub struct Map {
    /// Null for an empty file, which cannot be mapped.
    start: *const u8,
    len: usize,
}

// SAFETY: the pages are read-only and live as long as the value.
unsafe impl Send for Map {}
// SAFETY: as above; nothing is ever written through the map.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> io::Result<Map> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if len == 0 {
            return Ok(Map { start: std::ptr::null(), len: 0 });
        }
        use std::os::fd::AsRawFd;
        // SAFETY: a new private read-only mapping of an open file touches no memory of ours; the result is checked.
        let start = unsafe {
            sys::mmap(std::ptr::null_mut(), len, sys::PROT_READ, sys::MAP_PRIVATE, file.as_raw_fd(), 0)
        };
        if start == sys::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Map { start: start.cast_const().cast(), len })
    }

    /// Drops the resident pages that lie wholly inside `range` (in bytes); they are read again when touched.
    pub fn release(&self, range: Range<usize>) {
        const PAGE: usize = 4096;
        let start = range.start.min(self.len).next_multiple_of(PAGE);
        let end = range.end.min(self.len) / PAGE * PAGE;
        if start < end {
            // SAFETY: the pages belong to this map, and MADV_DONTNEED on a private read-only file mapping only
            // forgets what can be read again from the file.
            unsafe { sys::madvise(self.start.add(start).cast_mut().cast(), end - start, sys::MADV_DONTNEED) };
        }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `open` mapped `len` readable bytes at `start`, which stay until `drop`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: this is the mapping that `open` made, and no borrow of it outlives the value.
            unsafe { sys::munmap(self.start.cast_mut().cast(), self.len) };
        }
    }
}

/// The three calls of the C library that std links but does not name.
mod sys {
    use std::ffi::{c_int, c_void};

    pub const PROT_READ: c_int = 1;
    pub const MAP_PRIVATE: c_int = 2;
    pub const MADV_DONTNEED: c_int = 4;
    pub const MAP_FAILED: *mut c_void = !0usize as *mut c_void;

    unsafe extern "C" {
        pub fn mmap(
            addr: *mut c_void,
            len: usize,
            prot: c_int,
            flags: c_int,
            fd: c_int,
            offset: i64,
        ) -> *mut c_void;
        pub fn munmap(addr: *mut c_void, len: usize) -> c_int;
        pub fn madvise(addr: *mut c_void, len: usize, advice: c_int) -> c_int;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_holds_the_bytes_of_the_file_also_after_release() {
        let map = Map::open(Path::new(env!("CARGO_MANIFEST_PATH"))).unwrap();
        let bytes = std::fs::read(env!("CARGO_MANIFEST_PATH")).unwrap();
        assert_eq!(&map[..], &bytes[..]);
        map.release(0..map.len());
        assert_eq!(&map[..], &bytes[..]);
    }
}
