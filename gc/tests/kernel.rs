//! The system-call layer against the running kernel: faults, moves, and each answer that can be provoked.
//!
//! Every test asserts an effect that only the kernel can have had: contents that came through a fault,
//! pages that are gone from where they were, the signal that ended a child process.

use std::io;
use std::os::fd::AsRawFd;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use strikeslip_gc::address::{FromAddress, ToAddress, WindowIndex};
use strikeslip_gc::geometry::{PAGE_BYTES, REGION_BYTES, WINDOW_BYTES, WORD_BYTES};
use strikeslip_gc::options::Delivery;
use strikeslip_gc::stats::{CallCount, Memory, Statistics};
use strikeslip_gc::sys::mapping::{Reservation, huge_page_bytes};
use strikeslip_gc::sys::uffd::{FaultBatch, FaultReader, Userfault, Waited};
use strikeslip_gc::sys::{Install, PageService, probe, sigbus};

#[path = "child/mod.rs"]
mod child_process;
#[path = "kernel/signals.rs"]
mod signals;

/// Two windows, and a service with a delivery. Tests use offsets from the first window's beginning.
struct Fixture {
    service: Arc<Userfault>,
    reservation: Reservation,
    statistics: Arc<Statistics>,
    base: usize,
}

/// Where tests keep the contents that they install: the second window.
const SOURCE: usize = 2 * WINDOW_BYTES;

impl Fixture {
    fn new(delivery: Delivery, huge: bool) -> Self {
        let statistics = Arc::new(Statistics::default());
        let service = Userfault::open(delivery).unwrap().with_counts(Arc::clone(&statistics));
        let reservation = Reservation::new(2).unwrap().with_counts(Arc::clone(&statistics));
        for window in [WindowIndex(0), WindowIndex(1)] {
            reservation.open_window(window, huge).unwrap();
        }
        let base = reservation.range().base();
        Self { service: Arc::new(service), reservation, statistics, base }
    }

    fn to(&self, offset: usize) -> ToAddress {
        ToAddress::new(self.base + offset)
    }

    fn from(&self, offset: usize) -> FromAddress {
        FromAddress::new(self.base + offset)
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: tests pass offsets of aligned words in open windows or taken aliases.
        unsafe { AtomicU64::from_ptr(self.to(offset).as_ptr()) }
    }

    fn write(&self, offset: usize, bytes: usize, seed: u64) {
        for at in (0..bytes).step_by(WORD_BYTES) {
            self.word(offset + at).store(seed + at as u64, Ordering::Relaxed);
        }
    }

    fn all(&self, offset: usize, bytes: usize, expected: impl Fn(usize) -> u64) -> bool {
        (0..bytes)
            .step_by(WORD_BYTES)
            .all(|at| self.word(offset + at).load(Ordering::Relaxed) == expected(at))
    }

    fn has(&self, offset: usize, bytes: usize, seed: u64) -> bool {
        self.all(offset, bytes, |at| seed + at as u64)
    }

    fn is_zero(&self, offset: usize, bytes: usize) -> bool {
        self.all(offset, bytes, |_| 0)
    }

    fn register(&self, offset: usize, bytes: usize) {
        self.service.register(self.to(offset), bytes).unwrap();
    }

    fn copy(&self, to: usize, from: usize, bytes: usize) -> Install {
        self.service.copy(self.to(to), self.from(from), bytes)
    }

    fn zero(&self, to: usize, bytes: usize) -> Install {
        self.service.zero(self.to(to), bytes)
    }

    fn move_pages(&self, to: usize, from: usize, bytes: usize) -> Install {
        self.service.move_pages(self.to(to), self.from(from), bytes)
    }

    fn calls(&self, call: &str, answer: &str) -> u64 {
        let snapshot = self.statistics.snapshot(Memory::default(), "test", None);
        let matches = |entry: &&CallCount| entry.call == call && entry.answer == answer;
        snapshot.ioctls.iter().find(matches).map_or(0, |entry| entry.count)
    }
}

/// Runs one test of this binary again in a process of its own, in which `child()` is true.
fn run_child(test: &str) -> ExitStatus {
    let this = std::env::current_exe().unwrap();
    let arguments = [test, "--exact", "--nocapture", "--test-threads=1"];
    let output = Command::new(this).args(arguments).env(CHILD, "1").output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("running 1 test"), "no test is called {test}");
    // Captured, so shown only if the test fails.
    println!("{said}{complained}");
    output.status
}

