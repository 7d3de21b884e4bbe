//! What the unit tests share.

use strikeslip::{Heap, HeapOptions, Mutator};

/// Runs `test` on a mutator of a small heap.
pub(crate) fn with_mutator<R>(test: impl FnOnce(&mut Mutator) -> R) -> R {
    let options = HeapOptions { limit_bytes: 32 << 20, ..HeapOptions::default() };
    let heap = Heap::new(options).expect("a small heap can be made");
    heap.attach(test).expect("this thread is attached to no other heap")
}
