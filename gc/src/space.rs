//! The space: windows with their roles, the free regions, and the count of what is in use.
//!
//! Regions are handed out and taken back under one lock. That is the slow path of allocation: a
//! mutator comes here once for every region it fills. Counts are read without it.
//!
//! Invariants:
//! 1. A region is in at most one free list, and then its use is `Free`.
//! 2. Mutators allocate in windows that are not registered with userfaultfd, as long as such a
//!    window has a free region (a registered page costs two faults when it is first written).
//! 3. `used` counts regions that hold objects (no incomplete destinations, no staging, no roots).
//!
//! Which of them have memory of the system's is in [`crate::residency`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::account::{Account, Holding};
use crate::address::{FromAddress, HeapRange, RegionIndex, ToAddress, WindowIndex, WordIndex};
use crate::error::HeapError;
use crate::free_regions::FreeRegions;
use crate::geometry::{
    REGION_BYTES, REGION_CHUNKS, REGION_PAGES, STRIDE_BYTES, WINDOW_BYTES, WINDOW_REGIONS,
};
use crate::livemap::LiveMap;
use crate::options::HeapOptions;
use crate::region::{Class, Regions, Service, Use, Verdict};
use crate::stats::Statistics;
use crate::stress::{POISON, StressMode};
use crate::sync::SideTable;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use crate::sys::mapping::Reservation;

/// What a window is for. A role with no free region left borrows from another.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// Root slots.
    Roots,
    /// Young: mutators allocate here between cycles.
    Young,
    /// Young: mutators allocate here while the collector marks. What was filled here is taken at the
    /// flip if it holds slots to rewrite; the other young windows stay as they are.
    YoungMarking,
    /// Old: only the collector puts objects here.
    Old,
}

/// What the memory of a region that is handed out may hold.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Contents {
    /// Old contents are welcome: they spare the system's work.
    MayBeDirty,
    /// No page may be present: pages will be installed.
    MustBeEmpty,
}

/// Regions that can be allocated until a limit is reached that stress has tightened: one for each kind of buffer,
/// and one more.
const TIGHT_REGIONS: usize = 4;

/// State of one window.
#[derive(Debug)]
pub struct Window {
    /// Its role.
    pub role: Role,
    /// It is registered with userfaultfd.
    pub registered: AtomicBool,
    /// It will be, or was, taken as a whole by the cycle's flip.
    pub taken_whole: AtomicBool,
}

/// The heap's memory and its side tables.
#[derive(Debug)]
pub struct Space {
    /// The reserved addresses.
    pub range: HeapRange,
    /// The mapping behind them.
    pub reservation: Reservation,
    /// Regions.
    pub regions: Regions,
    /// Live map.
    pub live: LiveMap,
    /// Per chunk of an evacuated region: where its objects go (see `forward`).
    pub chunk_destination: SideTable<AtomicU32>,
    /// Per destination page: the chunk of the first group of objects on it (see `plan`).
    pub page_source: SideTable<AtomicU32>,
    /// Per page that begins a unit of claim: its state (see `page_state`).
    pub unit_state: SideTable<AtomicU8>,
    /// What the system has given memory for.
    pub account: Account,
    windows: Box<[Window]>,
    free: Mutex<FreeRegions>,
    /// Class of regions handed out to mutators.
    allocation_class: AtomicU8,
    used: AtomicUsize,
    peak_used: AtomicUsize,
    /// Regions that can be in use. Only a stress mode changes it, between two cycles.
    limit: AtomicUsize,
    /// What the heap was created with.
    most_limit: usize,
    stats: Arc<Statistics>,
    /// See [`crate::residency`].
    pub(crate) resident_target: AtomicUsize,
    /// [`HeapOptions::hold_memory`].
    pub(crate) holds_memory: bool,
    /// See [`crate::residency`].
    pub(crate) compacting: AtomicBool,
}

