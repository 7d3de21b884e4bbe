//! The command line, and the steps.
//!
//! Exit codes: 0 if the kernels differ as they should; 1 if not, or if a guest failed; 2 if it cannot be done. An
//! error is one line on standard error.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;

use crate::command::{is_there, output};
use crate::error::Error;
use crate::machine::{Boot, Told, remove};
use crate::packages::{Emulator, fetch_emulator, fetch_kernel, newest_kernel};
use crate::table::{objections, table};
use crate::task::Task;
use crate::{guest, initramfs};

/// Series of the kernel before the change, and after it.
const SERIES: [&str; 2] = ["6.1", "6.12"];
/// Megabytes of packages: two kernels, and the emulator with what it needs.
const KERNEL_MEGABYTES: u32 = 61;
const EMULATOR_MEGABYTES: u32 = 17;
/// Megabytes on disk of kernels and emulator, and of a build of the guest's program.
const UNPACKED_MEGABYTES: u32 = 190;
const BUILD_MEGABYTES: u32 = 300;
/// Commands that are used, and what has them.
const COMMANDS: [(&str, &str); 7] = [
    ("apt-get", "apt downloads the packages"),
    ("apt-cache", "apt finds the packages"),
    ("dpkg-deb", "dpkg unpacks the packages"),
    ("tar", "it unpacks the packages"),
    ("cargo", "see https://rustup.rs"),
    ("rustc", "see https://rustup.rs"),
    ("cc", "install gcc and libc6-dev"),
];

/// Boots a kernel from before and one from after userfaultfd operations went under per-VMA locks, each in an
/// emulator with this repository's collector as its only program, and prints both side by side.
///
/// Nothing is installed: packages are downloaded and unpacked into a folder, which is removed at the end.
#[derive(Debug, Parser)]
#[command(name = "kernel-lab", version)]
struct Arguments {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Keep downloads and consoles for the next time
    #[arg(long)]
    keep: bool,
    /// Where a folder `kernel-lab` is made for downloads and consoles
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target"), value_name = "DIR")]
    folder: PathBuf,
    /// Storm threads
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    storm_threads: u64,
    /// Mutators
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=16))]
    mutators: u64,
    /// What mutators keep live, in MiB
    #[arg(long, default_value_t = 16, value_name = "MIB", value_parser = clap::value_parser!(u64).range(4..=128))]
    live: u64,
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=99))]
    rounds: u64,
    /// Length of what is measured on each kernel
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Emulated processors
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=16))]
    processors: u64,
    /// After so many seconds a machine is ended
    #[arg(long, default_value_t = 1800, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    limit: u64,
}

impl Arguments {
    /// The folder that is made, and removed at the end.
    fn own_folder(&self) -> PathBuf {
        self.folder.join("kernel-lab")
    }
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Arguments = match strikeslip_demos::cli::parse("kernel-lab") {
        Ok(arguments) => arguments,
        Err(exit) => return exit,
    };
    match run(&arguments) {
        Ok(objections) if objections.is_empty() => ExitCode::SUCCESS,
        Ok(objections) => {
            for objection in objections {
                eprintln!("kernel-lab: {objection}");
            }
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("kernel-lab: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<Vec<String>, Error> {
    check_machine()?;
    println!("{}", needs(arguments));
    if !arguments.yes {
        ask()?;
    }
    let begin = Instant::now();
    let result = compare(arguments);
    // A guest's console is what there is to find out why it failed.
    let keeps = arguments.keep || matches!(&result, Err(Error::Guest { .. } | Error::TimedOut { .. }));
    if !keeps {
        remove(&arguments.own_folder())?;
    }
    let [before, after] = result?;
    println!(
        "\n{} -> {}: a compaction; sleep is uninterruptible, of collector and mutator threads; {} rounds\n",
        before.release, after.release, arguments.rounds
    );
    print!("{}", table(&before, &after));
    for told in [&before, &after] {
        for note in &told.notes {
            println!("{}: {note}", told.release);
        }
    }
    println!("\nall of it took {} s", begin.elapsed().as_secs());
    Ok(objections(&before, &after))
}

/// Refuses what this cannot work on, before anything is done.
fn check_machine() -> Result<(), Error> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(Error::Machine(format!("this is {}", std::env::consts::ARCH)));
    }
    match COMMANDS.into_iter().find(|(command, _)| !is_there(command)) {
        Some((command, hint)) => Err(Error::Missing { command, hint }),
        None => Ok(()),
    }
}

/// What it needs, for people to decide.
fn needs(arguments: &Arguments) -> String {
    let emulator = if is_there(Emulator::COMMAND) { 0 } else { EMULATOR_MEGABYTES };
    format!(
        "This downloads about {} MB of packages (two kernels{}), needs about {} MB in {}\n\
         and {} MB for a static build of the collector, and takes about {} minutes, or a\n\
         few times that on a busy machine. Nothing is installed.",
        KERNEL_MEGABYTES + emulator,
        if emulator > 0 { ", and an emulator with its libraries" } else { "" },
        UNPACKED_MEGABYTES,
        arguments.own_folder().display(),
        BUILD_MEGABYTES,
        // Setting up in emulation takes as long again, and then a build.
        (4 * arguments.seconds).div_ceil(60) + 3,
    )
}

fn ask() -> Result<(), Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Declined);
    }
    print!("Go on? [y/N] ");
    // If the question cannot be shown, the answer is no.
    io::stdout().flush().map_err(|_| Error::Declined)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|_| Error::Declined)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Error::Declined) }
}

/// All steps: what each of both kernels told.
fn compare(arguments: &Arguments) -> Result<[Told; 2], Error> {
    let folder = &arguments.own_folder();
    std::fs::create_dir_all(folder).map_err(Error::at(folder))?;
    let folder = &folder.canonicalize().map_err(Error::at(folder))?;
    let program = step("build the collector, static", guest::build)?;
    let archive = folder.join("initramfs");
    initramfs::write(&program, &archive)?;
    let emulator = step("fetch the emulator", || fetch_emulator(folder))?;
    let mut told = [Told::default(), Told::default()];
    for (series, told) in SERIES.into_iter().zip(&mut told) {
        let kernel =
            step(&format!("fetch Linux {series}"), || fetch_kernel(&kernel_package(series)?, folder))?;
        let boot = Boot {
            emulator: &emulator,
            kernel: &kernel,
            initramfs: &archive,
            processors: size(arguments.processors),
            task: &task(arguments).to_string(),
            log: folder.join(format!("console-{series}.log")),
            limit: Duration::from_secs(arguments.limit),
        };
        *told = step(&format!("boot and measure Linux {series}"), || boot.run())?;
    }
    Ok(told)
}

/// The newest kernel's package; if apt knows none, its lists may never have been fetched.
fn kernel_package(series: &str) -> Result<String, Error> {
    newest_kernel(series).or_else(|error| match error {
        Error::NoPackage { .. } => {
            output(Command::new("apt-get").arg("update"))?;
            newest_kernel(series)
        }
        other => Err(other),
    })
}

fn task(arguments: &Arguments) -> Task {
    Task {
        storm_threads: size(arguments.storm_threads),
        mutators: size(arguments.mutators),
        live_mib: size(arguments.live),
        rounds: size(arguments.rounds),
        seconds: arguments.seconds,
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).expect("bounded by the command line")
}

/// Runs a step, and says how long it took.
fn step<T>(name: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let begin = Instant::now();
    let result = work()?;
    println!("{name:<34} {:>4} s", begin.elapsed().as_secs());
    Ok(result)
}
