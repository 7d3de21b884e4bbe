//! What comes from outside and concerns the safe layer: threads that panic or vanish, a mutator that never
//! reaches a safepoint, forks with open scopes.

#[path = "../../gc/tests/child/mod.rs"]
mod child;
mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use child::{in_child, is_child, run};
use common::{all_modes, check_list, list, options};
use strikeslip::{Heap, HeapOptions, Mutator, Scope};

const PATIENCE: Duration = Duration::from_secs(40);

fn heaps() -> impl Iterator<Item = Heap> {
    let modes = all_modes().into_iter().filter(|(mode, _)| mode.is_concurrent());
    modes.map(|(mode, delivery)| {
        let asked = HeapOptions { mode, delivery, fall_back: false, ..options() };
        Heap::new(asked).expect("a heap")
    })
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Opens scopes inside each other, each with a list, and panics in the innermost one.
fn panic_at_depth(m: &mut Mutator, s: &Scope<'_>, depth: u64) {
    let list = list(m, s, 50 + depth).expect("room");
    m.safepoint();
    if depth == 0 {
        panic!("as intended");
    }
    m.scope(|m, inner| panic_at_depth(m, inner, depth - 1));
    check_list(list.get(m), 50 + depth);
}

/// A panic closes the scopes that it passes: the same mutator goes on, and what its outer scopes hold is right.
#[test]
fn panics_in_scopes_under_collections_harm_nobody() {
    if !in_child("panics_in_scopes_under_collections_harm_nobody") {
        return;
    }
    // Thousands of panics, all of them intended but those that a thread ends with.
    std::panic::set_hook(Box::new(|panic| {
        if panic.payload_as_str() != Some("as intended") {
            eprintln!("{panic}");
        }
    }));
    for heap in heaps() {
        let (ended, panics) = (AtomicBool::new(false), AtomicU64::new(0));
        let work = |seed: u64| {
            heap.attach(|m| {
                m.scope(|m, s| {
                    let kept = list(m, s, 2000).expect("room");
                    while !ended.load(Ordering::Relaxed) {
                        let depth = panics.load(Ordering::Relaxed) % 7 + seed;
                        let panicked = catch_unwind(AssertUnwindSafe(|| {
                            m.scope(|m, inner| panic_at_depth(m, inner, depth));
                        }));
                        assert!(panicked.is_err());
                        panics.fetch_add(1, Ordering::Relaxed);
                        check_list(kept.get(m), 2000);
                    }
                });
            })
            .expect("attached once");
        };
        std::thread::scope(|threads| {
            (0..2).for_each(|seed| _ = threads.spawn(move || work(seed)));
            threads.spawn(|| {
                let everything = strikeslip::gc::plan::Pressure::Everything;
                while !ended.load(Ordering::Relaxed) {
                    heap.collector().collect_with(everything);
                }
            });
            let counters = || heap.snapshot().counters;
            wait_until("cycles, faults and panics", || {
                let counters = counters();
                counters.cycles > 20 && counters.mutator_faults > 0 && panics.load(Ordering::Relaxed) > 500
            });
            ended.store(true, Ordering::Relaxed);
        });
    }
}

/// The line that the watchdog writes if nobody set another callback.
#[test]
fn the_watchdog_writes_a_line() {
    let name = "never at a safepoint";
    if is_child() {
        let heap = Heap::new(HeapOptions { watchdog_ms: 30, ..options() }).expect("a heap");
        let (attached, collected) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|threads| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(threads, || {
                heap.attach(|_| {
                    attached.store(true, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(150));
                    assert!(!collected.load(Ordering::Relaxed), "a collection waits for all mutators");
                })
                .expect("attached once");
            });
            thread.expect("a thread");
            wait_until("the mutator", || attached.load(Ordering::Relaxed));
            heap.collect();
            collected.store(true, Ordering::Relaxed);
        });
        return;
    }
    let output = run("the_watchdog_writes_a_line");
    assert!(output.status.success());
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = complained.lines().find(|line| line.starts_with("strikeslip: ")).expect("a line");
    assert!(line.starts_with(&format!("strikeslip: mutator '{name}' (")), "{line}");
    assert!(line.contains("has not reached a safepoint for "), "{line}");
}

/// A thread that the system ends inside `attach`, which only unsafe code can do: no guard runs, and the next
/// collection waits for it for ever. The watchdog says for whom.
#[test]
fn a_thread_that_vanishes_is_named() {
    if !in_child("a_thread_that_vanishes_is_named") {
        return;
    }
    let heap = Heap::new(HeapOptions { watchdog_ms: 50, ..options() }).expect("a heap");
    let named = Arc::new(Mutex::new(None));
    heap.set_watchdog({
        let named = Arc::clone(&named);
        move |late| *named.lock().expect("no panic") = Some(late.clone())
    });
    let attached = Arc::new(AtomicBool::new(false));
    let vanishing = std::thread::Builder::new().name("vanished".to_owned()).spawn({
        let (heap, attached) = (heap.clone(), Arc::clone(&attached));
        move || {
            heap.attach(|m| {
                m.scope(|m, s| {
                    let _kept = list(m, s, 100).expect("room");
                    attached.store(true, Ordering::Relaxed);
                    // SAFETY: ends this thread, as if the system had; the process ends soon.
                    unsafe { libc::syscall(libc::SYS_exit, 0) };
                });
            })
        }
    });
    let vanishing = vanishing.expect("a thread");
    wait_until("the thread's end", || {
        attached.load(Ordering::Relaxed) && task_names().iter().all(|name| name != "vanished")
    });
    let collecting = std::thread::spawn({
        let heap = heap.clone();
        move || heap.collect()
    });
    wait_until("the watchdog", || named.lock().expect("no panic").is_some());
    let late = named.lock().expect("no panic").clone().expect("just seen");
    assert_eq!(late.name.as_deref(), Some("vanished"), "{late}");
    std::thread::sleep(Duration::from_millis(100));
    assert!(!collecting.is_finished(), "a mutator's context is not used before it is given up");
    // Neither thread nor heap can end in order: the process ends with them.
    std::mem::forget((heap, collecting, vanishing));
}

/// Names of this process's threads.
fn task_names() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

/// A child that ends by `_exit` inside open scopes, and one that drops a heap outside of them.
#[test]
fn forked_children_leave_the_heap_alone() {
    if !in_child("forked_children_leave_the_heap_alone") {
        return;
    }
    for heap in heaps() {
        let fork = |child_does: &mut dyn FnMut()| {
            // SAFETY: no other thread holds a lock that the child needs: the collector is idle. The alarm ends a
            // child that waits all the same.
            let child = unsafe {
                match libc::fork() {
                    0 => {
                        libc::alarm(20);
                        child_does();
                        libc::_exit(0)
                    }
                    child => child,
                }
            };
            let mut status = 0;
            // SAFETY: waits for the child, and writes its status.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        };
        heap.attach(|m| {
            m.scope(|m, s| {
                let kept = list(m, s, 1000).expect("room");
                for _ in 0..5 {
                    m.collect();
                    fork(&mut || {});
                    check_list(kept.get(m), 1000);
                }
            });
        })
        .expect("attached once");
        let mut the_last = Some(heap);
        fork(&mut || drop(the_last.take()));
        let heap = the_last.expect("the child's is another");
        heap.attach(|m| m.scope(|m, s| check_list(list(m, s, 10).expect("room").get(m), 10)))
            .expect("attached once");
    }
}
