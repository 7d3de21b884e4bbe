//! `strikeslip contention`: what per-VMA locks buy, on the running kernel and with the real heap.
//!
//! Before Linux 6.9 every `UFFDIO_COPY` and `UFFDIO_MOVE` took the process-wide `mmap_lock` for reading and queued
//! behind whoever held it for writing. Here mutators and compaction run while storm threads take it for writing,
//! and a prober does single operations: those that take the lock of one mapping now, and beside them some that
//! still take `mmap_lock`. A storm that only computes is the control.
//!
//! | module | what |
//! |---|---|
//! | [`storms`] | the threads that write |
//! | `compaction` | mutators and collector beside a storm |
//! | [`prober`] | single operations beside a storm |
//! | `threads`, `tracefs` | what the scheduler and trace events say |
//! | `queue_lock` | the lock of the model `--what-if-mmap-lock` |
//! | [`figures`], [`table`], [`picture`] | what comes out |
//!
//! [`run`] needs no file: without `/proc` and tracefs it says less. So it can be all that an init process does.

pub(crate) mod cli;
mod compaction;
pub mod figures;
mod memory;
pub mod picture;
pub mod prober;
mod queue_lock;
pub mod storms;
pub mod table;
mod threads;
mod tracefs;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use strikeslip::gc::sys::sched::kernel_release;
use strikeslip::{Delivery, HeapError, Mode};

use self::compaction::Setting;
use self::figures::{Compaction, Median, Probe};
use self::prober::{Operation, Prober};
use self::queue_lock::QueueLock;
use self::storms::{Running, Storm};
use self::threads::SchedulerStatistics;
use self::tracefs::Tracer;
use crate::workload::RunError;

/// Everything about an experiment.
#[derive(Clone, Debug, Serialize)]
pub struct Options {
    /// The storms, one after another in each round.
    pub storms: Vec<Storm>,
    /// Threads of a storm.
    pub storm_threads: usize,
    /// Mutators.
    pub mutators: usize,
    /// Threads that build pages; 0 for the heap's default.
    pub workers: usize,
    /// How faults are delivered; `None` for the heap's default.
    pub delivery: Option<Delivery>,
    /// The modes of the heap to run in. One that the kernel does not offer is left out, with a note.
    pub modes: Vec<Mode>,
    /// Whether heaps give evacuated memory back while they serve pages, and not (their default) when a compaction is
    /// over. That is `madvise`, which takes `mmap_lock`.
    pub give_back: bool,
    /// Whether single operations are measured too.
    pub single_operations: bool,
    /// Whether trace events are counted, where they can be had. The kernel rewrites its own code to turn them on and
    /// off, which an emulator may get wrong.
    pub trace: bool,
    /// Bytes that mutators keep live, all together.
    pub live_bytes: usize,
    /// Bytes whose protection [`Storm::Protect`] changes, all threads together.
    pub protect_bytes: usize,
    /// Time that is measured, all together. Setting up comes on top.
    #[serde(serialize_with = "seconds")]
    pub time: Duration,
    /// Rounds; figures are medians over them.
    pub rounds: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// Whether each page operation takes a process-wide lock in user space as well, and each operation of a storm
    /// holds it for writing: a model.
    pub what_if_mmap_lock: bool,
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl Default for Options {
    /// About a minute, with one storm thread for each processor but the first.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            storms: Storm::ALL.to_vec(),
            storm_threads: (processors - 1).max(1),
            mutators: 1,
            workers: 0,
            delivery: None,
            modes: vec![Mode::ConcurrentCopy, Mode::ConcurrentMove],
            give_back: false,
            single_operations: true,
            trace: true,
            live_bytes: 48 << 20,
            protect_bytes: 256 << 20,
            time: Duration::from_secs(36),
            rounds: 3,
            seed: 1,
            what_if_mmap_lock: false,
        }
    }
}

