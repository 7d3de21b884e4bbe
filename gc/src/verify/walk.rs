//! Headers, records, counts and buffers: what is checked region by region.

use crate::address::{PageIndex, RegionIndex};
use crate::core::Core;
use crate::geometry::{REGION_BYTES, REGION_PAGES, WORD_BYTES, WORD_SHIFT};
use crate::layout::Header;
use crate::page_state::{self, UnitState};
use crate::region::{Service, Use, Verdict};
use crate::sync::atomic::Ordering;

use super::{count, describe, fail, holds_small_objects, read_word};

/// Each region of small objects is full of objects and filler, up to its top, but for the rest of buffers.
pub(super) fn check_headers(core: &Core, when: &str) {
    let mut buffers = vec![];
    core.embedder.for_each_stopped(&mut |context| {
        let buffer = context.buffer();
        if !buffer.is_empty() {
            buffers.push((core.space.range.word_at(buffer.start), (buffer.len() / WORD_BYTES) as u32));
        }
    });
    buffers.sort_unstable();
    let (mut objects, mut words) = (0, 0);
    for region in core.space.regions.in_use().filter(|&region| holds_small_objects(core, region)) {
        let top = core.space.regions.record(region).top.load(Ordering::Relaxed) >> WORD_SHIFT;
        let mut at = 0;
        while at < top {
            let word = region.first_word().offset(at);
            if let Ok(nth) = buffers.binary_search_by_key(&word, |&(begin, _)| begin) {
                at += buffers[nth].1;
                continue;
            }
            let header = Header::from_bits(read_word(core, word));
            if !header.is_filler() && header.checked_layout().is_none() {
                fail(format_args!(
                    "{when}: {:#x} at word {:#x} is no header; {}",
                    header.to_bits(),
                    word.0,
                    describe(core, region)
                ));
            }
            at += (header.object_bytes() / WORD_BYTES) as u32;
            objects += u64::from(!header.is_filler());
        }
        if at != top {
            fail(format_args!(
                "{when}: the last object reaches to word {at:#x} of {}",
                describe(core, region)
            ));
        }
        words += u64::from(top);
    }
    count(core, objects, words);
}

/// Region records agree with the counts and with the free lists.
pub(super) fn check_counts(core: &Core, when: &str) {
    let (space, regions) = (&core.space, &core.space.regions);
    let free = space.lock();
    let used = regions.in_use().filter(|&region| regions.usage(region).counts_as_used()).count();
    if used != space.used() {
        fail(format_args!("{when}: {used} regions are in use, but {} were counted", space.used()));
    }
    for region in (0..space.range.regions() as u32).map(RegionIndex) {
        if free.is_free(region) != (regions.usage(region) == Use::Free) {
            fail(format_args!("{when}: free or not? {}", describe(core, region)));
        }
        if regions.record(region).top.load(Ordering::Relaxed) as usize > REGION_BYTES {
            fail(format_args!("{when}: filled beyond its end: {}", describe(core, region)));
        }
    }
}

/// Each mutator's buffer is zero, lies below its region's top, and is nobody else's.
pub(super) fn check_buffers(core: &Core, when: &str) {
    let mut buffers = vec![];
    core.embedder.for_each_stopped(&mut |context| buffers.push(context.buffer()));
    buffers.retain(|buffer| !buffer.is_empty());
    buffers.sort_unstable_by_key(|buffer| buffer.start);
    if let Some(pair) = buffers.windows(2).find(|pair| pair[0].end > pair[1].start) {
        fail(format_args!("{when}: two mutators have one buffer: {pair:x?}"));
    }
    for buffer in buffers {
        let (first, last) =
            (core.space.range.word_at(buffer.start), core.space.range.word_at(buffer.end - 1));
        let region = first.region();
        let top = core.space.regions.record(region).top.load(Ordering::Relaxed) >> WORD_SHIFT;
        let is_inside = last.region() == region && last.0 - region.first_word().0 < top;
        if core.space.regions.usage(region) != Use::Objects || !is_inside {
            fail(format_args!("{when}: a buffer {buffer:x?} in {}", describe(core, region)));
        }
        // A read of a missing page would be a fault.
        let is_registered = core.space.window(region.window()).registered.load(Ordering::Relaxed);
        let words = (0..=last.0 - first.0).map(|at| first.offset(at));
        if let Some(word) = words.into_iter().find(|&word| !is_registered && read_word(core, word) != 0) {
            fail(format_args!(
                "{when}: word {:#x} of a buffer is {:#x}; {}",
                word.0,
                read_word(core, word),
                describe(core, region)
            ));
        }
    }
}

/// Between two cycles nothing is left of the last one's plan and service.
pub(super) fn check_nothing_is_left(core: &Core) {
    let (space, regions) = (&core.space, &core.space.regions);
    for region in (0..space.range.regions() as u32).map(RegionIndex) {
        let record = regions.record(region);
        let is_left = matches!(regions.usage(region), Use::Destination | Use::Staging)
            || regions.verdict(region) != Verdict::Stay
            || regions.service(region) != Service::Zero
            || record.taken.load(Ordering::Relaxed)
            || record.to_be_taken.load(Ordering::Relaxed);
        if is_left {
            fail(format_args!("after compaction: left over: {}", describe(core, region)));
        }
        if regions.usage(region) == Use::Free {
            continue;
        }
        let first = region.first_page().0;
        for page in (first..first + REGION_PAGES as u32).map(PageIndex) {
            if page_state::state(&space.unit_state[page.index()]) != UnitState::Unclaimed {
                fail(format_args!("after compaction: unit {:#x} is not unclaimed", page.0));
            }
        }
    }
    for window in space.windows() {
        if space.window(window).registered.load(Ordering::Relaxed) {
            fail(format_args!("after compaction: window {} is still registered", window.0));
        }
    }
}
