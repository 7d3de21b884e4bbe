//! The live map: one bit a word, set by marking, read by plan, forwarding and page building.
//!
//! An object of `n` words (`n` ≥ 2) sets the bits of its first `n - 1` words; the bit of its last
//! word stays clear, so the bits of two objects never touch. One bitmap thus tells both where
//! objects begin and which words are live:
//!
//! ```text
//!   words    A A A B B . . C C C C      bits    1 1 0 1 0 0 0 1 1 1 0
//!   starts   1 0 0 1 0 0 0 1 0 0 0  =  bits & !(bits << 1)
//!   live     1 1 1 1 1 0 0 1 1 1 1  =  bits | (bits << 1)
//! ```
//!
//! Large objects never move and set the bit of their first word only.
//!
//! Marking workers set bits concurrently (relaxed: whoever sets the first bit of an object has
//! claimed it, and nothing else is published by it). Everybody else reads after marking ended.
//!
//! Sources: the mark-bit vector and offset vector of the Compressor (Kermany and Petrank, PLDI
//! 2006); that one bitmap serves for starts and sizes is our own.

use std::io;

use crate::address::{ChunkIndex, RegionIndex, WordIndex};
use crate::geometry::REGION_CHUNKS;
use crate::sync::SideTable;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The live map of a heap.
#[derive(Debug)]
pub struct LiveMap {
    bits: SideTable<AtomicU64>,
}

/// The live-map bits of one chunk, with the last bit of the chunk before it.
#[derive(Copy, Clone, Debug)]
pub struct ChunkBits {
    bits: u64,
    /// 1 if the word before the chunk is live and not the last of its object.
    carry: u64,
}

impl ChunkBits {
    /// First words of objects.
    #[inline]
    #[must_use]
    pub const fn starts(self) -> u64 {
        self.bits & !((self.bits << 1) | self.carry)
    }

    /// Live words.
    #[inline]
    #[must_use]
    pub const fn live(self) -> u64 {
        self.bits | (self.bits << 1) | self.carry
    }

    /// Number of live words.
    #[inline]
    #[must_use]
    pub const fn live_words(self) -> u32 {
        self.live().count_ones()
    }

    /// Number of live words that belong to an object that began in an earlier chunk.
    #[inline]
    #[must_use]
    pub const fn continued_words(self) -> u32 {
        let starts = self.starts();
        let before = if starts == 0 { u64::MAX } else { (starts & starts.wrapping_neg()) - 1 };
        (self.live() & before).count_ones()
    }
}

impl LiveMap {
    /// A clear map for `chunks` chunks.
    ///
    /// # Errors
    /// If the system refuses the address space.
    pub fn new(chunks: usize) -> io::Result<Self> {
        Ok(Self { bits: SideTable::new(chunks)? })
    }

    /// Marks an object of `words` words. True if it was not marked before: the caller claimed it.
    #[inline]
    pub fn mark(&self, start: WordIndex, words: u32) -> bool {
        debug_assert!(words >= 2);
        let bit = start.bit();
        let chunk = start.chunk().index();
        let bits = words - 1;
        let room = u64::BITS - bit;
        if bits <= room {
            let mask = (u64::MAX >> (u64::BITS - bits)) << bit;
            return self.bits[chunk].fetch_or(mask, Ordering::Relaxed) & (1 << bit) == 0;
        }
        if self.bits[chunk].fetch_or(u64::MAX << bit, Ordering::Relaxed) & (1 << bit) != 0 {
            return false;
        }
        let mut left = bits - room;
        let mut next = chunk + 1;
        while left >= u64::BITS {
            // No other object has words here, so nobody else writes it.
            self.bits[next].store(u64::MAX, Ordering::Relaxed);
            next += 1;
            left -= u64::BITS;
        }
        if left > 0 {
            self.bits[next].fetch_or(u64::MAX >> (u64::BITS - left), Ordering::Relaxed);
        }
        true
    }

    /// Marks a large object by its first word alone. True if it was not marked before.
    #[inline]
    pub fn mark_large(&self, start: WordIndex) -> bool {
        let mask = 1 << start.bit();
        self.bits[start.chunk().index()].fetch_or(mask, Ordering::Relaxed) & mask == 0
    }

    /// Whether the object that begins at `start` is marked.
    #[inline]
    #[must_use]
    pub fn is_marked(&self, start: WordIndex) -> bool {
        self.bits[start.chunk().index()].load(Ordering::Relaxed) & (1 << start.bit()) != 0
    }

    /// Whether a marked object begins at `start` (and `start` is not inside another).
    #[must_use]
    pub fn is_start(&self, start: WordIndex) -> bool {
        self.chunk(start.chunk()).starts() & (1 << start.bit()) != 0
    }

