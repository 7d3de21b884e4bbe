//! What the collector did during a timed section.

use super::faults::{Fault, FaultLog};
use super::recorder::{Cycle, Delay, Recorder};
use super::timed::Section;

/// Events that ended in the section (cycles: that began in it).
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Cycles.
    pub cycles: Vec<Cycle>,
    /// Pauses.
    pub pauses: Vec<Delay>,
    /// Waits for memory.
    pub memory_waits: Vec<Delay>,
    /// Faults, as many as were kept.
    pub faults: Vec<Fault>,
    /// Faults that were not kept, over the heap's whole life.
    pub faults_lost: u64,
}

impl Observed {
    /// What a recorder has of a section.
    #[must_use]
    pub fn during(section: &Section, recorder: &Recorder) -> Self {
        let within = |time: u64| (section.begin_ns..=section.end_ns).contains(&time);
        let delays = |all: Vec<Delay>| all.into_iter().filter(|delay| within(delay.end_ns)).collect();
        let faults = recorder.faults().map(FaultLog::faults).unwrap_or_default();
        let count = recorder.faults().map_or(0, FaultLog::count);
        Self {
            cycles: recorder.cycles().into_iter().filter(|cycle| within(cycle.started)).collect(),
            pauses: delays(recorder.pause_delays()),
            memory_waits: delays(recorder.memory_waits()),
            faults_lost: (count - faults.len()) as u64,
            faults: faults.into_iter().filter(|fault| within(fault.end_ns)).collect(),
        }
    }
}
