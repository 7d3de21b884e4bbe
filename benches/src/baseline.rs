//! The table of the Criterion benchmarks, from what `cargo bench` left behind.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::machine::Machine;

/// Options of the command `baseline`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Where Criterion keeps its figures
    #[arg(long, default_value = "target/criterion", value_name = "FOLDER")]
    pub from: PathBuf,
}

/// What a benchmark is: Criterion's `benchmark.json`.
#[derive(Debug, Deserialize)]
struct Benchmark {
    full_id: String,
    throughput: Option<Throughput>,
}

#[derive(Debug, Deserialize)]
enum Throughput {
    Bytes(u64),
    #[serde(other)]
    Other,
}

/// What was measured: Criterion's `estimates.json`.
#[derive(Debug, Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Debug, Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Debug, Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// Prints the table, in Markdown.
///
/// # Errors
/// There are no figures.
pub fn run(options: &Options) -> Result<(), Error> {
    let mut rows = vec![];
    collect(&options.from, &mut rows);
    if rows.is_empty() {
        let folder = options.from.display();
        return Err(Error::Option(format!(
            "no figures in {folder}: run `cargo bench -p strikeslip-bench` first"
        )));
    }
    rows.sort();
    let machine = Machine::here();
    println!("Linux {}, {} processors ({}).\n", machine.kernel, machine.processors, machine.processor_model);
    println!("| benchmark | median | 95 % interval | |\n|---|---|---|---|");
    rows.iter().for_each(|row| println!("{row}"));
    Ok(())
}

/// Adds a row for each benchmark in the folder.
fn collect(folder: &Path, rows: &mut Vec<String>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| path.is_dir()) {
        if path.file_name().is_some_and(|name| name == "new") {
            let benchmark = read::<Benchmark>(&path.join("benchmark.json"));
            rows.extend(
                benchmark.zip(read(&path.join("estimates.json"))).map(|(of, found)| row(&of, &found)),
            );
        } else {
            collect(&path, rows);
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

fn row(of: &Benchmark, found: &Estimates) -> String {
    let Estimate { point_estimate: median, confidence_interval: interval } = &found.median;
    let rate = match of.throughput {
        // Bytes in a nanosecond are 10^9 bytes in a second.
        Some(Throughput::Bytes(bytes)) => format!("{:.2} GB/s", bytes as f64 / median),
        _ => String::new(),
    };
    let [median, low, high] = [*median, interval.lower_bound, interval.upper_bound].map(duration);
    format!("| {} | {median} | {low} … {high} | {rate} |", of.full_id)
}

fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.2} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_median_its_interval_and_a_rate() {
        let of = r#"{"group_id":"g","full_id":"g/f","throughput":{"Bytes":4096},"title":"g/f"}"#;
        let found = r#"{"median":{"confidence_interval":{"confidence_level":0.95,"lower_bound":1000.0,
            "upper_bound":2.5e6},"point_estimate":2048.0,"standard_error":1.0}}"#;
        let of = serde_json::from_str(of).expect("Criterion writes this");
        let found = serde_json::from_str(found).expect("and this");
        assert_eq!(row(&of, &found), "| g/f | 2.05 µs | 1.00 µs … 2.50 ms | 2.00 GB/s |");
    }
}