    /// The bits of a chunk. Objects do not cross regions, so a region's first chunk has no carry.
    #[inline]
    #[must_use]
    pub fn chunk(&self, chunk: ChunkIndex) -> ChunkBits {
        let index = chunk.index();
        let carry = if index.is_multiple_of(REGION_CHUNKS) {
            0
        } else {
            self.bits[index - 1].load(Ordering::Relaxed) >> 63
        };
        ChunkBits { bits: self.bits[index].load(Ordering::Relaxed), carry }
    }

    /// Whether the chunk has live words (or, at most, lacks the last word of an object that began before).
    #[inline]
    #[must_use]
    pub fn has_live(&self, chunk: ChunkIndex) -> bool {
        self.bits[chunk.index()].load(Ordering::Relaxed) != 0
    }

    /// Whether every word of the chunk belongs to an object that goes on behind it, so that no object
    /// begins or ends in it. (A chunk that an object's last word ends counts as not full.)
    #[inline]
    #[must_use]
    pub fn is_full(&self, chunk: ChunkIndex) -> bool {
        let bits = self.chunk(chunk);
        bits.bits == u64::MAX && bits.carry == 1
    }

    /// Live words of `word`'s chunk that precede `word`, where `word` is the start of an object;
    /// one less if the chunk's first word is the last word of an object ([`Self::adjustment`]).
    #[inline]
    #[must_use]
    pub fn words_before(&self, word: WordIndex) -> u32 {
        let bits = self.bits[word.chunk().index()].load(Ordering::Relaxed);
        ((bits | (bits << 1)) & ((1 << word.bit()) - 1)).count_ones()
    }

    /// Has the chunk's bits brought into the cache.
    #[inline]
    pub fn prefetch(&self, chunk: ChunkIndex) {
        crate::sys::prefetch(self.bits.as_ptr().wrapping_add(chunk.index()));
    }

    /// What [`Self::words_before`] leaves out in this chunk, so that it needs not look at the chunk
    /// before: forwarding adds it to the chunk's offset once, instead of at every lookup.
    #[must_use]
    pub fn adjustment(bits: ChunkBits) -> u32 {
        (bits.carry & !bits.bits & 1) as u32
    }

    /// Calls `visit` with the first word of each marked object of a region, in address order.
    pub fn for_each_start(&self, region: RegionIndex, mut visit: impl FnMut(WordIndex)) {
        let first = region.first_chunk().0;
        for chunk in (first..first + REGION_CHUNKS as u32).map(ChunkIndex) {
            let mut starts = self.chunk(chunk).starts();
            while starts != 0 {
                visit(chunk.first_word().offset(starts.trailing_zeros()));
                starts &= starts - 1;
            }
        }
    }

    /// Bytes of the map that the system has given memory for.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        self.bits.resident_bytes()
    }

    /// Clears the bits of a region.
    pub fn clear(&self, region: RegionIndex) {
        let first = region.first_chunk().index();
        for word in &self.bits[first..first + REGION_CHUNKS] {
            word.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Random objects laid out with random gaps: (gap, words) pairs.
    fn objects() -> impl Strategy<Value = Vec<(u32, u32)>> {
        prop::collection::vec((0u32..100, prop_oneof![2u32..12, 2u32..300]), 1..200)
    }

    proptest! {
        #[test]
        fn starts_and_live_words_match_a_plain_list(objects in objects()) {
            let map = LiveMap::new(REGION_CHUNKS).unwrap();
            let mut at = 0;
            let mut starts = vec![];
            let mut live = vec![false; 200 * 400];
            for (gap, words) in objects {
                at += gap;
                prop_assert!(map.mark(WordIndex(at), words));
                prop_assert!(!map.mark(WordIndex(at), words), "second mark claims nothing");
                starts.push(WordIndex(at));
                live[at as usize..(at + words) as usize].fill(true);
                at += words;
            }
            let mut seen = vec![];
            map.for_each_start(RegionIndex(0), |word| seen.push(word));
            prop_assert_eq!(&seen, &starts);
            for chunk in 0..at.div_ceil(64) {
                let bits = map.chunk(ChunkIndex(chunk));
                let expected = live[chunk as usize * 64..][..64].iter().filter(|&&l| l).count();
                prop_assert_eq!(bits.live_words() as usize, expected);
            }
            for start in starts {
                let chunk = map.chunk(start.chunk());
                let first = (start.0 & !63) as usize;
                let expected = live[first..start.index()].iter().filter(|&&l| l).count() as u32;
                prop_assert_eq!(map.words_before(start) + LiveMap::adjustment(chunk) * u32::from(start.bit() > 0), expected);
            }
        }
    }

    #[test]
    fn clearing_a_region_leaves_its_neighbour() {
        let map = LiveMap::new(2 * REGION_CHUNKS).unwrap();
        let (low, high) = (RegionIndex(0), RegionIndex(1));
        assert!(map.mark(low.first_word(), 4) && map.mark(high.first_word(), 4));
        map.clear(low);
        assert!(!map.is_marked(low.first_word()) && map.is_marked(high.first_word()));
    }
}
