//! Weak references through the safe interface, in every mode with every delivery.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::{Node, Random, SetOnDrop, all_modes, heap, heap_in, options, with_scope};
use strikeslip::{Array, Heap, HeapOptions, Local, Mode, Mutator, Scope, VerifyLevel, Weak, WeakTable};

#[test]
fn a_weak_reference_follows_its_object_and_dies_with_it() {
    with_scope(|m, s| {
        let table = WeakTable::<Node>::new(m.heap(), 1000).unwrap();
        let kept = m.alloc::<Node>(s).unwrap();
        kept.get(m).value.set(5);
        let weak = m.weak(kept.get(m));
        let dead = m.scope(|m, inner| {
            let node = m.alloc::<Node>(inner).unwrap();
            table.set(m, 0, Some(node.get(m)));
            m.weak(node.get(m))
        });
        table.set(m, 999, Some(kept.get(m)));
        m.collect();
        assert!(weak.upgrade(m) == Some(kept.get(m)) && table.get(m, 999) == Some(kept.get(m)));
        assert!(dead.upgrade(m).is_none() && table.get(m, 0).is_none());
        dead.set(m, weak.upgrade(m));
        weak.set(m, None);
        table.set(m, 999, None);
        m.collect();
        assert_eq!(dead.upgrade(m).map(|node| node.value.get()), Some(5));
        assert!(weak.upgrade(m).is_none() && table.get(m, 999).is_none());
    });
}

#[test]
fn weak_references_are_sent_and_dropped_anywhere() {
    let heap = heap();
    let weak = heap
        .attach(|m| {
            m.scope(|m, s| {
                let node = m.alloc::<Node>(s).unwrap();
                (0..2000).map(|_| m.weak(node.get(m))).collect::<Vec<Weak<Node>>>()
            })
        })
        .unwrap();
    std::thread::spawn(move || drop(weak)).join().unwrap();
    let table = WeakTable::<Node>::new(&heap, 5000).unwrap();
    assert_eq!((table.len(), table.is_empty()), (5000, false));
    // The last handle of the heap.
    drop(heap);
    std::thread::spawn(move || drop(table)).join().unwrap();
}

#[test]
#[should_panic(expected = "the weak reference is not of this mutator's heap")]
fn another_heaps_weak_reference_is_refused() {
    let weak = with_scope(|m, s| {
        let node = m.alloc::<Node>(s).unwrap();
        m.weak(node.get(m))
    });
    with_scope(|m, _| _ = weak.upgrade(m));
}

#[test]
#[should_panic(expected = "slot 10 of a weak table of 10")]
fn a_slot_beyond_the_end_is_refused() {
    with_scope(|m, _| {
        let table = WeakTable::<Node>::new(m.heap(), 10).unwrap();
        table.set(m, 10, None);
    });
}

const KEYS: usize = 3000;
/// Keys that are looked for at one time: all others may die.
const AT_ONCE: usize = 200;
/// Objects that all share.
const KEPT: usize = 64;

/// One object for each key, as long as anybody has it.
struct Interned {
    table: WeakTable<Node>,
    lock: Mutex<()>,
    made: AtomicU64,
    /// The first key that is looked for: moves on after each cycle, so that the others can die in the next.
    first: AtomicUsize,
}

impl Interned {
    /// The object of `key`, which refers to that of `key / 2`.
    fn intern<'s>(&self, m: &mut Mutator, s: &Scope<'s>, key: usize) -> Local<'s, Node> {
        let fresh = m.alloc::<Node>(s).unwrap();
        fresh.get(m).value.set(key as u64);
        if key > 0 && self.table.get(m, key).is_none() {
            m.scope(|m, inner| {
                let parent = self.intern(m, inner, key / 2);
                fresh.get(m).left.store(m, Some(parent.get(m)));
            });
        }
        // No safepoint while it is held.
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        match self.table.get(m, key) {
            Some(found) => s.root(found),
            // It died since it was looked for: without its parent, the fresh object is of no use.
            None if key > 0 && fresh.get(m).left.is_null() => {
                drop(_lock);
                self.intern(m, s, key)
            }
            None => {
                self.table.set(m, key, Some(fresh.get(m)));
                self.made.fetch_add(1, Ordering::Relaxed);
                fresh
            }
        }
    }
}

