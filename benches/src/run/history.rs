//! What happened when in a run, as far as a picture of it needs.

use serde::{Deserialize, Serialize};
use strikeslip::gc::events::Phase;

use crate::measure::observed::Observed;
use crate::measure::recorder::Cycle;
use crate::measure::timed::Section;

/// Most bins of a history.
const BINS: u64 = 600;
/// Shortest bin.
const SHORTEST_BIN_NS: u64 = 1_000_000;

/// A history. Times are nanoseconds since the section's begin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Cycles.
    pub cycles: Vec<CycleRecord>,
    /// Ends and lengths of pauses.
    pub pauses: Vec<(u64, u64)>,
    /// Ends and lengths of waits for memory.
    pub memory_waits: Vec<(u64, u64)>,
    /// Length of a bin.
    pub bin_ns: u64,
    /// Faults, by the time of their end.
    pub faults: Vec<Bin>,
    /// Operations that are timed singly, by the time of their end.
    pub operations: Vec<Bin>,
}

/// A cycle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CycleRecord {
    /// Its begin.
    pub begin_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// Name, begin and duration of its phases.
    pub phases: Vec<(String, u64, u64)>,
    /// Bytes of survivors that got new addresses.
    pub evacuated_bytes: u64,
    /// Regions taken from the mutators.
    pub regions_taken: u64,
    /// Bytes in use before and after it (whole regions).
    pub used_bytes: (u64, u64),
}

/// Events in one bin of time. Empty bins are left out.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bin {
    /// Number of the bin.
    pub nth: u64,
    /// Events.
    pub count: u64,
    /// Their durations in all.
    pub total_ns: u64,
    /// The longest.
    pub longest_ns: u64,
}

impl History {
    /// The history of a section.
    #[must_use]
    pub fn new(section: &Section, observed: &Observed) -> Self {
        let since = |time: u64| time.saturating_sub(section.begin_ns);
        let bin_ns = (section.length_ns() / BINS).max(SHORTEST_BIN_NS);
        Self {
            cycles: observed.cycles.iter().map(|cycle| record(cycle, since)).collect(),
            pauses: observed.pauses.iter().map(|pause| (since(pause.end_ns), pause.length_ns)).collect(),
            memory_waits: observed
                .memory_waits
                .iter()
                .map(|wait| (since(wait.end_ns), wait.length_ns))
                .collect(),
            bin_ns,
            faults: bins(bin_ns, observed.faults.iter().map(|fault| (since(fault.end_ns), fault.latency_ns))),
            operations: bins(
                bin_ns,
                section.operations.iter().map(|&(start, end)| (since(end), end.saturating_sub(start))),
            ),
        }
    }
}

fn record(cycle: &Cycle, since: impl Fn(u64) -> u64) -> CycleRecord {
    let phases = Phase::ALL.iter().filter(|&&phase| cycle.phase_begins[phase as usize] != 0);
    CycleRecord {
        begin_ns: since(cycle.started),
        end_ns: since(cycle.ended),
        phases: phases
            .map(|&phase| {
                (format!("{phase:?}"), since(cycle.phase_begins[phase as usize]), cycle.phase(phase))
            })
            .collect(),
        evacuated_bytes: cycle.summary.evacuated_bytes,
        regions_taken: cycle.summary.regions_taken,
        used_bytes: (cycle.summary.used_before_bytes, cycle.summary.used_after_bytes),
    }
}

fn bins(bin_ns: u64, events: impl Iterator<Item = (u64, u64)>) -> Vec<Bin> {
    let mut all: std::collections::BTreeMap<u64, Bin> = std::collections::BTreeMap::new();
    for (end, length) in events {
        let nth = end / bin_ns;
        let bin = all.entry(nth).or_insert(Bin { nth, ..Bin::default() });
        bin.count += 1;
        bin.total_ns += length;
        bin.longest_ns = bin.longest_ns.max(length);
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_count_what_ended_in_them() {
        let found = bins(100, [(5, 1), (99, 7), (100, 2), (950, 3)].into_iter());
        let bin = |nth, count, total_ns, longest_ns| Bin { nth, count, total_ns, longest_ns };
        assert_eq!(found, [bin(0, 2, 8, 7), bin(1, 1, 2, 2), bin(9, 1, 3, 3)]);
    }

    #[test]
    fn a_section_of_any_length_has_a_bounded_history() {
        let operations: Vec<_> = (0..10_000).map(|nth| (nth * 1_000_000, nth * 1_000_000 + 5)).collect();
        let section = Section { begin_ns: 0, end_ns: 10_000_000_000, operations, ..Section::default() };
        let history = History::new(&section, &Observed::default());
        assert_eq!(history.operations.iter().map(|bin| bin.count).sum::<u64>(), 10_000);
        assert!(history.operations.len() as u64 <= BINS + 1);
    }
}
