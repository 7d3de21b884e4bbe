//! Three parts that allocate, discard and re-link, each on its own objects and each checking itself:
//! `trees`, `graph`, `arrays`. Every mutator has its own share of them; what they share is the
//! heap.
//!
//! Like the index, each part ends by bringing everything to a state that follows from the seed; the
//! checksum is of that state, read from the heap.

mod arrays;
mod graph;
mod trees;

use std::time::Duration;

use strikeslip::{Heap, Mutator};

use crate::index::Mismatches;
use crate::random::{Random, mix};
use crate::workload::{Meter, Outcome, Plan, RunError, Timer, Workload, run_mutators};

/// The workload `churn`.
#[derive(Copy, Clone, Debug, Default)]
pub struct Churn;

/// What a mutator did in one part.
#[derive(Debug, Default)]
struct Tally {
    operations: u64,
    checksum: u64,
    mismatches: Mismatches,
}

/// What a mutator needs to know to do its share of a part.
#[derive(Debug)]
struct Share<'a> {
    heap: &'a Heap,
    plan: &'a Plan,
    meter: &'a Meter,
    /// Seed of this mutator in this part.
    seed: u64,
    /// Bytes to keep live.
    live_bytes: u64,
    time: Duration,
}

impl Share<'_> {
    fn random(&self) -> Random {
        Random::new(self.seed, 0)
    }

    fn timer(&self) -> Timer<'_> {
        Timer::start(self.heap, self.plan, self.time, self.meter)
    }
}

type Part = fn(&mut Mutator, &Share<'_>) -> Result<Tally, RunError>;

const PARTS: [Part; 3] = [trees::run, graph::run, arrays::run];

impl Workload for Churn {
    fn name(&self) -> &'static str {
        "churn"
    }

    fn run(&self, heap: &Heap, plan: &Plan, meter: &Meter) -> Result<Outcome, RunError> {
        let time = plan.time / PARTS.len() as u32;
        let mut total = Tally::default();
        for (number, part) in PARTS.iter().enumerate() {
            let tallies = run_mutators(heap, plan.mutators, meter, |m, thread| {
                let seed = mix(plan.seed ^ mix((number * 1024 + thread) as u64));
                let live_bytes = plan.live_bytes / plan.mutators as u64;
                part(m, &Share { heap, plan, meter, seed, live_bytes, time })
            })?;
            for tally in tallies {
                total.operations += tally.operations;
                total.checksum = mix(total.checksum ^ tally.checksum);
                total.mismatches.merge(tally.mismatches);
            }
        }
        let used_before_bytes = heap.snapshot().memory.used_bytes;
        heap.collect();
        Ok(Outcome {
            operations: total.operations,
            time: time * PARTS.len() as u32,
            checksum: total.checksum,
            mismatches: total.mismatches,
            used_before_bytes,
            used_after_bytes: heap.snapshot().memory.used_bytes,
            index: None,
        })
    }
}
