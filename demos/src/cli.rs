//! The command line: reading it, and what becomes of it.
//!
//! Exit codes: 0 if all went well; 1 if a run failed or a result was wrong; 2 if what was asked for
//! cannot be done. An error is one line on standard error.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use strikeslip::{Delivery, ForcedAnswers, HeapError, Mode, StressModes, VerifyLevel};

use crate::churn::Churn;
use crate::corpus::{Corpus, Directory, Embedded, ORIGINAL, ScanError, Skipped};
use crate::doctor::Conformance;
use crate::index::{IndexJob, LiveEstimate};
use crate::json::{Output, Report, WriteError};
use crate::report::screen;
use crate::run::{Failure, Settings, run};
use crate::units::{Bytes, parse_bytes};
use crate::workload::{Plan, Workload};
use crate::{contention, doctor, soak};

/// Default heap of `churn`, of which half is live.
const CHURN_HEAP_BYTES: u64 = 128 << 20;
/// Smallest default heap of the main job.
const SMALLEST_HEAP_BYTES: u64 = 32 << 20;
/// Largest default heap of the main job.
const LARGEST_HEAP_BYTES: u64 = 4 << 30;
/// Without a collector everything that is allocated stays: so many times the usual heap.
const NO_GC_FACTOR: u64 = 8;
/// Documents of the embedded corpus: some tens of megabytes of index.
const DOCUMENTS: u32 = 4_000;
/// Mutators, and length of the timed part, of all commands but `contention`.
const MUTATORS: usize = 2;
const SECONDS: Duration = Duration::from_secs(10);
/// Longest run that can be asked for: a year.
const MOST_SECONDS: f64 = 31_536_000.0;

/// A text index that lives in a heap which compacts itself while the program runs.
///
/// Without a command, the index is made from the embedded corpus: this program's own sources.
#[derive(Debug, Parser)]
#[command(name = "strikeslip", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Index the text files of a directory (the embedded corpus if there is none)
    Index {
        /// The directory; links are not followed, what is no text is skipped
        dir: Option<PathBuf>,
        /// Documents of the embedded corpus
        #[arg(long, conflicts_with = "dir", default_value_t = DOCUMENTS, value_parser = clap::value_parser!(u32).range(1..))]
        documents: u32,
    },
    /// Trees, a mutating graph and large arrays, each checking itself
    Churn,
    /// Show what per-VMA locks buy: compaction and single page operations beside threads that storm mmap_lock
    Contention(contention::cli::Arguments),
    /// Run index and churn under random modes, deliveries and options for long, and look for leaks and drift between
    /// rounds; of the other options only --seed, --json and --quiet count
    Soak(soak::cli::Arguments),
    /// Say what this machine offers and what the collector would choose
    Doctor {
        /// Instead, try each rule of the page operations on the running kernel; a difference is exit code 1
        #[arg(long)]
        conformance: bool,
    },
}

