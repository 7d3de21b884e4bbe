//! The write barrier's other half: what it records, and where that goes.
//!
//! Mutators fill small buffers of their own; a full one is exchanged for an empty one here, without
//! a lock, and the collector empties them. Entries are compact word indices.
//!
//! Two kinds of entries: *shades* (objects to be marked) and *slots* (places that hold, or held, a
//! reference into a candidate region, to be rewritten at the flip). A region of which too many slots
//! are recorded overflows: no more are recorded, and the plan scans it instead.

use std::sync::atomic::Ordering;

use crossbeam_queue::SegQueue;

use crate::address::{RegionIndex, WordIndex};
use crate::region::Class;
use crate::space::Space;

/// Entries of a buffer.
pub const BUFFER_ENTRIES: usize = 512;
/// Most slots that are recorded for one region. Beyond about this many, walking the region's
/// objects is cheaper than a list, and the list would be as large as the live map.
pub const REGION_SLOTS_MAX: u32 = 2048;

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

    /// Adds an entry. True if the buffer is full now.
    #[inline]
    pub fn push(&mut self, entry: WordIndex) -> bool {
        self.entries[self.length] = entry;
        self.length += 1;
        self.length == BUFFER_ENTRIES
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

/// Exchange of buffers between mutators and the collector.
#[derive(Debug, Default)]
pub struct BarrierQueues {
    shades: SegQueue<Box<Buffer>>,
    slots: SegQueue<Box<Buffer>>,
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
}

impl BarrierQueues {
    const fn queue(&self, kind: Recorded) -> &SegQueue<Box<Buffer>> {
        match kind {
            Recorded::Shades => &self.shades,
            Recorded::Slots => &self.slots,
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
        if recorded >= REGION_SLOTS_MAX {
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
