//! One run, in this process. Each run has a process of its own, so that none inherits another's memory.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use strikeslip::gc::Extent;
use strikeslip::{Heap, HeapOptions, Mode};
use strikeslip_demos::noise::Monitor;

use super::history::History;
use super::result::{Case, Noise, Run};
use super::trace;
use crate::error::Error;
use crate::measure::distribution::Distribution;
use crate::measure::faults::FaultLog;
use crate::measure::metered::{WINDOW_NS, metered};
use crate::measure::observed::Observed;
use crate::measure::recorder::{Cycle, Delay, Recorder};
use crate::measure::sampler::{Sample, Sampler, mean, thinned};
use crate::measure::utilisation::{AFTER_MS, Stolen, after_flips, curve};
use crate::workload::{Name, Outcome, Parameters, Task};

/// What is to be run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Workload, mode, size of the heap, pace. Another mode is not measured in its place.
    pub case: Case,
    /// The workload's parameters.
    pub parameters: Parameters,
    /// Bytes that are live when most is, if they were measured.
    pub live_bytes: Option<u64>,
    /// The heap's limit.
    pub heap_bytes: u64,
    /// Seed of all that is random.
    pub seed: u64,
    /// Whether to ask for pages of 4 KiB only.
    pub small_pages: bool,
    /// Whether there may be young cycles.
    pub young_cycles: bool,
    /// Where to write a trace of the run, if anywhere.
    pub trace: Option<PathBuf>,
}

/// The heap's options for a limit in a mode.
fn options(limit_bytes: u64, mode: Mode) -> HeapOptions {
    HeapOptions {
        limit_bytes: usize::try_from(limit_bytes).unwrap_or(usize::MAX),
        mode,
        fall_back: false,
        ..HeapOptions::default()
    }
}

/// Bytes that are live when most is, as the collector finds them.
///
/// # Errors
/// [`Error`]; the heap for this is of `room_bytes`.
pub fn live_bytes(workload: Name, parameters: &Parameters, seed: u64, room_bytes: u64) -> Result<u64, Error> {
    let heap = Heap::new(options(room_bytes, Mode::StopTheWorld))?;
    let mut most = 0;
    workload.workload(parameters).most_live(&heap, seed, &mut |m| {
        m.collect();
        most = m.heap().snapshot().memory.live_bytes.max(most);
    })?;
    Ok(most)
}

/// Runs a workload once and says what was measured.
///
/// # Errors
/// [`Error`].
pub fn run(plan: &Plan) -> Result<Run, Error> {
    let case = &plan.case;
    let options = HeapOptions {
        delivery: case.delivery,
        huge_pages: !plan.small_pages,
        young_cycles: plan.young_cycles,
        ..options(plan.heap_bytes, case.mode)
    };
    let heap = Heap::new(options)?;
    if heap.delivery() != case.delivery {
        return Err(Error::Mode(heap.choice().to_owned()));
    }
    let epoch = Instant::now();
    let recorder = Recorder::attach_at(&heap, epoch, case.delivery.map(|_| FaultLog::default()));
    let workload = case.workload.workload(&plan.parameters);
    let (monitor, sampler) = (Monitor::start(), Sampler::start(&heap, epoch));
    let outcome = workload.run(&heap, &Task { seed: plan.seed, interval_ns: case.interval_ns, epoch })?;
    let (noise, gaps) = monitor.finish_with_gaps();
    let seen = Seen {
        observed: Observed::during(&outcome.section, &recorder),
        memory: sampler.finish(),
        noise: Noise { steal_ns: noise.steal_ns, control_ns: Distribution::from(&gaps) },
        peak_heap_bytes: heap.snapshot().memory.peak_resident_bytes,
        outcome,
    };
    if let Some(path) = &plan.trace {
        trace::write(path, &case.to_string(), &seen)?;
    }
    Ok(seen.describe(plan))
}

/// All that was seen of a run.
#[derive(Debug)]
pub(super) struct Seen {
    pub outcome: Outcome,
    pub observed: Observed,
    pub memory: Vec<Sample>,
    pub noise: Noise,
    pub peak_heap_bytes: u64,
}

impl Seen {
    /// What was stolen from each mutator.
    fn stolen(&self) -> Vec<Stolen> {
        let mutators = 1..=self.outcome.mutators;
        mutators.map(|number| Stolen::from_mutator(number, &self.outcome.section, &self.observed)).collect()
    }

    fn describe(self, plan: &Plan) -> Run {
        let (section, observed) = (&self.outcome.section, &self.observed);
        let flips: Vec<_> = observed.cycles.iter().filter(|cycle| cycle.has_flip()).collect();
        let of_flips = |value: fn(&Cycle) -> u64| Distribution::of(flips.iter().map(|cycle| value(cycle)));
        let lengths = |delays: &[Delay]| Distribution::of(delays.iter().map(|delay| delay.length_ns));
        let in_place = observed.faults.iter().filter(|fault| fault.mutator != 0);
        let stolen = self.stolen();
        let last = section.end_ns.saturating_sub(AFTER_MS[AFTER_MS.len() - 1] * 1_000_000);
        let resumed: Vec<_> =
            flips.iter().map(|cycle| cycle.resumed).filter(|&resumed| resumed <= last).collect();
        let timed: Vec<_> =
            self.memory.iter().filter(|sample| sample.at_ns >= section.begin_ns).copied().collect();
        let requests = requests(plan.case.workload, &section.operations);
        let metered = |window| Distribution::of(metered(&requests, window));
        Run {
            case: plan.case.clone(),
            parameters: plan.parameters,
            seed: plan.seed,
            live_bytes: plan.live_bytes,
            heap_bytes: plan.heap_bytes,
            checksum: format!("{:016x}", self.outcome.checksum.0),
            operations: self.outcome.operations,
            mutators: self.outcome.mutators,
            wall_seconds: section.length_ns() as f64 / 1e9,
            processor_seconds: section.processor.program_ns() as f64 / 1e9,
            processor: section.processor,
            handler_ns: in_place.map(|fault| fault.latency_ns).sum(),
            cycles: observed.cycles.len() as u64,
            young_cycles: observed.cycles.iter().filter(|cycle| cycle.summary.extent == Extent::Young).count()
                as u64,
            faults: observed.faults.len() as u64,
            faults_lost: observed.faults_lost,
            latency_ns: Distribution::of(section.latencies()),
            metered_ns: [metered(Some(WINDOW_NS)), metered(None)],
            pauses_ns: lengths(&observed.pauses),
            stopped_ns: of_flips(|cycle| cycle.summary.stopped_ns),
            safepoint_ns: of_flips(|cycle| cycle.summary.safepoint_ns),
            fault_ns: Distribution::of(observed.faults.iter().map(|fault| fault.latency_ns)),
            memory_wait_ns: lengths(&observed.memory_waits),
            utilisation: curve(&stolen),
            after_flip: after_flips(&stolen, &resumed),
            bytes: section.bytes,
            peak_rss_bytes: section.peak_rss_bytes,
            mean_rss_bytes: mean(&timed, |sample| sample.resident),
            peak_heap_bytes: self.peak_heap_bytes,
            mean_heap_bytes: mean(&timed, |sample| sample.held),
            memory: thinned(&self.memory),
            history: History::new(section, observed),
            noise: self.noise,
        }
    }
}

/// Operations as they are metered: each, or where there are millions, each hundred as one.
fn requests(workload: Name, operations: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let together = if workload == Name::Lru { 100 } else { 1 };
    operations.chunks_exact(together).map(|chunk| (chunk[0].0, chunk[together - 1].1)).collect()
}
