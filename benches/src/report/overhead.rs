//! Lower bounds of a collector's overhead (Cai, Blackburn, Bond and Maas, "Distilling the Real Cost of Production
//! Garbage Collectors", ISPASS 2022).
//!
//! What a program would cost without a collector cannot be measured, but bounded: it is at most what the
//! cheapest of all configurations took, less what that one's collector is known to have cost. All others are
//! given as multiples of that. The bound is the better, the more configurations there are; `no-gc` is one.

use super::Group;
use crate::run::result::Run;

/// Overheads: multiples of the baseline of all groups given.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Overhead {
    /// Of wall time.
    pub wall: f64,
    /// Of processor time.
    pub processor: f64,
}

/// Wall time without what is known to be the collector's: the world stopped, mutators waiting for memory or in
/// the fault handler, shared out among all mutators.
fn wall_without(run: &Run) -> f64 {
    let waited = (run.memory_wait_ns.sum + run.handler_ns) as f64 / f64::from(run.mutators.max(1));
    let known = run.pauses_ns.sum as f64 + waited;
    (run.wall_seconds - known / 1e9).max(run.wall_seconds / 100.0)
}

/// Processor time without the collector's threads and the fault handler.
fn processor_without(run: &Run) -> f64 {
    let own = (run.processor.mutator_ns + run.processor.other_ns).saturating_sub(run.handler_ns) as f64 / 1e9;
    own.max(run.processor_seconds / 100.0)
}

/// The overhead of each group. They must be of the same workload at the same pace.
#[must_use]
pub fn overheads(groups: &[Group<'_>]) -> Vec<Overhead> {
    let least =
        |value: fn(&Run) -> f64| groups.iter().map(|group| group.median(value)).fold(f64::INFINITY, f64::min);
    let (wall, processor) = (least(wall_without), least(processor_without));
    let overhead = |group: &Group<'_>| Overhead {
        wall: group.median(|run| run.wall_seconds) / wall,
        processor: group.median(|run| run.processor_seconds) / processor,
    };
    groups.iter().map(overhead).collect()
}
