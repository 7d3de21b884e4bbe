//! The verifier: checks the heap at phase edges, by an own traversal that shares nothing with marking
//! but the layouts.
//!
//! Run by the controller. What traverses the heap needs the world stopped. A failed check ends the
//! process with what is wrong and where; there is nothing to recover.
//!
//! | entry | level | what |
//! |---|---|---|
//! | [`after_plan`] | cheap | every survivor has one new place, in order, inside a destination |
//! | [`before_flip`] | reachable | every reachable object: place, header, mark |
//! | [`after_compaction`] | cheap | region records and counts |
//! | [`after_compaction`] | reachable | every reachable object again: nobody has an old address |
//! | [`compare`] | shadow | each object equals its copy from before the flip, references mapped |

use std::io;
use std::time::Instant;

use crate::address::{ToAddress, WordIndex};
use crate::core::Core;
use crate::forward::{forward, forward_word};
use crate::geometry::{LARGE_OBJECT_BYTES, REGION_BYTES, WORD_BYTES, WORD_SHIFT};
use crate::layout::Header;
use crate::options::VerifyLevel;
use crate::plan::Plan;
use crate::region::{Class, Use};
use crate::roots::root_reference;
use crate::sync::SideTable;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Copies of all reachable objects, taken before the flip.
#[derive(Debug, Default)]
pub struct Shadow {
    objects: Vec<ShadowObject>,
    words: Vec<u64>,
}

#[derive(Debug)]
struct ShadowObject {
    /// Where it was before the flip.
    old: WordIndex,
    /// Where it will be after the flip.
    new: WordIndex,
    header: Header,
    /// Position of its contents, references already mapped.
    contents: usize,
}

/// Runs a check with the world stopped; the stop is not counted as a pause.
pub fn while_stopped<R>(core: &Core, check: impl FnOnce() -> R) -> R {
    let requested = Instant::now();
    core.control.set_verification(requested);
    core.embedder.stop_world();
    let result = check();
    core.embedder.resume_world(requested);
    result
}

/// After the plan: forwarding puts every survivor of each evacuated region inside a destination, one
/// behind the other, none on top of another.
pub fn after_plan(core: &Core, plan: &Plan) {
    if core.options.verify == VerifyLevel::Off {
        return;
    }
    let space = &core.space;
    let mut last_end = WordIndex(0);
    let mut survivors = 0;
    for &region in &plan.evacuated {
        space.live.for_each_start(region, |word| {
            // SAFETY: the live map says that an object begins here; nothing is missing before the flip.
            let header = Header::from_bits(unsafe { space.range.address(word).as_ptr::<u64>().read() });
            let words = (header.object_bytes() / WORD_BYTES) as u32;
            let new = forward_word(space, word);
            let destination = new.region();
            let top = space.regions.record(destination).top.load(Ordering::Relaxed) >> WORD_SHIFT;
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
            last_end = new.offset(words);
            survivors += u64::from(words) * WORD_BYTES as u64;
        });
    }
    if survivors != plan.survivor_bytes {
        fail(format_args!("plan: {survivors} bytes survive, but {} were placed", plan.survivor_bytes));
    }
}

/// Before the flip, in the pause: every reachable object is well formed and marked. Returns copies,
/// if the level asks for them.
pub fn before_flip(core: &Core) -> Option<Shadow> {
    if core.options.verify < VerifyLevel::Reachable {
        return None;
    }
    let mut shadow = Shadow::default();
    let with_copies = core.options.verify >= VerifyLevel::Shadow;
    traverse(core, "before the flip", |word, header| {
        let region = word.region();
        let counts_as_live = matches!(core.space.regions.class(region), Class::Fresh | Class::Settled);
        if !counts_as_live && !core.space.live.is_marked(word) {
            fail(format_args!(
                "before the flip: reachable word {:#x} of region {} is not marked",
                word.0, region.0
            ));
        }
        if with_copies {
            shadow.add(core, word, header);
        }
    });
    with_copies.then_some(shadow)
}

impl Shadow {
    fn add(&mut self, core: &Core, word: WordIndex, header: Header) {
        let space = &core.space;
        let words = header.object_bytes() / WORD_BYTES;
        let new = space.range.word(forward(space, space.range.address(word)));
        let contents = self.words.len();
        self.objects.push(ShadowObject { old: word, new, header, contents });
        self.words.extend((0..words as u32).map(|at| read_word(core, word.offset(at))));
        header.layout().for_each_reference(header.length(), 0..words, |slot| {
            let value = &mut self.words[contents + slot];
            if *value != 0 {
                *value = forward(space, ToAddress::new(*value as usize)).get() as u64;
            }
        });
    }

