//! The long run: the demos' workloads on heaps with random modes and options, one after another, and between them a
//! look at what the process holds.
//!
//! A round is a heap of its own, drawn from the seed and the round's number, and a workload on it. Anything that
//! is not as it must be is a difference:
//!
//! 1. The workload finds wrong results, or cannot be completed.
//! 2. Its checksum is another one than in an earlier round: the same recipe in every mode gives the same.
//! 3. The heap's account of memory is not what the system has given.
//! 4. After the heap is gone, descriptors, threads or mappings are left.
//! 5. From one part of the run to the next, resident memory grows.

pub mod cli;
mod draw;
mod report;
mod system;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strikeslip::gc::events::{CycleSummary, Listener};
use strikeslip::gc::geometry::STRIDE_BYTES;
use strikeslip::{Heap, VerifyLevel};

use crate::churn::Churn;
use crate::index::IndexJob;
use crate::progress;
use crate::run::Failure;
use crate::workload::{Meter, Outcome, Workload};
use draw::{Job, Recipes, Round};
use report::{Report, Totals};
use system::Process;

/// By how much the account may be above what the system says: regions that are being filled count whole, and so do
/// large objects whose pages nobody has touched yet.
const MOST_UNTOUCHED: f64 = 0.4;
/// By how much it may be below: huge pages that the system puts together by itself.
const MOST_UNCOUNTED: u64 = 8 << 20;
/// How long threads that were told to end may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long, and which rounds.
#[derive(Copy, Clone, Debug)]
pub struct Settings {
    /// Of everything that is drawn.
    pub seed: u64,
    /// No round begins after this time.
    pub time: Duration,
    /// Only this round.
    pub round: Option<u64>,
    /// Whether to show no progress.
    pub quiet: bool,
}

/// Bytes that the verifier looked at: all that it reached, in each cycle.
#[derive(Debug, Default)]
struct Verified(AtomicU64);

impl Listener for Verified {
    fn cycle_ended(&self, summary: &CycleSummary) {
        self.0.fetch_add(summary.marked_bytes, Ordering::Relaxed);
    }
}

/// Runs rounds until the time is over.
#[must_use]
pub fn run(settings: &Settings) -> Report {
    let recipes = Recipes::new(settings.seed);
    let mut totals = Totals::new(Process::now());
    let begin = Instant::now();
    let first = settings.round.unwrap_or(0);
    for number in first.. {
        if number > first && (settings.round.is_some() || begin.elapsed() >= settings.time) {
            break;
        }
        let round = Round::draw(settings.seed, number, &recipes);
        let minutes = begin.elapsed().as_secs_f64() / 60.0;
        let label = format!("{minutes:.1} min, round {number}: {}", round.job.name());
        run_round(&round, &recipes, &label, settings.quiet, &mut totals);
        let left = left_behind(&totals.at_start);
        totals.round_ended(&round, left);
    }
    totals.report(settings, begin.elapsed())
}

/// The process after a round: when the heap's last threads have ended, or too much time has passed.
fn left_behind(at_start: &Process) -> Process {
    let begin = Instant::now();
    loop {
        let now = Process::now();
        let is_clean = now.threads <= at_start.threads && now.descriptors <= at_start.descriptors;
        if is_clean || begin.elapsed() > PATIENCE {
            return now;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn run_round(round: &Round, recipes: &Recipes, label: &str, quiet: bool, totals: &mut Totals) {
    let heap = match Heap::new(round.options.clone()) {
        Ok(heap) => heap,
        Err(error) => return totals.difference(round, format_args!("no heap: {error}")),
    };
    let verified = Arc::new(Verified::default());
    if round.options.verify >= VerifyLevel::Reachable {
        heap.collector().add_listener(verified.clone());
    }
    let result = work(round, recipes, &heap, label, quiet);
    totals.verified_by_verifier += verified.0.load(Ordering::Relaxed);
    totals.add(round, &heap.snapshot());
    match result {
        Ok(outcome) => {
            totals.check(round, &outcome);
            check_account(round, &heap, totals);
        }
        Err(error) => totals.difference(round, format_args!("{error}")),
    }
}

fn work(round: &Round, recipes: &Recipes, heap: &Heap, label: &str, quiet: bool) -> Result<Outcome, Failure> {
    let meter = Meter::default();
    let run = |workload: &dyn Workload| {
        let label = format!("{label} {}", heap.mode());
        progress::shown(heap, &meter, &label, quiet, || workload.run(heap, &round.plan, &meter))
    };
    Ok(match round.job {
        Job::Churn => run(&Churn),
        Job::Index { corpus } => run(&IndexJob::new(&recipes.corpora[corpus])),
    }?)
}

/// Compares the account with the system's, while nothing changes: the workload's threads are gone.
fn check_account(round: &Round, heap: &Heap, totals: &mut Totals) {
    heap.collect();
    let held = heap.snapshot().memory.held;
    let counted = held.free
        + held.objects
        + held.roots
        + held.evacuated
        + held.drained
        + held.destinations
        + held.staging
        + held.copied;
    let range = heap.collector().range();
    let end = range.base() + range.windows() as usize * STRIDE_BYTES;
    let Some(there) = system::resident_bytes(range.base(), end) else { return };
    totals.largest_untouched = totals.largest_untouched.max(counted.saturating_sub(there));
    totals.largest_uncounted = totals.largest_uncounted.max(there.saturating_sub(counted));
    let most_untouched = (round.options.limit_bytes as f64 * MOST_UNTOUCHED) as u64;
    if counted > there + most_untouched || there > counted + MOST_UNCOUNTED {
        totals.difference(round, format_args!("the system has given {there} bytes, the account is {held:?}"));
    }
}
