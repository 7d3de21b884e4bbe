//! Memory over time, from a thread of its own that looks now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use strikeslip::Heap;
use strikeslip::gc::sys::sched::resident_bytes;

use super::timed::nanoseconds_since;

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(10);
/// Most samples that are kept.
const MOST: usize = 600;

/// Memory at one time.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Nanoseconds since the epoch.
    pub at_ns: u64,
    /// Bytes that the process had resident.
    pub resident: u64,
    /// Bytes of memory that the heap held.
    pub held: u64,
    /// Bytes of the heap's regions that were in use.
    pub used: u64,
}

/// A running sampler.
#[derive(Debug)]
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Sample>>>,
}

impl Sampler {
    /// Starts it. Without a thread to be had, there are no samples.
    #[must_use]
    pub fn start(heap: &Heap, epoch: Instant) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let run = {
            let (heap, stop) = (heap.clone(), Arc::clone(&stop));
            move || sample(&heap, epoch, &stop)
        };
        Self { stop, thread: thread::Builder::new().name("sampler".into()).spawn(run).ok() }
    }

    /// Stops it.
    #[must_use]
    pub fn finish(mut self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        // It does not panic.
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        // An error elsewhere: the thread ends by itself.
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn sample(heap: &Heap, epoch: Instant, stop: &AtomicBool) -> Vec<Sample> {
    let mut samples = Vec::with_capacity(1 << 14);
    while !stop.load(Ordering::Relaxed) {
        let memory = heap.collector().memory();
        samples.push(Sample {
            at_ns: nanoseconds_since(epoch),
            resident: resident_bytes().unwrap_or(0) as u64,
            held: memory.resident_bytes,
            used: memory.used_bytes,
        });
        thread::sleep(PERIOD);
    }
    samples
}

/// The mean of a value over samples; 0 for none.
#[must_use]
pub fn mean(samples: &[Sample], value: impl Fn(&Sample) -> u64) -> u64 {
    let sum: u128 = samples.iter().map(|sample| u128::from(value(sample))).sum();
    sum.checked_div(samples.len() as u128).unwrap_or(0) as u64
}

/// At most `MOST` samples instead of all: of each group, the greatest values.
#[must_use]
pub fn thinned(samples: &[Sample]) -> Vec<Sample> {
    let group = samples.len().div_ceil(MOST).max(1);
    let greatest = |group: &[Sample], value: fn(&Sample) -> u64| group.iter().map(value).max().unwrap_or(0);
    samples
        .chunks(group)
        .map(|group| Sample {
            at_ns: group[0].at_ns,
            resident: greatest(group, |sample| sample.resident),
            held: greatest(group, |sample| sample.held),
            used: greatest(group, |sample| sample.used),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_greatest_values() {
        let sample = |nth: u64| Sample { at_ns: nth, resident: nth % 100, held: nth, used: 1 };
        let all: Vec<_> = (0..6_000).map(sample).collect();
        let thin = thinned(&all);
        assert_eq!(thin.len(), MOST);
        assert_eq!((thin[0].resident, thin[9].resident, thin[599].held), (9, 99, 5_999));
        assert_eq!(thinned(&all[..5]), all[..5]);
        assert_eq!((mean(&all, |sample| sample.resident), mean(&[], |sample| sample.held)), (49, 0));
    }
}