/// Interns at random, keeps some in an array that all share, and compares: two objects of one key never live at once.
fn intern_and_compare(
    m: &mut Mutator,
    interned: &Interned,
    shared: &strikeslip::Persistent<Array<Node>>,
    seed: u64,
) {
    let mut random = Random(seed);
    for _ in 0..200 {
        m.scope(|m, s| {
            let key = (interned.first.load(Ordering::Relaxed) + random.below(AT_ONCE)) % KEYS;
            let object = interned.intern(m, s, key);
            if key > 0 {
                let parent = interned.intern(m, s, key / 2);
                assert!(object.get(m).left.load() == Some(parent.get(m)), "two objects of key {}", key / 2);
            }
            let shared = shared.get(m);
            if let Some(other) = shared.get(key % KEPT).filter(|other| other.value.get() == key as u64) {
                assert!(other == object.get(m), "two objects of key {key}");
            }
            let keep = random.below(4) == 0;
            shared.set(m, key % KEPT, keep.then(|| object.get(m)));
        });
    }
}

#[test]
fn interned_objects_are_unique_in_every_mode_and_delivery() {
    for (mode, delivery) in all_modes() {
        let options = HeapOptions { verify: VerifyLevel::Roots, workers: 1, ..options() };
        let Some(heap) = heap_in(mode, delivery, options) else { continue };
        let interned = Interned {
            table: WeakTable::new(&heap, KEYS).unwrap(),
            lock: Mutex::new(()),
            made: AtomicU64::new(0),
            first: AtomicUsize::new(0),
        };
        let shared = heap
            .attach(|m| {
                m.scope(|m, s| {
                    let array = m.alloc_array::<Node>(s, KEPT).unwrap();
                    m.persistent(array.get(m))
                })
            })
            .unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for seed in 0..2 {
                let (heap, interned, shared, ended) = (&heap, &interned, &shared, &ended);
                scope.spawn(move || {
                    heap.attach(|m| {
                        let mut seed = seed;
                        while !ended.load(Ordering::Relaxed) {
                            intern_and_compare(m, interned, shared, seed);
                            seed += 2;
                        }
                    })
                    .unwrap();
                });
            }
            let _end = SetOnDrop(&ended);
            collect_until_enough(&heap, mode, &interned.first);
        });
        let counters = heap.snapshot().counters;
        let made = interned.made.load(Ordering::Relaxed);
        if mode == Mode::NoGc {
            assert!(made <= KEYS as u64, "nothing dies");
        } else {
            assert!(
                counters.weak_slots_cleared > 0 && made > counters.weak_slots_cleared,
                "{mode}: {counters:?}"
            );
        }
        assert_eq!(counters.white_upgrades > 0, mode.is_concurrent(), "{mode}: {counters:?}");
    }
}

/// Until slots were cleared in some cycles, and, where that can be, objects were resurrected.
fn collect_until_enough(heap: &Heap, mode: Mode, first: &AtomicUsize) {
    let started = Instant::now();
    loop {
        heap.collect();
        first.fetch_add(AT_ONCE / 2, Ordering::Relaxed);
        let counters = heap.snapshot().counters;
        let cleared = counters.weak_slots_cleared > 0 && counters.cycles >= 10;
        let resurrected = counters.white_upgrades > 0 || !mode.is_concurrent();
        let most = Duration::from_secs(if mode == Mode::NoGc { 0 } else { 60 });
        if cleared && resurrected || started.elapsed() > most {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
