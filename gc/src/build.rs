//! Building: the contents of destination pages, and the rewriting of pages that stay.
//!
//! One routine under every delivery, every install and every mode: workers, faulting mutators (in a
//! signal handler), and the pause of stop-the-world mode all call it. It reads from-space, the live
//! map, the plan's tables and layouts, and writes only its buffer; it neither allocates nor locks.
//!
//! Invariants:
//! 1. From-space contents do not change from the flip until the last reader is done, except that a
//!    taken region's slots are rewritten by whoever claimed it.
//! 2. The same destination page built twice has the same contents.

use std::ops::Range;

use crate::address::{ChunkIndex, PageIndex, RegionIndex, WordIndex};
use crate::forward::{Patcher, forward_word, forwarded, prefetch_forwarding};
#[cfg(target_arch = "x86_64")]
use crate::gather::{Bits, Wide};
use crate::gather::{Gather, OVERSHOOT_WORDS, Plain, Way};
use crate::geometry::{CHUNK_WORDS, PAGE_BYTES, REGION_CHUNKS, WORD_BYTES, WORD_SHIFT};
use crate::layout::{Header, Tail};
use crate::region::{Use, Verdict};
use crate::roots::ROOT_SLOTS;
use crate::space::Space;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The evacuated regions that a piece of a destination was built from: `first` and those after it in
/// evacuation order, `count` in all.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Sources {
    /// First region read.
    pub first: RegionIndex,
    /// How many regions, in evacuation order.
    pub count: u32,
}

/// Builds `pages` pages of a destination region, beginning with `first`, at `buffer`. All bytes are
/// written. Returns the regions that were read.
///
/// # Safety
/// `buffer` is writable for the pages' bytes, and nobody else uses it. The plan is complete, and
/// `first` is a page of a destination, below its `top`.
pub unsafe fn build_pages(space: &Space, first: PageIndex, pages: usize, buffer: *mut u8) -> Sources {
    let begin = first.first_word();
    let destination = first.region();
    let top_bytes = space.regions.record(destination).top.load(Ordering::Relaxed);
    let filled_end = destination.first_word().offset(top_bytes >> WORD_SHIFT);
    let end = begin.offset((pages * (PAGE_BYTES / WORD_BYTES)) as u32);
    let wanted = begin..end.min(filled_end);
    let group = ChunkIndex(space.page_source[first.index()].load(Ordering::Relaxed));
    let mut builder = Builder {
        space,
        wanted: wanted.clone(),
        buffer: buffer.cast(),
        next: wanted.start,
        crossing: Crossing::default(),
        late: [Slots::NONE; LATE_CHUNKS],
        next_late: 0,
    };
    // SAFETY: the caller's contract, passed on: `wanted` lies in the buffer.
    let sources = unsafe { run_best(&mut builder, group) };
    for slots in builder.late {
        // SAFETY: the slots are in the buffer, and each was rewritten once if this is not the first time.
        slots.for_each(|slot| unsafe { slot.write(forwarded(space, slot.read())) });
    }
    let filled = (wanted.end.0 - begin.0) as usize * WORD_BYTES;
    // SAFETY: the caller's contract: the buffer holds all pages.
    unsafe { std::ptr::write_bytes(buffer.add(filled), 0, pages * PAGE_BYTES - filled) };
    sources
}

/// Runs the builder with the instructions this processor has.
///
/// # Safety
/// As [`build_pages`].
unsafe fn run_best(builder: &mut Builder<'_>, group: ChunkIndex) -> Sources {
    // SAFETY: the caller's contract, passed on; the processor was asked.
    unsafe {
        match Way::best() {
            Way::Plain => builder.run::<Plain>(group),
            #[cfg(target_arch = "x86_64")]
            Way::Bits => run_bits(builder, group),
            #[cfg(target_arch = "x86_64")]
            Way::Wide => run_wide(builder, group),
        }
    }
}

/// # Safety
/// As [`build_pages`], and the processor has these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi1,bmi2,popcnt,lzcnt")]
unsafe fn run_bits(builder: &mut Builder<'_>, group: ChunkIndex) -> Sources {
    // SAFETY: the caller's contract.
    unsafe { builder.run::<Bits>(group) }
}

