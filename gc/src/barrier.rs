//! The write barrier's other half: what it records, and where that goes.
//!
//! Mutators fill small buffers of their own; a full one is exchanged for an empty one here, without
//! a lock, and the collector empties them. Entries are compact word indices.
//!
//! Three kinds of entries: *shades* (objects to be marked), *slots* (places that hold, or held, a
//! reference into a candidate region, to be rewritten at the flip) and *remembered* slots (of old objects
//! that refer to young ones, see [`crate::remembered`]). A region of which too many slots are recorded
//! overflows: no more are recorded, and the plan scans it instead.

use crate::address::{RegionIndex, ToAddress, WordIndex};
use crate::livemap::LiveMap;
use crate::region::{Class, Regions, byte_enum};
use crate::space::Space;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{SegQueue, UnsafeCell};

/// Entries of a buffer.
pub const BUFFER_ENTRIES: usize = if cfg!(loom) { 2 } else { 512 };
/// Most slots that are recorded for one region. Beyond about this many, walking the region's
/// objects is cheaper than a list, and the list would be as large as the live map.
pub const REGION_SLOTS_MAX: u32 = 2048;

byte_enum! {
    /// What a store does besides storing.
    Barrier {
        /// Nothing.
        Off = 0,
        /// Between two cycles: slots of old objects that get a reference to a young one are recorded.
        Remember = 1,
        /// While marking: the old and the new value are shaded, slots recorded.
        Mark = 2,
    }
}

/// A buffer of word indices.
#[derive(Debug)]
pub struct Buffer {
    entries: [WordIndex; BUFFER_ENTRIES],
    length: usize,
}

impl Buffer {
    fn new() -> Box<Self> {
        Box::new(Self { entries: [WordIndex(0); BUFFER_ENTRIES], length: 0 })
    }

    /// Whether there is no room for another entry.
    #[inline]
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.length == BUFFER_ENTRIES
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// If the buffer is full.
    #[inline]
    pub fn push(&mut self, entry: WordIndex) {
        self.entries[self.length] = entry;
        self.length += 1;
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &[WordIndex] {
        &self.entries[..self.length]
    }

    /// Forgets the entries.
    pub fn clear(&mut self) {
        self.length = 0;
    }
}

/// A mutator's buffers. Used by one party at a time, as its context (see [`crate::context`]).
#[derive(Debug)]
pub struct Records {
    shades: UnsafeCell<Box<Buffer>>,
    slots: UnsafeCell<Box<Buffer>>,
    remembered: UnsafeCell<Box<Buffer>>,
}

impl Records {
    /// Empty buffers.
    #[must_use]
    pub fn new(queues: &BarrierQueues) -> Self {
        let buffer = || UnsafeCell::new(queues.empty());
        Self { shades: buffer(), slots: buffer(), remembered: buffer() }
    }

    const fn buffer(&self, kind: Recorded) -> &UnsafeCell<Box<Buffer>> {
        match kind {
            Recorded::Shades => &self.shades,
            Recorded::Slots => &self.slots,
            Recorded::Remembered => &self.remembered,
        }
    }

    /// Adds an entry, before its store. A full buffer is handed over by the next entry only: when the collector gets
    /// it, all its stores have been made, and the slots can be read.
    ///
    /// # Safety
    /// The caller owns the mutator's context.
    pub unsafe fn push(&self, queues: &BarrierQueues, kind: Recorded, entry: WordIndex) {
        // SAFETY: the caller owns the context, and no reference into the cell outlives the closure.
        self.buffer(kind).with_mut(|buffer| unsafe {
            if (*buffer).is_full() {
                queues.hand_over(kind, &mut *buffer);
            }
            (*buffer).push(entry);
        });
    }

    /// Hands all entries over.
    ///
    /// # Safety
    /// The caller owns the mutator's context.
    pub unsafe fn hand_over(&self, queues: &BarrierQueues) {
        for kind in [Recorded::Shades, Recorded::Slots, Recorded::Remembered] {
            let buffer = self.buffer(kind);
            // SAFETY: as in `push`.
            buffer.with_mut(|buffer| unsafe { queues.hand_over(kind, &mut *buffer) });
        }
    }
}

/// What a store into a slot shades while marking: the value that is there, and the new one.
#[inline]
pub fn shade_both(slot: &AtomicU64, new: Option<ToAddress>, mut shade: impl FnMut(ToAddress)) {
    let old = slot.load(Ordering::Relaxed);
    if old != 0 {
        shade(ToAddress::new(old as usize));
    }
    if let Some(new) = new {
        shade(new);
    }
}

/// Whether a shaded object has to be recorded: it is neither marked nor born marked, and the cycle looks at it.
#[inline]
#[must_use]
pub fn is_white(regions: &Regions, live: &LiveMap, object: WordIndex) -> bool {
    !matches!(regions.class(object.region()), Class::Fresh | Class::Settled) && !live.is_marked(object)
}

/// Exchange of buffers between mutators and the collector.
#[derive(Debug)]
pub struct BarrierQueues {
    /// Most slots that are recorded for one region.
    slots_max: u32,
    shades: SegQueue<Box<Buffer>>,
    slots: SegQueue<Box<Buffer>>,
    remembered: SegQueue<Box<Buffer>>,
    empty: SegQueue<Box<Buffer>>,
    overflowed: SegQueue<RegionIndex>,
}

/// What a buffer holds.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// Objects to be marked.
    Shades,
    /// Slots to be rewritten at the flip.
    Slots,
    /// Slots of old objects that refer to young ones.
    Remembered,
}

