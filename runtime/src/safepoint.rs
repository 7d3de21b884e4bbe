//! Safepoints: how mutators are handshaken with, stopped and resumed.
//!
//! The protocol is in [`protocol`]; here is what it protects: each mutator's context, handles and heap, and which
//! mutators the calling thread has.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use strikeslip_gc::address::HeapRange;
use strikeslip_gc::context::MutatorContext;
use strikeslip_gc::embedder::Embedder;
use strikeslip_gc::heap::Heap as GcHeap;
use strikeslip_gc::roots::RootSpace;

use crate::handle::HandleStack;
use crate::watchdog::Watchdog;

#[cfg(all(test, loom))]
mod models;
mod protocol;
#[cfg(test)]
mod tests;

/// A mutator as its heap's registry knows it: its state, its context, its handles.
pub(crate) type Member = protocol::Member<Attached>;
/// A heap's mutators: the embedder's side of the collector's seam.
pub(crate) type Registry = protocol::Registry<Attached>;

/// What an attached thread has.
pub(crate) struct Attached {
    range: HeapRange,
    context: MutatorContext,
    /// Used by the mutator's own thread only.
    pub(crate) handles: HandleStack,
    gc: GcHeap,
}

/// For the controller's own report of a pause. Taken out by the last [`crate::Heap`], for the collector's heap owns
/// the registry.
pub(crate) type Host = Mutex<Option<GcHeap>>;

// SAFETY: the handle stack is used by the mutator's own thread only; range and heap are `Sync`.
unsafe impl protocol::Party for Attached {
    type Context = MutatorContext;
    type Host = Host;

    #[inline]
    fn context(&self) -> &MutatorContext {
        &self.context
    }

    fn pause_ended(&self, requested: Instant) {
        self.gc.pause_ended(requested);
    }

    fn controller_pause_ended(host: &Host, requested: Instant) {
        if let Some(gc) = &*host.lock().unwrap_or_else(PoisonError::into_inner) {
            gc.pause_ended(requested);
        }
    }
}

impl Attached {
    /// The context, for the owner of the member (by the protocol's table).
    #[inline]
    pub(crate) fn context(&self) -> &MutatorContext {
        &self.context
    }

    #[inline]
    pub(crate) fn roots(&self) -> &RootSpace {
        self.gc.roots()
    }

    #[inline]
    pub(crate) fn gc(&self) -> &GcHeap {
        &self.gc
    }

    /// Panics if `address` is not in the member's heap.
    #[inline]
    pub(crate) fn check_address(&self, address: usize, what: &str) {
        if !self.range.contains(address) {
            not_in_this_heap(what);
        }
    }
}

#[cold]
#[inline(never)]
fn not_in_this_heap(what: &str) -> ! {
    panic!("{what} is not in this mutator's heap");
}

impl Registry {
    pub(crate) fn new(watchdog: Duration) -> Self {
        Self::with_host(Host::default(), watchdog)
    }

    pub(crate) fn set_gc(&self, gc: Option<GcHeap>) {
        let old = std::mem::replace(&mut *self.host.lock().unwrap_or_else(PoisonError::into_inner), gc);
        drop(old); // After the lock is free: it may wait for the controller to finish.
    }

    pub(crate) const fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    /// Attaches the calling thread, as a running mutator.
    pub(crate) fn attach(self: &Arc<Self>, gc: &GcHeap, handles: HandleStack) -> Arc<Member> {
        let member =
            self.enter(|| Attached { range: gc.range(), context: gc.attach(), handles, gc: gc.clone() });
        ATTACHED.with_borrow_mut(|attached| attached.push(Arc::clone(&member)));
        member
    }

    /// Detaches the calling thread's running mutator.
    pub(crate) fn detach(&self, member: &Arc<Member>) {
        member.handles.release(member.roots());
        self.leave(member, || member.gc.detach(&member.context));
        ATTACHED.with_borrow_mut(|attached| attached.retain(|other| !Arc::ptr_eq(other, member)));
    }
}

// SAFETY: by the points of the trait's contract:
// 1. `Mutator` gives access to heap and context to its own thread, by borrows that end before it
//    blocks or reaches a safepoint (see `mutator`).
// 2. A `Gc` borrows the mutator; what outlives a safepoint is a `Local` or `Persistent`: a root slot.
// 3. `stop_world` returns when every member is claimed; a claimed member runs again only after
//    `give_back`, and no thread attaches meanwhile (`stopping`).
// 4. By the orderings in the protocol's table.
unsafe impl Embedder for Registry {
    fn handshake(&self, action: &(dyn Fn(&MutatorContext) + Sync)) {
        Self::handshake(self, action);
    }

    fn stop_world(&self) {
        Self::stop_world(self);
    }

    fn for_each_stopped(&self, action: &mut dyn FnMut(&MutatorContext)) {
        Self::for_each_stopped(self, action);
    }

    fn resume_world(&self, requested: Instant) {
        Self::resume_world(self, requested);
    }
}

thread_local! {
    /// The calling thread's mutators, of all heaps.
    static ATTACHED: RefCell<Vec<Arc<Member>>> = const { RefCell::new(Vec::new()) };
}

fn with_member<R>(registry: &Arc<Registry>, look: impl FnOnce(&Member) -> R) -> Option<R> {
    // A thread that ends (`try_with` fails) is not attached any more.
    ATTACHED
        .try_with(|attached| {
            attached
                .borrow()
                .iter()
                .find(|member| Arc::ptr_eq(&member.registry, registry))
                .map(|member| look(member))
        })
        .ok()
        .flatten()
}

/// Whether the calling thread is attached to the heap.
pub(crate) fn is_attached(registry: &Arc<Registry>) -> bool {
    with_member(registry, |_| ()).is_some()
}

/// Whether the calling thread is attached to the heap, as a running mutator.
pub(crate) fn is_running(registry: &Arc<Registry>) -> bool {
    with_member(registry, Member::is_running) == Some(true)
}
