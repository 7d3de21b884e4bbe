//! What else delays threads on this machine: time stolen by the hypervisor, and how late a thread
//! that has nothing to do with any heap wakes up. It stands beside every figure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;
use strikeslip::gc::sys::sched;

/// How long the control thread sleeps at a time.
const NAP: Duration = Duration::from_millis(1);
/// Milliseconds of one tick in `/proc/stat`: `USER_HZ` is 100 on every Linux that this runs on.
const TICK_MS: u64 = 10;

/// Noise during a measurement.
#[derive(Copy, Clone, Debug, Default, Serialize)]
pub struct Noise {
    /// Processor time stolen by the hypervisor, all processors together. `None` if not known.
    pub steal_ms: Option<u64>,
    /// The control thread's largest oversleep.
    pub control_gap_us: u64,
}

impl Noise {
    /// The noise of two measurements together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            steal_ms: self.steal_ms.zip(other.steal_ms).map(|(a, b)| a + b),
            control_gap_us: self.control_gap_us.max(other.control_gap_us),
        }
    }

    /// Nothing yet, to add to.
    #[must_use]
    pub const fn none() -> Self {
        Self { steal_ms: Some(0), control_gap_us: 0 }
    }

    /// Two cells of a table: steal in milliseconds, control gap in microseconds.
    #[must_use]
    pub fn cells(self) -> [String; 2] {
        let steal = self.steal_ms.map_or_else(|| "?".to_owned(), |steal| steal.to_string());
        [steal, self.control_gap_us.to_string()]
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    gap_us: AtomicU64,
}

/// Measures noise from its start to [`Monitor::finish`].
#[derive(Debug)]
pub struct Monitor {
    steal_before: Option<u64>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
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
        Self { steal_before: sched::steal_ticks(), shared, thread }
    }

    /// Stops, and says what was measured.
    #[must_use]
    pub fn finish(mut self) -> Noise {
        self.end();
        let ticks = self.steal_before.zip(sched::steal_ticks());
        Noise {
            steal_ms: ticks.map(|(before, after)| after.saturating_sub(before) * TICK_MS),
            control_gap_us: self.shared.gap_us.load(Ordering::Relaxed),
        }
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.end();
    }
}

fn nap(shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        thread::sleep(NAP);
        let late = start.elapsed().saturating_sub(NAP);
        shared.gap_us.fetch_max(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_sees_at_least_the_timer_slack() {
        let monitor = Monitor::start();
        thread::sleep(Duration::from_millis(30));
        assert!(monitor.finish().control_gap_us > 0);
    }
}
