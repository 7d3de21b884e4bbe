//! Weak slots on the real kernel, in every mode with every delivery. (Under load, with models: `stress.rs` and
//! `simulation.rs`.)

mod toy_embedder;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use strikeslip_gc::address::ToAddress;
use strikeslip_gc::geometry::{LARGE_OBJECT_BYTES, REGION_BYTES};
use strikeslip_gc::options::{Delivery, HeapOptions, Mode, VerifyLevel};
use strikeslip_gc::plan::Pressure;
use strikeslip_gc::roots::{ROOT_SLOTS, RootPageKind};
use toy_embedder::graph::{Random, mix};
use toy_embedder::{MODES, Mutator, Toy, layouts};

/// Word of a node that says which it is.
const ID: usize = 3;

fn toy(mode: Mode, delivery: Option<Delivery>, verify: VerifyLevel) -> Toy {
    let options = HeapOptions {
        limit_bytes: 256 << 20,
        mode,
        delivery,
        fall_back: false,
        automatic: false,
        verify,
        ..HeapOptions::default()
    };
    Toy::new(options).expect("a heap")
}

/// Runs a test in each mode, with one page of weak slots, whose first slot it is given.
fn in_each_mode(test: impl Fn(&Toy, &Mutator, usize)) {
    for (mode, delivery) in MODES {
        let toy = toy(mode, delivery, VerifyLevel::Shadow);
        let mutator = toy.attach();
        let weak = mutator.add_roots(RootPageKind::Weak);
        test(&toy, &mutator, weak);
    }
}

fn node(mutator: &Mutator, id: u64) -> ToAddress {
    let node = mutator.alloc(layouts().node, 0).expect("memory");
    mutator.set(node, ID, id);
    node
}

/// Fills regions with objects that nothing refers to.
fn garbage(mutator: &Mutator, bytes: usize) {
    for _ in 0..bytes / 1024 {
        mutator.alloc(layouts().data, 127).expect("memory");
    }
}

fn collect(toy: &Toy, mutator: &Mutator) {
    mutator.blocked(|| toy.heap.collect_with(Pressure::Everything));
}

#[test]
fn dead_objects_go_and_live_ones_are_followed() {
    in_each_mode(|toy, mutator, weak| {
        for nth in 0..100 {
            let node = node(mutator, nth as u64);
            mutator.set_weak(weak + nth, Some(node));
            if nth % 2 == 0 {
                mutator.set_root(nth, Some(node));
            }
            assert_eq!(mutator.weak(weak + nth), Some(node));
        }
        garbage(mutator, 2 * REGION_BYTES);
        let before = mutator.root(0);
        collect(toy, mutator);
        assert_ne!(mutator.root(0), before, "all that can move moves");
        for nth in 0..100 {
            let expected = if nth % 2 == 0 { mutator.root(nth) } else { None };
            assert_eq!(mutator.weak(weak + nth), expected, "slot {nth}");
        }
        assert_eq!(toy.heap.snapshot().counters.weak_slots_cleared, 50);
        // A slot that was cleared can be used again.
        mutator.set_weak(weak + 1, mutator.root(2));
        assert_eq!(mutator.weak(weak + 1), mutator.root(2));
        // Nothing keeps what a freed page refers to.
        (0..100).for_each(|root| mutator.set_root(root, None));
        mutator.drop_roots();
        collect(toy, mutator);
        assert_eq!(toy.heap.snapshot().counters.weak_slots_cleared, 50);
    });
}

/// An object whose only path is through another one's weak slot is dead; two that refer to each other die together.
#[test]
fn weak_slots_do_not_keep_what_their_objects_refer_to() {
    in_each_mode(|toy, mutator, weak| {
        let one = node(mutator, 1);
        mutator.set_root(0, Some(one));
        let other = node(mutator, 2);
        let one = mutator.root(0).expect("a root");
        mutator.store(one, 1, Some(other));
        mutator.store(other, 1, Some(one));
        mutator.set_weak(weak, Some(one));
        mutator.set_weak(weak + 1, Some(other));
        collect(toy, mutator);
        let other = mutator.weak(weak + 1).expect("it is reachable");
        assert_eq!((mutator.get(other, ID), mutator.weak(weak)), (2, mutator.root(0)));
        mutator.set_root(0, None);
        collect(toy, mutator);
        assert_eq!((mutator.weak(weak), mutator.weak(weak + 1)), (None, None));
    });
}

