//! What the collector keeps for one mutator: its allocation buffer and its barrier buffers.
//!
//! Used by the mutator while it runs; by the collector in a handshake's action, on the mutator's
//! thread or while it is blocked, and while the world is stopped. The embedder's contract
//! ([`crate::embedder::Embedder`]) makes these exclude each other, so fields are plain cells.
//!
//! Invariants:
//! 1. `[cursor, limit)` is zero and belongs to this mutator alone.
//! 2. `barrier` is changed by the collector only, and for all mutators in one handshake or
//!    pause.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use crate::address::{HeapRange, RegionIndex, ToAddress, WordIndex};
use crate::alloc::{allocate_large, largest_object};
use crate::barrier::{Barrier, Recorded, Records, is_white, shade_both};
use crate::control::Request;
use crate::core::Core;
use crate::error::AllocError;
use crate::events::Trigger;
use crate::geometry::{LARGE_OBJECT_BYTES, REGION_BYTES, WORD_BYTES};
use crate::layout::Header;
use crate::plan::Pressure;
use crate::region::Class;
use crate::remembered;
use crate::roots::root_reference;
use crate::stress::{AtAllocation, StressMode};
use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use crate::sys::schedule::Step;

/// Why an allocation could not be satisfied at once.
#[derive(Copy, Clone, Debug)]
pub enum Exhausted {
    /// There may be memory after a collection: call `Heap::wait_for_memory` in a blocked state, then
    /// try again.
    Wait(MemoryNeed),
    /// There never will be.
    Never(AllocError),
}

/// What an allocation waits for.
#[derive(Copy, Clone, Debug)]
pub struct MemoryNeed {
    pub(crate) bytes: usize,
    /// Cycles that had begun when the allocation failed.
    pub(crate) cycles_begun: u64,
    /// Not for memory, but for a cycle that begins afterwards.
    pub(crate) for_cycle: bool,
}

/// What the collector keeps for one mutator.
pub struct MutatorContext {
    core: Arc<Core>,
    cursor: Cell<usize>,
    limit: Cell<usize>,
    /// Where the current buffer began (statistics).
    begin: Cell<usize>,
    barrier: Cell<Barrier>,
    /// A stress mode had the last allocation wait for a cycle: its next attempt goes on.
    waited: Cell<bool>,
    records: Records,
    /// For the write barrier, where each load counts: `core.space.range`, and its regions' ages.
    range: HeapRange,
    ages: *const AtomicU8,
}

impl fmt::Debug for MutatorContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutatorContext")
            .field("buffer", &(self.cursor.get()..self.limit.get()))
            .field("barrier", &self.barrier.get())
            .finish_non_exhaustive()
    }
}

