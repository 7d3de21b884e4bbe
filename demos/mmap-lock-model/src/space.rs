//! An address space (`mm_struct`), its VMAs, and the operations that change them.
//!
//! Invariant: a VMA's bounds, protection and attachment change only with `mmap_lock` held for writing,
//! after [`Space::start_write`] on that VMA. Every change asserts that nobody uses the VMA: that is what is checked.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::semaphore::Semaphore;

// Not Relaxed, so that a check never rests on how a lock orders memory; pairs with itself everywhere.
const ORDER: Ordering = Ordering::SeqCst;
/// No write lock was ever taken.
const NEVER: usize = usize::MAX;

/// Why an operation was not done: the kernel's error codes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Errno {
    /// `EAGAIN`: mappings are changing (`mmap_changing`).
    Again,
    /// `EEXIST`: the page is there.
    Exists,
    /// `EINVAL`: the VMAs do not fit the operation.
    Invalid,
    /// `ENOENT`: no such VMA or source page, the range leaves it, or it is not registered.
    Missing,
}

/// A VMA. Bounds are pages.
#[derive(Debug)]
pub struct Vma {
    start: AtomicUsize,
    end: AtomicUsize,
    writable: AtomicBool,
    has_anon_vma: AtomicBool,
    is_detached: AtomicBool,
    /// Value of [`Space::sequence`] when last locked for writing (`vm_lock_seq`).
    sequence: AtomicUsize,
    /// `vm_lock`.
    pub lock: Semaphore,
    users: AtomicUsize,
}

impl Vma {
    fn new(start: usize, end: usize, writable: bool, has_anon_vma: bool) -> Arc<Self> {
        Arc::new(Self {
            start: AtomicUsize::new(start),
            end: AtomicUsize::new(end),
            writable: AtomicBool::new(writable),
            has_anon_vma: AtomicBool::new(has_anon_vma),
            is_detached: AtomicBool::new(false),
            sequence: AtomicUsize::new(NEVER),
            lock: Semaphore::new(),
            users: AtomicUsize::new(0),
        })
    }

    /// Whether all of the range lies in it.
    #[must_use]
    pub fn contains(&self, start: usize, pages: usize) -> bool {
        self.start.load(ORDER) <= start && start + pages <= self.end.load(ORDER)
    }

    /// Whether pages of it can be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable.load(ORDER)
    }

    /// Whether it has an `anon_vma`.
    #[must_use]
    pub fn has_anon_vma(&self) -> bool {
        self.has_anon_vma.load(ORDER)
    }

    /// `anon_vma_prepare`; the caller holds `mmap_lock`.
    pub fn prepare_anon_vma(&self) {
        self.has_anon_vma.store(true, ORDER);
    }

    /// Uses the VMA: who changes it meanwhile panics.
    ///
    /// # Panics
    /// The VMA is not in the address space.
    pub fn with_use<R>(&self, work: impl FnOnce() -> R) -> R {
        self.users.fetch_add(1, ORDER);
        assert!(!self.is_detached.load(ORDER), "use of a VMA that was unmapped");
        let result = work();
        self.users.fetch_sub(1, ORDER);
        result
    }

    fn assert_unused(&self) {
        assert_eq!(self.users.load(ORDER), 0, "a VMA is changed under its user");
    }
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// `mmap_lock` taken for reading.
    pub reads: AtomicU64,
    /// `mmap_lock` taken for writing.
    pub writes: AtomicU64,
    /// Tries to lock a VMA without `mmap_lock`.
    pub attempts: AtomicU64,
    /// Those that failed.
    pub failures: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// How wide sequence numbers are.
#[derive(Copy, Clone, Debug)]
pub struct Width {
    /// Readers compare sequence numbers modulo this (2^32 in the kernel).
    pub modulus: usize,
    /// Writers (`vma_start_write`) compare modulo it too, as in the kernel; else they never mistake a number.
    pub writers_wrap: bool,
}

impl Width {
    /// Numbers that never repeat.
    pub const ENDLESS: Self = Self { modulus: usize::MAX, writers_wrap: false };
}

