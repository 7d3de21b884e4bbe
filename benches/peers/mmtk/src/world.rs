//! Stopping the world, which is one mutator, and how long that takes.
//!
//! The mutator stops at safepoints: where an allocation asks for a collection (`block_for_gc`) and where it polls
//! ([`World::poll`]). A worker that stops the world waits until it has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use peers_common::histogram::Histogram;

/// The world.
#[derive(Debug)]
pub struct World {
    /// Whether the mutator is asked to stop. Only a hint: what counts is in `state`.
    asked: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    is_stopped: bool,
    resumptions: u64,
    /// When the stop under way was requested.
    requested: Option<Instant>,
    pauses: Option<Histogram>,
}

/// The one world of this process.
pub static WORLD: World = World {
    asked: AtomicBool::new(false),
    state: Mutex::new(State { is_stopped: false, resumptions: 0, requested: None, pauses: None }),
    changed: Condvar::new(),
};

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the mutator. Run by a worker.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.requested.get_or_insert_with(Instant::now);
        self.asked.store(true, Ordering::Relaxed);
        while !state.is_stopped {
            state = self.wait(state);
        }
    }

    /// Lets it go on. Run by a worker.
    pub fn resume(&self) {
        let mut state = self.lock();
        self.asked.store(false, Ordering::Relaxed);
        state.resumptions += 1;
        self.changed.notify_all();
    }

    /// Stands still until the world is resumed. Run by the mutator, which knows that it will be.
    #[cold]
    pub fn stand_still(&self) {
        let mut state = self.lock();
        state.requested.get_or_insert_with(Instant::now);
        state.is_stopped = true;
        self.changed.notify_all();
        let before = state.resumptions;
        while state.resumptions == before {
            state = self.wait(state);
        }
        state.is_stopped = false;
        let pause = state.requested.take().map_or(0, |requested| requested.elapsed().as_nanos() as u64);
        if let Some(pauses) = &mut state.pauses {
            pauses.record(pause);
        }
    }

    /// Stands still if asked to. Run by the mutator.
    #[inline]
    pub fn poll(&self) {
        if self.asked.load(Ordering::Relaxed) {
            self.stand_still();
        }
    }

    /// Forgets the pauses so far, and counts those from now on.
    pub fn count_pauses(&self) {
        self.lock().pauses = Some(Histogram::default());
    }

    /// The pauses since, from the request to the mutator's resumption.
    pub fn pauses(&self) -> Histogram {
        self.lock().pauses.take().unwrap_or_default()
    }
}
