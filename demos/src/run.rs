//! Runs a workload on a heap of its own, once or beside a stop-the-world run for comparison.

use strikeslip::{
    Delivery, ForcedAnswers, Heap, HeapError, HeapOptions, Mode, Snapshot, StressModes, StressOptions,
    VerifyLevel,
};

use crate::noise::{Monitor, Noise};
use crate::progress;
use crate::workload::{Meter, Outcome, Plan, RunError, Workload};

/// Everything about a run but the workload.
#[derive(Copy, Clone, Debug)]
pub struct Settings {
    /// Mode of the collector.
    pub mode: Mode,
    /// Delivery of faults; `None` for the default.
    pub delivery: Option<Delivery>,
    /// Threads that build pages; 0 for the default.
    pub workers: usize,
    /// What the verifier checks.
    pub verify: VerifyLevel,
    /// Answers of the kernel to force on the collector.
    pub forced_answers: Option<ForcedAnswers>,
    /// Whether most cycles look only at young objects.
    pub young_cycles: bool,
    /// Stress modes.
    pub stress: StressModes,
    /// How the workload is to run.
    pub plan: Plan,
    /// Whether to show no progress.
    pub quiet: bool,
    /// Whether to run once more in stop-the-world mode, if the mode is concurrent.
    pub compare: bool,
}

/// A completed run.
#[derive(Debug)]
pub struct Finished {
    /// Name of the workload.
    pub workload: &'static str,
    /// How it was to run.
    pub plan: Plan,
    /// What the heap chose, and why.
    pub choice: String,
    /// The heap's statistics at the end.
    pub snapshot: Snapshot,
    /// What the workload did.
    pub outcome: Outcome,
    /// What else went on.
    pub noise: Noise,
}

/// Why a run could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The heap could not be created.
    #[error("{0}")]
    Heap(#[from] HeapError),
    /// The workload failed.
    #[error("{0}")]
    Run(#[from] RunError),
}

/// Runs `workload` as `settings` say, and if they ask for it once more in stop-the-world mode.
///
/// # Errors
/// [`Failure`] of either run.
pub fn run(workload: &dyn Workload, settings: &Settings) -> Result<(Finished, Option<Finished>), Failure> {
    let main = run_once(workload, settings)?;
    let concurrent = main.snapshot.delivery.is_some();
    let other = if settings.compare && concurrent {
        Some(run_once(workload, &Settings { mode: Mode::StopTheWorld, delivery: None, ..*settings })?)
    } else {
        None
    };
    Ok((main, other))
}

fn run_once(workload: &dyn Workload, settings: &Settings) -> Result<Finished, Failure> {
    let heap = Heap::new(options(settings))?;
    let meter = Meter::default();
    let label = format!("{} {}", workload.name(), heap.mode().name());
    let monitor = Monitor::start();
    let result = progress::shown(&heap, &meter, &label, settings.quiet, || {
        workload.run(&heap, &settings.plan, &meter)
    });
    let noise = monitor.finish();
    Ok(Finished {
        workload: workload.name(),
        plan: settings.plan,
        choice: heap.choice().to_owned(),
        snapshot: heap.snapshot(),
        outcome: result?,
        noise,
    })
}

/// The heap's options for `settings`.
#[must_use]
pub fn options(settings: &Settings) -> HeapOptions {
    HeapOptions {
        limit_bytes: usize::try_from(settings.plan.heap_bytes).unwrap_or(usize::MAX),
        mode: settings.mode,
        delivery: settings.delivery,
        workers: settings.workers,
        verify: settings.verify,
        young_cycles: settings.young_cycles,
        stress: StressOptions { forced_answers: settings.forced_answers, modes: settings.stress },
        ..HeapOptions::default()
    }
}
