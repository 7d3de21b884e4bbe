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

use std::sync::atomic::{AtomicU64, Ordering};

use crate::address::{ToAddress, WordIndex};
use crate::region::Verdict;
use crate::space::Space;

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
    if value == 0 || value & 1 != 0 {
        return false;
    }
    let old = ToAddress::new(value as usize);
    let new = forward(space, old);
    if new == old {
        return false;
    }
    // Relaxed: the slot is in a page that mutators cannot reach, or they are stopped; what makes it
    // reachable again (install, resume) publishes it.
    slot.store(new.get() as u64, Ordering::Relaxed);
    true
}

/// Slots whose new values are on their way into the cache.
const AHEAD: usize = 16;

/// Rewrites slots, some of them late: forwarding reads two tables at places that are as scattered as
/// the references, so each slot's entries are prefetched while those before it are rewritten.
#[derive(Debug)]
pub struct Patcher<'a> {
    space: &'a Space,
    /// A ring of slots to be rewritten.
    ring: [Option<&'a AtomicU64>; AHEAD],
    next: usize,
    changed: u64,
}

impl<'a> Patcher<'a> {
    /// Nothing to be rewritten yet.
    #[must_use]
    pub const fn new(space: &'a Space) -> Self {
        Self { space, ring: [None; AHEAD], next: 0, changed: 0 }
    }

    /// Rewrites the slot, now or later, if it holds a reference into an evacuated region.
    #[inline]
    pub fn visit(&mut self, slot: &'a AtomicU64) {
        let value = slot.load(Ordering::Relaxed);
        if value == 0 || value & 1 != 0 {
            return;
        }
        let word = self.space.range.word_at(value as usize);
        if self.space.regions.verdict(word.region()) != Verdict::Evacuate {
            return;
        }
        self.space.live.prefetch(word.chunk());
        crate::sys::prefetch(&self.space.chunk_destination[word.chunk().index()]);
        if let Some(oldest) = self.ring[self.next].replace(slot) {
            self.changed += u64::from(patch(self.space, oldest));
        }
        self.next = (self.next + 1) % AHEAD;
    }

    /// Rewrites what is left. Returns how many slots were rewritten in all.
    pub fn finish(mut self) -> u64 {
        for slot in self.ring.iter().flatten() {
            self.changed += u64::from(patch(self.space, slot));
        }
        self.changed
    }
}
