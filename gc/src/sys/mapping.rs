//! Mappings: the heap's reserved address space, its windows, and side tables.
//!
//! A [`Reservation`] is made when a heap is created, windows are opened as the heap grows, regions
//! are taken at the flip and their aliases closed in reclaim.
//!
//! Invariants: the reservation begins at a 1 GiB-aligned address, so `mremap` moves whole levels of
//! page tables. A window is one mapping with flags that never change (a cycle's page operations
//! then need no lock but the mapping's own). What is not an open window or a taken alias is
//! inaccessible. No call reaches outside the reservation: each checks its range.
//!
//! *Fork.* Windows and taken aliases are not inherited (`MADV_DONTFORK`): a child process would find zeros
//! where pages are missing, and pages that it shares could not be moved. In a child an access to the heap ends
//! in `SIGSEGV`.

use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::check;
pub use super::side_table::{SideTable, Zeroable};
use crate::address::{FromAddress, HeapRange, ToAddress, WindowIndex};
use crate::geometry::{MAX_WINDOWS, PAGE_BYTES, REGION_BYTES, STRIDE_BYTES, WINDOW_BYTES};
use crate::stats::{KernelAnswer, KernelCall, Statistics};

const RESERVED: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Maps fresh anonymous memory: anywhere if `address` is 0, else exactly there.
///
/// # Safety
/// What is mapped at `address` is the caller's, who knows that nothing needs its contents any more.
pub(super) unsafe fn map(address: usize, bytes: usize, protection: i32) -> io::Result<usize> {
    let fixed = if address == 0 { 0 } else { libc::MAP_FIXED };
    let at = ptr::without_provenance_mut(address);
    // SAFETY: without MAP_FIXED no existing mapping is touched; with it, as the caller promises.
    let mapped = unsafe { libc::mmap(at, bytes, protection, RESERVED | fixed, -1, 0) };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(mapped.expose_provenance()) }
}

/// Unmaps a range. Failure is impossible for a range that is ours, and would only leak it.
///
/// # Safety
/// The range is the caller's, who knows that nobody accesses it any more.
pub(super) unsafe fn unmap(address: usize, bytes: usize) {
    if bytes > 0 {
        // SAFETY: as the caller promises.
        let answer = unsafe { libc::munmap(ptr::with_exposed_provenance_mut(address), bytes) };
        debug_assert_eq!(answer, 0, "munmap({address:#x}, {bytes:#x})");
    }
}

/// Whether the process can have `mappings` more mappings (see `vm.max_map_count`). Tried, not read: a mapping
/// is made, and every other page of it changed.
///
/// # Errors
/// The system refuses.
pub fn room_for(mappings: usize) -> io::Result<()> {
    let bytes = mappings * PAGE_BYTES;
    // SAFETY: the kernel chooses a free address.
    let base = unsafe { map(0, bytes, libc::PROT_NONE)? };
    let mut result = Ok(());
    for page in (base..base + bytes).step_by(2 * PAGE_BYTES) {
        // SAFETY: a page of the mapping that was just made; nobody knows it.
        result =
            check(unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(page), PAGE_BYTES, READ_WRITE) });
        if result.is_err() {
            break;
        }
    }
    // SAFETY: the mapping is ours, and nobody knows it.
    unsafe { unmap(base, bytes) };
    result
}

/// Gives advice on a range.
///
/// # Safety
/// The range is the caller's, and so is the decision to lose contents, where the advice does.
pub(super) unsafe fn advise(address: usize, bytes: usize, advice: i32) -> io::Result<()> {
    // SAFETY: as the caller promises.
    check(unsafe { libc::madvise(ptr::with_exposed_provenance_mut(address), bytes, advice) })
}

/// Moves the pages of a range to another address, with the range's flags; the range stays mapped, empty.
///
/// # Safety
/// Both ranges are the caller's, who knows that nothing needs the contents of the second.
pub(super) unsafe fn move_mapping(from: usize, to: usize, bytes: usize) -> io::Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    let pointer = |address| ptr::with_exposed_provenance_mut::<libc::c_void>(address);
    // SAFETY: as the caller promises.
    let moved = unsafe { libc::mremap(pointer(from), bytes, bytes, flags, pointer(to)) };
    if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Bytes of huge pages in the mapping that `address` lies in; 0 also where the system does not tell.
