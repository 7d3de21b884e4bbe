//! Memory of the system's: that the heap's account of it is true, and how much it is at most.

mod toy_embedder;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use strikeslip_gc::events::{CycleSummary, Listener, Phase};
use strikeslip_gc::geometry::{PAGE_BYTES, REGION_BYTES};
use strikeslip_gc::heap::Heap;
use strikeslip_gc::options::{Delivery, ForcedAnswers, HeapOptions, Mode, StressOptions, VerifyLevel};
use strikeslip_gc::plan::Pressure;
use toy_embedder::graph::{Graph, Shape};
use toy_embedder::{MODES, Toy, layouts};

const LIMIT: usize = 64 << 20;
const SHAPE: Shape = Shape { roots: 64, live_bytes: 20 << 20, medium_one_in: 30, large_one_in: 500 };

/// What may be held besides, in regions, whatever the heap's size: more than a tenth of a small heap. Staging and
/// a destination each for a worker and a mutator, two regions kept for reuse, and three that count whole where
/// mutators only began to fill them (small, medium and pinned objects).
const REGIONS_BESIDES: usize = 4 + 2 + 3;

fn options(mode: Mode, delivery: Option<Delivery>) -> HeapOptions {
    HeapOptions {
        limit_bytes: LIMIT,
        mode,
        delivery,
        fall_back: false,
        verify: VerifyLevel::Reachable,
        workers: 1,
        ..HeapOptions::default()
    }
}

/// Bytes of the heap's range that the system has given memory for, aliases included.
fn resident_bytes(heap: &Heap) -> usize {
    let range = heap.range();
    let (base, bytes) = (range.base(), range.windows() as usize * strikeslip_gc::geometry::STRIDE_BYTES);
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("this process");
    let mut inside = false;
    let mut kilobytes = 0;
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((start, _)) = first.split_once('-') {
            if let Ok(start) = usize::from_str_radix(start, 16) {
                inside = (base..base + bytes).contains(&start);
            }
        } else if inside && first == "Rss:" {
            let number = line.split_whitespace().nth(1).expect("a number of kilobytes");
            kilobytes += number.parse::<usize>().expect("a number of kilobytes");
        }
    }
    kilobytes << 10
}

/// Notes each cycle.
#[derive(Default)]
struct Cycles(Mutex<Vec<CycleSummary>>);

impl Listener for Cycles {
    fn cycle_ended(&self, summary: &CycleSummary) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(summary.clone());
    }
}

#[test]
fn the_account_is_true_whenever_nothing_changes() {
    for (mode, delivery) in MODES {
        for huge_pages in [false, true] {
            let toy = Toy::new(HeapOptions { huge_pages, ..options(mode, delivery) }).expect("a heap");
            let mutator = toy.attach();
            let mut graph = Graph::new(&mutator, 5, SHAPE);
            for round in 0..12 {
                // Out of memory is legitimate: large objects need regions side by side.
                (0..700).for_each(|_| _ = graph.step());
                mutator.blocked(|| {
                    toy.heap.collect_with([Pressure::Everything, Pressure::High][round % 2]);
                });
                graph.check();
                let held = toy.heap.memory().held;
                let all = held.free + held.objects + held.roots;
                let (counted, there) = (all as usize, resident_bytes(&toy.heap));
                let what = format!("{mode}, huge pages: {huge_pages}, round {round}: {there} of {held:?}");
                let nothing = [held.evacuated, held.drained, held.destinations, held.staging, held.copied];
                assert_eq!(nothing, [0; 5], "{what}");
                // With huge pages a root page that is touched is still a small one.
                assert!(there <= counted, "{what}");
                // Counted whole: three regions that are being filled, and large objects.
                let large = 6 * REGION_BYTES;
                assert!(counted <= there + 3 * REGION_BYTES + large, "{what}");
            }
            assert!(graph.check() > 0);
        }
    }
}

