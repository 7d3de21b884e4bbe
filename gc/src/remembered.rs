//! The remembered set: slots of old objects that may refer to young ones. A *young cycle* marks from these
//! slots and from the roots alone, and looks at nothing else that is old.
//!
//! Young are objects in regions filled since the last cycle began; all others are old. Filled by mutators: a store
//! of a reference to a young object into an old one is recorded (a slot each; a region of which too many are
//! recorded overflows, and is walked instead). Emptied by the controller when a cycle starts.
//!
//! A young cycle takes old objects for live, all of them. So what an old object refers to is live as well: its slots
//! never dangle, whether it is reachable or not, until a full cycle finds it dead.
//!
//! Invariants:
//! 1. Between two cycles, a slot of an old object that refers to a young one is in the set, in a mutator's buffer,
//!    or in a region that overflowed.
//! 2. A buffer that was handed over holds no slot whose store is still to come ([`crate::barrier::Records`]), so that
//!    reading the slot tells whether it still matters.
//! 3. When a cycle starts, the set is emptied after the handshake that has all barriers mark, and before the first
//!    fresh object: in between no store is recorded here, so that none is missed, and each is for one cycle.
//!
//! Sources: the sequential store buffer with a fallback to coarser marking (Jones, Hosking and Moss, *The Garbage
//! Collection Handbook*, chapter 11); promotion of all survivors at once, as ART's generational mode does after
//! one further cycle.

use std::sync::{Mutex, PoisonError};

use crate::address::{RegionIndex, ToAddress, WordIndex};
use crate::barrier::Recorded;
use crate::core::Core;
use crate::extent::Extent;
use crate::forward::forward_word;
use crate::geometry::REGION_CHUNKS;
use crate::region::{Class, RegionRecord, Verdict};
use crate::space::Space;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Slots that wait for the next cycle.
#[derive(Debug, Default)]
pub struct RememberedSet(Mutex<Vec<WordIndex>>);

/// Where a young cycle begins to mark, besides the roots.
#[derive(Debug, Default)]
pub struct OldToYoung {
    /// Slots, sorted.
    pub slots: Vec<WordIndex>,
    /// Regions that overflowed.
    pub regions: Vec<RegionIndex>,
}

/// Whether a store is recorded between two cycles, by the ages of the regions that the slot lies in and the value
/// points into ([`Class`] as a number): the holder is old, the value young.
///
/// While compaction goes on, candidates that stay count as old. Until all barriers mark, those of a cycle that
/// starts count as young for objects that it does not look at.
#[inline]
#[must_use]
pub const fn is_remembered(holder: u8, value: u8) -> bool {
    is_old(holder) && value < holder && value <= Class::Candidate as u8
}

/// Whether objects in a region of this age may be old.
#[inline]
#[must_use]
pub const fn is_old(age: u8) -> bool {
    age >= Class::Candidate as u8
}

/// Whether a slot of this region is to be recorded. If there are `most` already, the region overflows instead.
#[must_use]
pub fn has_room(record: &RegionRecord, most: u32) -> bool {
    // Counts may lose updates to a race; they steer costs, not correctness.
    let remembered = record.remembered.load(Ordering::Relaxed);
    if remembered >= most {
        // Relaxed: the controller looks after the next handshake or pause.
        record.remembered_overflowed.store(true, Ordering::Relaxed);
        return false;
    }
    record.remembered.store(remembered + 1, Ordering::Relaxed);
    true
}

impl RememberedSet {
    /// Empties the set when a cycle starts, and says where a young one marks from. Run when all barriers mark, all
    /// buffers were handed over, and no fresh object exists yet: until then nobody records anything (invariant 3).
    pub fn begin(&self, core: &Core, extent: Extent) -> OldToYoung {
        let regions = &core.space.regions;
        let mut found = OldToYoung::default();
        found.slots.append(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        drain(core, &mut found.slots);
        for region in regions.in_use() {
            let record = regions.record(region);
            record.remembered.store(0, Ordering::Relaxed);
            let overflowed = record.remembered_overflowed.swap(false, Ordering::Relaxed);
            if overflowed && regions.class(region) == Class::Settled {
                found.regions.push(region);
            }
        }
        if extent == Extent::Full {
            // Marking will see all slots.
            return OldToYoung::default();
        }
        found.slots.sort_unstable();
        found.slots.dedup();
        found.slots.retain(|&slot| class_of_value(&core.space, slot) == Some(Class::Candidate));
        found
    }

    /// After the plan, before dead regions are used again: their slots are forgotten.
    pub fn forget_dead(&self, core: &Core) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drain(core, &mut slots);
        slots.retain(|slot| core.space.regions.verdict(slot.region()) != Verdict::Free);
    }

