//! Schedules: in a simulation, which thread goes on is chosen, not left to the system.
//!
//! A [`PageService`](super::PageService) may come with a [`Schedule`]; the real one does not. What serves
//! faults tells it each [`Step`] of the protocol in [`crate::page_state`], and waits for other threads
//! only by it, so that a schedule can have any thread run between any two steps, and a run depends on
//! nothing but the schedule's choices. No step is made while a lock is held.

/// A step of serving, after which another thread may be the next to run.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// A mutator is at a safepoint.
    Mutated,
    /// A marker marked some objects, or cleared a page of weak slots.
    Marked,
    /// A mutator is about to find out whether the object of a weak slot is dead, or has resurrected it and not
    /// shaded it yet.
    Upgrading,
    /// A window was registered.
    Registered,
    /// An access found its page missing; nobody knows yet.
    Faulted,
    /// A thread counted itself as inside, and has not looked yet whether service is active.
    Entered,
    /// A unit was claimed.
    Claimed,
    /// A unit's contents are in staging.
    Built,
    /// (Some more) pages are about to be installed.
    Installing,
    /// All pages of a unit are there; its state does not say so yet.
    Placed,
    /// A unit's state says `Installed`; its sources are still counted as read.
    Installed,
    /// A thread has waited for a unit long enough, and is about to be a guest.
    Overtaking,
    /// A guest counted itself, and has not looked yet whether the unit is still claimed.
    GuestCounted,
    /// A guest knows that the unit is claimed, and has not begun to build its page.
    GuestEntered,
    /// A window's sleepers were woken, and it is still registered.
    Unregistering,
    /// A window is not registered any more.
    Unregistered,
    /// Service is not active any more; threads may still be inside.
    Inactive,
}

/// Chooses which thread runs. One runs at a time.
pub trait Schedule: Send + Sync + std::fmt::Debug {
    /// The calling thread made a step: it goes on when it is chosen again.
    fn step(&self, step: Step);

    /// The calling thread can do nothing before another one has run.
    fn yield_now(&self);

    /// Returns when `done` is true. If the wait is `limited`, it may also give up, at any time. Whether it is
    /// done.
    fn wait(&self, limited: bool, done: &dyn Fn() -> bool) -> bool;

    /// Runs `work` on `count` threads and returns when all are done.
    fn run_workers(&self, count: usize, work: &(dyn Fn() + Sync));
}
