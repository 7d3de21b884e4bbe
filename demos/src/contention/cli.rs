//! The command `contention`: its options, progress, and where the report goes.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

use super::storms::Storm;
use super::{Failure, Options, picture, table};
use crate::cli::Shared;
use crate::json::{Output, WriteError};
use crate::units::{Bytes, parse_bytes};

/// Most threads of a storm, and most rounds.
const MOST: usize = 1_000;
/// Most memory that is populated to be protected.
const MOST_PROTECTED: usize = 16 << 30;

/// What only this command takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Storms, in this order: none, spin (the control), map, mprotect, thread
    #[arg(long, value_delimiter = ',', value_name = "STORM,..")]
    storms: Vec<Storm>,
    /// Threads of a storm [default: one for each processor but the first]
    #[arg(long)]
    storm_threads: Option<NonZeroUsize>,
    /// Bytes that mutators keep live
    #[arg(long, value_parser = parse_bytes)]
    live: Option<u64>,
    /// Bytes whose protection the storm mprotect changes
    #[arg(long, value_parser = parse_bytes)]
    protect: Option<u64>,
    /// Rounds; the figures are medians over them
    #[arg(long)]
    rounds: Option<NonZeroUsize>,
    /// Have heaps give memory back while they serve pages: madvise takes mmap_lock
    #[arg(long)]
    give_back: bool,
    /// A model, to teach: each page operation takes a process-wide lock in user space as well, and storms hold it
    #[arg(long)]
    what_if_mmap_lock: bool,
    /// Also draw the report, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print the report as one line of JSON and not as a table
    #[arg(long)]
    line: bool,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Bad(String),
    #[error("{0}")]
    Failure(#[from] Failure),
    #[error("{0}")]
    Write(#[from] WriteError),
    #[error("cannot write {}: {source}", path.display())]
    Draw { path: PathBuf, source: io::Error },
    #[error("mutators saw {0} wrong objects")]
    Wrong(u64),
}

impl Error {
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Bad(_) | Self::Write(_) | Self::Draw { .. } | Self::Failure(Failure::Heap(_)) => 2,
            Self::Failure(_) | Self::Wrong(_) => 1,
        }
    }
}

/// Does the experiment and reports.
pub(crate) fn run(arguments: &Arguments, shared: &Shared, output: Option<Output>) -> Result<(), Error> {
    let options = options(arguments, shared)?;
    let report = super::run(&options, &mut progress(shared.quiet))?;
    if arguments.line {
        println!("{}", report.line());
    } else if !shared.quiet {
        print!("{}", table::table(&report));
    }
    if let Some(output) = output {
        output.write(&report)?;
    }
    if let Some(path) = &arguments.svg {
        fs::write(path, picture::svg(&report))
            .map_err(|source| Error::Draw { path: path.clone(), source })?;
    }
    match report.mismatches() {
        0 => Ok(()),
        wrong => Err(Error::Wrong(wrong)),
    }
}

fn options(arguments: &Arguments, shared: &Shared) -> Result<Options, Error> {
    let default = Options::default();
    let bytes = |asked: Option<u64>, default| asked.map_or(default, |asked| asked as usize);
    let options = Options {
        storms: if arguments.storms.is_empty() { default.storms } else { arguments.storms.clone() },
        storm_threads: arguments.storm_threads.map_or(default.storm_threads, NonZeroUsize::get),
        mutators: shared.mutators.map_or(default.mutators, NonZeroUsize::get),
        workers: shared.workers,
        delivery: shared.delivery,
        give_back: arguments.give_back,
        live_bytes: bytes(arguments.live, default.live_bytes),
        protect_bytes: bytes(arguments.protect, default.protect_bytes),
        time: shared.seconds.unwrap_or(default.time),
        rounds: arguments.rounds.map_or(default.rounds, NonZeroUsize::get),
        seed: shared.seed,
        what_if_mmap_lock: arguments.what_if_mmap_lock,
        ..default
    };
    if options.storm_threads > MOST || options.rounds > MOST {
        return Err(Error::Bad(format!("more than {MOST} threads or rounds")));
    }
    if options.protect_bytes > MOST_PROTECTED {
        return Err(Error::Bad(format!("the most that is protected is {}", Bytes(MOST_PROTECTED as u64))));
    }
    Ok(options)
}

/// Shows what comes next on standard error: redrawn on a terminal, a line each elsewhere.
fn progress(quiet: bool) -> impl FnMut(&str) {
    let terminal = io::stderr().is_terminal();
    move |next| {
        if !quiet {
            // Whoever closed standard error does not want to see it.
            let _ = if terminal {
                write!(io::stderr(), "\r\x1b[2K{next} ")
            } else {
                writeln!(io::stderr(), "{next}")
            };
        }
    }
}