    /// At the end of a cycle, while forwarding is still possible: slots of objects that were evacuated are where
    /// these are now. If not all slots of an evacuated region were recorded, its destinations are walked.
    pub fn forward(&self, core: &Core, evacuated: &[RegionIndex], destinations: &[RegionIndex]) {
        let space = &core.space;
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drain(core, &mut slots);
        slots.retain_mut(|slot| match space.regions.verdict(slot.region()) {
            Verdict::Evacuate => forward_slot(space, *slot).map(|new| *slot = new).is_some(),
            _ => true,
        });
        let overflowed = |&region: &RegionIndex| {
            space.regions.record(region).remembered_overflowed.swap(false, Ordering::Relaxed)
        };
        if evacuated.iter().filter(|region| overflowed(region)).count() > 0 {
            for &region in destinations {
                space.regions.record(region).remembered_overflowed.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Empties the buffers that were handed over.
fn drain(core: &Core, slots: &mut Vec<WordIndex>) {
    while let Some(buffer) = core.barrier.take(Recorded::Remembered) {
        core.stats.counters.remembered_slots.fetch_add(buffer.entries().len() as u64, Ordering::Relaxed);
        slots.extend_from_slice(buffer.entries());
        core.barrier.give_back(buffer);
    }
}

/// Class of the region that the slot's value points into, if it holds a reference.
fn class_of_value(space: &Space, slot: WordIndex) -> Option<Class> {
    // SAFETY: the slot lies in a region in use (dead regions' slots are forgotten before they are freed, evacuated
    // ones' forwarded), and no page is missing when this is called.
    let cell = unsafe { &*space.range.address(slot).as_ptr::<AtomicU64>() };
    // Acquire: pairs with the Release in `MutatorContext::store`.
    let value = cell.load(Ordering::Acquire);
    (value != 0).then(|| space.regions.class(space.range.region(ToAddress::new(value as usize))))
}

/// Where a slot of an evacuated object is now. `None`: the object did not survive.
fn forward_slot(space: &Space, slot: WordIndex) -> Option<WordIndex> {
    let mut chunk = slot.chunk();
    if space.live.chunk(chunk).live() & (1 << slot.bit()) == 0 {
        return None;
    }
    let mut before = u64::MAX >> (63 - slot.bit());
    loop {
        let starts = space.live.chunk(chunk).starts() & before;
        if starts != 0 {
            let start = chunk.first_word().offset(63 - starts.leading_zeros());
            return Some(forward_word(space, start).offset(slot.0 - start.0));
        }
        assert!(
            !chunk.index().is_multiple_of(REGION_CHUNKS),
            "a live word of region {} has no object",
            slot.region().0
        );
        chunk = crate::address::ChunkIndex(chunk.0 - 1);
        before = u64::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_young_into_old_are_remembered() {
        let remembered = |holder: Class, value: Class| is_remembered(holder as u8, value as u8);
        let young = [Class::New, Class::Fresh];
        let old = [Class::Candidate, Class::Traced, Class::Settled];
        for value in young {
            assert!(old.into_iter().all(|holder| remembered(holder, value)), "{value:?}");
            assert!(young.into_iter().all(|holder| !remembered(holder, value)), "{value:?}");
        }
        assert!(remembered(Class::Settled, Class::Candidate), "a cycle starts");
        assert!(!remembered(Class::Candidate, Class::Candidate), "both stay");
        for value in [Class::Traced, Class::Settled] {
            assert!(old.into_iter().chain(young).all(|holder| !remembered(holder, value)), "{value:?}");
        }
    }
}
