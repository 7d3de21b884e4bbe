//! What one run found, as it is kept in the report.

use std::fmt;

use serde::{Deserialize, Serialize};
use strikeslip::{Delivery, Mode};

use crate::measure::distribution::Distribution;
use crate::measure::processor::ProcessorTime;
use crate::measure::timed::Bytes;
use crate::workload::Name;

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
    /// Seed of all that is random.
    pub seed: u64,
    /// The heap's limit.
    pub heap_bytes: u64,
    /// Of all that the workload computed, in hexadecimal: not every reader of JSON keeps 64 bits.
    pub checksum: String,
    /// Operations.
    pub operations: u64,
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
    /// Faults that mutators took.
    pub faults: u64,
    /// Latency of the operations that are timed singly; paced, from the intended start.
    pub latency_ns: Distribution,
    /// The same flat out, had operations arrived evenly over 100 ms (of pushes, each hundred is one).
    pub metered_ns: Distribution,
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
    /// Bytes by what was done with them.
    pub bytes: Bytes,
    /// The most memory that the process had resident, over its whole life.
    pub peak_rss_bytes: u64,
    /// The most memory that the heap held, over its whole life.
    pub peak_heap_bytes: u64,
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
