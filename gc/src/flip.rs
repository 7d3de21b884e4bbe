//! The flip: what is prepared before the one pause, and the pause itself.
//!
//! Run by the controller. [`concurrent_prepare`] decides what is rewritten in the pause and what is
//! taken, and registers what can be registered before; [`pause_flip`] then makes the plan true: roots
//! and slots get new addresses or their pages are taken away.
//!
//! Nothing in the pause grows with the heap, live data, roots, stacks or bytes allocated, but for one
//! list entry for each destination and each region of a taken window (nanoseconds). It is: each
//! mutator's context; the slots recorded since the preparation (bounded by what a region's list
//! holds, and by how short that time is); the patch budget; hot root pages (one a thread); one
//! `mremap` a taken run or window; one registration a window.
//!
//! A run that the system refuses to have taken (it has no room for another mapping) is rewritten in the
//! pause: longer, but nothing is lost.
//!
//! Invariants:
//! 1. After the pause no mutator holds, and no page it can reach contains, an address in an
//!    evacuated region.
//! 2. `mremap` comes first, registration second: the kernel moves registered pages one by one.

use std::io;
use std::time::{Duration, Instant};

use crate::address::{PageIndex, RegionIndex, ToAddress, WindowIndex, WordIndex};
use crate::barrier::Recorded;
use crate::build::rewrite_region;
use crate::core::Core;
use crate::embedder::WorldStopped;
use crate::forward::patch;
use crate::geometry::{PAGE_BYTES, REGION_BYTES, REGION_PAGES, WINDOW_BYTES};
use crate::options::Delivery;
use crate::plan::{Plan, slot_needs_rewriting};
use crate::reclaim::{self, give_back_parts, release_drained};
use crate::region::{Class, Service, Use, Verdict};
use crate::serve::{RETURN_UNIT_SHIFT, ROOT_UNIT_SHIFT, release_sources};
use crate::space::{Contents, Role, Space};
use crate::stress::StressMode;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sys::PageService;

/// Paged root pages that are rewritten in the pause rather than taken: about 1 µs each, and taking even one
/// region costs 70 µs.
const ROOT_PAGES_IN_PAUSE: usize = 48;
/// What taking costs in the pause, in microseconds: a call, each region of it, a whole window.
const RUN_US: usize = 8;
const REGION_US: usize = 1;
const WINDOW_US: usize = 50;
/// Regions that mutators may fill while a compaction goes on, for which room is made.
const REGIONS_FOR_MUTATORS: usize = 2;

/// Regions to be taken with one call.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Run {
    first: RegionIndex,
    regions: u32,
}

/// What the pause will do, decided before it.
#[derive(Debug, Default)]
pub struct Preparation {
    /// Slots that are rewritten in the pause.
    slots: Vec<WordIndex>,
    /// Regions that hold slots to be rewritten, but must not be taken: something in them is pinned.
    scanned_in_pause: Vec<RegionIndex>,
    /// Runs of regions to be taken.
    pub runs: Vec<Run>,
    /// Windows to be taken whole.
    pub windows: Vec<WindowIndex>,
    /// Windows to be registered in the pause.
    pub register: Vec<WindowIndex>,
    /// Windows registered already.
    pub registered: Vec<WindowIndex>,
}

/// What is being compacted: only reclaim ends it.
#[derive(Debug)]
pub struct Compacting {
    /// The plan.
    pub plan: Plan,
    /// Windows that are registered.
    pub registered: Vec<WindowIndex>,
    /// Windows that were taken whole.
    pub windows: Vec<WindowIndex>,
    /// Runs of regions that were taken.
    pub runs: Vec<Run>,
    /// Regions with missing units.
    pub missing: Vec<RegionIndex>,
    /// How many of them were taken.
    pub taken: usize,
    /// Slots patched in the pause.
    pub patched: u64,
    /// Of the pause: time to end marking and to rewrite slots and roots.
    pub patch_time: Duration,
    /// Of the pause: time to take regions and windows and to register them.
    pub take_time: Duration,
}

