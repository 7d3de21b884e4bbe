//! Serving: after the flip, missing pages are built and installed, by workers in order and by (or
//! for) the mutators that touch them first.
//!
//! Run by workers, by faulting mutators in a signal handler (delivery in place) and by the pool on
//! their behalf (delivery by pool). One routine under all of them: [`serve_unit`]. The protocol is in
//! [`crate::page_state`]; it neither allocates nor locks.
//!
//! Invariants:
//! 1. `slots` and `order` are written by the controller only while service is inactive.
//! 2. While service is active, plan, tables and from-space do not change (except as the protocol
//!    says), so whoever is counted in `inside` may read them.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::address::{PageIndex, RegionIndex, ToAddress, WordIndex};
use crate::build::{Sources, build_pages, rewrite_region, rewrite_root_pages};
use crate::core::Core;
use crate::events::FaultPath;
use crate::geometry::{PAGE_BYTES, REGION_PAGES};
use crate::install::{Installer, Request, install_zeros};
use crate::options::{Delivery, Mode};
use crate::page_state::{self, Claim, ServingState, UnitState};
use crate::reclaim::give_back_parts;
use crate::region::{Service, Use};
use crate::staging::Staging;
use crate::stress::StressMode;
use crate::sys::PageService;
use crate::sys::schedule::{Schedule, Step};
use crate::verify::shadow::Published;

/// log2 of the pages that are returned together from a taken region: all of them.
pub const RETURN_UNIT_SHIFT: u8 = REGION_PAGES.trailing_zeros() as u8;
/// log2 of the pages of root slots that are returned together: rewriting one looks at each slot.
pub const ROOT_UNIT_SHIFT: u8 = 2;
/// How long a mutator waits for a claimed unit before it builds the page that it needs beside it: longer
/// than building any unit takes, so only a claim holder that lost its processor is overtaken. (A page
/// installed alone costs the unit its huge page.)
const OVERTAKE_AFTER: Duration = Duration::from_millis(2);

/// Serving of one heap.
#[derive(Debug)]
pub struct Serving {
    /// The kernel's page operations; `None` in modes without faults.
    pub pages: Option<Arc<dyn PageService>>,
    /// Staging.
    pub staging: Staging,
    /// Installing.
    pub installer: Installer,
    state: ServingState,
    /// Next region of `order` for a worker to look at.
    next: AtomicUsize,
    /// The plan's sorted slots (invariant 1).
    slots: UnsafeCell<Vec<WordIndex>>,
    /// Regions with missing units, in the order workers take them (invariant 1).
    order: UnsafeCell<Vec<RegionIndex>>,
    /// What the verifier compares with.
    pub(crate) shadow: Published,
}

// SAFETY: the two cells are written by the controller only while service is inactive and nobody is
// inside (invariant 1); everything else in them is shared by atomics.
unsafe impl Sync for Serving {}

impl Serving {
    /// Serving for a heap of `regions` regions.
    #[must_use]
    pub fn new(regions: usize, mode: Mode, pages: Option<Arc<dyn PageService>>) -> Self {
        Self {
            state: ServingState::new(pages.clone()),
            pages,
            staging: Staging::new(regions),
            installer: Installer::new(mode),
            next: AtomicUsize::new(0),
            slots: UnsafeCell::new(vec![]),
            order: UnsafeCell::new(vec![]),
            shadow: Published::default(),
        }
    }

    /// In a simulation: which thread goes on.
    pub(crate) fn schedule(&self) -> Option<&dyn Schedule> {
        self.state.schedule()
    }

    /// A step of the protocol, where a simulation may let another thread run.
    pub(crate) fn step(&self, step: Step) {
        self.state.step(step);
    }

    /// Runs `work` on `count` threads and returns when all are done.
    pub(crate) fn run_workers(&self, pool: &rayon::ThreadPool, count: usize, work: &(dyn Fn() + Sync)) {
        match self.schedule() {
            Some(schedule) => schedule.run_workers(count, work),
            None => pool.in_place_scope(|scope| (0..count).for_each(|_| scope.spawn(|_| work()))),
        }
    }

    /// Begins service: the plan's slots become visible to whoever serves. Before anything is
    /// registered.
    pub fn activate(&self, slots: Vec<WordIndex>) {
        self.next.store(0, Ordering::Relaxed);
        // SAFETY: service is inactive (invariant 1).
        self.state.begin(|| unsafe { *self.slots.get() = slots });
    }

    /// Says what is missing, in the order workers take it. In the pause: no mutator can fault.
    pub fn set_missing(&self, order: Vec<RegionIndex>, units: usize) {
        // SAFETY: called in the pause, before workers start; handlers do not read `order`.
        unsafe { *self.order.get() = order };
        self.state.set_missing(units);
    }

