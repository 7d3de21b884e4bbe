//! SIGBUS: threads that block it, and others in the process that have a handler of their own or raise it. What
//! the collector's handler does by itself is tested in `kernel/signals.rs`.

use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use strikeslip_gc::geometry::PAGE_BYTES;
use strikeslip_gc::options::{Delivery, Mode};

use super::load::{heap_in, under_load, wait_until};
use crate::child::{in_child, is_child, run};
use crate::toy_embedder::Toy;
use crate::toy_embedder::graph::{Graph, Shape};

fn set_blocked(how: i32) {
    // SAFETY: all zero is a valid set; changes this thread's own mask.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGBUS);
        assert_eq!(libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut()), 0);
    }
}

/// Works on a thread that blocks SIGBUS, before it attaches or afterwards, until it had faults.
fn work_with_sigbus_blocked(toy: &Toy, afterwards: bool) {
    under_load(toy, 1, |_| {
        if !afterwards {
            set_blocked(libc::SIG_BLOCK);
        }
        let mutator = toy.attach();
        if afterwards {
            set_blocked(libc::SIG_BLOCK);
        }
        let shape = Shape { roots: 1000, live_bytes: 8 << 20, medium_one_in: 200, large_one_in: 0 };
        let mut graph = Graph::new(&mutator, 5, shape);
        let cycles = toy.heap.snapshot().counters.cycles;
        while toy.heap.snapshot().counters.cycles < cycles + 6 {
            for _ in 0..1000 {
                graph.step().expect("room");
                graph.roam();
            }
            graph.check();
        }
    });
}

#[test]
fn a_thread_that_blocked_sigbus_before_it_attached_is_served() {
    if !in_child("sigbus::a_thread_that_blocked_sigbus_before_it_attached_is_served") {
        return;
    }
    for mode in [Mode::ConcurrentMove, Mode::ConcurrentCopy] {
        work_with_sigbus_blocked(&heap_in(mode, Delivery::InPlace), false);
        work_with_sigbus_blocked(&heap_in(mode, Delivery::Pool), false);
    }
}

#[test]
fn delivery_by_pool_needs_no_signal() {
    if !in_child("sigbus::delivery_by_pool_needs_no_signal") {
        return;
    }
    work_with_sigbus_blocked(&heap_in(Mode::ConcurrentMove, Delivery::Pool), true);
}

#[test]
fn a_thread_that_blocks_sigbus_afterwards_is_ended_by_its_first_fault() {
    if is_child() {
        return work_with_sigbus_blocked(&heap_in(Mode::ConcurrentMove, Delivery::InPlace), true);
    }
    let output = run("sigbus::a_thread_that_blocks_sigbus_afterwards_is_ended_by_its_first_fault");
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{}", output.status);
}

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Sets a handler of somebody else's, and returns what was there.
fn set_handler(handler: Handler) -> libc::sigaction {
    // SAFETY: all zero is a valid structure; the handler has the type that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut before: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before), 0);
        before
    }
}

/// A page of a file that is too short for it.
static FOREIGN: AtomicUsize = AtomicUsize::new(0);
static FOREIGN_FAULTS: AtomicUsize = AtomicUsize::new(0);
static PASSED_ON: AtomicUsize = AtomicUsize::new(0);
/// The handler that was there before.
static BEFORE: AtomicUsize = AtomicUsize::new(0);

/// Puts a page where the file has none.
extern "C" fn repair(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: installed with SA_SIGINFO, so `info` is valid; replaces the test's own mapping.
    unsafe {
        let foreign = FOREIGN.load(Ordering::Relaxed);
        if (*info).si_addr() as usize != foreign {
            libc::_exit(98);
        }
        FOREIGN_FAULTS.fetch_add(1, Ordering::Relaxed);
        let at = std::ptr::without_provenance_mut(foreign);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        libc::mmap(at, PAGE_BYTES, libc::PROT_READ, flags, -1, 0);
    }
}

/// Passes everything on to who was there before.
extern "C" fn pass_on(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    PASSED_ON.fetch_add(1, Ordering::Relaxed);
    // SAFETY: what was there before is the collector's handler, which has this type.
    let before = unsafe { std::mem::transmute::<usize, Handler>(BEFORE.load(Ordering::Relaxed)) };
    before(signal, info, context);
}

/// Keeps everything.
extern "C" fn keep(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: is async-signal-safe.
    unsafe { libc::_exit(99) };
}

/// Reads a page that its file does not have any more: 0 if a handler has put one there.
fn touch_a_truncated_file() -> u8 {
    let path = std::env::temp_dir().join(format!("strikeslip-outside-test-{}", std::process::id()));
    let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = file.expect("a file");
    std::fs::remove_file(&path).expect("removed");
    file.set_len(PAGE_BYTES as u64).expect("a page");
    // SAFETY: a new mapping, where the kernel chooses, of a file; unmapped below.
    unsafe {
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        let mapped = libc::mmap(std::ptr::null_mut(), PAGE_BYTES, protection, flags, file.as_raw_fd(), 0);
        assert_ne!(mapped, libc::MAP_FAILED);
        file.set_len(0).expect("truncated");
        FOREIGN.store(mapped.addr(), Ordering::Relaxed);
        let byte = mapped.cast::<u8>().read_volatile();
        libc::munmap(mapped, PAGE_BYTES);
        byte
    }
}

#[test]
fn a_fault_of_somebody_elses_goes_to_the_handler_before() {
    if !in_child("sigbus::a_fault_of_somebody_elses_goes_to_the_handler_before") {
        return;
    }
    set_handler(repair);
    let toy = heap_in(Mode::ConcurrentMove, Delivery::InPlace);
    under_load(&toy, 2, |_| {
        for _ in 0..200 {
            assert_eq!(touch_a_truncated_file(), 0);
        }
    });
    assert_eq!(FOREIGN_FAULTS.load(Ordering::Relaxed), 200);
}

#[test]
fn a_fault_of_nobodys_ends_the_process() {
    if is_child() {
        let toy = heap_in(Mode::ConcurrentMove, Delivery::InPlace);
        under_load(&toy, 2, |_| {
            touch_a_truncated_file();
        });
        return;
    }
    let output = run("sigbus::a_fault_of_nobodys_ends_the_process");
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{}", output.status);
}

#[test]
fn a_later_handler_that_passes_on_harms_nobody() {
    if !in_child("sigbus::a_later_handler_that_passes_on_harms_nobody") {
        return;
    }
    let toy = heap_in(Mode::ConcurrentMove, Delivery::InPlace);
    let before = set_handler(pass_on);
    BEFORE.store(before.sa_sigaction, Ordering::Relaxed);
    assert!(!strikeslip_gc::sys::sigbus::is_installed());
    let counters = under_load(&toy, 2, |_| {
        wait_until("signals", || PASSED_ON.load(Ordering::Relaxed) > 100);
    });
    assert!(counters.mutator_faults > 100);
    // The next heap finds a handler that is not its own, which passes on to ours: to itself in the end.
    drop(toy);
    let toy = heap_in(Mode::ConcurrentMove, Delivery::InPlace);
    under_load(&toy, 2, |_| {});
}

#[test]
fn a_later_handler_that_keeps_everything_gets_our_faults() {
    if is_child() {
        let toy = heap_in(Mode::ConcurrentMove, Delivery::InPlace);
        set_handler(keep);
        under_load(&toy, 2, |_| {});
        return;
    }
    let output = run("sigbus::a_later_handler_that_keeps_everything_gets_our_faults");
    assert_eq!(output.status.code(), Some(99), "its handler, no wrong contents: {}", output.status);
}
