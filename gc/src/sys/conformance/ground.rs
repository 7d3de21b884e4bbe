//! What trials work with: descriptors, and memory of their own.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nix::errno::Errno;
use userfaultfd_sys as raw;

use super::NotTried;
use crate::geometry::PAGE_BYTES;
use crate::sys::ioctls::{Answer, RawUserfault};

/// Pages of a mapping of a trial.
pub(super) const PAGES: usize = 16;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// A mapping, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Memory {
    base: usize,
    bytes: usize,
    /// Pages that are still mapped: others may map memory of theirs behind them.
    mapped: AtomicUsize,
}

impl Memory {
    /// Private anonymous memory, `PAGES` pages of it.
    pub(super) fn new() -> Result<Self, NotTried> {
        Self::mapped(PAGES * PAGE_BYTES, READ_WRITE, libc::MAP_PRIVATE)
    }

    pub(super) fn mapped(bytes: usize, protection: i32, flags: i32) -> Result<Self, NotTried> {
        let flags = flags | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses a free address.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(NotTried::because("mmap", io::Error::last_os_error()));
        }
        let mapped_pages = AtomicUsize::new(bytes / PAGE_BYTES);
        let memory = Self { base: mapped.expose_provenance(), bytes, mapped: mapped_pages };
        // Trials count small pages. A kernel without huge pages refuses the advice, and needs none.
        let _ = memory.advise(0, memory.bytes / PAGE_BYTES, libc::MADV_NOHUGEPAGE);
        Ok(memory)
    }

    pub(super) const fn page(&self, page: usize) -> usize {
        self.base + page * PAGE_BYTES
    }

    fn pointer(&self, page: usize) -> *mut libc::c_void {
        std::ptr::with_exposed_provenance_mut(self.page(page))
    }

    /// The first word of a page. An access faults if the page is missing.
    pub(super) fn word(&self, page: usize) -> &AtomicU64 {
        assert!(page < self.mapped.load(Ordering::Relaxed), "a page of the mapping");
        // SAFETY: an aligned word of this mapping, which lives as long as `self` and is only accessed as atomics.
        unsafe { AtomicU64::from_ptr(self.pointer(page).cast()) }
    }

    /// Writes to pages: each has its number and one in its first word.
    pub(super) fn fill(&self, pages: std::ops::Range<usize>) {
        pages.for_each(|page| self.word(page).store(page as u64 + 1, Ordering::Relaxed));
    }

    pub(super) fn advise(&self, page: usize, pages: usize, advice: i32) -> io::Result<()> {
        // SAFETY: pages of this mapping, whose contents only the trial cares for.
        crate::sys::check(unsafe { libc::madvise(self.pointer(page), pages * PAGE_BYTES, advice) })
    }

    pub(super) fn protect(&self, page: usize, pages: usize, protection: i32) -> Result<(), NotTried> {
        // SAFETY: pages of this mapping; the trial does not access them against the protection.
        let answer = unsafe { libc::mprotect(self.pointer(page), pages * PAGE_BYTES, protection) };
        crate::sys::check(answer).map_err(|error| NotTried::because("mprotect", error))
    }

    pub(super) fn lock(&self) -> Result<(), NotTried> {
        // SAFETY: this mapping; contents are kept.
        let answer = unsafe { libc::mlock(self.pointer(0), self.bytes) };
        crate::sys::check(answer).map_err(|error| NotTried::because("mlock", error))
    }

    /// Unmaps all pages from this one on. Nobody accesses them any more.
    pub(super) fn unmap_from(&self, page: usize) {
        let mapped = self.mapped.swap(page, Ordering::Relaxed);
        // SAFETY: pages of this mapping, which nobody accesses any more.
        unsafe { crate::sys::mapping::unmap(self.page(page), (mapped - page) * PAGE_BYTES) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.unmap_from(0);
    }
}

/// A descriptor, a registered destination and a source whose pages are there.
#[derive(Debug)]
pub(super) struct Ground {
    pub fd: RawUserfault,
    pub to: Memory,
    pub from: Memory,
}

impl Ground {
    /// With nothing registered.
    pub(super) fn unregistered() -> Result<Self, NotTried> {
        Self::with_features(0)
    }

    pub(super) fn with_features(features: u64) -> Result<Self, NotTried> {
        let fd = RawUserfault::open(features).map_err(|error| NotTried::because("userfaultfd", error))?;
        let ground = Self { fd, to: Memory::new()?, from: Memory::new()? };
        ground.from.fill(0..PAGES);
        Ok(ground)
    }

    pub(super) fn new() -> Result<Self, NotTried> {
        let ground = Self::unregistered()?;
        ground.register(&ground.to)?;
        Ok(ground)
    }

    /// The same, if the kernel offers MOVE.
    pub(super) fn for_move() -> Result<Self, NotTried> {
        let ground = Self::new()?;
        ground.needs_move()?;
        Ok(ground)
    }

    pub(super) fn needs_move(&self) -> Result<(), NotTried> {
        if self.fd.features() & raw::UFFD_FEATURE_MOVE == 0 {
            return Err(NotTried("the kernel does not offer MOVE (Linux 6.8)".to_owned()));
        }
        Ok(())
    }

    pub(super) fn register(&self, memory: &Memory) -> Result<(), NotTried> {
        let answer = self.fd.register(memory.base, memory.bytes, raw::UFFDIO_REGISTER_MODE_MISSING);
        if answer.is_done() { Ok(()) } else { Err(NotTried::because("REGISTER", said(answer))) }
    }

    pub(super) fn copy(&self, to: usize, from: usize, pages: usize) -> Answer {
        self.fd.copy(self.to.page(to), self.from.page(from), pages * PAGE_BYTES, 0)
    }

    pub(super) fn zero(&self, to: usize, pages: usize) -> Answer {
        self.fd.zeropage(self.to.page(to), pages * PAGE_BYTES)
    }

    pub(super) fn move_pages(&self, to: usize, from: usize, pages: usize) -> Answer {
        self.move_by(&self.fd, self.to.page(to), self.from.page(from), pages * PAGE_BYTES, 0)
    }

    /// MOVE of anything.
    pub(super) fn move_by(
        &self,
        fd: &RawUserfault,
        to: usize,
        from: usize,
        bytes: usize,
        mode: u64,
    ) -> Answer {
        // SAFETY: trials refer to what is in a source's pages only as atomics, and expect them to be gone.
        unsafe { fd.move_pages(to, from, bytes, mode) }
    }
}

/// An answer in one word.
pub(super) fn said(answer: Answer) -> String {
    if answer.is_done() { "done".to_owned() } else { format!("{:?}", Errno::from_raw(answer.errno)) }
}

/// An answer that was not done, with what it says of its progress.
pub(super) fn said_with_count(answer: Answer) -> String {
    format!("{}, {}", said(answer), said_count(answer))
}

pub(super) fn said_count(answer: Answer) -> String {
    match answer.count {
        count @ ..=-1 => {
            format!("count -{:?}", Errno::from_raw(i32::try_from(-count).unwrap_or(i32::MAX)))
        }
        count => format!("count {count}"),
    }
}

/// An answer in part, and what the next request says.
pub(super) fn said_in_part(answer: Answer, pages: usize, next: impl FnOnce(usize) -> Answer) -> String {
    if answer.errno != libc::EAGAIN || answer.count <= 0 {
        return said_with_count(answer);
    }
    let done = answer.count as usize / PAGE_BYTES;
    format!("{done} of {pages} pages, then {}", said(next(done)))
}
