//! Root slots: the only roots there are; and weak slots, which are kept in the same way and are no roots.
//!
//! A root slot is a word in a page of the root window: zero or odd (no reference), or the address of
//! an object. Mutators write slots at any time; marking scans them while they do, and notes the pages
//! that may hold references into candidate regions. At the flip those are rewritten: in the pause
//! (*hot* pages, and *paged* ones if they are few), or lazily, by taking their regions like any that
//! hold slots. So the pause does not grow with the number of roots.
//!
//! Rules for whoever writes slots:
//! 1. a reference is put into a slot by [`MutatorContext::store_root`] (a store and a flag test);
//! 2. a slot that is not needed any more is cleared; nothing else is needed on removal, because
//!    whatever was loaded from it meanwhile was shaded when it was stored;
//! 3. a slot is used only between `allocate` and `free` of its page;
//! 4. slots of a weak page are written by [`MutatorContext::store_weak`] and read by [`MutatorContext::load_weak`]
//!    only (see [`crate::weak`]).
//!
//! [`MutatorContext::store_root`]: crate::context::MutatorContext::store_root
//! [`MutatorContext::store_weak`]: crate::context::MutatorContext::store_weak
//! [`MutatorContext::load_weak`]: crate::context::MutatorContext::load_weak

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use crate::address::{PageIndex, RegionIndex, ToAddress};
use crate::error::AllocError;
use crate::geometry::{PAGE_BYTES, REGION_PAGES, WINDOW_BYTES, WINDOW_REGIONS, WORD_BYTES};
use crate::space::Space;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Root slots in a page.
pub const ROOT_SLOTS: usize = PAGE_BYTES / WORD_BYTES;
const ROOT_PAGES: usize = WINDOW_BYTES / PAGE_BYTES;
/// The first region of the root window holds the hot pages and is never taken.
const HOT_REGION: RegionIndex = RegionIndex(0);

/// How a page of root slots is treated at the flip.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RootPageKind {
    /// Rewritten in the pause: for the slots that a thread touches at once. One for each thread.
    Hot,
    /// Rewritten when first touched, or by a worker.
    Paged,
    /// As a paged one, but its slots keep nothing: they are cleared when their objects are found dead.
    Weak,
    /// As a weak one, but each slot with an even number keeps, as long as its object lives, what the slot behind it
    /// refers to.
    Ephemerons,
}

/// A page of root slots.
#[derive(Debug)]
pub struct RootPage {
    slots: NonNull<AtomicU64>,
    page: PageIndex,
}

// SAFETY: the page is a range of atomics that lives as long as its heap, and `RootPage` is only an
// address and an index; the embedder keeps the heap alive while it holds pages (`RootSpace::free`).
unsafe impl Send for RootPage {}
// SAFETY: as above.
unsafe impl Sync for RootPage {}

impl RootPage {
    /// The page's [`ROOT_SLOTS`] slots.
    #[inline]
    #[must_use]
    pub const fn slots(&self) -> &[AtomicU64] {
        // SAFETY: the page lies in the root window, is mapped readable and writable as long as the
        // heap exists, is aligned, and all accesses to it are atomic.
        unsafe { std::slice::from_raw_parts(self.slots.as_ptr(), ROOT_SLOTS) }
    }
}

#[derive(Debug, Default)]
struct FreePages {
    hot: Vec<PageIndex>,
    paged: Vec<PageIndex>,
}

/// A heap's pages of root slots.
#[derive(Debug)]
pub struct RootSpace {
    space: Arc<Space>,
    free: Mutex<FreePages>,
    /// Pages in use, of all of the root window, but for weak ones.
    in_use: PageBits,
    /// Weak pages in use, those of ephemerons too.
    weak: PageBits,
    /// Pages of ephemerons in use.
    ephemerons: PageBits,
    /// Pages that may hold a reference into a candidate region.
    noted: PageBits,
}

impl RootSpace {
    pub(crate) fn new(space: Arc<Space>) -> Self {
        let hot = space.allocate_root_region();
        assert_eq!(hot, Some(HOT_REGION), "the root window is the first, and empty");
        let mut free = FreePages::default();
        add_pages(&mut free.hot, HOT_REGION);
        Self {
            space,
            free: Mutex::new(free),
            in_use: PageBits::new(ROOT_PAGES),
            weak: PageBits::new(ROOT_PAGES),
            ephemerons: PageBits::new(ROOT_PAGES),
            noted: PageBits::new(ROOT_PAGES),
        }
    }

