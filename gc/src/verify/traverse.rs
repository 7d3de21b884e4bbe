//! Roots, what is reachable from them, and the second marking.

use std::io;

use crate::address::{ChunkIndex, PageIndex, RegionIndex, ToAddress, WordIndex};
use crate::core::Core;
use crate::extent::Extent;
use crate::geometry::{LARGE_OBJECT_BYTES, REGION_CHUNKS, WORD_BYTES};
use crate::layout::Header;
use crate::options::Mode;
use crate::region::{Class, Use};
use crate::roots::root_reference;
use crate::sync::SideTable;
use crate::sync::atomic::{AtomicU64, Ordering};

use super::{count, counts_as_live, describe, fail, holds_small_objects, read_word};

/// Each root slot holds an object's address, or nothing.
pub(super) fn check_roots(core: &Core, when: &str) {
    for_each_reference(core, core.roots.pages_in_use(), |object, slot| {
        let word = check_reference(core, when, object, slot);
        check_header(core, when, word);
    });
}

/// Each weak slot holds an object's address, or nothing. Directly after marking, the object is marked or counts as
/// live: the slots of all others were cleared.
pub(super) fn check_weak_slots(core: &Core, when: &str, only_live: bool) {
    for_each_reference(core, core.roots.weak_pages(), |object, slot| {
        let word = check_reference(core, when, object, slot);
        check_header(core, when, word);
        if only_live && !counts_as_live(core, word.region()) && !core.space.live.is_start(word) {
            let region = describe(core, word.region());
            fail(format_args!(
                "{when}: weak slot {:#x} holds a dead object at word {:#x}; {region}",
                slot.0, word.0
            ));
        }
    });
}

fn for_each_reference(
    core: &Core,
    pages: impl Iterator<Item = PageIndex>,
    mut visit: impl FnMut(ToAddress, WordIndex),
) {
    for page in pages {
        for (nth, slot) in core.roots.slots(page).iter().enumerate() {
            if let Some(object) = root_reference(slot.load(Ordering::Relaxed)) {
                visit(object, page.first_word().offset(nth as u32));
            }
        }
    }
}

/// Visits every object reachable from the root pages, checking references, places and headers. Returns a bit for the
/// first word of each.
pub(super) fn traverse(
    core: &Core,
    when: &str,
    mut visit: impl FnMut(WordIndex, Header),
) -> SideTable<AtomicU64> {
    let table: io::Result<SideTable<AtomicU64>> = SideTable::new(core.space.range.regions() * REGION_CHUNKS);
    let seen = table.unwrap_or_else(|error| fail(format_args!("{when}: no memory to verify: {error}")));
    let mut stack = vec![];
    let discover = |reference: ToAddress, from: WordIndex, stack: &mut Vec<WordIndex>| {
        let word = check_reference(core, when, reference, from);
        let bit = 1 << word.bit();
        if seen[word.chunk().index()].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            stack.push(word);
        }
    };
    let roots = core.roots.pages_in_use();
    for_each_reference(core, roots, |object, slot| discover(object, slot, &mut stack));
    let (mut objects, mut words) = (0, 0);
    loop {
        let Some(word) = stack.pop() else {
            for_each_value(core, &seen, |value, slot| discover(value, slot, &mut stack));
            if stack.is_empty() {
                break;
            }
            continue;
        };
        let header = check_header(core, when, word);
        objects += 1;
        words += (header.object_bytes() / WORD_BYTES) as u64;
        visit(word, header);
        header.layout().for_each_reference(header.length(), 0..usize::MAX, |slot| {
            let slot = word.offset(slot as u32);
            let value = read_word(core, slot);
            if value != 0 {
                discover(ToAddress::new(value as usize), slot, &mut stack);
            }
        });
    }
    count(core, objects, words);
    seen
}

/// The values of ephemerons whose keys were seen, or count as live.
fn for_each_value(core: &Core, seen: &SideTable<AtomicU64>, mut visit: impl FnMut(ToAddress, WordIndex)) {
    let reference = |slot: &AtomicU64| root_reference(slot.load(Ordering::Relaxed));
    for page in core.roots.ephemeron_pages() {
        for (nth, pair) in core.roots.slots(page).chunks_exact(2).enumerate() {
            let (Some(key), Some(value)) = (reference(&pair[0]), reference(&pair[1])) else { continue };
            let key = core.space.range.word(key);
            let is_seen = seen[key.chunk().index()].load(Ordering::Relaxed) & (1 << key.bit()) != 0;
            if is_seen || counts_as_live(core, key.region()) {
                visit(value, page.first_word().offset(2 * nth as u32 + 1));
            }
        }
    }
}