    /// Ends service. Before it: everything is installed and unregistered. Returns when no thread is
    /// inside any more.
    pub fn deactivate(&self) {
        self.state.end();
        // SAFETY: service is inactive, and nobody is inside (invariant 1).
        unsafe { (*self.slots.get()).clear() };
        self.shadow.withdraw();
    }

    /// Whether every unit is installed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state.is_complete()
    }

    pub(crate) fn slots_of(&self, core: &Core, region: RegionIndex) -> &[WordIndex] {
        let record = core.space.regions.record(region);
        let begin = record.slots_begin.load(Ordering::Relaxed) as usize;
        let end = record.slots_end.load(Ordering::Relaxed) as usize;
        // SAFETY: service is active, so nobody writes the cell (invariant 1).
        unsafe { &(&*self.slots.get())[begin..end] }
    }

    fn order(&self) -> &[RegionIndex] {
        // SAFETY: as in `slots_of`: workers run only while service is active.
        unsafe { &*self.order.get() }
    }

    /// Waits until every unit is installed.
    pub fn wait_until_complete(&self) {
        self.state.wait(Duration::MAX, || self.is_complete());
    }
}

/// First page of the unit that `page` belongs to.
fn unit_of(core: &Core, page: PageIndex) -> PageIndex {
    let shift = core.space.regions.record(page.region()).unit_shift.load(Ordering::Relaxed);
    PageIndex(page.0 >> shift << shift)
}

fn unit_pages(core: &Core, region: RegionIndex) -> usize {
    1 << core.space.regions.record(region).unit_shift.load(Ordering::Relaxed)
}

/// Builds or returns the unit, if nobody else has claimed it.
pub fn serve_unit(core: &Core, unit: PageIndex) -> Claim {
    let region = unit.region();
    let install = || {
        let pages = unit_pages(core, region);
        match core.space.regions.service(region) {
            Service::Build => Some(build_unit(core, unit, pages)),
            Service::Return => {
                return_unit(core, unit, pages);
                None
            }
            Service::Zero => {
                unreachable!("a unit of region {} is served, but nothing is to be built", region.0)
            }
        }
    };
    let release = |sources: Option<Sources>| {
        if let Some(sources) = sources {
            give_back_parts(core, unit, unit_pages(core, region), sources);
            release_sources(core, sources);
        }
        // AcqRel: the last unit's installer sees that all others are done.
        if core.space.regions.record(region).missing_units.fetch_sub(1, Ordering::AcqRel) == 1
            && core.space.regions.usage(region) == Use::Destination
        {
            core.space.complete_destination(region);
        }
    };
    core.serving.state.serve(&core.space.unit_state[unit.index()], install, release)
}

/// Pages of a destination unit that are built. Only where whole huge pages are moved is the empty
/// rest built too: a huge page moved in part is split.
fn pages_to_build(core: &Core, unit: PageIndex, pages: usize) -> usize {
    if pages == REGION_PAGES && core.serving.installer.moves() && core.options.huge_pages {
        return pages;
    }
    pages.min(contents_pages(core, unit.region()) - unit.in_region())
}

fn build_unit(core: &Core, unit: PageIndex, pages: usize) -> Sources {
    let pages = pages_to_build(core, unit, pages);
    let serving = &core.serving;
    let page_service = serving.pages.as_deref().expect("units are served in concurrent modes");
    let piece = loop {
        match serving.staging.take(&core.space, pages) {
            Some(piece) => break piece,
            // Held by threads that are building: they give it back without waiting for anybody.
            None => serving.state.yield_now(),
        }
    };
    // SAFETY: the piece is this thread's alone and has room for the pages; the unit was claimed, so
    // it is a page of a destination of the complete plan.
    let sources = unsafe { build_pages(&core.space, unit, pages, piece.address().as_ptr()) };
    serving.shadow.compare(core, unit, pages, piece.address());
    serving.step(Step::Built);
    let request =
        Request { to: core.space.range.page_address(unit), from: piece.address(), bytes: pages * PAGE_BYTES };
    let after = serving.installer.install(page_service, &core.stats, request);
    serving.staging.give_back(&core.space, piece, pages, after);
    core.space.add_pages(unit.region(), pages);
    sources
}