    /// A page of empty slots (all zero). A hot page is a paged one if there are too many threads.
    ///
    /// # Errors
    /// [`AllocError::SystemRefused`] if the root window is full (2^27 slots).
    pub fn allocate(&self, kind: RootPageKind) -> Result<RootPage, AllocError> {
        self.allocate_with(kind, |_| {})
    }

    /// The same, with `before_touch` called before the page is touched: a simulation serves the fault there.
    ///
    /// # Errors
    /// As [`Self::allocate`].
    #[doc(hidden)]
    pub fn allocate_with(
        &self,
        kind: RootPageKind,
        before_touch: impl FnOnce(ToAddress),
    ) -> Result<RootPage, AllocError> {
        let page = self.take_free(kind)?;
        let address = self.space.range.page_address(page);
        let slots = NonNull::new(address.as_ptr::<AtomicU64>()).expect("windows are not at address zero");
        let page = RootPage { slots, page };
        before_touch(address);
        self.count_touch(page.page);
        // Outside the lock: this may fault.
        for slot in page.slots() {
            slot.store(0, Ordering::Relaxed);
        }
        self.enlist(kind, page.page);
        Ok(page)
    }

    fn enlist(&self, kind: RootPageKind, page: PageIndex) {
        match kind {
            RootPageKind::Hot | RootPageKind::Paged => self.in_use.insert(page),
            RootPageKind::Weak => self.weak.insert(page),
            RootPageKind::Ephemerons => {
                self.ephemerons.insert(page);
                self.weak.insert(page);
            }
        }
    }

    /// Pages are handed out in address order the first time: their memory comes then.
    fn count_touch(&self, page: PageIndex) {
        let record = self.space.regions.record(page.region());
        let end = (page.in_region() + 1) as u32;
        let before = record.top.fetch_max(end, Ordering::Relaxed);
        self.space.add_pages(page.region(), end.saturating_sub(before) as usize);
    }

    fn take_free(&self, kind: RootPageKind) -> Result<PageIndex, AllocError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let (RootPageKind::Hot, Some(page)) = (kind, free.hot.pop()) {
            return Ok(page);
        }
        if free.paged.is_empty() {
            let region =
                self.space.allocate_root_region().ok_or(AllocError::SystemRefused { bytes: PAGE_BYTES })?;
            add_pages(&mut free.paged, region);
        }
        Ok(free.paged.pop().expect("a region has pages"))
    }

    /// Gives a page back. Its slots are no roots any more.
    pub fn free(&self, page: RootPage) {
        // A scan that still sees the page reads slots that hold references or nothing.
        self.in_use.remove(page.page);
        self.weak.remove(page.page);
        self.ephemerons.remove(page.page);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if page.page.region() == HOT_REGION {
            free.hot.push(page.page);
        } else {
            free.paged.push(page.page);
        }
    }

    /// Whether `address` lies in the root window of this heap.
    #[inline]
    #[must_use]
    pub fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.space.range.base()) < WINDOW_BYTES
    }

    /// Notes that the slot at `address` got a reference into a candidate region. After the store.
    pub(crate) fn note_candidate(&self, address: usize) {
        assert!(self.contains(address), "{address:#x} is no root slot of this heap");
        self.noted.insert(self.space.range.word_at(address).page());
    }

    /// Forgets which pages were noted, before marking.
    pub(crate) fn forget_notes(&self) {
        self.noted.clear();
    }

    /// Looks again at the noted paged pages: those that hold a reference for which `moves` is true stay
    /// noted. Returns how many there are, and the regions they lie in.
    pub(crate) fn recheck(&self, moves: impl Fn(ToAddress) -> bool) -> (usize, Vec<RegionIndex>) {
        let mut pages = 0;
        let mut regions = vec![];
        for region in self.paged_regions() {
            for page in self.noted_pages_of(region) {
                let holds = || {
                    let slots = self.slots(page).iter();
                    let mut references =
                        slots.filter_map(|slot| root_reference(slot.load(Ordering::Relaxed)));
                    references.any(&moves)
                };
                if self.noted.keep_if(page, holds) {
                    pages += 1;
                    if regions.last() != Some(&region) {
                        regions.push(region);
                    }
                }
            }
        }
        (pages, regions)
    }

    /// Noted pages of one region.
    pub(crate) fn noted_pages_of(&self, region: RegionIndex) -> impl Iterator<Item = PageIndex> + '_ {
        self.noted.pages(region_words(region))
    }

    /// Pages in use whose slots are roots.
    pub(crate) fn pages_in_use(&self) -> impl Iterator<Item = PageIndex> + '_ {
        self.in_use.pages(0..ROOT_PAGES / 64)
    }

    /// Weak pages in use, those of ephemerons too.
    pub(crate) fn weak_pages(&self) -> impl Iterator<Item = PageIndex> + '_ {
        self.weak.pages(0..ROOT_PAGES / 64)
    }

    /// Pages of ephemerons in use.
    pub(crate) fn ephemeron_pages(&self) -> impl Iterator<Item = PageIndex> + '_ {
        self.ephemerons.pages(0..ROOT_PAGES / 64)
    }

    /// Hot pages in use: rewritten in every pause.
    pub(crate) fn hot_pages(&self) -> impl Iterator<Item = PageIndex> + '_ {
        self.in_use.pages(region_words(HOT_REGION))
    }

    /// Regions that hold paged pages.
    pub(crate) fn paged_regions(&self) -> impl Iterator<Item = RegionIndex> + '_ {
        (1..WINDOW_REGIONS as u32)
            .map(RegionIndex)
            .take_while(|&region| self.space.regions.usage(region) == crate::region::Use::Roots)
    }

    /// The slots of a page, by its to-space address: for marking, and for the pause.
    pub(crate) fn slots(&self, page: PageIndex) -> &[AtomicU64] {
        // SAFETY: as in `RootPage::slots`: the root window is mapped, accesses are atomic. Callers
        // are marking and clearing (no page is missing then) and the pause (before anything is taken).
        unsafe { std::slice::from_raw_parts(self.space.range.page_address(page).as_ptr(), ROOT_SLOTS) }
    }
}

