//! What else delays threads on this machine: time stolen by the hypervisor, and how late a thread that
//! has nothing to do with any heap wakes up. Pauses and latencies mean little without these beside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use strikeslip::gc::sys::sched;

use crate::workload::latency_histogram;

/// How long the control thread sleeps at a time.
const NAP: Duration = Duration::from_millis(1);
/// Nanoseconds of one unit in `/proc/stat`: `USER_HZ` is 100 on every Linux that this runs on.
const TICK_NS: u64 = 10_000_000;

/// Noise during a measurement.
#[derive(Copy, Clone, Debug, Default, Serialize)]
pub struct Noise {
    /// Processor time stolen by the hypervisor, all processors together. `None` if not known.
    pub steal_ns: Option<u64>,
    /// The control thread's largest oversleep: it is attached to no heap.
    pub control_gap_ns: u64,
}

impl Noise {
    /// Nothing yet, to add to.
    #[must_use]
    pub const fn none() -> Self {
        Self { steal_ns: Some(0), control_gap_ns: 0 }
    }

    /// The noise of two measurements together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            steal_ns: self.steal_ns.zip(other.steal_ns).map(|(a, b)| a + b),
            control_gap_ns: self.control_gap_ns.max(other.control_gap_ns),
        }
    }

    /// Two cells of a table: steal in milliseconds, control gap in microseconds.
    #[must_use]
    pub fn cells(self) -> [String; 2] {
        let steal = self.steal_ns.map_or_else(|| "?".to_owned(), |steal| (steal / 1_000_000).to_string());
        [steal, (self.control_gap_ns / 1_000).to_string()]
    }
}

/// Measures noise from its start to [`Monitor::finish`].
#[derive(Debug)]
pub struct Monitor {
    steal_before: Option<u64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Histogram<u64>>>,
}

impl Monitor {
    /// Starts to measure. Without a thread to be had, the control gap stays 0.
    #[must_use]
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            thread::Builder::new().name("control".into()).spawn(move || nap(&stop)).ok()
        };
        Self { steal_before: sched::steal_ticks(), stop, thread }
    }

    /// Stops, and says what was measured.
    #[must_use]
    pub fn finish(self) -> Noise {
        self.finish_with_gaps().0
    }

    /// As [`Self::finish`], with all oversleeps of the control thread, in nanoseconds.
    #[must_use]
    pub fn finish_with_gaps(mut self) -> (Noise, Histogram<u64>) {
        let gaps = self.end().unwrap_or_else(latency_histogram);
        let ticks = self.steal_before.zip(sched::steal_ticks());
        let steal_ns = ticks.map(|(before, after)| after.saturating_sub(before) * TICK_NS);
        (Noise { steal_ns, control_gap_ns: gaps.max() }, gaps)
    }

    fn end(&mut self) -> Option<Histogram<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        // It does not panic.
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.end();
    }
}

fn nap(stop: &AtomicBool) -> Histogram<u64> {
    let mut gaps = latency_histogram();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        thread::sleep(NAP);
        let late = start.elapsed().saturating_sub(NAP);
        gaps.saturating_record(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_sees_at_least_the_timer_slack() {
        let monitor = Monitor::start();
        thread::sleep(Duration::from_millis(30));
        let (noise, gaps) = monitor.finish_with_gaps();
        assert!(noise.control_gap_ns > 0 && gaps.len() > 1);
    }

    #[test]
    fn noise_adds_up() {
        let noise = |steal_ns, control_gap_ns| Noise { steal_ns, control_gap_ns };
        let both = noise(Some(20_000_000), 5_000).and(noise(Some(10_000_000), 7_900));
        assert_eq!(both.cells(), ["30", "7"]);
        assert_eq!(Noise::none().and(noise(None, 1)).cells(), ["?", "0"]);
    }
}
