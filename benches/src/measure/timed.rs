//! The timed section of a workload: when each of its operations was to begin, and when it was complete.
//!
//! Flat out, an operation begins when the one before has ended. Paced, it begins at its *intended start*,
//! and a pause is charged to everything that it delays; until then the mutator polls in a loop (a sleep
//! would measure the timer).

use std::hint::spin_loop;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use strikeslip::{Heap, Mutator};

use super::faults::FAULT_LOG_BYTES;
use super::memory::peak_resident_bytes;
use super::processor::ProcessorTime;

/// A timed section that runs.
#[derive(Debug)]
pub struct Timed {
    heap: Heap,
    epoch: Instant,
    interval_ns: u64,
    processor_before: ProcessorTime,
    bytes_before: Bytes,
    begin_ns: u64,
    ends: Vec<u64>,
}

/// A timed section that has ended. Times are nanoseconds since the epoch.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// Its begin.
    pub begin_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// When each operation that is timed singly was to begin and when it was complete, in order of the former.
    pub operations: Vec<(u64, u64)>,
    /// Processor time used meanwhile.
    pub processor: ProcessorTime,
    /// What was done with memory meanwhile.
    pub bytes: Bytes,
    /// The most memory that the process ever had resident, without what only measures.
    pub peak_rss_bytes: u64,
}

/// Bytes by what was done with them.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// That mutators allocated.
    pub allocated: u64,
    /// Of survivors that got new addresses.
    pub evacuated: u64,
    /// Installed by copying pages.
    pub copied: u64,
    /// Installed by moving pages.
    pub moved: u64,
    /// Built in place, while the world was stopped.
    pub built_in_place: u64,
    /// Of regions that were taken to rewrite their slots.
    pub patched: u64,
}

impl Bytes {
    fn so_far(heap: &Heap) -> Self {
        let counters = heap.snapshot().counters;
        Self {
            allocated: counters.allocated_bytes,
            evacuated: counters.evacuated_bytes,
            copied: counters.copied_bytes,
            moved: counters.moved_bytes,
            built_in_place: counters.built_in_place_bytes,
            patched: counters.patched_bytes,
        }
    }

    const fn since(self, before: Self) -> Self {
        Self {
            allocated: self.allocated - before.allocated,
            evacuated: self.evacuated - before.evacuated,
            copied: self.copied - before.copied,
            moved: self.moved - before.moved,
            built_in_place: self.built_in_place - before.built_in_place,
            patched: self.patched - before.patched,
        }
    }
}

impl Timed {
    /// Begins. Room for `operations` is made before, so that counting them does not allocate.
    #[must_use]
    pub fn begin(heap: &Heap, epoch: Instant, interval_ns: u64, operations: usize) -> Self {
        // Written, not only reserved: the first touch of a page takes time, too.
        let mut ends = vec![u64::MAX; operations];
        ends.clear();
        let (processor_before, bytes_before) = (ProcessorTime::so_far(), Bytes::so_far(heap));
        let (heap, begin_ns) = (heap.clone(), nanoseconds_since(epoch));
        Self { heap, epoch, interval_ns, processor_before, bytes_before, begin_ns, ends }
    }

    /// When it began, in nanoseconds since the epoch.
    #[must_use]
    pub const fn begin_ns(&self) -> u64 {
        self.begin_ns
    }

    /// Waits for the intended start of the next operation.
    #[inline]
    pub fn wait(&self, m: &mut Mutator) {
        if self.interval_ns != 0 {
            let intended = self.begin_ns + self.ends.len() as u64 * self.interval_ns;
            while nanoseconds_since(self.epoch) < intended {
                m.safepoint();
                spin_loop();
            }
        }
    }

    /// The operation that began last is complete.
    #[inline]
    pub fn done(&mut self) {
        self.ends.push(nanoseconds_since(self.epoch));
    }

    /// Ends.
    #[must_use]
    pub fn end(self) -> Section {
        let end_ns = nanoseconds_since(self.epoch);
        let processor = ProcessorTime::so_far().since(self.processor_before);
        let own_bytes = size_of::<u64>() * self.ends.capacity() + FAULT_LOG_BYTES;
        let peak_rss_bytes = peak_resident_bytes().saturating_sub(own_bytes as u64);
        Section {
            begin_ns: self.begin_ns,
            end_ns,
            processor,
            bytes: Bytes::so_far(&self.heap).since(self.bytes_before),
            peak_rss_bytes,
            operations: operations(self.begin_ns, self.interval_ns, &self.ends),
        }
    }
}

/// Starts and ends of operations of which these are the ends.
fn operations(begin_ns: u64, interval_ns: u64, ends: &[u64]) -> Vec<(u64, u64)> {
    let start = |nth: usize| match (interval_ns, nth) {
        (0, 0) => begin_ns,
        (0, nth) => ends[nth - 1],
        (interval, nth) => begin_ns + nth as u64 * interval,
    };
    ends.iter().enumerate().map(|(nth, &end)| (start(nth), end)).collect()
}

impl Section {
    /// Its length in nanoseconds.
    #[must_use]
    pub const fn length_ns(&self) -> u64 {
        self.end_ns - self.begin_ns
    }

    /// What each operation took.
    pub fn latencies(&self) -> impl Iterator<Item = u64> + '_ {
        self.operations.iter().map(|&(start, end)| end.saturating_sub(start))
    }
}

/// Nanoseconds from `epoch` until now.
#[inline]
#[must_use]
pub fn nanoseconds_since(epoch: Instant) -> u64 {
    epoch.elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_charged_to_all_operations_that_it_delays() {
        // Operations of 10 ns every 100 ns; the second is held up for 250 ns.
        let ends = [10, 360, 370, 380];
        let latencies = |interval| {
            operations(0, interval, &ends).iter().map(|&(start, end)| end - start).collect::<Vec<_>>()
        };
        assert_eq!(latencies(100), [10, 260, 170, 80]);
        assert_eq!(latencies(0), [10, 350, 10, 10]);
    }
}
