//! Whole cycles on the real kernel, with the toy embedder: mutators keep mutating while another thread
//! demands collections. (A mutator that waits for a collection itself takes no faults.)

mod toy_embedder;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use strikeslip_gc::geometry::REGION_BYTES;
use strikeslip_gc::options::{Delivery, ForcedAnswers, HeapOptions, Mode, StressOptions, VerifyLevel};
use strikeslip_gc::plan::Pressure;
use strikeslip_gc::roots::{ROOT_SLOTS, RootPageKind};
use strikeslip_gc::stats::Snapshot;
use toy_embedder::graph::{Graph, Random, Shape, mix};
use toy_embedder::{Mutator, Toy, layouts};

const CONCURRENT: [(Mode, Delivery); 4] = [
    (Mode::ConcurrentCopy, Delivery::Pool),
    (Mode::ConcurrentCopy, Delivery::InPlace),
    (Mode::ConcurrentMove, Delivery::Pool),
    (Mode::ConcurrentMove, Delivery::InPlace),
];

/// How long mutators run at least, and at most, under collections.
const LEAST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(60);

fn options(mode: Mode, delivery: Delivery) -> HeapOptions {
    HeapOptions {
        limit_bytes: 128 << 20,
        mode,
        delivery: Some(delivery),
        fall_back: false,
        verify: VerifyLevel::Reachable,
        // On two processors, one for the mutator: else all is served before it runs again.
        workers: 1,
        ..HeapOptions::default()
    }
}

/// Runs `work` on a mutator of its own, again and again, while this thread collects: until `cycles`
/// cycles are done and (in concurrent modes) mutators took faults.
fn collect_under(
    toy: &Toy,
    cycles: u64,
    pressure: Pressure,
    work: impl Fn(&Mutator, &dyn Fn() -> bool) + Sync,
) -> Snapshot {
    // Alone: a mutator that waits for a processor takes no faults.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mutator = toy.attach();
            work(&mutator, &|| ended.load(Ordering::Relaxed));
        });
        let started = Instant::now();
        loop {
            toy.heap.collect_with(pressure);
            let counters = toy.heap.snapshot().counters;
            let faulted = counters.mutator_faults > 0 || !toy.heap.mode().is_concurrent();
            let enough = counters.cycles >= cycles && faulted && started.elapsed() > LEAST;
            if enough || started.elapsed() > MOST {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        ended.store(true, Ordering::Relaxed);
    });
    let snapshot = toy.heap.snapshot();
    assert!(snapshot.counters.cycles >= cycles, "{:?}", snapshot.counters);
    assert_eq!(
        toy.heap.mode().is_concurrent(),
        snapshot.counters.mutator_faults > 0,
        "{:?}",
        snapshot.counters
    );
    snapshot
}

fn mutate_a_graph(options: HeapOptions) -> Snapshot {
    let toy = Toy::new(options).expect("a heap");
    let shape = Shape { roots: 64, live_bytes: 8 << 20, medium_one_in: 50, large_one_in: 2000 };
    let snapshot = collect_under(&toy, 12, Pressure::Everything, |mutator, ended| {
        let mut graph = Graph::new(mutator, 42, shape);
        while !ended() {
            for _ in 0..500 {
                graph.step().expect("the graph is much smaller than the heap");
            }
            graph.check();
        }
        assert!(graph.check() > 0, "the graph is not empty");
    });
    assert!(snapshot.counters.evacuated_bytes > 0 && snapshot.counters.verified_objects > 0);
    snapshot
}

#[test]
fn a_graph_agrees_with_its_model_in_every_mode_and_delivery() {
    for (mode, delivery) in CONCURRENT {
        for huge_pages in [false, true] {
            let verify = if huge_pages { VerifyLevel::Reachable } else { VerifyLevel::Shadow };
            mutate_a_graph(HeapOptions { huge_pages, verify, ..options(mode, delivery) });
        }
    }
}

