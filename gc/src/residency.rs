//! Which regions have memory of the system's, and when it is given back.
//!
//! Run by whoever hands regions out or takes them back: mutators on the slow path of allocation, workers and the
//! controller. What is counted is in [`crate::account`].
//!
//! Before new memory comes, free regions give up theirs. While the collector compacts, mutators wait rather than
//! take memory beyond the heap's limit. The collector itself never waits, since it is what frees memory: staging
//! and a destination or two are what the heap holds beyond its limit.
//!
//! Invariants:
//! 1. A free region that has memory is dirty, and marked resident in the free list.
//! 2. Mutators wait for compaction only while it goes on: it needs none of them, and ends the wait.

use std::sync::atomic::Ordering;

use crate::account::Holding;
use crate::address::{PageIndex, RegionIndex, WindowIndex};
use crate::free_regions::FreeRegions;
use crate::geometry::{PAGE_BYTES, REGION_BYTES, REGION_PAGES, WINDOW_BYTES};
use crate::region::Use;
use crate::space::Space;

impl Space {
    /// Regions that the memory held would fill (root slots not counted).
    #[must_use]
    pub fn resident(&self) -> usize {
        self.account.regions()
    }

    /// A cycle begins: no more than the limit is to be held. Or, where free memory is not held, no more than what is in
    /// use and what mutators are given until it ends, and some staging: free regions give up all but a little.
    pub fn begin_cycle(&self) {
        if self.holds_memory {
            self.resident_target.store(self.limit(), Ordering::Relaxed);
        } else {
            self.resident_target.store(self.used() + 2, Ordering::Relaxed);
            self.trim(self.used() + 2);
        }
        self.account.begin_cycle();
    }

    /// A cycle has ended: memory is kept for reuse.
    pub fn end_cycle(&self) {
        self.resident_target.store(self.limit(), Ordering::Relaxed);
    }

    /// Before a flip: free regions give up memory, so that compaction has room for `regions` more below the limit. Later
    /// whoever serves would have to give memory back first.
    pub fn make_headroom(&self, regions: usize) {
        self.trim(self.limit().saturating_sub(regions));
    }

    /// Pages that may be held without free regions giving up theirs.
    fn target_pages(&self) -> usize {
        self.resident_target.load(Ordering::Relaxed).min(self.limit()) * REGION_PAGES
    }