const CHILD: &str = "STRIKESLIP_KERNEL_TEST_CHILD";

fn child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[test]
fn a_fault_is_an_event_and_is_served_by_copy() {
    const PAGES: usize = 8;
    let f = Fixture::new(Delivery::Pool, false);
    f.write(SOURCE, PAGES * PAGE_BYTES, 1000);
    f.register(0, REGION_BYTES);
    let reader = FaultReader::new(Arc::clone(&f.service)).unwrap();
    let served = AtomicUsize::new(0);
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let mut batch = FaultBatch::new();
            while reader.wait(&mut batch).unwrap() == Waited::Faults {
                for &address in batch.addresses() {
                    let offset = address.get() - f.base;
                    assert_eq!(f.copy(offset, SOURCE + offset, PAGE_BYTES), Install::Done);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        assert!(f.has(0, PAGES * PAGE_BYTES, 1000));
        reader.stop();
        serving.join().unwrap();
    });
    assert_eq!(served.load(Ordering::Relaxed), PAGES);
    assert_eq!(f.calls("copy", "done"), PAGES as u64);
    assert_eq!(reader.wait(&mut FaultBatch::new()).unwrap(), Waited::Stopped);
}

#[test]
fn a_wait_for_events_ends_by_itself_when_told_to() {
    let f = Fixture::new(Delivery::Pool, false);
    let reader = FaultReader::new(Arc::clone(&f.service)).unwrap();
    let (begin, limit) = (Instant::now(), Duration::from_millis(20));
    assert_eq!(reader.wait_at_most(&mut FaultBatch::new(), Some(limit)).unwrap(), Waited::TimedOut);
    assert!(begin.elapsed() >= limit);
}

#[test]
fn unregistering_lets_waiting_threads_go_on_with_zeros() {
    let f = Fixture::new(Delivery::Pool, false);
    f.register(0, REGION_BYTES);
    let reader = FaultReader::new(Arc::clone(&f.service)).unwrap();
    thread::scope(|scope| {
        let touching = scope.spawn(|| f.word(64).fetch_add(3, Ordering::Relaxed));
        let mut batch = FaultBatch::new();
        assert_eq!(reader.wait(&mut batch).unwrap(), Waited::Faults);
        assert_eq!(batch.addresses(), [f.to(0)]);
        f.service.unregister(f.to(0), REGION_BYTES).unwrap();
        assert_eq!(touching.join().unwrap(), 0);
    });
    assert_eq!(f.word(64).load(Ordering::Relaxed), 3);
}

#[test]
fn a_woken_thread_looks_again() {
    let f = Fixture::new(Delivery::Pool, false);
    f.register(0, REGION_BYTES);
    let reader = FaultReader::new(Arc::clone(&f.service)).unwrap();
    thread::scope(|scope| {
        let touching = scope.spawn(|| f.word(0).load(Ordering::Relaxed));
        let mut batch = FaultBatch::new();
        assert_eq!(reader.wait(&mut batch).unwrap(), Waited::Faults);
        // It finds nothing, and faults again.
        f.service.wake(f.to(0), PAGE_BYTES);
        assert_eq!(reader.wait(&mut batch).unwrap(), Waited::Faults);
        assert_eq!(f.zero(0, PAGE_BYTES), Install::Done);
        assert_eq!(touching.join().unwrap(), 0);
    });
    assert_eq!(f.calls("wake", "done"), 1);
}

#[test]
fn move_takes_pages_from_where_they_were() {
    let f = Fixture::new(Delivery::InPlace, false);
    let bytes = 32 * PAGE_BYTES;
    f.write(SOURCE, bytes, 7);
    f.register(0, REGION_BYTES);
    assert_eq!(f.move_pages(0, SOURCE, bytes), Install::Done);
    assert!(f.has(0, bytes, 7));
    assert!(f.is_zero(SOURCE, bytes));
}

