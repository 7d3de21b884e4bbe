//! Random programs on simulated pages: an input is a program, which also says in which order threads make their
//! steps. The same input always does the same.

#![no_main]

#[path = "../../gc/tests/program/mod.rs"]
mod program;
#[path = "../../gc/tests/simulated/mod.rs"]
mod simulated;
#[path = "../../gc/tests/program/toy.rs"]
mod toy;
#[path = "../../gc/tests/toy_embedder/mod.rs"]
mod toy_embedder;

use libfuzzer_sys::fuzz_target;
use shuttle::scheduler::RandomScheduler;

fuzz_target!(|bytes: &[u8]| {
    let program = program::Program::decode(bytes);
    let scheduler = RandomScheduler::new_from_seed(program.setup.seed, 1);
    toy::simulate(&program, scheduler, |_| {});
});