/// Rare answers of the kernel, forced, change nothing that a program sees.
#[test]
fn forced_answers_change_no_results() {
    let mut forced = std::collections::BTreeSet::new();
    for (mode, delivery) in CONCURRENT {
        for huge_pages in [false, true] {
            let answers = ForcedAnswers { seed: 11, per_mille: 400, ..ForcedAnswers::default() };
            let stress = StressOptions { forced_answers: Some(answers), ..StressOptions::default() };
            let snapshot = mutate_a_graph(HeapOptions { huge_pages, stress, ..options(mode, delivery) });
            assert!(!snapshot.forced_answers.is_empty(), "{mode}, {delivery}, huge pages: {huge_pages}");
            forced.extend(snapshot.forced_answers.iter().map(|entry| (entry.call, entry.answer)));
        }
    }
    for call in ["copy", "move"] {
        for answer in ["again", "partial", "exists", "no-memory"] {
            assert!(forced.contains(&(call, answer)), "{call} {answer}: {forced:?}");
        }
    }
    assert!(forced.contains(&("move", "busy")), "{forced:?}");
}

/// When the kernel begins to refuse MOVEs, the rest is copied, in that cycle and in all others.
#[test]
fn moves_that_are_refused_become_copies() {
    for huge_pages in [false, true] {
        let answers = ForcedAnswers { seed: 12, refuse_moves_after: Some(3), ..ForcedAnswers::default() };
        let stress = StressOptions { forced_answers: Some(answers), ..StressOptions::default() };
        let options = options(Mode::ConcurrentMove, Delivery::InPlace);
        let snapshot = mutate_a_graph(HeapOptions { huge_pages, stress, ..options });
        let counters = snapshot.counters;
        assert!(counters.moved_bytes > 0 && counters.copied_bytes > 0, "{counters:?}");
        let refused: u64 = snapshot.forced_answers.iter().map(|entry| entry.count).sum();
        // Workers and mutators that had begun to move may each see it once.
        assert!((1..8).contains(&refused), "{:?}", snapshot.forced_answers);
    }
}

#[test]
fn a_graph_agrees_with_its_model_when_the_world_is_stopped() {
    for workers in [1, 2] {
        let verify = VerifyLevel::Shadow;
        mutate_a_graph(HeapOptions { workers, verify, ..options(Mode::StopTheWorld, Delivery::InPlace) });
    }
}

/// Nodes named `0..count` in random places of the array in root 0; the rest of the array is empty.
fn scatter(mutator: &Mutator, length: usize, count: usize, random: &mut Random) {
    let array = mutator.alloc(layouts().array, length).expect("room");
    mutator.set_root(0, Some(array));
    for id in 0..count {
        let node = mutator.alloc(layouts().node, 0).expect("room");
        mutator.set(node, 3, id as u64);
        // Garbage between the nodes, so that there is something to compact.
        mutator.set_root(1, Some(node));
        mutator.alloc(layouts().data, random.below(100)).expect("room");
        let (node, array) = (mutator.root(1).expect("a node"), mutator.root(0).expect("the array"));
        let free = (0..).map(|_| 1 + random.below(length)).find(|&at| mutator.load(array, at).is_none());
        mutator.store(array, free.expect("half of it is empty"), Some(node));
    }
    mutator.set_root(1, None);
}

fn assert_all_there(mutator: &Mutator, length: usize, count: usize) {
    let array = mutator.root(0).expect("the array");
    let nodes = (1..=length).filter_map(|at| mutator.load(array, at));
    let mut ids: Vec<_> = nodes.map(|node| mutator.get(node, 3)).collect();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(0..count as u64), "each node is there once");
}

/// The only reference to an object is stored behind the marker's back, and deleted from where it was.
#[test]
fn references_that_move_during_marking_survive() {
    for (mode, delivery) in CONCURRENT {
        for patch_budget in [0, 1 << 20] {
            let toy = Toy::new(HeapOptions { patch_budget, ..options(mode, delivery) }).expect("a heap");
            // Several regions of references; the elements are evacuated, the array stays.
            let (length, count) = (4 * REGION_BYTES / 8, 20_000);
            let moved_while_marking = AtomicU64::new(0);
            collect_under(&toy, 6, Pressure::Everything, |mutator, ended| {
                let mut random = Random(7);
                scatter(mutator, length, count, &mut random);
                while !ended() {
                    mutator.poll();
                    let array = mutator.root(0).expect("the array");
                    let (from, to) = (1 + random.below(length), 1 + random.below(length));
                    if let (Some(node), None) = (mutator.load(array, from), mutator.load(array, to)) {
                        mutator.store(array, from, None);
                        mutator.store(array, to, Some(node));
                        moved_while_marking.fetch_add(u64::from(mutator.is_marking()), Ordering::Relaxed);
                    }
                }
                assert_all_there(mutator, length, count);
            });
            assert!(moved_while_marking.into_inner() > 0, "references moved while the collector marked");
        }
    }
}

