//! An address space (`mm_struct`): `mmap_lock`, sequence numbers, lookups, pages.
//!
//! The VMA tree and the page table are one step each. A lock and a reference count stand for RCU, under which the
//! kernel finds VMAs in the tree; they order a little more than RCU does.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::rule::{Options, Rule};
use crate::semaphore::Semaphore;
use crate::service::Errno;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, lock};
use crate::userfault::Userfault;
use crate::vma::{NEVER, Vma};

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

/// VMAs by their end, with their start. The tree has bounds of its own, as the kernel's has: who finds a VMA
/// without a lock may find it changed since.
type Tree = BTreeMap<usize, (usize, Arc<Vma>)>;

/// An address space.
#[derive(Debug)]
pub struct Space {
    options: Options,
    mmap_lock: Semaphore,
    /// `mm_lock_seq`.
    sequence: AtomicUsize,
    tree: Mutex<Tree>,
    /// The page table, under its lock.
    pages: Mutex<BTreeSet<usize>>,
    /// The userfaultfd that all of it is registered with.
    pub userfault: Userfault,
    /// What was counted.
    pub counts: Counts,
}

impl Space {
    /// An empty address space.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            mmap_lock: Semaphore::new(),
            sequence: AtomicUsize::new(0),
            tree: Mutex::default(),
            pages: Mutex::default(),
            userfault: Userfault::new(&options),
            counts: Counts::default(),
        }
    }

    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.options.keeps(rule)
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
        self.mmap_lock.up_read();
    }

    /// `mmap_write_lock`.
    pub(crate) fn write_lock(&self) {
        self.mmap_lock.down_write();
        count(&self.counts.writes);
    }

    /// `mmap_write_unlock`: the next sequence number unlocks all VMAs at once.
    pub(crate) fn write_unlock(&self) {
        if self.keeps(Rule::EndAfterChange) {
            self.end_write_all();
        }
        self.mmap_lock.up_write();
    }

    /// `vma_end_write_all`.
    fn end_write_all(&self) {
        // Release pairs with the Acquire in `start_read`: who sees the VMAs unlocked sees them changed.
        let order = if self.keeps(Rule::OrderedSequence) { Release } else { Relaxed };
        self.sequence.fetch_add(1, order);
    }

    /// `vma_start_write`: marks the VMA with the sequence number, once its readers are gone. That locks it until
    /// [`Space::write_unlock`]; its lock is free again at once.
    pub(crate) fn start_write(&self, vma: &Vma) {
        let now = self.sequence.load(Relaxed);
        let marked = vma.sequence.load(Relaxed);
        if marked == now || (self.options.writers_wrap && self.look_equal(marked, now)) {
            return;
        }
        let waits = self.keeps(Rule::WriterWaits);
        if waits {
            vma.lock().down_write();
        }
        vma.sequence.store(now, Relaxed);
        if waits {
            vma.lock().up_write();
        }
        if !self.keeps(Rule::EndAfterChange) {
            self.end_write_all();
        }
    }

    /// A VMA that a writer has just made is locked by it, too.
    pub(crate) fn mark_written(&self, vma: &Vma) {
        vma.sequence.store(self.sequence.load(Relaxed), Relaxed);
    }

    fn look_equal(&self, marked: usize, now: usize) -> bool {
        marked != NEVER && marked % self.options.modulus == now % self.options.modulus
    }

    /// `vma_start_read`: never waits. False if a writer has the VMA, or seems to have it: a number that
    /// came round (overflow) looks like a lock.
    #[must_use]
    pub fn start_read(&self, vma: &Vma) -> bool {
        if self.look_equal(vma.sequence.load(Relaxed), self.sequence.load(Relaxed)) {
            return false;
        }
        if !vma.lock().try_down_read() {
            return false;
        }
        // A writer marks the VMA with its lock held, so the mark is new. Acquire pairs with the Release in
        // `end_write_all`.
        let order = if self.keeps(Rule::OrderedSequence) { Acquire } else { Relaxed };
        let now = self.sequence.load(order);
        if self.keeps(Rule::RecheckSequence) && self.look_equal(vma.sequence.load(Relaxed), now) {
            self.end_read(vma);
            return false;
        }
        true
    }

    /// `vma_end_read`.
    ///
    /// # Panics
    /// Nobody has the VMA locked for reading.
    pub fn end_read(&self, vma: &Vma) {
        vma.lock().up_read();
    }

    /// `lock_vma_under_rcu`: the VMA that contains `page`, locked without `mmap_lock`. None if there is
    /// none, a writer has it, it changed meanwhile, or it has no `anon_vma`.
    #[must_use]
    pub fn lock_under_rcu(&self, page: usize) -> Option<Arc<Vma>> {
        count(&self.counts.attempts);
        let locked = self.lookup(page).filter(|vma| self.start_read(vma));
        let found = locked.filter(|vma| {
            let is_it = !self.keeps(Rule::RecheckVma) || (!vma.is_detached() && vma.contains(&one(page)));
            let is_ready = !self.keeps(Rule::AnonVma) || vma.has_anon_vma();
            if !(is_it && is_ready) {
                self.end_read(vma);
            }
            is_it && is_ready
        });
        if found.is_none() {
            count(&self.counts.failures);
        }
        found
    }

    /// `anon_vma_prepare`.
    ///
    /// # Panics
    /// Nobody holds `mmap_lock`: the `anon_vma` may be shared with a neighbour, which must not go meanwhile.
    pub fn prepare_anon_vma(&self, vma: &Vma) {
        assert!(self.mmap_lock.is_held(), "an anon_vma is prepared without mmap_lock");
        vma.set_anon_vma();
    }

    /// `find_vma`: the VMA that contains `page`, else the next one above.
    #[must_use]
    pub fn find(&self, page: usize) -> Option<Arc<Vma>> {
        self.tree().range(page + 1..).next().map(|(_, (_, vma))| Arc::clone(vma))
    }

    /// `vma_lookup`: the VMA that contains `page`.
    #[must_use]
    pub fn lookup(&self, page: usize) -> Option<Arc<Vma>> {
        let tree = self.tree();
        let (_, (start, vma)) = tree.range(page + 1..).next()?;
        (*start <= page).then(|| Arc::clone(vma))
    }

    pub(crate) fn tree(&self) -> MutexGuard<'_, Tree> {
        lock(&self.tree)
    }

    /// Whether a page is there.
    #[must_use]
    pub fn has_page(&self, page: usize) -> bool {
        lock(&self.pages).contains(&page)
    }

    /// Puts a page of a VMA where none is.
    ///
    /// # Errors
    /// [`Errno::Exists`] if one is there.
    ///
    /// # Panics
    /// The VMA has no `anon_vma`.
    pub fn put_page(&self, vma: &Vma, page: usize) -> Result<(), Errno> {
        assert!(vma.has_anon_vma(), "a page is put into a VMA without anon_vma");
        if lock(&self.pages).insert(page) { Ok(()) } else { Err(Errno::Exists) }
    }

    /// Moves a page to a VMA, to where none is.
    ///
    /// # Errors
    /// [`Errno::Exists`] if one is there (the source page stays), [`Errno::Missing`] if there is no source page.
    ///
    /// # Panics
    /// The VMA has no `anon_vma`.
    pub fn move_page(&self, vma: &Vma, page: usize, src: usize) -> Result<(), Errno> {
        assert!(vma.has_anon_vma(), "a page is put into a VMA without anon_vma");
        let mut pages = lock(&self.pages);
        if pages.contains(&page) {
            return Err(Errno::Exists);
        }
        if !pages.remove(&src) {
            return Err(Errno::Missing);
        }
        pages.insert(page);
        Ok(())
    }

    /// Takes the pages of a range away (`zap_page_range`).
    pub fn zap(&self, range: &Range<usize>) {
        lock(&self.pages).retain(|page| !range.contains(page));
    }
}

/// The range of one page.
pub(crate) const fn one(page: usize) -> Range<usize> {
    page..page + 1
}
