//! What one run found, as it is kept in the report.

use std::fmt;

use serde::{Deserialize, Serialize};
use strikeslip::{Delivery, Mode};

use super::history::History;
use crate::measure::distribution::Distribution;
use crate::measure::processor::ProcessorTime;
use crate::measure::sampler::Sample;
use crate::measure::timed::Bytes;
use crate::measure::utilisation::{AfterFlip, Point};
use crate::workload::{Name, Parameters};

/// What is run: one cell of the matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The workload.
    pub workload: Name,
    /// The collector's mode.
    pub mode: Mode,
    /// The delivery of faults, in concurrent modes.
    pub delivery: Option<Delivery>,
    /// The heap's limit, in multiples of what is live when most is; none if it was given in bytes.
    pub factor: Option<f64>,
    /// Nanoseconds between intended starts; 0: flat out.
    pub interval_ns: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.workload.name(), self.mode)?;
        if let Some(delivery) = self.delivery {
            write!(f, " {delivery}")?;
        }
        if let Some(factor) = self.factor {
            write!(f, " {factor}×")?;
        }
        if self.interval_ns == 0 { Ok(()) } else { write!(f, " every {} ns", self.interval_ns) }
    }
}

/// A run. Times and figures are those of the timed section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What was run.
    pub case: Case,
    /// The workload's parameters.
    pub parameters: Parameters,
    /// Seed of all that is random.
    pub seed: u64,
    /// Bytes that are live when most is, as measured before; none if nobody asked.
    pub live_bytes: Option<u64>,
    /// The heap's limit.
    pub heap_bytes: u64,
    /// Of all that the workload computed, in hexadecimal: not every reader of JSON keeps 64 bits.
    pub checksum: String,
    /// Operations.
    pub operations: u64,
    /// Mutators that ran.
    pub mutators: u8,
    /// Length.
    pub wall_seconds: f64,
    /// Processor time of mutators, collector and all other threads but those that only measure.
    pub processor_seconds: f64,
    /// The same by kind of thread.
    pub processor: ProcessorTime,
    /// Time that mutators spent in the fault handler.
    pub handler_ns: u64,
    /// Cycles that began in the section.
    pub cycles: u64,
    /// Of them, young ones.
    pub young_cycles: u64,
    /// Faults that mutators took, as far as they were kept.
    pub faults: u64,
    /// Faults that were not kept.
    pub faults_lost: u64,
    /// Latency of the operations that are timed singly; paced, from the intended start.
    pub latency_ns: Distribution,
    /// The same, metered over windows of 100 ms, and over the whole section (of pushes, each hundred is one).
    pub metered_ns: [Distribution; 2],
    /// From the request of a stop to the last mutator's resumption.
    pub pauses_ns: Distribution,
    /// From the request of a stop until mutators may run.
    pub stopped_ns: Distribution,
    /// From the request of a stop until all mutators stand still.
    pub safepoint_ns: Distribution,
    /// What mutators' faults took.
    pub fault_ns: Distribution,
    /// How long mutators waited for memory, each time.
    pub memory_wait_ns: Distribution,
    /// Minimum and bounded mutator utilisation.
    pub utilisation: Vec<Point>,
    /// Utilisation in the first milliseconds after the flips.
    pub after_flip: Vec<AfterFlip>,
    /// Bytes by what was done with them.
    pub bytes: Bytes,
    /// The most memory that the process had resident until the section's end, without what only measures.
    pub peak_rss_bytes: u64,
    /// The mean of what it had in the section, all counted.
    pub mean_rss_bytes: u64,
    /// The most memory that the heap held, over its whole life.
    pub peak_heap_bytes: u64,
    /// The mean of that in the section.
    pub mean_heap_bytes: u64,
    /// Memory over time, the whole life of the heap.
    pub memory: Vec<Sample>,
    /// What happened when.
    pub history: History,
    /// What else delayed threads.
    pub noise: Noise,
}

/// Noise of the machine during a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Processor time stolen by the hypervisor, all processors together. `None` if not known.
    pub steal_ns: Option<u64>,
    /// How late a thread that is attached to no heap woke up, each millisecond.
    pub control_ns: Distribution,
}
