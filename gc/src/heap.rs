//! The heap (stub: signatures are final, bodies to come).
use std::sync::Arc;
use std::time::Instant;

use crate::address::{HeapRange, ToAddress};
use crate::context::{MemoryNeed, MutatorContext};
use crate::embedder::Embedder;
use crate::error::{AllocError, HeapError};
use crate::options::{Delivery, HeapOptions, Mode};
use crate::roots::RootSpace;
use crate::stats::Snapshot;

/// A heap. Cloning gives another handle of the same heap.
#[derive(Clone, Debug)]
pub struct Heap(Arc<()>);

impl Heap {
    /// Creates a heap; starts its controller thread.
    pub fn new(_options: HeapOptions, _embedder: Arc<dyn Embedder>) -> Result<Self, HeapError> { todo!() }
    /// Mode in use.
    pub fn mode(&self) -> Mode { todo!() }
    /// Delivery in use; `None` in modes without faults.
    pub fn delivery(&self) -> Option<Delivery> { todo!() }
    /// One line: what was chosen and why.
    pub fn choice(&self) -> &str { todo!() }
    /// The range of addresses that references of this heap lie in.
    pub fn range(&self) -> HeapRange { todo!() }
    /// Makes the context of a new mutator. Call it under the lock that excludes handshakes and stops (see `Embedder`).
    pub fn attach(&self) -> MutatorContext { todo!() }
    /// Gives a context back. Same lock as for `attach`.
    pub fn detach(&self, _context: &MutatorContext) { todo!() }
    /// Pages of root slots.
    pub fn roots(&self) -> &RootSpace { todo!() }
    /// Waits for memory. Call it in a blocked state.
    pub fn wait_for_memory(&self, _need: MemoryNeed) -> Result<(), AllocError> { todo!() }
    /// Runs a whole collection that begins after this call. Call it unattached or in a blocked state.
    pub fn collect(&self) { todo!() }
    /// Asks for a collection and returns at once.
    pub fn request_collection(&self) { todo!() }
    /// Keeps an object where it is until `unpin` is called as often. May wait: call it in a blocked state, with the object in a root slot whose current value is read by `object` after waiting.
    pub fn pin(&self, _object: &dyn Fn() -> ToAddress) -> ToAddress { todo!() }
    /// Undoes one `pin`.
    pub fn unpin(&self, _object: ToAddress) { todo!() }
    /// Reports a pause's end (see `Embedder::resume_world`).
    pub fn pause_ended(&self, _requested: Instant) { todo!() }
    /// Statistics.
    pub fn snapshot(&self) -> Snapshot { todo!() }
}
