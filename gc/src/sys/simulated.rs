//! [`PageService`] without userfaultfd: which pages are missing is kept in a table.
//!
//! Used by [`crate::simulation`] only. Nothing faults here: a simulated mutator asks [`SimulatedPages::is_missing`]
//! before each access, and acts as the kernel would. Installing is plain copying of memory and an entry of the
//! table, one short run of pages after the other, as the kernel does it; between two runs other threads may
//! go on. All choices come from a seed.
//!
//! It answers as the kernel does (`ioctl_userfaultfd(2)`), and panics where the collector breaks a rule that
//! the kernel would punish by lost data: a page that was touched before it was installed; a source page that
//! is itself missing; a range that is registered twice, or not whole windows.
//!
//! With a [`Schedule`] of threads that really run beside each other, the table and memory change under a lock, which
//! is never held over a step.
//!
//! Invariant: a page of a registered window is missing if the
//! table says so and no memory is there; memory that came there meanwhile is a touch that nobody announced
//! (a header written by an allocation), which the kernel would have made a fault and the collector zeros.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::mapping::{SideTable, advise, is_resident, residency, touch};
use super::schedule::{Schedule, Step};
use super::{Install, PageService};
use crate::address::{FromAddress, HeapRange, ToAddress};
use crate::geometry::{PAGE_BYTES, STRIDE_BYTES, WINDOW_BYTES};

const WINDOW_PAGES: usize = WINDOW_BYTES / PAGE_BYTES;
/// log2 of the pages that are installed at most before other threads may go on.
const MOST_AT_ONCE_SHIFT: u64 = 9;

/// In the table, of a page that is not missing.
const PRESENT: u8 = 1;

/// A mutator that sleeps in a fault (delivery by pool).
#[derive(Copy, Clone, Debug)]
struct Sleeper {
    id: u64,
    page: usize,
    /// Its event was read.
    is_read: bool,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Kind {
    Copy,
    Zero,
    Move,
}

/// The simulated service.
pub struct SimulatedPages {
    range: HeapRange,
    /// By window.
    registered: Box<[AtomicBool]>,
    /// By compact page index, in registered windows: 0 (missing) or [`PRESENT`].
    pages: SideTable<AtomicU8>,
    /// Held while pages are filled: nobody sees half of one.
    filling: Mutex<()>,
    sleepers: Mutex<Vec<Sleeper>>,
    next_sleeper: AtomicU64,
    /// State of the generator of choices.
    random: AtomicU64,
    /// Of all calls and answers so far.
    digest: AtomicU64,
    schedule: Arc<dyn Schedule>,
}

impl fmt::Debug for SimulatedPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedPages").field("range", &self.range).finish_non_exhaustive()
    }
}

impl SimulatedPages {
    /// For a heap in `range`, without huge pages. `schedule` says which thread goes on, `seed` all else.
    ///
    /// # Errors
    /// The system refuses memory for the table.
    pub fn new(range: HeapRange, schedule: Arc<dyn Schedule>, seed: u64) -> io::Result<Self> {
        Ok(Self {
            range,
            registered: (0..range.windows()).map(|_| AtomicBool::new(false)).collect(),
            pages: SideTable::new(range.windows() as usize * WINDOW_PAGES)?,
            filling: Mutex::default(),
            sleepers: Mutex::default(),
            next_sleeper: AtomicU64::new(1),
            random: AtomicU64::new(seed),
            digest: AtomicU64::new(0),
            schedule,
        })
    }

    /// Whether an access at `address` is a fault.
    #[inline]
    #[must_use]
    pub fn is_missing(&self, address: ToAddress) -> bool {
        // Acquire: pairs with the Release in `install_run`, so that the page's contents are seen.
        if !self.is_registered(address) || self.pages[self.page(address)].load(Ordering::Acquire) == PRESENT {
            return false;
        }
        let _filling = self.filling();
        self.has_no_memory(address)
    }

    /// Whether a page is missing of which the table does not say that it is there.
    fn has_no_memory(&self, address: ToAddress) -> bool {
        let is_resident = is_resident(address.get() & !(PAGE_BYTES - 1));
        if is_resident {
            self.pages[self.page(address)].store(PRESENT, Ordering::Relaxed);
        }
        !is_resident
    }

