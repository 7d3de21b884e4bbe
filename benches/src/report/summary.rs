//! The report on the terminal: one table for each question. All figures are medians over the runs of a case,
//! *spread* is from the least to the greatest of them, relative to the median; percentiles and maxima of
//! durations are of all runs together.

use super::overhead::overheads;
use super::{Group, Report};
use crate::measure::distribution::Distribution;
use crate::numbers::{Summary, mib};
use crate::run::result::Run;
use crate::table::Table;

/// Prints all tables.
pub fn print(report: &Report) {
    let groups = report.groups();
    println!("\n{}", machine(report));
    println!(
        "\nThroughput and processor time (seconds; overhead: at least so many times no collector at all)\n"
    );
    println!("{}", throughput(&groups));
    println!("Pauses, from the request to the last mutator's resumption, and faults (µs)\n");
    println!("{}", pauses(&groups));
    println!("Utilisation (%), memory (MiB), noise\n");
    println!("{}", utilisation(&groups));
    if groups.iter().any(|group| group.runs[0].latency_ns.count > 0) {
        println!("Latency of operations; paced: from the intended start (µs)\n");
        println!("{}", latencies(&groups));
    }
    for (name, checksum) in checksums(report) {
        println!("checksum of {name}: {checksum} in every run");
    }
}

/// The machine in one line.
#[must_use]
pub fn machine(report: &Report) -> String {
    let machine = &report.machine;
    format!(
        "Linux {}, {} processors ({}), {:.0} GiB, huge pages {}, commit {}",
        machine.kernel,
        machine.processors,
        machine.processor_model,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        machine.huge_pages,
        machine.commit.as_deref().unwrap_or("unknown"),
    )
}

/// Checksums by workload (and pace, where that matters), in order.
#[must_use]
pub fn checksums(report: &Report) -> Vec<(String, &str)> {
    let mut all: Vec<(String, &str)> = vec![];
    for run in &report.runs {
        let name =
            run.case.workload.name().to_owned() + if run.case.interval_ns == 0 { "" } else { ", paced" };
        if all.iter().all(|(known, _)| *known != name) {
            all.push((name, &run.checksum));
        }
    }
    all
}

/// Overheads of all groups, each beside those of the same workload and pace.
#[must_use]
pub fn all_overheads(groups: &[Group<'_>]) -> Vec<super::overhead::Overhead> {
    let alike = |a: &Group<'_>, b: &Group<'_>| {
        a.case.workload == b.case.workload && a.case.interval_ns == b.case.interval_ns
    };
    let of = |group: &Group<'_>| {
        let mine: Vec<_> = groups.iter().filter(|other| alike(group, other)).cloned().collect();
        let nth = mine.iter().position(|other| other.case == group.case).expect("a group is like itself");
        overheads(&mine)[nth]
    };
    groups.iter().map(of).collect()
}

/// The spread of values in percent of their median.
#[must_use]
pub fn spread(summary: Summary) -> String {
    match summary.count {
        0 | 1 => "–".to_owned(),
        _ => format!("±{:.0} %", (summary.max - summary.min) / summary.p50 * 50.0),
    }
}

