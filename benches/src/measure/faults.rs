//! A log of mutators' faults that a signal handler can write to: no lock, no allocation.
//!
//! Run by whoever serves a fault (the faulting mutator, or a worker), read when all is over. Each entry is
//! written by the one thread that took its index. What does not fit is counted, not kept.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use strikeslip::gc::events::FaultPath;

/// Faults that are kept. One takes 16 bytes.
const CAPACITY: usize = 1 << 20;
/// Bytes of a log.
pub const FAULT_LOG_BYTES: usize = CAPACITY * size_of::<[AtomicU64; 2]>();
const PATH_SHIFT: u32 = 56;
const MUTATOR_SHIFT: u32 = 48;
const LATENCY_MASK: u64 = (1 << MUTATOR_SHIFT) - 1;

thread_local! {
    /// A constant initial value and no destructor: reading it is safe in a signal handler.
    static MUTATOR: Cell<u8> = const { Cell::new(0) };
}

/// Says that the calling thread is this mutator, from 1 on.
pub fn set_mutator(number: u8) {
    MUTATOR.set(number);
}

/// The mutator that the calling thread is; 0 if it is none.
#[must_use]
pub fn mutator() -> u8 {
    MUTATOR.get()
}

/// A served fault.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// When it was served, in nanoseconds since the log's epoch.
    pub end_ns: u64,
    /// How long that took. In place: from the handler's begin to its end. By the pool: from the time
    /// that a worker took it up, so that its way to the worker and the mutator's waking are not in it.
    pub latency_ns: u64,
    /// How it was served.
    pub path: FaultPath,
    /// The mutator that served itself; 0 if a worker did.
    pub mutator: u8,
}

/// The log.
#[derive(Debug)]
pub struct FaultLog {
    taken: AtomicUsize,
    entries: Box<[[AtomicU64; 2]]>,
}

impl Default for FaultLog {
    fn default() -> Self {
        // Written, not only reserved: a signal handler should not be the first to touch a page.
        let entry = || [AtomicU64::new(u64::MAX), AtomicU64::new(0)];
        Self { taken: AtomicUsize::new(0), entries: (0..CAPACITY).map(|_| entry()).collect() }
    }
}

impl FaultLog {
    /// Adds a fault. Safe in a signal handler.
    pub fn add(&self, end_ns: u64, latency_ns: u64, path: FaultPath) {
        let index = self.taken.fetch_add(1, Ordering::Relaxed);
        if let Some([end, rest]) = self.entries.get(index) {
            let mutator = u64::from(mutator()) << MUTATOR_SHIFT;
            rest.store(
                (path as u64) << PATH_SHIFT | mutator | latency_ns.min(LATENCY_MASK),
                Ordering::Relaxed,
            );
            // Release: pairs with the Acquire in `faults`.
            end.store(end_ns, Ordering::Release);
        }
    }

    /// Faults added so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The faults that were kept, in the order in which they were added.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let kept = &self.entries[..self.count().min(CAPACITY)];
        let fault = |[end, rest]: &[AtomicU64; 2]| {
            // Acquire: pairs with the Release in `add`.
            let end_ns = end.load(Ordering::Acquire);
            let rest = rest.load(Ordering::Relaxed);
            (end_ns != u64::MAX).then(|| Fault {
                end_ns,
                latency_ns: rest & LATENCY_MASK,
                path: FaultPath::ALL[(rest >> PATH_SHIFT) as usize],
                mutator: (rest >> MUTATOR_SHIFT) as u8,
            })
        };
        kept.iter().filter_map(fault).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_kept_with_the_thread_that_served_them() {
        let log = FaultLog::default();
        log.add(100, 7, FaultPath::Zero);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                set_mutator(3);
                log.add(200, u64::MAX, FaultPath::Waited);
            });
        });
        let expected = [
            Fault { end_ns: 100, latency_ns: 7, path: FaultPath::Zero, mutator: 0 },
            Fault { end_ns: 200, latency_ns: LATENCY_MASK, path: FaultPath::Waited, mutator: 3 },
        ];
        assert_eq!((log.faults(), log.count()), (expected.to_vec(), 2));
    }
}