/// Why an experiment could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A heap could not be created.
    #[error("{0}")]
    Heap(#[from] HeapError),
    /// A mutator failed.
    #[error("{0}")]
    Run(#[from] RunError),
    /// A storm could not be raised.
    #[error("no storm: {0}")]
    Storm(io::Error),
    /// The prober could not go on.
    #[error("no single operations: {0}")]
    Probe(io::Error),
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// Processors that the process may use.
    pub processors: usize,
    /// How it was done.
    pub options: Options,
    /// One line each: what could not be had, and why.
    pub notes: Vec<String>,
    /// By storm.
    pub storms: Vec<StormReport>,
}

/// What came out beside one storm.
#[derive(Clone, Debug, Serialize)]
pub struct StormReport {
    /// The storm.
    pub storm: Storm,
    /// Mutators and compaction, by mode of the heap.
    pub compaction: Vec<Rounds<Mode, Compaction>>,
    /// Single operations.
    pub probes: Vec<Rounds<Operation, Probe>>,
}

/// Figures of each round, and their median.
#[derive(Clone, Debug, Serialize)]
pub struct Rounds<K, F> {
    /// What they are of.
    pub of: K,
    /// Each figure's own median.
    pub median: F,
    /// Of each round.
    pub rounds: Vec<F>,
}

impl<K, F: Median + Clone + Default> Rounds<K, F> {
    const fn new(of: K, median: F) -> Self {
        Self { of, median, rounds: vec![] }
    }

    fn finish(&mut self) {
        if !self.rounds.is_empty() {
            self.median = F::median(&self.rounds.iter().collect::<Vec<_>>());
        }
    }
}

impl Report {
    /// The report in one line, for programs: JSON as documented in `demos/JSON.md`.
    ///
    /// # Panics
    /// Never: a report can be written as JSON.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report has string keys only")
    }

    /// Wrong objects that mutators saw: 0, or the collector is broken.
    #[must_use]
    pub fn mismatches(&self) -> u64 {
        let rounds = self.storms.iter().flat_map(|storm| &storm.compaction).flat_map(|mode| &mode.rounds);
        rounds.map(|round| round.mismatches).sum()
    }

    /// What came out beside this storm.
    #[must_use]
    pub fn beside(&self, storm: Storm) -> Option<&StormReport> {
        self.storms.iter().find(|report| report.storm == storm)
    }
}

impl StormReport {
    /// Medians of a single operation.
    #[must_use]
    pub fn probe(&self, operation: Operation) -> Option<&Probe> {
        self.probes.iter().find(|probe| probe.of == operation).map(|probe| &probe.median)
    }
}

/// Does the experiment. `progress` is told what comes next, in a few words.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report, Failure> {
    let mut notes = vec![];
    let noted =
        |notes: &mut Vec<String>, result: Result<_, String>| result.map_err(|note| notes.push(note)).ok();
    let tracer = options.trace.then(|| noted(&mut notes, Tracer::open())).flatten().map(Arc::new);
    let statistics = SchedulerStatistics::on();
    let _statistics = statistics.map_err(|note| notes.push(note)).ok();
    let prober = Prober::new().map_err(Failure::Probe)?;
    let modes = offered_modes(options, &prober, &mut notes);
    let is_measured = |&operation: &_| options.single_operations && prober.offers(operation);
    let operations: Vec<_> = Operation::ALL.into_iter().filter(is_measured).collect();
    let parts =
        options.rounds * options.storms.len() * (modes.len() + usize::from(options.single_operations));
    let time = options.time / u32::try_from(parts).unwrap_or(u32::MAX).max(1);
    let model = options.what_if_mmap_lock.then(|| Arc::new(QueueLock::default()));
    let mut storms: Vec<_> = options
        .storms
        .iter()
        .map(|&storm| StormReport {
            storm,
            compaction: modes.iter().map(|&mode| Rounds::new(mode, Compaction::default())).collect(),
            probes: operations.iter().map(|&of| Rounds::new(of, Probe::default())).collect(),
        })
        .collect();
    for round in 1..=options.rounds {
        for report in &mut storms {
            let storm = report.storm;
            let label = format!("round {round} of {}, storm {storm}", options.rounds);
            for by_mode in &mut report.compaction {
                progress(&format!("{label}: {}", by_mode.of));
                let (model, tracer) = (model.as_ref(), tracer.as_ref());
                let setting = Setting { options, mode: by_mode.of, storm, time, model, tracer };
                by_mode.rounds.push(compaction::run(&setting)?);
            }
            if report.probes.is_empty() {
                continue;
            }
            progress(&format!("{label}: single operations"));
            let raging = Running::start(storm, options.storm_threads, options.protect_bytes, model.as_ref())
                .map_err(Failure::Storm)?;
            for probe in &mut report.probes {
                let time = time / u32::try_from(operations.len()).unwrap_or(1);
                let figures = prober.probe(probe.of, time, model.as_deref(), tracer.as_deref());
                probe.rounds.push(figures.map_err(Failure::Probe)?);
            }
            drop(raging);
        }
    }
    for report in &mut storms {
        report.compaction.iter_mut().for_each(Rounds::finish);
        report.probes.iter_mut().for_each(Rounds::finish);
    }
    let kernel = kernel_release().map_or_else(|_| "unknown".to_owned(), |(release, _)| release);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Report { kernel, processors, options: options.clone(), notes, storms })
}

/// The modes that the kernel has, with a note for each that it does not have.
fn offered_modes(options: &Options, prober: &Prober, notes: &mut Vec<String>) -> Vec<Mode> {
    let has_move = prober.offers(Operation::Move);
    if !has_move {
        notes.push("no UFFDIO_MOVE: this kernel does not have it (Linux 6.8)".to_owned());
    }
    options.modes.iter().copied().filter(|&mode| has_move || mode != Mode::ConcurrentMove).collect()
}
