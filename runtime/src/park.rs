//! Parking on a word of memory: `futex(2)`, private to the process.
//!
//! Run by mutators that wait for the end of a stop and by the controller that waits for mutators.
//! A futex, rather than a mutex and a condition variable, because a woken thread then has no lock to
//! queue for, and because the word that is waited on is the protocol's own state.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How often a waiter looks again before it parks: about a microsecond. Longer would take the
/// processor from the very thread it waits for when there are more threads than processors.
const SPINS: u32 = 60;

/// Waits until `word` is (or may be) no longer `expected`, or the time is over. May return early.
pub(crate) fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) {
    for _ in 0..SPINS {
        if word.load(Ordering::Relaxed) != expected {
            return;
        }
        std::hint::spin_loop();
    }
    let timeout = timeout.map(|duration| libc::timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `word` is a live, aligned 32-bit word and `timeout` is null or a live timespec; the
    // kernel only reads both. Every failure (EAGAIN, EINTR, ETIMEDOUT) means: look again.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            timeout,
        );
    }
}

/// Wakes all threads that wait on `word`.
pub(crate) fn wake_all(word: &AtomicU32) {
    // SAFETY: waking reads nothing of the word; its address is only a key.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_changed_word_is_not_waited_for() {
        let begin = Instant::now();
        wait(&AtomicU32::new(1), 0, None);
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_timeout_ends_the_wait() {
        let begin = Instant::now();
        wait(&AtomicU32::new(0), 0, Some(Duration::from_millis(20)));
        assert!(begin.elapsed() >= Duration::from_millis(19));
    }

    #[test]
    fn wake_all_ends_the_wait() {
        let word = AtomicU32::new(0);
        std::thread::scope(|threads| {
            let waiter = threads.spawn(|| {
                while word.load(Ordering::Acquire) == 0 {
                    wait(&word, 0, None);
                }
            });
            std::thread::sleep(Duration::from_millis(5));
            word.store(1, Ordering::Release); // pairs with the Acquire in the waiter
            wake_all(&word);
            waiter.join().unwrap();
        });
    }
}
