//! Jitter: a [`PageService`] around the kernel's that brings a [`Schedule`] which has threads lose time at the steps of
//! the protocols, as a busy machine would, only far more often.
//!
//! The schedule of a simulation chooses who runs; this one only delays. Run where steps are made: by markers,
//! workers, mutators in signal handlers. It neither allocates nor locks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::forced::mix;
use super::sched::nap;
use super::schedule::{Schedule, Step};
use super::{Install, PageService};
use crate::address::{FromAddress, ToAddress};
use crate::stats::Statistics;
use crate::stress::StressMode;

/// Longest a thread sleeps at a step.
const LONGEST_NAP_US: u64 = 200;
/// Sleep between two looks of a thread that waits.
const LOOK_AGAIN: Duration = Duration::from_micros(50);
/// Longest wait that may be given up.
const LONGEST_PATIENCE_US: u64 = 2_000;

/// The service.
#[derive(Debug)]
pub struct Jittering {
    inner: Arc<dyn PageService>,
    jitter: Jitter,
}

/// The schedule.
#[derive(Debug)]
struct Jitter {
    draws: AtomicU64,
    stats: Arc<Statistics>,
}

impl Jittering {
    /// Around `inner`, which has no schedule of its own.
    #[must_use]
    pub fn new(inner: Arc<dyn PageService>, stats: Arc<Statistics>) -> Self {
        Self { inner, jitter: Jitter { draws: AtomicU64::new(0), stats } }
    }
}

impl Jitter {
    fn draw(&self) -> u64 {
        mix(self.draws.fetch_add(1, Ordering::Relaxed))
    }
}

impl Schedule for Jitter {
    fn step(&self, _step: Step) {
        let random = self.draw();
        match random % 16 {
            0 => nap(Duration::from_micros(random / 16 % LONGEST_NAP_US)),
            1..8 => std::thread::yield_now(),
            _ => return,
        }
        self.stats.stress.add(StressMode::Yields, 1);
    }

    fn yield_now(&self) {
        std::thread::yield_now();
    }

    fn wait(&self, limited: bool, done: &dyn Fn() -> bool) -> bool {
        let begin = Instant::now();
        let patience = Duration::from_micros(self.draw() % LONGEST_PATIENCE_US);
        while !done() {
            if limited && begin.elapsed() >= patience {
                return false;
            }
            nap(LOOK_AGAIN);
        }
        true
    }

    fn run_workers(&self, count: usize, work: &(dyn Fn() + Sync)) {
        std::thread::scope(|scope| (0..count).for_each(|_| drop(scope.spawn(work))));
    }
}

impl PageService for Jittering {
    fn register(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.inner.register(start, bytes)
    }

    fn try_register(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.inner.try_register(start, bytes)
    }

    fn unregister(&self, start: ToAddress, bytes: usize) -> io::Result<()> {
        self.inner.unregister(start, bytes)
    }

    fn copy(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install {
        self.jitter.step(Step::Installing);
        self.inner.copy(to, from, bytes)
    }

    fn zero(&self, to: ToAddress, bytes: usize) -> Install {
        self.jitter.step(Step::Installing);
        self.inner.zero(to, bytes)
    }

    fn move_pages(&self, to: ToAddress, from: FromAddress, bytes: usize) -> Install {
        self.jitter.step(Step::Installing);
        self.inner.move_pages(to, from, bytes)
    }

    fn wake(&self, start: ToAddress, bytes: usize) {
        self.inner.wake(start, bytes);
    }

    fn schedule(&self) -> Option<&dyn Schedule> {
        Some(&self.jitter)
    }
}