/// An address space.
#[derive(Debug)]
pub struct Space {
    /// `mmap_lock`.
    mmap_lock: Semaphore,
    sequence: AtomicUsize,
    width: Width,
    tree: Mutex<Vec<Arc<Vma>>>,
    pages: Mutex<BTreeSet<usize>>,
    /// `map_changing_lock` of the userfaultfd.
    map_changing_lock: Semaphore,
    mmap_changing: AtomicUsize,
    /// What was counted.
    pub counts: Counts,
}

impl Space {
    /// An empty address space.
    #[must_use]
    pub fn new(width: Width) -> Self {
        Self {
            mmap_lock: Semaphore::new(),
            sequence: AtomicUsize::new(0),
            width,
            tree: Mutex::default(),
            pages: Mutex::default(),
            map_changing_lock: Semaphore::new(),
            mmap_changing: AtomicUsize::new(0),
            counts: Counts::default(),
        }
    }

    /// `mmap_read_lock`.
    pub fn read_lock(&self) {
        self.mmap_lock.down_read();
        count(&self.counts.reads);
    }

    /// `mmap_read_unlock`.
    ///
    /// # Panics
    /// Nobody holds it.
    pub fn read_unlock(&self) {
        assert!(self.mmap_lock.up_read(), "mmap_lock was released and not held");
    }

    fn write_lock(&self) {
        self.mmap_lock.down_write();
        count(&self.counts.writes);
    }

    /// `mmap_write_unlock`: the next sequence number unlocks all VMAs at once (`vma_end_write_all`).
    fn write_unlock(&self) {
        self.sequence.fetch_add(1, ORDER);
        self.mmap_lock.up_write();
    }

    /// `vma_start_write`: marks the VMA with the sequence number, once its readers are gone.
    fn start_write(&self, vma: &Vma) {
        let now = self.sequence.load(ORDER);
        let marked = vma.sequence.load(ORDER);
        if marked == now || (self.width.writers_wrap && self.looks_equal(marked, now)) {
            return;
        }
        vma.lock.down_write();
        vma.sequence.store(now, ORDER);
        vma.lock.up_write();
    }

    fn looks_equal(&self, marked: usize, now: usize) -> bool {
        marked != NEVER && marked % self.width.modulus == now % self.width.modulus
    }

    fn looks_write_locked(&self, vma: &Vma) -> bool {
        self.looks_equal(vma.sequence.load(ORDER), self.sequence.load(ORDER))
    }

    /// `vma_start_read`: never waits. False if a writer has the VMA, or seems to have it: a number that
    /// came round (overflow) looks like a lock.
    #[must_use]
    pub fn start_read(&self, vma: &Vma) -> bool {
        if self.looks_write_locked(vma) || !vma.lock.try_down_read() {
            return false;
        }
        let is_locked = self.looks_write_locked(vma);
        if is_locked {
            self.end_read(vma);
        }
        !is_locked
    }

    /// `vma_end_read`.
    ///
    /// # Panics
    /// Nobody has the VMA locked for reading.
    pub fn end_read(&self, vma: &Vma) {
        assert!(vma.lock.up_read(), "a VMA's lock was released and not held");
    }

    /// `lock_vma_under_rcu`: the VMA that contains `page`, locked without `mmap_lock`. None if there is
    /// none, a writer has it, it changed meanwhile, or it has no `anon_vma`. A reference count stands for RCU.
    #[must_use]
    pub fn lock_under_rcu(&self, page: usize) -> Option<Arc<Vma>> {
        count(&self.counts.attempts);
        let locked = self.lookup(page).filter(|vma| vma.has_anon_vma() && self.start_read(vma));
        let found = locked.filter(|vma| {
            let is_it = !vma.is_detached.load(ORDER) && vma.contains(page, 1);
            if !is_it {
                self.end_read(vma);
            }
            is_it
        });
        if found.is_none() {
            count(&self.counts.failures);
        }
        found
    }

    /// `find_vma`: the VMA that contains `page`, else the next one above.
    #[must_use]
    pub fn find(&self, page: usize) -> Option<Arc<Vma>> {
        let tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tree.into_iter().find(|vma| page < vma.end.load(ORDER))
    }

    /// `vma_lookup`: the VMA that contains `page`.
    #[must_use]
    pub fn lookup(&self, page: usize) -> Option<Arc<Vma>> {
        self.find(page).filter(|vma| vma.contains(page, 1))
    }

