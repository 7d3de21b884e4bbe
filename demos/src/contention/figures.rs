//! The figures of an experiment, and medians of them over rounds.

use serde::Serialize;
use strikeslip::gc::stats::{LatencyHistogram, Percentiles};

/// Values of which a median can be taken, field by field.
pub trait Median: Sized {
    /// The median of `rounds`, which are not empty.
    fn median(rounds: &[&Self]) -> Self;
}

impl Median for u64 {
    /// Of an even number, the lower middle.
    fn median(rounds: &[&Self]) -> Self {
        let mut values: Vec<_> = rounds.iter().map(|&&value| value).collect();
        values.sort_unstable();
        values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default()
    }
}

impl<T: Median> Median for Option<T> {
    /// None if it is not known of some round.
    fn median(rounds: &[&Self]) -> Self {
        let known: Option<Vec<_>> = rounds.iter().map(|round| round.as_ref()).collect();
        known.filter(|known| !known.is_empty()).map(|known| T::median(&known))
    }
}

/// Defines a structure of figures, with its median.
macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)+ })+) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type,)+ }

        impl Median for $name {
            fn median(rounds: &[&Self]) -> Self {
                Self { $($field: Median::median(&rounds.iter().map(|round| &round.$field).collect::<Vec<_>>()),)+ }
            }
        }
    )+ };
}

figures! {
    /// A distribution of nanoseconds.
    Latency {
        /// Number of values.
        count: u64,
        /// Mean.
        mean: u64,
        /// Median.
        p50: u64,
        /// 99th percentile.
        p99: u64,
        /// Largest value.
        max: u64,
    }

    /// How threads slept in a part of a run, as the scheduler counts it, all of them together.
    Sleep {
        /// Time that they were watched, summed over threads.
        wall_ns: u64,
        /// Neither on a processor nor waiting for one: asleep, for whatever reason (`schedstat`: wall time less
        /// time on a processor less time in the run queue).
        asleep_ns: Option<u64>,
        /// Asleep uninterruptibly (`sum_block_runtime` of `/proc/self/task/*/sched`), where the kernel counts it.
        blocked_ns: Option<u64>,
        /// Voluntary context switches: the thread had to wait for something.
        voluntary_switches: Option<u64>,
    }

    /// What trace events say about threads. Exact.
    Traced {
        /// `mmap_lock` acquired for reading.
        mmap_lock_reads: u64,
        /// `mmap_lock` acquired for writing.
        mmap_lock_writes: u64,
        /// Switches to uninterruptible sleep.
        sleeps: u64,
        /// Time from such a switch until the thread was woken.
        asleep_ns: u64,
        /// Events that the kernel dropped because the buffer was full: 0, or the counts are too low.
        lost_events: u64,
    }

    /// Mutators and compaction beside a storm.
    Compaction {
        /// Cycles that compacted.
        cycles: u64,
        /// Wall time of a compaction: from the flip until no page is missing.
        compaction_ns: Latency,
        /// The same, all of them together.
        compaction_total_ns: u64,
        /// `UFFDIO_COPY`, whatever its length, by collector threads and mutators.
        copy_ns: Latency,
        /// `UFFDIO_MOVE`, whatever its length.
        move_ns: Latency,
        /// `UFFDIO_REGISTER` and `UFFDIO_UNREGISTER`, which take `mmap_lock` for writing on every kernel.
        register_ns: Latency,
        /// `UFFDIO_COPY`, `UFFDIO_MOVE` and `UFFDIO_ZEROPAGE`, by collector threads and mutators ..
        page_operations: u64,
        /// .. those of them in which the thread slept (a voluntary context switch) ..
        page_operations_slept: u64,
        /// .. and how long these took.
        page_operations_slept_ns: u64,
        /// `madvise(MADV_DONTNEED)` of the heap's memory, which takes `mmap_lock` too where mappings are registered,
        /// and before Linux 6.17 everywhere.
        discards: u64,
        /// Mutators' faults, all paths, in the handler.
        fault_ns: Latency,
        /// Pauses, until the last mutator runs again.
        pause_ns: Latency,
        /// Mutators' operations, each on one object.
        mutator_operation_ns: Latency,
        /// Wrong objects seen by mutators: 0 unless something is broken.
        mismatches: u64,
        /// Sleep of the collector's serving threads, while a compaction ran.
        collector: Sleep,
        /// Sleep of the mutators, while a compaction ran.
        mutators: Sleep,
        /// The same of both by trace events, where they can be had.
        collector_traced: Option<Traced>,
        /// Of the mutators.
        mutators_traced: Option<Traced>,
        /// Waits for the model's lock, with `--what-if-mmap-lock`: all of them together.
        model_wait_ns: Option<u64>,
        /// Operations that the storm did meanwhile.
        storm_operations: u64,
    }

    /// One kind of operation, done by the prober beside a storm.
    Probe {
        /// Its latency.
        latency_ns: Latency,
        /// Voluntary context switches of the prober while it did them: sleeps in the operations.
        sleeps: u64,
        /// Time asleep in them.
        asleep_ns: Option<u64>,
        /// Time from the first to the last of them.
        wall_ns: u64,
        /// Requests that were not done (another answer of the kernel's).
        refused: u64,
        /// Operations that were done while trace events were counted ..
        traced_operations: u64,
        /// .. and what was counted.
        traced: Option<Traced>,
    }
}

impl Traced {
    /// Acquisitions of `mmap_lock`.
    #[must_use]
    pub const fn acquisitions(&self) -> u64 {
        self.mmap_lock_reads + self.mmap_lock_writes
    }
}

impl Latency {
    pub(super) fn of(histogram: &LatencyHistogram) -> Self {
        let Percentiles { count, sum, p50, p99, max, .. } = histogram.percentiles();
        Self { count, mean: sum.checked_div(count).unwrap_or(0), p50, p99, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_field_by_field() {
        let latency = |p50, p99| Latency { p50, p99, ..Latency::default() };
        let rounds = [latency(1, 90), latency(3, 70), latency(2, 80)];
        let median = Latency::median(&rounds.each_ref());
        assert_eq!((median.p50, median.p99), (2, 80));
    }

    #[test]
    fn what_is_not_known_of_a_round_is_not_known() {
        assert_eq!(Option::median(&[&Some(1), &Some(3), &Some(2)]), Some(2));
        assert_eq!(Option::median(&[&Some(1_u64), &None]), None);
        assert_eq!(u64::median(&[&1, &2, &3, &4]), 2);
    }
}