/// # Safety
/// As [`build_pages`], and the processor has these features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "bmi1,bmi2,popcnt,lzcnt,avx512f")]
unsafe fn run_wide(builder: &mut Builder<'_>, group: ChunkIndex) -> Sources {
    // SAFETY: the caller's contract.
    unsafe { builder.run::<Wide>(group) }
}

/// Where a chunk's words may go that are not all wanted, or too close to the buffer's end.
type Scratch = [u64; CHUNK_WORDS + OVERSHOOT_WORDS];

/// How many chunks ahead from-space is prefetched.
const PREFETCH_CHUNKS: usize = 12;
/// Words of a cache line.
const LINE_WORDS: usize = 8;
/// How many chunks are built before the far references of one are rewritten.
const LATE_CHUNKS: usize = 4;
/// References to within so many words find their entries in the tables of forwarding in the processor's
/// own caches: prefetching them would cost more than it saves. (8 MiB; the tables are a fortieth of it.)
const NEAR_WORDS: u32 = 1 << 20;

/// Builds chunk by chunk. What a chunk's words are is found out for all its objects at once, as
/// bitmaps: which words are live, which of them are references. So there is no branch for each object,
/// reference or size that a processor could guess wrongly.
///
/// Everything is inlined into the functions that enable a processor's instructions.
struct Builder<'a> {
    space: &'a Space,
    /// Destination words to be built.
    wanted: Range<WordIndex>,
    /// Where `wanted.start` is built.
    buffer: *mut u64,
    /// Destination of the next live word.
    next: WordIndex,
    crossing: Crossing,
    /// Slots of the last chunks that were built, whose entries in the tables of forwarding are on their
    /// way into the cache: a ring.
    late: [Slots; LATE_CHUNKS],
    next_late: usize,
}

/// The references of the object that goes on in the next chunk.
#[derive(Default)]
struct Crossing {
    /// Fixed words of it that are references, as bits of the next chunk.
    fixed: u64,
    /// References of its tail, or of the last tail there was.
    tail: Range<u32>,
}

impl Crossing {
    /// Reference words of a chunk that begins at `base`. Its objects begin at `starts`; `from` is the
    /// chunk in from-space.
    ///
    /// # Safety
    /// Each bit of `starts` is the header of an object in from-space.
    #[inline(always)]
    unsafe fn references(&mut self, base: u32, mut starts: u64, from: *const u64) -> u64 {
        let mut references = std::mem::take(&mut self.fixed) | bits_of(&self.tail, base);
        while starts != 0 {
            let bit = starts.trailing_zeros();
            starts &= starts - 1;
            // SAFETY: the caller's contract: an object begins with its header.
            let header = Header::from_bits(unsafe { from.add(bit as usize).read() });
            let layout = header.layout();
            // Fixed word 0 is the one after the header.
            references |= (layout.references() << bit) << 1;
            self.fixed |= layout.references() >> (63 - bit);
            if layout.tail() == Tail::References {
                let first = base + bit + 1 + layout.fixed_words();
                self.tail = first..first + header.length();
                references |= bits_of(&self.tail, base);
            }
        }
        references
    }
}

/// Slots to be rewritten: those of the words at `first` whose bits are set.
#[derive(Copy, Clone)]
struct Slots {
    first: *mut u64,
    slots: u64,
}

impl Slots {
    const NONE: Self = Self { first: std::ptr::null_mut(), slots: 0 };

    #[inline(always)]
    fn for_each(self, mut visit: impl FnMut(*mut u64)) {
        let mut slots = self.slots;
        while slots != 0 {
            visit(self.first.wrapping_add(slots.trailing_zeros() as usize));
            slots &= slots - 1;
        }
    }
}

/// The words of `range` that lie in the chunk beginning at word `base`, as bits.
#[inline(always)]
fn bits_of(range: &Range<u32>, base: u32) -> u64 {
    let begin = range.start.saturating_sub(base).min(u64::BITS);
    let end = range.end.saturating_sub(base).min(u64::BITS);
    if begin >= end {
        return 0;
    }
    (u64::MAX >> (u64::BITS - (end - begin))) << begin
}

