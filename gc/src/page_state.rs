#![doc = include_str!("page_state.md")]

use std::sync::Arc;
use std::time::Duration;

use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence};
use crate::sync::{Futex, Limit, hint, spins, thread};
use crate::sys::PageService;
use crate::sys::schedule::{Schedule, Step};

/// How often a unit's state is looked at before sleeping.
const SPINS: u32 = 200;
/// Longest sleep before looking again.
const SLEEP: Duration = Duration::from_micros(500);

/// State of a unit of claim.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum UnitState {
    /// Nobody is at it.
    Unclaimed = 0,
    /// One thread builds and installs it.
    Claimed = 1,
    /// All its pages are there.
    Installed = 2,
}

/// What came of an attempt to claim a unit.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Claim {
    /// The caller claimed it, and must install it.
    Mine,
    /// Another thread is at it.
    Others,
    /// It is installed already.
    Installed,
}

/// The state of a unit.
#[inline]
pub fn state(unit: &AtomicU8) -> UnitState {
    // Acquire: pairs with the Release in `installed`.
    match unit.load(Ordering::Acquire) {
        0 => UnitState::Unclaimed,
        1 => UnitState::Claimed,
        2 => UnitState::Installed,
        other => unreachable!("unit state {other}"),
    }
}

/// Row `Unclaimed → Claimed` of the table.
#[inline]
pub fn claim(unit: &AtomicU8) -> Claim {
    // Relaxed on success: what was done to the unit in an earlier cycle was over before service began. Acquire
    // on failure: pairs with the Release in `installed`.
    let result = unit.compare_exchange(
        UnitState::Unclaimed as u8,
        UnitState::Claimed as u8,
        Ordering::Relaxed,
        Ordering::Acquire,
    );
    match result {
        Ok(_) => Claim::Mine,
        Err(1) => Claim::Others,
        Err(2) => Claim::Installed,
        Err(other) => unreachable!("unit state {other}"),
    }
}

/// Row `Claimed → Installed`. Only by the thread that claimed it, after its pages are there.
#[inline]
pub fn installed(unit: &AtomicU8) {
    debug_assert_eq!(unit.load(Ordering::Relaxed), UnitState::Claimed as u8);
    // Release: pairs with the Acquires above.
    unit.store(UnitState::Installed as u8, Ordering::Release);
}

/// Row `Installed → Unclaimed`: reclaim, when nobody serves.
#[inline]
pub fn reset(unit: &AtomicU8) {
    // Relaxed: whoever serves in the next cycle comes after `ServingState::begin`.
    unit.store(UnitState::Unclaimed as u8, Ordering::Relaxed);
}

/// One reader of a source is done with it. True if it was the last: nobody reads the source any more.
#[inline]
pub fn done_reading(readers: &AtomicU32) -> bool {
    // AcqRel: pairs with itself; what all others read, they have read.
    readers.fetch_sub(1, Ordering::AcqRel) == 1
}

/// What those share who serve: who is there, what is missing, who waits.
#[derive(Debug, Default)]
pub struct ServingState {
    active: AtomicBool,
    /// What is missing was said: the flip is over, or about to be.
    flipped: AtomicBool,
    inside: AtomicU32,
    /// Units not installed yet.
    outstanding: AtomicUsize,
    waiters: AtomicU32,
    /// Threads that build a page of a unit claimed by another.
    guests: AtomicU32,
    /// Changes when a unit is installed while somebody waits.
    installs: Futex,
    /// For their schedule, if they are simulated.
    pages: Option<Arc<dyn PageService>>,
}

impl ServingState {
    /// Inactive.
    #[must_use]
    pub fn new(pages: Option<Arc<dyn PageService>>) -> Self {
        Self { pages, ..Self::default() }
    }

    /// In a simulation: which thread goes on.
    pub(crate) fn schedule(&self) -> Option<&dyn Schedule> {
        self.pages.as_deref()?.schedule()
    }

    /// A step of the protocol, where a simulation may let another thread run.
    pub(crate) fn step(&self, step: Step) {
        if let Some(schedule) = self.schedule() {
            schedule.step(step);
        }
    }

    /// Lets other threads run: this one waits for them.
    pub(crate) fn yield_now(&self) {
        match self.schedule() {
            Some(schedule) => schedule.yield_now(),
            None => thread::yield_now(),
        }
    }

    /// Begins service. What `publish` writes is seen by whoever enters.
    ///
    /// # Panics
    /// If it is active.
    pub fn begin(&self, publish: impl FnOnce()) {
        assert!(!self.active.load(Ordering::Relaxed), "service begins once a cycle");
        publish();
        self.outstanding.store(0, Ordering::Relaxed);
        self.flipped.store(false, Ordering::Relaxed);
        // Release: pairs with the Acquire in `serve_fault`.
        self.active.store(true, Ordering::Release);
    }

    /// Says how many units are missing. In the pause: no mutator can fault.
    pub fn set_missing(&self, units: usize) {
        self.outstanding.store(units, Ordering::Relaxed);
        // Release: pairs with the Acquire in `is_flipped`: whoever serves units comes after the flip.
        self.flipped.store(true, Ordering::Release);
    }

    /// Whether units may be claimed. Before, nobody has an address in a destination, but a fault event
    /// of the last cycle may come so late that the region is one by now.
    #[must_use]
    pub fn is_flipped(&self) -> bool {
        // Acquire: pairs with the Release in `set_missing`.
        self.flipped.load(Ordering::Acquire)
    }

