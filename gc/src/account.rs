//! The account of the heap's memory: how many pages the system has given for it, and what for.
//!
//! Changed where regions change hands and where units are installed, never where objects are allocated. Mutators
//! in signal handlers change it too: it is atomics only.
//!
//! Invariants:
//! 1. Each page in the heap's range that the system has given memory for is counted once, at its region or, for as
//!    long as it is there twice, as [`Holding::Copied`]. A region handed out to mutators, or as staging, counts
//!    whole, although its pages come when they are touched: the account is never too low by more than
//!    pages that lost a race between two installations.
//! 2. What a region holds changes by one thread at a time: whoever hands it out, takes it back, or installs its
//!    last unit.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use crate::geometry::{PAGE_BYTES, REGION_PAGES};
use crate::region::byte_enum;

byte_enum! {
    /// What memory is held for.
    Holding {
        /// Free regions, kept for reuse.
        Free = 0,
        /// Objects, live or not.
        Objects = 1,
        /// Evacuated regions that are still read.
        Evacuated = 2,
        /// Evacuated regions that nobody reads any more.
        Drained = 3,
        /// Installed pages of destinations that are not complete.
        Destination = 4,
        /// Reserved staging.
        Staging = 5,
        /// Pages that are in the alias and, copied, in the window.
        Copied = 6,
        /// Root slots.
        Roots = 7,
    }
}

/// How many kinds there are.
const HOLDINGS: usize = Holding::Roots as usize + 1;

/// Bytes by what they are held for.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HeldBytes {
    /// Free regions, kept for reuse.
    pub free: u64,
    /// Objects, live or not.
    pub objects: u64,
    /// Evacuated regions that are still read.
    pub evacuated: u64,
    /// Evacuated regions that nobody reads any more.
    pub drained: u64,
    /// Installed pages of destinations that are not complete.
    pub destinations: u64,
    /// Reserved staging.
    pub staging: u64,
    /// Pages that are there twice: in the alias and, copied, in the window.
    pub copied: u64,
    /// Root slots.
    pub roots: u64,
}

/// The account of a heap, in pages.
#[derive(Debug, Default)]
pub struct Account {
    held: [AtomicUsize; HOLDINGS],
    /// All but root slots: what the heap's limit is for.
    total: AtomicUsize,
    peak: AtomicUsize,
    cycle_peak: AtomicUsize,
    at_peak: [AtomicUsize; HOLDINGS],
}

impl Account {
    /// Memory came.
    pub fn add(&self, holding: Holding, pages: usize) {
        self.held[holding as usize].fetch_add(pages, Ordering::Relaxed);
        if holding == Holding::Roots || pages == 0 {
            return;
        }
        let total = self.total.fetch_add(pages, Ordering::Relaxed) + pages;
        self.cycle_peak.fetch_max(total, Ordering::Relaxed);
        if self.peak.fetch_max(total, Ordering::Relaxed) < total {
            for (at_peak, held) in self.at_peak.iter().zip(&self.held) {
                at_peak.store(held.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// Memory went.
    pub fn remove(&self, holding: Holding, pages: usize) {
        self.held[holding as usize].fetch_sub(pages, Ordering::Relaxed);
        if holding != Holding::Roots {
            self.total.fetch_sub(pages, Ordering::Relaxed);
        }
    }

    /// Memory is held for something else from now on. Not for root slots: their regions stay what they are.
    pub fn transfer(&self, from: Holding, to: Holding, pages: usize) {
        if from != to {
            self.held[to as usize].fetch_add(pages, Ordering::Relaxed);
            self.held[from as usize].fetch_sub(pages, Ordering::Relaxed);
        }
    }

    /// Pages held, root slots not counted.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Pages held for this.
    #[must_use]
    pub fn pages_for(&self, holding: Holding) -> usize {
        self.held[holding as usize].load(Ordering::Relaxed)
    }

    /// Regions that these pages would fill.
    #[must_use]
    pub fn regions(&self) -> usize {
        self.pages().div_ceil(REGION_PAGES)
    }

    /// Most pages held at any time, root slots not counted.
    #[must_use]
    pub fn peak_pages(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// Most pages held since the last [`Self::begin_cycle`], root slots not counted.
    #[must_use]
    pub fn cycle_peak_pages(&self) -> usize {
        self.cycle_peak.load(Ordering::Relaxed)
    }

    /// A cycle begins: its peak is what is held now.
    pub fn begin_cycle(&self) {
        self.cycle_peak.store(self.pages(), Ordering::Relaxed);
    }

    /// What is held now (each number is read once, not all at one instant).
    #[must_use]
    pub fn held(&self) -> HeldBytes {
        bytes(&self.held)
    }

    /// What was held when most was.
    #[must_use]
    pub fn at_peak(&self) -> HeldBytes {
        bytes(&self.at_peak)
    }
}

fn bytes(pages: &[AtomicUsize; HOLDINGS]) -> HeldBytes {
    let of = |holding: Holding| (pages[holding as usize].load(Ordering::Relaxed) * PAGE_BYTES) as u64;
    HeldBytes {
        free: of(Holding::Free),
        objects: of(Holding::Objects),
        evacuated: of(Holding::Evacuated),
        drained: of(Holding::Drained),
        destinations: of(Holding::Destination),
        staging: of(Holding::Staging),
        copied: of(Holding::Copied),
        roots: of(Holding::Roots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_tells_what_was_held_then() {
        let account = Account::default();
        account.add(Holding::Objects, 10);
        account.transfer(Holding::Objects, Holding::Evacuated, 4);
        account.add(Holding::Destination, 3);
        account.remove(Holding::Evacuated, 4);
        account.add(Holding::Roots, 100);
        account.add(Holding::Free, 1);
        assert_eq!((account.pages(), account.peak_pages(), account.cycle_peak_pages()), (10, 13, 13));
        let page = PAGE_BYTES as u64;
        let expected = HeldBytes {
            objects: 6 * page,
            evacuated: 4 * page,
            destinations: 3 * page,
            ..HeldBytes::default()
        };
        assert_eq!(account.at_peak(), expected);
        account.begin_cycle();
        assert_eq!((account.cycle_peak_pages(), account.peak_pages()), (10, 13));
    }

    #[test]
    fn a_holding_is_what_its_byte_says() {
        for byte in 0..HOLDINGS as u8 {
            assert_eq!(Holding::from_byte(byte) as u8, byte);
        }
    }
}
