//! Young cycles on the real kernel, one step at a time: what they find, what they leave alone, and what the remembered
//! set has to tell them. (Under load, with models: `stress.rs` and `simulation.rs`.)

mod toy_embedder;

use strikeslip_gc::address::ToAddress;
use strikeslip_gc::geometry::{LARGE_OBJECT_BYTES, REGION_BYTES};
use strikeslip_gc::options::{Delivery, HeapOptions, Mode, VerifyLevel};
use strikeslip_gc::stats::CounterValues;
use toy_embedder::graph::mix;
use toy_embedder::{Mutator, Toy, layouts};

/// Words of a test object that say which it is.
const ID: usize = 3;

/// Runs a test in each mode, with and without huge pages.
fn in_each_mode(test: impl Fn(&Toy, &Mutator)) {
    let modes = [
        (Mode::StopTheWorld, None),
        (Mode::ConcurrentCopy, Some(Delivery::Pool)),
        (Mode::ConcurrentCopy, Some(Delivery::InPlace)),
        (Mode::ConcurrentMove, Some(Delivery::Pool)),
        (Mode::ConcurrentMove, Some(Delivery::InPlace)),
    ];
    for (mode, delivery) in modes {
        for huge_pages in [false, true] {
            let toy = Toy::new(HeapOptions {
                limit_bytes: 128 << 20,
                mode,
                delivery,
                fall_back: false,
                huge_pages,
                automatic: false,
                verify: VerifyLevel::Shadow,
                ..HeapOptions::default()
            });
            let toy = toy.expect("a heap");
            let mutator = toy.attach();
            test(&toy, &mutator);
        }
    }
}

/// A new node with this id, in root slot `root`.
fn node(mutator: &Mutator, root: usize, id: u64) -> ToAddress {
    let node = mutator.alloc(layouts().node, 0).expect("memory");
    mutator.set(node, ID, id);
    mutator.set_root(root, Some(node));
    node
}

/// Fills regions with objects that nothing refers to.
fn garbage(mutator: &Mutator, bytes: usize) {
    for _ in 0..bytes / 1024 {
        mutator.alloc(layouts().data, 127).expect("memory");
    }
}

fn collect_young(toy: &Toy, mutator: &Mutator) -> CounterValues {
    mutator.blocked(|| toy.heap.collect_young());
    toy.heap.snapshot().counters
}

fn collect_all(toy: &Toy, mutator: &Mutator) -> CounterValues {
    mutator.blocked(|| toy.heap.collect());
    toy.heap.snapshot().counters
}

/// Root slots of these tests.
const OLD: usize = 0;
const OTHER: usize = 1;

#[test]
fn what_an_old_object_refers_to_survives_and_moves() {
    in_each_mode(|toy, mutator| {
        node(mutator, OLD, 1);
        garbage(mutator, 4 * REGION_BYTES);
        collect_all(toy, mutator);
        let young = node(mutator, OTHER, 2);
        let old = mutator.root(OLD).expect("a root");
        mutator.store(old, 1, Some(young));
        mutator.set_root(OTHER, None);
        garbage(mutator, 4 * REGION_BYTES);
        let counters = collect_young(toy, mutator);
        assert_eq!((counters.young_cycles, counters.remembered_slots), (1, 1), "{counters:?}");
        assert_eq!(mutator.root(OLD), Some(old), "a young cycle does not move old objects");
        let moved = mutator.load(old, 1).expect("the slot is not cleared");
        assert_ne!(moved, young, "its region was nearly empty");
        assert_eq!(mutator.get(moved, ID), 2);
        // It is old now.
        let counters = collect_young(toy, mutator);
        assert_eq!((counters.remembered_slots, mutator.load(old, 1)), (1, Some(moved)));
    });
}

#[test]
fn a_pinned_object_stays_until_it_is_unpinned() {
    in_each_mode(|toy, mutator| {
        node(mutator, OLD, 5);
        let pinned = mutator.blocked(|| toy.heap.pin(&|| mutator.root(OLD).expect("a root")));
        garbage(mutator, 4 * REGION_BYTES);
        collect_young(toy, mutator);
        assert_eq!((mutator.root(OLD), mutator.get(pinned, ID)), (Some(pinned), 5));
        collect_all(toy, mutator);
        assert_eq!((mutator.root(OLD), mutator.get(pinned, ID)), (Some(pinned), 5));
        toy.heap.unpin(pinned);
        collect_all(toy, mutator);
        let moved = mutator.root(OLD).expect("a root");
        assert_ne!(moved, pinned, "its region is nearly empty");
        assert_eq!(mutator.get(moved, ID), 5);
    });
}

