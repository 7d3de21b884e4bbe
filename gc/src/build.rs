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
use std::sync::atomic::{AtomicU64, Ordering};

use crate::address::{ChunkIndex, FromAddress, PageIndex, RegionIndex, WordIndex};
use crate::forward::{Patcher, forward_word};
use crate::geometry::{PAGE_BYTES, REGION_CHUNKS, WORD_BYTES, WORD_SHIFT};
use crate::layout::{Header, Tail};
use crate::region::{Use, Verdict};
use crate::roots::ROOT_SLOTS;
use crate::space::Space;

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
    let mut builder = Builder { space, wanted: wanted.clone(), buffer, patcher: Patcher::new(space) };
    // SAFETY: the caller's contract, passed on: `wanted` lies in the buffer.
    let sources = unsafe { builder.run(group) };
    let _ = builder.patcher.finish();
    let filled = (wanted.end.0 - begin.0) as usize * WORD_BYTES;
    // SAFETY: the caller's contract: the buffer holds all pages.
    unsafe { std::ptr::write_bytes(buffer.add(filled), 0, pages * PAGE_BYTES - filled) };
    sources
}

struct Builder<'a> {
    space: &'a Space,
    /// Destination words to be built.
    wanted: Range<WordIndex>,
    /// Where `wanted.start` is built.
    buffer: *mut u8,
    patcher: Patcher<'a>,
}