impl Run {
    /// First address and bytes.
    #[must_use]
    pub fn range(self, core: &Core) -> (ToAddress, usize) {
        (core.space.range.region_address(self.first), self.regions as usize * REGION_BYTES)
    }

    /// The regions.
    pub fn iter(self) -> impl Iterator<Item = RegionIndex> {
        (self.first.0..self.first.0 + self.regions).map(RegionIndex)
    }
}

/// Decides what is rewritten in the pause and what is taken; registers destinations; begins service.
///
/// # Errors
/// The kernel refuses a registration. Nothing has been changed for mutators then, and all that was prepared is
/// undone: no region is evacuated or about to be taken.
pub fn concurrent_prepare(core: &Core, plan: &mut Plan) -> io::Result<Preparation> {
    let mut preparation = Preparation::default();
    match prepare(core, plan, &mut preparation) {
        Ok(()) => Ok(preparation),
        Err(error) => {
            reclaim::abandon(core, plan, &preparation);
            Err(error)
        }
    }
}

fn prepare(core: &Core, plan: &mut Plan, preparation: &mut Preparation) -> io::Result<()> {
    core.serving.activate(std::mem::take(&mut plan.slots));
    let mut taken = divide(core, plan, preparation);
    let (space, stress) = (&core.space, core.stress());
    if stress.is_on(StressMode::TakeNothing) {
        stress.add(StressMode::TakeNothing, taken.len() as u64);
        preparation.scanned_in_pause.append(&mut taken);
    }
    let moves = |object| space.regions.verdict(space.range.region(object)) == Verdict::Evacuate;
    let (root_pages, root_regions) = core.roots.recheck(moves);
    if root_pages > root_pages_in_pause(core) {
        taken.extend(root_regions);
    }
    taken.sort_unstable();
    for mode in [StressMode::TakeAll, StressMode::TakeWindows] {
        if stress.is_on(mode) {
            stress.add(mode, taken.len() as u64);
        }
    }
    group(core, &taken, preparation);
    for &region in &taken {
        core.space.regions.record(region).to_be_taken.store(true, Ordering::Relaxed);
    }
    for &window in &preparation.register {
        core.space.window(window).registered.store(true, Ordering::Relaxed);
    }
    for &window in &preparation.windows {
        core.space.window(window).taken_whole.store(true, Ordering::Relaxed);
        core.space.trim_window(window);
    }
    space.make_headroom(regions_needed(core, plan, taken.len()));
    space.set_compacting(true);
    reserve_staging(core)?;
    register_destinations(core, plan, preparation)?;
    // What mutators recorded while the plan was made, so that little is left for the pause.
    core.handshake(&|context| context.hand_over_records());
    for_each_late_slot(core, |slot| preparation.slots.push(slot));
    Ok(())
}

/// Regions whose memory compaction needs at the same time as that of what it compacts, at most. What is moved is never there
/// twice.
fn regions_needed(core: &Core, plan: &Plan, taken: usize) -> usize {
    let copied = if core.serving.installer.moves() { 0 } else { plan.destinations.len() + taken };
    copied + builders(core) + REGIONS_FOR_MUTATORS
}

/// Whether stress has everything taken that holds slots to be rewritten.
fn takes_all(core: &Core) -> bool {
    core.stress().is_on(StressMode::TakeAll) || core.stress().is_on(StressMode::TakeWindows)
}

/// Paged root pages that are rewritten in the pause, if there are not more.
fn root_pages_in_pause(core: &Core) -> usize {
    match core.stress().is_on(StressMode::TakeNothing) {
        true => usize::MAX,
        false if takes_all(core) => 0,
        false => ROOT_PAGES_IN_PAUSE,
    }
}