fn return_unit(core: &Core, unit: PageIndex, pages: usize) {
    let (space, region) = (&core.space, unit.region());
    let page_service = core.serving.pages.as_deref().expect("units are served in concurrent modes");
    let changed = if space.regions.usage(region) == Use::Roots {
        rewrite_root_pages(space, unit, pages)
    } else {
        rewrite_region(space, region, core.serving.slots_of(core, region))
    };
    if changed > 0 {
        core.stats.counters.patched_slots.fetch_add(changed, Ordering::Relaxed);
        core.stats.counters.patched_bytes.fetch_add((pages * PAGE_BYTES) as u64, Ordering::Relaxed);
    }
    let (to, from) = (space.range.page_address(unit), space.range.alias(unit.first_word()));
    core.serving.shadow.compare(core, unit, pages, from);
    let filled = pages_to_return(core, unit, pages);
    let request = Request { to, from, bytes: filled * PAGE_BYTES };
    let after = core.serving.installer.install(page_service, &core.stats, request);
    if after == crate::staging::After::Kept {
        space.let_go_of_copied(unit, pages);
    }
}

/// Pages of a taken unit that are installed: all, if they are moved. If they are copied, those that may hold objects,
/// all of which are there afterwards: the kernel takes `mmap_lock` for a page that a COPY reads and that is not, and
/// the lock of one VMA for a page that is read here.
fn pages_to_return(core: &Core, unit: PageIndex, pages: usize) -> usize {
    let (space, region) = (&core.space, unit.region());
    if space.regions.usage(region) == Use::Roots || core.serving.installer.moves() {
        return pages;
    }
    let top = space.regions.record(region).top.load(Ordering::Relaxed) as usize;
    let filled = top.div_ceil(PAGE_BYTES).clamp(1, pages);
    space.reservation.read_pages(space.range.alias(unit.first_word()), filled * PAGE_BYTES);
    filled
}

/// The unit's sources have one reader less; those that nobody reads any more become staging.
pub fn release_sources(core: &Core, sources: Sources) {
    let mut region = sources.first;
    for nth in 0..sources.count {
        let record = core.space.regions.record(region);
        let next = record.next_evacuated.load(Ordering::Relaxed);
        if page_state::done_reading(&record.readers) {
            core.serving.staging.drained(&core.space, region);
        }
        if nth + 1 < sources.count {
            region = RegionIndex(next);
        }
    }
}

/// Serves a mutator's fault on `address`. On return the access can be tried again. Safe in a signal
/// handler.
pub fn serve_fault(core: &Core, address: ToAddress) {
    let start = Instant::now();
    let page = core.space.range.word(address).page();
    let serve = || match core.space.regions.service(page.region()) {
        Service::Zero => zero_page(core, page),
        Service::Build | Service::Return if core.serving.state.is_flipped() => serve_page(core, page),
        // An event of the last cycle, so late that its region is a destination by now. Nobody waits.
        Service::Build | Service::Return => FaultPath::Present,
    };
    // Service ended between the fault and now: the page is there, or not registered any more. But
    // `UFFDIO_UNREGISTER` wakes who waits *before* it ends the registration, and faults are taken
    // under the lock of their mapping alone (since Linux 6.6): one that came in between has waited
    // since, and nobody else will wake it.
    let late = || {
        if let Some(pages) = &core.serving.pages {
            pages.wake(core.space.range.page_address(page), PAGE_BYTES);
        }
    };
    let Some(path) = core.serving.state.serve_fault(serve, late) else { return };
    let latency = start.elapsed();
    core.stats.record_fault(path, latency);
    core.tell(|listener| listener.fault_served(path, latency));
}

fn zero_page(core: &Core, page: PageIndex) -> FaultPath {
    let page_service = core.serving.pages.as_deref().expect("faults happen in concurrent modes");
    install_zeros(page_service, core.space.range.page_address(page));
    FaultPath::Zero
}

fn serve_page(core: &Core, page: PageIndex) -> FaultPath {
    let unit = unit_of(core, page);
    let region = page.region();
    let is_build = core.space.regions.service(region) == Service::Build;
    if is_build && is_beyond_contents(core, unit) {
        return zero_page(core, page);
    }
    let state = &core.space.unit_state[unit.index()];
    if page_state::state(state) == UnitState::Installed {
        // Either it came meanwhile, or nobody ever wrote this page of the taken region.
        let _ = zero_page(core, page);
        return FaultPath::Present;
    }
    let installed = || page_state::state(state) == UnitState::Installed;
    if core.stress().acts(StressMode::NoMutatorService) {
        // Who faulted waits in the kernel if this is not its own thread, and is woken when the page comes.
        if core.options.delivery != Some(Delivery::Pool) {
            core.serving.state.wait(Duration::MAX, installed);
        }
        return FaultPath::Waited;
    }
    match serve_unit(core, unit) {
        Claim::Mine if is_build => FaultPath::Built,
        Claim::Mine => FaultPath::Returned,
        Claim::Others => {
            let at_once = core.stress().acts(StressMode::Overtake);
            let patience = if at_once { Duration::ZERO } else { OVERTAKE_AFTER };
            if core.serving.state.wait(patience, installed) {
                FaultPath::Waited
            } else if is_build && overtake(core, unit, page) {
                FaultPath::Overtaken
            } else {
                core.serving.state.wait(Duration::MAX, installed);
                FaultPath::Waited
            }
        }
        Claim::Installed => FaultPath::Present,
    }
}

