//! Forks while the collector works: in each phase, from the controller and from other threads.
//!
//! Windows are not inherited: a child has no heap, and nothing of the parent's heap is shared with it.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use strikeslip_gc::events::{Listener, Phase};
use strikeslip_gc::options::{Delivery, Mode};

use super::load::{CONCURRENT, PATIENCE, calls, heap_in, under_load, wait_until};
use crate::child::in_child;
use crate::toy_embedder::layouts;

/// What a child process does.
#[derive(Copy, Clone, Debug)]
enum Fate {
    Exits,
    Continues,
    Executes,
}

/// Forks; the child does what it should, by calls that are async-signal-safe, and ends with 0.
fn fork(fate: Fate) -> i32 {
    let program = CString::new("/bin/true").expect("no zero inside");
    let arguments = [program.as_ptr(), std::ptr::null()];
    let nap = libc::timespec { tv_sec: 0, tv_nsec: 30_000_000 };
    // SAFETY: the child makes async-signal-safe calls only, on memory that is its own copy.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            match fate {
                Fate::Exits => {}
                Fate::Continues => {
                    libc::nanosleep(&raw const nap, std::ptr::null_mut());
                }
                Fate::Executes => {
                    libc::execv(program.as_ptr(), arguments.as_ptr());
                    libc::_exit(1);
                }
            }
            libc::_exit(0);
        }
        assert!(child > 0, "{}", std::io::Error::last_os_error());
        child
    }
}