/// Large reference arrays that are allocated and filled during marking, with references to objects
/// that are evacuated.
#[test]
fn large_arrays_allocated_during_marking_are_rewritten() {
    for (mode, delivery) in CONCURRENT {
        let toy = Toy::new(options(mode, delivery)).expect("a heap");
        let born_while_marking = AtomicU64::new(0);
        collect_under(&toy, 8, Pressure::Everything, |mutator, ended| {
            let length = 3 * REGION_BYTES / 2 / 8;
            scatter(mutator, length, 30_000, &mut Random(3));
            while !ended() {
                let copy = mutator.alloc(layouts().array, length).expect("room");
                mutator.set_root(2, Some(copy));
                born_while_marking.fetch_add(u64::from(mutator.is_marking()), Ordering::Relaxed);
                for at in 1..=length {
                    mutator.poll();
                    let (old, new) = (mutator.root(0).expect("old"), mutator.root(2).expect("new"));
                    let element = mutator.load(old, at);
                    mutator.store(new, at, element);
                }
                mutator.set_root(0, mutator.root(2));
                mutator.set_root(2, None);
            }
            assert_all_there(mutator, length, 30_000);
        });
        assert!(born_while_marking.into_inner() > 0, "arrays were allocated while the collector marked");
    }
}

#[test]
fn pinned_objects_keep_their_address() {
    for (mode, delivery) in CONCURRENT.into_iter().chain([(Mode::StopTheWorld, Delivery::InPlace)]) {
        let toy = Toy::new(options(mode, delivery)).expect("a heap");
        let shape = Shape { roots: 64, live_bytes: 8 << 20, medium_one_in: 50, large_one_in: 0 };
        collect_under(&toy, 20, Pressure::Everything, |mutator, ended| {
            let born_pinned = mutator.alloc_pinned(layouts().array, 8).expect("room");
            mutator.set_root(0, Some(born_pinned));
            mutator.set_root(1, Some(mutator.alloc(layouts().node, 0).expect("room")));
            // What moves (so it must lie in another region), and is referred to from what does not.
            for _ in 0..REGION_BYTES / 800 {
                mutator.alloc(layouts().data, 100).expect("room");
            }
            mutator.set_root(2, Some(mutator.alloc(layouts().node, 0).expect("room")));
            mutator.set(mutator.root(2).expect("a node"), 3, 77);
            mutator.store(mutator.root(0).expect("pinned"), 1, mutator.root(2));
            let (mut place, mut moves) = (mutator.root(2), 0);
            let pinned = mutator.blocked(|| mutator.heap.pin(&|| mutator.root(1).expect("a node")));
            mutator.set(pinned, 3, 99);
            let mut graph = Graph::new(mutator, 8, shape);
            while !ended() {
                graph.step().expect("room");
                assert_eq!((mutator.root(0), mutator.root(1)), (Some(born_pinned), Some(pinned)));
                assert_eq!((mutator.load(born_pinned, 1), mutator.get(pinned, 3)), (mutator.root(2), 99));
                let node = mutator.root(2).expect("a node");
                assert_eq!(mutator.get(node, 3), 77);
                moves += u32::from(place.replace(node) != Some(node));
            }
            assert!(moves > 2, "others did move");
            mutator.heap.unpin(pinned);
        });
    }
}