impl Space {
    /// Reserves windows and tables for a heap of `options.limit_bytes`.
    ///
    /// # Errors
    /// [`HeapError::Reserve`].
    pub fn new(options: &HeapOptions, stats: &Arc<Statistics>) -> Result<Self, HeapError> {
        let roles = roles_for(options.limit_bytes);
        let windows = roles.len() as u32;
        let reserve = |source| HeapError::Reserve { bytes: windows as usize * STRIDE_BYTES, source };
        let reservation = Reservation::new(windows).map_err(reserve)?.with_counts(stats.clone());
        for (index, role) in roles.iter().enumerate() {
            let huge = options.huge_pages && *role != Role::Roots;
            reservation.open_window(WindowIndex(index as u32), huge).map_err(reserve)?;
        }
        let regions = windows as usize * WINDOW_REGIONS;
        Ok(Self {
            range: reservation.range(),
            reservation,
            regions: Regions::new(regions),
            live: LiveMap::new(regions * REGION_CHUNKS).map_err(reserve)?,
            chunk_destination: SideTable::new(regions * REGION_CHUNKS).map_err(reserve)?,
            page_source: SideTable::new(regions * REGION_PAGES).map_err(reserve)?,
            unit_state: SideTable::new(regions * REGION_PAGES).map_err(reserve)?,
            account: Account::default(),
            windows: roles
                .iter()
                .map(|&role| Window {
                    role,
                    registered: AtomicBool::new(false),
                    taken_whole: AtomicBool::new(false),
                })
                .collect(),
            free: Mutex::new(FreeRegions::new(windows as usize)),
            allocation_class: AtomicU8::new(Class::New as u8),
            used: AtomicUsize::new(0),
            peak_used: AtomicUsize::new(0),
            limit: AtomicUsize::new(options.limit_bytes / REGION_BYTES),
            most_limit: options.limit_bytes / REGION_BYTES,
            stats: stats.clone(),
            resident_target: AtomicUsize::new(options.limit_bytes / REGION_BYTES),
            holds_memory: options.hold_memory,
            compacting: AtomicBool::new(false),
        })
    }

    /// How many windows a heap of this limit has.
    #[must_use]
    pub fn windows_for(limit_bytes: usize) -> usize {
        roles_for(limit_bytes).len()
    }

    /// A window's state.
    #[inline]
    #[must_use]
    pub fn window(&self, window: WindowIndex) -> &Window {
        &self.windows[window.index()]
    }

