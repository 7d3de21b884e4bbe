//! What the demo programs have in common: a *workload* runs on a heap with some mutators for some time
//! and says what it did and whether the results were right.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use strikeslip::{Heap, Mode, Mutator, OutOfMemory};

use crate::index::Mismatches;

/// How a workload is to run.
#[derive(Copy, Clone, Debug)]
pub struct Plan {
    /// Mutator threads.
    pub mutators: usize,
    /// How long the timed part runs.
    pub time: Duration,
    /// Seed of everything that is chosen at random.
    pub seed: u64,
    /// The heap's limit.
    pub heap_bytes: u64,
    /// Bytes that a workload which can choose keeps live.
    pub live_bytes: u64,
}

/// Something to run on a heap.
pub trait Workload: Sync {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Runs it. For the same plan, the checksum is the same in every mode and delivery.
    ///
    /// # Errors
    /// [`RunError`] if it could not be completed.
    fn run(&self, heap: &Heap, plan: &Plan, meter: &Meter) -> Result<Outcome, RunError>;
}

/// Why a workload could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The heap ran out of memory, in one of three ways.
    #[error("out of memory: {0}")]
    OutOfMemory(#[from] OutOfMemory),
    /// A thread could not become a mutator.
    #[error("cannot attach a mutator: {0}")]
    Attach(String),
}

/// What a workload did.
#[derive(Debug)]
pub struct Outcome {
    /// Operations in the timed part.
    pub operations: u64,
    /// Length of the timed part.
    pub time: Duration,
    /// Of the results; depends on the seed only.
    pub checksum: u64,
    /// What was wrong.
    pub mismatches: Mismatches,
    /// Bytes of heap in use at the end of the timed part, before a last collection ..
    pub used_before_bytes: u64,
    /// .. and after it.
    pub used_after_bytes: u64,
    /// Figures of the index, if it was one.
    pub index: Option<IndexFigures>,
}

/// What only the index job has.
#[derive(Debug)]
pub struct IndexFigures {
    /// Documents in the index.
    pub documents: u64,
    /// Different words at the end.
    pub words: u64,
    /// Postings at the end.
    pub postings: u64,
    /// Time to build the index, and bytes of text in it then.
    pub build: (Duration, u64),
    /// Documents replaced in the timed part, and bytes of their new texts.
    pub replaced: (u64, u64),
    /// Documents checked while the index changed.
    pub checked: u64,
    /// Answers that came from the cache.
    pub cached: u64,
    /// Nanoseconds from question to answer.
    pub query_ns: Histogram<u64>,
}

/// A histogram for latencies in nanoseconds.
///
/// # Panics
/// Never: its bounds are valid constants.
#[must_use]
pub fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("valid bounds")
}

/// What the progress line shows, and how threads learn that another one failed.
#[derive(Debug, Default)]
pub struct Meter {
    operations: AtomicU64,
    failed: AtomicBool,
}

impl Meter {
    /// Counts operations.
    pub fn count(&self, operations: u64) {
        self.operations.fetch_add(operations, Ordering::Relaxed);
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Whether a mutator failed, so that the others need not go on.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Runs `body` on so many new threads, each a mutator with a number, and returns their results in order.
///
/// # Errors
/// The first error of any of them.
///
/// # Panics
/// If one of them did.
pub fn run_mutators<T: Send>(
    heap: &Heap,
    mutators: usize,
    meter: &Meter,
    body: impl Fn(&mut Mutator, usize) -> Result<T, RunError> + Sync,
) -> Result<Vec<T>, RunError> {
    let body = &body;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..mutators)
            .map(|number| {
                scope.spawn(move || {
                    let result = attached(heap, |m| body(m, number));
                    if result.is_err() {
                        meter.failed.store(true, Ordering::Relaxed);
                    }
                    result
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Runs `body` as a mutator on this thread.
///
/// # Errors
/// Those of `body`, and [`RunError::Attach`].
pub fn attached<T>(
    heap: &Heap,
    body: impl FnOnce(&mut Mutator) -> Result<T, RunError>,
) -> Result<T, RunError> {
    heap.attach(body).map_err(|error| RunError::Attach(error.to_string()))?
}

/// Says when a mutator's timed part is over.
#[derive(Debug)]
pub struct Timer<'a> {
    end: Instant,
    heap: &'a Heap,
    /// Where to stop although there is time left: what is allocated cannot be reclaimed.
    most_used: Option<u64>,
    meter: &'a Meter,
    turns: u32,
}

impl<'a> Timer<'a> {
    /// A timer that starts now. Without a collector, the timed part also ends when a third of the heap
    /// is used, so that there is room to finish.
    #[must_use]
    pub fn start(heap: &'a Heap, plan: &Plan, time: Duration, meter: &'a Meter) -> Self {
        let most_used = (heap.mode() == Mode::NoGc).then_some(plan.heap_bytes / 3);
        Self { end: Instant::now() + time, heap, most_used, meter, turns: 0 }
    }

    /// Whether there is time left.
    pub fn go_on(&mut self) -> bool {
        // A snapshot is not free: look at memory now and then.
        let turn = self.turns;
        self.turns = turn.wrapping_add(1);
        let full = turn.is_multiple_of(16)
            && self.most_used.is_some_and(|most| self.heap.snapshot().memory.used_bytes > most);
        if full {
            self.end = Instant::now();
        }
        !full && !self.meter.failed() && Instant::now() < self.end
    }
}
