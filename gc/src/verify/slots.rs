//! The flip: no address of an evacuated region is left where a mutator can reach it, and those that are left where it
//! cannot are known.

use crate::address::{RegionIndex, WordIndex};
use crate::build::for_each_object;
use crate::core::Core;
use crate::geometry::{REGION_WORDS, WORD_BYTES};
use crate::layout::Header;
use crate::plan::Plan;
use crate::region::{Use, Verdict};
use crate::roots::{ROOT_SLOTS, root_reference};
use crate::sync::atomic::{AtomicU64, Ordering};

use super::{count, describe, fail, holds_small_objects};

/// No root slot or weak slot that is not taken holds an old address.
pub(super) fn check_roots(core: &Core) {
    let space = &core.space;
    for page in core.roots.pages_in_use().chain(core.roots.weak_pages()) {
        if space.regions.record(page.region()).taken.load(Ordering::Relaxed) {
            continue;
        }
        for (nth, slot) in core.roots.slots(page).iter().enumerate().take(ROOT_SLOTS) {
            let Some(object) = root_reference(slot.load(Ordering::Relaxed)) else { continue };
            if space.regions.is_evacuated(space.range.region(object)) {
                let word = page.first_word().offset(nth as u32);
                fail(format_args!("after the flip: root slot {:#x} holds an old address", word.0));
            }
        }
    }
}

/// Of regions that stay: a slot with an old address lies in a region that was taken, and is in its list, or all of it
/// will be scanned. Objects that are not marked, and were not born marked, do not count: nobody reaches them.
pub(super) fn check_regions(core: &Core, plan: &Plan) {
    debug_assert!(!plan.is_empty(), "there is a flip only if something is evacuated");
    let (mut objects, mut words) = (0, 0);
    for region in core.space.regions.in_use() {
        match core.space.regions.usage(region) {
            Use::LargeHead => check_large(core, region),
            _ if holds_small_objects(core, region) && !core.space.regions.is_evacuated(region) => {
                for_each_object(&core.space, region, |word, header| {
                    check_object(core, word, header, 0..usize::MAX);
                    objects += 1;
                    words += (header.object_bytes() / WORD_BYTES) as u64;
                });
            }
            _ => {}
        }
    }
    count(core, objects, words);
}

fn check_large(core: &Core, head: RegionIndex) {
    let space = &core.space;
    let is_live = space.live.is_marked(head.first_word()) || super::counts_as_live(core, head);
    let header = Header::from_bits(space.regions.record(head).large_header.load(Ordering::Relaxed));
    for (nth, _) in space.object_regions(head).enumerate().take_while(|_| is_live) {
        let part = nth * REGION_WORDS..(nth + 1) * REGION_WORDS;
        check_object(core, head.first_word(), header, part);
    }
}

/// The slots of an object, those among `part` of its words.
fn check_object(core: &Core, word: WordIndex, header: Header, part: std::ops::Range<usize>) {
    header.layout().for_each_reference(header.length(), part, |slot| {
        let slot = word.offset(slot as u32);
        // SAFETY: the slot lies in an object of a region that stays; `from_space` tells where it can be read.
        let value = unsafe { &*core.space.from_space(slot).as_ptr::<AtomicU64>() }.load(Ordering::Relaxed);
        if value != 0 && core.space.regions.is_evacuated(core.space.range.word_at(value as usize).region()) {
            check_slot(core, slot);
        }
    });
}

fn check_slot(core: &Core, slot: WordIndex) {
    let region = slot.region();
    let is_taken = core.space.regions.record(region).taken.load(Ordering::Relaxed);
    let is_known = match core.space.regions.verdict(region) {
        Verdict::Scan => true,
        Verdict::Patch => core.serving.slots_of(core, region).binary_search(&slot).is_ok(),
        Verdict::Stay | Verdict::Evacuate | Verdict::Free => false,
    };
    if !is_taken || !is_known {
        fail(format_args!(
            "after the flip: slot {:#x} holds an old address; {}",
            slot.0,
            describe(core, region)
        ));
    }
}
