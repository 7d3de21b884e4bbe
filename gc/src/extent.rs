//! Which cycles are young.
//!
//! Run by the controller. A young cycle costs what the objects born since the last cycle cost that are still alive; a
//! full one what all live objects cost. But old objects that die are found by a full one only, and until then what
//! is left for young ones shrinks. So cycles are young until old objects have taken half of what the last full
//! cycle left free.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::Serialize;

use crate::options::HeapOptions;
use crate::plan::Pressure;
use crate::region::Class;
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
    /// Regions allocated during the last cycle of each extent.
    allocated: [AtomicUsize; 2],
}

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
        let under_pressure = extent == Extent::Young && pressure != Pressure::Normal;
        self.young_under_pressure.store(under_pressure, Ordering::Relaxed);
        extent
    }

    /// What the next cycle should be.
    fn next(&self, space: &Space) -> Extent {
        let after_full = self.old_after_full.load(Ordering::Relaxed);
        let grown = old_regions(space).saturating_sub(after_full);
        let left = space.limit().saturating_sub(after_full);
        if grown * 2 > left { Extent::Full } else { Extent::Young }
    }

    /// The next cycle has to be full.
    pub fn demand_full(&self) {
        self.must_be_full.store(true, Ordering::Relaxed);
    }

    /// A cycle is over, during which so many regions were allocated. Returns how many to expect during the next.
    pub fn ended(&self, options: &HeapOptions, space: &Space, extent: Extent, allocated: usize) -> usize {
        if extent == Extent::Full {
            self.old_after_full.store(old_regions(space), Ordering::Relaxed);
        }
        self.allocated[extent as usize].store(allocated, Ordering::Relaxed);
        let next = if options.young_cycles { self.next(space) } else { Extent::Full };
        self.allocated[next as usize].load(Ordering::Relaxed)
    }
}

/// Regions of old objects.
fn old_regions(space: &Space) -> usize {
    let regions = &space.regions;
    let is_old =
        |&region: &_| regions.usage(region).counts_as_used() && regions.class(region) == Class::Settled;
    regions.in_use().filter(is_old).count()
}
