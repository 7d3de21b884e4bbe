//! A reader-writer semaphore (`struct rw_semaphore`): locked and unlocked by calls, not by guards, since
//! the kernel takes in one function what it releases in another.
//!
//! Invariant: readers queue behind a waiting writer, as they do in the kernel.

#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard};

#[derive(Debug, Default)]
struct State {
    readers: usize,
    writer: bool,
    waiting_writers: usize,
}

/// A reader-writer semaphore.
#[derive(Debug)]
pub struct Semaphore {
    state: Mutex<State>,
    changed: Condvar,
}

impl Semaphore {
    /// A semaphore that nobody holds.
    #[must_use]
    pub fn new() -> Self {
        Self { state: Mutex::new(State::default()), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the state")
    }

    /// `down_read`: waits while there is a writer, or one waits.
    pub fn down_read(&self) {
        let mut state = self.state();
        while state.writer || state.waiting_writers > 0 {
            state = self.changed.wait(state).expect("no thread panics while it holds the state");
        }
        state.readers += 1;
    }

    /// `down_read_trylock`: false if a writer holds it.
    pub fn try_down_read(&self) -> bool {
        let mut state = self.state();
        if !state.writer {
            state.readers += 1;
        }
        !state.writer
    }

    /// `up_read`. False if nobody held it for reading, which is an error of the caller.
    #[must_use]
    pub fn up_read(&self) -> bool {
        let mut state = self.state();
        let was_held = state.readers > 0;
        state.readers = state.readers.saturating_sub(1);
        drop(state);
        self.changed.notify_all();
        was_held
    }

    /// `down_write`: waits until nobody holds it.
    pub fn down_write(&self) {
        let mut state = self.state();
        state.waiting_writers += 1;
        while state.writer || state.readers > 0 {
            state = self.changed.wait(state).expect("no thread panics while it holds the state");
        }
        state.waiting_writers -= 1;
        state.writer = true;
    }

    /// `up_write`.
    pub fn up_write(&self) {
        self.state().writer = false;
        self.changed.notify_all();
    }
}

impl Default for Semaphore {
    fn default() -> Self {
        Self::new()
    }
}
