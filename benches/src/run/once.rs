//! One run, in this process. Each run has a process of its own, so that none inherits another's memory.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use strikeslip::{Heap, HeapOptions, Mode};
use strikeslip_demos::noise::Monitor;

use super::result::{Case, Noise, Run};
use crate::error::Error;
use crate::measure::distribution::Distribution;
use crate::measure::faults::FaultLog;
use crate::measure::memory::peak_resident_bytes;
use crate::measure::metered::{WINDOW_NS, metered};
use crate::measure::observed::Observed;
use crate::measure::recorder::{Cycle, Delay, Recorder};
use crate::measure::timed::Section;
use crate::workload::{Name, Outcome, Parameters, Task};

/// What is to be run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Workload, mode, size of the heap, pace. Another mode is not measured in its place.
    pub case: Case,
    /// The workload's parameters.
    pub parameters: Parameters,
    /// The heap's limit.
    pub heap_bytes: u64,
    /// Seed of all that is random.
    pub seed: u64,
    /// Whether to ask for pages of 4 KiB only.
    pub small_pages: bool,
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
        ..options(plan.heap_bytes, case.mode)
    };
    let heap = Heap::new(options)?;
    if heap.delivery() != case.delivery {
        return Err(Error::Mode(heap.choice().to_owned()));
    }
    let epoch = Instant::now();
    let recorder = Recorder::attach_at(&heap, epoch, case.delivery.map(|_| FaultLog::default()));
    let workload = case.workload.workload(&plan.parameters);
    let monitor = Monitor::start();
    let outcome = workload.run(&heap, &Task { seed: plan.seed, interval_ns: case.interval_ns, epoch })?;
    let (noise, gaps) = monitor.finish_with_gaps();
    let noise = Noise { steal_ns: noise.steal_ns, control_ns: Distribution::from(&gaps) };
    Ok(describe(plan, &heap, &outcome, &Observed::during(&outcome.section, &recorder), noise))
}

/// When operations were complete, since the begin of the section: each, or each hundredth where there are
/// millions.
fn marks(workload: Name, section: &Section) -> Vec<u64> {
    let every = if workload == Name::Lru { 100 } else { 1 };
    section.ends.iter().skip(every - 1).step_by(every).map(|end| end - section.begin_ns).collect()
}

fn describe(plan: &Plan, heap: &Heap, outcome: &Outcome, observed: &Observed, noise: Noise) -> Run {
    let section = &outcome.section;
    let flips = |value: &dyn Fn(&Cycle) -> u64| {
        Distribution::of(observed.cycles.iter().filter(|cycle| cycle.has_flip()).map(value))
    };
    let lengths = |delays: &[Delay]| Distribution::of(delays.iter().map(|delay| delay.length_ns));
    let in_place = observed.faults.iter().filter(|fault| fault.mutator != 0);
    Run {
        case: plan.case.clone(),
        seed: plan.seed,
        heap_bytes: plan.heap_bytes,
        checksum: format!("{:016x}", outcome.checksum.0),
        operations: outcome.operations,
        wall_seconds: section.length_ns() as f64 / 1e9,
        processor_seconds: section.processor.program_ns() as f64 / 1e9,
        processor: section.processor,
        handler_ns: in_place.map(|fault| fault.latency_ns).sum(),
        cycles: observed.cycles.len() as u64,
        faults: observed.faults.len() as u64,
        metered_ns: Distribution::of(metered(&marks(plan.case.workload, section), WINDOW_NS)),
        latency_ns: Distribution::of(section.operations().map(|(start, end)| end - start)),
        pauses_ns: lengths(&observed.pauses),
        stopped_ns: flips(&|cycle| cycle.summary.stopped_ns),
        safepoint_ns: flips(&|cycle| cycle.summary.safepoint_ns),
        fault_ns: Distribution::of(observed.faults.iter().map(|fault| fault.latency_ns)),
        memory_wait_ns: lengths(&observed.memory_waits),
        bytes: section.bytes,
        peak_rss_bytes: peak_resident_bytes(),
        peak_heap_bytes: heap.snapshot().memory.peak_resident_bytes,
        noise,
    }
}
