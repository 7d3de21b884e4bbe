//! Persistent handles: roots that belong to no scope and no thread.
//!
//! Making and dropping one are slow paths (a lock around the list of free slots); reading and
//! changing one are an atomic access to its root slot.
//!
//! Dropping works on any thread. A thread that is not a running mutator could clear the slot in the
//! middle of a pause, while the collector rewrites it; so it holds a stop off meanwhile
//! ([`Registry::while_not_stopped`](crate::safepoint::Registry::while_not_stopped)). The slot may lie
//! on a page that is missing after a flip. That is served as for a running mutator, which a stop
//! would wait for just the same.

use std::fmt;
use std::marker::PhantomData;

use strikeslip_gc::address::ToAddress;

use crate::handle::{RootSlot, no_root_page};
use crate::heap::Heap;
use crate::object::Gc;
use crate::shape::Object;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::{Mutator, safepoint};

/// A handle that lives until it is dropped, on any thread. It keeps its heap alive, too.
pub struct Persistent<T> {
    heap: Heap,
    slot: RootSlot,
    refers_to: PhantomData<*mut T>,
}

// SAFETY: the slot is atomic and lies in a page that the heap keeps; an object is only reached with
// a mutator of the thread that asks.
unsafe impl<T> Send for Persistent<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Persistent<T> {}

impl<T> fmt::Debug for Persistent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Persistent({:#x})", self.cell().load(Ordering::Relaxed))
    }
}

impl<T> Persistent<T> {
    #[inline]
    fn cell(&self) -> &AtomicU64 {
        // SAFETY: the slot's page is freed with the heap, which `self` keeps.
        unsafe { self.slot.as_ref() }
    }
}

impl<T: Object> Persistent<T> {
    pub(crate) fn new(m: &Mutator, object: Gc<'_, T>) -> Self {
        m.member().check_address(object.address().get(), "the object rooted");
        let heap = m.heap().clone();
        let slot = heap.take_persistent_slot().unwrap_or_else(|error| no_root_page(error));
        let persistent = Self { heap, slot, refers_to: PhantomData };
        persistent.set(m, object);
        persistent
    }

    fn check_heap(&self, m: &Mutator) {
        assert!(self.heap.is_same(m.heap()), "the persistent handle is not of this mutator's heap");
    }

    /// The object.
    ///
    /// # Panics
    /// If the handle is not of `m`'s heap.
    #[inline]
    #[must_use]
    pub fn get<'n>(&self, m: &'n Mutator) -> Gc<'n, T> {
        self.check_heap(m);
        // Acquire: pairs with the Release in `set`, on any thread, so that the object's contents are
        // seen through the reference.
        let address = self.cell().load(Ordering::Acquire) as usize;
        // SAFETY: the slot holds the address of a `T` in the handle's heap from `new` to `drop`, and
        // that is `m`'s, as checked; `m` is borrowed for `'n`, so it reaches no safepoint.
        unsafe { Gc::from_address(ToAddress::new(address)) }
    }

    /// Makes the handle refer to another object.
    ///
    /// # Panics
    /// If the handle or the object is not of `m`'s heap.
    #[inline]
    pub fn set(&self, m: &Mutator, object: Gc<'_, T>) {
        self.check_heap(m);
        m.member().check_address(object.address().get(), "the object rooted");
        m.member().context().store_root(self.cell(), object.address());
    }

    /// Another persistent handle of the same object.
    ///
    /// # Panics
    /// If the handle is not of `m`'s heap.
    #[must_use]
    pub fn duplicate(&self, m: &Mutator) -> Self {
        Self::new(m, self.get(m))
    }
}

impl<T> Drop for Persistent<T> {
    fn drop(&mut self) {
        let clear = || self.cell().store(0, Ordering::Relaxed);
        if safepoint::is_running(self.heap.registry()) {
            clear();
        } else {
            self.heap.registry().while_not_stopped(clear);
        }
        self.heap.give_persistent_slot_back(self.slot);
    }
}