impl Default for BarrierQueues {
    fn default() -> Self {
        Self::new(false)
    }
}

impl BarrierQueues {
    /// Empty queues. If lists of slots `overflow`, no slot is recorded.
    #[must_use]
    pub fn new(overflow: bool) -> Self {
        Self {
            slots_max: if overflow { 0 } else { REGION_SLOTS_MAX },
            shades: SegQueue::default(),
            slots: SegQueue::default(),
            remembered: SegQueue::default(),
            empty: SegQueue::default(),
            overflowed: SegQueue::default(),
        }
    }

    /// Most slots that are recorded for one region.
    #[must_use]
    pub const fn slots_max(&self) -> u32 {
        self.slots_max
    }

    const fn queue(&self, kind: Recorded) -> &SegQueue<Box<Buffer>> {
        match kind {
            Recorded::Shades => &self.shades,
            Recorded::Slots => &self.slots,
            Recorded::Remembered => &self.remembered,
        }
    }

    /// An empty buffer. Allocates only while more are in use than ever before.
    #[must_use]
    pub fn empty(&self) -> Box<Buffer> {
        self.empty.pop().unwrap_or_else(Buffer::new)
    }

    /// Hands over a buffer's entries and leaves an empty buffer in its place.
    pub fn hand_over(&self, kind: Recorded, buffer: &mut Box<Buffer>) {
        if buffer.length > 0 {
            let full = std::mem::replace(buffer, self.empty());
            self.queue(kind).push(full);
        }
    }

    /// Takes a buffer that was handed over. Give it back with [`Self::give_back`].
    #[must_use]
    pub fn take(&self, kind: Recorded) -> Option<Box<Buffer>> {
        self.queue(kind).pop()
    }

    /// Whether nothing of this kind waits.
    #[must_use]
    pub fn is_empty(&self, kind: Recorded) -> bool {
        self.queue(kind).is_empty()
    }

    /// Returns a buffer for reuse.
    pub fn give_back(&self, mut buffer: Box<Buffer>) {
        buffer.clear();
        self.empty.push(buffer);
    }

    /// Whether a slot in `slot_region` that holds a reference into `target` is to be put on a list. If
    /// the region's list is full, the region overflows instead.
    #[inline]
    pub fn wants_slot(&self, space: &Space, slot_region: RegionIndex, target: RegionIndex) -> bool {
        if space.regions.class(target) != Class::Candidate {
            return false;
        }
        let record = space.regions.record(slot_region);
        let incoming = &space.regions.record(target).incoming;
        // Counts may lose updates to a race; they steer costs, not correctness.
        incoming.store(incoming.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        let recorded = record.slots.load(Ordering::Relaxed);
        if recorded >= self.slots_max {
            self.overflow(space, slot_region);
            return false;
        }
        record.slots.store(recorded + 1, Ordering::Relaxed);
        true
    }

    #[cold]
    fn overflow(&self, space: &Space, region: RegionIndex) {
        let flag = &space.regions.record(region).slots_overflowed;
        // Relaxed: who overflowed the region is a mutator or a worker, and what reads the flag or the
        // queue comes after the next handshake, pause or join with it.
        if !flag.load(Ordering::Relaxed) && !flag.swap(true, Ordering::Relaxed) {
            self.overflowed.push(region);
        }
    }

    /// A region that overflowed since this was last asked.
    #[must_use]
    pub fn take_overflowed(&self) -> Option<RegionIndex> {
        self.overflowed.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_shades_what_is_there_and_what_comes() {
        let shaded = |old: u64, new: Option<usize>| {
            let mut shaded = vec![];
            shade_both(&AtomicU64::new(old), new.map(ToAddress::new), |object| shaded.push(object.get()));
            shaded
        };
        assert_eq!(shaded(64, Some(128)), [64, 128]);
        assert_eq!((shaded(64, None), shaded(0, Some(128))), (vec![64], vec![128]));
        assert!(shaded(0, None).is_empty());
    }
}
