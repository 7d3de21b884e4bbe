//! Property tests: random programs on object graphs against an oracle, in all modes on the kernel and in
//! chosen orders on simulated pages; and the corpus of the fuzzer (`fuzz/`), which runs the same programs.
//!
//! A program that fails is written as bytes: put into `fuzz/corpus/programs` it stays a test.

mod program;
mod simulated;
mod toy_embedder;

#[path = "program/draw.rs"]
mod draw;
#[path = "program/toy.rs"]
mod toy;

use std::sync::{Arc, Mutex, PoisonError};

use draw::for_programs;
use program::Program;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use strikeslip_gc::options::{Delivery, HeapOptions, Mode};
use toy::Outcome;

/// Sums over programs.
#[derive(Debug, Default)]
struct Sums {
    cycles: u64,
    faults: u64,
    forced: u64,
    compared: usize,
    refused: usize,
}

impl Sums {
    fn add(&mut self, outcome: &Outcome) {
        self.cycles += outcome.snapshot.counters.cycles;
        self.faults += outcome.snapshot.fault_ns.count;
        self.forced += outcome.snapshot.forced_answers.iter().map(|forced| forced.count).sum::<u64>();
        self.compared += outcome.compared;
        self.refused += outcome.refused;
    }
}

/// So often are programs drawn until a mutator takes a fault.
const ATTEMPTS: usize = 10;

/// Runs programs on the kernel in this mode.
fn on_the_kernel(mode: Mode, delivery: Option<Delivery>) {
    let sums = Mutex::new(Sums::default());
    // More of them, if by chance no mutator took a fault.
    for _ in 0..ATTEMPTS {
        for_programs(10, 120, |program| {
            let outcome = toy::run(program, HeapOptions { mode, delivery, ..toy::options(&program.setup) });
            sums.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome);
        });
        let has_faults = sums.lock().unwrap_or_else(PoisonError::into_inner).faults > 0;
        if has_faults || !mode.is_concurrent() {
            break;
        }
    }
    let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{mode}, {delivery:?}: {sums:?}");
    assert!(sums.compared > 0 && (mode == Mode::NoGc || sums.cycles > 0), "{sums:?}");
    assert!(!mode.is_concurrent() || sums.faults > 0 && sums.forced > 0, "{sums:?}");
}

#[test]
fn programs_agree_with_the_oracle_without_a_collector() {
    on_the_kernel(Mode::NoGc, None);
}

#[test]
fn programs_agree_with_the_oracle_when_the_world_is_stopped() {
    on_the_kernel(Mode::StopTheWorld, None);
}

#[test]
fn programs_agree_with_the_oracle_when_pages_are_copied() {
    on_the_kernel(Mode::ConcurrentCopy, Some(Delivery::Pool));
    on_the_kernel(Mode::ConcurrentCopy, Some(Delivery::InPlace));
}

#[test]
fn programs_agree_with_the_oracle_when_pages_are_moved() {
    on_the_kernel(Mode::ConcurrentMove, Some(Delivery::Pool));
    on_the_kernel(Mode::ConcurrentMove, Some(Delivery::InPlace));
}

/// A place for sums that a scheduler's threads can add to.
fn shared_sums() -> (Arc<Mutex<Sums>>, impl Fn(Outcome) + Clone + Send + Sync + 'static) {
    let sums = Arc::new(Mutex::new(Sums::default()));
    let into = sums.clone();
    (sums, move |outcome| into.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome))
}

#[test]
fn programs_agree_with_the_oracle_on_simulated_pages() {
    let (sums, add) = shared_sums();
    for_programs(24, 80, |program| {
        let seed = program.setup.seed;
        toy::simulate(program, RandomScheduler::new_from_seed(seed, 1), add.clone());
        toy::simulate(program, PctScheduler::new_from_seed(seed, 3, 2), add.clone());
    });
    let sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{sums:?}");
    assert!(sums.compared > 0 && sums.cycles > 0 && sums.faults > 0 && sums.forced > 0, "{sums:?}");
}

/// Whatever the fuzzer found worth keeping, and what once failed.
#[test]
fn the_corpus_agrees_with_the_oracle() {
    let (sums, add) = shared_sums();
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/programs");
    let entries = std::fs::read_dir(corpus).expect("the corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= 20, "{} programs", paths.len());
    for path in &paths {
        println!("{}", path.display());
        let program = Program::decode(&std::fs::read(path).expect("a file"));
        toy::simulate(&program, RandomScheduler::new_from_seed(program.setup.seed, 1), add.clone());
    }
    for (path, nth) in paths.iter().zip(0..).step_by(4) {
        println!("{} on the kernel", path.display());
        let program = Program::decode(&std::fs::read(path).expect("a file"));
        let delivery = Some(Delivery::ALL[nth / 4 % 2]);
        add(toy::run(&program, HeapOptions { delivery, ..toy::options(&program.setup) }));
    }
    let sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{sums:?}");
    assert!(sums.cycles > 0 && sums.faults > 0, "{sums:?}");
}
