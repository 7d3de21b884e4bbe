//! Memory of the experiment's own, outside the heap.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

/// The kernel's page.
pub(super) const PAGE_BYTES: usize = 4096;

/// A private anonymous mapping, unmapped when dropped. A page on each side cannot be accessed, so that the kernel
/// never merges it with a neighbour: what a storm does to one area would lock the other's mapping too.
#[derive(Debug)]
pub(super) struct Area {
    /// With the guards.
    mapped: NonNull<libc::c_void>,
    start: NonNull<libc::c_void>,
    bytes: usize,
}

// SAFETY: the mapping is reached only through raw addresses and system calls, from any thread.
unsafe impl Send for Area {}
// SAFETY: as above; `touch` writes atomically.
unsafe impl Sync for Area {}

impl Area {
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(bytes + 2 * PAGE_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: the kernel chooses a free address.
        let mapped = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, flags) }?;
        // SAFETY: the second page lies in the mapping.
        let start = unsafe { mapped.byte_add(PAGE_BYTES) };
        let area = Self { mapped, start, bytes };
        area.set_writable(true)?;
        Ok(area)
    }

    /// As [`Self::new`], and never of huge pages.
    pub(super) fn of_small_pages(bytes: usize) -> io::Result<Self> {
        let area = Self::new(bytes)?;
        // A kernel without huge pages refuses the advice, and needs none.
        let _ = area.advise(MmapAdvise::MADV_NOHUGEPAGE);
        Ok(area)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of a page.
    pub(super) fn page(&self, page: usize) -> usize {
        assert!(page * PAGE_BYTES < self.bytes, "a page of the area");
        self.start.as_ptr().expose_provenance() + page * PAGE_BYTES
    }

    pub(super) const fn pages(&self) -> usize {
        self.bytes / PAGE_BYTES
    }

    /// Writes to a page.
    pub(super) fn touch_page(&self, page: usize) {
        let word = std::ptr::with_exposed_provenance_mut(self.page(page));
        // SAFETY: an aligned word of this mapping, which lives as long as `self`.
        let word = unsafe { std::sync::atomic::AtomicU64::from_ptr(word) };
        word.store(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Writes to every page.
    pub(super) fn touch(&self) {
        (0..self.pages()).for_each(|page| self.touch_page(page));
    }

    pub(super) fn advise(&self, advice: MmapAdvise) -> io::Result<()> {
        // SAFETY: this mapping, whose contents nobody keeps references to.
        Ok(unsafe { madvise(self.start, self.bytes, advice) }?)
    }

    /// Gives all pages back.
    pub(super) fn discard(&self) -> io::Result<()> {
        self.advise(MmapAdvise::MADV_DONTNEED)
    }

    /// Has a page populated, as if it were written to.
    pub(super) fn populate_page(&self, page: usize) -> io::Result<()> {
        let start = NonNull::new(std::ptr::with_exposed_provenance_mut(self.page(page)));
        let start = start.ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a page of this mapping; contents are kept.
        Ok(unsafe { madvise(start, PAGE_BYTES, MmapAdvise::MADV_POPULATE_WRITE) }?)
    }

    /// Makes all of it writable, or only readable.
    pub(super) fn set_writable(&self, writable: bool) -> io::Result<()> {
        let write = if writable { ProtFlags::PROT_WRITE } else { ProtFlags::empty() };
        // SAFETY: this mapping; nobody writes to it while it is only readable.
        Ok(unsafe { mprotect(self.start, self.bytes, ProtFlags::PROT_READ | write) }?)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: this mapping, which nobody uses any more. It cannot fail for a whole mapping.
        let _ = unsafe { munmap(self.mapped, self.bytes + 2 * PAGE_BYTES) };
    }
}
