//! Statistics: counters and histograms that mutators, workers and signal handlers add to without
//! locks, and the serialisable [`Snapshot`] of them.
//!
//! Recording is one relaxed addition into a fixed table ([`LatencyHistogram`]), so it is safe in a
//! signal handler. A snapshot converts the tables to `hdrhistogram` and reads percentiles there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::account::HeldBytes;
use crate::events::{CycleSummary, FaultPath, Phase};
use crate::stress::{Stress, StressCount, StressModes};

const SUB_BITS: u32 = 6;
const SUB: usize = 1 << SUB_BITS;
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB;

/// A histogram of nanoseconds with a relative error under 1/64, recorded without locks.
#[derive(Debug)]
pub struct LatencyHistogram {
    counts: Box<[AtomicU64]>,
    max: AtomicU64,
    sum: AtomicU64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            max: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl LatencyHistogram {
    /// Adds one value. Safe in a signal handler.
    #[inline]
    pub fn record(&self, nanoseconds: u64) {
        self.counts[Self::bucket(nanoseconds)].fetch_add(1, Ordering::Relaxed);
        self.max.fetch_max(nanoseconds, Ordering::Relaxed);
        self.sum.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Adds one duration. Safe in a signal handler.
    #[inline]
    pub fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    const fn bucket(value: u64) -> usize {
        if value < SUB as u64 {
            return value as usize;
        }
        let shift = 63 - value.leading_zeros() - SUB_BITS;
        (shift as usize + 1) * SUB + ((value >> shift) as usize & (SUB - 1))
    }

    const fn highest_value(bucket: usize) -> u64 {
        if bucket < SUB {
            return bucket as u64;
        }
        let shift = (bucket / SUB - 1) as u32;
        let low = ((SUB + bucket % SUB) as u64) << shift;
        low + ((1 << shift) - 1)
    }

    /// The values as an `hdrhistogram` (three significant digits).
    ///
    /// # Panics
    /// Never: the histogram's bounds are constants that are valid.
    #[must_use]
    pub fn to_hdr(&self) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("valid bounds");
        for (bucket, count) in self.counts.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                histogram.saturating_record_n(Self::highest_value(bucket).max(1), count);
            }
        }
        histogram
    }

    /// Count, percentiles and maximum.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        let histogram = self.to_hdr();
        let max = self.max.load(Ordering::Relaxed);
        Percentiles {
            count: histogram.len(),
            sum: self.sum.load(Ordering::Relaxed),
            p50: histogram.value_at_quantile(0.5).min(max),
            p90: histogram.value_at_quantile(0.9).min(max),
            p99: histogram.value_at_quantile(0.99).min(max),
            p999: histogram.value_at_quantile(0.999).min(max),
            max,
        }
    }
}

/// Summary of a [`LatencyHistogram`], in nanoseconds.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Number of values.
    pub count: u64,
    /// Sum of all values.
    pub sum: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Largest value, exact.
    pub max: u64,
}

/// An operation of the kernel's that installs, registers or moves pages.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum KernelCall {
    /// `UFFDIO_COPY`.
    Copy,
    /// `UFFDIO_MOVE`.
    Move,
    /// `UFFDIO_ZEROPAGE`.
    Zeropage,
    /// `UFFDIO_REGISTER`.
    Register,
    /// `UFFDIO_UNREGISTER`.
    Unregister,
    /// `UFFDIO_WAKE`.
    Wake,
    /// `mremap` of a region or window to its alias.
    Mremap,
    /// `madvise(MADV_DONTNEED)`.
    Discard,
}

/// How the kernel answered, in the terms of `ioctl_userfaultfd(2)`.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum KernelAnswer {
    /// All of it was done.
    Done,
    /// Some of it was done.
    Partial,
    /// `EAGAIN`, nothing was done.
    Again,
    /// `EEXIST`: the page is already there.
    Exists,
    /// `ENOENT`: not registered any more, or a hole in the source.
    Missing,
    /// `EBUSY`: pinned or shared.
    Busy,
    /// `EINVAL`.
    Invalid,
    /// `ENOMEM`.
    NoMemory,
    /// Anything else.
    Other,
}