/// Builds and copies one page of a destination unit that another thread has claimed and not installed.
/// The same page built twice is the same, and whoever comes second finds it there. False if the unit
/// was installed meanwhile, or there is no staging.
fn overtake(core: &Core, unit: PageIndex, page: PageIndex) -> bool {
    let serving = &core.serving;
    if page.in_region() >= contents_pages(core, page.region()) {
        return false;
    }
    serving.step(Step::Overtaking);
    let build = || {
        let piece = serving.staging.take(&core.space, 1)?;
        // SAFETY: as in `build_unit`; the holder keeps the sources until this guest has left.
        let _ = unsafe { build_pages(&core.space, page, 1, piece.address().as_ptr()) };
        serving.shadow.compare(core, page, 1, piece.address());
        let page_service = serving.pages.as_deref().expect("units are served in concurrent modes");
        let to = core.space.range.page_address(page);
        let request = Request { to, from: piece.address(), bytes: PAGE_BYTES };
        let after = serving.installer.install(page_service, &core.stats, request);
        serving.staging.give_back(&core.space, piece, 1, after);
        Some(())
    };
    serving.state.visit(&core.space.unit_state[unit.index()], build).flatten().is_some()
}

/// Whether no survivor goes to the unit: it is not counted as missing.
fn is_beyond_contents(core: &Core, unit: PageIndex) -> bool {
    let top = core.space.regions.record(unit.region()).top.load(Ordering::Relaxed) as usize;
    unit.in_region() * PAGE_BYTES >= top
}

/// A worker: serves regions in order until every unit has been claimed. `between` runs after each
/// unit.
pub fn work(core: &Core, between: &(dyn Fn() + Sync)) {
    let serving = &core.serving;
    let order = serving.order();
    loop {
        // Relaxed: only divides the regions; units are claimed one by one.
        let next = serving.next.fetch_add(1, Ordering::Relaxed);
        let Some(&region) = order.get(next) else { return };
        let units = unit_pages(core, region);
        let first = region.first_page();
        let end = contents_pages(core, region);
        for page in (0..end).step_by(units) {
            if serve_unit(core, PageIndex(first.0 + page as u32)) == Claim::Mine {
                between();
            }
        }
    }
}

/// How long no mutator must have faulted before [`let_mutators_serve`] touches pages in their stead.
const QUIET: Duration = Duration::from_millis(2);

/// Under stress, instead of [`work`]: mutators' faults are what builds. When none came for a while, this thread
/// touches what is missing, as a mutator would. `between` runs again and again.
pub fn let_mutators_serve(core: &Core, between: &(dyn Fn() + Sync)) {
    core.stress().add(StressMode::NoWorkers, 1);
    let serving = &core.serving;
    loop {
        let before = serving.state.outstanding();
        if serving.state.wait(QUIET, || serving.state.outstanding() < before || serving.is_complete()) {
            between();
        } else {
            break;
        }
        if serving.is_complete() {
            return;
        }
    }
    for &region in serving.order() {
        let first = region.first_page();
        for page in (0..contents_pages(core, region)).step_by(unit_pages(core, region)) {
            let unit = PageIndex(first.0 + page as u32);
            while page_state::state(&core.space.unit_state[unit.index()]) != UnitState::Installed {
                touch(core, unit);
                between();
            }
        }
    }
}

/// Touches a page that may be missing.
fn touch(core: &Core, page: PageIndex) {
    let address = core.space.range.page_address(page);
    if core.serving.schedule().is_some() {
        // In a simulation, an access to a missing page is a call.
        return serve_fault(core, address);
    }
    // SAFETY: the page lies in a region in use; its fault is served like a mutator's: this thread holds no lock,
    // and nobody waits for it meanwhile.
    let _ = unsafe { &*address.as_ptr::<AtomicU64>() }.load(Ordering::Relaxed);
}

/// Pages of a region that belong to units to be served.
fn contents_pages(core: &Core, region: RegionIndex) -> usize {
    match core.space.regions.service(region) {
        Service::Build => {
            let top = core.space.regions.record(region).top.load(Ordering::Relaxed) as usize;
            top.div_ceil(PAGE_BYTES)
        }
        Service::Return | Service::Zero => REGION_PAGES,
    }
}
