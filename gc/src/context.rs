//! A mutator's context (stub: signatures are final, bodies to come).
use std::sync::atomic::AtomicU64;

use crate::address::ToAddress;
use crate::error::AllocError;
use crate::layout::Header;

/// Why an allocation could not be satisfied at once.
#[derive(Copy, Clone, Debug)]
pub enum Exhausted {
    /// There may be memory after a collection: block (be in a blocked state) in
    /// `Heap::wait_for_memory`, then try again.
    Wait(MemoryNeed),
    /// There never will be.
    Never(AllocError),
}

/// What an allocation waits for.
#[derive(Copy, Clone, Debug)]
pub struct MemoryNeed {
    pub(crate) bytes: usize,
    pub(crate) since_cycle: u64,
}

/// What the collector keeps for one mutator. `!Sync`, `Send`.
#[derive(Debug)]
pub struct MutatorContext(std::cell::Cell<()>);

impl MutatorContext {
    /// Allocates an object: memory behind the header is zero, the header is written.
    pub fn allocate(&self, _header: Header, _bytes: usize) -> Result<ToAddress, Exhausted> { todo!() }
    /// Allocates an object that will never move.
    pub fn allocate_pinned(&self, _header: Header, _bytes: usize) -> Result<ToAddress, Exhausted> { todo!() }
    /// Whether `bytes` in total can be allocated in small objects from the current buffer with no refill.
    pub fn reserve(&self, _bytes: usize) -> Result<(), Exhausted> { todo!() }
    /// Stores a reference into a slot of a heap object (write barrier included; Release).
    /// # Safety
    /// `slot` is a reference slot of an object of this heap; `value` is an object of this heap.
    pub unsafe fn store(&self, _slot: &AtomicU64, _value: Option<ToAddress>) { todo!() }
    /// To be called with every reference that is put into a root slot.
    pub fn shade(&self, _object: ToAddress) { todo!() }
}
