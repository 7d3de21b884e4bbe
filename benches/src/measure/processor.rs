//! Processor time by kind of thread, from the kernel's own account of each (`/proc/self/task`).

use std::fs;

use serde::{Deserialize, Serialize};

use crate::workload::MUTATOR_NAME;

/// Names of the collector's threads begin with this.
const COLLECTOR_NAME: &str = "strikeslip";
/// Names of threads that only measure.
const INSTRUMENT_NAMES: [&str; 2] = ["control", "sampler"];

/// What a thread is for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Kind {
    Mutator,
    Collector,
    Instrument,
    Other,
}

fn kind(name: &str) -> Kind {
    if name.starts_with(MUTATOR_NAME) {
        Kind::Mutator
    } else if name.starts_with(COLLECTOR_NAME) {
        Kind::Collector
    } else if INSTRUMENT_NAMES.contains(&name) {
        Kind::Instrument
    } else {
        Kind::Other
    }
}

/// Processor time in nanoseconds, user and kernel mode.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessorTime {
    /// Of mutators, time in the fault handler included.
    pub mutator_ns: u64,
    /// Of the collector's threads.
    pub collector_ns: u64,
    /// Of threads that only measure.
    pub instrument_ns: u64,
    /// Of all others.
    pub other_ns: u64,
}

impl ProcessorTime {
    /// What all threads of this process that are alive have used so far.
    #[must_use]
    pub fn so_far() -> Self {
        let mut all = Self::default();
        let Ok(tasks) = fs::read_dir("/proc/self/task") else { return all };
        for task in tasks.flatten() {
            let read = |file| fs::read_to_string(task.path().join(file));
            // A thread that ended meanwhile is not there any more.
            let (Ok(name), Ok(schedstat)) = (read("comm"), read("schedstat")) else { continue };
            let used = parse_schedstat(&schedstat).unwrap_or(0);
            *match kind(name.trim_end()) {
                Kind::Mutator => &mut all.mutator_ns,
                Kind::Collector => &mut all.collector_ns,
                Kind::Instrument => &mut all.instrument_ns,
                Kind::Other => &mut all.other_ns,
            } += used;
        }
        all
    }

    /// What was used since `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            mutator_ns: self.mutator_ns.saturating_sub(before.mutator_ns),
            collector_ns: self.collector_ns.saturating_sub(before.collector_ns),
            instrument_ns: self.instrument_ns.saturating_sub(before.instrument_ns),
            other_ns: self.other_ns.saturating_sub(before.other_ns),
        }
    }

    /// Of the program and its collector: all but what only measures.
    #[must_use]
    pub const fn program_ns(self) -> u64 {
        self.mutator_ns + self.collector_ns + self.other_ns
    }
}

/// Time on a processor, in nanoseconds: the first number.
fn parse_schedstat(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn threads_are_told_apart_by_their_names() {
        let kinds = ["mutator-1", "strikeslip-gc", "strikeslip-mark", "control", "main"].map(kind);
        assert_eq!(kinds, [Kind::Mutator, Kind::Collector, Kind::Collector, Kind::Instrument, Kind::Other]);
        assert_eq!(parse_schedstat("123456 78 9\n"), Some(123_456));
    }

    #[test]
    fn a_mutators_time_is_counted_while_it_lives() {
        let spin = || {
            let before = ProcessorTime::so_far();
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(50) {
                std::hint::spin_loop();
            }
            ProcessorTime::so_far().since(before)
        };
        let thread = thread::Builder::new().name("mutator-9".to_owned()).spawn(spin);
        let used = thread.expect("a thread can be started").join().expect("it does not panic");
        assert!(used.mutator_ns > 0 && used.program_ns() >= used.mutator_ns, "{used:?}");
    }
}
