//! Simulated heaps under `shuttle`: which of its threads makes the next step is what its scheduler chooses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::{Config, FailurePersistence, MaxSteps, thread};
use strikeslip_gc::sys::schedule::{Schedule, Step};

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
