//! The protocol under a driver of the test's own, which plays the controller: the heap never
//! collects, so nobody else calls the embedder.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::*;
use crate::{Heap, HeapOptions, Mode};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn quiet_heap(watchdog_ms: u64) -> Heap {
    let mode = Mode::NoGc;
    Heap::new(HeapOptions {
        mode,
        automatic: false,
        watchdog_ms,
        limit_bytes: 32 << 20,
        ..Default::default()
    })
    .unwrap()
}

/// Tells threads to end, also when the test has failed: else it would wait for them for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `threads` attached threads that call `step` until `drive` is over.
fn with_mutators<R>(
    heap: &Heap,
    threads: usize,
    step: impl Fn(usize, &mut crate::Mutator) + Sync,
    drive: impl FnOnce(&Registry) -> R,
) -> R {
    let (over, ready) = (AtomicBool::new(false), Barrier::new(threads + 1));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (step, over, ready) = (&step, &over, &ready);
            scope.spawn(move || {
                heap.attach(|m| {
                    m.blocked(|| ready.wait());
                    while !over.load(Ordering::Relaxed) {
                        step(thread, m);
                    }
                })
                .unwrap();
            });
        }
        ready.wait();
        let _over = Over(&over);
        drive(heap.registry())
    })
}

/// Some mutators poll, some block most of the time, some change all the time.
fn mixed_step(thread: usize, m: &mut crate::Mutator) {
    match thread % 3 {
        0 => m.safepoint(),
        1 => m.blocked(|| std::thread::sleep(Duration::from_micros(200))),
        _ => m.blocked(|| ()),
    }
}

#[test]
fn a_handshake_runs_once_on_each_mutator() {
    let heap = quiet_heap(0);
    let threads = 6;
    with_mutators(&heap, threads, mixed_step, |registry| {
        for _ in 0..200 {
            let seen = Mutex::new(vec![]);
            registry.handshake(&|context| lock(&seen).push(std::ptr::from_ref(context).addr()));
            let mut seen = seen.into_inner().unwrap();
            assert_eq!(seen.len(), threads);
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), threads, "no context twice");
        }
    });
}

#[test]
fn nobody_runs_while_the_world_is_stopped() {
    let heap = quiet_heap(0);
    let steps = AtomicU64::new(0);
    let step = |thread, m: &mut crate::Mutator| {
        steps.fetch_add(1, Ordering::Relaxed);
        mixed_step(thread, m);
        steps.fetch_add(1, Ordering::Relaxed);
    };
    with_mutators(&heap, 6, step, |registry| {
        for _ in 0..100 {
            let requested = Instant::now();
            registry.stop_world();
            let before = steps.load(Ordering::Relaxed);
            let mut contexts = 0;
            registry.for_each_stopped(&mut |_| contexts += 1);
            std::thread::sleep(Duration::from_micros(300));
            assert_eq!(steps.load(Ordering::Relaxed), before);
            assert_eq!(contexts, 6);
            registry.resume_world(requested);
        }
    });
    assert!(steps.into_inner() > 0);
}

#[test]
fn each_stop_reports_one_pause() {
    let heap = quiet_heap(0);
    with_mutators(&heap, 4, mixed_step, |registry| {
        for _ in 0..100 {
            let requested = Instant::now();
            registry.stop_world();
            registry.resume_world(requested);
        }
    });
    assert_eq!(heap.snapshot().pause_ns.count, 100);
    let registry = heap.registry();
    registry.stop_world();
    registry.resume_world(Instant::now());
    assert_eq!(heap.snapshot().pause_ns.count, 101, "with no mutator, the controller reports it");
}

#[test]
fn threads_attach_and_detach_at_any_time() {
    let heap = quiet_heap(0);
    let (stopped, over, attachments) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    heap.attach(|m| {
                        assert!(!stopped.load(Ordering::SeqCst), "attached while stopped");
                        m.safepoint();
                        assert!(!stopped.load(Ordering::SeqCst), "ran while stopped");
                        m.blocked(std::thread::yield_now);
                        assert!(!stopped.load(Ordering::SeqCst), "left a blocked region while stopped");
                    })
                    .unwrap();
                    attachments.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let registry = heap.registry();
        for round in 0..200 {
            registry.handshake(&|_| std::hint::spin_loop());
            let requested = Instant::now();
            registry.stop_world();
            stopped.store(true, Ordering::SeqCst);
            if round % 8 == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
            stopped.store(false, Ordering::SeqCst);
            registry.resume_world(requested);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(attachments.into_inner() > 0);
    assert_eq!(heap.registry().len(), 0);
}

#[test]
fn a_blocked_mutator_is_not_waited_for_and_does_not_leave_during_a_stop() {
    let heap = quiet_heap(0);
    let (left, inside, leave) = (AtomicBool::new(false), Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            heap.attach(|m| {
                m.blocked(|| {
                    inside.wait();
                    leave.wait();
                });
                left.store(true, Ordering::SeqCst);
            })
            .unwrap();
        });
        inside.wait();
        let requested = Instant::now();
        heap.registry().stop_world(); // returns, though the mutator waits for us
        leave.wait();
        std::thread::sleep(Duration::from_millis(10));
        assert!(!left.load(Ordering::SeqCst));
        heap.registry().resume_world(requested);
    });
    assert!(left.into_inner());
}

#[test]
fn the_watchdog_names_the_late_thread() {
    let heap = quiet_heap(30);
    let reports = Arc::new(Mutex::new(vec![]));
    heap.set_watchdog({
        let reports = Arc::clone(&reports);
        move |late| lock(&reports).push(late.clone())
    });
    let (attached, release) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let late = std::thread::Builder::new().name("late one".to_owned());
        let late = late.spawn_scoped(scope, || {
            heap.attach(|_| {
                attached.wait();
                while !release.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1)); // no safepoint
                }
            })
            .unwrap();
        });
        attached.wait();
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            release.store(true, Ordering::Relaxed);
        });
        let requested = Instant::now();
        heap.registry().stop_world();
        heap.registry().resume_world(requested);
        let reports = lock(&reports);
        assert_eq!(reports.len(), 1, "named once: {reports:?}");
        assert_eq!(reports[0].name.as_deref(), Some("late one"));
        assert_eq!(reports[0].thread, late.unwrap().thread().id());
        assert!(reports[0].waited >= Duration::from_millis(30));
        assert!(reports[0].to_string().contains("mutator 'late one'"));
    });
}

#[test]
fn dropping_the_heap_frees_the_registry() {
    let heap = quiet_heap(0);
    let registry = Arc::downgrade(heap.registry());
    let kept = heap.attach(|m| m.heap().clone()).unwrap();
    drop(heap);
    assert!(registry.upgrade().is_some());
    drop(kept);
    let begin = Instant::now();
    while registry.upgrade().is_some() {
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "the registry is kept by nobody but the collector"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}
