//! Faults in place and the chaining of SIGBUS. A process has one disposition of a signal, so each
//! test that installs or replaces a handler runs in a child process of its own.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::child_process::deny_userfaultfd;

/// Serves a fixture's window in place: each page gets its copy at `SOURCE`.
struct Server {
    fixture: Fixture,
    faults: AtomicUsize,
}

/// # Safety
/// `context` is a `Server`.
unsafe fn serve(context: *const (), address: usize) -> bool {
    // SAFETY: as the caller promises.
    let server = unsafe { &*context.cast::<Server>() };
    server.faults.fetch_add(1, Ordering::Relaxed);
    let page = address & !(PAGE_BYTES - 1);
    let offset = page - server.fixture.base;
    let from = server.fixture.from(SOURCE + offset);
    matches!(
        server.fixture.service.copy(ToAddress::new(page), from, PAGE_BYTES),
        Install::Done | Install::Exists
    )
}

fn server() -> Server {
    Server { fixture: Fixture::new(Delivery::InPlace, false), faults: AtomicUsize::new(0) }
}

fn install(server: &Server) -> sigbus::Registration {
    let context = std::ptr::from_ref(server).cast();
    // SAFETY: `serve` only makes a system call and adds to a counter; each test drops the
    // registration before the server, or ends its process.
    unsafe { sigbus::install_range(server.fixture.base, WINDOW_BYTES, serve, context).unwrap() }
}

fn set_handler(handler: usize, flags: i32) {
    // SAFETY: all zero is a valid structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    // SAFETY: the handler has the type that the flags ask for.
    assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) }, 0);
}

fn handler() -> usize {
    // SAFETY: all zero is a valid structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only reads the disposition.
    assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut action) }, 0);
    action.sa_sigaction
}

/// An access that is a SIGBUS of somebody else's: a mapped file that has no such page.
fn touch_beyond_a_file() -> u8 {
    let file = std::env::temp_dir().join(format!("strikeslip-kernel-test-{}", std::process::id()));
    let mapped = map_empty_file(&file);
    // SAFETY: mapped, but beyond the file's end: the access raises SIGBUS. A handler puts a page there.
    unsafe { mapped.read_volatile() }
}

fn map_empty_file(path: &Path) -> *mut u8 {
    let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
    std::fs::remove_file(path).unwrap();
    let descriptor = file.as_raw_fd();
    // SAFETY: a new mapping, where the kernel chooses.
    let mapped = unsafe {
        libc::mmap(std::ptr::null_mut(), PAGE_BYTES, libc::PROT_READ, libc::MAP_SHARED, descriptor, 0)
    };
    assert_ne!(mapped, libc::MAP_FAILED);
    FOREIGN.store(mapped.addr(), Ordering::Relaxed);
    mapped.cast()
}

static FOREIGN: AtomicUsize = AtomicUsize::new(0);
static CHAINED: AtomicUsize = AtomicUsize::new(0);
static BLOCKED: AtomicBool = AtomicBool::new(false);

/// The previous handler of the chaining tests: maps a page, so that the access succeeds.
extern "C" fn previous(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the handler was installed with SA_SIGINFO, so `info` is valid and has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    if signal == libc::SIGBUS && address == FOREIGN.load(Ordering::Relaxed) {
        plain(signal);
    }
}

extern "C" fn plain(_: i32) {
    CHAINED.fetch_add(1, Ordering::Relaxed);
    BLOCKED.store(sigbus::unblock_current_thread(), Ordering::Relaxed);
    let at = std::ptr::with_exposed_provenance_mut(FOREIGN.load(Ordering::Relaxed));
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: replaces the test's own mapping of an empty file.
    unsafe { libc::mmap(at, PAGE_BYTES, libc::PROT_READ, flags, -1, 0) };
}

#[test]
fn a_fault_is_served_in_place() {
    if !child() {
        assert!(run_child("signals::a_fault_is_served_in_place").success());
        return;
    }
    let before = handler();
    let server = server();
    let f = &server.fixture;
    f.write(SOURCE, 64 * PAGE_BYTES, 21);
    let registration = install(&server);
    assert!(sigbus::is_installed());
    f.register(0, WINDOW_BYTES);
    // Blocked, the signal would kill the process; unblocked, it is served, on each thread.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(f.has(0, 64 * PAGE_BYTES, 21)));
        }
    });
    let faults = server.faults.load(Ordering::Relaxed);
    assert!(faults >= 64, "{faults} faults");
    assert_eq!(f.calls("copy", "done"), 64);
    assert_eq!(f.calls("copy", "exists"), faults as u64 - 64);
    drop(registration);
    assert!(!sigbus::is_installed());
    assert_eq!(handler(), before, "the previous handler is back");
}