    /// Runs `work` unless mappings are changing (`mmap_changing`, read under its own lock).
    ///
    /// # Errors
    /// [`Errno::Again`], or what `work` says.
    ///
    /// # Panics
    /// The lock was released by another thread.
    pub fn unless_changing<R>(&self, work: impl FnOnce() -> Result<R, Errno>) -> Result<R, Errno> {
        self.map_changing_lock.down_read();
        let result = if self.mmap_changing.load(ORDER) > 0 { Err(Errno::Again) } else { work() };
        assert!(self.map_changing_lock.up_read(), "map_changing_lock was released and not held");
        result
    }

    /// Puts a page where none is. False if one is there.
    #[must_use]
    pub fn put_page(&self, page: usize) -> bool {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).insert(page)
    }

    /// Takes a page away. False if none is there.
    #[must_use]
    pub fn take_page(&self, page: usize) -> bool {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).remove(&page)
    }

    fn change_tree(&self, change: impl FnOnce(&mut Vec<Arc<Vma>>)) {
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut tree);
    }

    /// `mmap` of a range in which nothing is; `touched` gives it an `anon_vma`.
    pub fn map(&self, start: usize, pages: usize, touched: bool) {
        self.write_lock();
        let vma = Vma::new(start, start + pages, true, touched);
        self.change_tree(|tree| {
            let at = tree.iter().position(|other| other.start.load(ORDER) > start).unwrap_or(tree.len());
            tree.insert(at, vma);
        });
        self.write_unlock();
    }

    /// `munmap` of the VMA that contains `page`. With `event` (`UFFD_FEATURE_EVENT_UNMAP`), `mmap_changing` is set
    /// until the monitor has read of it.
    ///
    /// # Errors
    /// [`Errno::Missing`] if there is none.
    pub fn unmap(&self, page: usize, event: bool) -> Result<(), Errno> {
        self.write_lock();
        let Some(vma) = self.lookup(page) else {
            self.write_unlock();
            return Err(Errno::Missing);
        };
        if event {
            self.map_changing_lock.down_write();
            self.mmap_changing.fetch_add(1, ORDER);
            self.map_changing_lock.up_write();
        }
        self.start_write(&vma);
        vma.assert_unused();
        vma.is_detached.store(true, ORDER);
        self.change_tree(|tree| tree.retain(|other| !Arc::ptr_eq(other, &vma)));
        let (start, end) = (vma.start.load(ORDER), vma.end.load(ORDER));
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).retain(|&page| page < start || page >= end);
        self.write_unlock();
        if event {
            self.mmap_changing.fetch_sub(1, ORDER);
        }
        Ok(())
    }

    /// Splits the VMA that contains `page` before it (`split_vma`).
    ///
    /// # Errors
    /// [`Errno::Missing`] if there is no VMA that begins below.
    pub fn split(&self, page: usize) -> Result<(), Errno> {
        self.write_lock();
        let vma = self.lookup(page).filter(|vma| vma.start.load(ORDER) < page);
        if let Some(vma) = &vma {
            self.start_write(vma);
            vma.assert_unused();
            let upper = Vma::new(page, vma.end.load(ORDER), vma.is_writable(), vma.has_anon_vma());
            upper.sequence.store(self.sequence.load(ORDER), ORDER);
            vma.end.store(page, ORDER);
            self.change_tree(|tree| {
                let at = tree.iter().position(|other| Arc::ptr_eq(other, vma)).unwrap_or(0);
                tree.insert(at + 1, upper);
            });
        }
        self.write_unlock();
        vma.map(drop).ok_or(Errno::Missing)
    }

    /// `mprotect` of the VMA that contains `page`; `hold` is what takes long under `mmap_lock`.
    ///
    /// # Errors
    /// [`Errno::Missing`] if there is none.
    pub fn protect(&self, page: usize, writable: bool, hold: impl FnOnce()) -> Result<(), Errno> {
        self.write_lock();
        let vma = self.lookup(page);
        if let Some(vma) = &vma {
            self.start_write(vma);
            vma.assert_unused();
            vma.writable.store(writable, ORDER);
            hold();
        }
        self.write_unlock();
        vma.map(drop).ok_or(Errno::Missing)
    }
}
