//! Installing: pages that were built become the pages mutators see.
//!
//! Run by workers and by faulting mutators, also in signal handlers: no allocation, no locks. The
//! kernel's answers (`ioctl_userfaultfd(2)`; `sys::Install`) are all dealt with here; callers see
//! that the pages are there.
//!
//! Policy, measured: up to 15 pages COPY (a MOVE interrupts every processor that runs the process
//! to flush its old mapping, whatever its length; COPY installs where nothing was), from 16 MOVE. A
//! page that cannot be moved is copied. Losing a race is success.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::address::{FromAddress, ToAddress};
use crate::geometry::{PAGE_BYTES, REGION_BYTES};
use crate::options::Mode;
use crate::staging::After;
use crate::stats::Statistics;
use crate::stress::StressMode;
use crate::sys::sched::nap;
use crate::sys::{Install, PageService};

/// From this many pages on, moving is cheaper than copying (measured with a second thread running).
const MOVE_FROM_PAGES: usize = 16;
/// How often an answer that should pass (`EAGAIN`, `ENOMEM`) is asked for again at once.
const RETRIES: u32 = 10_000;
/// And then how often after a nap, before giving up: memory may be short for seconds.
const NAPS: u32 = 30_000;
const NAP: Duration = Duration::from_millis(1);
/// Installations after which a stress mode switches moving off or on.
const TOGGLE_EVERY: u64 = 5;

/// Installs pages on behalf of one heap.
#[derive(Debug)]
pub struct Installer {
    moves: AtomicBool,
    /// Whether pages may ever have been moved.
    may_have_moved: bool,
    /// Installations since the heap was created, counted only while a stress mode switches moving off and on.
    installations: AtomicU64,
}

/// A request to install: `bytes` built at `from` go to `to`.
#[derive(Copy, Clone, Debug)]
pub struct Request {
    /// Destination, page-aligned.
    pub to: ToAddress,
    /// Where the pages were built.
    pub from: FromAddress,
    /// Whole pages.
    pub bytes: usize,
}

impl Request {
    const fn rest(self, done: usize) -> Self {
        Self { to: self.to.offset(done), from: self.from.offset(done), bytes: self.bytes - done }
    }

    const fn one_page(self) -> Self {
        Self { bytes: PAGE_BYTES, ..self }
    }
}

impl Installer {
    /// Moves pages only in [`Mode::ConcurrentMove`].
    #[must_use]
    pub const fn new(mode: Mode) -> Self {
        let moves = matches!(mode, Mode::ConcurrentMove);
        Self { moves: AtomicBool::new(moves), may_have_moved: moves, installations: AtomicU64::new(0) }
    }

    /// Whether pages are moved, or were before the kernel refused.
    #[must_use]
    pub const fn may_have_moved(&self) -> bool {
        self.may_have_moved
    }

    /// Whether long runs are moved.
    #[must_use]
    pub fn moves(&self) -> bool {
        self.moves.load(Ordering::Relaxed)
    }

    /// Installs the pages. When this returns, every page of the request is there.
    pub fn install(&self, pages: &dyn PageService, stats: &Statistics, request: Request) -> After {
        if stats.stress.is_on(StressMode::ToggleMoves) {
            self.toggle(stats);
        }
        if self.moves() && request.bytes >= MOVE_FROM_PAGES * PAGE_BYTES {
            self.install_by_move(pages, stats, request)
        } else {
            install_by_copy(pages, stats, request);
            After::Kept
        }
    }

    /// Under stress: switches moving off, or on again.
    fn toggle(&self, stats: &Statistics) {
        let nth = self.installations.fetch_add(1, Ordering::Relaxed) + 1;
        if self.may_have_moved && nth.is_multiple_of(TOGGLE_EVERY) {
            self.moves.store((nth / TOGGLE_EVERY).is_multiple_of(2), Ordering::Relaxed);
            stats.stress.add(StressMode::ToggleMoves, 1);
        }
    }

