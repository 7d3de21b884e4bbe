//! The workloads of `benches/WORKLOADS.md` on MMTk, with a plan that is chosen on the command line.

mod binding;
mod gcbench;
mod graph;
mod heap;
mod lru;
mod object;
mod trees;
mod world;

use std::process::ExitCode;

use clap::Parser as _;
use peers_common::options::{Options, Workload};
use peers_common::report::report;

use crate::heap::Heap;
use crate::world::WORLD;

fn main() -> ExitCode {
    let options = Options::parse();
    let common = &options.common;
    let mut heap = match Heap::new(&common.plan, common.heap_bytes) {
        Ok(heap) => heap,
        Err(reason) => {
            eprintln!("peer: {reason}");
            return ExitCode::from(2);
        }
    };
    let outcome = match options.workload {
        Workload::Trees(parameters) => trees::run(&mut heap, parameters),
        Workload::Gcbench(parameters) => gcbench::run(&mut heap, parameters),
        Workload::Lru(parameters) => lru::run(&mut heap, parameters, common),
        Workload::Graph(parameters) => graph::run(&mut heap, parameters, common),
    };
    match report(&options.workload, common, &outcome, &WORLD.pauses()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer: the marks cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}