/// The live map against a second marking: what is reachable is marked or was born marked, no bit is wrong, and live
/// bytes are those of the marked objects. If all was marked while the world stood still, nothing else is marked.
pub(super) fn compare_live_map(core: &Core, extent: Extent) {
    let is_exact = core.options.mode == Mode::StopTheWorld && extent == Extent::Full;
    let seen = traverse(core, "second marking", |word, _| {
        if !counts_as_live(core, word.region()) && !core.space.live.is_start(word) {
            let region = describe(core, word.region());
            fail(format_args!("second marking: reachable word {:#x} is not marked; {region}", word.0));
        }
    });
    for region in core.space.regions.in_use().filter(|&region| !counts_as_live(core, region)) {
        let mut live_bytes = 0;
        match core.space.regions.usage(region) {
            Use::LargeHead => live_bytes = marked_large_bytes(core, region),
            _ if holds_small_objects(core, region) => core.space.live.for_each_start(region, |word| {
                if is_exact && seen[word.chunk().index()].load(Ordering::Relaxed) & (1 << word.bit()) == 0 {
                    let region = describe(core, region);
                    fail(format_args!(
                        "second marking: marked word {:#x} is not reachable; {region}",
                        word.0
                    ));
                }
                let header = check_header(core, "second marking", word);
                check_extent(core, word, (header.object_bytes() / WORD_BYTES) as u32);
                live_bytes += header.object_bytes() as u32;
            }),
            _ => continue,
        }
        let counted = core.space.regions.record(region).live_bytes.load(Ordering::Relaxed);
        if counted != live_bytes {
            let region = describe(core, region);
            fail(format_args!("second marking: {live_bytes} bytes are marked; {region}"));
        }
    }
}

fn marked_large_bytes(core: &Core, head: RegionIndex) -> u32 {
    let word = head.first_word();
    if !core.space.live.is_marked(word) {
        return 0;
    }
    check_header(core, "second marking", word).object_bytes() as u32
}

/// The bits of a marked object are those of its words but the last.
fn check_extent(core: &Core, word: WordIndex, words: u32) {
    let bit = |at: u32| {
        let word = word.offset(at);
        core.space.live.is_marked(word)
    };
    // Chunk by chunk in the middle of large ones.
    let mut at = 0;
    while at + 1 < words {
        let here = word.offset(at);
        let is_aligned = here.bit() == 0 && at + 64 < words;
        let is_set = if is_aligned { is_full(core, here.chunk(), u64::from(at == 0)) } else { bit(at) };
        if !is_set {
            fail(format_args!(
                "second marking: word {:#x} of the object at {:#x} has no bit",
                here.0, word.0
            ));
        }
        at += if is_aligned { 64 } else { 1 };
    }
    if bit(words - 1) {
        fail(format_args!("second marking: the last word of the object at {:#x} has a bit", word.0));
    }
}

/// Whether all words of a chunk are live, and objects begin at `starts` only.
fn is_full(core: &Core, chunk: ChunkIndex, starts: u64) -> bool {
    let bits = core.space.live.chunk(chunk);
    bits.starts() == starts && bits.live_words() == u64::BITS
}

fn check_reference(core: &Core, when: &str, reference: ToAddress, from: WordIndex) -> WordIndex {
    let space = &core.space;
    let aligned = reference.get().is_multiple_of(WORD_BYTES);
    if !aligned || !space.is_in_window(reference) {
        fail(format_args!(
            "{when}: word {:#x} holds {:#x}, which is no address in a window; {}",
            from.0,
            reference.get(),
            describe(core, from.region())
        ));
    }
    let word = space.range.word(reference);
    let (usage, class) = (space.regions.usage(word.region()), space.regions.class(word.region()));
    if !matches!(usage, Use::Objects | Use::Pinned | Use::LargeHead) || class == Class::Free {
        fail(format_args!(
            "{when}: word {:#x} of {} refers to word {:#x} of {}",
            from.0,
            describe(core, from.region()),
            word.0,
            describe(core, word.region())
        ));
    }
    word
}

fn check_header(core: &Core, when: &str, word: WordIndex) -> Header {
    let header = Header::from_bits(read_word(core, word));
    let Some(layout) = header.checked_layout() else {
        fail(format_args!(
            "{when}: {:#x} at word {:#x} is no header; {}",
            header.to_bits(),
            word.0,
            describe(core, word.region())
        ));
    };
    let bytes = layout.object_bytes(header.length());
    let record = core.space.regions.record(word.region());
    let end = (word.0 - word.region().first_word().0) as usize * WORD_BYTES + bytes;
    if bytes <= LARGE_OBJECT_BYTES && end > record.top.load(Ordering::Relaxed) as usize {
        fail(format_args!(
            "{when}: the object at word {:#x} ({bytes} bytes) reaches beyond what was allocated",
            word.0
        ));
    }
    header
}
