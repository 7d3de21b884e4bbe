//! What stops page operations while mappings change (`userfaultfd_ctx`): `mmap_changing` and its own lock.
//!
//! A monitor that reads events must not have pages installed by what it decided before it has read of a change.
//! Under `mmap_lock` that needed a flag only; without it the flag needs a lock of its own (5e4c24a57b0c).
//!
//! Invariant: from the end of [`Userfault::begin_change`] to that of [`Userfault::end_change`], no page operation is
//! at work. An observer checks it (see [`crate::vma`]).

use std::sync::{Mutex as Unscheduled, PoisonError};

use crate::rule::{Options, Rule};
use crate::semaphore::Semaphore;
use crate::service::Errno;
use crate::sync::{AtomicUsize, Ordering::Relaxed};

/// A userfaultfd.
#[derive(Debug)]
pub struct Userfault {
    map_changing_lock: Semaphore,
    // Relaxed: it is set and looked at under its lock. Who sees it cleared late tries again.
    mmap_changing: AtomicUsize,
    observed: Unscheduled<Observed>,
    locks: bool,
}

#[derive(Debug, Default)]
struct Observed {
    changes: usize,
    operations: usize,
}

impl Userfault {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            map_changing_lock: Semaphore::new(),
            mmap_changing: AtomicUsize::new(0),
            observed: Unscheduled::default(),
            locks: options.keeps(Rule::ChangingLock),
        }
    }

    /// Runs a page operation, unless mappings are changing.
    ///
    /// # Errors
    /// [`Errno::Again`] if they are, or what the operation says.
    pub fn unless_changing<R>(&self, operation: impl FnOnce() -> Result<R, Errno>) -> Result<R, Errno> {
        if self.locks {
            self.map_changing_lock.down_read();
        }
        let result = if self.mmap_changing.load(Relaxed) > 0 {
            Err(Errno::Again)
        } else {
            self.observe(|observed| observed.operations += 1);
            let result = operation();
            self.observe(|observed| observed.operations -= 1);
            result
        };
        if self.locks {
            self.map_changing_lock.up_read();
        }
        result
    }

    /// A change begins whose event the monitor has not read yet (`userfaultfd_unmap_prep`).
    pub fn begin_change(&self) {
        if self.locks {
            self.map_changing_lock.down_write();
        }
        self.mmap_changing.fetch_add(1, Relaxed);
        self.observe(|observed| observed.changes += 1);
        if self.locks {
            self.map_changing_lock.up_write();
        }
    }

    /// The monitor has read of it (`userfaultfd_unmap_complete`).
    pub fn end_change(&self) {
        self.observe(|observed| observed.changes -= 1);
        self.mmap_changing.fetch_sub(1, Relaxed);
    }

    fn observe(&self, note: impl FnOnce(&mut Observed)) {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut observed);
        let is_kept = observed.changes == 0 || observed.operations == 0;
        assert!(is_kept, "a page operation goes on while mappings change");
    }
}
