//! Runs workloads over a matrix of modes, deliveries, heap sizes and paces, several times each, and reports.
//!
//! Each run is a process of its own: this program again, with the hidden command `once`. Runs are interleaved:
//! each round goes through the whole matrix, so that a slow minute of the machine falls on all of it.

pub mod child;
pub mod history;
pub mod once;
pub mod result;
mod trace;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum as _};
use serde::Serialize;
use strikeslip::gc::options::{MAX_LIMIT_BYTES, MIN_LIMIT_BYTES};
use strikeslip::{Delivery, Mode};
use strikeslip_demos::json::Output;
use strikeslip_demos::units::parse_bytes;

use self::once::Plan;
use self::result::{Case, Run};
use crate::cli::Common;
use crate::error::Error;
use crate::measure::memory::available_bytes;
use crate::numbers::size;
use crate::report::{Report, page, summary};
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
    /// Also run paced, at the interval that is each workload's own
    #[arg(long)]
    pub paced: bool,
    /// No young cycles
    #[arg(long)]
    pub full_cycles: bool,
    /// Runs of each case, interleaved
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Run everything in this process, for a profiler
    #[arg(long)]
    pub here: bool,
    /// Write the report as a page with pictures
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub html: Option<PathBuf>,
    /// Write a trace of the first run (of the only case), to be shown by Perfetto
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub trace: Option<PathBuf>,
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

/// Runs the matrix, prints tables and writes what was asked for.
///
/// # Errors
/// [`Error`], also if two runs of the same work had different checksums.
pub fn run(options: &Options) -> Result<(), Error> {
    let output = options.common.output()?;
    let html = options.html.as_deref().map(Output::open).transpose()?;
    let mut plans = plans(options)?;
    if let Some(path) = &options.trace {
        let [plan] = &mut plans[..] else {
            return Err(Error::Option(format!("--trace is for one case, not {}", plans.len())));
        };
        plan.trace = Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
    }
    let report = Report::new(run_all(options, &mut plans)?);
    summary::print(&report);
    if let Some(html) = html {
        html.write_text(&page::page(&report))?;
    }
    Ok(output.map_or(Ok(()), |output| output.write_line(&report))?)
}

fn run_all(options: &Options, plans: &mut [Plan]) -> Result<Vec<Run>, Error> {
    let all = plans.len() * options.runs as usize;
    let mut runs: Vec<Run> = Vec::with_capacity(all);
    let begin = Instant::now();
    for round in 1..=options.runs {
        for plan in &mut *plans {
            let left = match runs.len() {
                0 => String::new(),
                done => {
                    let seconds = begin.elapsed().as_secs_f64() / done as f64 * (all - done) as f64;
                    format!(", about {seconds:.0} s left")
                }
            };
            let step = format!("[{}/{all}] round {round}{left}", runs.len() + 1);
            options.common.progress(&format!("{step}: {} in {}", plan.case, size(plan.heap_bytes)));
            let run = if options.here { once::run(plan)? } else { child::run(plan)? };
            check_sum(&runs, &run)?;
            runs.push(run);
            plan.trace = None;
        }
    }
    Ok(runs)
}

/// The matrix.
fn plans(options: &Options) -> Result<Vec<Plan>, Error> {
    let possible = MIN_LIMIT_BYTES as u64..=MAX_LIMIT_BYTES as u64;
    if let Some(heap) = options.heap.filter(|heap| !possible.contains(heap)) {
        let [heap, least, most] = [heap, *possible.start(), *possible.end()].map(size);
        return Err(Error::Option(format!("a heap of {heap} is not between {least} and {most}")));
    }
    let mut plans = vec![];
    for &workload in options.workloads.iter().flat_map(|Workloads(names)| names) {
        let live_bytes = match options.heap {
            Some(_) => None,
            None => Some(live_bytes(workload, options)?),
        };
        let heaps: Vec<_> = match (options.heap, live_bytes) {
            (Some(bytes), _) => vec![(None, bytes)],
            (None, live) => {
                let heap = |&factor: &f64| (Some(factor), limit(live.unwrap_or(0), factor));
                options.factors.iter().map(heap).collect()
            }
        };
        let mut intervals = options.interval_ns.clone();
        intervals.extend(workload.paced_interval_ns().filter(|_| options.paced));
        for &mode in &options.modes {
            let deliveries: Vec<_> = match mode.is_concurrent() {
                true => options.deliveries.iter().map(|&delivery| Some(delivery)).collect(),
                false => vec![None],
            };
            let largest = LARGEST_HEAP_BYTES.min((available_bytes() as f64 * SHARE_OF_FREE) as u64);
            let largest = [(None, largest)];
            let heaps = if mode == Mode::NoGc { &largest[..] } else { &heaps[..] };
            for (&delivery, &(factor, heap_bytes), &interval_ns) in triples(&deliveries, heaps, &intervals) {
                plans.push(Plan {
                    case: Case { workload, mode, delivery, factor, interval_ns },
                    parameters: options.parameters,
                    live_bytes,
                    heap_bytes,
                    seed: options.common.seed,
                    small_pages: options.common.small_pages,
                    young_cycles: !options.full_cycles,
                    trace: None,
                });
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

/// All runs of the same work compute the same. (Paced, a workload may do fewer operations.)
fn check_sum(runs: &[Run], new: &Run) -> Result<(), Error> {
    let same = |run: &&Run| run.case.workload == new.case.workload && run.operations == new.operations;
    match runs.iter().find(same) {
        Some(old) if old.checksum != new.checksum => Err(Error::Wrong(format!(
            "checksum {} of {}, but {} of {}",
            new.checksum, new.case, old.checksum, old.case
        ))),
        _ => Ok(()),
    }
}
