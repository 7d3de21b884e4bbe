//! Which cycles are young.
//!
//! Run by the controller. A young cycle costs what the objects born since the last cycle cost that are still alive; a
//! full one what all live objects cost. But old objects that die are found by a full one only, and until then what
//! is left for young ones shrinks. So cycles are young until old objects have taken half of what the last full
//! cycle left free. And where young objects do not die sooner than others, young cycles are for nothing: after one
//! that freed little, the next are full, twice as many each time, until one is young again to see.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::Serialize;

use crate::options::HeapOptions;
use crate::plan::Pressure;
use crate::region::{Class, Use};
use crate::space::Space;

/// What a cycle looks at.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// Objects born since the last cycle; all others count as live.
    Young,
    /// All objects.
    #[default]
    Full,
}

/// What the choice between young and full cycles rests on.
#[derive(Debug, Default)]
pub struct Generations {
    /// Regions of old objects after the last full cycle.
    old_after_full: AtomicUsize,
    /// The remembered set is not complete: a flip was refused, and what was to be evacuated is young again.
    must_be_full: AtomicBool,
    /// The last cycle was young, and a mutator waited for memory.
    young_under_pressure: AtomicBool,
    /// Regions in use when the cycle began, and how many of them held young objects.
    used: AtomicUsize,
    young: AtomicUsize,
    /// Full cycles before the next young one; and how many there were to be the last time.
    full_cycles_due: AtomicUsize,
    backoff: AtomicUsize,
    /// Regions that mutators wanted during the last cycle of each extent.
    wanted: [AtomicUsize; 2],
    /// Of 1000 bytes of old objects, how many the last full marking did not find live any more.
    died: AtomicUsize,
}

/// A young cycle pays if it frees this share of what was young, at least.
const FREED_AT_LEAST: f64 = 0.3;
/// Most full cycles in a row before a young one is tried again.
const MOST_BACKOFF: usize = 8;
/// No more old objects than these (of 1000) are expected to have died, whatever the last marking found.
const MOST_DIED: usize = 750;

impl Generations {
    /// The extent of the cycle that begins now.
    pub fn choose(
        &self,
        options: &HeapOptions,
        space: &Space,
        wanted: Option<Extent>,
        pressure: Pressure,
    ) -> Extent {
        let in_vain = pressure != Pressure::Normal && self.young_under_pressure.load(Ordering::Relaxed);
        let full =
            !options.young_cycles || self.must_be_full.load(Ordering::Relaxed) || wanted.is_none() && in_vain;
        let extent = if full { Extent::Full } else { wanted.unwrap_or_else(|| self.next(space)) };
        self.must_be_full.store(false, Ordering::Relaxed);
        self.used.store(space.used(), Ordering::Relaxed);
        self.young.store(space.used().saturating_sub(old_regions(space)), Ordering::Relaxed);
        let under_pressure = extent == Extent::Young && pressure != Pressure::Normal;
        self.young_under_pressure.store(under_pressure, Ordering::Relaxed);
        extent
    }

    /// What the next cycle should be.
    fn next(&self, space: &Space) -> Extent {
        if self.full_cycles_due.load(Ordering::Relaxed) > 0 {
            return Extent::Full;
        }
        let after_full = self.old_after_full.load(Ordering::Relaxed);
        let grown = old_regions(space).saturating_sub(after_full);
        let left = space.limit().saturating_sub(after_full);
        if grown * 2 > left { Extent::Full } else { Extent::Young }
    }

    /// Whether a young cycle paid.
    fn judge(&self, freed: f64, young: f64) {
        let backoff = match self.backoff.load(Ordering::Relaxed) {
            _ if freed >= FREED_AT_LEAST * young => 0,
            before => (2 * before).clamp(1, MOST_BACKOFF),
        };
        self.backoff.store(backoff, Ordering::Relaxed);
        self.full_cycles_due.store(backoff, Ordering::Relaxed);
    }

    /// The share of old objects that is likely to be alive when the next full marking comes: what it was the last time.
    /// What is going to be sparse has to be known *before* marking finds it, for slots to be recorded.
    pub fn survival(&self) -> f64 {
        1.0 - self.died.load(Ordering::Relaxed) as f64 / 1000.0
    }

    /// Marking is over: how many old objects survived.
    pub fn marked(&self, space: &Space, extent: Extent) {
        if extent == Extent::Young {
            return;
        }
        let (mut before, mut now) = (0, 0);
        for region in space.regions.in_use().filter(|&region| space.regions.usage(region) == Use::Objects) {
            let record = space.regions.record(region);
            let was_live = record.was_live.load(Ordering::Relaxed);
            before += u64::from(was_live);
            now += u64::from(record.live_bytes.load(Ordering::Relaxed).min(was_live));
        }
        let died = ((before - now) * 1000).checked_div(before).unwrap_or(0) as usize;
        self.died.store(died.min(MOST_DIED), Ordering::Relaxed);
    }

    /// The next cycle has to be full.
    pub fn demand_full(&self) {
        self.must_be_full.store(true, Ordering::Relaxed);
    }

    /// A cycle is over, during which so many regions were allocated, and so many would have been had nobody waited.
    /// Returns how many to expect during the next.
    pub fn ended(
        &self,
        options: &HeapOptions,
        space: &Space,
        extent: Extent,
        allocated: usize,
        wanted: usize,
    ) -> usize {
        match extent {
            Extent::Full => {
                self.old_after_full.store(old_regions(space), Ordering::Relaxed);
                let due = self.full_cycles_due.load(Ordering::Relaxed);
                self.full_cycles_due.store(due.saturating_sub(1), Ordering::Relaxed);
            }
            Extent::Young => {
                let freed = (self.used.load(Ordering::Relaxed) + allocated).saturating_sub(space.used());
                self.judge(freed as f64, self.young.load(Ordering::Relaxed) as f64);
            }
        }
        self.wanted[extent as usize].store(wanted, Ordering::Relaxed);
        let wanted = |extent: Extent| self.wanted[extent as usize].load(Ordering::Relaxed);
        match if options.young_cycles { self.next(space) } else { Extent::Full } {
            Extent::Full => wanted(Extent::Full),
            // One that may be for nothing has to leave room for the full one that follows.
            Extent::Young if self.backoff.load(Ordering::Relaxed) > 0 => {
                wanted(Extent::Young) + wanted(Extent::Full)
            }
            Extent::Young => wanted(Extent::Young),
        }
    }
}

/// Regions of old objects.
fn old_regions(space: &Space) -> usize {
    let regions = &space.regions;
    let is_old =
        |&region: &_| regions.usage(region).counts_as_used() && regions.class(region) == Class::Settled;
    regions.in_use().filter(is_old).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn young_cycles_that_free_little_are_tried_less_often() {
        let generations = Generations::default();
        let due = || generations.full_cycles_due.load(Ordering::Relaxed);
        for expected in [1, 2, 4, 8, 8] {
            generations.judge(29.0, 100.0);
            assert_eq!(due(), expected);
        }
        generations.judge(30.0, 100.0);
        assert_eq!(due(), 0);
        generations.judge(0.0, 100.0);
        assert_eq!(due(), 1, "begins anew");
    }
}
