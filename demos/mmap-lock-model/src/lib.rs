//! The kernel's locks of an address space, as userfaultfd operations take them, in user space.
//!
//! [`space`] is the address space: VMAs ([`vma`]), `mmap_lock`, lookups; [`writers`] are the operations that
//! change it, [`userfault`] what stops page operations while mappings change. [`policy`] has four ways to lock the
//! VMAs of a COPY or MOVE, [`service`] the two operations. `tests/loom` checks them, with every [`rule`] and
//! without each; the program loads them. README.md says what stands for what in the kernel.

pub mod policy;
pub mod rule;
pub mod semaphore;
pub mod service;
pub mod space;
mod sync;
pub mod userfault;
pub mod vma;
pub mod writers;