/// Slots within the budget go to the pause, fewest first; the regions of the others are taken.
fn divide(core: &Core, plan: &Plan, preparation: &mut Preparation) -> Vec<RegionIndex> {
    let regions = &core.space.regions;
    let (pinned, free): (Vec<_>, Vec<_>) =
        plan.rewritten.iter().partition(|&&region| regions.is_pinned(region));
    preparation.scanned_in_pause = pinned;
    let (mut patched, mut taken): (Vec<_>, Vec<_>) =
        free.into_iter().partition(|&region| regions.verdict(region) == Verdict::Patch);
    patched.sort_by_key(|&region| core.serving.slots_of(core, region).len());
    let mut budget = if takes_all(core) { 0 } else { core.options.patch_budget };
    for region in patched {
        let slots = core.serving.slots_of(core, region);
        if slots.len() <= budget {
            budget -= slots.len();
            preparation.slots.extend_from_slice(slots);
        } else {
            budget = 0;
            taken.push(region);
        }
    }
    taken
}

/// Groups the (sorted) regions into runs, or whole windows where that is cheaper for the pause.
fn group(core: &Core, taken: &[RegionIndex], preparation: &mut Preparation) {
    for of_window in taken.chunk_by(|a, b| a.window() == b.window()) {
        let window = of_window[0].window();
        let runs: Vec<_> = of_window
            .chunk_by(|a, b| a.next() == *b)
            .map(|run| Run { first: run[0], regions: run.len() as u32 })
            .collect();
        // The root window holds the hot pages, which are not taken; nor is what is pinned.
        let whole_window =
            window.0 != 0 && !window.regions().any(|region| core.space.regions.is_pinned(region));
        let stress = core.stress();
        // Inaccessible regions cut a window into several mappings, which cannot be taken at once.
        let whole_window = whole_window && !stress.is_on(StressMode::ProtectFreed);
        let is_cheaper = runs.len() * RUN_US + of_window.len() * REGION_US > WINDOW_US;
        let is_wanted = is_cheaper || stress.is_on(StressMode::TakeWindows);
        if whole_window && is_wanted && leaves_staging(&core.space, window, &preparation.windows) {
            preparation.windows.push(window);
        } else {
            preparation.runs.extend(runs);
        }
        preparation.register.push(window);
    }
}

/// Whether there is a free region outside of `window`, the root window, and those in `whole`: staging cannot be in a
/// window that is taken whole.
fn leaves_staging(space: &Space, window: WindowIndex, whole: &[WindowIndex]) -> bool {
    let free = space.lock();
    let mut others = space.windows().skip(1).filter(|other| *other != window && !whole.contains(other));
    others.any(|other| free.in_window(other).next().is_some())
}

/// Threads that build at the same time: workers, and as many mutators that serve themselves.
fn builders(core: &Core) -> usize {
    core.options.workers * if core.options.delivery == Some(Delivery::InPlace) { 2 } else { 1 }
}

/// Staging for the beginning, until evacuated regions are drained: for each worker, and as much for
/// mutators that serve themselves, so that none waits for another's. Its memory is asked for now, while
/// nobody waits for a page.
///
/// # Errors
/// There is no region for any: nothing could be built.
fn reserve_staging(core: &Core) -> io::Result<()> {
    let order = [Role::Young, Role::YoungMarking, Role::Old];
    for nth in 0..builders(core) {
        // Where memory is short, they take turns.
        if nth > 0 && core.space.is_too_much(1) {
            break;
        }
        let region = core.space.allocate_for_collector(Use::Staging, &order, Contents::MayBeDirty);
        let region = match region {
            Some(region) => region,
            None if nth == 0 => return Err(io::Error::other("no region is left for staging")),
            None => break,
        };
        // Refused (the window may be registered): its pages come when they are written.
        let _ = core.space.reservation.populate(core.space.range.region_address(region), REGION_BYTES);
        core.serving.staging.reserve(&core.space, region);
    }
    Ok(())
}