/// A mutator that fills the heap while all of it is compacted again and again.
#[test]
fn a_cycle_holds_what_is_in_use_and_a_tenth_or_the_limit() {
    for (mode, delivery) in MODES {
        for (pressure, hold_memory) in
            [Pressure::High, Pressure::Everything].into_iter().flat_map(|it| [(it, false), (it, true)])
        {
            let verify = VerifyLevel::Spaces;
            let toy = Toy::new(HeapOptions { verify, hold_memory, ..options(mode, delivery) });
            let toy = toy.expect("a heap");
            let cycles = Arc::new(Cycles::default());
            toy.heap.add_listener(cycles.clone());
            let ended = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mutator = toy.attach();
                    let mut graph = Graph::new(&mutator, 5, SHAPE);
                    while !ended.load(Ordering::Relaxed) {
                        (0..500).for_each(|_| _ = graph.step());
                    }
                    graph.check();
                    graph.clear();
                });
                for _ in 0..25 {
                    toy.heap.collect_with(pressure);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                ended.store(true, Ordering::Relaxed);
            });
            let besides = (REGIONS_BESIDES * REGION_BYTES) as u64;
            for cycle in
                cycles.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|_| !hold_memory)
            {
                let most = (cycle.used_before_bytes + cycle.allocated_bytes) / 10 * 11 + besides;
                assert!(cycle.peak_resident_bytes <= most, "{mode}, {pressure:?}: over {most}: {cycle:?}");
            }
            let memory = toy.heap.memory();
            let most = (LIMIT / 20 * 21 + REGIONS_BESIDES * REGION_BYTES) as u64;
            assert!(memory.peak_resident_bytes <= most, "{mode}, {pressure:?}: {memory:?}");
            toy.heap.collect_with(Pressure::Everything);
            toy.heap.collect_with(Pressure::Everything);
            let memory = toy.heap.memory();
            assert_eq!(memory.used_bytes, 0, "{mode}: nothing is left");
            assert!(memory.resident_bytes <= memory.limit_bytes, "{mode}: {memory:?}");
            assert!(memory.side_table_bytes >= PAGE_BYTES as u64, "{memory:?}");
        }
    }
}

/// Counts cycles without the flip that they wanted.
#[derive(Default)]
struct Refusals(AtomicU64);