#[test]
fn young_garbage_goes_and_old_garbage_stays_until_a_full_cycle() {
    in_each_mode(|toy, mutator| {
        let array = mutator.alloc(layouts().array, 1 << 19).expect("memory");
        mutator.set_root(OLD, Some(array));
        collect_all(toy, mutator);
        mutator.set_root(OLD, None);
        let regions = (8 << 19) / REGION_BYTES + 1;
        let before = toy.heap.memory().used_bytes;
        garbage(mutator, 8 * REGION_BYTES);
        mutator.alloc(layouts().array, 1 << 19).expect("memory");
        collect_young(toy, mutator);
        assert_eq!(toy.heap.memory().used_bytes, before, "the young large array is gone, the old one is not");
        collect_all(toy, mutator);
        assert!(toy.heap.memory().used_bytes <= before - (regions * REGION_BYTES) as u64);
    });
}

#[test]
fn a_region_with_too_many_slots_is_walked() {
    const ELEMENTS: usize = 100_000;
    in_each_mode(|toy, mutator| {
        let array = mutator.alloc(layouts().array, ELEMENTS).expect("memory");
        mutator.set_root(OLD, Some(array));
        // Small objects too: a destination, which no marking has seen.
        let list = |mutator: &Mutator| {
            node(mutator, OTHER, 0);
            for id in 1..4000 {
                let last = mutator.root(OTHER).expect("a root");
                let node = node(mutator, OTHER, id);
                mutator.store(node, 1, Some(last));
            }
        };
        list(mutator);
        garbage(mutator, 4 * REGION_BYTES);
        collect_all(toy, mutator);
        for round in 1..4 {
            for nth in 0..ELEMENTS {
                let node = mutator.alloc(layouts().node, 0).expect("memory");
                mutator.set(node, ID, mix(nth as u64 * round));
                let array = mutator.root(OLD).expect("a root");
                mutator.store(array, 1 + nth, Some(node));
            }
            let mut old = mutator.root(OTHER);
            while let Some(node) = old {
                let data = mutator.alloc(layouts().data, 1).expect("memory");
                mutator.set(data, 1, mutator.get(node, ID) * round);
                mutator.store(node, 2, Some(data));
                old = mutator.load(node, 1);
            }
            garbage(mutator, 2 * REGION_BYTES);
            collect_young(toy, mutator);
            let array = mutator.root(OLD).expect("a root");
            for nth in 0..ELEMENTS {
                let node = mutator.load(array, 1 + nth).expect("an element");
                assert_eq!(mutator.get(node, ID), mix(nth as u64 * round));
            }
            let mut old = mutator.root(OTHER);
            while let Some(node) = old {
                let data = mutator.load(node, 2).expect("data");
                assert_eq!(mutator.get(data, 1), mutator.get(node, ID) * round);
                old = mutator.load(node, 1);
            }
        }
        let counters = toy.heap.snapshot().counters;
        assert_eq!(counters.young_cycles, 3);
        assert!((counters.remembered_slots as usize) < ELEMENTS / 2, "most were not recorded: {counters:?}");
    });
}

#[test]
fn young_objects_that_do_not_move_become_old() {
    in_each_mode(|toy, mutator| {
        let large = mutator.alloc(layouts().array, LARGE_OBJECT_BYTES / 8 + 100).expect("memory");
        mutator.set_root(OLD, Some(large));
        let pinned = mutator.alloc_pinned(layouts().node, 0).expect("memory");
        mutator.set_root(OTHER, Some(pinned));
        for (holder, word, id) in [(large, 50, 7), (pinned, 1, 8)] {
            let child = mutator.alloc(layouts().node, 0).expect("memory");
            mutator.set(child, ID, id);
            mutator.store(holder, word, Some(child));
        }
        for cycle in 1..4 {
            garbage(mutator, 4 * REGION_BYTES);
            let counters = collect_young(toy, mutator);
            let (large, pinned) = (mutator.root(OLD).expect("a root"), mutator.root(OTHER).expect("a root"));
            for (holder, word, id) in [(large, 50, 7), (pinned, 1, 8)] {
                let child = mutator.load(holder, word).expect("a child");
                assert_eq!(mutator.get(child, ID), id);
                // From now on, by the remembered set.
                let child = mutator.alloc(layouts().node, 0).expect("memory");
                mutator.set(child, ID, id);
                mutator.store(holder, word, Some(child));
            }
            assert_eq!(counters.remembered_slots, 2 * (cycle - 1), "{counters:?}");
        }
    });
}