/// What all commands take.
#[derive(Debug, Args)]
pub(crate) struct Shared {
    /// no-gc, stop-the-world, concurrent-copy or concurrent-move
    #[arg(long, global = true, default_value = "concurrent-move")]
    pub(crate) mode: Mode,
    /// How faults are delivered: pool or inplace [default: the faster one]
    #[arg(long, global = true)]
    pub(crate) delivery: Option<Delivery>,
    /// Heap limit: bytes, or with a unit as in 64M or 2G [default: about twice what is live]
    #[arg(long, global = true, value_parser = parse_bytes)]
    pub(crate) heap: Option<u64>,
    /// Mutator threads [default: 2; contention: 1]
    #[arg(long, global = true)]
    pub(crate) mutators: Option<NonZeroUsize>,
    /// Threads that build pages [default: one less than there are processors, at least one]
    #[arg(long, global = true, default_value_t = 0, hide_default_value = true)]
    pub(crate) workers: usize,
    /// Length of the timed part [default: 10; contention: 36]
    #[arg(long, global = true, value_parser = parse_seconds, allow_negative_numbers = true)]
    pub(crate) seconds: Option<Duration>,
    /// Seed of everything random; the same seed gives the same checksum
    #[arg(long, global = true, default_value_t = 1)]
    pub(crate) seed: u64,
    /// What the verifier checks in every cycle: off, or a level from 0 to 5 (headers, spaces, roots, reachable,
    /// live-map, shadow), each with those before it
    #[arg(long, global = true, default_value = "off", value_name = "LEVEL")]
    verify: VerifyLevel,
    /// Force rare answers of the kernel, to test the collector: so many of 1000 requests, and after so many
    /// MOVEs refuse all others
    #[arg(long, global = true, value_name = "SEED:PER-MILLE[:MOVES]")]
    force_answers: Option<ForcedAnswers>,
    /// Look at all objects in each cycle, not only at those born since the last one
    #[arg(long, global = true)]
    full_cycles: bool,
    /// Make the collector's life harder, to test it: stress modes with commas between them (collect-allocations[:N],
    /// yields, poison-freed, ..; ARCHITECTURE.md has them all)
    #[arg(long, global = true, value_name = "LIST")]
    stress: Option<StressModes>,
    /// Also write the report as JSON
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
    /// Do not run again in stop-the-world mode for comparison
    #[arg(long, global = true)]
    no_compare: bool,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.0..=MOST_SECONDS).contains(&seconds) {
        return Err("not between 0 and a year".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// What went wrong, with its exit code.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Scan(#[from] ScanError),
    #[error("{0}")]
    Write(#[from] WriteError),
    #[error("{0}")]
    Failure(#[from] Failure),
    #[error("{0}")]
    Contention(#[from] contention::cli::Error),
    #[error("{0}")]
    Soak(#[from] soak::cli::Error),
    #[error("this kernel differs from what the collector expects in {0} rules")]
    Different(usize),
    #[error("{0} wrong results, for example: {1}")]
    Wrong(u64, String),
}

impl Error {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Scan(_) | Self::Write(_) => 2,
            Self::Failure(Failure::Heap(HeapError::BadOption { .. } | HeapError::ModeUnavailable { .. })) => {
                2
            }
            Self::Contention(error) => error.exit_code(),
            Self::Soak(error) => error.exit_code(),
            Self::Failure(_) | Self::Different(_) | Self::Wrong(..) => 1,
        }
    }
}

/// Reads the command line of a program of this name: a bad one gets one line on standard error.
///
/// # Errors
/// How the program is to exit: 2 after a bad command line, 0 after help or version was printed.
pub fn parse<T: Parser>(program: &str) -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        if !error.use_stderr() {
            // Help or version. If standard output is closed, nobody wants it.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        let text = error.to_string();
        // The first line names the value and what is wrong with it; the rest is hints.
        let line = text.lines().next().unwrap_or_default();
        eprintln!("{program}: {}", line.trim_start_matches("error: "));
        ExitCode::from(2)
    })
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Arguments = match parse("strikeslip") {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("strikeslip: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<(), Error> {
    let shared = &arguments.shared;
    let output = shared.json.as_deref().map(Output::open).transpose()?;
    match &arguments.command {
        None => index_embedded(DOCUMENTS, shared, output),
        Some(Command::Index { dir: None, documents }) => index_embedded(*documents, shared, output),
        Some(Command::Index { dir: Some(dir), .. }) => {
            let corpus = Directory::scan(dir, shared.seed)?;
            index_directory(corpus, shared, output)
        }
        Some(Command::Churn) => {
            let live_bytes = shared.heap.unwrap_or(CHURN_HEAP_BYTES) / 2;
            let heap = shared.heap.unwrap_or_else(|| default_heap(shared.mode, live_bytes));
            run_and_report(&Churn, &settings(shared, heap, live_bytes), output, None)
        }
        Some(Command::Contention(arguments)) => Ok(contention::cli::run(arguments, shared, output)?),
        Some(Command::Soak(arguments)) => Ok(soak::cli::run(arguments, shared, output)?),
        Some(Command::Doctor { conformance: true }) => {
            let conformance = Conformance::examine();
            if !shared.quiet {
                print!("{conformance}");
            }
            output.map_or(Ok(()), |output| output.write(&conformance))?;
            match conformance.different() {
                0 => Ok(()),
                rules => Err(Error::Different(rules)),
            }
        }
        Some(Command::Doctor { conformance: false }) => {
            let heap = shared.heap.unwrap_or(CHURN_HEAP_BYTES);
            let findings = doctor::examine(&settings(shared, heap, heap / 2));
            if !shared.quiet {
                print!("{findings}");
            }
            Ok(output.map_or(Ok(()), |output| output.write(&findings))?)
        }
    }
}

fn index_embedded(documents: u32, shared: &Shared, output: Option<Output>) -> Result<(), Error> {
    let corpus = Corpus::Embedded(Embedded::new(shared.seed, documents));
    let mut estimate = LiveEstimate::default();
    let mut text = String::new();
    for document in 0..corpus.len() as u32 {
        corpus.text(document, ORIGINAL, &mut text);
        estimate.add(&text);
    }
    let heap = shared.heap.unwrap_or_else(|| default_heap(shared.mode, estimate.bytes()));
    run_and_report(&IndexJob::new(&corpus), &settings(shared, heap, estimate.bytes()), output, None)
}

/// Takes as many documents as keep the index below half of the heap: of the one that was asked for, or of
/// the largest that is chosen by default.
fn index_directory(mut corpus: Directory, shared: &Shared, output: Option<Output>) -> Result<(), Error> {
    let most = shared.heap.unwrap_or(LARGEST_HEAP_BYTES) / 2;
    let mut estimate = LiveEstimate::default();
    corpus.survey(|text| {
        estimate.add(text);
        estimate.bytes() <= most
    })?;
    let skipped = corpus.skipped();
    let corpus = Corpus::Directory(corpus);
    let heap = shared.heap.unwrap_or_else(|| default_heap(shared.mode, estimate.bytes()));
    if !shared.quiet {
        let live = Bytes(estimate.bytes());
        eprintln!("{} files, about {live} of index in a heap of {}; {skipped}", corpus.len(), Bytes(heap));
        if skipped.no_room > 0 {
            eprintln!(
                "{} files are left out: the index may have {} (half the heap)",
                skipped.no_room,
                Bytes(most)
            );
        }
    }
    let settings = settings(shared, heap, estimate.bytes());
    run_and_report(&IndexJob::new(&corpus), &settings, output, Some(skipped))
}

/// Twice what is live, between bounds.
fn default_heap(mode: Mode, live_bytes: u64) -> u64 {
    let heap = (2 * live_bytes).next_multiple_of(1 << 20).clamp(SMALLEST_HEAP_BYTES, LARGEST_HEAP_BYTES);
    if mode == Mode::NoGc { (heap * NO_GC_FACTOR).min(LARGEST_HEAP_BYTES) } else { heap }
}

fn settings(shared: &Shared, heap_bytes: u64, live_bytes: u64) -> Settings {
    Settings {
        mode: shared.mode,
        delivery: shared.delivery,
        workers: shared.workers,
        verify: shared.verify,
        forced_answers: shared.force_answers,
        young_cycles: !shared.full_cycles,
        stress: shared.stress.unwrap_or_default(),
        plan: Plan {
            mutators: shared.mutators.map_or(MUTATORS, NonZeroUsize::get),
            time: shared.seconds.unwrap_or(SECONDS),
            seed: shared.seed,
            heap_bytes,
            live_bytes,
        },
        quiet: shared.quiet,
        compare: !shared.no_compare,
    }
}

fn run_and_report(
    workload: &dyn Workload,
    settings: &Settings,
    output: Option<Output>,
    skipped: Option<Skipped>,
) -> Result<(), Error> {
    let (main, compare) = run(workload, settings)?;
    if !settings.quiet {
        print!("{}", screen(&main, compare.as_ref()));
    }
    if let Some(output) = output {
        output.write(&Report::new(&main, compare.as_ref(), skipped))?;
    }
    for finished in std::iter::once(&main).chain(&compare) {
        let mismatches = &finished.outcome.mismatches;
        if let Some(example) = mismatches.examples.first() {
            return Err(Error::Wrong(mismatches.count, example.clone()));
        }
    }
    match &compare {
        Some(other) if other.outcome.checksum != main.outcome.checksum => {
            Err(Error::Wrong(1, "the checksum differs in stop-the-world mode".to_owned()))
        }
        _ => Ok(()),
    }
}