    /// All windows.
    pub fn windows(&self) -> impl Iterator<Item = WindowIndex> + use<> {
        (0..self.windows.len() as u32).map(WindowIndex)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, FreeRegions> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The heap's limit, in regions.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// The largest limit there is: what the heap was created with, in regions.
    #[must_use]
    pub const fn most_limit(&self) -> usize {
        self.most_limit
    }

    /// Under stress, makes the limit little more than what is in use.
    pub fn tighten_limit(&self) {
        if self.stats.stress.is_on(StressMode::TightLimit) {
            let used = self.used();
            let limit = (used + (used / 8).max(TIGHT_REGIONS)).min(self.most_limit);
            if limit < self.most_limit {
                self.stats.stress.add(StressMode::TightLimit, 1);
            }
            self.limit.store(limit, Ordering::Relaxed);
        }
    }

    /// Raises a limit that stress has lowered, so that `regions` more fit. Whether it did.
    #[must_use]
    pub fn loosen_limit(&self, regions: usize) -> bool {
        let limit = self.limit();
        self.limit.store((limit + regions.max(1)).min(self.most_limit), Ordering::Relaxed);
        limit < self.most_limit
    }

    /// Regions in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Most regions that were in use.
    #[must_use]
    pub fn peak_used(&self) -> usize {
        self.peak_used.load(Ordering::Relaxed)
    }

    /// Regions that can still be handed out to mutators.
    #[must_use]
    pub fn available(&self) -> usize {
        self.limit().saturating_sub(self.used())
    }

    fn add_used(&self, regions: usize) {
        let used = self.used.fetch_add(regions, Ordering::Relaxed) + regions;
        self.peak_used.fetch_max(used, Ordering::Relaxed);
    }

    /// Bytes of memory that the side tables hold: asks the system for each page.
    #[must_use]
    pub fn side_table_bytes(&self) -> usize {
        self.live.resident_bytes()
            + self.chunk_destination.resident_bytes()
            + self.page_source.resident_bytes()
            + self.unit_state.resident_bytes()
    }

    /// Class of the regions that mutators are given from now on.
    pub fn set_allocation_class(&self, class: Class) {
        let _guard = self.lock();
        self.allocation_class.store(class as u8, Ordering::Relaxed);
    }

    /// Whether mutators are given fresh regions: objects are born marked.
    #[must_use]
    pub fn allocates_fresh(&self) -> bool {
        self.allocation_class.load(Ordering::Relaxed) == Class::Fresh as u8
    }

    fn current_class(&self) -> Class {
        Class::from_byte(self.allocation_class.load(Ordering::Relaxed))
    }

    /// Hands a region out to mutators. `None`: the limit is reached, or compaction has to give memory
    /// back first.
    pub fn allocate_region(&self, usage: Use) -> Option<RegionIndex> {
        let mut free = self.lock();
        if self.used() >= self.limit() {
            return None;
        }
        let class = self.current_class();
        let region = self.find_for_mutators(&free, class)?;
        if !self.make_room(&mut free, &[region]) {
            return None;
        }
        free.take(region);
        self.begin_use(region, usage, class);
        Some(region)
    }

    /// Finds a free region for mutators. Memory that is there is preferred to the better role: new memory has to
    /// be cleared by the system, and free regions elsewhere would have to give up theirs for it.
    fn find_for_mutators(&self, free: &FreeRegions, class: Class) -> Option<RegionIndex> {
        let order = if class == Class::Fresh {
            [Role::YoungMarking, Role::Young, Role::Old]
        } else {
            [Role::Young, Role::YoungMarking, Role::Old]
        };
        let is_resident = |role| {
            let mut windows = self.windows().filter(move |&window| self.window(window).role == role);
            windows.find_map(|window| {
                let registered = self.window(window).registered.load(Ordering::Relaxed);
                if registered { None } else { free.first(window, true).1 }
            })
        };
        order[..2]
            .iter()
            .find_map(|&role| is_resident(role))
            .or_else(|| self.find(free, Use::Objects, &order, Contents::MayBeDirty))
    }

    /// Finds a free region, by preference: not registered, resident or not as wanted, in the order of
    /// roles.
    fn find(
        &self,
        free: &FreeRegions,
        usage: Use,
        order: &[Role],
        contents: Contents,
    ) -> Option<RegionIndex> {
        for registered in [false, true] {
            for &role in order {
                let mut second_choice = None;
                for window in self.windows().filter(|&window| self.window(window).role == role) {
                    if self.window(window).registered.load(Ordering::Relaxed) != registered {
                        continue;
                    }
                    if usage == Use::Staging && self.window(window).taken_whole.load(Ordering::Relaxed) {
                        continue;
                    }
                    let (any, wanted) = free.first(window, contents == Contents::MayBeDirty);
                    if wanted.is_some() {
                        return wanted;
                    }
                    second_choice = second_choice.or(any);
                }
                if second_choice.is_some() {
                    return second_choice;
                }
            }
        }
        None
    }

    fn begin_use(&self, region: RegionIndex, usage: Use, class: Class) {
        self.end_quarantine(region);
        let record = self.regions.record(region);
        record.top.store(0, Ordering::Relaxed);
        record.live_bytes.store(0, Ordering::Relaxed);
        record.was_live.store(0, Ordering::Relaxed);
        record.slots.store(0, Ordering::Relaxed);
        record.slots_overflowed.store(false, Ordering::Relaxed);
        record.incoming.store(0, Ordering::Relaxed);
        record.remembered.store(0, Ordering::Relaxed);
        // A cycle starts: its marking will see what is allocated here.
        record.is_mapped.store(class == Class::Candidate, Ordering::Relaxed);
        record.large_pinned.store(false, Ordering::Relaxed);
        // Marking clears the bits of regions that are in use when it begins, not of later ones. An
        // evacuated region's bits are still needed to forward into it, even when it is used again.
        if self.regions.verdict(region) != Verdict::Evacuate {
            self.live.clear(region);
        }
        self.regions.set_usage(region, usage);
        self.regions.set_class(region, class);
        if usage.counts_as_used() {
            self.add_used(1);
        }
        self.begin_holding(region, usage);
    }

    /// Hands out a run of regions for a large object. `None`: limit reached, no such run, or compaction has
    /// to give memory back first.
    pub fn allocate_run(&self, regions: usize) -> Option<RegionIndex> {
        let mut free = self.lock();
        if self.used() + regions > self.limit() || regions > WINDOW_REGIONS {
            return None;
        }
        let class = self.current_class();
        let head = self.find_run(&free, regions)?;
        let run: Vec<_> = (head.0..head.0 + regions as u32).map(RegionIndex).collect();
        if !self.make_room(&mut free, &run) {
            return None;
        }
        for (nth, region) in run.into_iter().enumerate() {
            free.take(region);
            let usage = if nth == 0 { Use::LargeHead } else { Use::LargeTail };
            self.begin_use(region, usage, class);
            let record = self.regions.record(region);
            record.head.store(head.0, Ordering::Relaxed);
            record.top.store(REGION_BYTES as u32, Ordering::Relaxed);
        }
        self.regions.record(head).large_regions.store(regions as u32, Ordering::Relaxed);
        Some(head)
    }

    /// Whether `regions` regions that lie side by side can be handed out.
    #[must_use]
    pub fn has_run(&self, regions: usize) -> bool {
        self.available() >= regions && (regions == 1 || self.find_run(&self.lock(), regions).is_some())
    }

    /// Runs are searched from the windows' ends, small regions from their beginnings, so that they
    /// do not cut each other up.
    fn find_run(&self, free: &FreeRegions, regions: usize) -> Option<RegionIndex> {
        for registered in [false, true] {
            for role in [Role::Young, Role::YoungMarking, Role::Old] {
                for window in self.windows().filter(|&window| self.window(window).role == role) {
                    if self.window(window).registered.load(Ordering::Relaxed) != registered {
                        continue;
                    }
                    let mut length = 0;
                    let mut last = None;
                    for region in free.in_window(window).rev() {
                        length = if last == Some(region.next()) { length + 1 } else { 1 };
                        if length == regions {
                            return Some(region);
                        }
                        last = Some(region);
                    }
                }
            }
        }
        None
    }

    /// The region, or all regions of the large object that begins in it.
    pub fn object_regions(&self, region: RegionIndex) -> impl Iterator<Item = RegionIndex> + use<> {
        let count = match self.regions.usage(region) {
            Use::LargeHead => self.regions.record(region).large_regions.load(Ordering::Relaxed),
            _ => 1,
        };
        (region.0..region.0 + count).map(RegionIndex)
    }

    /// Hands out a region that does not count as used: a destination, or staging.
    pub fn allocate_for_collector(
        &self,
        usage: Use,
        order: &[Role],
        contents: Contents,
    ) -> Option<RegionIndex> {
        let mut free = self.lock();
        let region = self.find(&free, usage, order, contents)?;
        free.take(region);
        if contents == Contents::MustBeEmpty && self.is_resident(region) {
            self.discard(region);
        }
        if usage == Use::Staging {
            // Whether there is room or not: compaction is what makes it.
            let _ = self.make_room(&mut free, &[region]);
        }
        self.begin_use(region, usage, Class::Settled);
        Some(region)
    }

    /// A free region of the root window.
    pub fn allocate_root_region(&self) -> Option<RegionIndex> {
        let mut free = self.lock();
        let region = free.in_window(WindowIndex(0)).next()?;
        free.take(region);
        self.begin_use(region, Use::Roots, Class::Settled);
        Some(region)
    }

    /// A destination is complete: from now on it counts as used.
    pub fn complete_destination(&self, region: RegionIndex) {
        self.regions.set_usage(region, Use::Objects);
        self.hold(region, Holding::Objects);
        self.add_used(1);
    }

    /// Takes a region back. Its memory is kept for reuse (dirty) while no more than the target is
    /// resident, else given back to the system.
    pub fn free_region(&self, region: RegionIndex) {
        let record = self.regions.record(region);
        let counted = self.regions.usage(region).counts_as_used();
        self.keep_or_discard(region);
        self.quarantine(region);
        let mut free = self.lock();
        self.regions.set_usage(region, Use::Free);
        self.regions.set_class(region, Class::Free);
        // Pages that are built later still hold references into an evacuated region.
        if self.regions.verdict(region) != Verdict::Evacuate {
            self.regions.set_verdict(region, Verdict::Stay);
        }
        self.regions.set_service(region, Service::Zero);
        record.taken.store(false, Ordering::Relaxed);
        record.to_be_taken.store(false, Ordering::Relaxed);
        record.live_bytes.store(0, Ordering::Relaxed);
        free.give_back(region, self.is_resident(region));
        if counted {
            self.used.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Under stress: what a region holds that becomes free is made to hurt who still reads it.
    fn quarantine(&self, region: RegionIndex) {
        let (stress, address) = (&self.stats.stress, self.range.region_address(region));
        if stress.is_on(StressMode::PoisonFreed) && self.reservation.overwrite(address, REGION_BYTES, POISON)
        {
            stress.add(StressMode::PoisonFreed, 1);
        }
        if stress.is_on(StressMode::ProtectFreed)
            && self.reservation.set_accessible(address, REGION_BYTES, false).is_ok()
        {
            stress.add(StressMode::ProtectFreed, 1);
        }
    }

    /// A region is about to be used again.
    fn end_quarantine(&self, region: RegionIndex) {
        if self.stats.stress.is_on(StressMode::ProtectFreed) {
            let address = self.range.region_address(region);
            if let Err(error) = self.reservation.set_accessible(address, REGION_BYTES, true) {
                panic!("region {} cannot be made accessible again: {error}", region.0);
            }
        }
    }

    /// Where the collector reads the old contents of `word`.
    #[inline]
    #[must_use]
    pub fn from_space(&self, word: WordIndex) -> FromAddress {
        let address = self.range.address(word).get();
        let taken = self.regions.record(word.region()).taken.load(Ordering::Relaxed);
        FromAddress::new(if taken { address + WINDOW_BYTES } else { address })
    }

    /// Whether `address` lies in a window (not in an alias).
    #[inline]
    #[must_use]
    pub fn is_in_window(&self, address: ToAddress) -> bool {
        self.range.contains(address.get()) && (address.get() - self.range.base()) & WINDOW_BYTES == 0
    }
}

/// Windows for a limit: one for roots; for each role as many as could be needed if it alone held
/// everything (half as many for what is allocated while marking, which is a fraction).
fn roles_for(limit_bytes: usize) -> Vec<Role> {
    let whole = limit_bytes.div_ceil(WINDOW_BYTES);
    let half = limit_bytes.div_ceil(2 * WINDOW_BYTES);
    let mut roles = vec![Role::Roots];
    // One more than could be filled: mutators need a window that is not registered even when all that
    // hold objects are.
    roles.extend(std::iter::repeat_n(Role::Young, whole + 1));
    roles.extend(std::iter::repeat_n(Role::YoungMarking, half));
    roles.extend(std::iter::repeat_n(Role::Old, whole));
    roles
}