#[test]
fn a_fault_leaves_errno_and_the_mask_alone() {
    if !child() {
        assert!(run_child("signals::a_fault_leaves_errno_and_the_mask_alone").success());
        return;
    }
    let server = server();
    let registration = install(&server);
    server.fixture.register(0, WINDOW_BYTES);
    server.fixture.write(SOURCE, PAGE_BYTES, 9);
    // SAFETY: all zero is a valid set; blocks a signal in this thread.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut set, libc::SIGBUS);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    assert!(sigbus::unblock_current_thread(), "it was blocked");
    assert!(!sigbus::unblock_current_thread(), "it is not any more");
    // SAFETY: returns this thread's own errno location, always valid.
    let errno = || unsafe { &mut *libc::__errno_location() };
    *errno() = 77;
    let word = server.fixture.word(8).load(Ordering::Relaxed);
    let after = *errno();
    assert_eq!((word, after), (17, 77));
    assert_eq!(server.faults.load(Ordering::Relaxed), 1);
    drop(registration);
}

#[test]
fn another_fault_goes_to_the_previous_handler() {
    if !child() {
        assert!(run_child("signals::another_fault_goes_to_the_previous_handler").success());
        return;
    }
    type Full = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
    let kinds = [
        (previous as Full as usize, libc::SA_SIGINFO, true),
        (plain as extern "C" fn(i32) as usize, 0, true),
        (previous as Full as usize, libc::SA_SIGINFO | libc::SA_NODEFER, false),
    ];
    for (round, (function, flags, blocks)) in kinds.into_iter().enumerate() {
        set_handler(function, flags);
        let server = server();
        let registration = install(&server);
        assert_eq!(touch_beyond_a_file(), 0);
        assert_eq!(CHAINED.load(Ordering::Relaxed), round + 1);
        assert_eq!(BLOCKED.load(Ordering::Relaxed), blocks, "SIGBUS in the previous handler's mask");
        assert_eq!(server.faults.load(Ordering::Relaxed), 0);
        // Ours are still served afterwards.
        server.fixture.write(SOURCE, PAGE_BYTES, 9);
        server.fixture.register(0, WINDOW_BYTES);
        assert!(server.fixture.has(0, PAGE_BYTES, 9));
        drop(registration);
        assert_eq!(handler(), function);
    }
}

#[test]
fn a_previous_handler_for_one_signal_is_called_once() {
    if !child() {
        let status = run_child("signals::a_previous_handler_for_one_signal_is_called_once");
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
        return;
    }
    set_handler(plain as extern "C" fn(i32) as usize, libc::SA_RESETHAND);
    let server = server();
    let _registration = install(&server);
    touch_beyond_a_file();
    assert_eq!(CHAINED.load(Ordering::Relaxed), 1);
    touch_beyond_a_file();
    unreachable!("the second fault ends the process");
}

#[test]
fn without_a_previous_handler_another_fault_ends_the_process() {
    if !child() {
        let status = run_child("signals::without_a_previous_handler_another_fault_ends_the_process");
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
        return;
    }
    set_handler(libc::SIG_DFL, 0);
    let server = server();
    let _registration = install(&server);
    touch_beyond_a_file();
    unreachable!("the fault ends the process");
}

#[test]
fn a_sent_signal_ends_the_process_unless_it_was_ignored() {
    if !child() {
        let status = run_child("signals::a_sent_signal_ends_the_process_unless_it_was_ignored");
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
        return;
    }
    set_handler(libc::SIG_IGN, 0);
    let (one, other) = (server(), server());
    let registration = install(&one);
    // SAFETY: sends a signal to this thread.
    assert_eq!(unsafe { libc::raise(libc::SIGBUS) }, 0);
    drop(registration);
    assert_eq!(handler(), libc::SIG_IGN);
    set_handler(libc::SIG_DFL, 0);
    let _registration = install(&other);
    // SAFETY: as above.
    unsafe { libc::raise(libc::SIGBUS) };
    unreachable!("the signal ends the process");
}

/// # Safety
/// None: uses nothing.
unsafe fn refuse(_: *const (), _: usize) -> bool {
    false
}

#[test]
fn a_fault_that_nobody_serves_ends_the_process() {
    if !child() {
        let status = run_child("signals::a_fault_that_nobody_serves_ends_the_process");
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
        return;
    }
    let f = Fixture::new(Delivery::InPlace, false);
    // SAFETY: the function does nothing.
    let _registration =
        unsafe { sigbus::install_range(f.base, WINDOW_BYTES, refuse, std::ptr::null()).unwrap() };
    f.register(0, REGION_BYTES);
    f.word(0).load(Ordering::Relaxed);
    unreachable!("the fault ends the process");
}

