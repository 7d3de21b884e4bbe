//! Names mutators that keep everybody waiting.
//!
//! Run by the controller, when a handshake or stop has waited for as long as
//! [`HeapOptions::watchdog_ms`](crate::HeapOptions::watchdog_ms) says, once for each.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

/// A mutator that has not reached a safepoint in time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LateMutator {
    /// Its thread.
    pub thread: ThreadId,
    /// The thread's name, if it has one.
    pub name: Option<String>,
    /// For how long the collector has waited for it.
    pub waited: Duration,
}

impl fmt::Display for LateMutator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("unnamed");
        write!(f, "mutator '{name}' ({:?}) has not reached a safepoint for {:?}", self.thread, self.waited)
    }
}

type Callback = Arc<dyn Fn(&LateMutator) + Send + Sync>;

/// How long to wait, and whom to tell.
pub(crate) struct Watchdog {
    period: Duration,
    callback: Mutex<Callback>,
}

impl Watchdog {
    /// A watchdog that writes a line to standard error. A period of zero is none at all.
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, callback: Mutex::new(Arc::new(|late| eprintln!("strikeslip: {late}"))) }
    }

    pub(crate) fn period(&self) -> Option<Duration> {
        (!self.period.is_zero()).then_some(self.period)
    }

    pub(crate) fn set(&self, callback: Callback) {
        *self.callback.lock().unwrap_or_else(PoisonError::into_inner) = callback;
    }

    pub(crate) fn report(&self, late: &LateMutator) {
        // Not called with the lock: the callback may be what sets another one.
        let callback = Arc::clone(&self.callback.lock().unwrap_or_else(PoisonError::into_inner));
        callback(late);
    }
}
