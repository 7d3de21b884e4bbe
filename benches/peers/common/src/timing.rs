//! The timed section of a workload: its wall and processor time, and the latency of each of its
//! operations. Flat out, an operation begins when the one before has ended; paced, at its intended
//! start, for which the section waits in a loop (a sleep would measure the timer).

use std::hint::spin_loop;
use std::time::Instant;

use crate::histogram::Histogram;

/// A timed section.
#[derive(Debug)]
pub struct Timed {
    start: Instant,
    processor_start: f64,
    interval_ns: u64,
    /// When the next operation begins, in nanoseconds since `start`.
    intended_ns: u64,
    latency: Histogram,
    mark_every: u64,
    marks: Vec<u64>,
}

/// What a timed section measured.
#[derive(Clone, Debug)]
pub struct Timings {
    /// From its begin to its end.
    pub wall_seconds: f64,
    /// Of the whole process meanwhile, in user and kernel mode.
    pub processor_seconds: f64,
    /// Nanoseconds of each operation.
    pub latency: Histogram,
    /// When every so-manieth operation was complete, in nanoseconds since the begin.
    pub marks: Vec<u64>,
}

impl Timed {
    /// Begins. `interval_ns` is 0 for flat out; every `mark_every`-th of `operations` leaves a mark.
    #[must_use]
    pub fn begin(interval_ns: u64, operations: u64, mark_every: u64) -> Self {
        let marks = Vec::with_capacity(usize::try_from(operations / mark_every.max(1)).unwrap_or(0));
        let (latency, processor_start) = (Histogram::default(), processor_seconds());
        let start = Instant::now();
        Self { start, processor_start, interval_ns, intended_ns: 0, latency, mark_every, marks }
    }

    /// Waits for the intended start of the next operation; calls `poll` meanwhile.
    #[inline]
    pub fn wait(&self, mut poll: impl FnMut()) {
        if self.interval_ns != 0 {
            while self.now() < self.intended_ns {
                poll();
                spin_loop();
            }
        }
    }

    /// Counts the operation that has just ended.
    #[inline]
    pub fn done(&mut self) {
        let now = self.now();
        self.latency.record(now - self.intended_ns);
        self.intended_ns = if self.interval_ns == 0 { now } else { self.intended_ns + self.interval_ns };
        if self.latency.count().is_multiple_of(self.mark_every) {
            self.marks.push(now);
        }
    }

    /// Ends.
    #[must_use]
    pub fn end(self) -> Timings {
        Timings {
            wall_seconds: self.start.elapsed().as_secs_f64(),
            processor_seconds: processor_seconds() - self.processor_start,
            latency: self.latency,
            marks: self.marks,
        }
    }

    #[inline]
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

fn usage() -> libc::rusage {
    // SAFETY: a zeroed `rusage` is a valid one, and the call only writes into it.
    unsafe {
        let mut usage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    }
}

fn processor_seconds() -> f64 {
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage().ru_utime) + seconds(usage().ru_stime)
}

/// The most memory that the process had resident.
#[must_use]
pub fn peak_resident_bytes() -> u64 {
    usage().ru_maxrss as u64 * 1024
}
