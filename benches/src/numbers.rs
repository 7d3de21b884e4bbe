//! Summaries of measured values, and how sizes are printed.

use serde::Serialize;

/// A summary of exact values (no histogram: there are few).
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Number of values.
    pub count: usize,
    /// Least.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// Greatest.
    pub max: f64,
}

impl Summary {
    /// Summarises; all zero for no values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| match values.len() {
            0 => 0.0,
            count => values[(share * (count - 1) as f64).round() as usize],
        };
        Self { count: values.len(), min: at(0.0), p50: at(0.5), p90: at(0.9), max: at(1.0) }
    }
}

/// The median; 0 for no values.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    Summary::of(values).p50
}

/// Bytes in MiB.
#[must_use]
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A size for people, in whole binary units where it is one.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >= 1 << shift) {
        Some((shift, unit)) if bytes.is_multiple_of(1 << shift) => format!("{} {unit}", bytes >> shift),
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_take_values_that_exist() {
        let summary = Summary::of([5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((summary.min, summary.p50, summary.max, summary.count), (1.0, 3.0, 5.0, 5));
        assert_eq!(Summary::of([]), Summary::default());
    }

    #[test]
    fn whole_sizes_are_printed_whole() {
        assert_eq!((size(512 << 20).as_str(), size(3 << 29).as_str()), ("512 MiB", "1.5 GiB"));
    }
}