#[test]
fn move_keeps_a_huge_page_whole() {
    let f = Fixture::new(Delivery::InPlace, true);
    f.write(SOURCE, REGION_BYTES, 7);
    let was_huge = huge_page_bytes(f.base + SOURCE);
    if probe::probe().huge_pages.is_ok() {
        assert_eq!(was_huge, REGION_BYTES, "a touched region of a huge window is a huge page");
    }
    f.register(0, REGION_BYTES);
    assert_eq!(f.move_pages(0, SOURCE, REGION_BYTES), Install::Done);
    assert_eq!(huge_page_bytes(f.base), was_huge);
    assert_eq!(huge_page_bytes(f.base + SOURCE), 0);
    assert!(f.has(0, REGION_BYTES, 7) && f.is_zero(SOURCE, REGION_BYTES));
}

#[test]
fn move_skips_holes_in_the_source() {
    let f = Fixture::new(Delivery::Pool, false);
    f.write(SOURCE, PAGE_BYTES, 5);
    f.write(SOURCE + 2 * PAGE_BYTES, PAGE_BYTES, 6);
    f.register(0, REGION_BYTES);
    assert_eq!(f.move_pages(0, SOURCE, 3 * PAGE_BYTES), Install::Done);
    assert!(f.has(0, PAGE_BYTES, 5) && f.has(2 * PAGE_BYTES, PAGE_BYTES, 6));
    // The hole is still missing: it can be installed.
    assert_eq!(f.zero(PAGE_BYTES, PAGE_BYTES), Install::Done);
}

#[test]
fn a_page_that_is_there_already_exists_for_every_operation() {
    let f = Fixture::new(Delivery::InPlace, false);
    f.write(SOURCE, PAGE_BYTES, 5);
    f.register(0, REGION_BYTES);
    assert_eq!(f.copy(0, SOURCE, PAGE_BYTES), Install::Done);
    assert_eq!(f.copy(0, SOURCE, PAGE_BYTES), Install::Exists);
    assert_eq!(f.zero(0, PAGE_BYTES), Install::Exists);
    assert_eq!(f.move_pages(0, SOURCE, PAGE_BYTES), Install::Exists);
    assert!(f.has(SOURCE, PAGE_BYTES, 5), "a MOVE that lost leaves the source alone");
    assert_eq!(["copy", "zeropage", "move"].map(|call| f.calls(call, "exists")), [1, 1, 1]);
}

#[test]
fn a_later_page_that_exists_makes_the_answer_partial() {
    let f = Fixture::new(Delivery::InPlace, false);
    let bytes = 3 * PAGE_BYTES;
    f.write(SOURCE, 8 * PAGE_BYTES, 5);
    f.register(0, REGION_BYTES);
    assert_eq!(f.zero(bytes, PAGE_BYTES), Install::Done);
    assert_eq!(f.copy(0, SOURCE, 8 * PAGE_BYTES), Install::Partial { bytes });
    assert!(f.has(0, bytes, 5));
    assert_eq!(f.copy(bytes, SOURCE, PAGE_BYTES), Install::Exists);
    let (second, source) = (4 * PAGE_BYTES, SOURCE + 4 * PAGE_BYTES);
    assert_eq!(f.zero(second + bytes, PAGE_BYTES), Install::Done);
    assert_eq!(f.move_pages(second, source, 4 * PAGE_BYTES), Install::Partial { bytes });
    assert!(f.is_zero(source, bytes), "what was done has left the source");
    assert_eq!((f.calls("copy", "partial"), f.calls("move", "partial")), (1, 1));
}

#[test]
fn what_is_not_registered_is_missing_and_nonsense_is_invalid() {
    let f = Fixture::new(Delivery::InPlace, false);
    f.write(SOURCE, PAGE_BYTES, 5);
    assert_eq!(f.copy(0, SOURCE, PAGE_BYTES), Install::Missing);
    assert_eq!(f.zero(0, PAGE_BYTES), Install::Missing);
    assert_eq!(f.move_pages(0, SOURCE, PAGE_BYTES), Install::Invalid);
    f.register(0, REGION_BYTES);
    assert_eq!(f.copy(8, SOURCE, PAGE_BYTES), Install::Invalid);
    assert_eq!(f.zero(0, 100), Install::Invalid);
    // The alias is inaccessible: it cannot be read, and differs from the window in its flags.
    assert_eq!(f.move_pages(0, WINDOW_BYTES, PAGE_BYTES), Install::Invalid);
    assert_eq!(f.copy(0, WINDOW_BYTES, PAGE_BYTES), Install::Invalid);
    assert!(f.service.register(f.to(8), PAGE_BYTES).is_err());
    assert_eq!(f.calls("register", "invalid"), 1);
}

