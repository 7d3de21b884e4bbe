//! [`Heap`]: creating a heap, attaching threads to it, asking it things.
//!
//! Run by any thread. A heap owns the collector's heap and the registry of mutators, which is the
//! embedder that the collector calls. The collector's heap keeps the registry, and the registry
//! a handle of the collector's heap; the last [`Heap`] cuts that circle.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use strikeslip_gc::error::{AllocError, HeapError};
use strikeslip_gc::heap::Heap as GcHeap;
use strikeslip_gc::options::{Delivery, HeapOptions, Mode, StressMode};
use strikeslip_gc::roots::RootPageKind;
use strikeslip_gc::stats::Snapshot;

use crate::churn;
use crate::handle::{HandleStack, RootSlot, SlotPool};
use crate::mutator::Mutator;
use crate::safepoint::{self, Member, Registry};
use crate::watchdog::LateMutator;

/// Why a thread could not be attached.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttachError {
    /// A thread can have one mutator for each heap.
    #[error("this thread is already attached to this heap")]
    AlreadyAttached,
    /// There is no memory for the mutator's root slots.
    #[error("no memory for root slots: {0}")]
    OutOfMemory(#[from] AllocError),
}

/// A heap. Clones are the same heap; it is destroyed with the last one.
#[derive(Clone, Debug)]
pub struct Heap(Arc<Inner>);

/// What all handles of a heap share.
pub(crate) struct Inner {
    gc: GcHeap,
    registry: Arc<Registry>,
    persistent: Mutex<SlotPool>,
    weak: Mutex<SlotPool>,
    limit_bytes: usize,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap").field("choice", &self.gc.choice()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.gc.is_inherited() {
            // Root slots are not there in a child process.
            return;
        }
        // No mutator, no persistent or weak handle: each of them keeps a `Heap`.
        for pool in [&mut self.persistent, &mut self.weak] {
            pool.get_mut().unwrap_or_else(PoisonError::into_inner).release(self.gc.roots());
        }
        self.registry.set_gc(None);
    }
}

impl Heap {
    /// Creates a heap.
    ///
    /// # Errors
    /// [`HeapError`] if an option cannot work, the system refuses memory, or a mode was demanded
    /// that the system does not offer.
    pub fn new(options: HeapOptions) -> Result<Self, HeapError> {
        let limit_bytes = options.limit_bytes;
        let registry = Arc::new(Registry::new(Duration::from_millis(options.watchdog_ms)));
        let gc = GcHeap::new(options, registry.clone())?;
        registry.set_gc(Some(gc.clone()));
        let churns = gc.options().stress.modes.contains(StressMode::ThreadChurn);
        let [persistent, weak] =
            [RootPageKind::Paged, RootPageKind::Weak].map(|kind| Mutex::new(SlotPool::new(kind)));
        let inner = Arc::new(Inner { gc, registry, persistent, weak, limit_bytes });
        if churns {
            churn::start(Arc::downgrade(&inner)).map_err(HeapError::Thread)?;
        }
        Ok(Self(inner))
    }

    pub(crate) const fn from_inner(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    /// Attaches this thread, runs `f` as a mutator, and detaches it again, also if `f` panics.
    ///
    /// A thread may be attached to several heaps at once. Then a stop of one of them waits while the
    /// thread is stopped by another: two threads that are attached to the same two heaps can so wait
    /// for each other. Attach to the second heap inside [`Mutator::blocked`] of the first.
    ///
    /// # Errors
    /// [`AttachError`] if this thread is already attached to this heap, or there is no memory.
    pub fn attach<R>(&self, f: impl FnOnce(&mut Mutator) -> R) -> Result<R, AttachError> {
        struct Attached<'a>(&'a Registry, Arc<Member>);
        impl Drop for Attached<'_> {
            fn drop(&mut self) {
                self.0.detach(&self.1);
            }
        }
        if safepoint::is_attached(&self.0.registry) {
            return Err(AttachError::AlreadyAttached);
        }
        let handles = HandleStack::new(self.0.gc.roots())?;
        let attached = Attached(&self.0.registry, self.0.registry.attach(&self.0.gc, handles));
        let mut mutator = Mutator::new(self.clone(), Arc::clone(&attached.1));
        Ok(f(&mut mutator))
    }

    /// Runs a whole collection that begins after this call, and returns when it is over.
    ///
    /// # Panics
    /// If this thread is attached to the heap and not in [`Mutator::blocked`]: it would wait for
    /// itself. A mutator calls [`Mutator::collect`].
    pub fn collect(&self) {
        assert!(
            !safepoint::is_running(&self.0.registry),
            "Heap::collect called by a running mutator: call Mutator::collect"
        );
        self.0.gc.collect();
    }

    /// Mode in use.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.gc.mode()
    }

    /// Delivery in use; `None` in modes without faults.
    #[must_use]
    pub fn delivery(&self) -> Option<Delivery> {
        self.0.gc.delivery()
    }

    /// One line: which mode was chosen, and why.
    #[must_use]
    pub fn choice(&self) -> &str {
        self.0.gc.choice()
    }

    /// All statistics.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.gc.snapshot()
    }

    /// Sets what is called, on the controller's thread, with each mutator that has not reached a
    /// safepoint in time ([`HeapOptions::watchdog_ms`]). At first, that is a line on standard error.
    pub fn set_watchdog(&self, callback: impl Fn(&LateMutator) + Send + Sync + 'static) {
        self.0.registry.watchdog().set(Arc::new(callback));
    }

    /// The collector's side of the heap, for those who build on `strikeslip-gc` directly.
    #[must_use]
    pub fn collector(&self) -> &GcHeap {
        &self.0.gc
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.0.registry
    }

    pub(crate) fn limit_bytes(&self) -> usize {
        self.0.limit_bytes
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn take_persistent_slot(&self) -> Result<RootSlot, AllocError> {
        self.0.persistent.lock().unwrap_or_else(PoisonError::into_inner).take(self.0.gc.roots())
    }

    pub(crate) fn take_weak_slot(&self) -> Result<RootSlot, AllocError> {
        self.0.weak.lock().unwrap_or_else(PoisonError::into_inner).take(self.0.gc.roots())
    }

    pub(crate) fn give_weak_slot_back(&self, slot: RootSlot) {
        self.0.weak.lock().unwrap_or_else(PoisonError::into_inner).give_back(slot);
    }

    pub(crate) fn give_persistent_slot_back(&self, slot: RootSlot) {
        self.0.persistent.lock().unwrap_or_else(PoisonError::into_inner).give_back(slot);
    }
}