const CALLS: [(KernelCall, &str); 8] = [
    (KernelCall::Copy, "copy"),
    (KernelCall::Move, "move"),
    (KernelCall::Zeropage, "zeropage"),
    (KernelCall::Register, "register"),
    (KernelCall::Unregister, "unregister"),
    (KernelCall::Wake, "wake"),
    (KernelCall::Mremap, "mremap"),
    (KernelCall::Discard, "discard"),
];
const ANSWERS: [(KernelAnswer, &str); 9] = [
    (KernelAnswer::Done, "done"),
    (KernelAnswer::Partial, "partial"),
    (KernelAnswer::Again, "again"),
    (KernelAnswer::Exists, "exists"),
    (KernelAnswer::Missing, "missing"),
    (KernelAnswer::Busy, "busy"),
    (KernelAnswer::Invalid, "invalid"),
    (KernelAnswer::NoMemory, "no-memory"),
    (KernelAnswer::Other, "other"),
];

/// Counts of kernel calls by kind and answer.
#[derive(Debug, Default)]
pub struct CallCounts([[AtomicU64; ANSWERS.len()]; CALLS.len()]);

impl CallCounts {
    /// Counts one call. Safe in a signal handler.
    #[inline]
    pub fn count(&self, call: KernelCall, answer: KernelAnswer) {
        self.0[call as usize][answer as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All calls with all answers.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().flatten().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn entries(&self) -> Vec<CallCount> {
        let mut entries = vec![];
        for (call, call_name) in CALLS {
            for (answer, answer_name) in ANSWERS {
                let count = self.0[call as usize][answer as usize].load(Ordering::Relaxed);
                if count > 0 {
                    entries.push(CallCount { call: call_name, answer: answer_name, count });
                }
            }
        }
        entries
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Counters that any thread adds to, relaxed.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64,)+ }

        /// The values of [`Counters`] at one time.
        #[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct CounterValues { $($(#[$doc])* pub $name: u64,)+ }

        impl Counters {
            fn values(&self) -> CounterValues {
                CounterValues { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Cycles completed.
    cycles,
    /// Of them, young cycles.
    young_cycles,
    /// Cycles that ended without a flip: nothing was worth evacuating, or it was refused.
    cycles_without_flip,
    /// Cycles that ended without a flip because the system refused a registration.
    flips_refused,
    /// Stop-the-world pauses for the collection itself (verification not counted).
    pauses,
    /// Faults that mutators took on missing pages.
    mutator_faults,
    /// Faults on pages that nobody had touched, served with zeros.
    zero_faults,
    /// Bytes that mutators allocated.
    allocated_bytes,
    /// Bytes of survivors that got new addresses.
    evacuated_bytes,
    /// Bytes installed by moving their pages (nothing copied by the kernel).
    moved_bytes,
    /// Bytes installed by `UFFDIO_COPY`.
    copied_bytes,
    /// Bytes installed by building them in place (stop-the-world).
    built_in_place_bytes,
    /// Slots patched.
    patched_slots,
    /// Bytes of regions that were taken and whose slots were rewritten.
    patched_bytes,
    /// Regions taken from the mutators.
    regions_taken,
    /// Whole windows taken from the mutators.
    windows_taken,
    /// Regions evacuated.
    regions_evacuated,
    /// Regions found empty.
    regions_free,
    /// Huge pages moved whole.
    huge_moves,
    /// Pages that another thread installed first.
    lost_races,
    /// Handshakes done.
    handshakes,
    /// Objects that the barrier shaded.
    shaded_objects,
    /// Loads from weak slots of objects that marking had not reached (yet), be they dead or not: each keeps its object.
    white_upgrades,
    /// Weak slots that were cleared because their objects were found dead.
    weak_slots_cleared,
    /// Times that marking was ended with the world stopped, because such loads did not let it end.
    marking_stops,
    /// Slots that the barrier recorded while marking.
    recorded_slots,
    /// Slots of old objects that were remembered because they got a reference to a young one.
    remembered_slots,
    /// Objects checked by the verifier.
    verified_objects,
    /// Bytes of the objects that it checked.
    verified_bytes,
    /// Bytes that it compared with copies from before a flip.
    compared_bytes,
}

/// All statistics of a heap.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Counters.
    pub counters: Counters,
    /// Kernel calls.
    pub calls: CallCounts,
    /// Answers that were forced ([`crate::options::StressOptions`]).
    pub forced: CallCounts,
    /// Stress modes ([`crate::options::StressOptions`]).
    pub stress: Stress,
    /// Request of a stop to the last mutator's resumption.
    pub pause: LatencyHistogram,
    /// Request of a stop until mutators may run.
    pub stopped: LatencyHistogram,
    /// Request of a stop until all mutators stand still.
    pub safepoint: LatencyHistogram,
    /// Waits for memory.
    pub memory_wait: LatencyHistogram,
    faults: [LatencyHistogram; FaultPath::ALL.len()],
    phases: [LatencyHistogram; Phase::ALL.len()],
    last_cycle: std::sync::Mutex<CycleSummary>,
}

impl Statistics {
    /// Nothing counted yet, with these stress modes on.
    #[must_use]
    pub fn with_stress(modes: StressModes) -> Self {
        Self { stress: Stress::new(modes), ..Self::default() }
    }

    /// Records a mutator's fault. Safe in a signal handler.
    #[inline]
    pub fn record_fault(&self, path: FaultPath, latency: Duration) {
        self.counters.mutator_faults.fetch_add(1, Ordering::Relaxed);
        if path == FaultPath::Zero {
            self.counters.zero_faults.fetch_add(1, Ordering::Relaxed);
        }
        self.faults[path as usize].record_duration(latency);
    }

    /// Records the duration of a phase.
    pub fn record_phase(&self, phase: Phase, duration: Duration) {
        self.phases[phase as usize].record_duration(duration);
    }

    /// Records what a cycle did.
    pub fn record_cycle(&self, summary: &CycleSummary) {
        self.counters.cycles.fetch_add(1, Ordering::Relaxed);
        let young = u64::from(summary.extent == crate::extent::Extent::Young);
        self.counters.young_cycles.fetch_add(young, Ordering::Relaxed);
        *self.last_cycle.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = summary.clone();
    }

    /// What the last complete cycle did.
    #[must_use]
    pub fn last_cycle(&self) -> CycleSummary {
        self.last_cycle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// All faults, whatever their path.
    #[must_use]
    pub fn fault_percentiles(&self) -> Percentiles {
        let all = LatencyHistogram::default();
        for histogram in &self.faults {
            for (into, from) in all.counts.iter().zip(&histogram.counts) {
                into.fetch_add(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            all.max.fetch_max(histogram.max.load(Ordering::Relaxed), Ordering::Relaxed);
            all.sum.fetch_add(histogram.sum.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        all.percentiles()
    }

    /// A consistent-enough copy of everything (each value is read once, not all at one instant).
    #[must_use]
    pub fn snapshot(&self, memory: Memory, mode: &'static str, delivery: Option<&'static str>) -> Snapshot {
        Snapshot {
            mode,
            delivery,
            counters: self.counters.values(),
            pause_ns: self.pause.percentiles(),
            stopped_ns: self.stopped.percentiles(),
            safepoint_ns: self.safepoint.percentiles(),
            memory_wait_ns: self.memory_wait.percentiles(),
            fault_ns: self.fault_percentiles(),
            fault_paths: FaultPath::ALL
                .iter()
                .map(|&path| FaultPathStatistics {
                    path,
                    latency_ns: self.faults[path as usize].percentiles(),
                })
                .filter(|entry| entry.latency_ns.count > 0)
                .collect(),
            phases: Phase::ALL
                .iter()
                .map(|&phase| PhaseStatistics {
                    phase,
                    duration_ns: self.phases[phase as usize].percentiles(),
                })
                .filter(|entry| entry.duration_ns.count > 0)
                .collect(),
            ioctls: self.calls.entries(),
            forced_answers: self.forced.entries(),
            stress: self.stress.entries(),
            last_cycle: self.last_cycle(),
            memory,
        }
    }
}

/// Memory of a heap, in bytes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The heap's limit.
    pub limit_bytes: u64,
    /// Regions in use, whole.
    pub used_bytes: u64,
    /// Most that was in use at any time.
    pub peak_used_bytes: u64,
    /// Live bytes as found by the last marking, plus what was allocated since it began.
    pub live_bytes: u64,
    /// Memory that the system has given for objects, destinations, staging and free regions kept for
    /// reuse. Regions that mutators allocate in count whole.
    pub resident_bytes: u64,
    /// Most that was resident at any time.
    pub peak_resident_bytes: u64,
    /// What memory is held for, root slots included.
    pub held: HeldBytes,
    /// What it was held for when most was resident.
    pub held_at_peak: HeldBytes,
    /// Memory of the tables beside the heap.
    pub side_table_bytes: u64,
}

/// One phase's durations.
#[derive(Copy, Clone, Debug, Serialize)]
pub struct PhaseStatistics {
    /// The phase.
    pub phase: Phase,
    /// Its durations.
    pub duration_ns: Percentiles,
}

/// One fault path's latencies.
#[derive(Copy, Clone, Debug, Serialize)]
pub struct FaultPathStatistics {
    /// The path.
    pub path: FaultPath,
    /// Latency of faults served that way.
    pub latency_ns: Percentiles,
}

/// How often a kernel call gave an answer.
#[derive(Copy, Clone, Debug, Serialize)]
pub struct CallCount {
    /// Name of the call.
    pub call: &'static str,
    /// Name of the answer.
    pub answer: &'static str,
    /// How often.
    pub count: u64,
}

/// Statistics of a heap at one time; what Rust, C and the benchmarks read.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Mode in use.
    pub mode: &'static str,
    /// Delivery in use, in concurrent modes.
    pub delivery: Option<&'static str>,
    /// Counters.
    pub counters: CounterValues,
    /// Request of a stop to the last mutator's resumption.
    pub pause_ns: Percentiles,
    /// Request of a stop until mutators may run.
    pub stopped_ns: Percentiles,
    /// Request of a stop until all mutators stand still.
    pub safepoint_ns: Percentiles,
    /// Waits for memory.
    pub memory_wait_ns: Percentiles,
    /// Mutator faults of all paths.
    pub fault_ns: Percentiles,
    /// Mutator faults by path.
    pub fault_paths: Vec<FaultPathStatistics>,
    /// Durations by phase.
    pub phases: Vec<PhaseStatistics>,
    /// Kernel calls by kind and answer.
    pub ioctls: Vec<CallCount>,
    /// Answers that were forced, by call and kind.
    pub forced_answers: Vec<CallCount>,
    /// Stress modes that are on, and how often each has acted.
    pub stress: Vec<StressCount>,
    /// What the last complete cycle did.
    pub last_cycle: CycleSummary,
    /// Memory.
    pub memory: Memory,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_keep_values_within_the_stated_error() {
        for value in (0..200).chain([1_000, 65_535, 1 << 20, 123_456_789, u64::MAX >> 8]) {
            let high = LatencyHistogram::highest_value(LatencyHistogram::bucket(value));
            assert!(high >= value && high - value <= value / 64, "{value} -> {high}");
        }
    }

    #[test]
    fn percentiles_come_from_the_recorded_values() {
        let histogram = LatencyHistogram::default();
        (1..=1000).for_each(|value| histogram.record(value * 100));
        let summary = histogram.percentiles();
        assert_eq!((summary.count, summary.max), (1000, 100_000));
        assert!((49_000..=51_500).contains(&summary.p50), "{summary:?}");
        assert!((98_000..=100_000).contains(&summary.p99), "{summary:?}");
    }
}
