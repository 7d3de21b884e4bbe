//! Distributions of durations: percentiles, and the raw buckets that they come from.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use strikeslip_demos::workload::latency_histogram;

/// A distribution of values in nanoseconds, of three significant digits (the maximum is exact).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Number of values.
    pub count: u64,
    /// Sum of all values, each rounded up to its bucket's end.
    pub sum: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    #[serde(rename = "p99.9")]
    pub p999: u64,
    /// 99.99th percentile.
    #[serde(rename = "p99.99")]
    pub p9999: u64,
    /// Largest value.
    pub max: u64,
    /// Values (ends of buckets) and how often each was counted, in rising order.
    pub buckets: Vec<(u64, u64)>,
}

impl Distribution {
    /// The distribution of these values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = u64>) -> Self {
        let (mut histogram, mut max) = (latency_histogram(), 0);
        for value in values {
            histogram.saturating_record(value);
            max = max.max(value);
        }
        Self::new(&histogram, max)
    }

    /// All values of several distributions.
    #[must_use]
    pub fn merged<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut histogram, mut max) = (latency_histogram(), 0);
        for one in all {
            one.buckets.iter().for_each(|&(value, count)| histogram.saturating_record_n(value, count));
            max = max.max(one.max);
        }
        Self::new(&histogram, max)
    }

    /// The value that a share of all values (0 to 1) does not exceed; 0 for no values.
    #[must_use]
    pub fn at(&self, share: f64) -> u64 {
        let rank = ((share * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for &(value, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return value.min(self.max);
            }
        }
        self.max
    }

    fn new(histogram: &Histogram<u64>, max: u64) -> Self {
        let steps = histogram.iter_recorded();
        let buckets: Vec<_> = steps.map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
        let sum = buckets.iter().map(|&(value, count)| value.saturating_mul(count)).sum();
        let mut all = Self { count: histogram.len(), sum, max, buckets, ..Self::default() };
        [all.p50, all.p90, all.p99, all.p999, all.p9999] =
            [0.5, 0.9, 0.99, 0.999, 0.9999].map(|share| all.at(share));
        all
    }
}

impl From<&Histogram<u64>> for Distribution {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self::new(histogram, histogram.max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks_and_the_maximum_is_exact() {
        let all = Distribution::of(1..=1000);
        assert_eq!(
            (all.count, all.p50, all.p90, all.p99, all.p999, all.max),
            (1000, 500, 900, 990, 999, 1000)
        );
        assert_eq!(Distribution::of([123_456_789]).max, 123_456_789);
        assert_eq!(Distribution::of([]), Distribution::default());
        assert_eq!(Distribution::default().at(0.5), 0);
    }

    #[test]
    fn distributions_are_merged_from_their_buckets() {
        let merged = Distribution::merged(&[Distribution::of(1..=50), Distribution::of(51..=100)]);
        assert_eq!(merged, Distribution::of(1..=100));
    }

    #[test]
    fn a_distribution_survives_json() {
        let all = Distribution::of((0..5_000).map(|value| value * value));
        let text = serde_json::to_string(&all).expect("it can be written");
        assert_eq!(serde_json::from_str::<Distribution>(&text).expect("and read"), all);
    }
}
