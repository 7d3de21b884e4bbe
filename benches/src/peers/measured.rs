//! What one run of a peer says of itself: its result line, the log of a Java virtual machine, and the
//! times at which its operations were complete.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::measure::distribution::Distribution;
use crate::measure::metered::{WINDOW_NS, metered};
use crate::run::result::Run;

/// A summary of durations in nanoseconds.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Durations {
    /// Number of them.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    #[serde(rename = "p99.9")]
    pub p999: u64,
    /// Greatest.
    pub max: u64,
}

impl Durations {
    /// Summarises; none for no durations.
    #[must_use]
    pub fn of(mut durations: Vec<u64>) -> Option<Self> {
        durations.sort_unstable();
        let at = |share: f64| {
            let rank = (share * durations.len() as f64).ceil() as usize;
            durations.get(rank.saturating_sub(1)).copied()
        };
        let (p50, p99, p999, max) = (at(0.5)?, at(0.99)?, at(0.999)?, at(1.0)?);
        Some(Self { count: durations.len() as u64, p50, p99, p999, max })
    }
}

impl Durations {
    fn from_distribution(all: &Distribution) -> Option<Self> {
        (all.count > 0).then_some(Self {
            count: all.count,
            p50: all.p50,
            p99: all.p99,
            p999: all.p999,
            max: all.max,
        })
    }
}

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Of all that was computed, in hexadecimal.
    pub checksum: String,
    /// Operations in the timed section.
    pub operations: u64,
    /// Length of the timed section.
    pub wall_seconds: f64,
    /// Of the whole process in the timed section.
    pub processor_seconds: f64,
    /// Of timed operations; paced, from the intended start.
    pub latency_ns: Option<Durations>,
    /// Stops of the world, from the request until mutators are resumed.
    pub pauses_ns: Option<Durations>,
    /// How often and how long mutators waited for memory, where the collector tells.
    #[serde(default)]
    pub memory_waits_ns: Option<Durations>,
    /// Latency from a start that is metered over 100 ms.
    #[serde(default)]
    pub metered_ns: Option<Durations>,
    /// The most memory that the process had resident.
    pub peak_rss_bytes: u64,
    /// The timed section on the clock of the virtual machine's log.
    #[serde(default, skip_serializing)]
    section_ns: Option<(u64, u64)>,
}

impl Measured {
    /// Reads the last line of a peer's output.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn from_output(output: &str) -> Result<Self, String> {
        let line = output.lines().last().ok_or("it printed nothing")?;
        serde_json::from_str(line).map_err(|error| format!("its result line cannot be read: {error}"))
    }

    /// What a run of ours says of itself.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn from_ours(output: &str) -> Result<Self, String> {
        let run: Run =
            serde_json::from_str(output).map_err(|error| format!("its answer cannot be read: {error}"))?;
        Ok(Self {
            checksum: run.checksum,
            operations: run.operations,
            wall_seconds: run.wall_seconds,
            processor_seconds: run.processor_seconds,
            latency_ns: Durations::from_distribution(&run.latency_ns),
            pauses_ns: Durations::from_distribution(&run.pauses_ns),
            memory_waits_ns: Durations::from_distribution(&run.memory_wait_ns),
            metered_ns: Durations::from_distribution(&run.metered_ns[0]),
            peak_rss_bytes: run.peak_rss_bytes,
            section_ns: None,
        })
    }

    /// Adds what a Java virtual machine logged in the timed section.
    pub fn add_log(&mut self, log: &str) {
        let Some((begin, end)) = self.section_ns else { return };
        let (pauses, waits) = read_log(log, &(begin..end));
        self.pauses_ns = Durations::of(pauses);
        self.memory_waits_ns = Durations::of(waits);
    }

    /// Adds metered latency.
    pub fn add_marks(&mut self, marks: &[u8]) {
        let ends: Vec<u64> =
            marks.as_chunks::<8>().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect();
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let requests: Vec<_> = starts.zip(ends.iter().copied()).collect();
        self.metered_ns = Durations::of(metered(&requests, Some(WINDOW_NS)));
    }
}

/// Operations of the virtual machine that the collectors stop the world for begin with one of these.
const COLLECTOR_STOPS: [&str; 5] = ["Z", "Shenandoah", "G1", "Parallel", "CollectFor"];

/// Pauses, and waits for memory, that a Java virtual machine logged (`-Xlog:safepoint,gc` with times of
/// the monotonic clock).
fn read_log(log: &str, section: &Range<u64>) -> (Vec<u64>, Vec<u64>) {
    let (mut pauses, mut waits) = (vec![], vec![]);
    for line in log.lines() {
        let Some((time, rest)) = line.strip_prefix('[').and_then(|line| line.split_once("ns]")) else {
            continue;
        };
        if !time.parse().is_ok_and(|time| section.contains(&time)) {
            continue;
        }
        if let Some((_, stop)) = rest.split_once("Safepoint \"") {
            let total = stop.split_once("Total: ").and_then(|(_, total)| total.split(' ').next());
            if COLLECTOR_STOPS.iter().any(|prefix| stop.starts_with(prefix)) {
                pauses.extend(total.and_then(|total| total.parse::<u64>().ok()));
            }
        } else if let Some((_, wait)) = rest.split_once("Allocation Stall (") {
            let millis = wait.split_once(") ").and_then(|(_, time)| time.strip_suffix("ms"));
            let millis = millis.and_then(|millis| millis.parse::<f64>().ok());
            waits.extend(millis.map(|millis| (millis * 1e6) as u64));
        }
    }
    (pauses, waits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let durations = Durations::of((1..=1000).rev().collect());
        assert_eq!(durations, Some(Durations { count: 1000, p50: 500, p99: 990, p999: 999, max: 1000 }));
        assert_eq!(Durations::of(vec![]), None);
    }

    #[test]
    fn a_log_is_read_within_the_section() {
        let log = "[99ns][safepoint] Safepoint \"ZMarkStartYoung\", Reaching safepoint: 5 ns, Total: 7 ns, x\n\
            [100ns][safepoint] Safepoint \"ZMarkStartYoung\", Reaching safepoint: 5 ns, Total: 121338 ns, x\n\
            [101ns][safepoint] Safepoint \"Cleanup\", Reaching safepoint: 5 ns, Total: 9 ns, x\n\
            [102ns][gc       ] Allocation Stall (main) 2.500ms\n\
            [103ns][gc       ] GC(1) Minor Collection (Allocation Rate) 468M(85%)->442M(80%) 0.863s\n";
        assert_eq!(read_log(log, &(100..200)), (vec![121_338], vec![2_500_000]));
    }
}