    fn compare(&self, core: &Core) {
        let counters = &core.stats.counters;
        for object in &self.objects {
            let words = object.header.object_bytes() / WORD_BYTES;
            for at in 0..words {
                let (expected, found) =
                    (self.words[object.contents + at], read_word(core, object.new.offset(at as u32)));
                if expected != found {
                    let (old, new) = (object.old, object.new.region());
                    let regions = &core.space.regions;
                    fail(format_args!(
                        "after compaction: word {at} of the object at {:#x} (was at {:#x}) is {found:#x}, but should \
                         be {expected:#x}; region {}: {:?}, {:?}, {:?}; {:?}",
                        object.new.0,
                        old.0,
                        new.0,
                        regions.usage(new),
                        regions.class(new),
                        regions.verdict(new),
                        regions.record(new),
                    ));
                }
            }
            counters.verified_bytes.fetch_add((words * WORD_BYTES) as u64, Ordering::Relaxed);
        }
    }
}

/// With the world stopped since `shadow` was taken, and every page there: objects equal their copies.
pub fn compare(core: &Core, shadow: &Shadow) {
    shadow.compare(core);
}

/// After compaction, with the world stopped.
pub fn after_compaction(core: &Core) {
    if core.options.verify == VerifyLevel::Off {
        return;
    }
    check_counts(core);
    if core.options.verify >= VerifyLevel::Reachable {
        traverse(core, "after compaction", |_, _| {});
    }
}

/// Region records agree with the counts.
fn check_counts(core: &Core) {
    let regions = &core.space.regions;
    let used = regions.in_use().filter(|&region| regions.usage(region).counts_as_used()).count();
    if used != core.space.used() {
        fail(format_args!(
            "after compaction: {used} regions are in use, but {} were counted",
            core.space.used()
        ));
    }
    for region in regions.in_use() {
        let top = regions.record(region).top.load(Ordering::Relaxed) as usize;
        if top > REGION_BYTES {
            fail(format_args!("after compaction: region {} is filled beyond its end: {top}", region.0));
        }
        if matches!(regions.usage(region), Use::Destination | Use::Staging) {
            fail(format_args!("after compaction: region {} is still {:?}", region.0, regions.usage(region)));
        }
    }
}

/// Visits every object reachable from the root pages, checking references, places and headers.
fn traverse(core: &Core, when: &str, mut visit: impl FnMut(WordIndex, Header)) {
    let seen = match seen_table(core) {
        Ok(seen) => seen,
        Err(error) => fail(format_args!("{when}: no memory to verify: {error}")),
    };
    let mut stack = vec![];
    let discover = |reference: ToAddress, from: WordIndex, stack: &mut Vec<WordIndex>| {
        let word = check_reference(core, when, reference, from);
        let bit = 1 << word.bit();
        if seen[word.chunk().index()].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            stack.push(word);
        }
    };
    for page in core.roots.pages_in_use() {
        for (nth, slot) in core.roots.slots(page).iter().enumerate() {
            if let Some(object) = root_reference(slot.load(Ordering::Relaxed)) {
                discover(object, page.first_word().offset(nth as u32), &mut stack);
            }
        }
    }
    let mut objects = 0;
    while let Some(word) = stack.pop() {
        let header = check_header(core, when, word);
        objects += 1;
        visit(word, header);
        header.layout().for_each_reference(header.length(), 0..usize::MAX, |slot| {
            let slot = word.offset(slot as u32);
            let value = read_word(core, slot);
            if value != 0 {
                discover(ToAddress::new(value as usize), slot, &mut stack);
            }
        });
    }
    core.stats.counters.verified_objects.fetch_add(objects, Ordering::Relaxed);
}

fn seen_table(core: &Core) -> io::Result<SideTable<AtomicU64>> {
    SideTable::new(core.space.range.regions() * crate::geometry::REGION_CHUNKS)
}

fn check_reference(core: &Core, when: &str, reference: ToAddress, from: WordIndex) -> WordIndex {
    let space = &core.space;
    let aligned = reference.get().is_multiple_of(WORD_BYTES);
    if !aligned || !space.is_in_window(reference) {
        fail(format_args!(
            "{when}: word {:#x} holds {:#x}, which is no address in a window",
            from.0,
            reference.get()
        ));
    }
    let word = space.range.word(reference);
    let (usage, class) = (space.regions.usage(word.region()), space.regions.class(word.region()));
    if !matches!(usage, Use::Objects | Use::Pinned | Use::LargeHead) || class == Class::Free {
        fail(format_args!(
            "{when}: word {:#x} (region {}, {:?}) refers to word {:#x} in region {}, which is {usage:?} and {class:?}",
            from.0,
            from.region().0,
            space.regions.usage(from.region()),
            word.0,
            word.region().0
        ));
    }
    word
}

fn check_header(core: &Core, when: &str, word: WordIndex) -> Header {
    let header = Header::from_bits(read_word(core, word));
    let Some(layout) = header.checked_layout() else {
        fail(format_args!("{when}: {:#x} at word {:#x} is no header", header.to_bits(), word.0));
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

fn read_word(core: &Core, word: WordIndex) -> u64 {
    // SAFETY: the word lies in an object (its reference was checked), in a window that is mapped; a
    // page that nobody touched reads as zeros.
    unsafe { &*core.space.range.address(word).as_ptr::<AtomicU64>() }.load(Ordering::Relaxed)
}

#[cold]
fn fail(message: std::fmt::Arguments<'_>) -> ! {
    crate::sys::die(format_args!("strikeslip verifier: {message}"))
}
