//! The one pause of a cycle, with different amounts of live data and of roots. It is to be flat.
//!
//! Each row of the table is measured on heaps of its own, a fresh one in each round; rounds go
//! through all rows, so that a slow minute of the machine falls on all of them. The driver asks for
//! ordinary cycles ([`Pressure::Normal`]) while mutators allocate, keep some survivors and read.
//!
//! [`Pressure::Normal`]: strikeslip::gc::plan::Pressure::Normal

mod load;
mod roots;
mod row;

use clap::Args;
use serde::Serialize;
use strikeslip::{Delivery, Mode};
use strikeslip_demos::units::parse_bytes;

use self::row::{Case, Row};
use crate::cli::Common;
use crate::error::Error;
use crate::json::Report;
use crate::numbers::{Summary, mib, size};
use crate::table::Table;

/// Options of the benchmark.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Options {
    /// Cycles of each row, over all rounds
    #[arg(long, default_value_t = 40)]
    pub cycles: usize,
    /// Rounds over all rows, with a fresh heap for each row
    #[arg(long, default_value_t = 4)]
    pub rounds: usize,
    /// Amounts of live data
    #[arg(long, value_delimiter = ',', default_value = "64M,512M,2G", value_parser = parse_bytes)]
    pub live: Vec<u64>,
    /// Numbers of persistent handles
    #[arg(long, value_delimiter = ',', default_value = "10,10000,1000000")]
    pub roots: Vec<usize>,
    /// How many of them refer to survivors of the last cycles, spread over all pages of roots
    #[arg(long, default_value_t = 16)]
    pub young_roots: usize,
    /// Measure all combinations, instead of one row for each amount and one for each number
    #[arg(long)]
    pub all: bool,
    /// Bytes of a live object, header included
    #[arg(long, default_value = "256", value_parser = parse_bytes)]
    pub object: u64,
    /// Mutators
    #[arg(long, default_value_t = 1)]
    pub mutators: usize,
    /// Bytes that mutators allocate between two cycles
    #[arg(long, default_value = "32M", value_parser = parse_bytes)]
    pub young: u64,
    /// Bytes that all mutators together allocate a second, at most
    #[arg(long, default_value = "200M", value_parser = parse_bytes)]
    pub rate: u64,
    /// Mode to measure
    #[arg(long, default_value = "concurrent-move")]
    pub mode: Mode,
    /// Delivery to measure
    #[arg(long, default_value = "inplace")]
    pub delivery: Delivery,
    /// No rows of stop-the-world mode for comparison
    #[arg(long)]
    pub no_compare: bool,
    /// Options of all benchmarks
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

/// Most that the medians of the rows may differ by.
const TARGET_RATIO: f64 = 2.0;
/// The median that is aimed at, in microseconds.
const TARGET_US: f64 = 100.0;

/// Runs the benchmark and prints its table.
///
/// # Errors
/// [`Error`].
pub fn run(options: &Options) -> Result<(), Error> {
    let output = options.common.output()?;
    let mut rows = rows(options)?;
    for round in 0..options.rounds {
        for row in &mut rows {
            let cycles = share(row.cycles, round, options.rounds);
            if cycles > 0 {
                options.common.progress(&format!("round {} of {}: {}", round + 1, options.rounds, row.case));
                row.measure(options, round, cycles)?;
            }
        }
    }
    print(&rows);
    verdict(&rows);
    if let Some(output) = output {
        let rows: Vec<_> = rows.iter().map(Row::report).collect();
        output.write(&Report::new("pauses", options, rows))?;
    }
    Ok(())
}

/// What falls on this round of `total`.
const fn share(total: usize, round: usize, rounds: usize) -> usize {
    total * (round + 1) / rounds - total * round / rounds
}

fn rows(options: &Options) -> Result<Vec<Row>, Error> {
    let (Some(&live), Some(&roots)) = (options.live.first(), options.roots.first()) else {
        return Err(Error::Option("--live and --roots need a value each".to_owned()));
    };
    if options.rounds == 0 || options.mutators == 0 || options.object < 32 || options.rate == 0 {
        let text = "--rounds, --mutators and --rate must not be 0, --object must be 32 at least";
        return Err(Error::Option(text.to_owned()));
    }
    let case = |mode, (live, roots)| Case { mode, live, roots };
    let mut pairs: Vec<(u64, usize)> = options.live.iter().map(|&live| (live, roots)).collect();
    if options.all {
        pairs = options
            .live
            .iter()
            .flat_map(|&live| options.roots.iter().map(move |&roots| (live, roots)))
            .collect();
    } else {
        pairs.extend(options.roots[1..].iter().map(|&roots| (live, roots)));
    }
    let mut rows: Vec<_> =
        pairs.iter().map(|&pair| Row::new(case(options.mode, pair), options.cycles)).collect();
    if options.mode != Mode::StopTheWorld && !options.no_compare {
        // These are only there to show that they grow: fewer cycles will do.
        let compare = |&live| Row::new(case(Mode::StopTheWorld, (live, roots)), options.cycles.div_ceil(4));
        rows.extend(options.live.iter().map(compare));
    }
    Ok(rows)
}

fn print(rows: &[Row]) {
    let mut table = Table::new(&[
        "mode",
        "live",
        "roots",
        "cycles",
        "stopped µs p50",
        "p90",
        "max",
        "safepoint p50",
        "pause p50",
        "p90",
        "max",
        "slots p50",
        "taken p50",
        "evac. MiB p50",
        "steal ms",
        "control gap µs",
    ]);
    for row in rows {
        let samples = &row.samples;
        let (stopped, pause) = (Summary::of(samples.stopped_us()), Summary::of(samples.pause_us()));
        let tenth = |value: f64| format!("{value:.1}");
        let whole = |value: f64| format!("{value:.0}");
        let mut cells = vec![
            row.case.mode.name().to_owned(),
            size(row.case.live),
            row.case.roots.to_string(),
            stopped.count.to_string(),
        ];
        cells.extend([stopped.p50, stopped.p90, stopped.max].map(tenth));
        cells.push(tenth(Summary::of(samples.safepoint_us()).p50));
        cells.extend([pause.p50, pause.p90, pause.max].map(tenth));
        cells.push(whole(samples.median(|cycle| cycle.slots_patched)));
        cells.push(whole(samples.median(|cycle| cycle.regions_taken)));
        cells.push(tenth(mib(samples.median(|cycle| cycle.evacuated_bytes) as u64)));
        cells.extend(samples.noise.cells());
        table.row(cells);
    }
    println!(
        "\nstopped: request of the stop until mutators may run; pause: until the last one runs\n\n{table}"
    );
}

fn verdict(rows: &[Row]) {
    let concurrent = rows.iter().filter(|row| row.case.mode.is_concurrent());
    let medians: Vec<f64> = concurrent.map(|row| Summary::of(row.samples.stopped_us()).p50).collect();
    if medians.is_empty() {
        return;
    }
    let all = Summary::of(medians);
    let ratio = all.max / all.min;
    let met = |is_met| if is_met { "met" } else { "NOT met" };
    println!("stopped p50 of the rows: {:.1} to {:.1} µs", all.min, all.max);
    println!("  ratio {ratio:.2} (target: within {TARGET_RATIO:.0}): {}", met(ratio <= TARGET_RATIO));
    println!("  greatest below {TARGET_US:.0} µs: {}", met(all.max < TARGET_US));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_share_all_cycles() {
        for (total, rounds) in [(40, 4), (10, 4), (3, 4), (1, 1)] {
            assert_eq!((0..rounds).map(|round| share(total, round, rounds)).sum::<usize>(), total);
        }
    }
}