/// The words of a page bitmap that belong to a region.
const fn region_words(region: RegionIndex) -> std::ops::Range<usize> {
    let first = region.first_page().index() / 64;
    first..first + REGION_PAGES / 64
}

/// A set of pages: one bit for each.
#[derive(Debug)]
pub(crate) struct PageBits(Box<[AtomicU64]>);

impl PageBits {
    /// An empty set of pages below `pages`.
    pub(crate) fn new(pages: usize) -> Self {
        Self((0..pages / 64).map(|_| AtomicU64::new(0)).collect())
    }

    const fn bit(page: PageIndex) -> u64 {
        1 << (page.index() % 64)
    }

    /// Adds a page. Who finds it in the set sees what was done to it before.
    pub(crate) fn insert(&self, page: PageIndex) {
        // Release: pairs with the Acquires in `pages` and `keep_if`.
        self.0[page.index() / 64].fetch_or(Self::bit(page), Ordering::Release);
    }

    fn remove(&self, page: PageIndex) {
        self.0[page.index() / 64].fetch_and(!Self::bit(page), Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.iter().for_each(|bits| bits.store(0, Ordering::Relaxed));
    }

    /// Removes a page unless `holds`; a page that is added meanwhile stays. Whether it was kept.
    pub(crate) fn keep_if(&self, page: PageIndex, holds: impl FnOnce() -> bool) -> bool {
        // Acquire: pairs with the Release in `insert`: either `holds` sees what was done to the page before it was
        // added, or it is added anew.
        self.0[page.index() / 64].fetch_and(!Self::bit(page), Ordering::Acquire);
        let kept = holds();
        if kept {
            self.0[page.index() / 64].fetch_or(Self::bit(page), Ordering::Relaxed);
        }
        kept
    }

    /// The pages of the set whose bits lie in these words.
    pub(crate) fn pages(&self, words: std::ops::Range<usize>) -> impl Iterator<Item = PageIndex> + '_ {
        words.flat_map(|word| {
            // Acquire: pairs with the Release in `insert`.
            let mut left = self.0[word].load(Ordering::Acquire);
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(PageIndex(word as u32 * 64 + bit))
            })
        })
    }
}

fn add_pages(list: &mut Vec<PageIndex>, region: RegionIndex) {
    let first = region.first_page().0;
    list.extend((first..first + REGION_PAGES as u32).rev().map(PageIndex));
}

/// The reference in a root slot's value, if it holds one.
#[inline]
#[must_use]
pub(crate) const fn root_reference(value: u64) -> Option<ToAddress> {
    if value == 0 || value & 1 != 0 { None } else { Some(ToAddress::new(value as usize)) }
}
