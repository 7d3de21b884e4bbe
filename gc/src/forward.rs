//! Forwarding: from an object's old address to its new one, in constant time and without writing to
//! the object.
//!
//! ```text
//! new word = chunk_destination[chunk of old] + live words before old in its chunk
//! ```
//!
//! Pure: reads the live map and the plan's table, so that any number of threads (the pause, workers,
//! faulting mutators, the verifier) can forward at the same time.
//!
//! Source: the offset vector of the Compressor (Kermany and Petrank, PLDI 2006).

use crate::address::{ToAddress, WordIndex};
use crate::region::Verdict;
use crate::space::Space;
use crate::sync::atomic::{AtomicU64, Ordering};

/// New word of the object that begins at `word`, in an evacuated region.
#[inline]
#[must_use]
pub fn forward_word(space: &Space, word: WordIndex) -> WordIndex {
    let chunk = word.chunk();
    let destination = space.chunk_destination[chunk.index()].load(Ordering::Relaxed);
    WordIndex(destination.wrapping_add(space.live.words_before(word)))
}

/// The address to be used from the flip on: new for objects in evacuated regions, the same for all
/// others.
#[inline]
#[must_use]
pub fn forward(space: &Space, object: ToAddress) -> ToAddress {
    let word = space.range.word(object);
    if space.regions.verdict(word.region()) != Verdict::Evacuate {
        return object;
    }
    space.range.address(forward_word(space, word))
}

/// Rewrites a slot if it holds a reference into an evacuated region. True if it did.
#[inline]
pub fn patch(space: &Space, slot: &AtomicU64) -> bool {
    let value = slot.load(Ordering::Relaxed);
    if !is_moved(space, value) {
        return false;
    }
    // Relaxed: the slot is in a page that mutators cannot reach, or they are stopped; what makes it
    // reachable again (install, resume) publishes it.
    slot.store(forwarded(space, value), Ordering::Relaxed);
    true
}

/// What a slot that holds `value` is to hold from the flip on. Without branches on the value: which
/// references need it is as good as random, and so the processor works on many at a time while it waits
/// for their entries in the two tables.
#[inline(always)]
pub fn forwarded(space: &Space, value: u64) -> u64 {
    let word = space.range.word_at(if is_reference(value) { value as usize } else { space.range.base() });
    let is_evacuated = space.regions.is_evacuated(word.region());
    let new = space.range.address(forward_word(space, word)).get() as u64;
    if is_reference(value) & is_evacuated { new } else { value }
}

/// Whether a slot's value is a reference: not null and not marked as something else by its lowest bit.
#[inline]
const fn is_reference(value: u64) -> bool {
    value != 0 && value & 1 == 0
}

/// Whether a slot's value refers to an object in an evacuated region.
#[inline]
fn is_moved(space: &Space, value: u64) -> bool {
    is_reference(value) && space.regions.is_evacuated(space.range.word_at(value as usize).region())
}

/// Has what [`forwarded`] will read for this value brought into the cache.
#[inline(always)]
pub fn prefetch_forwarding(space: &Space, value: u64) {
    // Not tested: a prefetch of nothing does nothing.
    let chunk = space.range.word_at(value as usize).chunk();
    space.live.prefetch(chunk);
    crate::sys::prefetch(space.chunk_destination.as_ptr().wrapping_add(chunk.index()));
}

/// Most slots whose new values are on their way into the cache.
const BATCH: usize = 32;

/// Rewrites slots, late: forwarding reads two tables at places that are as scattered as the
/// references, so the entries of a whole batch are prefetched before the first is read.
///
/// Nobody else writes the slots meanwhile.
#[derive(Debug)]
pub struct Patcher<'a> {
    space: &'a Space,
    /// Slots to be rewritten, and the words they refer to: the first `filled` of them.
    slots: [Option<&'a AtomicU64>; BATCH],
    words: [WordIndex; BATCH],
    filled: usize,
    changed: u64,
}

impl<'a> Patcher<'a> {
    /// Nothing to be rewritten yet.
    #[must_use]
    pub const fn new(space: &'a Space) -> Self {
        Self { space, slots: [None; BATCH], words: [WordIndex(0); BATCH], filled: 0, changed: 0 }
    }

    /// Rewrites the slot, now or later, if it holds a reference into an evacuated region.
    #[inline]
    pub fn visit(&mut self, slot: &'a AtomicU64) {
        let value = slot.load(Ordering::Relaxed);
        if !is_moved(self.space, value) {
            return;
        }
        prefetch_forwarding(self.space, value);
        self.slots[self.filled] = Some(slot);
        self.words[self.filled] = self.space.range.word_at(value as usize);
        self.filled += 1;
        if self.filled == BATCH {
            self.rewrite();
        }
    }

    fn rewrite(&mut self) {
        for (slot, &word) in self.slots.iter().flatten().zip(&self.words).take(self.filled) {
            let new = self.space.range.address(forward_word(self.space, word));
            // Relaxed: as in `patch`.
            slot.store(new.get() as u64, Ordering::Relaxed);
        }
        self.changed += self.filled as u64;
        self.filled = 0;
    }

    /// Rewrites what is left. Returns how many slots were rewritten in all.
    pub fn finish(mut self) -> u64 {
        self.rewrite();
        self.changed
    }
}