impl Builder<'_> {
    /// # Safety
    /// As [`build_pages`], and the processor can do what `G` needs.
    #[inline(always)]
    unsafe fn run<G: Gather>(&mut self, group: ChunkIndex) -> Sources {
        let mut region = group.region();
        let mut sources = Sources { first: region, count: 1 };
        let mut chunk = group.0;
        loop {
            let end = region.first_chunk().0 + REGION_CHUNKS as u32;
            // SAFETY: passed on.
            if unsafe { self.build_from::<G>(region, chunk..end) } {
                return sources;
            }
            let next = self.space.regions.record(region).next_evacuated.load(Ordering::Relaxed);
            if next == u32::MAX {
                return sources;
            }
            region = RegionIndex(next);
            chunk = region.first_chunk().0;
            if !self.begins_in_wanted(region) {
                return sources;
            }
            sources.count += 1;
        }
    }

    /// Whether the first survivor of `region` goes to the words being built.
    fn begins_in_wanted(&self, region: RegionIndex) -> bool {
        let first = region.first_chunk().0;
        let chunk = (first..first + REGION_CHUNKS as u32)
            .map(ChunkIndex)
            .find(|&chunk| self.space.live.chunk(chunk).starts() != 0);
        chunk.is_some_and(|chunk| {
            let start = chunk.first_word().offset(self.space.live.chunk(chunk).starts().trailing_zeros());
            self.wanted.contains(&forward_word(self.space, start))
        })
    }

    /// Builds what comes from these chunks of one region; the first of them begins a group. True when
    /// the end of `wanted` is reached.
    ///
    /// # Safety
    /// As [`build_pages`], and the processor can do what `G` needs.
    #[inline(always)]
    unsafe fn build_from<G: Gather>(&mut self, region: RegionIndex, chunks: Range<u32>) -> bool {
        let space = self.space;
        let region_from = space.from_space(region.first_word()).as_ptr::<u64>().cast_const();
        let mut is_first = true;
        let mut chunk = ChunkIndex(chunks.start);
        while chunk.0 < chunks.end {
            let bits = space.live.chunk(chunk);
            let (starts, mut live) = (bits.starts(), bits.live());
            let base = chunk.first_word();
            let mut is_last = false;
            if starts != 0 {
                let first = starts.trailing_zeros();
                let continued = live & ((1 << first) - 1);
                let destination = forward_word(space, base.offset(first));
                if is_first {
                    // What goes on from the chunk before belongs to an earlier group.
                    live &= !continued;
                    self.crossing = Crossing::default();
                    self.next = destination;
                } else if destination != self.next.offset(continued.count_ones()) {
                    // A group begins here that did not fit into this destination.
                    live = continued;
                    is_last = true;
                }
                is_first = false;
            }
            if live != 0 && !is_first {
                self.prefetch_chunk(chunk, region_from);
                // SAFETY: the chunk lies in the region; `from_space` tells where its words are.
                unsafe {
                    let from = region_from.add((base.0 - region.first_word().0) as usize);
                    let references = self.crossing.references(base.0, starts & live, from);
                    self.build_chunk::<G>(chunk, from, live, references);
                }
            }
            if is_last || !is_first && self.next >= self.wanted.end {
                return true;
            }
            chunk = self.skip_unwanted(chunk);
        }
        false
    }

    /// The chunk to go on with after `chunk`: the next one, or, where an object reaches farther without
    /// being wanted yet, the one from which it is.
    #[inline(always)]
    fn skip_unwanted(&mut self, chunk: ChunkIndex) -> ChunkIndex {
        let mut next = ChunkIndex(chunk.0 + 1);
        // Chunks in which an object only goes on are full: each advances the destination by as much.
        while self.next.0 + (CHUNK_WORDS as u32) <= self.wanted.start.0
            && !next.0.is_multiple_of(REGION_CHUNKS as u32)
            && self.space.live.is_full(next)
        {
            self.crossing.fixed = 0;
            self.next = self.next.offset(CHUNK_WORDS as u32);
            next = ChunkIndex(next.0 + 1);
        }
        next
    }

    /// Has a chunk that will soon be built brought into the cache: processors do not look ahead by
    /// themselves beyond a page.
    #[inline(always)]
    fn prefetch_chunk(&self, chunk: ChunkIndex, region_from: *const u64) {
        let ahead = (chunk.index() + PREFETCH_CHUNKS) % REGION_CHUNKS;
        if self.space.live.has_live(ChunkIndex(chunk.region().first_chunk().0 + ahead as u32)) {
            for line in (0..CHUNK_WORDS).step_by(LINE_WORDS) {
                crate::sys::prefetch(region_from.wrapping_add(ahead * CHUNK_WORDS + line));
            }
        }
    }

    /// Rewrites the slots of a chunk: at once if the first refers to something near, so that the others
    /// probably do; else some chunks later, when what is read for it has come into the cache.
    ///
    /// # Safety
    /// The slots are in the buffer, and there is at least one.
    #[inline(always)]
    unsafe fn rewrite(&mut self, slots: Slots, chunk: ChunkIndex) {
        let space = self.space;
        // SAFETY: the caller's contract.
        let sample = unsafe { slots.first.wrapping_add(slots.slots.trailing_zeros() as usize).read() };
        if space.range.word_at(sample as usize).0.abs_diff(chunk.first_word().0) < NEAR_WORDS {
            // SAFETY: the caller's contract.
            return slots.for_each(|slot| unsafe { slot.write(forwarded(space, slot.read())) });
        }
        // SAFETY: the caller's contract.
        slots.for_each(|slot| prefetch_forwarding(space, unsafe { slot.read() }));
        let due = std::mem::replace(&mut self.late[self.next_late], slots);
        self.next_late = (self.next_late + 1) % LATE_CHUNKS;
        // SAFETY: this function was given them before, with the same contract.
        due.for_each(|slot| unsafe { slot.write(forwarded(space, slot.read())) });
    }

    /// Copies the live words of a chunk as far as they are wanted, and rewrites their references.
    ///
    /// # Safety
    /// `from` is a chunk in from-space; `live` and `references` are its words that go to `self.next`
    /// and on. The processor can do what `G` needs.
    #[inline(always)]
    unsafe fn build_chunk<G: Gather>(
        &mut self,
        chunk: ChunkIndex,
        from: *const u64,
        live: u64,
        references: u64,
    ) {
        let words = live.count_ones();
        let begin = self.next;
        self.next = begin.offset(words);
        if self.next <= self.wanted.start {
            return;
        }
        // SAFETY: passed on.
        let mut slots = unsafe { G::bits(references, live) };
        let room = self.wanted.end.0.saturating_sub(begin.0);
        let skipped = self.wanted.start.0.saturating_sub(begin.0);
        let built = self.buffer.wrapping_offset(begin.0 as isize - self.wanted.start.0 as isize);
        if skipped == 0 && room as usize >= CHUNK_WORDS + OVERSHOOT_WORDS {
            // SAFETY: all words and the overshoot lie in `wanted`, so in the buffer.
            unsafe { G::words(from, live, built) };
        } else {
            let take = words.min(room);
            slots &= bits_of(&(skipped..take), 0);
            let mut scratch: Scratch = [0; CHUNK_WORDS + OVERSHOOT_WORDS];
            let (skip, take) = (skipped as usize, take as usize);
            // SAFETY: the scratch has room for a chunk and the overshoot; words `skip..take` lie in
            // `wanted`, so in the buffer.
            unsafe {
                G::words(from, live, scratch.as_mut_ptr());
                std::ptr::copy_nonoverlapping(
                    scratch.as_ptr().add(skip),
                    built.wrapping_add(skip),
                    take - skip,
                );
            }
        }
        if slots != 0 {
            // SAFETY: the slots are among the words just copied to the buffer.
            unsafe { self.rewrite(Slots { first: built, slots }, chunk) };
        }
    }
}