/// Nanoseconds in microseconds, with as many digits as mean something.
#[must_use]
pub fn micros(nanoseconds: u64) -> String {
    let value = nanoseconds as f64 / 1e3;
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn percentiles(of: &Distribution) -> [String; 4] {
    match of.count {
        0 => std::array::from_fn(|_| "–".to_owned()),
        _ => [of.p50, of.p99, of.p999, of.max].map(micros),
    }
}

fn throughput(groups: &[Group<'_>]) -> Table {
    let mut table = Table::new(&[
        "",
        "heap MiB",
        "runs",
        "wall",
        "spread",
        "processor",
        "mutator",
        "collector",
        "in handler",
        "k op/s",
        "wall overhead",
        "processor overhead",
    ]);
    for (group, overhead) in groups.iter().zip(all_overheads(groups)) {
        let seconds = |value: fn(&Run) -> u64| format!("{:.3}", group.median(|run| value(run) as f64 / 1e9));
        let wall = group.summary(|run| run.wall_seconds);
        table.row([
            group.case.to_string(),
            format!("{:.0}", mib(group.runs[0].heap_bytes)),
            group.runs.len().to_string(),
            format!("{:.3}", wall.p50),
            spread(wall),
            format!("{:.3}", group.median(|run| run.processor_seconds)),
            seconds(|run| run.processor.mutator_ns),
            seconds(|run| run.processor.collector_ns),
            seconds(|run| run.handler_ns),
            format!("{:.0}", group.median(|run| run.operations as f64 / run.wall_seconds / 1e3)),
            format!("{:.2}", overhead.wall),
            format!("{:.2}", overhead.processor),
        ]);
    }
    table
}

fn pauses(groups: &[Group<'_>]) -> Table {
    let mut table = Table::new(&[
        "",
        "cycles",
        "young",
        "pause p50",
        "p99",
        "max",
        "safepoint p50",
        "max",
        "faults",
        "p50",
        "p99",
        "max",
        "memory waits",
        "ms a run",
        "max ms",
    ]);
    for group in groups {
        let (pauses, safepoint) = (group.merged(|run| &run.pauses_ns), group.merged(|run| &run.safepoint_ns));
        let (faults, waits) = (group.merged(|run| &run.fault_ns), group.merged(|run| &run.memory_wait_ns));
        let [pause_p50, pause_p99, _, pause_max] = percentiles(&pauses);
        let [safepoint_p50, .., safepoint_max] = percentiles(&safepoint);
        let [fault_p50, fault_p99, _, fault_max] = percentiles(&faults);
        table.row([
            group.case.to_string(),
            format!("{:.0}", group.median(|run| run.cycles as f64)),
            format!("{:.0}", group.median(|run| run.young_cycles as f64)),
            pause_p50,
            pause_p99,
            pause_max,
            safepoint_p50,
            safepoint_max,
            format!("{:.0}", group.median(|run| run.faults as f64)),
            fault_p50,
            fault_p99,
            fault_max,
            format!("{:.0}", group.median(|run| run.memory_wait_ns.count as f64)),
            format!("{:.1}", group.median(|run| run.memory_wait_ns.sum as f64 / 1e6)),
            format!("{:.1}", waits.max as f64 / 1e6),
        ]);
    }
    table
}

fn utilisation(groups: &[Group<'_>]) -> Table {
    let mut table = Table::new(&[
        "",
        "MMU 10 ms",
        "100 ms",
        "after flip 1 ms",
        "5 ms",
        "20 ms",
        "copied",
        "moved",
        "patched",
        "peak heap",
        "mean heap",
        "peak RSS",
        "mean RSS",
        "control µs p99",
        "max",
        "steal ms",
    ]);
    for group in groups {
        let least = |window: u64| {
            let all = group
                .runs
                .iter()
                .filter_map(|run| run.utilisation.iter().rfind(|point| point.window_ns <= window));
            let least = all.map(|point| point.minimum).fold(1.0, f64::min);
            format!("{:.0}", least * 100.0)
        };
        let after = |nth: usize| match group
            .median(|run| run.after_flip.get(nth).map_or(1.0, |after| after.median))
        {
            _ if group.runs.iter().all(|run| run.pauses_ns.count == 0) => "–".to_owned(),
            share => format!("{:.0}", share * 100.0),
        };
        let mebibytes = |value: fn(&Run) -> u64| format!("{:.0}", group.median(|run| mib(value(run))));
        let control = group.merged(|run| &run.noise.control_ns);
        table.row([
            group.case.to_string(),
            least(10_000_000),
            least(100_000_000),
            after(0),
            after(1),
            after(2),
            mebibytes(|run| run.bytes.copied + run.bytes.built_in_place),
            mebibytes(|run| run.bytes.moved),
            mebibytes(|run| run.bytes.patched),
            mebibytes(|run| run.peak_heap_bytes),
            mebibytes(|run| run.mean_heap_bytes),
            mebibytes(|run| run.peak_rss_bytes),
            mebibytes(|run| run.mean_rss_bytes),
            micros(control.p99),
            micros(control.max),
            format!("{:.0}", group.median(|run| run.noise.steal_ns.unwrap_or(0) as f64 / 1e6)),
        ]);
    }
    table
}

fn latencies(groups: &[Group<'_>]) -> Table {
    let mut table = Table::new(&[
        "",
        "p50",
        "p99",
        "p99.9",
        "max",
        "metered 100 ms p99",
        "p99.9",
        "max",
        "metered, all p99",
        "p99.9",
        "max",
    ]);
    for group in groups.iter().filter(|group| group.runs[0].latency_ns.count > 0) {
        let mut cells = vec![group.case.to_string()];
        cells.extend(percentiles(&group.merged(|run| &run.latency_ns)));
        for nth in 0..2 {
            let [_, p99, p999, max] = percentiles(&group.merged(|run| &run.metered_ns[nth]));
            cells.extend([p99, p999, max]);
        }
        table.row(cells);
    }
    table
}