/// How a child ended.
fn status_of(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: waits for a child of this process's, and writes its status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

/// All phases that a heap without verification has.
const PHASES: [Phase; 7] =
    [Phase::Start, Phase::Mark, Phase::Weak, Phase::Plan, Phase::Flip, Phase::Serve, Phase::Reclaim];

/// Those that other threads wait for.
const LONG_PHASES: [Phase; 4] = [Phase::Mark, Phase::Plan, Phase::Flip, Phase::Serve];

/// Forks on the controller's thread, where a phase begins, and tells the other threads the phase.
#[derive(Debug)]
struct Forker {
    phase: AtomicUsize,
    forked: [AtomicU64; Phase::ALL.len()],
}

impl Listener for Forker {
    fn phase_started(&self, phase: Phase) {
        self.phase.store(phase as usize, Ordering::Relaxed);
        // A few in each phase: a fork stops everybody for some milliseconds.
        if self.forked[phase as usize].fetch_add(1, Ordering::Relaxed) < 6 {
            assert_eq!(status_of(fork(Fate::Exits)), 0);
        }
    }
}

#[test]
fn forks_in_each_phase_leave_the_parent_right() {
    if !in_child("forks::forks_in_each_phase_leave_the_parent_right") {
        return;
    }
    for (mode, delivery) in CONCURRENT {
        let toy = heap_in(mode, delivery);
        let phase = AtomicUsize::new(usize::MAX);
        let forker = Arc::new(Forker { phase, forked: Default::default() });
        toy.heap.add_listener(forker.clone());
        let from_others: [AtomicU64; Phase::ALL.len()] = Default::default();
        under_load(&toy, 2, |_| {
            std::thread::scope(|scope| {
                for first in 0..2 {
                    let (forker, from_others) = (&forker, &from_others);
                    scope.spawn(move || {
                        let fates = [Fate::Exits, Fate::Continues, Fate::Executes];
                        for nth in 0..24 {
                            let wanted = LONG_PHASES[(nth / 3 + first) % 4] as usize;
                            // Some phases are short: no nap.
                            let begin = Instant::now();
                            while forker.phase.load(Ordering::Relaxed) != wanted {
                                assert!(begin.elapsed() < PATIENCE, "no phase {wanted}");
                                std::thread::yield_now();
                            }
                            assert_eq!(status_of(fork(fates[nth % 3])), 0);
                            from_others[wanted].fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
        });
        for phase in PHASES {
            let [by_controller, by_others] =
                [&forker.forked, &from_others].map(|all| all[phase as usize].load(Ordering::Relaxed));
            let others_too = !LONG_PHASES.contains(&phase) || by_others > 0;
            assert!(by_controller > 0 && others_too, "{phase:?}: {by_controller}, {by_others}");
        }
    }
}

#[test]
fn pages_are_moved_while_a_child_lives() {
    if !in_child("forks::pages_are_moved_while_a_child_lives") {
        return;
    }
    let toy = heap_in(Mode::ConcurrentMove, Delivery::InPlace);
    under_load(&toy, 2, |_| {
        let counters = || toy.heap.snapshot().counters;
        let answers = || ["done", "busy"].map(|answer| calls(&toy, "move", answer));
        let (begin, before) = (counters(), answers());
        let mut children = vec![];
        // Each shares what is there when it is started, if anything is shared.
        for nth in 1..=12 {
            // SAFETY: the child waits to be killed.
            children.push(unsafe {
                match libc::fork() {
                    0 => loop {
                        libc::pause();
                    },
                    child => child,
                }
            });
            wait_until("a cycle", || counters().cycles >= begin.cycles + nth);
        }
        let [done, busy] = [0, 1].map(|nth| answers()[nth] - before[nth]);
        for child in children {
            // SAFETY: ends a child that was started here.
            assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
            status_of(child);
        }
        assert!(done > 0 && counters().moved_bytes > begin.moved_bytes, "{done} MOVEs");
        println!("{busy} MOVEs of busy pages, {done} others");
        // A page is said to be busy now and then in any case.
        assert!(busy * 20 < done, "{busy} MOVEs of busy pages, {done} others");
    });
}

/// The child's access ends in SIGSEGV, be the page there or missing in the parent, and whatever the delivery.
#[test]
fn a_child_that_touches_the_heap_ends() {
    if !in_child("forks::a_child_that_touches_the_heap_ends") {
        return;
    }
    for (mode, delivery) in CONCURRENT {
        let toy = heap_in(mode, delivery);
        let mutator = toy.attach();
        let object = mutator.alloc(layouts().data, 100).expect("room");
        mutator.set(object, 7, 77);
        mutator.set_root(0, Some(object));
        mutator.blocked(|| {
            under_load(&toy, 1, |_| {
                for _ in 0..5 {
                    // SAFETY: the child reads an address that it has not mapped, with no handler but the
                    // default one, and ends by a call that is async-signal-safe if it survives.
                    let child = unsafe {
                        match libc::fork() {
                            0 => {
                                libc::signal(libc::SIGSEGV, libc::SIG_DFL);
                                let word = object.as_ptr::<u64>().add(7).read_volatile();
                                libc::_exit(if word == 77 { 1 } else { 2 });
                            }
                            child => child,
                        }
                    };
                    let status = status_of(child);
                    let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
                    assert_eq!(signal, Some(libc::SIGSEGV), "{mode}, {delivery}: status {status:#x}");
                }
            })
        });
        assert_eq!(mutator.get(mutator.root(0).expect("still there"), 7), 77);
    }
}

#[test]
fn a_child_may_drop_the_heap() {
    if !in_child("forks::a_child_may_drop_the_heap") {
        return;
    }
    for (mode, delivery) in CONCURRENT {
        let toy = heap_in(mode, delivery);
        assert!(!toy.heap.is_inherited());
        under_load(&toy, 1, |_| {});
        // SAFETY: the other threads are the collector's, idle; they hold no lock that dropping needs. The
        // alarm ends a child that waits for them.
        let child = unsafe {
            match libc::fork() {
                0 => {
                    libc::alarm(20);
                    let inherited = toy.heap.is_inherited();
                    drop(toy);
                    libc::_exit(i32::from(!inherited));
                }
                child => child,
            }
        };
        assert_eq!(status_of(child), 0);
        under_load(&toy, 1, |_| {});
    }
}
