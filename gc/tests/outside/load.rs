//! Mutators that change graphs while another thread asks for collections.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use strikeslip_gc::options::{Delivery, HeapOptions, Mode, VerifyLevel};
use strikeslip_gc::plan::Pressure;
use strikeslip_gc::stats::CounterValues;
use strikeslip_gc::sys::sched::thread_id;

use crate::toy_embedder::Toy;
use crate::toy_embedder::graph::{Graph, Shape};

/// The concurrent modes with their deliveries.
pub const CONCURRENT: [(Mode, Delivery); 4] = [
    (Mode::ConcurrentCopy, Delivery::Pool),
    (Mode::ConcurrentMove, Delivery::Pool),
    (Mode::ConcurrentCopy, Delivery::InPlace),
    (Mode::ConcurrentMove, Delivery::InPlace),
];

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub fn options(mode: Mode, delivery: Option<Delivery>) -> HeapOptions {
    HeapOptions {
        limit_bytes: 64 << 20,
        mode,
        delivery,
        fall_back: false,
        verify: VerifyLevel::Spaces,
        // Everything that is rewritten is taken.
        patch_budget: 0,
        ..HeapOptions::default()
    }
}

/// A heap in exactly this mode.
pub fn heap_in(mode: Mode, delivery: Delivery) -> Toy {
    let toy = Toy::new(options(mode, Some(delivery))).expect("a heap");
    assert_eq!((toy.heap.mode(), toy.heap.delivery()), (mode, Some(delivery)), "{}", toy.heap.choice());
    toy
}

/// Mutators at work.
#[derive(Debug, Default)]
pub struct Load {
    ended: AtomicBool,
    /// Checks of a whole graph.
    pub checks: AtomicU64,
    /// The mutators' threads, as the system knows them.
    pub threads: Mutex<Vec<i32>>,
}

impl Load {
    pub fn threads(&self) -> Vec<i32> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Ends the load also when the disturbance panics: the test fails instead of hanging.
struct End<'a>(&'a Load);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// Runs `disturb` while `mutators` mutators work and collections are asked for; then until there were cycles
/// and, in concurrent modes, faults; then compares all graphs with their models. What was counted meanwhile.
pub fn under_load(toy: &Toy, mutators: u64, disturb: impl FnOnce(&Load)) -> CounterValues {
    let load = Load::default();
    let before = toy.heap.snapshot().counters;
    let since = || difference(toy.heap.snapshot().counters, before);
    std::thread::scope(|scope| {
        for seed in 0..mutators {
            let load = &load;
            scope.spawn(move || mutate(toy, load, seed + 1, mutators as usize));
        }
        scope.spawn(|| demand(toy, &load));
        let _end = End(&load);
        disturb(&load);
        let begin = Instant::now();
        let concurrent = toy.heap.mode().is_concurrent();
        while since().cycles < 3
            || load.checks.load(Ordering::Relaxed) < mutators
            || concurrent && since().mutator_faults == 0
        {
            assert!(begin.elapsed() < PATIENCE, "neither cycles nor faults: {:?}", since());
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let counters = since();
    assert!(counters.evacuated_bytes > 0, "{counters:?}");
    assert!(toy.heap.mode().is_concurrent() || counters.mutator_faults == 0, "{counters:?}");
    counters
}

fn difference(after: CounterValues, before: CounterValues) -> CounterValues {
    CounterValues {
        cycles: after.cycles - before.cycles,
        mutator_faults: after.mutator_faults - before.mutator_faults,
        evacuated_bytes: after.evacuated_bytes - before.evacuated_bytes,
        moved_bytes: after.moved_bytes - before.moved_bytes,
        copied_bytes: after.copied_bytes - before.copied_bytes,
        regions_taken: after.regions_taken - before.regions_taken,
        ..after
    }
}

fn mutate(toy: &Toy, load: &Load, seed: u64, mutators: usize) {
    load.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread_id());
    let mutator = toy.attach();
    // Roots on so many pages that their regions are taken.
    let shape = Shape {
        roots: 30_000 / mutators,
        live_bytes: (toy.heap.options().limit_bytes / 4) / mutators,
        medium_one_in: 200,
        large_one_in: 0,
    };
    let mut graph = Graph::new(&mutator, seed, shape);
    while !load.ended.load(Ordering::Relaxed) {
        for _ in 0..2000 {
            graph.step().expect("room");
            graph.roam();
        }
        assert!(graph.check() > 0);
        load.checks.fetch_add(1, Ordering::Relaxed);
    }
    graph.check();
}

fn demand(toy: &Toy, load: &Load) {
    let pressures = [Pressure::Everything, Pressure::High, Pressure::Everything, Pressure::Normal];
    for pressure in pressures.into_iter().cycle() {
        if load.ended.load(Ordering::Relaxed) {
            return;
        }
        toy.heap.collect_with(pressure);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// How often a kernel call got this answer.
pub fn calls(toy: &Toy, call: &str, answer: &str) -> u64 {
    let snapshot = toy.heap.snapshot();
    snapshot.ioctls.iter().find(|entry| (entry.call, entry.answer) == (call, answer)).map_or(0, |it| it.count)
}

/// Waits until `done`; fails after a long time.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