/// Forks; the child ends at once.
fn fork_and_wait() {
    // SAFETY: the child only exits, by a call that is async-signal-safe.
    let child = unsafe {
        match libc::fork() {
            0 => libc::_exit(0),
            child => child,
        }
    };
    // SAFETY: waits for the child; no status is asked for.
    assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
}

#[test]
fn a_page_shared_with_a_forked_process_is_busy_and_can_be_copied() {
    // A fork shares every page of the process, those of the other tests too: this test has its own.
    if !child() {
        assert!(run_child("a_page_shared_with_a_forked_process_is_busy_and_can_be_copied").success());
        return;
    }
    let f = Fixture::new(Delivery::InPlace, false);
    f.write(SOURCE, PAGE_BYTES, 5);
    f.register(0, REGION_BYTES);
    // Windows are not inherited, so nothing is shared ..
    fork_and_wait();
    assert_eq!(f.move_pages(2 * PAGE_BYTES, SOURCE, PAGE_BYTES), Install::Done);
    // .. unless that is asked for.
    f.write(SOURCE, PAGE_BYTES, 5);
    // SAFETY: the fixture's own window; no contents are lost.
    assert_eq!(unsafe { libc::madvise(f.to(SOURCE).as_ptr(), WINDOW_BYTES, libc::MADV_DOFORK) }, 0);
    fork_and_wait();
    assert_eq!(f.move_pages(0, SOURCE, PAGE_BYTES), Install::Busy);
    assert_eq!(f.copy(0, SOURCE, PAGE_BYTES), Install::Done);
    assert!(f.has(0, PAGE_BYTES, 5));
    // Written again, the page is our own, and can be moved.
    f.write(SOURCE, PAGE_BYTES, 6);
    assert_eq!(f.move_pages(PAGE_BYTES, SOURCE, PAGE_BYTES), Install::Done);
    assert!(f.has(PAGE_BYTES, PAGE_BYTES, 6));
}

#[test]
fn a_region_is_taken_and_moved_back() {
    for huge in [false, true] {
        let f = Fixture::new(Delivery::InPlace, huge);
        let (region, alias) = (3 * REGION_BYTES, 3 * REGION_BYTES + WINDOW_BYTES);
        f.write(region, REGION_BYTES, 11);
        f.write(region + REGION_BYTES, PAGE_BYTES, 12);
        f.reservation.take(f.to(region), REGION_BYTES).unwrap();
        f.register(0, WINDOW_BYTES);
        assert!(f.has(alias, REGION_BYTES, 11), "the alias has the contents");
        assert!(f.has(region + REGION_BYTES, PAGE_BYTES, 12), "the neighbour stayed");
        assert_eq!(f.move_pages(region, alias, REGION_BYTES), Install::Done);
        assert!(f.has(region, REGION_BYTES, 11));
        assert!(f.is_zero(alias, REGION_BYTES));
        f.reservation.close_alias(f.to(region), REGION_BYTES).unwrap();
        assert_eq!(f.copy(0, alias, PAGE_BYTES), Install::Invalid, "a closed alias cannot be read");
        assert_eq!(f.calls("mremap", "done"), 1);
    }
}

#[test]
fn a_whole_window_is_taken_and_comes_back() {
    let f = Fixture::new(Delivery::InPlace, false);
    f.write(0, 16 * PAGE_BYTES, 1);
    f.write(WINDOW_BYTES - PAGE_BYTES, PAGE_BYTES, 2);
    f.reservation.take(f.to(0), WINDOW_BYTES).unwrap();
    f.register(0, WINDOW_BYTES);
    assert!(f.has(WINDOW_BYTES, 16 * PAGE_BYTES, 1));
    assert_eq!(f.move_pages(0, WINDOW_BYTES, WINDOW_BYTES), Install::Done);
    f.service.unregister(f.to(0), WINDOW_BYTES).unwrap();
    assert!(f.has(0, 16 * PAGE_BYTES, 1) && f.has(WINDOW_BYTES - PAGE_BYTES, PAGE_BYTES, 2));
    // A second time, over an alias that is still open.
    f.reservation.take(f.to(0), WINDOW_BYTES).unwrap();
    assert!(f.has(WINDOW_BYTES, 16 * PAGE_BYTES, 1) && f.is_zero(0, 16 * PAGE_BYTES));
}

