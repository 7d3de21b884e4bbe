//! Runs workloads over a matrix of modes, deliveries, heap sizes and paces, several times each, and reports.
//!
//! Each run is a process of its own: this program again, with the hidden command `once`. Runs are interleaved:
//! each round goes through the whole matrix, so that a slow minute of the machine falls on all of it.

pub mod child;
pub mod once;
pub mod result;

use clap::{Args, ValueEnum as _};
use serde::Serialize;
use strikeslip::gc::options::MIN_LIMIT_BYTES;
use strikeslip::{Delivery, Mode};
use strikeslip_demos::units::parse_bytes;

use self::once::Plan;
use self::result::{Case, Run};
use crate::cli::Common;
use crate::error::Error;
use crate::json::Report;
use crate::measure::memory::available_bytes;
use crate::numbers::{Summary, mib, size};
use crate::table::Table;
use crate::workload::{Name, Parameters};

/// Options of the command `run`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Options {
    /// Workloads, or `all`
    #[arg(required = true, value_name = "WORKLOAD", value_parser = parse_workloads)]
    pub workloads: Vec<Workloads>,
    /// Modes
    #[arg(long, value_delimiter = ',', default_value = "concurrent-move")]
    pub modes: Vec<Mode>,
    /// Deliveries, in concurrent modes
    #[arg(long, value_delimiter = ',', default_value = "inplace")]
    pub deliveries: Vec<Delivery>,
    /// Heap limits, in multiples of what is live when most is
    #[arg(long, value_delimiter = ',', default_value = "2", value_parser = parse_factor)]
    pub factors: Vec<f64>,
    /// Heap limit in bytes, instead of factors
    #[arg(long, value_parser = parse_bytes)]
    pub heap: Option<u64>,
    /// Nanoseconds between the intended starts of timed operations; 0: flat out
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub interval_ns: Vec<u64>,
    /// Runs of each case, interleaved
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Run everything in this process, for a profiler
    #[arg(long)]
    pub here: bool,
    /// Of the workloads
    #[command(flatten)]
    pub parameters: Parameters,
    /// Options of all benchmarks
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

/// What one word on the command line names.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Workloads(Vec<Name>);

fn parse_workloads(text: &str) -> Result<Workloads, String> {
    if text == "all" {
        return Ok(Workloads(Name::value_variants().to_vec()));
    }
    Name::from_str(text, false).map(|name| Workloads(vec![name])).map_err(|_| {
        let names: Vec<_> = Name::value_variants().iter().map(|name| name.name()).collect();
        format!("'{text}' is none of {}, all", names.join(", "))
    })
}

fn parse_factor(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(factor) if (1.0..=100.0).contains(&factor) => Ok(factor),
        _ => Err("not a number between 1 and 100".to_owned()),
    }
}

/// Bytes of the heap in which a workload's live data is measured.
const ROOM_BYTES: u64 = 8 << 30;
/// The largest heap without a collector, and the share of free memory that it may be.
const LARGEST_HEAP_BYTES: u64 = 12 << 30;
const SHARE_OF_FREE: f64 = 0.7;

/// Runs the matrix and prints a table.
///
/// # Errors
/// [`Error`], also if two runs of a workload had different checksums.
pub fn run(options: &Options) -> Result<(), Error> {
    let output = options.common.output()?;
    let plans = plans(options)?;
    let mut runs = vec![];
    for round in 1..=options.runs {
        for (nth, plan) in plans.iter().enumerate() {
            let step = format!("run {round} of {}, {} of {}", options.runs, nth + 1, plans.len());
            options.common.progress(&format!("{step}: {} in {}", plan.case, size(plan.heap_bytes)));
            runs.push(if options.here { once::run(plan)? } else { child::run(plan)? });
            check_sums(&runs)?;
        }
    }
    print(&plans, &runs);
    if let Some(output) = output {
        output.write(&Report::new("run", options, runs))?;
    }
    Ok(())
}