/// A slot of a region that stays, where it can be written: in from-space.
fn slot_cell(space: &Space, slot: WordIndex) -> &AtomicU64 {
    // SAFETY: from-space of a region in use is mapped and writable until reclaim, and accessed
    // atomically only.
    unsafe { &*space.from_space(slot).as_ptr::<AtomicU64>() }
}

/// Rewrites the slots of a region that stays, in from-space. `slots` are its recorded slots.
/// `in_use` tells which root pages are in use. Returns how many slots changed.
pub fn rewrite_region(space: &Space, region: RegionIndex, slots: &[WordIndex]) -> u64 {
    match space.regions.verdict(region) {
        Verdict::Patch => {
            let mut patcher = Patcher::new(space);
            slots.iter().for_each(|&slot| patcher.visit(slot_cell(space, slot)));
            patcher.finish()
        }
        Verdict::Scan => scan_region(space, region),
        Verdict::Stay | Verdict::Evacuate | Verdict::Free => 0,
    }
}

/// Rewrites the root slots of `pages` pages.
pub fn rewrite_root_pages(space: &Space, first: PageIndex, pages: usize) -> u64 {
    let begin = first.first_word();
    let mut patcher = Patcher::new(space);
    for slot in 0..(pages * ROOT_SLOTS) as u32 {
        patcher.visit(slot_cell(space, begin.offset(slot)));
    }
    patcher.finish()
}

