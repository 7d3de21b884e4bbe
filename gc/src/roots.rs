//! Root slots (stub: signatures are final, bodies to come).
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use crate::error::AllocError;

/// Root slots in a page.
pub const ROOT_SLOTS: usize = 512;

/// How a page of root slots is treated at the flip.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum RootPageKind {
    /// Rewritten in the pause: for the slots a thread touches at once. At most one or two a thread.
    Hot,
    /// Rewritten lazily, when first touched or by a worker.
    Paged,
}

/// A page of root slots. A slot is zero or odd (no reference), or the address of an object.
#[derive(Debug)]
pub struct RootPage {
    slots: NonNull<AtomicU64>,
}
unsafe impl Send for RootPage {}
unsafe impl Sync for RootPage {}

impl RootPage {
    /// The page's `ROOT_SLOTS` slots.
    pub fn slots(&self) -> &[AtomicU64] { unsafe { std::slice::from_raw_parts(self.slots.as_ptr(), ROOT_SLOTS) } }
}

/// A heap's pages of root slots.
#[derive(Debug)]
pub struct RootSpace(());

impl RootSpace {
    /// A page of empty slots (all zero).
    pub fn allocate(&self, _kind: RootPageKind) -> Result<RootPage, AllocError> { todo!() }
    /// Gives a page back. Its slots are no roots any more.
    pub fn free(&self, _page: RootPage) { todo!() }
    /// Whether `address` lies in a page of root slots of this heap.
    pub fn contains(&self, _address: usize) -> bool { todo!() }
}