    fn filling(&self) -> MutexGuard<'_, ()> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the kernel does with a fault on `address` whose event is to be read: the thread sleeps until its
    /// page is installed or woken. The registration may end between the fault and the sleep.
    pub fn sleep(&self, address: ToAddress) {
        self.schedule.step(Step::Faulted);
        let page = address.get() & !(PAGE_BYTES - 1);
        let id = self.next_sleeper.fetch_add(1, Ordering::Relaxed);
        {
            let _filling = self.filling();
            if is_resident(page) {
                return;
            }
            self.sleepers().push(Sleeper { id, page, is_read: false });
        }
        while self.sleepers().iter().any(|sleeper| sleeper.id == id) {
            self.schedule.yield_now();
        }
    }

    /// The next event, of a thread that still sleeps.
    #[must_use]
    pub fn read_event(&self) -> Option<ToAddress> {
        let mut sleepers = self.sleepers();
        let sleeper = sleepers.iter_mut().find(|sleeper| !sleeper.is_read)?;
        sleeper.is_read = true;
        Some(ToAddress::new(sleeper.page))
    }

    /// A number that depends on all calls and answers so far: the same run gives the same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.load(Ordering::Relaxed)
    }

    fn sleepers(&self) -> MutexGuard<'_, Vec<Sleeper>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn page(&self, address: ToAddress) -> usize {
        self.range.word(address).page().index()
    }

    #[inline]
    fn is_registered(&self, address: ToAddress) -> bool {
        let offset = address.get() - self.range.base();
        assert!(offset % STRIDE_BYTES < WINDOW_BYTES, "{:#x} lies in an alias", address.get());
        self.registered[offset / STRIDE_BYTES].load(Ordering::Relaxed)
    }

    /// Whether the page at `address` (in a window, or not) would be a fault for whoever reads it. With the lock.
    fn is_missing_source(&self, address: usize) -> bool {
        let offset = address - self.range.base();
        let in_window = offset % STRIDE_BYTES < WINDOW_BYTES;
        let address = ToAddress::new(address);
        in_window
            && self.is_registered(address)
            && self.pages[self.page(address)].load(Ordering::Relaxed) != PRESENT
            && self.has_no_memory(address)
    }

    fn below(&self, end: u64) -> u64 {
        let state = self.random.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.store(state, Ordering::Relaxed);
        mix(state) % end
    }

    fn note(&self, call: u64, to: ToAddress, bytes: usize, answer: Install) -> Install {
        let place = (to.get() - self.range.base()) as u64;
        let answer_bits = match answer {
            Install::Partial { bytes } => bytes as u64,
            Install::Done => u64::MAX,
            Install::Exists => u64::MAX - 1,
            _ => u64::MAX - 2,
        };
        let before = self.digest.load(Ordering::Relaxed);
        let all =
            [call, place, bytes as u64, answer_bits].into_iter().fold(before, |all, next| mix(all ^ next));
        self.digest.store(all, Ordering::Relaxed);
        answer
    }

    fn install(&self, kind: Kind, to: ToAddress, from: Option<FromAddress>, bytes: usize) -> Install {
        assert!(
            bytes > 0 && bytes.is_multiple_of(PAGE_BYTES) && to.get().is_multiple_of(PAGE_BYTES),
            "{kind:?} of {bytes} bytes to {:#x}",
            to.get()
        );
        let mut done = 0;
        let answer = loop {
            self.schedule.step(Step::Installing);
            let most = 1 << self.below(MOST_AT_ONCE_SHIFT + 1);
            let run = (bytes - done).min(PAGE_BYTES * (1 + self.below(most)) as usize);
            let (installed, answer) =
                self.install_run(kind, to.offset(done), from.map(|from| from.offset(done)), run);
            done += installed;
            match answer {
                Install::Done if done < bytes => {}
                Install::Done => break Install::Done,
                _ if done > 0 => break Install::Partial { bytes: done },
                other => break other,
            }
        };
        self.note(kind as u64, to, bytes, answer)
    }

    /// Installs pages, one by one, until one cannot be. Other threads see each as missing or whole.
    fn install_run(
        &self,
        kind: Kind,
        to: ToAddress,
        from: Option<FromAddress>,
        bytes: usize,
    ) -> (usize, Install) {
        let (first, pages) = (self.page(to), bytes / PAGE_BYTES);
        if !self.is_registered(to) || first % WINDOW_PAGES + pages > WINDOW_PAGES {
            return (0, Install::Missing);
        }
        let _filling = self.filling();
        for (nth, done) in (0..bytes).step_by(PAGE_BYTES).enumerate() {
            let page = &self.pages[first + nth];
            let address = to.get() + done;
            if page.load(Ordering::Relaxed) == PRESENT || (kind == Kind::Zero && is_resident(address)) {
                page.store(PRESENT, Ordering::Relaxed);
                return (done, Install::Exists);
            }
            assert!(!is_resident(address), "the page at {address:#x} was touched before it was installed");
            match from {
                Some(from) => self.fill(kind, address, from.get() + done),
                None => touch(address),
            }
            if is_resident(address) {
                // Release: pairs with the Acquire in `is_missing`.
                page.store(PRESENT, Ordering::Release);
            }
            self.wake(to.offset(done), PAGE_BYTES);
        }
        (bytes, Install::Done)
    }

    /// Puts the page at `from` at `to`.
    fn fill(&self, kind: Kind, to: usize, from: usize) {
        assert!(!self.is_missing_source(from), "the page at {from:#x} is a source, and missing itself");
        let is_hole = !is_resident(from);
        if kind == Kind::Move && is_hole {
            return;
        }
        let pointer = |address| std::ptr::with_exposed_provenance_mut::<u8>(address);
        // SAFETY: both are pages of the heap's reservation, mapped (the collector reads one as its
        // from-space, the other was registered), and different: one is missing, the other is not.
        unsafe { std::ptr::copy_nonoverlapping(pointer(from), pointer(to), PAGE_BYTES) };
        if kind == Kind::Move {
            // SAFETY: the page was given away by whoever asked to move it.
            let left = unsafe { advise(from, PAGE_BYTES, libc::MADV_DONTNEED) };
            left.expect("memory of the heap can be given back");
        }
    }

    fn set_registered(&self, start: ToAddress, bytes: usize, registered: bool) {
        assert!(
            self.page(start).is_multiple_of(WINDOW_PAGES) && bytes == WINDOW_BYTES,
            "only whole windows are registered"
        );
        let before = self.registered[self.page(start) / WINDOW_PAGES].swap(registered, Ordering::Relaxed);
        assert_eq!(before, !registered, "whether the window at {:#x} was registered", start.get());
    }
}

