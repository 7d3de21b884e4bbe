//! A mutator stays on its thread.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator) {
    std::thread::scope(|threads| {
        threads.spawn(|| m.safepoint());
    });
}

fn main() {}
