//! Peers: the same workloads on the collectors that people would pick instead, beside ours in the same run.
//!
//! The programs are in `benches/peers`, what they do is in `benches/WORKLOADS.md`. Each run is a process of its own;
//! runs are interleaved, so that a slow minute of the machine falls on all. Whoever lacks a toolchain is left
//! out, and said to be. All that run a workload compute the same checksum, or the command fails.

pub mod measured;
mod ours;
pub mod peer;
pub mod table;
pub mod tools;
pub mod work;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum as _};
use serde::Serialize;
use strikeslip_demos::json::Output;

use self::measured::Measured;
use self::peer::{Kit, Peer, Start};
use self::tools::Tools;
use self::work::{Scale, Work};
use crate::error::Error;
use crate::json::Report;
use crate::numbers::size;

/// Options of the command `peers`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Options {
    /// Collectors to compare; all by default
    #[arg(long, value_delimiter = ',', value_enum)]
    pub collectors: Vec<Peer>,
    /// Workloads; all by default
    #[arg(long, value_delimiter = ',', value_enum)]
    pub works: Vec<Work>,
    /// Runs of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Heap limit, in multiples of what is live
    #[arg(long, default_value_t = 2.0)]
    pub times: f64,
    /// How much work is done
    #[arg(long, value_enum, default_value = "full")]
    pub scale: Scale,
    /// Most seconds of one run
    #[arg(long, default_value_t = 120)]
    pub limit_seconds: u64,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Install what is missing without asking
    #[arg(long)]
    #[serde(skip)]
    pub yes: bool,
    /// Write all figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
    /// Write the tables to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub markdown: Option<PathBuf>,
    /// Print no progress
    #[arg(long)]
    #[serde(skip)]
    pub quiet: bool,
}

/// All runs of a peer on a workload.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The peer.
    pub peer: Peer,
    /// The workload.
    pub work: Work,
    /// Size of the heap.
    pub heap_bytes: u64,
    /// What was measured.
    pub runs: Vec<Measured>,
    /// Why there is no more of it.
    pub failure: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// Toolchains, and what they call themselves.
    pub versions: Vec<(Kit, String)>,
    /// Kits that were left out, and why.
    pub left_out: Vec<(Kit, String)>,
    /// All workloads, each with all peers.
    pub cells: Vec<Cell>,
}

/// Builds the peers, runs them and prints tables.
///
/// # Errors
/// [`Error::Wrong`] if two peers do not agree; [`Error::Report`] or [`Error::File`] if a file cannot be written.
pub fn run(options: &Options) -> Result<(), Error> {
    if !(1.0..=100.0).contains(&options.times) {
        return Err(Error::Option("--times must be between 1 and 100".to_owned()));
    }
    let tools = Tools::new();
    let chosen = if options.collectors.is_empty() { Peer::value_variants() } else { &options.collectors };
    let works = if options.works.is_empty() { Work::value_variants() } else { &options.works };
    let mut results = prepare(options, &tools, chosen);
    let peers: Vec<Peer> = chosen.iter().copied().filter(|peer| results.can_run(peer.kit())).collect();
    for &work in works {
        let heap_bytes = work.parameters(options.scale).heap_bytes(options.times);
        let cell = |&peer: &Peer| Cell { peer, work, heap_bytes, runs: vec![], failure: None };
        results.cells.extend(peers.iter().map(cell));
    }
    for round in 1..=options.runs {
        for cell in results.cells.iter_mut().filter(|cell| cell.failure.is_none()) {
            if !options.quiet {
                eprintln!("run {round} of {}: {}, {}", options.runs, cell.work.name(), cell.peer.name());
            }
            match once(options, &tools, cell) {
                Ok(measured) => cell.runs.push(measured),
                Err(reason) => {
                    eprintln!("{} on {}: {reason}", cell.peer.name(), cell.work.name());
                    cell.failure = Some(reason);
                }
            }
        }
        // After each round, so that whoever is ended early leaves the rounds before.
        save(options, works, &results)?;
    }
    println!("{}", describe(options, works, &results).0);
    results.disagreement().map_or(Ok(()), |text| Err(Error::Wrong(text)))
}

/// Installs and builds what the chosen peers need.
fn prepare(options: &Options, tools: &Tools, chosen: &[Peer]) -> Results {
    let needed = |kit: &Kit| chosen.iter().any(|peer| peer.kit() == *kit);
    let kits: Vec<Kit> = Kit::ALL.into_iter().filter(needed).collect();
    tools.install(&kits, options.yes);
    let mut results = Results { versions: vec![], left_out: vec![], cells: vec![] };
    for kit in kits {
        if !options.quiet {
            eprintln!("building {kit:?}");
        }
        match tools.build(kit) {
            Ok(version) => results.versions.push((kit, version)),
            Err(reason) => results.left_out.push((kit, reason)),
        }
    }
    results
}

impl Results {
    fn can_run(&self, kit: Kit) -> bool {
        self.versions.iter().any(|(other, _)| *other == kit)
    }

    /// What was compared with what, in words.
    fn describe(&self, options: &Options) -> String {
        let mut text =
            format!("{} runs each, interleaved; heaps of {} × live\n", options.runs, options.times);
        for (kit, version) in &self.versions {
            let _ = writeln!(text, "{kit:?}: {version}");
        }
        for (kit, reason) in &self.left_out {
            let _ = writeln!(text, "left out: {kit:?}, {reason}");
        }
        text
    }