impl Builder<'_> {
    /// # Safety
    /// As [`build_pages`].
    unsafe fn run(&mut self, group: ChunkIndex) -> Sources {
        let mut region = group.region();
        let mut sources = Sources { first: region, count: 1 };
        let mut chunk = group.0;
        loop {
            let end = region.first_chunk().0 + REGION_CHUNKS as u32;
            // SAFETY: passed on.
            if unsafe { self.build_from(region, chunk..end) } {
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

    /// Builds what comes from these chunks of one region. True when the end of `wanted` is reached.
    ///
    /// # Safety
    /// As [`build_pages`].
    unsafe fn build_from(&mut self, region: RegionIndex, chunks: Range<u32>) -> bool {
        let space = self.space;
        let from = space.from_space(region.first_word());
        let region_start = region.first_word();
        for chunk in chunks.map(ChunkIndex) {
            let mut starts = space.live.chunk(chunk).starts();
            if starts == 0 {
                continue;
            }
            let first = chunk.first_word().offset(starts.trailing_zeros());
            let mut destination = forward_word(space, first);
            while starts != 0 {
                let word = chunk.first_word().offset(starts.trailing_zeros());
                starts &= starts - 1;
                if destination >= self.wanted.end || destination.region() != self.wanted.start.region() {
                    return true;
                }
                let object = from.offset(((word.0 - region_start.0) as usize) << WORD_SHIFT);
                // SAFETY: `object` is a live object in from-space (the live map says so).
                let words = unsafe { self.build_object(object, destination) };
                destination = destination.offset(words);
            }
        }
        false
    }

    /// Copies the part of an object that is wanted, and rewrites its references. Returns the object's
    /// words.
    ///
    /// # Safety
    /// `object` is an object in from-space that goes to `destination`, and begins before
    /// `wanted.end`.
    #[inline]
    unsafe fn build_object(&mut self, object: FromAddress, destination: WordIndex) -> u32 {
        // SAFETY: an object begins with its header; from-space does not change.
        let header = Header::from_bits(unsafe { object.as_ptr::<u64>().read() });
        let layout = header.layout();
        let words = (layout.object_bytes(header.length()) / WORD_BYTES) as u32;
        let skip = self.wanted.start.0.saturating_sub(destination.0);
        if skip >= words {
            return words;
        }
        let take = words.min(self.wanted.end.0 - destination.0);
        let into = (destination.0 + skip - self.wanted.start.0) as usize;
        // SAFETY: source words are the object's own; target words lie in `wanted`, so in the buffer.
        let built = unsafe {
            let built = self.buffer.cast::<u64>().add(into);
            copy_words(object.as_ptr::<u64>().add(skip as usize), built, (take - skip) as usize);
            built
        };
        let patcher = &mut self.patcher;
        layout.for_each_reference(header.length(), skip as usize..take as usize, |word| {
            // SAFETY: the slot is among the words just copied to the buffer, which outlives the patcher.
            patcher.visit(unsafe { AtomicU64::from_ptr(built.add(word - skip as usize)) });
        });
        words
    }
}

/// Copies words. Small objects, the most, by two blocks that may overlap: no loop, no call.
///
/// # Safety
/// As `std::ptr::copy_nonoverlapping`.
#[inline]
unsafe fn copy_words(from: *const u64, to: *mut u64, words: usize) {
    // SAFETY: the caller's contract; a block is copied only where there are as many words.
    unsafe {
        match words {
            0 => {}
            1 => to.write(from.read()),
            2..=4 => copy_ends::<2>(from, to, words),
            5..=8 => copy_ends::<4>(from, to, words),
            9..=16 => copy_ends::<8>(from, to, words),
            _ => std::ptr::copy_nonoverlapping(from, to, words),
        }
    }
}

/// Copies the first `N` words and the last `N` words.
///
/// # Safety
/// As `std::ptr::copy_nonoverlapping`; `words` is at least `N` and at most `2 * N`.
#[inline]
unsafe fn copy_ends<const N: usize>(from: *const u64, to: *mut u64, words: usize) {
    // SAFETY: the caller's contract: both blocks lie in the words.
    unsafe {
        let (first, last) = (from.cast::<[u64; N]>().read(), from.add(words - N).cast::<[u64; N]>().read());
        to.cast::<[u64; N]>().write(first);
        to.add(words - N).cast::<[u64; N]>().write(last);
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
    match space.regions.usage(region) {
        Use::LargeHead | Use::LargeTail => scan_large(space, region, &mut patcher),
        _ => for_each_object(space, region, |word, header| {
            header.layout().for_each_reference(header.length(), 0..usize::MAX, |slot| {
                patcher.visit(slot_cell(space, word.offset(slot as u32)));
            });
        }),
    }
    patcher.finish()
}

/// Rewrites the part of a large object that lies in `region`.
fn scan_large<'a>(space: &'a Space, region: RegionIndex, patcher: &mut Patcher<'a>) {
    let head = RegionIndex(space.regions.record(region).head.load(Ordering::Relaxed));
    let header = Header::from_bits(space.regions.record(head).large_header.load(Ordering::Relaxed));
    let layout = header.layout();
    if layout.references() == 0 && layout.tail() != Tail::References {
        return;
    }
    let first = (region.first_word().0 - head.first_word().0) as usize;
    let part = first..first + crate::geometry::REGION_WORDS;
    layout.for_each_reference(header.length(), part, |word| {
        patcher.visit(slot_cell(space, head.first_word().offset(word as u32)));
    });
}

/// Calls `visit` for each object of a region of small objects: the marked ones, or, in a region that
/// was filled since marking began, all of them.
pub fn for_each_object(space: &Space, region: RegionIndex, mut visit: impl FnMut(WordIndex, Header)) {
    let header = |word| {
        // SAFETY: the word begins an object or filler of a region in use; from-space is mapped.
        Header::from_bits(unsafe { space.from_space(word).as_ptr::<u64>().read() })
    };
    if space.regions.class(region) != crate::region::Class::Fresh {
        space.live.for_each_start(region, |word| visit(word, header(word)));
        return;
    }
    let top = space.regions.record(region).top.load(Ordering::Relaxed) >> WORD_SHIFT;
    let mut at = 0;
    while at < top {
        let word = region.first_word().offset(at);
        let header = header(word);
        assert!(
            !header.is_none(),
            "no header at word {at:#x} of fresh region {}: it cannot be walked",
            region.0
        );
        if !header.is_filler() {
            visit(word, header);
        }
        at += (header.object_bytes() / WORD_BYTES) as u32;
    }
}