    /// Ends service: returns when no thread is inside, and none will be.
    pub fn end(&self) {
        self.active.store(false, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `serve_fault`: either that thread sees that service is inactive, or
        // it is seen here.
        fence(Ordering::SeqCst);
        self.step(Step::Inactive);
        // Acquire: pairs with the Release in `Counted`.
        while self.inside.load(Ordering::Acquire) != 0 {
            self.yield_now();
        }
    }

    /// Runs `serve`, counted as inside, if service is active; else `late`.
    pub fn serve_fault<R>(&self, serve: impl FnOnce() -> R, late: impl FnOnce()) -> Option<R> {
        self.inside.fetch_add(1, Ordering::Relaxed);
        let inside = Counted(&self.inside);
        self.step(Step::Entered);
        // SeqCst: between the count of those inside and the look at `active`; pairs with the fence in `end`.
        fence(Ordering::SeqCst);
        // Acquire: pairs with the Release in `begin`.
        if self.active.load(Ordering::Acquire) {
            return Some(serve());
        }
        drop(inside);
        late();
        None
    }

    /// Whether every unit is installed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        // Acquire: pairs with the AcqRel in `announce`.
        self.outstanding.load(Ordering::Acquire) == 0
    }

    /// Units not installed yet: a hint.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Serves a unit, if nobody else has claimed it: `install` builds it and makes its pages be there;
    /// `release` lets go of what it was built from, if anything. Both are run by this thread only.
    pub fn serve<S>(
        &self,
        unit: &AtomicU8,
        install: impl FnOnce() -> Option<S>,
        release: impl FnOnce(Option<S>),
    ) -> Claim {
        let claim = claim(unit);
        if claim != Claim::Mine {
            return claim;
        }
        self.step(Step::Claimed);
        let sources = install();
        self.step(Step::Placed);
        installed(unit);
        self.step(Step::Installed);
        // SeqCst: after the store of `Installed`, before the looks at guests and waiters; pairs with the
        // fences in `visit` and `wait`: either they see `Installed`, or they are seen here.
        fence(Ordering::SeqCst);
        if sources.is_some() {
            self.wait_for_guests();
        }
        release(sources);
        self.announce();
        Claim::Mine
    }

    /// Tells waiters that a unit is installed.
    fn announce(&self) {
        // AcqRel: pairs with the Acquire in `is_complete`, and with itself, so that whoever sees 0 sees
        // what every unit's thread did.
        let last = self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            // SeqCst: between the count and the look at waiters; pairs with the fence in `wait`.
            fence(Ordering::SeqCst);
        }
        if self.waiters.load(Ordering::Relaxed) > 0 {
            // Relaxed: a fence comes before it, here or in `serve`, and makes it pair with the Acquire in `wait`.
            self.installs.fetch_add(1, Ordering::Relaxed);
            self.installs.wake_all();
        }
    }

    /// Waits until `done`, for about `limit` at most, looking again whenever a unit is installed.
    /// Whether it is done.
    pub fn wait(&self, limit: Duration, done: impl Fn() -> bool) -> bool {
        if let Some(schedule) = self.schedule() {
            return schedule.wait(limit < Duration::MAX, &done);
        }
        for _ in 0..spins(SPINS) {
            if done() {
                return true;
            }
            hint::spin_loop();
        }
        let limit = Limit::new(limit);
        self.waiters.fetch_add(1, Ordering::Relaxed);
        // SeqCst: between the count of waiters and the looks at what is waited for; pairs with the fences
        // in `serve` and `announce`.
        fence(Ordering::SeqCst);
        loop {
            // Acquire: pairs with the fence before `announce` changes it: who sees the new number sees what
            // was installed, and does not sleep on it.
            let seen = self.installs.load(Ordering::Acquire);
            if done() || limit.is_over() {
                break;
            }
            self.installs.wait(seen, Some(SLEEP));
        }
        // Late, it costs one wake too many.
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        done()
    }

    /// Runs `read` as a guest of the unit, if it is claimed and not installed yet: until it is over,
    /// nobody lets go of what the unit is built from.
    pub fn visit<R>(&self, unit: &AtomicU8, read: impl FnOnce() -> R) -> Option<R> {
        self.guests.fetch_add(1, Ordering::Relaxed);
        let _guest = Counted(&self.guests);
        self.step(Step::GuestCounted);
        // SeqCst: between the count of guests and the look at the unit; pairs with the fence in `serve`.
        fence(Ordering::SeqCst);
        if unit.load(Ordering::Relaxed) != UnitState::Claimed as u8 {
            return None;
        }
        self.step(Step::GuestEntered);
        Some(read())
    }

    /// Waits until no guest can be reading what the unit was built from. Almost always there is none.
    fn wait_for_guests(&self) {
        // Acquire: pairs with the Release in `Counted`.
        while self.guests.load(Ordering::Acquire) > 0 {
            self.yield_now();
        }
    }
}

/// A thread that is counted.
struct Counted<'a>(&'a AtomicU32);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire of who waits until nobody is there: what the thread did is over.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_claimed_once() {
        let unit = AtomicU8::new(0);
        assert_eq!(claim(&unit), Claim::Mine);
        assert_eq!(claim(&unit), Claim::Others);
        installed(&unit);
        assert_eq!(claim(&unit), Claim::Installed);
        reset(&unit);
        assert_eq!(claim(&unit), Claim::Mine);
    }

    #[test]
    fn of_many_threads_one_claims() {
        for _ in 0..200 {
            let unit = AtomicU8::new(0);
            let winners = AtomicU32::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        if claim(&unit) == Claim::Mine {
                            winners.fetch_add(1, Ordering::Relaxed);
                            installed(&unit);
                        }
                    });
                }
            });
            assert_eq!(winners.into_inner(), 1);
            assert_eq!(state(&unit), UnitState::Installed);
        }
    }
}