    /// Whether more memory is held than should be.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.account.pages() > self.target_pages()
    }

    /// Whether the region has memory, but not for all its pages.
    #[must_use]
    pub fn is_partly_resident(&self, region: RegionIndex) -> bool {
        self.pages_of(region) < REGION_PAGES
    }

    /// Compaction begins or ends: meanwhile mutators wait for memory beyond the limit.
    pub fn set_compacting(&self, compacting: bool) {
        self.compacting.store(compacting, Ordering::Relaxed);
    }

    /// Whether `regions` more regions would be more than the limit, even if free ones gave up their memory.
    #[must_use]
    pub fn is_too_much(&self, regions: usize) -> bool {
        self.account.pages() + regions * REGION_PAGES > self.limit() * REGION_PAGES + self.free_pages()
    }

    /// The same, while the collector compacts, and so gives memory back.
    #[must_use]
    pub fn waits_for_compaction(&self, regions: usize) -> bool {
        self.compacting.load(Ordering::Relaxed) && self.is_too_much(regions)
    }

    fn free_pages(&self) -> usize {
        self.account.pages_for(Holding::Free)
    }

    /// Whether the system has given memory for a region.
    #[must_use]
    pub fn is_resident(&self, region: RegionIndex) -> bool {
        self.pages_of(region) > 0
    }

    fn pages_of(&self, region: RegionIndex) -> usize {
        self.regions.record(region).pages.load(Ordering::Relaxed) as usize
    }

    fn holding(&self, region: RegionIndex) -> Holding {
        Holding::from_byte(self.regions.record(region).holding.load(Ordering::Relaxed))
    }

    /// A region's memory is for something else from now on.
    pub fn hold(&self, region: RegionIndex, holding: Holding) {
        let before = self.regions.record(region).holding.swap(holding as u8, Ordering::Relaxed);
        self.account.transfer(Holding::from_byte(before), holding, self.pages_of(region));
    }

    /// A region is handed out. It counts whole, unless its pages are installed or taken one by one.
    pub(crate) fn begin_holding(&self, region: RegionIndex, usage: Use) {
        let holding = match usage {
            Use::Destination => Holding::Destination,
            Use::Staging => Holding::Staging,
            Use::Roots => Holding::Roots,
            Use::Free | Use::Objects | Use::Pinned | Use::LargeHead | Use::LargeTail => Holding::Objects,
        };
        self.hold(region, holding);
        if !matches!(usage, Use::Destination | Use::Roots) {
            self.fill(region);
        }
    }

    /// All of a region's pages are there, or may soon be.
    pub fn fill(&self, region: RegionIndex) {
        let before = self.regions.record(region).pages.swap(REGION_PAGES as u32, Ordering::Relaxed);
        self.account.add(self.holding(region), REGION_PAGES - before as usize);
    }

    /// Pages of a region came: installed, or touched for the first time.
    pub fn add_pages(&self, region: RegionIndex, pages: usize) {
        self.regions.record(region).pages.fetch_add(pages as u32, Ordering::Relaxed);
        self.account.add(self.holding(region), pages);
    }

    /// Pages of a region went: moved to a destination, or given back.
    pub fn remove_pages(&self, region: RegionIndex, pages: usize) {
        self.regions.record(region).pages.fetch_sub(pages as u32, Ordering::Relaxed);
        self.account.remove(self.holding(region), pages);
    }

    /// Before `regions` free regions are handed out: other free ones give up their memory, until with these
    /// no more than the limit is held. False: too much is, and compaction will give some back.
    pub(crate) fn make_room(&self, free: &mut FreeRegions, regions: &[RegionIndex]) -> bool {
        let new: usize = regions.iter().map(|&region| REGION_PAGES - self.pages_of(region)).sum();
        self.resident_target.fetch_add(regions.len(), Ordering::Relaxed);
        self.shrink(free, self.target_pages().saturating_sub(new), regions);
        !self.compacting.load(Ordering::Relaxed) || self.account.pages() + new <= self.limit() * REGION_PAGES
    }

    /// Gives back memory of free regions but `spared` ones until at most `keep` pages are held.
    fn shrink(&self, free: &mut FreeRegions, keep: usize, spared: &[RegionIndex]) {
        if self.account.pages() <= keep {
            return;
        }
        for window in self.windows() {
            for region in free.resident_in_window(window) {
                if self.account.pages() <= keep {
                    return;
                }
                if !spared.contains(&region) {
                    self.discard(region);
                    free.discarded(region);
                }
            }
        }
    }

    /// Free regions give up memory that is too much. Called as compaction proceeds.
    pub fn shrink_to_target(&self) {
        if self.is_short() && self.free_pages() > 0 {
            self.shrink(&mut self.lock(), self.target_pages(), &[]);
        }
    }

    /// A region is about to be free: its memory is kept for reuse (dirty) while no more than the target is
    /// resident, else given back.
    pub(crate) fn keep_or_discard(&self, region: RegionIndex) {
        if self.is_resident(region) {
            if self.is_short() {
                self.discard(region);
            } else {
                self.regions.record(region).dirty.store(true, Ordering::Relaxed);
            }
        }
        self.hold(region, Holding::Free);
    }

    /// Gives a region's memory back to the system.
    pub fn discard(&self, region: RegionIndex) {
        // A refusal (memory locked by the embedder) leaves old contents: keep the region dirty.
        if self.reservation.discard(self.range.region_address(region).get(), REGION_BYTES).is_err() {
            self.regions.record(region).dirty.store(true, Ordering::Relaxed);
            return;
        }
        self.forget_memory(region);
    }

    /// Gives back pages of an evacuated region, where the collector reads it. The rest is still read.
    pub fn discard_pages(&self, region: RegionIndex, pages: std::ops::Range<usize>) {
        let address = self.from_space(region.first_word()).get() + pages.start * PAGE_BYTES;
        if self.reservation.discard(address, pages.len() * PAGE_BYTES).is_ok() {
            self.remove_pages(region, pages.len());
        }
    }

    /// Gives back the memory of a taken region, which is in its alias.
    pub fn discard_alias(&self, region: RegionIndex) {
        // A refusal leaves it until the alias is closed, when the cycle ends.
        let alias = self.range.region_address(region).get() + WINDOW_BYTES;
        let _ = self.reservation.discard(alias, REGION_BYTES);
        self.forget_memory(region);
    }

    /// Pages of a taken unit were copied: what is left in the alias counts no more. Where memory is held, it is given
    /// back when the alias is closed, else now; a refusal leaves it until then.
    pub fn let_go_of_copied(&self, unit: PageIndex, pages: usize) {
        self.account.add(Holding::Copied, pages);
        if self.holds_memory && !self.is_short() {
            return;
        }
        let _ = self.reservation.discard(self.range.alias(unit.first_word()).get(), pages * PAGE_BYTES);
        self.account.remove(Holding::Copied, pages);
    }

    /// All aliases are closed.
    pub fn aliases_closed(&self) {
        self.account.remove(Holding::Copied, self.account.pages_for(Holding::Copied));
    }

    /// A region's memory has gone.
    pub(crate) fn forget_memory(&self, region: RegionIndex) {
        let record = self.regions.record(region);
        record.dirty.store(false, Ordering::Relaxed);
        let before = record.pages.swap(0, Ordering::Relaxed);
        self.account.remove(self.holding(region), before as usize);
    }

    /// Gives back memory of free regions until at most `keep` regions are resident.
    pub fn trim(&self, keep: usize) {
        for window in self.windows() {
            if self.resident() <= keep {
                return;
            }
            let resident = self.lock().resident_in_window(window);
            for region in resident.into_iter().rev() {
                // One region at a time, so that a mutator that needs one does not wait for all.
                let mut free = self.lock();
                if free.is_free(region) {
                    self.discard(region);
                    free.discarded(region);
                }
                drop(free);
                if self.resident() <= keep {
                    return;
                }
            }
        }
    }

    /// Gives back the memory of a window's free regions (before the window is taken as a whole).
    pub fn trim_window(&self, window: WindowIndex) {
        let mut free = self.lock();
        for region in free.resident_in_window(window) {
            self.discard(region);
            free.discarded(region);
        }
    }
}
