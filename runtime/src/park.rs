//! Parking on a word of memory, after a short spin.
//!
//! Run by mutators that wait for the end of a stop and by the controller that waits for mutators.
//! A futex, rather than a mutex and a condition variable, because a woken thread then has no lock to
//! queue for, and because the word that is waited on is the protocol's own state.

use std::time::Duration;

use crate::sync::atomic::Ordering;
use crate::sync::{Futex, hint, spins};

/// How often a waiter looks again before it parks: about a microsecond. Longer would take the
/// processor from the very thread it waits for when there are more threads than processors.
const SPINS: u32 = 60;

/// Waits until `word` is (or may be) no longer `expected`, or the time is over. May return early.
pub(crate) fn wait(word: &Futex, expected: u32, timeout: Option<Duration>) {
    for _ in 0..spins(SPINS) {
        if word.load(Ordering::Relaxed) != expected {
            return;
        }
        hint::spin_loop();
    }
    word.wait(expected, timeout);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_changed_word_is_not_waited_for() {
        let begin = Instant::now();
        wait(&Futex::new(1), 0, None);
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_timeout_ends_the_wait() {
        let begin = Instant::now();
        wait(&Futex::new(0), 0, Some(Duration::from_millis(20)));
        assert!(begin.elapsed() >= Duration::from_millis(19));
    }

    #[test]
    fn wake_all_ends_the_wait() {
        let word = Futex::new(0);
        std::thread::scope(|threads| {
            let waiter = threads.spawn(|| {
                while word.load(Ordering::Acquire) == 0 {
                    wait(&word, 0, None);
                }
            });
            std::thread::sleep(Duration::from_millis(5));
            word.store(1, Ordering::Release); // pairs with the Acquire in the waiter
            word.wake_all();
            waiter.join().unwrap();
        });
    }
}
