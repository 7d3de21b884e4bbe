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