#[test]
fn the_table_of_ranges_has_an_end_and_entries_are_reused() {
    if !child() {
        assert!(run_child("signals::the_table_of_ranges_has_an_end_and_entries_are_reused").success());
        return;
    }
    // SAFETY: the function does nothing.
    let one = |start| unsafe { sigbus::install_range(start, PAGE_BYTES, refuse, std::ptr::null()) };
    for _ in 0..3 {
        let all: Vec<_> = (1..=64).map(|page| one(page * PAGE_BYTES).unwrap()).collect();
        assert!(matches!(one(0), Err(sigbus::InstallError::Full)));
        drop(all);
    }
}

/// A handler that stays inside until it is let go.
struct Slow {
    fixture: Fixture,
    entered: AtomicBool,
    released: AtomicBool,
}

/// # Safety
/// `context` is a `Slow`.
unsafe fn serve_slowly(context: *const (), _: usize) -> bool {
    // SAFETY: as the caller promises.
    let slow = unsafe { &*context.cast::<Slow>() };
    // Both pair with the other side's in the test below.
    slow.entered.store(true, Ordering::Release);
    while !slow.released.load(Ordering::Acquire) {
        std::hint::spin_loop();
    }
    slow.fixture.zero(0, PAGE_BYTES) == Install::Done
}

#[test]
fn removing_a_range_waits_for_the_handlers_inside() {
    if !child() {
        assert!(run_child("signals::removing_a_range_waits_for_the_handlers_inside").success());
        return;
    }
    let fixture = Fixture::new(Delivery::InPlace, false);
    let slow = Slow { fixture, entered: AtomicBool::new(false), released: AtomicBool::new(false) };
    slow.fixture.register(0, REGION_BYTES);
    let context = std::ptr::from_ref(&slow).cast();
    // SAFETY: the function only waits and makes a system call; dropped before `slow`.
    let registration =
        unsafe { sigbus::install_range(slow.fixture.base, REGION_BYTES, serve_slowly, context).unwrap() };
    thread::scope(|scope| {
        let touching = scope.spawn(|| slow.fixture.word(0).load(Ordering::Relaxed));
        while !slow.entered.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let removing = scope.spawn(|| drop(registration));
        thread::sleep(Duration::from_millis(20));
        assert!(!removing.is_finished(), "a handler is inside");
        slow.released.store(true, Ordering::Release);
        removing.join().unwrap();
        assert_eq!(touching.join().unwrap(), 0);
    });
    assert_eq!(slow.fixture.calls("zeropage", "done"), 1);
}

#[test]
fn a_handler_that_was_replaced_is_noticed() {
    if !child() {
        assert!(run_child("signals::a_handler_that_was_replaced_is_noticed").success());
        return;
    }
    let server = server();
    let registration = install(&server);
    assert!(sigbus::is_installed());
    set_handler(plain as extern "C" fn(i32) as usize, 0);
    assert!(!sigbus::is_installed());
    drop(registration);
    assert_eq!(handler(), plain as extern "C" fn(i32) as usize, "the other library's handler stays");
}

#[test]
fn a_probe_finds_what_works_and_leaves_nothing_behind() {
    if !child() {
        assert!(run_child("signals::a_probe_finds_what_works_and_leaves_nothing_behind").success());
        return;
    }
    let _first = probe::probe();
    let before = (handler(), open_files(), mappings());
    let found = probe::probe();
    assert_eq!((handler(), open_files()), (before.0, before.1));
    assert!(mappings() <= before.2 + 2, "{} mappings before, {} after", before.2, mappings());
    found.delivery(Delivery::InPlace).unwrap();
    found.delivery(Delivery::Pool).unwrap();
    assert!(found.take.is_ok(), "{found}");
    assert!(found.doors.iter().any(|door| door.finding.is_ok()), "{found}");
    assert_eq!(found.moves().is_ok(), found.features.unwrap() >> 16 & 1 == 1, "{found}");
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn a_probe_survives_a_denied_userfaultfd() {
    if !child() {
        assert!(run_child("signals::a_probe_survives_a_denied_userfaultfd").success());
        return;
    }
    for errno in [libc::ENOSYS, libc::EPERM] {
        let probed = thread::spawn(move || {
            deny_userfaultfd(errno);
            (probe::probe(), Userfault::open(Delivery::InPlace))
        });
        let (found, opened) = probed.join().unwrap();
        assert!(found.doors.iter().all(|door| door.finding.is_err()), "{found}");
        assert!(found.delivery(Delivery::InPlace).unwrap_err().contains("denied"), "{found}");
        assert!(found.delivery(Delivery::Pool).is_err() && found.moves().is_err(), "{found}");
        assert!(found.take.is_ok(), "{found}");
        let reason = opened.unwrap_err().to_string();
        assert!(reason.contains("USER_MODE_ONLY") && reason.contains("/dev/userfaultfd"), "{reason}");
    }
}