/// Far more roots than are rewritten in a pause, read and replaced while their pages are served.
#[test]
fn a_hundred_thousand_roots_are_served_in_pages() {
    for (mode, delivery) in CONCURRENT {
        let toy = Toy::new(options(mode, delivery)).expect("a heap");
        collect_under(&toy, 5, Pressure::Everything, |mutator, ended| {
            let count = 200 * ROOT_SLOTS;
            for slot in ROOT_SLOTS..count {
                if slot % ROOT_SLOTS == 0 {
                    assert_eq!(mutator.add_roots(RootPageKind::Paged), slot);
                }
                let node = mutator.alloc(layouts().node, 0).expect("room");
                mutator.set(node, 3, mix(slot as u64));
                mutator.set_root(slot, Some(node));
            }
            let mut random = Random(1);
            while !ended() {
                let slot = ROOT_SLOTS + random.below(count - ROOT_SLOTS);
                mutator.poll();
                assert_eq!(
                    mutator.get(mutator.root(slot).expect("a node"), 3),
                    mix(slot as u64),
                    "root {slot}"
                );
                if random.one_in(4) {
                    let node = mutator.alloc(layouts().node, 0).expect("room");
                    mutator.set(node, 3, mix(slot as u64));
                    mutator.set_root(slot, Some(node));
                }
                if random.one_in(1000) {
                    // A page that comes and goes, perhaps between the preparation and the flip.
                    let first = mutator.add_roots(RootPageKind::Paged);
                    mutator.set_root(first, mutator.root(slot));
                    mutator.poll();
                    assert_eq!(mutator.root(first), mutator.root(slot), "one object, one address");
                    mutator.drop_roots();
                }
            }
        });
    }
}

/// Attaches, lives for a while, and detaches, again and again.
fn come_and_go(toy: &Toy, seed: u64, ended: &dyn Fn() -> bool) -> u64 {
    let shape = Shape { roots: 8, live_bytes: 1 << 20, medium_one_in: 0, large_one_in: 0 };
    let mut lives = 0;
    while !ended() {
        let mutator = toy.attach();
        let mut graph = Graph::new(&mutator, mix(lives) ^ seed, shape);
        (0..100).for_each(|_| graph.step().expect("room"));
        graph.check();
        lives += 1;
    }
    lives
}

#[test]
fn threads_attach_and_detach_during_cycles() {
    for (mode, delivery) in CONCURRENT {
        // Marking at a low weight would wait for the many threads, which is not what is tested.
        let options = HeapOptions { low_weight_marking: false, ..options(mode, delivery) };
        let toy = Toy::new(options).expect("a heap");
        let lives = AtomicU64::new(0);
        let shape = Shape { roots: 64, live_bytes: 4 << 20, medium_one_in: 0, large_one_in: 0 };
        collect_under(&toy, 10, Pressure::Everything, |mutator, ended| {
            let stays = AtomicBool::new(true);
            std::thread::scope(|scope| {
                let (toy, lives, stays) = (&toy, &lives, &stays);
                let thread = |seed| {
                    scope.spawn(move || {
                        let more = come_and_go(toy, seed, &|| !stays.load(Ordering::Relaxed));
                        lives.fetch_add(more, Ordering::Relaxed);
                    })
                };
                let threads = [thread(0), thread(1)];
                let mut graph = Graph::new(mutator, 9, shape);
                while !ended() {
                    graph.step().expect("room");
                }
                graph.check();
                stays.store(false, Ordering::Relaxed);
                mutator.blocked(|| threads.into_iter().for_each(|thread| thread.join().expect("no panic")));
            });
        });
        assert!(lives.into_inner() > 10, "many threads came and went");
    }
}

#[test]
fn an_idle_heap_gives_its_memory_back() {
    let toy = Toy::new(options(Mode::ConcurrentMove, Delivery::InPlace)).expect("a heap");
    let shape = Shape { roots: 64, live_bytes: 20 << 20, medium_one_in: 30, large_one_in: 0 };
    let mutator = toy.attach();
    let mut graph = Graph::new(&mutator, 5, shape);
    (0..20_000).for_each(|_| graph.step().expect("room"));
    graph.clear();
    let before = toy.heap.snapshot().memory.resident_bytes;
    mutator.blocked(|| {
        toy.heap.collect_with(Pressure::Everything);
        let deadline = Instant::now() + MOST;
        while toy.heap.snapshot().memory.resident_bytes > REGION_BYTES as u64 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let after = toy.heap.snapshot().memory.resident_bytes;
    assert!(before > 8 << 20 && after <= REGION_BYTES as u64, "{} of {} KiB", after >> 10, before >> 10);
}
