//! Signals at a high rate, a process that is stopped again and again, threads that come and go.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::load::{CONCURRENT, heap_in, under_load, wait_until};
use crate::child::{in_child, is_child, start};
use crate::toy_embedder::graph::{Graph, Shape};

static RESTARTING: AtomicU64 = AtomicU64::new(0);
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);
static TICKS: AtomicU64 = AtomicU64::new(0);

extern "C" fn restarting(_: i32) {
    RESTARTING.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn interrupting(_: i32) {
    INTERRUPTING.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn tick(_: i32) {
    TICKS.fetch_add(1, Ordering::Relaxed);
}

fn set_handler(signal: i32, handler: extern "C" fn(i32), flags: i32) {
    // SAFETY: all zero is a valid structure; the handler has the type that these flags ask for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

/// A timer's signal for the process, every 200 µs; 0 turns it off.
fn set_timer(microseconds: libc::suseconds_t) {
    let every = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: takes a structure that is alive during the call.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
}

#[test]
fn signals_at_a_high_rate_disturb_no_fault() {
    if !in_child("storms::signals_at_a_high_rate_disturb_no_fault") {
        return;
    }
    set_handler(libc::SIGUSR1, interrupting, 0);
    set_handler(libc::SIGUSR2, restarting, libc::SA_RESTART);
    set_handler(libc::SIGALRM, tick, 0);
    for (mode, delivery) in CONCURRENT {
        let toy = heap_in(mode, delivery);
        let sent = AtomicU64::new(0);
        set_timer(200);
        under_load(&toy, 2, |load| {
            let cycles = toy.heap.snapshot().counters.cycles;
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(600)
                || toy.heap.snapshot().counters.cycles < cycles + 5
            {
                for thread in load.threads() {
                    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
                        // SAFETY: takes values only; the threads live until this function returns.
                        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        set_timer(0);
        assert!(sent.load(Ordering::Relaxed) > 1000, "{sent:?} signals");
    }
    let handled = [&RESTARTING, &INTERRUPTING, &TICKS].map(|count| count.load(Ordering::Relaxed));
    assert!(handled.iter().all(|&count| count > 1000), "{handled:?}");
}

#[test]
fn threads_come_and_go() {
    for (mode, delivery) in CONCURRENT {
        let toy = heap_in(mode, delivery);
        let came = AtomicU64::new(0);
        under_load(&toy, 1, |_| {
            let cycles = toy.heap.snapshot().counters.cycles;
            let come_and_go = |seed: u64| {
                let mutator = toy.attach();
                let shape = Shape { roots: 600, live_bytes: 1 << 20, medium_one_in: 50, large_one_in: 0 };
                let mut graph = Graph::new(&mutator, seed, shape);
                (0..seed % 400).for_each(|_| graph.step().expect("room"));
                graph.check();
                came.fetch_add(1, Ordering::Relaxed);
            };
            let enough =
                || came.load(Ordering::Relaxed) > 150 && toy.heap.snapshot().counters.cycles > cycles + 5;
            std::thread::scope(|scope| {
                for first in 0..3 {
                    let (come_and_go, enough) = (&come_and_go, &enough);
                    scope.spawn(move || {
                        for seed in (first..).step_by(3) {
                            std::thread::scope(|scope| _ = scope.spawn(|| come_and_go(seed)));
                            if enough() {
                                return;
                            }
                        }
                    });
                }
            });
        });
    }
}

/// The child works until told to end; its check is its graphs'.
fn work_until_told() {
    for (mode, delivery) in CONCURRENT {
        let toy = heap_in(mode, delivery);
        under_load(&toy, 2, |_| {
            println!("working");
            assert!(std::io::stdin().lines().next().is_some_and(|line| line.is_ok()), "the parent lives");
        });
    }
}

#[test]
fn a_process_that_is_stopped_in_cycles_goes_on() {
    if is_child() {
        return work_until_told();
    }
    let mut child = start("storms::a_process_that_is_stopped_in_cycles_goes_on");
    let id = child.id() as i32;
    let mut input = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    for _ in CONCURRENT {
        assert!(lines.any(|line| line.contains("working")), "the child does not begin");
        for nth in 0..20 {
            let mut status = 0;
            // SAFETY: takes values, and writes the status; a stopped child is not reaped by this.
            unsafe {
                assert_eq!(libc::kill(id, libc::SIGSTOP), 0);
                assert_eq!(libc::waitpid(id, &raw mut status, libc::WUNTRACED), id);
            }
            assert!(libc::WIFSTOPPED(status), "status {status:#x}");
            std::thread::sleep(Duration::from_millis(nth % 8));
            // SAFETY: takes values only.
            assert_eq!(unsafe { libc::kill(id, libc::SIGCONT) }, 0);
            std::thread::sleep(Duration::from_millis(7 + nth % 11));
        }
        std::io::Write::write_all(&mut input, b"end\n").expect("the child lives");
    }
    assert!(lines.any(|line| line.contains("1 passed")), "the child fails");
    wait_until("the child's end", || child.try_wait().expect("a status").is_some());
    assert!(child.wait().expect("a status").success());
}