/// Rewrites all references of a region by walking its objects.
fn scan_region(space: &Space, region: RegionIndex) -> u64 {
    let mut patcher = Patcher::new(space);
    for_each_slot(space, region, |slot| patcher.visit(slot_cell(space, slot)));
    patcher.finish()
}

/// Calls `visit` for each reference slot of a region of objects.
pub fn for_each_slot(space: &Space, region: RegionIndex, mut visit: impl FnMut(WordIndex)) {
    match space.regions.usage(region) {
        Use::LargeHead | Use::LargeTail => for_each_large_slot(space, region, visit),
        _ => for_each_object(space, region, |word, header| {
            header.layout().for_each_reference(header.length(), 0..usize::MAX, |slot| {
                visit(word.offset(slot as u32));
            });
        }),
    }
}

/// The reference slots of the part of a large object that lies in `region`.
fn for_each_large_slot(space: &Space, region: RegionIndex, mut visit: impl FnMut(WordIndex)) {
    let head = RegionIndex(space.regions.record(region).head.load(Ordering::Relaxed));
    let header = Header::from_bits(space.regions.record(head).large_header.load(Ordering::Relaxed));
    let layout = header.layout();
    if layout.references() == 0 && layout.tail() != Tail::References {
        return;
    }
    let first = (region.first_word().0 - head.first_word().0) as usize;
    let part = first..first + crate::geometry::REGION_WORDS;
    layout.for_each_reference(header.length(), part, |word| {
        visit(head.first_word().offset(word as u32));
    });
}

/// Calls `visit` for each object of a region of small objects: the marked ones, or, in a region that
/// no marking has seen yet, all of them.
pub fn for_each_object(space: &Space, region: RegionIndex, mut visit: impl FnMut(WordIndex, Header)) {
    let header = |word| {
        // SAFETY: the word begins an object or filler of a region in use; from-space is mapped.
        Header::from_bits(unsafe { space.from_space(word).as_ptr::<u64>().read() })
    };
    if space.regions.record(region).is_mapped.load(Ordering::Relaxed) {
        space.live.for_each_start(region, |word| visit(word, header(word)));
        return;
    }
    let top = space.regions.record(region).top.load(Ordering::Relaxed) >> WORD_SHIFT;
    let mut at = 0;
    while at < top {
        let word = region.first_word().offset(at);
        let header = header(word);
        assert!(!header.is_none(), "no header at word {at:#x} of region {}: it cannot be walked", region.0);
        if !header.is_filler() {
            visit(word, header);
        }
        at += (header.object_bytes() / WORD_BYTES) as u32;
    }
}