/// Registers the windows with destinations that are not registered in the pause anyway.
fn register_destinations(core: &Core, plan: &Plan, preparation: &mut Preparation) -> io::Result<()> {
    let mut windows: Vec<_> = plan.destinations.iter().map(|region| region.window()).collect();
    windows.sort_unstable();
    windows.dedup();
    windows.retain(|window| !preparation.register.contains(window));
    for window in windows {
        core.space.window(window).registered.store(true, Ordering::Relaxed);
        let start = core.space.range.window_address(window);
        if let Err(error) = page_service(core).try_register(start, WINDOW_BYTES) {
            core.space.window(window).registered.store(false, Ordering::Relaxed);
            return Err(error);
        }
        preparation.registered.push(window);
    }
    Ok(())
}

fn page_service(core: &Core) -> &dyn PageService {
    core.serving.pages.as_deref().expect("a flip with missing pages needs a page service")
}

fn register(core: &Core, window: WindowIndex) -> io::Result<()> {
    page_service(core).register(core.space.range.window_address(window), WINDOW_BYTES)
}

/// Goes through the slots that mutators handed over since the plan. Regions that are to be taken are
/// scanned when they are served; `in_place` is given the slots of the others.
fn for_each_late_slot(core: &Core, mut in_place: impl FnMut(WordIndex)) {
    while let Some(buffer) = core.barrier.take(Recorded::Slots) {
        for &slot in buffer.entries() {
            if !slot_needs_rewriting(&core.space, slot) {
                continue;
            }
            if is_to_be_taken(core, slot.region()) {
                core.space.regions.set_verdict(slot.region(), Verdict::Scan);
            } else {
                in_place(slot);
            }
        }
        core.barrier.give_back(buffer);
    }
}

fn is_to_be_taken(core: &Core, region: RegionIndex) -> bool {
    core.space.regions.record(region).to_be_taken.load(Ordering::Relaxed)
        || core.space.window(region.window()).taken_whole.load(Ordering::Relaxed)
}

/// The pause. Must not fail: a registration that the kernel refuses here leaves no way back.
pub fn pause_flip(
    core: &Core,
    plan: Plan,
    mut preparation: Preparation,
    _world: &WorldStopped,
) -> Compacting {
    let start = Instant::now();
    end_marking(core);
    take_overflowed(core, &mut preparation);
    let mut patched = patch_slots(core, &preparation.slots);
    for_each_late_slot(core, |slot| patched += patch_slots(core, &[slot]));
    for &region in &preparation.scanned_in_pause {
        patched += rewrite_region(&core.space, region, core.serving.slots_of(core, region));
    }
    rewrite_roots(core);
    let patch_time = start.elapsed();
    patched += take(core, &mut preparation);
    let take_time = start.elapsed() - patch_time;
    let mut missing = vec![];
    let mut units = announce_taken(core, &preparation, &mut missing);
    let taken = missing.len();
    for &region in &plan.destinations {
        units += core.space.regions.record(region).missing_units.load(Ordering::Relaxed) as usize;
        missing.push(region);
    }
    core.serving.set_missing(missing.clone(), units);
    let mut registered = preparation.registered;
    registered.extend(preparation.register);
    let Preparation { windows, runs, .. } = preparation;
    Compacting { plan, registered, windows, runs, missing, taken, patched, patch_time, take_time }
}

/// Turns the barrier off and gives each mutator a new buffer in a new region.
pub fn end_marking(core: &Core) {
    let barrier = Core::idle_barrier(&core.options);
    core.set_barrier(barrier);
    core.embedder.for_each_stopped(&mut |context| {
        context.retire_buffer();
        context.hand_over_records();
        context.set_barrier(barrier);
    });
    core.space.set_allocation_class(Class::New);
    core.shared.close();
}

/// Regions that overflowed since the plan are scanned, and so taken.
fn take_overflowed(core: &Core, preparation: &mut Preparation) {
    while let Some(region) = core.barrier.take_overflowed() {
        if core.space.regions.verdict(region) == Verdict::Evacuate {
            continue;
        }
        core.space.regions.set_verdict(region, Verdict::Scan);
        if is_to_be_taken(core, region) {
            continue;
        }
        if core.space.regions.is_pinned(region) || core.stress().acts(StressMode::TakeNothing) {
            preparation.scanned_in_pause.push(region);
            continue;
        }
        core.space.regions.record(region).to_be_taken.store(true, Ordering::Relaxed);
        preparation.runs.push(Run { first: region, regions: 1 });
        let window = region.window();
        if !preparation.register.contains(&window) && !preparation.registered.contains(&window) {
            core.space.window(window).registered.store(true, Ordering::Relaxed);
            preparation.register.push(window);
        }
    }
}

