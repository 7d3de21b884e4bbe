//! A histogram of latencies with 64 buckets for each power of two: percentiles are at most 1.6 % too
//! high, the maximum is exact.

/// Values up to 2^64 - 1 have an index below this.
const BUCKETS: usize = 60 * 64;

/// The histogram.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, max: 0 }
    }
}

const fn index(value: u64) -> usize {
    let shift = 57_u32.saturating_sub((value | 1).leading_zeros());
    (shift as usize) * 64 + (value >> shift) as usize
}

/// The greatest value of a bucket.
const fn last(index: usize) -> u64 {
    if index < 128 {
        return index as u64;
    }
    let shift = index / 64 - 1;
    let top = (64 + index % 64) as u64;
    (top << shift) + ((1 << shift) - 1)
}

impl Histogram {
    /// Counts a value.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.counts[index(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Number of values.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The greatest value.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The value that a share of all values does not exceed; 0 for no values.
    #[must_use]
    pub fn at(&self, share: f64) -> u64 {
        let rank = (share * self.count as f64).ceil() as u64;
        let mut seen = 0;
        for (index, &count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank && count > 0 {
                return last(index).min(self.max);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1 << shift) + (1 << shift) / 3, u64::MAX >> shift] {
                assert!(last(index(value)) >= value && index(last(index(value))) == index(value), "{value}");
                assert!((last(index(value)) - value) as f64 <= value as f64 / 64.0, "{value}");
            }
        }
        assert!(index(u64::MAX) < BUCKETS);
    }

    #[test]
    fn percentiles_are_ranks() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|value| histogram.record(value));
        assert_eq!([histogram.at(0.5), histogram.at(0.99), histogram.at(1.0)], [50, 99, 100]);
        assert_eq!(Histogram::default().at(0.5), 0);
    }
}
