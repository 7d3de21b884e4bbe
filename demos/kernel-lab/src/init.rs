//! The guest's only program: mounts what the experiment reads, runs it, tells the host, and turns the machine off.
//!
//! It is process 1 of a machine without a disk. If it ended, the kernel would panic, so it turns the machine off
//! whatever happens.

use std::fs;
use std::panic;
use std::time::Duration;

use kernel_lab::console::{Line, Row};
use kernel_lab::task::Task;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use strikeslip::Mode;
use strikeslip_demos::contention::figures::{Compaction, Median, Sleep};
use strikeslip_demos::contention::storms::Storm;
use strikeslip_demos::contention::{self, Options, Report};

/// File systems of the kernel's that the collector and the experiment read.
const MOUNTS: [(&str, &str); 2] = [("proc", "/proc"), ("sysfs", "/sys")];
/// Bytes whose protection the storm `protect` changes: the machine has 1 GiB.
const PROTECT_BYTES: usize = 64 << 20;

fn main() {
    if std::process::id() != 1 {
        eprintln!("kernel-lab-init: this is the first program of a machine that `kernel-lab` boots");
        std::process::exit(2);
    }
    let failed = match panic::catch_unwind(run) {
        Ok(Ok(())) => Line::End,
        Ok(Err(reason)) => Line::Failed(reason),
        Err(_) => Line::Failed("the guest's program panicked".to_owned()),
    };
    println!("{failed}");
    // It does not come back, unless it may not do this: then process 1 ends, and the kernel panics.
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

fn run() -> Result<(), String> {
    for (kind, folder) in MOUNTS {
        fs::create_dir_all(folder).map_err(|error| format!("{folder}: {error}"))?;
        mount(Some(kind), folder, Some(kind), MsFlags::empty(), None::<&str>)
            .map_err(|error| format!("{folder} cannot be mounted: {error}"))?;
    }
    let word = std::env::args().nth(1).ok_or("there is no task")?;
    let task: Task = word.parse().map_err(|error| format!("{error}"))?;
    let report = contention::run(&options(&task), &mut |next| println!("{next}"))
        .map_err(|error| error.to_string())?;
    tell(&report);
    Ok(())
}

fn options(task: &Task) -> Options {
    Options {
        storms: Storm::ALL.to_vec(),
        storm_threads: task.storm_threads,
        mutators: task.mutators,
        // The one mode that both kernels have, so that one thing differs. (MOVE cannot be measured in emulation.)
        modes: vec![Mode::ConcurrentCopy],
        // Sleep is judged, by the scheduler's own count.
        single_operations: false,
        trace: false,
        live_bytes: task.live_mib << 20,
        protect_bytes: PROTECT_BYTES,
        time: Duration::from_secs(task.seconds),
        rounds: task.rounds,
        ..Options::default()
    }
}

fn tell(report: &Report) {
    println!("{}", Line::Begin { release: report.kernel.clone(), notes: report.notes.clone() });
    for storm in &report.storms {
        for mode in &storm.compaction {
            println!("{}", Line::Row(row(storm.storm, &mode.rounds, report.options.storm_threads)));
        }
    }
}

fn row(storm: Storm, rounds: &[Compaction], storm_threads: usize) -> Row {
    let sum = |of: fn(&Compaction) -> u64| rounds.iter().map(of).sum();
    let mean = |total: u64, round: &Compaction| total / round.cycles.max(1);
    let of_both_groups = |of: fn(&Sleep) -> Option<u64>| {
        median(rounds, |round| Some(mean(of(&round.collector)? + of(&round.mutators)?, round)))
    };
    Row {
        storm: storm.to_string(),
        threads: if storm == Storm::None { 0 } else { storm_threads },
        rounds: rounds.len(),
        compactions: sum(|round| round.cycles),
        compaction_ns: median(rounds, |round| mean(round.compaction_total_ns, round)),
        blocked_ns: of_both_groups(|sleep| sleep.blocked_ns),
        switches: of_both_groups(|sleep| sleep.voluntary_switches),
        copy_p99_ns: median(rounds, |round| round.copy_ns.p99),
        fault_p99_ns: median(rounds, |round| round.fault_ns.p99),
        storm_operations: median(rounds, |round| mean(round.storm_operations, round)),
        mismatches: sum(|round| round.mismatches),
    }
}

/// The median of a figure over rounds.
fn median<T: Median>(rounds: &[Compaction], of: impl Fn(&Compaction) -> T) -> T {
    let values: Vec<_> = rounds.iter().map(of).collect();
    T::median(&values.iter().collect::<Vec<_>>())
}
