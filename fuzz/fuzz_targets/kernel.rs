//! The same programs on the running kernel. Threads run as the system has them, so an input need not do the same twice.

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

fuzz_target!(|bytes: &[u8]| {
    let program = program::Program::decode(bytes);
    toy::run(&program, toy::options(&program.setup));
});
