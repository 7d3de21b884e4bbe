//! A reader-writer semaphore (`struct rw_semaphore`): locked and unlocked by calls, not by guards, since
//! the kernel takes in one function what it releases in another.
//!
//! Invariant: it is given in the order of arrival, to neighbouring readers together. So readers queue behind a
//! waiting writer, and nobody waits for ever. (The kernel's lets a running thread go first for some milliseconds.)

use crate::sync::{Condvar, Mutex, MutexGuard, lock};

#[derive(Debug, Default)]
struct State {
    readers: usize,
    has_writer: bool,
    /// Place in the queue of who comes next.
    next: usize,
    /// Place in the queue that is first.
    first: usize,
}

impl State {
    const fn is_queue_empty(&self) -> bool {
        self.first == self.next
    }

    const fn may_read(&self) -> bool {
        !self.has_writer
    }

    const fn may_write(&self) -> bool {
        !self.has_writer && self.readers == 0
    }
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

    /// Waits until all who came before have it, or had it, and `may_enter` says yes.
    fn queue(&self, may_enter: fn(&State) -> bool) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        let place = state.next;
        state.next += 1;
        while place != state.first || !may_enter(&state) {
            state = self.changed.wait(state).expect("no thread panics while it holds the state");
        }
        state.first += 1;
        // A reader behind a reader may enter, too.
        self.changed.notify_all();
        state
    }

    /// `down_read`: waits while there is a writer, or one waits.
    pub fn down_read(&self) {
        self.queue(State::may_read).readers += 1;
    }

    /// `down_read_trylock`: false if there is a writer, or somebody waits.
    #[must_use]
    pub fn try_down_read(&self) -> bool {
        let mut state = lock(&self.state);
        let is_free = state.is_queue_empty() && state.may_read();
        state.readers += usize::from(is_free);
        is_free
    }

    /// `up_read`.
    ///
    /// # Panics
    /// Nobody held it for reading.
    pub fn up_read(&self) {
        let mut state = lock(&self.state);
        let was_held = state.readers > 0;
        state.readers = state.readers.saturating_sub(1);
        drop(state);
        assert!(was_held, "a lock was released and not held");
        self.changed.notify_all();
    }

    /// `down_write`: waits until nobody holds it.
    pub fn down_write(&self) {
        self.queue(State::may_write).has_writer = true;
    }

    /// `up_write`.
    pub fn up_write(&self) {
        lock(&self.state).has_writer = false;
        self.changed.notify_all();
    }

    /// Whether somebody holds it (`rwsem_is_locked`).
    #[must_use]
    pub fn is_held(&self) -> bool {
        let state = lock(&self.state);
        !state.may_write()
    }
}

impl Default for Semaphore {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn readers_queue_behind_a_waiting_writer_and_are_not_passed_by_the_next() {
        let semaphore = Arc::new(Semaphore::new());
        semaphore.down_read();
        let (send, order) = mpsc::channel();
        let threads = ["first writer", "reader", "second writer"].map(|name| {
            let (semaphore, send) = (Arc::clone(&semaphore), send.clone());
            let place = lock(&semaphore.state).next;
            let queued = Arc::clone(&semaphore);
            let thread = thread::spawn(move || {
                if name == "reader" {
                    semaphore.down_read()
                } else {
                    semaphore.down_write()
                }
                send.send(name).unwrap();
                if name == "reader" { semaphore.up_read() } else { semaphore.up_write() }
            });
            while lock(&queued.state).next == place {
                thread::yield_now();
            }
            thread
        });
        assert!(!semaphore.try_down_read(), "somebody waits");
        semaphore.up_read();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["first writer", "reader", "second writer"]);
        assert!(!semaphore.is_held());
    }

    #[test]
    #[should_panic(expected = "released and not held")]
    fn what_is_not_held_is_not_released() {
        Semaphore::new().up_read();
    }
}
