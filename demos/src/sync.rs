//! Locks that mutators may wait for without delaying a safepoint.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use strikeslip::Mutator;

/// Takes `mutex`. A mutator that has to wait does so in a blocked state: the collector does not wait
/// for it, whatever the holder is doing (the holder itself may stop at a safepoint).
pub fn lock<'a, T>(m: &mut Mutator, mutex: &'a Mutex<T>) -> MutexGuard<'a, T> {
    match mutex.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => m.blocked(|| mutex.lock().unwrap_or_else(PoisonError::into_inner)),
    }
}
