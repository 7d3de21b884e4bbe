//! The plan: where survivors go, and who reads what.

use std::collections::BTreeSet;

use crate::address::WordIndex;
use crate::core::Core;
use crate::forward::forward_word;
use crate::geometry::{WORD_BYTES, WORD_SHIFT};
use crate::layout::Header;
use crate::plan::Plan;
use crate::region::Use;
use crate::sync::atomic::Ordering;

use super::{count, describe, fail, read_word};

/// Forwarding puts every survivor of each evacuated region inside a destination, one behind the other, none on top of
/// another. Each page of a destination knows where it is built from, and each evacuated region how many units read
/// it. Nothing is missing yet, and headers do not change, so the world need not stand still.
pub(super) fn check(core: &Core, plan: &Plan) {
    let space = &core.space;
    let mut last_end = WordIndex(0);
    let (mut survivors, mut objects) = (0, 0);
    for &region in &plan.evacuated {
        let mut units = BTreeSet::new();
        space.live.for_each_start(region, |word| {
            let header = Header::from_bits(read_word(core, word));
            let words = (header.object_bytes() / WORD_BYTES) as u32;
            let new = forward_word(space, word);
            let destination = new.region();
            let record = space.regions.record(destination);
            let top = record.top.load(Ordering::Relaxed) >> WORD_SHIFT;
            let inside = new.0 + words <= destination.first_word().0 + top;
            let follows = if destination == WordIndex(last_end.0.saturating_sub(1)).region() {
                new == last_end
            } else {
                new == destination.first_word()
            };
            if space.regions.usage(destination) != Use::Destination || !inside || !follows {
                fail(format_args!(
                    "plan: word {:#x} ({words} words) goes to {:#x}, after {last_end:?}",
                    word.0, new.0
                ));
            }
            check_page_sources(core, word, new, words);
            let unit_shift = record.unit_shift.load(Ordering::Relaxed);
            let unit = |word: WordIndex| word.page().0 >> unit_shift;
            units.extend(unit(new)..=unit(new.offset(words - 1)));
            last_end = new.offset(words);
            survivors += u64::from(words) * WORD_BYTES as u64;
            objects += 1;
        });
        let readers = space.regions.record(region).readers.load(Ordering::Relaxed) as usize;
        if readers != units.len() {
            fail(format_args!(
                "plan: {} units read, but {readers} were counted of {}",
                units.len(),
                describe(core, region)
            ));
        }
    }
    if survivors != plan.survivor_bytes {
        fail(format_args!("plan: {survivors} bytes survive, but {} were placed", plan.survivor_bytes));
    }
    count(core, objects, survivors / WORD_BYTES as u64);
}

/// Pages that begin inside an object are built from the group it belongs to, or from one before it that reaches to
/// the same page.
fn check_page_sources(core: &Core, old: WordIndex, new: WordIndex, words: u32) {
    let first = if new.page().first_word() == new { new.page().0 } else { new.page().0 + 1 };
    for page in first..=new.offset(words - 1).page().0 {
        let source = core.space.page_source[page as usize].load(Ordering::Relaxed);
        let group = old.chunk().0;
        // A group's objects begin in one chunk.
        if source != group {
            fail(format_args!(
                "plan: page {page:#x} begins in the object from word {:#x} of chunk {group:#x}, but is built from \
                 chunk {source:#x}",
                old.0
            ));
        }
    }
}
