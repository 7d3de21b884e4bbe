//! Mutator utilisation: the share of time that a mutator had for its own work.
//!
//! *Stolen* from a mutator is the time of each pause (from its request, although the mutator may have run for
//! a while then), its own waits for memory, and its own time in the fault handler. What a fault takes that a
//! worker serves is charged to every mutator, since the worker does not know whose it is; its way to the
//! worker and back is not in it, so for delivery by the pool the figures are upper bounds.
//!
//! `MMU(w)` is the least utilisation of all windows of length `w` (Cheng and Blelloch, PLDI 2001), `BMU(w)` the
//! least `MMU` of all windows at least as long (Sachindran, Moss and Berger, OOPSLA 2004).

use serde::{Deserialize, Serialize};

use super::observed::Observed;
use super::recorder::Delay;
use super::timed::Section;

/// Time stolen from one mutator in a section: intervals that neither touch nor overlap, in order.
#[derive(Clone, Debug)]
pub struct Stolen {
    begin: u64,
    end: u64,
    intervals: Vec<(u64, u64)>,
    /// Stolen before each interval.
    before: Vec<u64>,
}

impl Stolen {
    /// Of these intervals, what lies in the section from `begin` to `end`.
    #[must_use]
    pub fn new(begin: u64, end: u64, mut raw: Vec<(u64, u64)>) -> Self {
        raw.sort_unstable();
        let mut intervals: Vec<(u64, u64)> = vec![];
        for (from, to) in raw {
            let (from, to) = (from.max(begin), to.min(end));
            match intervals.last_mut() {
                _ if from >= to => {}
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => intervals.push((from, to)),
            }
        }
        let mut sum = 0;
        let mut before = Vec::with_capacity(intervals.len());
        for &(from, to) in &intervals {
            before.push(sum);
            sum += to - from;
        }
        Self { begin, end, intervals, before }
    }

    /// What was stolen from mutator `number` in a section.
    #[must_use]
    pub fn from_mutator(number: u8, section: &Section, observed: &Observed) -> Self {
        let delay = |delay: &Delay| (delay.end_ns.saturating_sub(delay.length_ns), delay.end_ns);
        let waits = observed.memory_waits.iter().filter(|wait| wait.mutator == number);
        let faults = observed.faults.iter().filter(|fault| fault.mutator == number || fault.mutator == 0);
        let faults = faults.map(|fault| (fault.end_ns.saturating_sub(fault.latency_ns), fault.end_ns));
        let all = observed.pauses.iter().chain(waits).map(delay).chain(faults).collect();
        Self::new(section.begin_ns, section.end_ns, all)
    }

    /// Stolen from the section's begin until `time`.
    fn until(&self, time: u64) -> u64 {
        match self.intervals.partition_point(|&(from, _)| from < time).checked_sub(1) {
            Some(last) => {
                let (from, to) = self.intervals[last];
                self.before[last] + (to.min(time) - from)
            }
            None => 0,
        }
    }

    /// Utilisation from `begin` to `end`, which lie in the section.
    #[must_use]
    pub fn utilisation(&self, begin: u64, end: u64) -> f64 {
        if begin >= end {
            return 1.0;
        }
        1.0 - (self.until(end) - self.until(begin)) as f64 / (end - begin) as f64
    }

    /// The least utilisation of all windows of this length, or of the section if that is shorter.
    #[must_use]
    pub fn minimum(&self, window: u64) -> f64 {
        let Some(last_begin) = self.end.checked_sub(window).filter(|&last| last > self.begin) else {
            return self.utilisation(self.begin, self.end);
        };
        // A worst window begins where an interval begins, or ends where one ends.
        let begins = self.intervals.iter().flat_map(|&(from, to)| [from, to.saturating_sub(window)]);
        begins
            .map(|begin| begin.clamp(self.begin, last_begin))
            .map(|begin| self.utilisation(begin, begin + window))
            .fold(1.0, f64::min)
    }
}

/// Minimum and bounded utilisation for one length of windows.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Length of the windows.
    pub window_ns: u64,
    /// `MMU`, over all mutators.
    pub minimum: f64,
    /// `BMU`, over all lengths given.
    pub bounded: f64,
}

/// Shortest window, and windows for each factor of 10.
const SHORTEST_NS: f64 = 1e5;
const PER_DECADE: f64 = 8.0;