impl Listener for Refusals {
    fn flip_refused(&self, error: &std::io::Error) {
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{error}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn refusing(mode: Mode, delivery: Option<Delivery>, registrations: u16) -> HeapOptions {
    let answers = ForcedAnswers { seed: 3, refuse_registrations: registrations, ..ForcedAnswers::default() };
    HeapOptions {
        stress: StressOptions { forced_answers: Some(answers), ..StressOptions::default() },
        ..options(mode, delivery)
    }
}

#[test]
fn a_cycle_whose_registration_is_refused_ends_without_a_flip() {
    for (mode, delivery) in MODES.into_iter().skip(1) {
        let toy = Toy::new(refusing(mode, delivery, 500)).expect("a heap");
        let refusals = Arc::new(Refusals::default());
        toy.heap.add_listener(refusals.clone());
        let mutator = toy.attach();
        let mut graph = Graph::new(&mutator, 9, Shape { live_bytes: 8 << 20, ..SHAPE });
        for _ in 0..30 {
            (0..700).for_each(|_| _ = graph.step());
            mutator.blocked(|| toy.heap.collect_with(Pressure::Everything));
            assert!(graph.check() > 0);
        }
        let counters = toy.heap.snapshot().counters;
        assert_eq!(counters.flips_refused, refusals.0.load(Ordering::Relaxed));
        assert!(counters.flips_refused > 5 && counters.evacuated_bytes > 0, "{mode}: {counters:?}");
        assert!(counters.pauses > 5, "{mode}: there are flips in between: {counters:?}");
        let held = toy.heap.memory().held;
        assert_eq!((held.evacuated, held.destinations, held.staging), (0, 0, 0), "{held:?}");
    }
}

#[test]
fn a_heap_that_cannot_flip_ends_at_its_limit() {
    use strikeslip_gc::error::AllocError;
    for (mode, delivery) in MODES.into_iter().skip(1) {
        let toy = Toy::new(refusing(mode, delivery, 1000)).expect("a heap");
        let mutator = toy.attach();
        // Survivors in every region: only evacuation could free any.
        let mut count = 0;
        let error = loop {
            let node = match mutator.alloc(layouts().node, 0) {
                Ok(node) => node,
                Err(error) => break error,
            };
            mutator.store(node, 1, mutator.root(0));
            mutator.set_root(0, Some(node));
            if let Err(error) = mutator.alloc(layouts().data, 500) {
                break error;
            }
            count += 1;
        };
        assert!(matches!(error, AllocError::HeapLimit { limit: LIMIT, .. }), "{mode}: {error}");
        assert!(count * 4000 > LIMIT / 2, "{mode}: {count} objects");
        let counters = toy.heap.snapshot().counters;
        assert!(
            counters.flips_refused > 0 && counters.evacuated_bytes == 0 || counters.pauses == 0,
            "{counters:?}"
        );
        // What was lived for is let go: regions that are wholly free come back without a flip.
        mutator.set_root(0, None);
        (0..count / 2).for_each(|_| _ = mutator.alloc(layouts().data, 500).expect("memory comes back"));
    }
}

/// Counts calls that give memory back while pages are served.
struct GivenBack {
    heap: std::sync::OnceLock<Heap>,
    before: AtomicU64,
    while_serving: AtomicU64,
}

impl GivenBack {
    fn discards(&self) -> u64 {
        let snapshot = self.heap.get().map(Heap::snapshot);
        let calls = snapshot.iter().flat_map(|snapshot| &snapshot.ioctls);
        calls.filter(|call| call.call == "discard").map(|call| call.count).sum()
    }
}

impl Listener for GivenBack {
    fn phase_started(&self, phase: Phase) {
        if phase == Phase::Serve {
            self.before.store(self.discards(), Ordering::Relaxed);
        }
    }

    fn phase_ended(&self, phase: Phase, _duration: std::time::Duration) {
        if phase == Phase::Serve {
            let given_back = self.discards() - self.before.load(Ordering::Relaxed);
            self.while_serving.fetch_add(given_back, Ordering::Relaxed);
        }
    }
}

#[test]
fn memory_is_held_until_compaction_is_over_if_that_is_asked_for() {
    for (mode, delivery) in MODES.into_iter().skip(1) {
        for hold_memory in [false, true] {
            // Room for everything twice.
            let limit_bytes = 4 * LIMIT;
            let toy = Toy::new(HeapOptions { hold_memory, limit_bytes, ..options(mode, delivery) });
            let toy = toy.expect("a heap");
            let given_back = Arc::new(GivenBack {
                heap: std::sync::OnceLock::new(),
                before: AtomicU64::new(0),
                while_serving: AtomicU64::new(0),
            });
            toy.heap.add_listener(given_back.clone());
            assert!(given_back.heap.set(toy.heap.clone()).is_ok());
            let mutator = toy.attach();
            let mut graph = Graph::new(&mutator, 5, SHAPE);
            for _ in 0..6 {
                (0..700).for_each(|_| _ = graph.step());
                mutator.blocked(|| toy.heap.collect_with(Pressure::Everything));
                assert!(graph.check() > 0);
            }
            let counters = toy.heap.snapshot().counters;
            assert!(counters.regions_evacuated > 6, "{mode}: {counters:?}");
            let while_serving = given_back.while_serving.load(Ordering::Relaxed);
            match (hold_memory, mode) {
                (true, _) => assert_eq!(while_serving, 0, "{mode}, {delivery:?}"),
                (false, Mode::ConcurrentCopy) => assert!(while_serving > 0, "{mode}, {delivery:?}"),
                // What is moved away need not be given back.
                (false, _) => {}
            }
            let held = toy.heap.memory().held;
            assert_eq!((held.evacuated, held.drained, held.staging), (0, 0, 0), "{mode}: {held:?}");
        }
    }
}