#[must_use]
pub fn huge_page_bytes(address: usize) -> usize {
    let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else { return 0 };
    let mut inside = false;
    for line in maps.lines() {
        let first = line.split_whitespace().next().unwrap_or("");
        let bounds = first.split_once('-').and_then(|(start, end)| {
            Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
        });
        if let Some((start, end)) = bounds {
            inside = (start..end).contains(&address);
        } else if inside && first == "AnonHugePages:" {
            let kib = line.split_whitespace().nth(1).and_then(|text| text.parse::<usize>().ok());
            return kib.unwrap_or(0) << 10;
        }
    }
    0
}

/// Reserved address space of a heap. Dropping it unmaps everything in it.
#[derive(Debug)]
pub struct Reservation {
    range: HeapRange,
    statistics: Option<Arc<Statistics>>,
}

impl Reservation {
    /// Reserves address space for `windows` windows and their aliases. Nothing of it is accessible yet.
    ///
    /// # Errors
    /// The system refuses so much address space (see `RLIMIT_AS`), or `windows` is 0 or more than
    /// [`MAX_WINDOWS`].
    pub fn new(windows: u32) -> io::Result<Self> {
        if windows == 0 || windows as usize > MAX_WINDOWS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "number of windows"));
        }
        let bytes = windows as usize * STRIDE_BYTES;
        // More than needed, so that an aligned range of `bytes` lies in it; the rest is trimmed.
        let mapped = {
            // SAFETY: the kernel chooses a free address.
            unsafe { map(0, bytes + WINDOW_BYTES, libc::PROT_NONE)? }
        };
        let base = mapped.next_multiple_of(WINDOW_BYTES);
        let end = mapped + bytes + WINDOW_BYTES;
        // SAFETY: both pieces were just mapped by us, and nobody knows them.
        unsafe {
            unmap(mapped, base - mapped);
            unmap(base + bytes, end - (base + bytes));
        }
        Ok(Self { range: HeapRange::new(base, windows), statistics: None })
    }

    /// The same, counting its calls in `statistics`.
    #[must_use]
    pub fn with_counts(mut self, statistics: Arc<Statistics>) -> Self {
        self.statistics = Some(statistics);
        self
    }

    /// The range of addresses.
    #[must_use]
    pub const fn range(&self) -> HeapRange {
        self.range
    }

    /// Maps a window, empty, readable and writable, with or without huge pages. What was in it is lost. Child
    /// processes do not inherit it.
    ///
    /// # Errors
    /// The system refuses another mapping.
    pub fn open_window(&self, window: WindowIndex, huge: bool) -> io::Result<()> {
        let start = self.range.window_address(window).get();
        self.check_range(start, WINDOW_BYTES)?;
        let advice = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: the window is ours, and the caller gives up what was in it.
        unsafe { map(start, WINDOW_BYTES, READ_WRITE)? };
        // A touch gives the mapping its `anon_vma`, without which the first page operation on it
        // takes the process-wide lock. Before the advice, so that one small page does.
        touch(start);
        self.discard(start, REGION_BYTES)?;
        // SAFETY: no contents are lost in this process, and a child has no use for them.
        unsafe { advise(start, WINDOW_BYTES, libc::MADV_DONTFORK)? };
        // SAFETY: no contents are lost.
        match unsafe { advise(start, WINDOW_BYTES, advice) } {
            // A kernel without huge pages knows neither advice.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            result => result,
        }
    }

    /// Takes a range from the mutators: its pages move to its alias (`start` + 1 GiB), and in their place are none.
    /// Both ends have the same flags. What was in the alias is lost.
    ///
    /// Register the range afterwards, not before: the kernel moves registered pages one by one.
    ///
    /// # Errors
    /// The range is not open, or the system refuses another mapping. Then nothing was taken.
    pub fn take(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        let (from, to) = (start.get(), start.get() + WINDOW_BYTES);
        self.check_alias(start, bytes)?;
        // SAFETY: source and destination lie in this reservation. The caller takes the pages, so it
        // knows who may access them; an access meanwhile reads zeros or faults, as designed.
        let result = unsafe { move_mapping(from, to, bytes) };
        if result.is_err() {
            reserve_again(to, bytes);
        }
        self.counted(KernelCall::Mremap, result)
    }

    /// Makes the alias of a range inaccessible again, and gives back what is left in it.
    ///
    /// # Errors
    /// The range is not open.
    pub fn close_alias(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.check_alias(start, bytes)?;
        let alias = start.get() + WINDOW_BYTES;
        // SAFETY: the alias lies in this reservation, and the caller gives up what was in it.
        if unsafe { map(alias, bytes, libc::PROT_NONE) }.is_ok() {
            return Ok(());
        }
        // A process with as many mappings as it may have gets no new one, but can change this one.
        self.discard(alias, bytes)?;
        // SAFETY: as above; nobody accesses the alias any more.
        check(unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(alias), bytes, libc::PROT_NONE) })
    }

    /// Gives memory back. The range, in windows or aliases, reads as zeros afterwards (or is missing, if registered).
    ///
    /// # Errors
    /// The range is not open, or is locked in memory.
    pub fn discard(&self, start: usize, bytes: usize) -> io::Result<()> {
        self.check_range(start, bytes)?;
        // SAFETY: the range lies in this reservation, and the caller gives up its contents.
        let result = unsafe { advise(start, bytes, libc::MADV_DONTNEED) };
        self.counted(KernelCall::Discard, result)
    }

    /// Makes every page of a range be there and writable, without changing contents.
    ///
    /// # Errors
    /// The range is not open, pages of it are missing and registered, or there is no memory.
    pub fn populate(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.check_range(start.get(), bytes)?;
        // SAFETY: no contents are lost.
        match unsafe { advise(start.get(), bytes, libc::MADV_POPULATE_WRITE) } {
            // Before Linux 5.14 there was no such advice.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                (start.get()..start.get() + bytes).step_by(PAGE_BYTES).for_each(touch);
                Ok(())
            }
            result => result,
        }
    }

    /// Reads each page of a range, so that the kernel has something to read there: where nothing was ever written, the
    /// page of zeros that all mappings share.
    ///
    /// # Panics
    /// If the range is not in this reservation.
    pub fn read_pages(&self, start: FromAddress, bytes: usize) {
        assert!(self.check_range(start.get(), bytes).is_ok(), "{start:?} lies elsewhere");
        for address in (start.get()..start.get() + bytes).step_by(PAGE_BYTES) {
            // SAFETY: the page lies in this reservation and, as from-space, is readable; the word is written by nobody
            // but whoever has claimed the unit that it belongs to.
            let _ = unsafe { ptr::with_exposed_provenance::<u64>(address).read_volatile() };
        }
    }

    /// Makes a range inaccessible, or accessible again, whatever it holds.
    ///
    /// # Errors
    /// The range is not open, or the system refuses another mapping.
    pub fn set_accessible(&self, start: ToAddress, bytes: usize, accessible: bool) -> io::Result<()> {
        self.check_range(start.get(), bytes)?;
        let protection = if accessible { READ_WRITE } else { libc::PROT_NONE };
        // SAFETY: the range lies in this reservation; the caller knows that nobody has business there meanwhile.
        check(unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(start.get()), bytes, protection) })
    }

    /// Fills those pages of a range that are there with `word`. Whether there were any.
    #[must_use]
    pub fn overwrite(&self, start: ToAddress, bytes: usize, word: u64) -> bool {
        let mut any = false;
        for (nth, is_there) in residency(start.get(), bytes).enumerate() {
            if is_there {
                let page = start.offset(nth * PAGE_BYTES).as_ptr::<u64>();
                // SAFETY: the page is there, lies in this reservation, and the caller gives up its contents.
                unsafe { (0..PAGE_BYTES / 8).for_each(|at| page.add(at).write(word)) };
                any = true;
            }
        }
        any
    }

    fn check_range(&self, start: usize, bytes: usize) -> io::Result<()> {
        let end = start.checked_add(bytes).filter(|_| bytes > 0 && start.is_multiple_of(PAGE_BYTES));
        match end {
            Some(end) if self.range.contains(start) && self.range.contains(end - 1) => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "range is not part of the heap")),
        }
    }

    /// Checks that the range lies in one window, so that all of it has its alias behind that window.
    fn check_alias(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.check_range(start.get(), bytes)?;
        let inside = (start.get() - self.range.base()) % STRIDE_BYTES;
        if inside + bytes <= WINDOW_BYTES {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "range is not part of one window"))
    }

    fn counted(&self, call: KernelCall, result: io::Result<()>) -> io::Result<()> {
        if let Some(statistics) = &self.statistics {
            let answer = match result.as_ref().map_err(io::Error::raw_os_error) {
                Ok(()) => KernelAnswer::Done,
                Err(Some(libc::EINVAL)) => KernelAnswer::Invalid,
                Err(Some(libc::ENOMEM)) => KernelAnswer::NoMemory,
                Err(_) => KernelAnswer::Other,
            };
            statistics.calls.count(call, answer);
        }
        result
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the whole range is ours; who drops the reservation knows that nobody uses the heap.
        unsafe { unmap(self.range.base(), self.range.windows() as usize * STRIDE_BYTES) }
    }
}

