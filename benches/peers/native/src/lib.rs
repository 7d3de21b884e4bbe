//! The workloads of `benches/WORKLOADS.md`: what a Rust program would do without a collector. Each
//! object has one owner, and is freed when its owner lets go of it.

use peers_common::histogram::Histogram;
use peers_common::options::{Options, Workload};
use peers_common::report::report;

use clap::Parser as _;

mod gcbench;
mod graph;
mod lru;
mod trees;

/// Runs the workload that the command line names.
///
/// # Errors
/// The marks cannot be written.
pub fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let common = &options.common;
    let outcome = match &options.workload {
        Workload::Trees(parameters) => trees::run(*parameters),
        Workload::Gcbench(parameters) => gcbench::run(*parameters),
        Workload::Lru(parameters) => lru::run(*parameters, common),
        Workload::Graph(parameters) => graph::run(*parameters, common),
    };
    report(&options.workload, common, &outcome, &Histogram::default())
}
