//! Atomics, cells, locks and queues of the protocols that are model-checked: those of `std` and
//! crossbeam, or `loom`'s under `--cfg loom`.
//!
//! Used by modules whose protocols have a model (`models`, and `safepoint` of the runtime). Other
//! modules use `std` directly. With `--cfg loom` the crates compile, but only models run: heap memory
//! holds no atomics of loom's. An ordinary build sees re-exports and inlined calls only.

use std::time::Duration;

#[cfg(not(loom))]
mod real;
#[cfg(not(loom))]
pub use real::*;

#[cfg(loom)]
mod checked;
#[cfg(loom)]
pub mod model;
#[cfg(loom)]
pub mod weaken;
#[cfg(loom)]
pub use checked::*;

/// How often to look at something before sleeping on it: not at all in a model, where it is but one more schedule.
#[must_use]
#[inline]
pub const fn spins(times: u32) -> u32 {
    if cfg!(loom) { 0 } else { times }
}

/// Waiting with a limit. In a model no time passes: a limit of [`Duration::MAX`] is never over, and any
/// other always is, for that is the case to be checked.
#[derive(Copy, Clone, Debug)]
pub struct Limit {
    limit: Duration,
    #[cfg(not(loom))]
    start: std::time::Instant,
}

impl Limit {
    /// Begins now.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            #[cfg(not(loom))]
            start: std::time::Instant::now(),
        }
    }

    /// Whether more than the limit has passed.
    #[must_use]
    pub fn is_over(self) -> bool {
        #[cfg(not(loom))]
        let over = self.start.elapsed() > self.limit;
        #[cfg(loom)]
        let over = self.limit != Duration::MAX;
        over
    }
}
