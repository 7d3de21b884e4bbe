//! Two reports beside each other: did anything change by more than it moves anyway?

use std::path::PathBuf;

use clap::Args;

use super::{Group, Report};
use crate::error::Error;
use crate::numbers::Summary;
use crate::run::result::Run;
use crate::table::Table;

/// Options of the command `compare`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The report to compare with
    pub before: PathBuf,
    /// The report to be compared
    pub after: PathBuf,
}

/// A figure that is compared.
struct Metric {
    name: &'static str,
    value: fn(&Run) -> f64,
}

/// What is compared: less is better for all of them.
const METRICS: [Metric; 10] = [
    Metric { name: "wall s", value: |run| run.wall_seconds },
    Metric { name: "processor s", value: |run| run.processor_seconds },
    Metric { name: "pause p50 µs", value: |run| run.pauses_ns.p50 as f64 / 1e3 },
    Metric { name: "pause max µs", value: |run| run.pauses_ns.max as f64 / 1e3 },
    Metric { name: "latency p99.9 µs", value: |run| run.latency_ns.p999 as f64 / 1e3 },
    Metric { name: "latency max µs", value: |run| run.latency_ns.max as f64 / 1e3 },
    Metric { name: "metered p99.9 µs", value: |run| run.metered_ns[1].p999 as f64 / 1e3 },
    Metric { name: "waiting for memory ms", value: |run| run.memory_wait_ns.sum as f64 / 1e6 },
    Metric { name: "in the fault handler ms", value: |run| run.handler_ns as f64 / 1e6 },
    Metric { name: "peak RSS MiB", value: |run| run.peak_rss_bytes as f64 / f64::from(1 << 20) },
];

/// What a comparison says.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Better,
    Worse,
    /// The ranges of values overlap.
    Same,
    /// One run says nothing about how much a figure moves by itself.
    Unknown,
}

impl Verdict {
    /// Of two ranges of values of which less is better.
    fn of(before: Summary, after: Summary) -> Self {
        if before.count < 2 || after.count < 2 {
            Self::Unknown
        } else if after.max < before.min {
            Self::Better
        } else if after.min > before.max {
            Self::Worse
        } else {
            Self::Same
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::Same => "",
            Self::Unknown => "one run only",
        }
    }
}

/// Reads both reports and prints the table.
///
/// # Errors
/// A report cannot be read, they have no case in common, or a workload's checksum changed.
pub fn run(options: &Options) -> Result<(), Error> {
    let (before, after) = (Report::read(&options.before)?, Report::read(&options.after)?);
    print!("{}", compare(&before, &after)?);
    Ok(())
}

/// The table.
///
/// # Errors
/// They have no case in common, or a workload's checksum changed.
pub fn compare(before: &Report, after: &Report) -> Result<String, Error> {
    let mut table = Table::new(&["", "figure", "before", "spread", "after", "spread", "after / before", ""]);
    let old_groups = before.groups();
    let mut pairs = 0;
    for new in after.groups() {
        let Some(old) = old_groups.iter().find(|old| old.case == new.case) else { continue };
        pairs += 1;
        check(old, &new)?;
        let mut name = new.case.to_string();
        for metric in METRICS {
            let (old, new) = (old.summary(metric.value), new.summary(metric.value));
            if old.max == 0.0 && new.max == 0.0 {
                continue;
            }
            table.row([
                std::mem::take(&mut name),
                metric.name.to_owned(),
                format!("{:.3}", old.p50),
                super::summary::spread(old),
                format!("{:.3}", new.p50),
                super::summary::spread(new),
                format!("{:.2}", new.p50 / old.p50),
                Verdict::of(old, new).text().to_owned(),
            ]);
        }
    }
    if pairs == 0 {
        return Err(Error::Option("the reports have no case in common".to_owned()));
    }
    let mut text = String::new();
    if before.machine != after.machine {
        let [before, after] = [before, after].map(super::summary::machine);
        text += &format!("before: {before}\nafter:  {after}\n\n");
    }
    Ok(format!("{text}{table}\n\"better\" and \"WORSE\": no run of one is within the range of the other.\n"))
}

/// Whether both did the same work.
fn check(old: &Group<'_>, new: &Group<'_>) -> Result<(), Error> {
    let (old, new) = (old.runs[0], new.runs[0]);
    if old.seed == new.seed && old.parameters == new.parameters && old.checksum != new.checksum {
        let case = &new.case;
        return Err(Error::Wrong(format!("checksum {} of {case}, which was {}", new.checksum, old.checksum)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ranges_that_do_not_overlap_are_a_change() {
        let of = |values: &[f64]| Summary::of(values.iter().copied());
        assert_eq!(Verdict::of(of(&[2.0, 3.0]), of(&[1.0, 1.5])), Verdict::Better);
        assert_eq!(Verdict::of(of(&[2.0, 3.0]), of(&[3.5, 4.0])), Verdict::Worse);
        assert_eq!(Verdict::of(of(&[2.0, 3.0]), of(&[1.0, 2.5])), Verdict::Same);
        assert_eq!(Verdict::of(of(&[2.0, 3.0]), of(&[9.0])), Verdict::Unknown);
    }
}