/// The output function of `SplitMix64`.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl PageService for SimulatedPages {
    fn register(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        let first = self.page(start);
        self.pages.clear(first..first + bytes / PAGE_BYTES);
        for (nth, _) in residency(start.get(), bytes).enumerate().filter(|&(_, is_resident)| is_resident) {
            self.pages[first + nth].store(PRESENT, Ordering::Relaxed);
        }
        self.set_registered(start, bytes, true);
        self.schedule.step(Step::Registered);
        Ok(())
    }

    fn unregister(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        // In this order, as the kernel does it: who faults in between sleeps, and is not woken here.
        self.wake(start, bytes);
        self.schedule.step(Step::Unregistering);
        self.set_registered(start, bytes, false);
        self.schedule.step(Step::Unregistered);
        Ok(())
    }

    fn copy(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install {
        self.install(Kind::Copy, to, Some(from), bytes)
    }

    fn zero(&self, to: ToAddress, bytes: usize) -> Install {
        self.install(Kind::Zero, to, None, bytes)
    }

    fn move_pages(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install {
        self.install(Kind::Move, to, Some(from), bytes)
    }

    fn wake(&self, start: ToAddress, bytes: usize) {
        let range = start.get()..start.get() + bytes;
        self.sleepers().retain(|sleeper| !range.contains(&sleeper.page));
    }

    fn schedule(&self) -> Option<&dyn Schedule> {
        Some(&*self.schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::WindowIndex;
    use crate::sys::mapping::Reservation;

    /// One thread.
    #[derive(Debug)]
    struct Alone;

    impl Schedule for Alone {
        fn step(&self, _step: Step) {}
        fn yield_now(&self) {
            panic!("there is no other thread");
        }
        fn wait(&self, _limited: bool, done: &dyn Fn() -> bool) -> bool {
            done()
        }
        fn run_workers(&self, count: usize, work: &(dyn Fn() + Sync)) {
            (0..count).for_each(|_| work());
        }
    }

    /// The first window is registered, but for its first page, which is there; the second is a source of
    /// sevens.
    fn two_windows() -> (Reservation, SimulatedPages, ToAddress, FromAddress) {
        let reservation = Reservation::new(2).unwrap();
        (0..2).for_each(|window| reservation.open_window(WindowIndex(window), false).unwrap());
        let pages = SimulatedPages::new(reservation.range(), Arc::new(Alone), 1).unwrap();
        let to = reservation.range().window_address(WindowIndex(0));
        let from = FromAddress::new(reservation.range().window_address(WindowIndex(1)).get());
        // SAFETY: the windows are open, and nobody else has an address in them.
        unsafe { std::ptr::write_bytes(from.as_ptr::<u8>(), 7, 8 * PAGE_BYTES) };
        touch(to.get());
        pages.register(to, WINDOW_BYTES).unwrap();
        (reservation, pages, to, from)
    }

    fn byte(address: usize) -> u8 {
        // SAFETY: tests read windows that are open.
        unsafe { std::ptr::with_exposed_provenance::<u8>(address).read() }
    }

    #[test]
    fn pages_are_there_after_they_were_installed_and_not_before() {
        let (_reservation, pages, to, from) = two_windows();
        let page = |nth| to.offset(nth * PAGE_BYTES);
        assert!(!pages.is_missing(to) && pages.is_missing(page(1)));
        assert_eq!(pages.copy(page(1), from, 2 * PAGE_BYTES), Install::Done);
        assert_eq!((byte(page(2).get()), byte(from.get())), (7, 7));
        assert_eq!(pages.zero(page(3), PAGE_BYTES), Install::Done);
        assert_eq!(pages.move_pages(page(4), from, 2 * PAGE_BYTES), Install::Done);
        assert_eq!((byte(page(5).get()), is_resident(from.get())), (7, false), "moved away");
        assert!((1..6).all(|nth| !pages.is_missing(page(nth))) && pages.is_missing(page(6)));
        // Nothing is there to be moved any more: a hole stays one.
        assert_eq!(pages.move_pages(page(6), from, PAGE_BYTES), Install::Done);
        assert!(pages.is_missing(page(6)));
    }

    #[test]
    fn refusals_are_those_of_the_kernel() {
        let (_reservation, pages, to, from) = two_windows();
        let page = |nth| to.offset(nth * PAGE_BYTES);
        assert_eq!(pages.copy(to, from, PAGE_BYTES), Install::Exists);
        assert_eq!(pages.zero(page(3), PAGE_BYTES), Install::Done);
        assert_eq!(pages.copy(page(1), from, 4 * PAGE_BYTES), Install::Partial { bytes: 2 * PAGE_BYTES });
        assert_eq!(pages.move_pages(page(3), from, PAGE_BYTES), Install::Exists);
        assert_eq!(byte(from.get()), 7, "what was not moved is still there");
        pages.unregister(to, WINDOW_BYTES).unwrap();
        assert_eq!(pages.copy(page(8), from, PAGE_BYTES), Install::Missing);
        assert!(!pages.is_missing(page(8)));
    }

    #[test]
    #[should_panic(expected = "was touched before it was installed")]
    fn a_page_that_was_touched_is_noticed() {
        let (_reservation, pages, to, from) = two_windows();
        touch(to.get() + PAGE_BYTES);
        let _ = pages.copy(to.offset(PAGE_BYTES), from, PAGE_BYTES);
    }

    #[test]
    #[should_panic(expected = "is a source, and missing itself")]
    fn a_source_that_is_missing_is_noticed() {
        let (_reservation, pages, to, from) = two_windows();
        pages.register(ToAddress::new(from.get()), WINDOW_BYTES).unwrap();
        let _ = pages.copy(to.offset(PAGE_BYTES), from.offset(9 * PAGE_BYTES), PAGE_BYTES);
    }
}