/// After a refused `mremap`, which may have unmapped its destination: reserves that again, if it is free.
fn reserve_again(address: usize, bytes: usize) {
    let at = ptr::without_provenance_mut(address);
    // SAFETY: the mapping replaces none (MAP_FIXED_NOREPLACE); where there is one, nothing happens.
    let _ = unsafe { libc::mmap(at, bytes, libc::PROT_NONE, RESERVED | libc::MAP_FIXED_NOREPLACE, -1, 0) };
}

/// Asks the kernel which pages of a range are there: bit 0 of a byte for each.
fn mincore(address: usize, pages: &mut [u8]) {
    let bytes = pages.len() * PAGE_BYTES;
    // SAFETY: the slice has a byte for each page, and the call changes nothing else.
    let answer =
        unsafe { libc::mincore(ptr::with_exposed_provenance_mut(address), bytes, pages.as_mut_ptr()) };
    assert_eq!(answer, 0, "mincore({address:#x}, {bytes:#x})");
}

/// Whether the page at `address` is there.
pub(super) fn is_resident(address: usize) -> bool {
    let mut page = [0];
    mincore(address, &mut page);
    page[0] & 1 == 1
}

/// Whether each page of a range is there.
pub(super) fn residency(address: usize, bytes: usize) -> impl Iterator<Item = bool> {
    let mut pages = vec![0_u8; bytes / PAGE_BYTES];
    mincore(address, &mut pages);
    pages.into_iter().map(|page| page & 1 == 1)
}

