//! The lock of the model `--what-if-mmap-lock`: process-wide, readers and writers, first come, first served.
//!
//! Readers are the collector's page operations, which may run in a signal handler: nothing here allocates, and
//! waiting is a futex. Being fair, it makes every writer hold up all that come after it. The kernel's `mmap_lock`
//! lets running threads overtake, so the model exaggerates what an old kernel would do.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strikeslip::gc::sys::sched::{futex_wait, futex_wake};

/// A fair lock for readers and writers, taken and released by calls.
#[derive(Debug, Default)]
pub(super) struct QueueLock {
    /// The ticket that the next to come gets.
    next: AtomicU32,
    /// The ticket whose turn it is.
    turn: AtomicU32,
    /// Readers inside.
    readers: AtomicU32,
    /// Time that readers waited, in nanoseconds.
    waited_ns: AtomicU64,
}

/// How long a sleeper trusts to be woken: it costs nothing to look again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl QueueLock {
    /// Takes it for reading.
    pub(super) fn read(&self) {
        let begin = Instant::now();
        self.wait_for_turn();
        self.readers.fetch_add(1, Ordering::Relaxed);
        self.pass_turn_on();
        let waited = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.waited_ns.fetch_add(waited, Ordering::Relaxed);
    }

    /// Releases it from reading.
    pub(super) fn read_done(&self) {
        // Release: pairs with the Acquire in `write`.
        if self.readers.fetch_sub(1, Ordering::Release) == 1 {
            futex_wake(&self.readers, u32::MAX);
        }
    }

    /// Runs `body` with the lock held for writing.
    pub(super) fn write<R>(&self, body: impl FnOnce() -> R) -> R {
        self.wait_for_turn();
        loop {
            // Acquire: pairs with the Release in `read_done`.
            match self.readers.load(Ordering::Acquire) {
                0 => break,
                readers => drop(futex_wait(&self.readers, readers, Some(LOOK_AGAIN))),
            }
        }
        let result = body();
        self.pass_turn_on();
        result
    }

    /// Time that readers waited so far, all together, in nanoseconds.
    pub(super) fn waited_ns(&self) -> u64 {
        self.waited_ns.load(Ordering::Relaxed)
    }

    fn wait_for_turn(&self) {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        loop {
            // Acquire: pairs with the Release in `pass_turn_on`.
            let turn = self.turn.load(Ordering::Acquire);
            if turn == ticket {
                return;
            }
            let _ = futex_wait(&self.turn, turn, Some(LOOK_AGAIN));
        }
    }

    fn pass_turn_on(&self) {
        // Release: pairs with the Acquire in `wait_for_turn`.
        self.turn.fetch_add(1, Ordering::Release);
        futex_wake(&self.turn, u32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_writer_is_alone_and_everybody_gets_a_turn() {
        let (lock, inside) = (QueueLock::default(), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        lock.write(|| {
                            assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                            inside.fetch_sub(1, Ordering::Relaxed);
                        });
                    }
                });
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        lock.read();
                        assert_eq!(inside.load(Ordering::Relaxed), 0);
                        lock.read_done();
                    }
                });
            }
        });
        assert!(lock.waited_ns() > 0);
        assert_eq!((lock.next.into_inner(), lock.turn.into_inner()), (8_000, 8_000));
    }
}
