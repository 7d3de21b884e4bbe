//! Threads that come, go, block, panic and share, while collections run.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use common::{Node, check_list, heap, list, options};
use strikeslip::Heap;

/// Collects in a thread of its own until `f` is over.
fn while_collecting(heap: &Heap, f: impl FnOnce()) {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        // A guard: the collecting thread also ends if `f` panics.
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                heap.collect();
            }
        });
        let _over = Over(&over);
        f();
    });
}

#[test]
fn threads_attach_and_detach_during_collections() {
    let heap = heap();
    while_collecting(&heap, || {
        std::thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    for length in 1..150 {
                        heap.attach(|m| {
                            m.scope(|m, s| {
                                let list = list(m, s, length).unwrap();
                                m.safepoint();
                                check_list(list.get(m), length);
                            });
                        })
                        .unwrap();
                    }
                });
            }
        });
    });
}

#[test]
fn blocked_threads_do_not_delay_a_collection() {
    let heap = heap();
    let (inside, release) = (Barrier::new(3), Barrier::new(3));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                heap.attach(|m| {
                    m.scope(|m, s| {
                        let list = list(m, s, 100).unwrap();
                        m.blocked(|| {
                            inside.wait();
                            release.wait();
                        });
                        check_list(list.get(m), 100);
                    });
                })
                .unwrap();
            });
        }
        inside.wait();
        (0..5).for_each(|_| heap.collect());
        release.wait();
    });
}

#[test]
fn blocking_often_during_collections() {
    let heap = heap();
    while_collecting(&heap, || {
        heap.attach(|m| {
            m.scope(|m, s| {
                let list = list(m, s, 500).unwrap();
                for round in 0..2_000 {
                    m.blocked(std::thread::yield_now);
                    if round % 50 == 0 {
                        check_list(list.get(m), 500);
                    }
                }
            });
        })
        .unwrap();
    });
}

#[test]
fn a_panic_detaches_the_thread() {
    let heap = heap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        heap.attach(|m| {
            m.scope(|m, s| {
                let _list = list(m, s, 100).unwrap();
                m.blocked(|| panic!("as intended"));
            });
        })
    }));
    assert!(panicked.is_err());
    heap.collect(); // would wait for the mutator for ever
    heap.attach(|m| m.scope(|m, s| check_list(list(m, s, 10).unwrap().get(m), 10))).unwrap();
}

/// Two threads pass objects to each other through shared objects, while a third collects.
#[test]
fn what_one_thread_stores_another_loads() {
    let heap = heap();
    let shared =
        heap.attach(|m| m.scope(|m, s| m.alloc_array::<Node>(s, 64).map(|a| m.persistent(a.get(m)))));
    let shared = shared.unwrap().unwrap();
    let seen = AtomicU64::new(0);
    while_collecting(&heap, || {
        std::thread::scope(|threads| {
            for seed in 0..2_u64 {
                let (heap, shared, seen) = (&heap, &shared, &seen);
                threads.spawn(move || {
                    heap.attach(|m| {
                        let mut random = seed + 1;
                        for _ in 0..5_000 {
                            random = random
                                .wrapping_mul(6_364_136_223_846_793_005)
                                .wrapping_add(1_442_695_040_888_963_407);
                            m.scope(|m, s| {
                                let length = random >> 61;
                                let list = list(m, s, length + 1).unwrap();
                                let array = shared.get(m);
                                if let Some(found) = array.get((random >> 40) as usize % 64) {
                                    check_list(found, found.value.get() + 1);
                                    seen.fetch_add(1, Ordering::Relaxed);
                                }
                                array.set(m, (random >> 33) as usize % 64, Some(list.get(m)));
                            });
                        }
                    })
                    .unwrap();
                });
            }
        });
    });
    assert!(seen.into_inner() > 0);
}

#[test]
fn the_watchdog_names_the_thread_a_collection_waits_for() {
    let heap = Heap::new(strikeslip::HeapOptions { watchdog_ms: 40, ..options() }).unwrap();
    let names = Arc::new(Mutex::new(vec![]));
    heap.set_watchdog({
        let names = Arc::clone(&names);
        move |late| names.lock().unwrap().push(late.name.clone())
    });
    let attached = Barrier::new(2);
    std::thread::scope(|threads| {
        let slow = std::thread::Builder::new().name("slow thread".to_owned());
        let slow = slow.spawn_scoped(threads, || {
            heap.attach(|_| {
                attached.wait();
                std::thread::sleep(Duration::from_millis(200)); // should be in `blocked`
            })
            .unwrap();
        });
        attached.wait();
        heap.collect();
        slow.unwrap().join().unwrap();
    });
    if heap.mode() != strikeslip::Mode::NoGc {
        assert_eq!(names.lock().unwrap().first(), Some(&Some("slow thread".to_owned())));
    }
}