    fn install_by_move(&self, pages: &dyn PageService, stats: &Statistics, request: Request) -> After {
        let mut done = 0;
        let mut after = After::Moved;
        let mut patience = Patience::new();
        while done < request.bytes {
            let rest = request.rest(done);
            match pages.move_pages(rest.to, rest.from, rest.bytes) {
                Install::Done => {
                    stats.counters.moved_bytes.fetch_add(rest.bytes as u64, Ordering::Relaxed);
                    let whole = rest.bytes == REGION_BYTES;
                    stats.counters.huge_moves.fetch_add(u64::from(whole), Ordering::Relaxed);
                    return after;
                }
                Install::Partial { bytes } => {
                    stats.counters.moved_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                    done += bytes;
                }
                Install::Exists => {
                    stats.counters.lost_races.fetch_add(1, Ordering::Relaxed);
                    done += PAGE_BYTES;
                    after = After::MovedInPart;
                }
                Install::Busy if patience.is_fresh() => patience.wait(pages, rest, "busy"),
                // Pinned, or shared since a fork: this page is copied, the others are still moved.
                Install::Busy => {
                    install_by_copy(pages, stats, rest.one_page());
                    done += PAGE_BYTES;
                    after = After::MovedInPart;
                    patience = Patience::new();
                }
                Install::Again => patience.wait(pages, rest, "again"),
                Install::NoMemory => patience.wait(pages, rest, "no memory"),
                // The kernel does not move between these mappings: stop trying for good.
                Install::Invalid | Install::Missing => {
                    if self.moves.swap(false, Ordering::Relaxed) {
                        stats.calls.count(crate::stats::KernelCall::Move, crate::stats::KernelAnswer::Other);
                    }
                    install_by_copy(pages, stats, rest);
                    return After::Kept;
                }
                Install::Gone => return After::MovedInPart,
            }
        }
        after
    }
}

fn install_by_copy(pages: &dyn PageService, stats: &Statistics, request: Request) {
    let mut done = 0;
    let mut patience = Patience::new();
    while done < request.bytes {
        let rest = request.rest(done);
        match pages.copy(rest.to, rest.from, rest.bytes) {
            Install::Done => {
                stats.counters.copied_bytes.fetch_add(rest.bytes as u64, Ordering::Relaxed);
                return;
            }
            Install::Partial { bytes } => {
                stats.counters.copied_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                done += bytes;
            }
            Install::Exists => {
                stats.counters.lost_races.fetch_add(1, Ordering::Relaxed);
                done += PAGE_BYTES;
            }
            Install::Again | Install::Busy => patience.wait(pages, rest, "again"),
            Install::NoMemory => patience.wait(pages, rest, "no memory"),
            Install::Gone => return,
            answer @ (Install::Invalid | Install::Missing) => cannot_serve(rest, answer),
        }
    }
}

/// Installs one page of zeros where nobody ever wrote.
pub fn install_zeros(pages: &dyn PageService, to: ToAddress) {
    let request = Request { to, from: FromAddress::new(to.get()), bytes: PAGE_BYTES };
    let mut patience = Patience::new();
    loop {
        match pages.zero(to, PAGE_BYTES) {
            Install::Done | Install::Gone => return,
            // Already there, or not registered any more: either way the access will succeed now; who
            // waits for the page is woken, in case its installation came before the wait.
            Install::Exists | Install::Missing => return pages.wake(to, PAGE_BYTES),
            Install::Again | Install::Busy | Install::Partial { .. } => {
                patience.wait(pages, request, "again")
            }
            Install::NoMemory => patience.wait(pages, request, "no memory"),
            answer @ Install::Invalid => cannot_serve(request, answer),
        }
    }
}

/// Bounded waiting for answers that pass.
struct Patience {
    waited: u32,
}

impl Patience {
    const fn new() -> Self {
        Self { waited: 0 }
    }

    const fn is_fresh(&self) -> bool {
        self.waited < 3
    }

    fn wait(&mut self, pages: &dyn PageService, request: Request, why: &str) {
        self.waited += 1;
        if self.waited > RETRIES + NAPS {
            crate::sys::die(format_args!(
                "strikeslip: {} bytes at {:#x} cannot be installed: {why}, {} times",
                request.bytes,
                request.to.get(),
                self.waited
            ));
        }
        match pages.schedule() {
            Some(schedule) => schedule.yield_now(),
            None if self.waited > RETRIES => nap(NAP),
            None => std::thread::yield_now(),
        }
    }
}

/// A mutator that waits for a page cannot be told that it will not come.
#[cold]
fn cannot_serve(request: Request, answer: Install) -> ! {
    crate::sys::die(format_args!(
        "strikeslip: {} bytes at {:#x} cannot be installed from {:#x}: {answer:?}",
        request.bytes,
        request.to.get(),
        request.from.get()
    ))
}
