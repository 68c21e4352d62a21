//! A buffer of bytes that starts at a cache line, on huge pages where it is large.

use std::alloc::{self, Layout};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// Zeroed bytes, aligned to 64.
pub(crate) struct Aligned {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer owns its bytes.
unsafe impl Send for Aligned {}
// SAFETY: shared references only read.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// No bytes.
    pub const EMPTY: Aligned = Aligned { start: NonNull::dangling(), len: 0 };

    /// `len` zeros.
    pub fn new(len: usize) -> Aligned {
        if len == 0 {
            return Aligned::EMPTY;
        }
        #[cfg(target_os = "linux")]
        if len >= mapped::LEAST {
            return Aligned { start: mapped::new(len), len };
        }
        let layout = layout(len);
        // SAFETY: the layout has a length.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { alloc::handle_alloc_error(layout) };
        Aligned { start, len }
    }

    /// Makes room for at least `len` bytes; what was in them is lost if there was less.
    pub fn reserve(&mut self, len: usize) {
        if self.len < len {
            *self = Aligned::new(len.next_power_of_two());
        }
    }

    /// The first byte.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// A handle through which threads write disjoint parts.
    pub fn parts(&mut self) -> Parts<'_> {
        Parts { start: self.start.as_ptr(), len: self.len, owner: PhantomData }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes begin at `start`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        #[cfg(target_os = "linux")]
        if self.len >= mapped::LEAST {
            // SAFETY: mapped with this length.
            return unsafe { mapped::drop(self.start, self.len) };
        }
        // SAFETY: allocated with this layout.
        unsafe { alloc::dealloc(self.start.as_ptr(), layout(self.len)) }
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, 64).expect("a buffer is shorter than the address space")
}

/// Large buffers straight from the kernel: zeros without writing them, huge pages as far as they are full.
#[cfg(target_os = "linux")]
mod mapped {
    use super::{NonNull, alloc, layout};
    use std::ffi::c_void;

    /// Bytes of a huge page, and of the smallest buffer that is mapped.
    pub(super) const LEAST: usize = 2 << 20;

    unsafe extern "C" {
        fn mmap(
            at: *mut c_void,
            len: usize,
            protection: i32,
            flags: i32,
            file: i32,
            offset: i64,
        ) -> *mut c_void;
        fn munmap(at: *mut c_void, len: usize) -> i32;
        fn madvise(at: *mut c_void, len: usize, advice: i32) -> i32;
    }

    const READ_WRITE: i32 = 1 | 2;
    const PRIVATE_ANONYMOUS: i32 = 0x02 | 0x20;
    const HUGE_PAGES: i32 = 14;
    const PAGE: usize = 4096;

    pub(super) fn new(len: usize) -> NonNull<u8> {
        let whole = len.next_multiple_of(PAGE);
        // SAFETY: a fresh mapping, of which what lies before and behind the aligned part is given back.
        unsafe {
            let start = mmap(std::ptr::null_mut(), whole + LEAST, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0);
            if start.addr() == usize::MAX {
                alloc::handle_alloc_error(layout(len));
            }
            let before = start.addr().next_multiple_of(LEAST) - start.addr();
            let aligned = start.byte_add(before);
            if before > 0 {
                munmap(start, before);
            }
            munmap(aligned.byte_add(whole), LEAST - before);
            // Only full huge pages, so that the last one costs no more memory than it holds.
            madvise(aligned, len / LEAST * LEAST, HUGE_PAGES);
            NonNull::new(aligned.cast()).unwrap_or_else(|| alloc::handle_alloc_error(layout(len)))
        }
    }

    /// # Safety
    /// `start` comes from `new(len)` and is not used any more.
    pub(super) unsafe fn drop(start: NonNull<u8>, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { munmap(start.as_ptr().cast(), len.next_multiple_of(PAGE)) };
    }
}

/// See [`Aligned::parts`].
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    start: *mut u8,
    len: usize,
    owner: PhantomData<&'a mut [u8]>,
}

// SAFETY: `slice` asks its callers for disjoint parts.
unsafe impl Sync for Parts<'_> {}

impl<'a> Parts<'a> {
    /// `len` bytes from `offset` on.
    ///
    /// # Safety
    /// No other slice that is in use overlaps them.
    pub unsafe fn slice(self, offset: usize, len: usize) -> &'a mut [u8] {
        assert!(offset <= self.len && len <= self.len - offset, "a part of {} bytes", self.len);
        // SAFETY: inside the buffer, and the caller promises that nobody else uses it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}
