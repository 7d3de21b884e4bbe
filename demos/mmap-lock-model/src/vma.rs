//! A VMA (`vm_area_struct`): bounds, protection, a lock and a sequence number. Bounds are pages.
//!
//! Invariant: it changes only by a writer that holds `mmap_lock` and has passed `Space::start_write` on it, and not
//! while somebody uses it. An observer checks that. It belongs to no thread and to no schedule, so it is told by
//! plain locks of the standard library, which order nothing under loom; threads see the fields, and these
//! may be old.

use std::ops::Range;
use std::sync::{Arc, Mutex as Unscheduled, PoisonError};

use crate::semaphore::Semaphore;
use crate::sync::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// No write lock was ever taken.
pub(crate) const NEVER: usize = usize::MAX;

/// A VMA.
#[derive(Debug)]
pub struct Vma {
    // Relaxed: who may rely on them holds mmap_lock or the VMA's lock, and has looked at the sequence number.
    start: AtomicUsize,
    end: AtomicUsize,
    is_writable: AtomicBool,
    has_anon_vma: AtomicBool,
    is_detached: AtomicBool,
    /// Value of the space's sequence number when last locked for writing (`vm_lock_seq`).
    pub(crate) sequence: AtomicUsize,
    /// `vm_lock`.
    lock: Semaphore,
    observed: Unscheduled<Observed>,
}

/// What the observer knows: how the VMA is, and who uses it.
#[derive(Debug)]
struct Observed {
    bounds: Range<usize>,
    is_detached: bool,
    users: usize,
}

impl Vma {
    pub(crate) fn new(bounds: Range<usize>, is_writable: bool, has_anon_vma: bool) -> Arc<Self> {
        Arc::new(Self {
            start: AtomicUsize::new(bounds.start),
            end: AtomicUsize::new(bounds.end),
            is_writable: AtomicBool::new(is_writable),
            has_anon_vma: AtomicBool::new(has_anon_vma),
            is_detached: AtomicBool::new(false),
            sequence: AtomicUsize::new(NEVER),
            lock: Semaphore::new(),
            observed: Unscheduled::new(Observed { bounds, is_detached: false, users: 0 }),
        })
    }

    /// Its bounds, as the calling thread sees them.
    #[must_use]
    pub fn bounds(&self) -> Range<usize> {
        self.start.load(Relaxed)..self.end.load(Relaxed)
    }

    /// Whether all of the range lies in it (`range_in_vma`).
    #[must_use]
    pub fn contains(&self, range: &Range<usize>) -> bool {
        is_within(range, &self.bounds())
    }

    /// Whether pages of it can be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.is_writable.load(Relaxed)
    }

    /// Whether it has an `anon_vma`, without which no page can be put into it.
    #[must_use]
    pub fn has_anon_vma(&self) -> bool {
        self.has_anon_vma.load(Relaxed)
    }

    /// Whether it was unmapped.
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.is_detached.load(Relaxed)
    }

    /// Its lock (`vm_lock`). Who takes it directly, and not by [`Space::start_read`], holds `mmap_lock`.
    ///
    /// [`Space::start_read`]: crate::space::Space::start_read
    #[must_use]
    pub const fn lock(&self) -> &Semaphore {
        &self.lock
    }

    /// Works on pages of the VMA.
    ///
    /// # Panics
    /// Here: the VMA was unmapped, or the pages are not in it. In whoever changes the VMA meanwhile: it is used.
    pub fn with_use<R>(&self, pages: &Range<usize>, work: impl FnOnce() -> R) -> R {
        self.observe(|observed| {
            assert!(!observed.is_detached, "use of a VMA that was unmapped");
            assert!(is_within(pages, &observed.bounds), "use of pages that are not in the VMA");
            observed.users += 1;
        });
        let result = work();
        self.observe(|observed| observed.users -= 1);
        result
    }

    pub(crate) fn set_anon_vma(&self) {
        self.has_anon_vma.store(true, Relaxed);
    }

    pub(crate) fn set_end(&self, end: usize) {
        self.change(|observed| observed.bounds.end = end);
        self.end.store(end, Relaxed);
    }

    pub(crate) fn set_writable(&self, is_writable: bool) {
        self.change(|_| ());
        self.is_writable.store(is_writable, Relaxed);
    }

    pub(crate) fn detach(&self) {
        self.change(|observed| observed.is_detached = true);
        self.is_detached.store(true, Relaxed);
    }

    fn change(&self, change: impl FnOnce(&mut Observed)) {
        self.observe(|observed| {
            assert_eq!(observed.users, 0, "a VMA is changed under its user");
            change(observed);
        });
    }

    fn observe(&self, note: impl FnOnce(&mut Observed)) {
        note(&mut self.observed.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

const fn is_within(range: &Range<usize>, bounds: &Range<usize>) -> bool {
    bounds.start <= range.start && range.end <= bounds.end
}
