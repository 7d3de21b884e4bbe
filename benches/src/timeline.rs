//! When a mutator had done how many operations: what speeds after a flip are computed from.

/// Times (nanoseconds) and counts of operations, both rising.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Vec<(u64, u64)>);

impl Timeline {
    /// With room for `samples`, so that recording does not allocate.
    #[must_use]
    pub fn with_capacity(samples: usize) -> Self {
        Self(Vec::with_capacity(samples))
    }

    /// Adds a sample, unless there is no room.
    #[inline]
    pub fn record(&mut self, time: u64, operations: u64) {
        if self.0.len() < self.0.capacity() {
            self.0.push((time, operations));
        }
    }

    /// Time of the last sample.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|&(time, _)| time)
    }

    /// Operations done at `time`: between two samples, in proportion. `None` outside of them.
    #[must_use]
    pub fn operations_at(&self, time: u64) -> Option<f64> {
        let after = self.0.partition_point(|&(at, _)| at <= time);
        let &(t0, n0) = self.0.get(after.checked_sub(1)?)?;
        let &(t1, n1) = self.0.get(after)?;
        Some(n0 as f64 + (n1 - n0) as f64 * (time - t0) as f64 / (t1 - t0) as f64)
    }

    /// Operations per millisecond from `begin` to `end`.
    #[must_use]
    pub fn speed(&self, begin: u64, end: u64) -> Option<f64> {
        let operations = self.operations_at(end)? - self.operations_at(begin)?;
        Some(operations * 1e6 / (end - begin) as f64)
    }

    /// The longest time without a sample from `begin` to `end`, in nanoseconds.
    #[must_use]
    pub fn longest_gap(&self, begin: u64, end: u64) -> u64 {
        let gap = |pair: &[(u64, u64)]| pair[1].0.min(end).saturating_sub(pair[0].0.max(begin));
        self.0.windows(2).map(gap).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_and_gaps_come_from_the_samples() {
        let mut timeline = Timeline::with_capacity(4);
        for (time, operations) in [(0, 0), (1_000_000, 100), (5_000_000, 100), (6_000_000, 200)] {
            timeline.record(time, operations);
        }
        timeline.record(9_000_000, 900); // no room
        assert_eq!(timeline.speed(0, 1_000_000 - 1).map(f64::round), Some(100.0));
        assert_eq!(timeline.speed(500_000, 5_500_000), Some(20.0));
        assert_eq!(timeline.longest_gap(0, 6_000_000), 4_000_000);
        assert_eq!(timeline.operations_at(7_000_000), None);
    }
}
