//! What else delays threads on this machine: time stolen by the hypervisor, and how late a thread that
//! has nothing to do with the heap wakes up. Pauses and latencies mean little without these beside.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

/// How long the control thread sleeps at a time.
const NAP: Duration = Duration::from_millis(1);
/// Nanoseconds of one unit in `/proc/stat`: `USER_HZ` is 100 on every Linux that this runs on.
const TICK_NS: u64 = 10_000_000;

/// Noise during a run.
#[derive(Copy, Clone, Debug, Default, Serialize)]
pub struct Noise {
    /// Processor time stolen by the hypervisor, all processors together. `None` if not known.
    pub steal_ns: Option<u64>,
    /// The control thread's largest oversleep: it is attached to no heap.
    pub control_gap_ns: u64,
}

/// Measures noise from its start to [`Monitor::finish`].
#[derive(Debug)]
pub struct Monitor {
    steal_before: Option<u64>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    gap_ns: AtomicU64,
}

impl Monitor {
    /// Starts to measure. Without a thread to be had, the control gap stays 0.
    #[must_use]
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("control".into()).spawn(move || nap(&shared)).ok()
        };
        Self { steal_before: stolen_ticks(), shared, thread }
    }

    /// Stops, and says what was measured.
    #[must_use]
    pub fn finish(mut self) -> Noise {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
        let ticks = self.steal_before.zip(stolen_ticks()).map(|(before, after)| after.saturating_sub(before));
        Noise {
            steal_ns: ticks.map(|ticks| ticks * TICK_NS),
            control_gap_ns: self.shared.gap_ns.load(Ordering::Relaxed),
        }
    }
}

fn nap(shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        thread::sleep(NAP);
        let late = start.elapsed().saturating_sub(NAP);
        shared.gap_ns.fetch_max(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn stolen_ticks() -> Option<u64> {
    parse_steal(&fs::read_to_string("/proc/stat").ok()?)
}

/// The eighth number of the first line.
fn parse_steal(stat: &str) -> Option<u64> {
    let mut fields = stat.lines().next()?.split_ascii_whitespace();
    (fields.next()? == "cpu").then_some(())?;
    fields.nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_number() {
        assert_eq!(parse_steal("cpu  1 2 3 4 5 6 7 88 9 10\ncpu0 1"), Some(88));
        assert_eq!(parse_steal("cpu  1 2 3 4"), None);
        assert_eq!(parse_steal(""), None);
    }

    #[test]
    fn a_monitor_sees_at_least_the_timer_slack() {
        let monitor = Monitor::start();
        thread::sleep(Duration::from_millis(20));
        assert!(monitor.finish().control_gap_ns > 0);
    }
}
