//! Threads and the processor: weights, futexes, and what the system says about the process.
//!
//! Collector threads set their own weight between phases; anybody may sleep on a futex. The futex
//! calls are async-signal-safe and leave `errno` as it was.

use std::fs;
use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::thread;
use std::time::Duration;

use super::{ErrnoGuard, errno};
use crate::geometry::PAGE_BYTES;

/// The system's id of the calling thread.
#[must_use]
pub fn thread_id() -> i32 {
    // SAFETY: has no arguments and cannot fail.
    unsafe { libc::gettid() }
}

/// Sets the calling thread's nice value (-20: most weight, 19: least). Whether it was done.
///
/// Weight is lowered only where it can be raised again: without privilege (`CAP_SYS_NICE` or
/// `RLIMIT_NICE`) a thread that has made itself nice stays so, and a collector thread that
/// stays slow while mutators wait for it is worse than one that was never slow.
#[must_use]
pub fn set_weight(nice: i32) -> bool {
    let lowers = weight().is_none_or(|now| nice > now);
    if lowers && !weight_is_reversible() {
        return false;
    }
    set_nice(nice)
}

/// The calling thread's nice value.
#[must_use]
pub fn weight() -> Option<i32> {
    // SAFETY: returns this thread's own errno location, always writable.
    unsafe { *libc::__errno_location() = 0 };
    // SAFETY: takes values only.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, thread_id() as libc::id_t) };
    // -1 is a nice value and also the sign of an error.
    (nice != -1 || errno() == 0).then_some(nice)
}

/// Whether a thread of this process that has lowered its weight can raise it again. Tried once, on a
/// thread that ends afterwards.
pub fn weight_is_reversible() -> bool {
    static REVERSIBLE: OnceLock<bool> = OnceLock::new();
    *REVERSIBLE.get_or_init(|| {
        let trial = thread::Builder::new().name("weight-trial".into()).spawn(|| {
            let Some(before) = weight() else { return false };
            // At 19 already, there is nothing to lower to: the kernel keeps 19, and nothing is lost.
            set_nice(before + 1) && set_nice(before) && weight() == Some(before)
        });
        trial.is_ok_and(|trial| trial.join().unwrap_or(false))
    })
}

fn set_nice(nice: i32) -> bool {
    // For the kernel, PRIO_PROCESS with a thread's id means this thread.
    // SAFETY: takes values only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, thread_id() as libc::id_t, nice) == 0 }
}

/// What a sleep on a futex ended with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum FutexWait {
    /// Woken, or interrupted by a signal: look again.
    Woken,
    /// Did not sleep: the word had another value.
    Changed,
    /// Nobody woke it in the time given.
    TimedOut,
}

/// Sleeps while `word` is `expected`, until woken or for `limit` at most. Safe in a signal handler.
#[must_use]
pub fn futex_wait(word: &AtomicU32, expected: u32, limit: Option<Duration>) -> FutexWait {
    let _errno = ErrnoGuard::new();
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: limit.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(ptr::null(), ptr::from_ref);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel reads the word, atomically, and the time, both alive during the call.
    let answer = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, limit) };
    match (answer, errno()) {
        (0, _) => FutexWait::Woken,
        (_, libc::EAGAIN) => FutexWait::Changed,
        (_, libc::ETIMEDOUT) => FutexWait::TimedOut,
        // EINTR. No other error is possible for an aligned, mapped word.
        _ => FutexWait::Woken,
    }
}

/// Sleeps for so long, or until a signal comes. Safe in a signal handler.
pub fn nap(length: Duration) {
    // Nobody changes or wakes this word.
    let _ = futex_wait(&AtomicU32::new(0), 0, Some(length));
}

/// Wakes `most` threads at most that sleep on `word`, and returns how many. Safe in a signal handler.
pub fn futex_wake(word: &AtomicU32, most: u32) -> usize {
    let _errno = ErrnoGuard::new();
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    let most = i32::try_from(most).unwrap_or(i32::MAX);
    // SAFETY: the kernel uses the address only as a key.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, most) };
    usize::try_from(woken).unwrap_or(0)
}

/// Time that the hypervisor gave to others while this machine wanted to run, in clock ticks (10 ms), all processors.
#[must_use]
pub fn steal_ticks() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    // cpu user nice system idle iowait irq softirq steal ..
    stat.lines().next()?.split_whitespace().nth(8)?.parse().ok()
}

/// Bytes of memory that the process has.
#[must_use]
pub fn resident_bytes() -> Option<usize> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}

/// The kernel's release, such as "6.12.3", and its major and minor number.
///
/// # Errors
/// The system does not tell.
pub fn kernel_release() -> io::Result<(String, (u32, u32))> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Ok((release, version))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    use super::*;

    #[test]
    fn weights_are_of_one_thread() {
        let here = weight().unwrap();
        let there = thread::spawn(move || (set_weight(here + 3), weight())).join().unwrap();
        assert_eq!(weight(), Some(here));
        assert_eq!(there, if weight_is_reversible() { (true, Some(here + 3)) } else { (false, Some(here)) });
    }

    #[test]
    fn a_futex_sleeps_until_woken() {
        let word = Arc::new(AtomicU32::new(0));
        let sleeper = thread::spawn({
            let word = Arc::clone(&word);
            move || {
                while word.load(Ordering::Acquire) == 0 {
                    assert_ne!(futex_wait(&word, 0, None), FutexWait::TimedOut);
                }
            }
        });
        while futex_wake(&word, 1) == 0 {
            thread::yield_now();
        }
        word.store(1, Ordering::Release);
        futex_wake(&word, u32::MAX);
        sleeper.join().unwrap();
    }

    #[test]
    fn a_futex_does_not_sleep_on_another_value_or_too_long() {
        let word = AtomicU32::new(5);
        assert_eq!(futex_wait(&word, 4, None), FutexWait::Changed);
        let (begin, limit) = (Instant::now(), Duration::from_millis(20));
        assert_eq!(futex_wait(&word, 5, Some(limit)), FutexWait::TimedOut);
        assert!(begin.elapsed() >= limit);
    }

    #[test]
    fn futexes_leave_errno_alone() {
        // SAFETY: returns this thread's own errno location, always writable.
        unsafe { *libc::__errno_location() = 77 };
        assert_eq!(futex_wait(&AtomicU32::new(1), 0, None), FutexWait::Changed);
        assert_eq!(errno(), 77);
    }

    #[test]
    fn the_system_tells_what_is_asked() {
        assert_ne!(thread_id(), thread::spawn(thread_id).join().unwrap());
        assert!(steal_ticks().is_some());
        let before = resident_bytes().unwrap();
        let memory = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(resident_bytes().unwrap() >= before + memory.len() / 2);
        assert!(kernel_release().unwrap().1 >= (4, 14));
    }
}