impl MutatorContext {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            cursor: Cell::new(0),
            limit: Cell::new(0),
            begin: Cell::new(0),
            barrier: Cell::new(core.barrier_now()),
            waited: Cell::new(false),
            records: Records::new(&core.barrier),
            range: core.space.range,
            ages: core.space.regions.ages(),
            core,
        }
    }

    /// Allocates an object of `bytes` bytes (as [`Header::object_bytes`] says): the header is
    /// written, everything behind it is zero. Never waits.
    ///
    /// # Errors
    /// [`Exhausted`] if there is no memory now, or never will be.
    #[inline]
    pub fn allocate(&self, header: Header, bytes: usize) -> Result<ToAddress, Exhausted> {
        debug_assert!(bytes == header.object_bytes());
        if bytes <= self.limit.get() - self.cursor.get() {
            return Ok(self.take(header, bytes));
        }
        self.allocate_slow(header, bytes)
    }

    /// Begins an object in the buffer, which has room for it.
    #[inline]
    fn take(&self, header: Header, bytes: usize) -> ToAddress {
        let start = self.cursor.get();
        self.cursor.set(start + bytes);
        begin_object(ToAddress::new(start), header)
    }

    #[cold]
    #[inline(never)]
    fn allocate_slow(&self, header: Header, bytes: usize) -> Result<ToAddress, Exhausted> {
        let core = &*self.core;
        self.stress_allocation(bytes)?;
        let address = if bytes > LARGE_OBJECT_BYTES {
            if bytes > largest_object(&core.space) {
                return Err(Exhausted::Never(self.too_large(bytes)));
            }
            core.stats.counters.allocated_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            let address = allocate_large(&core.space, header, bytes);
            core.consider_cycle();
            address
        } else if bytes > core.options.buffer_bytes / 4 {
            core.stats.counters.allocated_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            let address = core.shared.medium.cut(&core.space, bytes);
            core.consider_cycle();
            address
        } else {
            return match self.refill(bytes.max(core.refill_bytes)) {
                Some(()) => Ok(self.take(header, bytes)),
                None => Err(self.exhausted(bytes)),
            };
        };
        address.map(|address| begin_object(address, header)).ok_or_else(|| self.exhausted(bytes))
    }

    /// Allocates an object that never moves and is never missing: system calls can be given its memory
    /// as long as it is live.
    ///
    /// # Errors
    /// As [`Self::allocate`].
    pub fn allocate_pinned(&self, header: Header, bytes: usize) -> Result<ToAddress, Exhausted> {
        if bytes > LARGE_OBJECT_BYTES {
            let address = self.allocate(header, bytes)?;
            self.make_present(address, bytes);
            let space = &self.core.space;
            for region in space.object_regions(space.range.region(address)) {
                space.regions.record(region).large_pinned.store(true, Ordering::Relaxed);
            }
            return Ok(address);
        }
        self.stress_allocation(bytes)?;
        self.core.stats.counters.allocated_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let address = self.core.shared.pinned.cut(&self.core.space, bytes);
        self.core.consider_cycle();
        let address = address.ok_or_else(|| self.exhausted(bytes))?;
        self.make_present(address, bytes);
        Ok(begin_object(address, header))
    }

    /// Writes the zeros behind a new object's header: a page that nobody ever wrote is missing while
    /// its window is registered, and a pinned object must be there for system calls.
    fn make_present(&self, address: ToAddress, bytes: usize) {
        let contents = address.offset(WORD_BYTES);
        // SAFETY: the object was just allocated by this thread, is `bytes` long, and zero behind its
        // header.
        unsafe { std::ptr::write_bytes(contents.as_ptr::<u8>(), 0, bytes - WORD_BYTES) };
    }

    /// Makes sure that objects of `bytes` bytes in all can be allocated with no refill, and so
    /// without failing.
    ///
    /// # Errors
    /// [`Exhausted`]; more than [`LARGE_OBJECT_BYTES`] at once is too large.
    pub fn reserve(&self, bytes: usize) -> Result<(), Exhausted> {
        if self.limit.get() - self.cursor.get() >= bytes {
            return Ok(());
        }
        if bytes > LARGE_OBJECT_BYTES {
            return Err(Exhausted::Never(AllocError::TooLarge { bytes, most: LARGE_OBJECT_BYTES }));
        }
        self.stress_allocation(bytes)?;
        let bytes = bytes.next_multiple_of(WORD_BYTES);
        self.refill(bytes.max(self.core.refill_bytes)).ok_or_else(|| self.exhausted(bytes))
    }

    /// What stress modes have an allocation on the slow path do first.
    fn stress_allocation(&self, bytes: usize) -> Result<(), Exhausted> {
        if self.waited.replace(false) || self.core.never_collects() {
            return Ok(());
        }
        match self.core.stress().at_allocation() {
            AtAllocation::GoOn => Ok(()),
            AtAllocation::AskForCycle => {
                let (trigger, pressure) = (Trigger::Explicit, Pressure::High);
                self.core.control.request(Request { trigger, pressure, extent: None });
                Ok(())
            }
            AtAllocation::WaitForCycle => {
                self.waited.set(true);
                let cycles_begun = self.core.cycles_begun();
                Err(Exhausted::Wait(MemoryNeed { bytes, cycles_begun, for_cycle: true }))
            }
        }
    }

    /// Whether this mutator's stores take part in marking.
    #[inline]
    #[must_use]
    pub fn is_marking(&self) -> bool {
        self.barrier.get() == Barrier::Mark
    }

    /// Stores a reference into a slot of a heap object: the write barrier, then the store (Release:
    /// pairs with the Acquire of whoever loads the slot, so that the object's contents are seen).
    ///
    /// # Safety
    /// `slot` is a reference slot of an object of this heap, and `value` an object of this heap; the
    /// mutator is running.
    #[inline]
    pub unsafe fn store(&self, slot: &AtomicU64, value: Option<ToAddress>) {
        match self.barrier.get() {
            Barrier::Off => {}
            // SAFETY: the caller's contract.
            Barrier::Remember => unsafe { self.remember_if_young(slot, value) },
            Barrier::Mark => self.mark_barrier(slot, value),
        }
        // Release: pairs with the Acquire load in marking and in the embedder's loads.
        slot.store(value.map_or(0, |object| object.get() as u64), Ordering::Release);
    }

    /// Shades the old and the new value and records the slot (design section 5).
    #[cold]
    #[inline(never)]
    fn mark_barrier(&self, slot: &AtomicU64, value: Option<ToAddress>) {
        shade_both(slot, value, |object| self.shade_marking(object));
        if let Some(new) = value {
            let space = &self.core.space;
            let slot = space.range.word_at(std::ptr::from_ref(slot).expose_provenance());
            let target = space.range.region(new);
            if self.core.barrier.wants_slot(space, slot.region(), target) {
                self.push(Recorded::Slots, slot);
            }
            // When the cycle is over, fresh objects are young, and all others old.
            let fresh = |region| space.regions.class(region) == Class::Fresh;
            if fresh(target) && !fresh(slot.region()) && self.core.options.young_cycles {
                self.remember(slot);
            }
        }
    }

    /// Records the slot if it lies in an old object and gets a reference to a young one.
    ///
    /// # Safety
    /// As for [`Self::store`].
    #[inline]
    unsafe fn remember_if_young(&self, slot: &AtomicU64, value: Option<ToAddress>) {
        let Some(new) = value else { return };
        // SAFETY: slot and value lie in this heap (the caller's contract), so their regions have entries in the
        // table, which lives as long as `core`.
        let age = |region: RegionIndex| unsafe { (*self.ages.add(region.index())).load(Ordering::Relaxed) };
        let slot = self.range.word_at(std::ptr::from_ref(slot).addr());
        let holder = age(slot.region());
        // Most stores are into new objects.
        if remembered::is_old(holder) && remembered::is_remembered(holder, age(self.range.region(new))) {
            self.remember(slot);
        }
    }

    #[cold]
    #[inline(never)]
    fn remember(&self, slot: WordIndex) {
        if remembered::has_room(self.core.space.regions.record(slot.region()), self.core.barrier.slots_max())
        {
            self.push(Recorded::Remembered, slot);
        }
    }

    /// Stores a reference into a root slot: while marking, the object is shaded and the slot's page
    /// noted for the flip if the object may move.
    ///
    /// # Panics
    /// If `slot` is not a root slot of this heap.
    #[inline]
    pub fn store_root(&self, slot: &AtomicU64, object: ToAddress) {
        // Release: pairs with the Acquire of marking's scan of root pages, which reads the header.
        slot.store(object.get() as u64, Ordering::Release);
        if self.is_marking() {
            self.root_barrier(slot, object);
        }
    }

    #[cold]
    #[inline(never)]
    fn root_barrier(&self, slot: &AtomicU64, object: ToAddress) {
        self.shade_marking(object);
        self.note_root(slot, object);
    }

    #[cold]
    fn note_root(&self, slot: &AtomicU64, object: ToAddress) {
        let space = &self.core.space;
        if space.regions.class(space.range.region(object)) == Class::Candidate {
            self.core.roots.note_candidate(std::ptr::from_ref(slot).expose_provenance());
        }
    }

    /// Stores a reference into a weak slot of this heap, which does not keep the object.
    ///
    /// # Panics
    /// If `slot` is not a root slot of this heap.
    #[inline]
    pub fn store_weak(&self, slot: &AtomicU64, object: ToAddress) {
        // Release: pairs with the Acquire of `load_weak`, so that the object's contents are seen.
        slot.store(object.get() as u64, Ordering::Release);
        if self.is_marking() {
            self.note_root(slot, object);
        }
    }

    /// Makes an ephemeron of two slots side by side in a page of ephemerons of this heap: as long as `key` lives, it
    /// keeps `value`. Both are loaded as from weak slots.
    ///
    /// # Panics
    /// If the slots are not root slots of this heap.
    pub fn store_ephemeron(&self, pair: &[AtomicU64; 2], key: ToAddress, value: ToAddress) {
        // Marking may have looked at the pair already.
        self.shade(value);
        self.store_weak(&pair[1], value);
        self.store_weak(&pair[0], key);
    }

    /// The object that a weak slot of this heap refers to, if it lives: a strong reference, until the next
    /// safepoint. Never waits.
    #[inline]
    pub fn load_weak(&self, slot: &AtomicU64) -> Option<ToAddress> {
        if self.is_marking() {
            return self.load_weak_while_marking(slot);
        }
        // Acquire: pairs with the Release in `store_weak`.
        root_reference(slot.load(Ordering::Acquire))
    }

    #[cold]
    #[inline(never)]
    fn load_weak_while_marking(&self, slot: &AtomicU64) -> Option<ToAddress> {
        let core = &*self.core;
        let is_white = |object| {
            core.serving.step(Step::Upgrading);
            is_white(&core.space.regions, &core.space.live, core.space.range.word(object))
        };
        core.upgrades.upgrade(slot, is_white, |object| {
            core.serving.step(Step::Upgrading);
            core.stats.counters.white_upgrades.fetch_add(1, Ordering::Relaxed);
            self.push(Recorded::Shades, core.space.range.word(object));
        })
    }

    /// To be called with every reference that is made reachable for other threads in any other way
    /// than by [`Self::store`] or [`Self::store_root`].
    #[inline]
    pub fn shade(&self, object: ToAddress) {
        if self.is_marking() {
            self.shade_marking(object);
        }
    }

    #[cold]
    fn shade_marking(&self, object: ToAddress) {
        let space = &self.core.space;
        let word = space.range.word(object);
        if is_white(&space.regions, &space.live, word) {
            self.push(Recorded::Shades, word);
        }
    }

    fn push(&self, kind: Recorded, entry: WordIndex) {
        // SAFETY: the module's contract: only one party uses the context at a time.
        unsafe { self.records.push(&self.core.barrier, kind, entry) };
    }

    /// Cuts a new buffer.
    fn refill(&self, bytes: usize) -> Option<()> {
        self.retire_buffer();
        let _ = self.core.stress().acts(StressMode::OneObjectBuffers);
        let start = self.core.shared.small.cut(&self.core.space, bytes);
        self.core.consider_cycle();
        let start = start?.get();
        self.begin.set(start);
        self.cursor.set(start);
        self.limit.set(start + bytes);
        Some(())
    }

    /// The addresses of the buffer's free part.
    pub(crate) fn buffer(&self) -> std::ops::Range<usize> {
        self.cursor.get()..self.limit.get()
    }

    /// Gives up the rest of the buffer, so that its region can be walked.
    pub(crate) fn retire_buffer(&self) {
        let (cursor, limit) = (self.cursor.get(), self.limit.get());
        if cursor < limit {
            begin_object(ToAddress::new(cursor), Header::filler(limit - cursor));
        }
        let allocated = (cursor - self.begin.get()) as u64;
        self.core.stats.counters.allocated_bytes.fetch_add(allocated, Ordering::Relaxed);
        self.begin.set(0);
        self.cursor.set(0);
        self.limit.set(0);
    }

    /// Changes what stores do.
    pub(crate) fn set_barrier(&self, barrier: Barrier) {
        self.barrier.set(barrier);
    }

    /// Hands the barrier's records over to the collector.
    pub(crate) fn hand_over_records(&self) {
        // SAFETY: as in `push`.
        unsafe { self.records.hand_over(&self.core.barrier) };
    }

    #[cold]
    fn exhausted(&self, bytes: usize) -> Exhausted {
        let limit = self.core.space.limit() * REGION_BYTES;
        if self.core.never_collects() {
            return Exhausted::Never(AllocError::HeapLimit { bytes, limit });
        }
        Exhausted::Wait(MemoryNeed { bytes, cycles_begun: self.core.cycles_begun(), for_cycle: false })
    }

    #[cold]
    fn too_large(&self, bytes: usize) -> AllocError {
        AllocError::TooLarge { bytes, most: largest_object(&self.core.space) }
    }
}

/// Writes an object's header into memory that was cut for it.
#[inline]
fn begin_object(address: ToAddress, header: Header) -> ToAddress {
    // SAFETY: callers pass memory inside a buffer or a piece that this thread just cut: mapped,
    // aligned to a word, and nobody else's.
    unsafe { address.as_ptr::<u64>().write(header.to_bits()) };
    address
}