/// Rewrites slots where they are: the world is stopped and nothing is taken yet.
fn patch_slots(core: &Core, slots: &[WordIndex]) -> u64 {
    let cell = |slot: WordIndex| {
        // SAFETY: the slot lies in a region in use that is not taken; all accesses are atomic.
        unsafe { &*core.space.range.address(slot).as_ptr::<AtomicU64>() }
    };
    slots.iter().filter(|&&slot| patch(&core.space, cell(slot))).count() as u64
}

/// Rewrites the hot root pages, and those noted pages that are not taken.
pub fn rewrite_roots(core: &Core) {
    core.roots.hot_pages().for_each(|page| rewrite_root_page(core, page));
    for region in core.roots.paged_regions() {
        if !is_to_be_taken(core, region) {
            core.roots.noted_pages_of(region).for_each(|page| rewrite_root_page(core, page));
        }
    }
}

fn rewrite_root_page(core: &Core, page: PageIndex) {
    for slot in core.roots.slots(page) {
        patch(&core.space, slot);
    }
}

/// Takes runs and windows, and registers. What cannot be taken leaves the preparation, and is rewritten here;
/// returns how many slots that changed.
fn take(core: &Core, preparation: &mut Preparation) -> u64 {
    let reservation = &core.space.reservation;
    let turn = core.cycles_begun().into();
    let is_refused = || core.stress().acts_by_turns(StressMode::RefuseTakes, &turn);
    let mut patched = 0;
    preparation.runs.retain(|run| {
        let (start, bytes) = run.range(core);
        let taken = !is_refused() && reservation.take(start, bytes).is_ok();
        if !taken {
            patched += rewrite_untaken(core, run.iter());
        }
        taken
    });
    preparation.windows.retain(|&window| {
        let start = core.space.range.window_address(window);
        let taken = !is_refused() && reservation.take(start, WINDOW_BYTES).is_ok();
        if !taken {
            core.space.window(window).taken_whole.store(false, Ordering::Relaxed);
            patched += rewrite_untaken(core, window.regions());
        }
        taken
    });
    for &window in &preparation.register {
        if let Err(error) = register(core, window) {
            panic!("flip: window {} cannot be registered: {error}", window.0);
        }
    }
    patched
}

/// Rewrites what would have been rewritten when the regions were served. Before their window is registered.
fn rewrite_untaken(core: &Core, regions: impl Iterator<Item = RegionIndex>) -> u64 {
    let mut patched = 0;
    for region in regions {
        core.space.regions.record(region).to_be_taken.store(false, Ordering::Relaxed);
        match core.space.regions.usage(region) {
            Use::Free | Use::Destination | Use::Staging => {}
            Use::Roots => core.roots.noted_pages_of(region).for_each(|page| rewrite_root_page(core, page)),
            _ => patched += rewrite_region(&core.space, region, core.serving.slots_of(core, region)),
        }
    }
    patched
}

/// Notes how the taken regions are served. Returns the number of units.
fn announce_taken(core: &Core, preparation: &Preparation, missing: &mut Vec<RegionIndex>) -> usize {
    let mut units = 0;
    for region in preparation.runs.iter().flat_map(|run| run.iter()) {
        units += announce_region(core, region, missing);
    }
    for region in preparation.windows.iter().flat_map(|window| window.regions()) {
        units += announce_region(core, region, missing);
    }
    let counters = &core.stats.counters;
    counters.regions_taken.fetch_add(missing.len() as u64, Ordering::Relaxed);
    counters.windows_taken.fetch_add(preparation.windows.len() as u64, Ordering::Relaxed);
    units
}