#[test]
fn large_and_pinned_objects_die_too() {
    in_each_mode(|toy, mutator, weak| {
        let large = mutator.alloc(layouts().data, LARGE_OBJECT_BYTES / 8 + 1).expect("memory");
        mutator.set_weak(weak, Some(large));
        mutator.set_root(0, Some(large));
        let pinned = mutator.alloc_pinned(layouts().data, 10).expect("memory");
        mutator.set_weak(weak + 1, Some(pinned));
        mutator.set_root(1, Some(pinned));
        collect(toy, mutator);
        let held = (mutator.root(0), mutator.root(1));
        assert_eq!((mutator.weak(weak), mutator.weak(weak + 1)), held, "neither moves");
        (0..2).for_each(|root| mutator.set_root(root, None));
        collect(toy, mutator);
        assert_eq!((mutator.weak(weak), mutator.weak(weak + 1)), (None, None));
    });
}

#[test]
fn a_young_cycle_clears_slots_of_young_objects_only() {
    in_each_mode(|toy, mutator, weak| {
        let old = node(mutator, 1);
        mutator.set_root(0, Some(old));
        mutator.set_weak(weak, Some(old));
        collect(toy, mutator);
        mutator.set_root(0, None);
        let (dead, live) = (node(mutator, 2), node(mutator, 3));
        mutator.set_weak(weak + 1, Some(dead));
        mutator.set_weak(weak + 2, Some(live));
        mutator.set_root(1, Some(live));
        garbage(mutator, 4 * REGION_BYTES);
        mutator.blocked(|| toy.heap.collect_young());
        assert_eq!(toy.heap.snapshot().counters.young_cycles, 1);
        let old = mutator.weak(weak).expect("a young cycle does not look at old objects");
        assert_eq!((mutator.get(old, ID), mutator.weak(weak + 1)), (1, None));
        let moved = mutator.weak(weak + 2).expect("it lives");
        assert_eq!((Some(moved), mutator.get(moved, ID)), (mutator.root(1), 3));
        assert_ne!(moved, live, "its region was nearly empty");
        collect(toy, mutator);
        assert_eq!(mutator.weak(weak), None);
    });
}

/// More weak slots than are rewritten in the pause: their regions are taken, and they come back rewritten.
#[test]
fn many_weak_slots_are_rewritten_lazily() {
    const PAGES: usize = 200;
    for (mode, delivery) in MODES {
        let toy = toy(mode, delivery, VerifyLevel::Roots);
        let mutator = toy.attach();
        let slots: Vec<_> = (0..PAGES)
            .map(|_| (mutator.add_roots(RootPageKind::Weak), mutator.add_roots(RootPageKind::Paged)))
            .collect();
        for (nth, &(weak, strong)) in slots.iter().enumerate() {
            for slot in (0..ROOT_SLOTS).step_by(8) {
                let node = node(&mutator, (nth * ROOT_SLOTS + slot) as u64);
                mutator.set_root(strong + slot, Some(node));
                mutator.set_weak(weak + slot, Some(node));
            }
        }
        collect(&toy, &mutator);
        let counters = toy.heap.snapshot().counters;
        assert_eq!(counters.regions_taken > 0, mode.is_concurrent(), "{mode}: {counters:?}");
        for (nth, &(weak, strong)) in slots.iter().enumerate() {
            for slot in (0..ROOT_SLOTS).step_by(8) {
                let node = mutator.weak(weak + slot).expect("it lives");
                assert_eq!(Some(node), mutator.root(strong + slot));
                assert_eq!(mutator.get(node, ID), (nth * ROOT_SLOTS + slot) as u64);
            }
        }
    }
}

/// Mutators that load from weak slots all the time, of dead objects mostly, beside cycle after cycle: what they get is
/// whole, and marking ends all the same.
#[test]
fn resurrections_do_not_keep_marking_from_its_end() {
    const SLOTS: usize = 4 * ROOT_SLOTS;
    for (mode, delivery) in MODES {
        let toy = toy(mode, delivery, VerifyLevel::Reachable);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for seed in 0..2 {
                scope.spawn({
                    let (toy, ended) = (&toy, &ended);
                    move || churn(&toy.attach(), seed, SLOTS, ended)
                });
            }
            let started = Instant::now();
            loop {
                toy.heap.collect_with(Pressure::Everything);
                toy.heap.collect_young();
                let counters = toy.heap.snapshot().counters;
                let resurrected = counters.white_upgrades > 0 || !mode.is_concurrent();
                let enough = counters.cycles >= 12 && resurrected && counters.weak_slots_cleared > 0;
                if enough || started.elapsed() > Duration::from_secs(60) {
                    break;
                }
            }
            ended.store(true, Ordering::Relaxed);
        });
        let counters = toy.heap.snapshot().counters;
        assert!(counters.weak_slots_cleared > 0, "{mode}: {counters:?}");
        assert_eq!(counters.white_upgrades > 0, mode.is_concurrent(), "{mode}: {counters:?}");
        assert!(counters.pauses <= counters.cycles + counters.marking_stops, "{mode}: {counters:?}");
    }
}

