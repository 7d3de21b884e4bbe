//! Reclaim: memory goes back as compaction proceeds, and the cycle ends.
//!
//! Run by whoever installed a unit ([`give_back_parts`]), by workers after each unit ([`release_drained`]) and by
//! the controller when no page is missing ([`concurrent_finish`]).

use std::sync::atomic::Ordering;

use crate::account::Holding;
use crate::address::{ChunkIndex, PageIndex, RegionIndex, WindowIndex};
use crate::build::Sources;
use crate::core::Core;
use crate::flip::{Compacting, Preparation};
use crate::geometry::{CHUNK_BYTES, PAGE_BYTES, REGION_CHUNKS, REGION_PAGES, WINDOW_BYTES};
use crate::page_state;
use crate::plan::Plan;
use crate::region::{Class, Service, Use, Verdict};

const PAGE_CHUNKS: u32 = (PAGE_BYTES / CHUNK_BYTES) as u32;

/// Frees evacuated regions that nobody reads any more and that are not needed as staging.
pub fn release_drained(core: &Core) {
    // What has to be given back to the system is left to the controller, for when no page is missing.
    let holds = core.space.holds_memory && core.options.mode.is_concurrent() && !core.space.is_short();
    // Staging that is copied from stays; staging that is moved away is used up by each unit.
    let keep = if core.serving.installer.moves() { 2 * core.options.workers } else { 0 };
    let staging = &core.serving.staging;
    let mut freed = false;
    while let Some(region) = staging.emptied() {
        core.space.forget_memory(region);
        core.space.free_region(region);
        freed = true;
    }
    while !holds && let Some(region) = staging.remnants() {
        free_evacuated(core, region, true);
        freed = true;
    }
    while let Some(region) = staging.surplus(keep) {
        free_evacuated(core, region, false);
        freed = true;
    }
    core.space.shrink_to_target();
    if freed {
        core.control.memory_freed();
    }
}

/// Where memory is short, gives back those pages of its sources that only this unit read: survivors keep their
/// order, so what a unit was built from lies between what its neighbours are. Sources that nobody else reads
/// are left out: they are about to be drained as a whole. Before the unit lets go of its sources; safe in a signal
/// handler.
///
/// Of a huge page given back in part the system takes the rest of the memory when it runs short of it.
pub fn give_back_parts(core: &Core, unit: PageIndex, pages: usize, sources: Sources) {
    let space = &core.space;
    if !space.is_short() {
        return;
    }
    let own = own_chunks(core, unit, pages);
    let mut region = sources.first;
    for nth in 0..sources.count {
        let record = space.regions.record(region);
        let chunks = region.first_chunk().0..region.first_chunk().0 + REGION_CHUNKS as u32;
        let (begin, end) = (own.start.max(chunks.start), own.end.min(chunks.end));
        // Acquire: pairs with the AcqRel in `release_sources`: who read these pages too has finished.
        if begin < end && record.readers.load(Ordering::Acquire) > 1 {
            let first = (begin - chunks.start).div_ceil(PAGE_CHUNKS);
            // Nothing lives beyond the top, and there may be no memory.
            let filled = record.top.load(Ordering::Relaxed).div_ceil(PAGE_BYTES as u32);
            let last = ((end - chunks.start) / PAGE_CHUNKS).min(filled);
            if first < last {
                space.discard_pages(region, first as usize..last as usize);
            }
        }
        if nth + 1 < sources.count {
            region = RegionIndex(record.next_evacuated.load(Ordering::Relaxed));
        }
    }
}

/// The chunks that no unit but this one reads. The group at the beginning may be shared with the unit before, and
/// the end of its last object lies in the chunk in which the next group begins.
fn own_chunks(core: &Core, unit: PageIndex, pages: usize) -> std::ops::Range<u32> {
    let space = &core.space;
    let source = |page: PageIndex| space.page_source[page.index()].load(Ordering::Relaxed);
    let record = space.regions.record(unit.region());
    let filled_pages = (record.top.load(Ordering::Relaxed) as usize).div_ceil(PAGE_BYTES);
    let end = if unit.in_region() + pages < filled_pages {
        source(PageIndex(unit.0 + pages as u32))
    } else {
        record.sources_end.load(Ordering::Relaxed)
    };
    let group = ChunkIndex(source(unit));
    let mut begin = group.0 + 1;
    if unit.in_region() > 0 {
        // A group does not leave its region.
        let region_end = group.region().next().first_chunk().0;
        while begin < end.min(region_end) && space.live.chunk(ChunkIndex(begin)).starts() == 0 {
            begin += 1;
        }
        begin += 1;
    }
    begin..end
}

