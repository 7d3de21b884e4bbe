#![doc = include_str!("page_state.md")]

use std::sync::atomic::{AtomicU8, Ordering};

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
    // Acquire on success: pairs with the Release in `reset`, so that what was done to the unit in an
    // earlier cycle is over. Acquire on failure: pairs with the Release in `installed`.
    let result = unit.compare_exchange(
        UnitState::Unclaimed as u8,
        UnitState::Claimed as u8,
        Ordering::Acquire,
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
    // SeqCst: Release for those who see it (pairs with the Acquires above), and ordered before the
    // load of the number of waiters in `Serving::announce` (pairs with the SeqCst there).
    unit.store(UnitState::Installed as u8, Ordering::SeqCst);
}

/// Row `Installed → Unclaimed`: reclaim, when nobody serves.
#[inline]
pub fn reset(unit: &AtomicU8) {
    // Release: pairs with the Acquire in `claim` of the next cycle.
    unit.store(UnitState::Unclaimed as u8, Ordering::Release);
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
            let winners = std::sync::atomic::AtomicU32::new(0);
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