/// Replaces what was cleared, and checks what is there: a node, and one that only it refers to.
fn churn(mutator: &Mutator, seed: u64, slots: usize, ended: &AtomicBool) {
    let mut random = Random(mix(seed));
    let pages: Vec<_> = (0..slots / ROOT_SLOTS).map(|_| mutator.add_roots(RootPageKind::Weak)).collect();
    let weak = pages[0];
    while !ended.load(Ordering::Relaxed) {
        mutator.poll();
        let slot = weak + random.below(slots);
        if let Some(found) = mutator.weak(slot) {
            let id = mutator.get(found, ID);
            let child = mutator.load(found, 1).expect("a node has a child");
            assert_eq!(mutator.get(child, ID), mix(id), "the child of {id}");
            // Some live for a while.
            mutator.set_root(random.below(64), Some(found));
        } else {
            let id = random.next();
            mutator.set_root(100, Some(node(mutator, id)));
            let child = node(mutator, mix(id));
            let parent = mutator.root(100).expect("just set");
            mutator.store(parent, 1, Some(child));
            mutator.set_weak(slot, Some(parent));
            mutator.set_root(100, None);
        }
    }
}

#[test]
fn an_ephemeron_keeps_its_value_as_long_as_its_key_lives() {
    in_each_mode(|toy, mutator, _| {
        let pairs = mutator.add_roots(RootPageKind::Ephemerons);
        let key = node(mutator, 1);
        mutator.set_root(0, Some(key));
        let value = node(mutator, 2);
        // The value refers to its key, which keeps neither alive.
        mutator.store(value, 1, mutator.root(0));
        mutator.set_ephemeron(pairs, mutator.root(0).expect("a root"), value);
        collect(toy, mutator);
        let value = mutator.weak(pairs + 1).expect("its key lives");
        assert_eq!((mutator.get(value, ID), mutator.load(value, 1)), (2, mutator.root(0)));
        mutator.set_root(0, None);
        collect(toy, mutator);
        assert_eq!((mutator.weak(pairs), mutator.weak(pairs + 1)), (None, None));
    });
}

/// Each value is the key of another pair, and the pairs lie in the order in which marking finds one at a time.
#[test]
fn a_chain_of_ephemerons_is_followed_to_its_end() {
    const LENGTH: usize = 100;
    in_each_mode(|toy, mutator, _| {
        let pairs = mutator.add_roots(RootPageKind::Ephemerons);
        (0..=LENGTH).for_each(|nth| mutator.set_root(nth, Some(node(mutator, nth as u64))));
        for nth in 0..LENGTH {
            let (key, value) = (mutator.root(nth).expect("a root"), mutator.root(nth + 1).expect("a root"));
            mutator.set_ephemeron(pairs + 2 * (LENGTH - 1 - nth), key, value);
        }
        (1..=LENGTH).for_each(|root| mutator.set_root(root, None));
        collect(toy, mutator);
        let last = mutator.weak(pairs + 1).expect("the first key lives");
        assert_eq!(mutator.get(last, ID), LENGTH as u64);
        mutator.set_root(0, None);
        collect(toy, mutator);
        (0..2 * LENGTH).for_each(|slot| assert_eq!(mutator.weak(pairs + slot), None, "slot {slot}"));
        assert_eq!(toy.heap.snapshot().counters.weak_slots_cleared, 2 * LENGTH as u64);
    });
}

/// In a young cycle an old key counts as live, and its young value is marked.
#[test]
fn an_old_key_keeps_a_young_value() {
    in_each_mode(|toy, mutator, _| {
        let pairs = mutator.add_roots(RootPageKind::Ephemerons);
        mutator.set_root(0, Some(node(mutator, 1)));
        collect(toy, mutator);
        let value = node(mutator, 2);
        mutator.set_ephemeron(pairs, mutator.root(0).expect("a root"), value);
        let (key, dead) = (node(mutator, 3), node(mutator, 4));
        mutator.set_ephemeron(pairs + 2, key, dead);
        garbage(mutator, 4 * REGION_BYTES);
        mutator.blocked(|| toy.heap.collect_young());
        let moved = mutator.weak(pairs + 1).expect("its key is old");
        assert_eq!((mutator.get(moved, ID), mutator.weak(pairs)), (2, mutator.root(0)));
        assert_ne!(moved, value, "its region was nearly empty");
        assert_eq!((mutator.weak(pairs + 2), mutator.weak(pairs + 3)), (None, None));
    });
}