/// Frees an evacuated (or staging) region, of whose pages some may have been moved away.
fn free_evacuated(core: &Core, region: RegionIndex, moved: bool) {
    let record = core.space.regions.record(region);
    if record.taken.load(Ordering::Relaxed) {
        core.space.discard_alias(region);
    } else if moved && core.space.is_partly_resident(region) {
        // Pages that lost a race are still there; most of such regions are empty, and this costs little.
        core.space.discard(region);
    }
    core.space.free_region(region);
}

/// Ends the cycle's service. All units are installed.
pub fn concurrent_finish(core: &Core, compacting: &Compacting) {
    assert!(core.serving.is_complete(), "reclaim begins when no page is missing");
    let space = &core.space;
    end_registrations(core, &compacting.registered);
    for &region in &compacting.missing {
        end_service(core, region);
    }
    release_staging(core);
    close_aliases(core, compacting);
    for &window in &compacting.registered {
        space.window(window).registered.store(false, Ordering::Relaxed);
        space.window(window).taken_whole.store(false, Ordering::Relaxed);
    }
    settle(core, &compacting.plan.evacuated, &compacting.plan.destinations);
    space.set_compacting(false);
    core.control.memory_freed();
}

/// Ends registrations, then service.
fn end_registrations(core: &Core, windows: &[WindowIndex]) {
    let Some(pages) = &core.serving.pages else { return };
    for &window in windows {
        if let Err(error) = pages.unregister(core.space.range.window_address(window), WINDOW_BYTES) {
            panic!("reclaim: window {} cannot be unregistered: {error}", window.0);
        }
    }
    core.serving.deactivate();
}

/// The flip cannot be: undoes plan and preparation. Mutators go on in what they have; evacuated regions are
/// candidates again in the next cycle. The caller turns the barriers off.
pub fn abandon(core: &Core, plan: &Plan, preparation: &Preparation) {
    let space = &core.space;
    end_registrations(core, &preparation.registered);
    for &window in preparation.registered.iter().chain(&preparation.register).chain(&preparation.windows) {
        space.window(window).registered.store(false, Ordering::Relaxed);
        space.window(window).taken_whole.store(false, Ordering::Relaxed);
    }
    for region in preparation.runs.iter().flat_map(|run| run.iter()) {
        space.regions.record(region).to_be_taken.store(false, Ordering::Relaxed);
    }
    for region in preparation.windows.iter().flat_map(|window| window.regions()) {
        space.regions.record(region).to_be_taken.store(false, Ordering::Relaxed);
    }
    core.serving.staging.take_all(|region| space.free_region(region));
    for &region in &plan.evacuated {
        space.regions.set_verdict(region, Verdict::Stay);
        space.hold(region, Holding::Objects);
    }
    // Only now: a region that is handed out again must not be forwarded into.
    for &region in &plan.destinations {
        space.free_region(region);
    }
    while core.barrier.take_overflowed().is_some() {}
    space.set_compacting(false);
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
    // Whatever is moved now: moving may have been switched off since this staging was moved from.
    let moved = core.serving.installer.may_have_moved();
    core.serving.staging.take_all(|region| free_evacuated(core, region, moved));
}

/// Replaces used aliases by inaccessible ones: left mapped, the next flip would have to unmap them in
/// its pause.
fn close_aliases(core: &Core, compacting: &Compacting) {
    let space = &core.space;
    let windows = compacting.windows.iter().map(|&window| (space.range.window_address(window), WINDOW_BYTES));
    for (start, bytes) in compacting.runs.iter().map(|run| run.range(core)).chain(windows) {
        if space.reservation.close_alias(start, bytes).is_err() {
            // Too many mappings: it stays open, but empty. Refused too, its memory stays until the next flip.
            let _ = space.reservation.discard(start.get() + WINDOW_BYTES, bytes);
        }
    }
    space.aliases_closed();
}

/// Classes for the time until the next cycle: what was filled while marking is new, and so young; all else is
/// settled, and so old. Forwarding into evacuated regions ends: no page holds an old address any more.
pub fn settle(core: &Core, evacuated: &[RegionIndex], destinations: &[RegionIndex]) {
    core.remembered.forward(core, evacuated, destinations);
    let regions = &core.space.regions;
    for &region in evacuated {
        regions.set_verdict(region, Verdict::Stay);
    }
    for region in regions.in_use() {
        regions.set_verdict(region, Verdict::Stay);
        let class = match (regions.usage(region), regions.class(region)) {
            (Use::Free, class) => class,
            (Use::Roots | Use::Staging | Use::Destination, _) => Class::Settled,
            (_, Class::New | Class::Fresh) => Class::New,
            (_, Class::Candidate | Class::Traced | Class::Settled | Class::Free) => Class::Settled,
        };
        regions.set_class(region, class);
    }
}
