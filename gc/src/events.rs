//! The collector's events: one listener method for each phase boundary and each served fault.
//!
//! Statistics ([`crate::stats`]) are one listener. Methods are called by the controller thread,
//! except [`Listener::fault_served`], which runs on whatever thread served the fault and may run
//! inside a signal handler: it must neither allocate nor lock.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::extent::Extent;

/// A step of the cycle that has a duration.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Step 1: handshake that turns the barrier on.
    Start,
    /// Steps 2 and 3: marking until nothing is new.
    Mark,
    /// Step 4: weak slots are cleared.
    Weak,
    /// Step 5: verdicts, prefix sums, destination regions.
    Plan,
    /// Step 6: the pause, from the request until mutators may run.
    Flip,
    /// Step 7: serving, until no page is missing.
    Serve,
    /// Step 8: unregister, give memory back.
    Reclaim,
    /// Verification (its own pauses included), if it is on.
    Verify,
}

impl Phase {
    /// All phases in order.
    pub const ALL: [Self; 8] = [
        Self::Start,
        Self::Mark,
        Self::Weak,
        Self::Plan,
        Self::Flip,
        Self::Serve,
        Self::Reclaim,
        Self::Verify,
    ];
}

/// Why a cycle was started.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The heap is filling up.
    Occupancy,
    /// Somebody asked.
    Explicit,
    /// A mutator waits for memory.
    Exhausted,
}

/// How a mutator's fault was served.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultPath {
    /// The page (or its unit) was built for this fault.
    Built,
    /// A taken region's unit was returned for this fault.
    Returned,
    /// Somebody else was at it: waited until it was installed.
    Waited,
    /// The claim holder took too long: a single page was built beside it.
    Overtaken,
    /// It was already there.
    Present,
    /// A page that nobody ever touched: zeros.
    Zero,
}

impl FaultPath {
    /// All paths in order.
    pub const ALL: [Self; 6] =
        [Self::Built, Self::Returned, Self::Waited, Self::Overtaken, Self::Present, Self::Zero];
}

/// What a finished cycle did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CycleSummary {
    /// Number of the cycle, from 1.
    pub cycle: u64,
    /// Whether it looked at all objects, or only at young ones.
    pub extent: Extent,
    /// Bytes found live by marking, and, in a young cycle, of old objects (objects born meanwhile not counted).
    pub marked_bytes: u64,
    /// Bytes of survivors that got new addresses.
    pub evacuated_bytes: u64,
    /// Regions with verdict `Free`, `Evacuate`, `Patch` or `Scan` taken, and all taken whole.
    pub regions_free: u64,
    /// Regions whose survivors were evacuated.
    pub regions_evacuated: u64,
    /// Regions taken from the mutators, whatever for.
    pub regions_taken: u64,
    /// Slots patched in the pause (all of them: the counter `patched_slots`).
    pub slots_patched: u64,
    /// Nanoseconds from the stop's request until all mutators stood still.
    pub safepoint_ns: u64,
    /// Nanoseconds from the stop's request until mutators may run.
    pub stopped_ns: u64,
    /// Of the pause: nanoseconds to end marking and to rewrite slots and roots.
    pub patch_ns: u64,
    /// Of the pause: nanoseconds to take regions and windows and to register them.
    pub take_ns: u64,
    /// Nanoseconds from resume until no page was missing.
    pub serve_ns: u64,
    /// Bytes in use before the cycle (whole regions).
    pub used_before_bytes: u64,
    /// Bytes in use after the cycle (whole regions).
    pub used_after_bytes: u64,
    /// Bytes that mutators allocated during the cycle.
    pub allocated_bytes: u64,
    /// Most bytes of memory that the heap held during the cycle (without root slots and side tables).
    pub peak_resident_bytes: u64,
}

/// Receives the collector's events. All methods have empty bodies by default.
pub trait Listener: Send + Sync {
    /// A cycle begins.
    fn cycle_started(&self, _cycle: u64, _trigger: Trigger) {}
    /// A phase begins.
    fn phase_started(&self, _phase: Phase) {}
    /// A phase ended.
    fn phase_ended(&self, _phase: Phase, _duration: Duration) {}
    /// All mutators stand still; time since the request.
    fn world_stopped(&self, _since_request: Duration) {}
    /// The last mutator has resumed; time since the request. Runs on that mutator's thread.
    fn pause_ended(&self, _since_request: Duration) {}
    /// A mutator's fault was served. May run in a signal handler.
    fn fault_served(&self, _path: FaultPath, _latency: Duration) {}
    /// The system refused a registration before the flip: the cycle ends without one, and evacuates nothing.
    fn flip_refused(&self, _error: &std::io::Error) {}
    /// A mutator waited for memory.
    fn memory_waited(&self, _waited: Duration) {}
    /// A cycle is complete: all memory is back.
    fn cycle_ended(&self, _summary: &CycleSummary) {}
}

type List = Vec<Arc<dyn Listener>>;

/// The listeners of a heap. Read without a lock, because faults are reported in signal handlers; a list
/// that was replaced is kept until the heap ends.
#[derive(Default)]
pub struct Listeners {
    current: AtomicPtr<List>,
    lists: Mutex<Vec<NonNull<List>>>,
}

// SAFETY: the pointers are to lists that this value owns and that do not change once they are published;
// listeners are `Send + Sync`.
unsafe impl Send for Listeners {}
// SAFETY: as above.
unsafe impl Sync for Listeners {}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listeners({})", self.current().len())
    }
}

impl Listeners {
    /// All listeners.
    pub fn current(&self) -> &[Arc<dyn Listener>] {
        // Acquire: pairs with the Release in `add`.
        let current = self.current.load(Ordering::Acquire);
        if current.is_null() {
            return &[];
        }
        // SAFETY: a published list does not change and lives as long as `self`.
        unsafe { &*current }
    }

    /// Adds a listener.
    pub fn add(&self, listener: Arc<dyn Listener>) {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.current().to_vec();
        all.push(listener);
        let list = NonNull::from(Box::leak(Box::new(all)));
        lists.push(list);
        // Release: pairs with the Acquire in `current`.
        self.current.store(list.as_ptr(), Ordering::Release);
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for list in self.lists.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // SAFETY: the list was leaked by `add`, is in `lists` once, and nobody borrows `self` now.
            drop(unsafe { Box::from_raw(list.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Listener for Count {
        fn fault_served(&self, _path: FaultPath, latency: Duration) {
            self.0.fetch_add(latency.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_listener_is_told() {
        let listeners = Listeners::default();
        assert!(listeners.current().is_empty());
        let counts: Vec<_> = (0..3).map(|_| Arc::new(Count::default())).collect();
        for count in &counts {
            listeners.add(count.clone());
            for listener in listeners.current() {
                listener.fault_served(FaultPath::Built, Duration::from_nanos(1));
            }
        }
        let told: Vec<_> = counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect();
        assert_eq!(told, [3, 2, 1]);
        drop(listeners);
        assert!(counts.iter().all(|count| Arc::strong_count(count) == 1), "listeners are let go");
    }
}
