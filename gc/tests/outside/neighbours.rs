//! Many heaps in one process, and heaps that come and go.

use std::sync::atomic::{AtomicBool, Ordering};

use strikeslip_gc::options::HeapOptions;
use strikeslip_gc::plan::Pressure;

use super::load::{CONCURRENT, options, wait_until};
use crate::child::{in_child, mappings, open_files};
use crate::toy_embedder::Toy;
use crate::toy_embedder::graph::{Graph, Shape};

fn small_heap(nth: usize) -> Toy {
    let (mode, delivery) = CONCURRENT[nth % 4];
    let options = options(mode, Some(delivery));
    Toy::new(HeapOptions { limit_bytes: 16 << 20, workers: 1, mark_workers: 1, ..options }).expect("a heap")
}

/// Changes a graph until told to end.
fn work(toy: &Toy, seed: u64, ended: &AtomicBool) {
    let mutator = toy.attach();
    let shape = Shape { roots: 100, live_bytes: 3 << 20, medium_one_in: 100, large_one_in: 0 };
    let mut graph = Graph::new(&mutator, seed, shape);
    while !ended.load(Ordering::Relaxed) {
        for _ in 0..500 {
            graph.step().expect("room");
            graph.roam();
        }
        graph.check();
    }
}

/// A thread for each heap, and one that asks them all for collections until each has had faults.
fn work_in_all(heaps: &[Toy]) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        for (nth, toy) in heaps.iter().enumerate() {
            let ended = &ended;
            scope.spawn(move || work(toy, nth as u64, ended));
        }
        let _end = End(&ended);
        wait_until("cycles with faults in each heap", || {
            let mut all = true;
            for toy in heaps {
                let counters = toy.heap.snapshot().counters;
                if counters.cycles < 3 || counters.mutator_faults == 0 {
                    all = false;
                    toy.heap.collect_with(Pressure::Everything);
                }
            }
            all
        });
    });
}

#[test]
fn many_heaps_leave_nothing_behind() {
    // A process of its own: descriptors and mappings are counted.
    if !in_child("neighbours::many_heaps_leave_nothing_behind") {
        return;
    }
    let before = open_files();
    let heaps: Vec<_> = (0..24).map(small_heap).collect();
    work_in_all(&heaps);
    drop(heaps);
    wait_until("the last threads' ends", || open_files() == before);
    // Stacks and arenas of threads that ended are kept by the C library; all that it keeps is there now.
    let settled = mappings();
    for round in 0..12 {
        let heaps: Vec<_> = (round..round + 3).map(small_heap).collect();
        if round % 4 == 0 {
            work_in_all(&heaps);
        }
    }
    wait_until("the last threads' ends", || open_files() == before);
    wait_until("as few mappings as before", || mappings() <= settled + 8);
}
