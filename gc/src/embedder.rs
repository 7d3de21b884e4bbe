//! What the embedder supplies: its threads, and when they stand still.
//!
//! The collector knows no threads. It knows *contexts* ([`MutatorContext`]), one for each mutator,
//! and asks the embedder to run something on them or to stop them. Object sizes and reference slots
//! are not asked for at all: they are data ([`crate::layout`]), and roots lie in pages that the
//! collector owns ([`crate::roots`]). So the embedder is never called while a fault is served.

use std::time::Instant;

use crate::context::MutatorContext;

/// The embedder's side of the seam. All methods are called by the heap's controller thread, one at a
/// time.
///
/// A mutator is, at any time, *running* (it may touch the heap), *blocked* (it promised not to touch
/// the heap nor its context) or *stopped* at a safepoint.
///
/// # Safety
/// The collector relies on the following for memory safety.
/// 1. A mutator touches heap memory and its context only while it is running.
/// 2. Between two safepoints of a mutator nothing else holds references for it but root slots: at a
///    safepoint, every reference that it will use afterwards lies in a root slot.
/// 3. [`stop_world`](Embedder::stop_world) returns when no mutator is running, and none begins to
///    run before [`resume_world`](Embedder::resume_world); a mutator that leaves a blocked state
///    meanwhile waits. The same holds for attaching: contexts are made
///    (`Heap::attach`) under a lock that excludes a handshake's or a stop's enumeration.
/// 4. What a mutator did before a safepoint happens before the action of a handshake or a stop, and
///    that happens before what the mutator does next.
pub unsafe trait Embedder: Send + Sync + 'static {
    /// Runs `action` exactly once on the context of every attached mutator: on the mutator's own
    /// thread at its next safepoint, or on its behalf while it is blocked. Returns when all are
    /// done; nobody waits for anybody else. A mutator that detaches meanwhile runs it before it is
    /// gone; one that attaches meanwhile need not.
    fn handshake(&self, action: &(dyn Fn(&MutatorContext) + Sync));

    /// Asks all mutators to stop and waits until none is running.
    fn stop_world(&self);

    /// Runs `action` on every context. Called only while the world is stopped.
    fn for_each_stopped(&self, action: &mut dyn FnMut(&MutatorContext));

    /// Lets mutators run again. `requested` is when the stop was requested: the last mutator to
    /// resume reports the length of the pause with `Heap::pause_ended(requested)`; if none was
    /// waiting, this method does.
    fn resume_world(&self, requested: Instant);
}

/// Proof that the world is stopped. Only the collector makes it, between
/// [`Embedder::stop_world`] and [`Embedder::resume_world`].
#[derive(Debug)]
pub struct WorldStopped(());

impl WorldStopped {
    pub(crate) fn new() -> Self {
        Self(())
    }
}