    /// Checksums that differ within a workload.
    fn disagreement(&self) -> Option<String> {
        let runs = |work| {
            let cells = self.cells.iter().filter(move |cell| cell.work == work);
            cells.flat_map(|cell| cell.runs.iter().map(move |run| (cell.peer, &run.checksum)))
        };
        self.cells.iter().find_map(|cell| {
            let (first, checksum) = runs(cell.work).next()?;
            let (other, wrong) = runs(cell.work).find(|(_, other)| *other != checksum)?;
            let (work, first, other) = (cell.work.name(), first.name(), other.name());
            Some(format!("{work}: checksum {checksum} of {first}, but {wrong} of {other}"))
        })
    }
}

/// One run, in a process of its own.
fn once(options: &Options, tools: &Tools, cell: &Cell) -> Result<Measured, String> {
    let parameters = cell.work.parameters(options.scale);
    let scratch = tools.scratch().map_err(|error| format!("no folder for its files: {error}"))?;
    let (marks, log) = (scratch.join("marks"), scratch.join("log"));
    for old in [&marks, &log] {
        // It need not be there.
        let _ = fs::remove_file(old);
    }
    let start = Start {
        parameters: &parameters,
        seed: options.seed,
        heap_bytes: cell.heap_bytes,
        factor: options.times,
        marks: &marks,
        log: &log,
    };
    let mut command = cell.peer.command(tools, &start)?;
    let output = output_within(&mut command, Duration::from_secs(options.limit_seconds), &scratch)?;
    if cell.peer.kit() == Kit::Ours {
        return Measured::from_ours(&output);
    }
    let mut measured = Measured::from_output(&output)?;
    measured.add_log(&fs::read_to_string(&log).unwrap_or_default());
    measured.add_marks(&fs::read(&marks).unwrap_or_default());
    Ok(measured)
}

/// How often a run is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What a command prints, if it ends well within the time. It prints into files, which are never full.
fn output_within(command: &mut Command, limit: Duration, scratch: &Path) -> Result<String, String> {
    let (output, errors) = (scratch.join("stdout"), scratch.join("stderr"));
    let create = |path| File::create(path).map_err(|error| format!("no file for what it prints: {error}"));
    let command = command.stdin(Stdio::null()).stdout(create(&output)?).stderr(create(&errors)?);
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let end = Instant::now() + limit;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < end => thread::sleep(LOOK),
            Ok(None) => {
                // It may have ended meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("not done within {} s", limit.as_secs()));
            }
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    };
    if status.success() {
        return fs::read_to_string(&output)
            .map_err(|error| format!("what it printed cannot be read: {error}"));
    }
    let text = [errors, output].map(|path| fs::read_to_string(path).unwrap_or_default()).concat();
    Err(format!(
        "{status}: {}",
        text.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason given")
    ))
}

/// All tables, as text and as Markdown.
fn describe(options: &Options, works: &[Work], results: &Results) -> (String, String) {
    let about = results.describe(options);
    let medians = table::medians(results);
    let (mut text, mut markdown) =
        (String::new(), format!("{}\n{}", about.replace('\n', "  \n"), medians.markdown()));
    for &work in works {
        let heap = size(work.parameters(options.scale).heap_bytes(options.times));
        let grid = table::of_work(results, work);
        let _ = write!(text, "\n{}, heap {heap}\n\n{}", work.name(), grid.text());
        let _ = write!(markdown, "\n{}, heap {heap}:\n\n{}", work.name(), grid.markdown());
    }
    let _ = write!(text, "\n{}\n{about}", medians.text());
    (text, markdown)
}

/// Writes the files that were asked for.
fn save(options: &Options, works: &[Work], results: &Results) -> Result<(), Error> {
    if let Some(path) = &options.markdown {
        fs::write(path, describe(options, works, results).1)
            .map_err(|source| Error::File { path: path.display().to_string(), source })?;
    }
    if let Some(path) = &options.json {
        Output::open(path)?.write(&Report::new("peers", options, results))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> PathBuf {
        let scratch = std::env::temp_dir().join(format!("strikeslip-peers-{:?}", thread::current().id()));
        fs::create_dir_all(&scratch).expect("a folder for files of a test");
        scratch
    }

    #[test]
    fn a_command_that_hangs_is_ended() {
        let begin = Instant::now();
        let answer = output_within(Command::new("sleep").arg("60"), Duration::from_millis(50), &scratch());
        assert_eq!(answer, Err("not done within 0 s".to_owned()));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_command_that_fails_says_why() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no luck >&2; exit 3"]);
        let answer = output_within(&mut command, Duration::from_secs(60), &scratch());
        assert_eq!(answer, Err("exit status: 3: no luck".to_owned()));
    }

    #[test]
    fn peers_that_do_not_agree_are_named() {
        let run = |checksum: &str| {
            let figures = r#""operations":1,"wall_seconds":1.0,"processor_seconds":1.0,"peak_rss_bytes":1"#;
            let line = format!("{{\"checksum\":\"{checksum}\",{figures}}}");
            Measured::from_output(&line).expect("a result line")
        };
        let cell = |peer, checksum| Cell {
            peer,
            work: Work::Trees,
            heap_bytes: 1,
            runs: vec![run(checksum)],
            failure: None,
        };
        let results = |other| Results {
            versions: vec![],
            left_out: vec![],
            cells: vec![cell(Peer::Go, "1"), cell(Peer::G1, other)],
        };
        assert_eq!(results("1").disagreement(), None);
        assert_eq!(results("2").disagreement(), Some("trees: checksum 1 of Go, but 2 of G1".to_owned()));
    }
}
