//! The verifier: checks the heap at phase edges, by traversals of its own that share nothing with marking, planning
//! and building but the layouts.
//!
//! Run by the controller, with the world stopped where objects are traversed; what is built is compared by whoever
//! builds it, also in signal handlers. A failed check ends the process with what is wrong and where; there is nothing
//! to recover.
//!
//! | level | after marking | after the plan | flip (in the pause) | while serving | after compaction |
//! |---|---|---|---|---|---|
//! | headers | regions are full of objects | | | | regions are full of objects |
//! | spaces | records, counts, buffers | survivors placed, readers counted | | | records, counts, buffers; no service is left |
//! | roots | root slots hold objects, weak slots hold live ones | | no root slot and no weak slot holds an old address | | root slots and weak slots hold objects |
//! | reachable | what is reachable is well formed | | slots with old addresses are known, or were rewritten | | what is reachable is well formed |
//! | live map | marked is what is reachable, and live bytes are right | | | | |
//! | shadow | | | what was not taken equals its copy | what is built or returned equals its copy | every other cycle: all equals its copy |
//!
//! In stop-the-world mode all of it is in the one pause, nothing is served, and all equals its copy in every cycle. In
//! concurrent modes marking may keep what became garbage while it ran, and young cycles what dead old objects refer to;
//! else the live map is exactly what is reachable.
//!
//! | part | |
//! |---|---|
//! | `walk` | headers, records, counts, buffers |
//! | `traverse` | roots, what is reachable, the second marking |
//! | `placed` | the plan |
//! | `slots` | the flip |
//! | [`shadow`] | copies |

use std::time::Instant;

use crate::address::{RegionIndex, ToAddress, WordIndex};
use crate::core::Core;
use crate::extent::Extent;
use crate::flip::Compacting;
use crate::geometry::WORD_BYTES;
use crate::options::VerifyLevel;
use crate::plan::Plan;
use crate::region::{Class, Use};
use crate::sync::atomic::{AtomicU64, Ordering};

mod placed;
pub mod shadow;
mod slots;
mod traverse;
mod walk;

use shadow::Shadow;

fn is_on(core: &Core, level: VerifyLevel) -> bool {
    core.options.verify >= level
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

/// After marking and the clearing of weak slots, with the world stopped and barriers still on.
pub fn after_mark(core: &Core, extent: Extent) {
    heap(core, "after marking");
    if is_on(core, VerifyLevel::Roots) {
        traverse::check_weak_slots(core, "after clearing", true);
    }
    if is_on(core, VerifyLevel::LiveMap) {
        traverse::compare_live_map(core, extent);
    }
}

/// After the plan: forwarding puts every survivor of each evacuated region inside a destination, one
/// behind the other, none on top of another; and who reads a region is counted.
pub fn after_plan(core: &Core, plan: &Plan) {
    if is_on(core, VerifyLevel::Spaces) {
        placed::check(core, plan);
    }
}

/// Before the flip, in the pause: copies of all that is reachable, if the level asks for them.
#[must_use]
pub fn before_flip(core: &Core) -> Option<Box<Shadow>> {
    is_on(core, VerifyLevel::Shadow).then(|| Shadow::take(core))
}

/// After the flip, in the pause.
pub fn after_flip(core: &Core, compacting: &Compacting) {
    if is_on(core, VerifyLevel::Roots) {
        slots::check_roots(core);
    }
    if is_on(core, VerifyLevel::Reachable) {
        slots::check_regions(core, &compacting.plan);
    }
}

/// After compaction, with the world stopped: every page is there.
pub fn after_compaction(core: &Core) {
    heap(core, "after compaction");
    if is_on(core, VerifyLevel::Roots) {
        traverse::check_weak_slots(core, "after compaction", false);
    }
    if is_on(core, VerifyLevel::Spaces) {
        walk::check_nothing_is_left(core);
    }
}

/// What holds whenever no page is missing, up to level `reachable`. With the world stopped.
fn heap(core: &Core, when: &str) {
    if is_on(core, VerifyLevel::Headers) {
        walk::check_headers(core, when);
    }
    if is_on(core, VerifyLevel::Spaces) {
        walk::check_counts(core, when);
        walk::check_buffers(core, when);
    }
    if is_on(core, VerifyLevel::Reachable) {
        traverse::traverse(core, when, |_, _| {});
    } else if is_on(core, VerifyLevel::Roots) {
        traverse::check_roots(core, when);
    }
}

/// Regions that hold objects of which many fit into one.
fn holds_small_objects(core: &Core, region: RegionIndex) -> bool {
    matches!(core.space.regions.usage(region), Use::Objects | Use::Pinned)
}

fn read_word(core: &Core, word: WordIndex) -> u64 {
    read(core.space.range.address(word))
}

/// A word of the heap.
fn read(address: ToAddress) -> u64 {
    // SAFETY: callers pass words below the top of regions in use, in windows that are mapped: a page that nobody
    // touched reads as zeros. Accesses are atomic.
    unsafe { &*address.as_ptr::<AtomicU64>() }.load(Ordering::Relaxed)
}

/// What the region at hand looks like, for messages.
fn describe(core: &Core, region: RegionIndex) -> String {
    let regions = &core.space.regions;
    format!(
        "region {}: {:?}, {:?}, {:?}, {:?}",
        region.0,
        regions.usage(region),
        regions.class(region),
        regions.verdict(region),
        regions.record(region)
    )
}

/// Whether marking leaves a region alone: its objects were born marked, or count as live in a young cycle.
fn counts_as_live(core: &Core, region: RegionIndex) -> bool {
    matches!(core.space.regions.class(region), Class::Fresh | Class::Settled)
}

/// Counts objects that were checked.
fn count(core: &Core, objects: u64, words: u64) {
    let counters = &core.stats.counters;
    counters.verified_objects.fetch_add(objects, Ordering::Relaxed);
    counters.verified_bytes.fetch_add(words * WORD_BYTES as u64, Ordering::Relaxed);
}

#[cold]
fn fail(message: std::fmt::Arguments<'_>) -> ! {
    crate::sys::die(format_args!("strikeslip verifier: {message}"))
}
