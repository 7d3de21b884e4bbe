//! The facade in an ordinary build.

use std::cell;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

pub use crossbeam_queue::SegQueue;
pub use std::sync::{Condvar, Mutex, MutexGuard};

pub use crate::sys::mapping::SideTable;
use crate::sys::sched::{futex_wait, futex_wake};

/// `std::sync::atomic`.
pub mod atomic {
    pub use std::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
}

/// `std::hint`.
pub mod hint {
    pub use std::hint::spin_loop;
}

/// `std::thread`.
pub mod thread {
    pub use std::thread::yield_now;

    /// Sleeps for a moment.
    pub fn nap() {
        crate::sys::sched::nap(std::time::Duration::from_micros(50));
    }
}

/// A cell that is lent by pointer, to a closure: a model checks that accesses exclude each other.
#[derive(Default)]
pub struct UnsafeCell<T>(cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> Self {
        Self(cell::UnsafeCell::new(value))
    }

    /// Lends the contents for reading.
    #[inline]
    pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// Lends the contents for writing.
    #[inline]
    pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

impl<T> fmt::Debug for UnsafeCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnsafeCell")
    }
}

/// A word that threads can sleep on.
#[derive(Debug, Default)]
pub struct Futex(atomic::AtomicU32);

impl Futex {
    /// A word.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(atomic::AtomicU32::new(value))
    }

    /// Sleeps while the word is `expected`, until woken or for `limit` at most. May return early.
    /// Safe in a signal handler.
    pub fn wait(&self, expected: u32, limit: Option<Duration>) {
        let _ = futex_wait(&self.0, expected, limit);
    }

    /// Wakes all who sleep. Safe in a signal handler.
    pub fn wake_all(&self) {
        let _ = futex_wake(&self.0, u32::MAX);
    }
}

impl Deref for Futex {
    type Target = atomic::AtomicU32;

    #[inline]
    fn deref(&self) -> &atomic::AtomicU32 {
        &self.0
    }
}
