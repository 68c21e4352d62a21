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
    /// `len` zeros.
    pub fn new(len: usize) -> Aligned {
        if len == 0 {
            return Aligned { start: NonNull::dangling(), len };
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
        if self.len > 0 {
            // SAFETY: allocated with this layout.
            unsafe { alloc::dealloc(self.start.as_ptr(), layout(self.len)) }
        }
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, 64).expect("a buffer is shorter than the address space")
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
