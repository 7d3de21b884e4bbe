//! The command line of `strikeslip-bench`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use strikeslip::{Delivery, Heap, HeapOptions, Mode};
use strikeslip_demos::json::Output;

use crate::error::Error;
use crate::measure::recorder::Recorder;
use crate::report::{Report, compare, page, summary};
use crate::{baseline, brownout, evacuate, pauses, peers, run};

#[derive(Debug, Parser)]
#[command(name = "strikeslip-bench", version, about = "Benchmarks of the Strikeslip collector")]
struct Cli {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// Length of the pause, with different amounts of live data and of roots
    Pauses(pauses::Options),
    /// Speed of a mutator in the first milliseconds after the flip
    Brownout(brownout::Options),
    /// Workloads: throughput, latency, pauses, faults, memory, processor time
    Run(Box<run::Options>),
    /// Two reports of `run` beside each other
    Compare(compare::Options),
    /// Tables and, if asked for, a page with pictures from a report of `run`
    Report {
        /// The report
        report: PathBuf,
        /// Write a page with pictures
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// The figures of `cargo bench` as a table
    Baseline(baseline::Options),
    /// One run, for the processes that `run` starts
    #[command(hide = true)]
    Once {
        /// What to run, as JSON
        plan: String,
    },
    /// A full evacuation beside the floor that the kernel sets, and what is copied of a dense heap
    Evacuate(evacuate::Options),
    /// The same workloads on other collectors, beside ours
    Peers(peers::Options),
}

/// Options of all benchmarks.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Common {
    /// Write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Ask for pages of 4 KiB only
    #[arg(long)]
    pub small_pages: bool,
    /// Print no progress
    #[arg(long)]
    #[serde(skip)]
    pub quiet: bool,
}

impl Common {
    /// Tells on standard error how far the benchmark is.
    pub fn progress(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    /// Opens the file for the report, if there is to be one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn output(&self) -> Result<Option<Output>, Error> {
        Ok(self.json.as_deref().map(Output::open).transpose()?)
    }
}

/// What kind of heap to measure.
#[derive(Copy, Clone, Debug)]
pub struct HeapKind {
    /// The heap's limit.
    pub limit_bytes: u64,
    /// The mode; another one is not measured in its place.
    pub mode: Mode,
    /// The delivery.
    pub delivery: Option<Delivery>,
    /// Serving threads; 0: as many as processors.
    pub workers: usize,
    /// Whether to ask for huge pages.
    pub huge_pages: bool,
}

/// Creates a heap that collects only when asked, and its recorder.
///
/// # Errors
/// The mode is not available, or there is no memory.
pub fn heap(kind: HeapKind) -> Result<(Heap, Arc<Recorder>), Error> {
    let options = HeapOptions {
        limit_bytes: usize::try_from(kind.limit_bytes).unwrap_or(usize::MAX),
        mode: kind.mode,
        fall_back: false,
        delivery: kind.delivery,
        workers: kind.workers,
        huge_pages: kind.huge_pages,
        automatic: false,
        ..HeapOptions::default()
    };
    let heap = Heap::new(options)?;
    if kind.mode.is_concurrent() && kind.delivery.is_some_and(|asked| heap.delivery() != Some(asked)) {
        return Err(Error::Mode(heap.choice().to_owned()));
    }
    let recorder = Recorder::attach(&heap);
    Ok((heap, recorder))
}

/// Shows a report.
fn show(report: &Path, html: Option<&Path>) -> Result<(), Error> {
    let report = Report::read(report)?;
    summary::print(&report);
    html.map_or(Ok(()), |path| Ok(Output::open(path)?.write_text(&page::page(&report))?))
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().benchmark {
        Benchmark::Pauses(options) => pauses::run(&options),
        Benchmark::Brownout(options) => brownout::run(&options),
        Benchmark::Evacuate(options) => evacuate::run(&options),
        Benchmark::Run(options) => run::run(&options),
        Benchmark::Peers(options) => peers::run(&options),
        Benchmark::Compare(options) => compare::run(&options),
        Benchmark::Report { report, html } => show(&report, html.as_deref()),
        Benchmark::Baseline(options) => baseline::run(&options),
        Benchmark::Once { plan } => run::child::answer(&plan),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strikeslip-bench: {error}");
            error.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