/// The curve of all mutators together: the least of any, for windows from 0.1 ms to the section's length.
#[must_use]
pub fn curve(mutators: &[Stolen]) -> Vec<Point> {
    let length = mutators.iter().map(|stolen| stolen.end - stolen.begin).min().unwrap_or(0);
    let windows = (0..).map(|nth| (SHORTEST_NS * 10_f64.powf(f64::from(nth) / PER_DECADE)) as u64);
    let windows = windows.take_while(|&window| window < length).chain((length > 0).then_some(length));
    let mut points: Vec<_> = windows
        .map(|window_ns| {
            let minimum = mutators.iter().map(|stolen| stolen.minimum(window_ns)).fold(1.0, f64::min);
            Point { window_ns, minimum, bounded: minimum }
        })
        .collect();
    for nth in (1..points.len()).rev() {
        points[nth - 1].bounded = points[nth - 1].minimum.min(points[nth].bounded);
    }
    points
}

/// Utilisation in the first milliseconds after mutators may run again, over all flips.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AfterFlip {
    /// Milliseconds after the flip.
    pub ms: u64,
    /// Median.
    pub median: f64,
    /// Nine of ten flips had more.
    pub tenth: f64,
    /// The worst.
    pub least: f64,
}

/// Milliseconds after the flip that utilisation is given for.
pub const AFTER_MS: [u64; 3] = [1, 5, 20];

/// Utilisation after the flips at these times (mutators may run again), the mean of all mutators.
#[must_use]
pub fn after_flips(mutators: &[Stolen], resumed: &[u64]) -> Vec<AfterFlip> {
    AFTER_MS
        .map(|ms| {
            let after = |&resumed: &u64| {
                let sum: f64 =
                    mutators.iter().map(|stolen| stolen.utilisation(resumed, resumed + ms * 1_000_000)).sum();
                sum / mutators.len() as f64
            };
            let mut all: Vec<f64> = resumed.iter().map(after).collect();
            all.sort_by(f64::total_cmp);
            let at =
                |share: f64| all.get((share * all.len().saturating_sub(1) as f64).round() as usize).copied();
            AfterFlip {
                ms,
                median: at(0.5).unwrap_or(1.0),
                tenth: at(0.1).unwrap_or(1.0),
                least: at(0.0).unwrap_or(1.0),
            }
        })
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 long; stolen: 100..200, 300..350 (in two parts that overlap), 900..1000.
    fn stolen() -> Stolen {
        Stolen::new(0, 1000, vec![(900, 1200), (300, 340), (100, 200), (330, 350), (320, 320)])
    }

    #[test]
    fn intervals_are_merged_and_cut_to_the_section() {
        assert_eq!(stolen().intervals, [(100, 200), (300, 350), (900, 1000)]);
        assert_eq!(stolen().utilisation(0, 1000), 0.75);
        assert_eq!(stolen().utilisation(150, 250), 0.5);
        assert_eq!(stolen().utilisation(400, 800), 1.0);
    }

    #[test]
    fn the_minimum_is_that_of_the_worst_window() {
        // Within an interval nothing is left; from 100 to 350 it is 100 of 250; more than all is all.
        assert_eq!(stolen().minimum(50), 0.0);
        assert_eq!(stolen().minimum(100), 0.0);
        assert_eq!(stolen().minimum(200), 0.5);
        assert_eq!(stolen().minimum(250), 0.4);
        assert_eq!(stolen().minimum(5000), 0.75);
        let brute = (0..=800).map(|begin| stolen().utilisation(begin, begin + 200)).fold(1.0, f64::min);
        assert_eq!(brute, 0.5);
    }

    #[test]
    fn bounded_utilisation_never_falls_with_longer_windows() {
        let ms = 1_000_000;
        // Two pauses of 1 ms, 2 ms apart: a window of 3 ms has less than one of 2 ms.
        let stolen = Stolen::new(0, 20 * ms, vec![(5 * ms, 6 * ms), (7 * ms, 8 * ms)]);
        let curve = curve(&[stolen]);
        assert!(curve.windows(2).all(|pair| pair[0].bounded <= pair[1].bounded));
        assert!(curve.iter().all(|point| point.bounded <= point.minimum));
        assert!(curve.windows(2).any(|pair| pair[0].minimum > pair[1].minimum), "{curve:?}");
        let last = curve.last().expect("a section has a curve");
        assert_eq!((last.window_ns, last.minimum), (20 * ms, 0.9));
    }

    #[test]
    fn utilisation_after_flips_is_that_of_the_time_behind_them() {
        let ms = 1_000_000;
        let first = Stolen::new(0, 100 * ms, vec![(10 * ms, 11 * ms)]);
        let second = Stolen::new(0, 100 * ms, vec![]);
        let after = after_flips(&[first, second], &[10 * ms, 50 * ms]);
        let least: Vec<_> = after.iter().map(|after| after.least).collect();
        assert_eq!(least, [0.5, 0.9, 0.975]);
        assert_eq!(after_flips(&[], &[])[0].median, 1.0);
    }
}