#[test]
fn a_reservation_refuses_what_is_not_its_own() {
    let f = Fixture::new(Delivery::Pool, false);
    let end = 4 * WINDOW_BYTES;
    for result in [
        f.reservation.discard(f.base - PAGE_BYTES, PAGE_BYTES),
        f.reservation.discard(f.base + end - PAGE_BYTES, 2 * PAGE_BYTES),
        f.reservation.take(f.to(WINDOW_BYTES - PAGE_BYTES), 2 * PAGE_BYTES),
        f.reservation.take(f.to(WINDOW_BYTES), PAGE_BYTES),
        f.reservation.close_alias(f.to(WINDOW_BYTES), PAGE_BYTES),
        f.reservation.populate(f.to(end), PAGE_BYTES),
        f.reservation.open_window(WindowIndex(2), false),
    ] {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    assert!(Reservation::new(0).is_err() && Reservation::new(33).is_err());
}

#[test]
fn memory_is_populated_and_discarded() {
    let f = Fixture::new(Delivery::Pool, false);
    f.write(0, PAGE_BYTES, 3);
    f.reservation.populate(f.to(0), 4 * PAGE_BYTES).unwrap();
    assert!(f.has(0, PAGE_BYTES, 3) && f.is_zero(PAGE_BYTES, 3 * PAGE_BYTES));
    f.register(0, REGION_BYTES);
    assert_eq!(f.zero(3 * PAGE_BYTES, PAGE_BYTES), Install::Exists);
    f.reservation.discard(f.base, 4 * PAGE_BYTES).unwrap();
    assert_eq!(f.zero(0, 4 * PAGE_BYTES), Install::Done);
    assert!(f.is_zero(0, 4 * PAGE_BYTES));
}

#[test]
fn installing_leaves_errno_alone() {
    let f = Fixture::new(Delivery::InPlace, false);
    // SAFETY: returns this thread's own errno location, always valid.
    let errno = || unsafe { &mut *libc::__errno_location() };
    *errno() = 77;
    assert_eq!(f.copy(0, SOURCE, PAGE_BYTES), Install::Missing);
    assert_eq!(f.move_pages(0, 8, PAGE_BYTES), Install::Invalid);
    f.service.wake(f.to(8), 5);
    assert_eq!(*errno(), 77);
    assert_eq!(f.calls("wake", "invalid"), 1);
}

#[test]
fn a_full_descriptor_serves_system_calls() {
    let f = Fixture::new(Delivery::Pool, false);
    let (_receiver, sender) = io::pipe().unwrap();
    // SAFETY: writes from mapped memory, whose page is missing: that is the point.
    let write = |offset| unsafe { libc::write(sender.as_raw_fd(), f.to(offset).as_ptr(), 8) };
    f.register(REGION_BYTES, REGION_BYTES);
    let refused = write(REGION_BYTES);
    let user_mode_only = f.service.door() == strikeslip_gc::sys::uffd::Door::UserModeOnly;
    if user_mode_only {
        assert_eq!((refused, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EFAULT)));
    }
    // Needs a privilege; the refusal then names each door.
    let service = match Userfault::open_full(Delivery::Pool) {
        Ok(service) => Arc::new(service),
        Err(error) => return assert!(error.to_string().contains("/dev/userfaultfd"), "{error}"),
    };
    let reader = FaultReader::new(Arc::clone(&service)).unwrap();
    service.register(f.to(0), REGION_BYTES).unwrap();
    thread::scope(|scope| {
        let writing = scope.spawn(|| write(0));
        assert_eq!(reader.wait(&mut FaultBatch::new()).unwrap(), Waited::Faults);
        assert_eq!(service.zero(f.to(0), PAGE_BYTES), Install::Done);
        assert_eq!(writing.join().unwrap(), 8);
    });
}
