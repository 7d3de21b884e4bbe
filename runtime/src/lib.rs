//! A managed heap for Rust programs and language implementations, compacted concurrently and
//! without read barriers by [`strikeslip_gc`].
//!
//! Threads *attach* to a [`Heap`] and get a [`Mutator`]. Objects are declared with [`object!`],
//! allocated into a [`Scope`], and held by [`Local`] handles, which follow their object when the
//! collector gives it a new address. For reading and writing, a handle gives a raw reference
//! ([`Gc`]): an address, as cheap as a pointer. It borrows the mutator, so the compiler refuses to
//! keep it across anything that may collect.
//!
//! ```
//! use strikeslip::{Field, Heap, HeapOptions, Local, Mutator, OutOfMemory, Scope, Slot, object};
//!
//! object! {
//!     /// A node of a binary tree.
//!     pub struct Node { left: Slot<Node>, right: Slot<Node>, value: Field<u64> }
//! }
//!
//! /// Builds a perfect tree. Handles of the inner calls are kept by their own scope only until the
//! /// subtree is linked.
//! fn tree<'s>(m: &mut Mutator, s: &Scope<'s>, depth: u32) -> Result<Local<'s, Node>, OutOfMemory> {
//!     let root = m.alloc::<Node>(s)?; // a safepoint: may collect
//!     root.get(m).value.set(depth.into());
//!     if depth > 0 {
//!         m.scope(|m, inner| {
//!             let left = tree(m, inner, depth - 1)?;
//!             let right = tree(m, inner, depth - 1)?;
//!             let node = root.get(m); // a raw reference: valid until the next `&mut` use of `m`
//!             node.left.store(m, Some(left.get(m)));
//!             node.right.store(m, Some(right.get(m)));
//!             Ok(())
//!         })?;
//!     }
//!     Ok(root)
//! }
//!
//! fn sum(node: &Node) -> u64 {
//!     let child = |slot: &Slot<Node>| slot.load().map_or(0, |child| sum(&child));
//!     node.value.get() + child(&node.left) + child(&node.right)
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let heap = Heap::new(HeapOptions { limit_bytes: 64 << 20, ..Default::default() })?;
//! let total = heap.attach(|m| {
//!     m.scope(|m, s| {
//!         let root = tree(m, s, 8)?;
//!         m.collect(); // the tree may have new addresses now; the handle knows
//!         Ok::<_, OutOfMemory>(sum(&root.get(m)))
//!     })
//! })??;
//! assert_eq!(total, (0..=8).map(|depth| depth << (8 - depth)).sum());
//! # Ok(())
//! # }
//! ```
//!
//! Where to look: [`mutator`] has the argument why safe code cannot misuse this; `safepoint` the
//! protocol by which threads are stopped; [`shape`] how types and layouts agree.
//!
//! # Rules that no type can check
//! - Let the collector act: a loop that does not allocate calls [`Mutator::safepoint`] now and then,
//!   and whatever may wait runs in [`Mutator::blocked`]. A watchdog names a thread that does not.
//! - Do not give addresses of heap memory to system calls: see [`Bytes`] and [`PinnedBytes`].
//! - Do not block `SIGBUS` in an attached thread; a handler for it that is set after the first heap was
//!   created passes on what is not its own.
//! - A child process does not inherit heaps: after a `fork` it may drop them, `exec`, or end by `_exit`, but
//!   neither use nor leave an open scope. An access ends in `SIGSEGV`.

/// The example in the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

pub use strikeslip_gc as gc;

pub mod mutator;
pub mod shape;

mod array;
mod bytes;
mod churn;
mod handle;
mod heap;
mod object;
mod park;
mod persistent;
mod safepoint;
mod sync;
mod watchdog;
mod weak;

pub use array::{Array, Words};
pub use bytes::{Bytes, PinnedBytes, Str};
pub use handle::{Local, Scope};
pub use heap::{AttachError, Heap};
pub use mutator::{Mutator, Reserved};
pub use object::{Any, Field, Gc, Scalar, Slot};
pub use persistent::Persistent;
pub use shape::{Fixed, Object, Typed};
pub use watchdog::LateMutator;
pub use weak::{EphemeronTable, Weak, WeakTable};

pub use strikeslip_gc::error::{AllocError as OutOfMemory, HeapError};
pub use strikeslip_gc::options::{
    Delivery, ForcedAnswers, HeapOptions, Mode, StressMode, StressModes, StressOptions, VerifyLevel,
};
pub use strikeslip_gc::stats::Snapshot;
