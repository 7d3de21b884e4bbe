//! Whole cycles on simulated pages, by threads that really run beside each other: what ThreadSanitizer can see of the
//! collector (`.ci/sanitize thread`), since it knows nothing of faults and of pages that the kernel moves.
//!
//! `STRIKESLIP_BESIDE_SEEDS` is how many seeds to try.

mod simulated;
mod toy_embedder;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use simulated::{Threads, random_options};
use strikeslip_gc::extent::Extent;
use strikeslip_gc::options::Delivery;
use strikeslip_gc::plan::Pressure;
use strikeslip_gc::simulation::SimulatedHeap;
use strikeslip_gc::stats::Snapshot;
use toy_embedder::Toy;
use toy_embedder::graph::{Graph, Random, Shape, mix};

/// Does `work` until all else has ended.
fn until(ended: &AtomicBool, work: impl Fn()) {
    while !ended.load(Ordering::Relaxed) {
        work();
        std::thread::yield_now();
    }
}

fn mutate(toy: &Toy, seed: u64, shape: Shape, steps: usize) {
    // Twice, so that it attaches and detaches in the middle of cycles.
    for seed in [seed, mix(seed)] {
        let mutator = toy.attach();
        let mut graph = Graph::new(&mutator, seed, shape);
        for step in 0..steps {
            // Out of memory is legitimate: large objects need regions side by side.
            let _ = graph.step();
            graph.roam();
            if step % 256 == 0 {
                graph.check();
            }
        }
        assert!(graph.check() > 0);
    }
}

fn run(seed: u64) -> Snapshot {
    let mut random = Random(mix(seed));
    let options = random_options(&mut random);
    let mutators = 2 + random.below(2);
    let shape = Shape {
        roots: [300, 3000, 30_000][random.below(3)],
        live_bytes: options.limit_bytes / (3 * mutators),
        medium_one_in: 20,
        large_one_in: [0, 400][random.below(2)],
    };
    let pool = options.delivery == Some(Delivery::Pool);
    let (toy, heap) = Toy::simulated(options, Arc::new(Threads), random.next()).expect("a heap");
    let (running, ended) = (AtomicUsize::new(mutators), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let heap: &SimulatedHeap = &heap;
        let (toy, running, ended) = (&toy, &running, &ended);
        if pool {
            scope.spawn(|| until(ended, || _ = heap.read_events()));
            scope.spawn(|| until(ended, || heap.drain_faults()));
        }
        let threads: Vec<_> = (0..mutators as u64)
            .map(|nth| {
                scope.spawn(move || {
                    struct Ended<'a>(&'a AtomicUsize);
                    impl Drop for Ended<'_> {
                        fn drop(&mut self) {
                            self.0.fetch_sub(1, Ordering::Relaxed);
                        }
                    }
                    let _ended = Ended(running);
                    mutate(toy, seed ^ mix(nth + 1), shape, 1500);
                })
            })
            .collect();
        let pressures = [Pressure::Normal, Pressure::High, Pressure::Everything, Pressure::Everything];
        while running.load(Ordering::Relaxed) > 0 {
            let extent = [Extent::Young, Extent::Full][random.below(2)];
            heap.collect(pressures[random.below(4)], extent);
            std::thread::yield_now();
        }
        ended.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().expect("a mutator that did not panic"));
    });
    heap.heap.snapshot()
}

#[test]
fn threads_beside_each_other_agree_with_their_models() {
    let seeds = std::env::var("STRIKESLIP_BESIDE_SEEDS").ok();
    let seeds = seeds.map_or(6, |text| text.parse().unwrap_or_else(|_| panic!("{text} is no number")));
    let (mut cycles, mut faults) = (0, 0);
    for seed in 0..seeds {
        println!("seed {seed}");
        let snapshot = run(seed);
        cycles += snapshot.counters.cycles;
        faults += snapshot.fault_ns.count;
    }
    println!("{cycles} cycles, {faults} faults");
    assert!(cycles > 5 && faults > 20, "{cycles} cycles, {faults} faults");
}
