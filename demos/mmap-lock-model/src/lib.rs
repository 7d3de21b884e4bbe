//! The kernel's locks of an address space, as userfaultfd operations take them, in user space.
//!
//! [`space`] is the address space: VMAs, `mmap_lock`, one lock and sequence number a VMA, and the
//! operations that write. [`policy`] has four ways to lock the VMAs of a COPY or MOVE, [`service`]
//! the two operations. `tests/loom.rs` checks them; the program loads them. See README.md.

pub mod policy;
pub mod semaphore;
pub mod service;
pub mod space;