fn announce_region(core: &Core, region: RegionIndex, missing: &mut Vec<RegionIndex>) -> usize {
    let usage = core.space.regions.usage(region);
    if matches!(usage, Use::Free | Use::Destination | Use::Staging) {
        return 0;
    }
    let record = core.space.regions.record(region);
    record.taken.store(true, Ordering::Relaxed);
    if core.space.regions.verdict(region) == Verdict::Evacuate {
        // Read in its alias; nobody has an address in it any more.
        return 0;
    }
    let shift = match usage {
        Use::Roots if core.stress().acts(StressMode::PageUnits) => 0,
        Use::Roots => ROOT_UNIT_SHIFT,
        _ => RETURN_UNIT_SHIFT,
    };
    let units = REGION_PAGES >> shift;
    record.unit_shift.store(shift, Ordering::Relaxed);
    record.missing_units.store(units as u32, Ordering::Relaxed);
    core.space.regions.set_service(region, Service::Return);
    missing.push(region);
    units
}

/// The flip of stop-the-world mode: everything is rewritten and built in the pause, in parallel.
pub fn pause_compact(core: &Core, plan: Plan, pool: &rayon::ThreadPool, _world: &WorldStopped) -> Compacting {
    let space = &core.space;
    let patched = AtomicU64::new(0);
    pool.in_place_scope(|scope| {
        for &region in &plan.rewritten {
            let (slots, patched) = (&plan.slots, &patched);
            scope.spawn(move |_| {
                let record = space.regions.record(region);
                let begin = record.slots_begin.load(Ordering::Relaxed) as usize;
                let end = record.slots_end.load(Ordering::Relaxed) as usize;
                let changed = rewrite_region(space, region, &slots[begin..end]);
                patched.fetch_add(changed, Ordering::Relaxed);
            });
        }
        for &region in &plan.destinations {
            scope.spawn(move |_| build_in_place(core, region));
        }
    });
    rewrite_roots(core);
    Compacting {
        patched: patched.into_inner(),
        registered: vec![],
        windows: vec![],
        runs: vec![],
        missing: vec![],
        taken: 0,
        patch_time: Duration::ZERO,
        take_time: Duration::ZERO,
        plan,
    }
}

fn build_in_place(core: &Core, region: RegionIndex) {
    let top = core.space.regions.record(region).top.load(Ordering::Relaxed) as usize;
    let pages = top.div_ceil(PAGE_BYTES);
    let to = core.space.range.region_address(region);
    // SAFETY: a destination is empty, mapped, not registered in this mode, and built by this task
    // alone; it holds `pages` pages.
    let sources = unsafe { crate::build::build_pages(&core.space, region.first_page(), pages, to.as_ptr()) };
    // Touched for the first time, a huge page comes whole.
    core.space.add_pages(region, if core.options.huge_pages { REGION_PAGES } else { pages });
    core.space.complete_destination(region);
    core.space.regions.set_service(region, Service::Zero);
    give_back_parts(core, region.first_page(), pages, sources);
    release_sources(core, sources);
    release_drained(core);
    core.stats.counters.built_in_place_bytes.fetch_add((pages * PAGE_BYTES) as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::HeapOptions;

    #[test]
    fn some_window_is_left_to_build_in() {
        let options = HeapOptions { limit_bytes: 16 * REGION_BYTES, ..HeapOptions::default() };
        let space = Space::new(&options, &Default::default()).expect("room for a small heap");
        let windows: Vec<_> = space.windows().skip(1).collect();
        let (&last, others) = windows.split_last().expect("windows for objects");
        for (nth, &window) in others.iter().enumerate() {
            assert!(leaves_staging(&space, window, &others[..nth]), "{} are left", windows.len() - nth - 1);
        }
        assert!(!leaves_staging(&space, last, others), "nothing but the root window is left");
        // Nor does a window help that is full.
        let mut free = space.lock();
        last.regions().for_each(|region| free.take(region));
        drop(free);
        let (&second_last, others) = others.split_last().expect("several windows");
        assert!(!leaves_staging(&space, second_last, others));
    }
}