/// How many pages of a range are there.
#[cfg(test)]
pub(super) fn resident_pages(address: usize, bytes: usize) -> usize {
    residency(address, bytes).filter(|&is_resident| is_resident).count()
}

/// Writes to a page without changing it, so that it is there and the process's own.
pub(super) fn touch(address: usize) {
    let byte = ptr::with_exposed_provenance_mut::<u8>(address);
    // SAFETY: callers pass an address in a readable and writable mapping of this module's; it is
    // accessed atomically, because others may use it at the same time.
    let byte = unsafe { AtomicU8::from_ptr(byte) };
    // A zero that the compiler knows would make this a read, or nothing.
    byte.fetch_or(std::hint::black_box(0), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touched_page_is_there_and_the_others_are_not() {
        // SAFETY: the kernel chooses a free address.
        let address = unsafe { map(0, 4 * PAGE_BYTES, READ_WRITE) }.unwrap();
        // SAFETY: the mapping is this test's; there is nothing in it to be lost.
        let small_pages = unsafe { advise(address, 4 * PAGE_BYTES, libc::MADV_NOHUGEPAGE) };
        assert!(small_pages.is_ok() || !is_resident(address));
        touch(address + PAGE_BYTES);
        assert_eq!(residency(address, 4 * PAGE_BYTES).collect::<Vec<_>>(), [false, true, false, false]);
        // SAFETY: the mapping is this test's.
        unsafe { unmap(address, 4 * PAGE_BYTES) };
    }
}
