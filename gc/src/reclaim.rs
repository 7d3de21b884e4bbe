//! Reclaim: memory goes back as compaction proceeds, and the cycle ends.
//!
//! Run by workers after each unit ([`release_drained`]) and by the controller when no page is missing
//! ([`concurrent_finish`]).

use std::sync::atomic::Ordering;

use crate::address::{PageIndex, RegionIndex};
use crate::core::Core;
use crate::flip::Compacting;
use crate::geometry::{REGION_PAGES, WINDOW_BYTES};
use crate::page_state;
use crate::region::{Class, Service, Use, Verdict};

/// Frees evacuated regions that nobody reads any more and that are not needed as staging.
pub fn release_drained(core: &Core) {
    // Staging that is copied from stays; staging that is moved away is used up by each unit.
    let keep = if core.serving.installer.moves() { 2 * core.options.workers } else { 0 };
    let staging = &core.serving.staging;
    let mut freed = false;
    while let Some(region) = staging.emptied() {
        free_evacuated(core, region, true);
        freed = true;
    }
    while let Some(region) = staging.surplus(keep) {
        free_evacuated(core, region, false);
        freed = true;
    }
    if freed {
        core.control.memory_freed();
    }
}

/// Frees an evacuated (or staging) region, of whose pages some may have been moved away.
fn free_evacuated(core: &Core, region: RegionIndex, moved: bool) {
    let record = core.space.regions.record(region);
    if record.taken.load(Ordering::Relaxed) {
        // Its memory is in the alias, which is closed when the cycle ends.
        core.space.forget_memory(region);
    } else if moved {
        // Pages that lost a race are still there; most regions are empty, and this costs little.
        core.space.discard(region);
    }
    core.space.free_region(region);
}

/// Ends the cycle's service. All units are installed.
pub fn concurrent_finish(core: &Core, compacting: &Compacting) {
    assert!(core.serving.is_complete(), "reclaim begins when no page is missing");
    let space = &core.space;
    if let Some(pages) = &core.serving.pages {
        for &window in &compacting.registered {
            if let Err(error) = pages.unregister(space.range.window_address(window), WINDOW_BYTES) {
                panic!("reclaim: window {} cannot be unregistered: {error}", window.0);
            }
        }
        core.serving.deactivate();
    }
    for &region in &compacting.missing {
        end_service(core, region);
    }
    release_staging(core);
    close_aliases(core, compacting);
    for &window in &compacting.registered {
        space.window(window).registered.store(false, Ordering::Relaxed);
        space.window(window).taken_whole.store(false, Ordering::Relaxed);
    }
    settle(core, &compacting.plan.evacuated);
    core.control.memory_freed();
}

fn end_service(core: &Core, region: RegionIndex) {
    let first = region.first_page().0;
    for page in (first..first + REGION_PAGES as u32).map(PageIndex) {
        page_state::reset(&core.space.unit_state[page.index()]);
    }
    core.space.regions.set_service(region, Service::Zero);
    let record = core.space.regions.record(region);
    record.taken.store(false, Ordering::Relaxed);
    record.to_be_taken.store(false, Ordering::Relaxed);
}

fn release_staging(core: &Core) {
    core.serving.staging.take_all(|region| {
        let moves = core.serving.installer.moves();
        free_evacuated(core, region, moves);
    });
}

/// Replaces used aliases by inaccessible ones: left mapped, the next flip would have to unmap them in
/// its pause.
fn close_aliases(core: &Core, compacting: &Compacting) {
    let space = &core.space;
    let windows = compacting.windows.iter().map(|&window| (space.range.window_address(window), WINDOW_BYTES));
    for (start, bytes) in compacting.runs.iter().map(|run| run.range(core)).chain(windows) {
        if let Err(error) = space.reservation.close_alias(start, bytes) {
            panic!("reclaim: the alias of {bytes} bytes at {:#x} cannot be closed: {error}", start.get());
        }
    }
}

/// Classes for the time until the next cycle: what was filled while marking is new, all else settled.
/// Forwarding into `evacuated` regions ends: no page holds an old address any more.
pub fn settle(core: &Core, evacuated: &[RegionIndex]) {
    let regions = &core.space.regions;
    for &region in evacuated {
        regions.set_verdict(region, Verdict::Stay);
    }
    for region in regions.in_use() {
        regions.set_verdict(region, Verdict::Stay);
        let class = match (regions.usage(region), regions.class(region)) {
            (Use::Objects, Class::Fresh) => Class::New,
            (_, Class::New) => Class::New,
            (Use::Free, class) => class,
            _ => Class::Settled,
        };
        regions.set_class(region, class);
    }
}
