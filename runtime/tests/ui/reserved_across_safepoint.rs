//! What was allocated in reserved memory is gone at a safepoint.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator) -> u64 {
    let reserved = m.reserve(64).unwrap();
    let raw = reserved.alloc::<Node>();
    m.safepoint();
    raw.value.get()
}

fn main() {}