/// The matrix.
fn plans(options: &Options) -> Result<Vec<Plan>, Error> {
    let mut plans = vec![];
    for &workload in options.workloads.iter().flat_map(|Workloads(names)| names) {
        let live_bytes = match options.heap {
            Some(_) => 0,
            None => live_bytes(workload, options)?,
        };
        let heaps: Vec<_> = match options.heap {
            Some(bytes) => vec![(None, bytes)],
            None => options.factors.iter().map(|&factor| (Some(factor), limit(live_bytes, factor))).collect(),
        };
        for &mode in &options.modes {
            let deliveries: Vec<_> = match mode.is_concurrent() {
                true => options.deliveries.iter().map(|&delivery| Some(delivery)).collect(),
                false => vec![None],
            };
            let largest = [(None, LARGEST_HEAP_BYTES.min((available_bytes() as f64 * SHARE_OF_FREE) as u64))];
            let heaps = if mode == Mode::NoGc { &largest[..] } else { &heaps[..] };
            for (&delivery, &(factor, heap_bytes), &interval_ns) in
                triples(&deliveries, heaps, &options.interval_ns)
            {
                let case = Case { workload, mode, delivery, factor, interval_ns };
                let (seed, small_pages) = (options.common.seed, options.common.small_pages);
                plans.push(Plan { case, parameters: options.parameters, heap_bytes, seed, small_pages });
            }
        }
    }
    Ok(plans)
}

fn triples<'a, A, B, C>(a: &'a [A], b: &'a [B], c: &'a [C]) -> impl Iterator<Item = (&'a A, &'a B, &'a C)> {
    a.iter().flat_map(move |a| b.iter().flat_map(move |b| c.iter().map(move |c| (a, b, c))))
}

/// A heap limit, never below the least that a heap can have.
fn limit(live_bytes: u64, factor: f64) -> u64 {
    ((live_bytes as f64 * factor) as u64).max(MIN_LIMIT_BYTES as u64)
}

fn live_bytes(workload: Name, options: &Options) -> Result<u64, Error> {
    options.common.progress(&format!("{}: measuring what is live", workload.name()));
    once::live_bytes(workload, &options.parameters, options.common.seed, ROOM_BYTES)
}

/// All runs of a workload compute the same.
fn check_sums(runs: &[Run]) -> Result<(), Error> {
    let Some(last) = runs.last() else { return Ok(()) };
    let same = |run: &&Run| run.case.workload == last.case.workload && run.seed == last.seed;
    match runs.iter().find(same) {
        Some(first) if first.checksum != last.checksum => Err(Error::Wrong(format!(
            "checksum {} of {}, but {} of {}",
            last.checksum, last.case, first.checksum, first.case
        ))),
        _ => Ok(()),
    }
}

fn print(plans: &[Plan], runs: &[Run]) {
    let mut table = Table::new(&[
        "workload",
        "heap MiB",
        "runs",
        "wall s",
        "spread",
        "processor s",
        "mutator",
        "collector",
        "k op/s",
        "cycles",
        "faults",
        "pause µs p50",
        "p99",
        "max",
        "op µs p99",
        "p99.9",
        "max",
        "memory wait ms",
        "peak MiB",
        "control µs max",
    ]);
    for plan in plans {
        let of_case: Vec<_> = runs.iter().filter(|run| run.case == plan.case).collect();
        let all = |value: &dyn Fn(&Run) -> f64| Summary::of(of_case.iter().map(|run| value(run)));
        let median = |value: &dyn Fn(&Run) -> f64, digits: usize| format!("{:.digits$}", all(value).p50);
        let wall = all(&|run| run.wall_seconds);
        let micros = |ns: u64| ns as f64 / 1e3;
        table.row([
            plan.case.to_string(),
            median(&|run| mib(run.heap_bytes), 0),
            of_case.len().to_string(),
            format!("{:.3}", wall.p50),
            format!("{:.0} %", (wall.max - wall.min) / wall.p50 * 100.0),
            median(&|run| run.processor_seconds, 3),
            median(&|run| run.processor.mutator_ns as f64 / 1e9, 3),
            median(&|run| run.processor.collector_ns as f64 / 1e9, 3),
            median(&|run| run.operations as f64 / run.wall_seconds / 1e3, 0),
            median(&|run| run.cycles as f64, 0),
            median(&|run| run.faults as f64, 0),
            median(&|run| micros(run.pauses_ns.p50), 1),
            median(&|run| micros(run.pauses_ns.p99), 1),
            median(&|run| micros(run.pauses_ns.max), 1),
            median(&|run| micros(run.latency_ns.p99), 1),
            median(&|run| micros(run.latency_ns.p999), 1),
            median(&|run| micros(run.latency_ns.max), 1),
            median(&|run| run.memory_wait_ns.sum as f64 / 1e6, 1),
            median(&|run| mib(run.peak_rss_bytes), 0),
            median(&|run| micros(run.noise.control_ns.max), 0),
        ]);
    }
    println!("\n{table}");
    let mut named = vec![];
    for run in runs {
        if !named.contains(&run.case.workload) {
            named.push(run.case.workload);
            println!("checksum of {}: {} (all runs)", run.case.workload.name(), run.checksum);
        }
    }
}
