//! Simulated heaps under `shuttle`: which of its threads makes the next step is what its scheduler chooses.

#![allow(dead_code, reason = "not every fuzz target uses it")]

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::{Config, FailurePersistence, MaxSteps, thread};
use strikeslip_gc::options::{Delivery, ForcedAnswers, HeapOptions, Mode, StressOptions, VerifyLevel};
use strikeslip_gc::sys::schedule::{Schedule, Step};

use crate::toy_embedder::graph::{Random, mix};

/// Threads of the system's, which run beside each other. Now and then a step gives up the processor.
#[derive(Debug)]
pub struct Threads;

impl Schedule for Threads {
    fn step(&self, _step: Step) {
        thread_local!(static STEPS: Cell<u64> = const { Cell::new(0) });
        let steps = STEPS.get();
        STEPS.set(steps + 1);
        if mix(steps).is_multiple_of(16) {
            std::thread::yield_now();
        }
    }

    fn yield_now(&self) {
        std::thread::yield_now();
    }

    fn wait(&self, limited: bool, done: &dyn Fn() -> bool) -> bool {
        let mut turns = 0;
        while !done() {
            if limited && turns > 20 {
                return false;
            }
            turns += 1;
            std::thread::yield_now();
        }
        true
    }

    fn run_workers(&self, count: usize, work: &(dyn Fn() + Sync)) {
        std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(work);
            }
        });
    }
}

/// Lets `shuttle` choose.
#[derive(Debug)]
pub struct Shuttle;

impl Schedule for Shuttle {
    fn step(&self, _step: Step) {
        // Without a hint that this thread waits for anything.
        thread::sleep(Duration::ZERO);
    }

    fn yield_now(&self) {
        thread::yield_now();
    }

    fn wait(&self, limited: bool, done: &dyn Fn() -> bool) -> bool {
        while !done() {
            if limited && thread_rng().gen_ratio(1, 4) {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    fn run_workers(&self, count: usize, work: &(dyn Fn() + Sync)) {
        thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(work);
            }
        });
    }
}

/// Does `work` until all else has ended.
pub fn until(ended: &AtomicBool, work: impl Fn()) {
    while !ended.load(Ordering::Relaxed) {
        work();
        thread::yield_now();
    }
}

/// For `shuttle`, in which a seed is enough to repeat a failure.
pub fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(2_000_000);
    config.silence_warnings = true;
    config
}

/// A heap with forced answers, mostly.
pub fn random_options(random: &mut Random) -> HeapOptions {
    let pick = |random: &mut Random, of: &[usize]| of[random.below(of.len())];
    let forced = ForcedAnswers {
        seed: random.next(),
        per_mille: [50, 200, 600][random.below(3)],
        refuse_moves_after: random.one_in(3).then(|| random.below(12) as u64),
        refuse_registrations: [0, 0, 300][random.below(3)],
    };
    HeapOptions {
        limit_bytes: (24 + random.below(40)) << 20,
        mode: [Mode::ConcurrentMove, Mode::ConcurrentMove, Mode::ConcurrentCopy][random.below(3)],
        delivery: Some(Delivery::ALL[random.below(2)]),
        workers: [1, 1, 2, 3][random.below(4)],
        mark_workers: 1 + random.below(2),
        huge_pages: random.one_in(2),
        buffer_bytes: pick(random, &[1 << 10, 4 << 10, 32 << 10]),
        evacuate_below: [0.5, 0.75, 1.0][random.below(3)],
        patch_budget: pick(random, &[0, 0, 16, 256]),
        verify: VerifyLevel::ALL[random.below(7)],
        automatic: false,
        low_weight_marking: false,
        young_cycles: !random.one_in(4),
        hold_memory: random.one_in(3),
        stress: StressOptions {
            forced_answers: (!random.one_in(3)).then_some(forced),
            ..StressOptions::default()
        },
        ..HeapOptions::default()
    }
}
