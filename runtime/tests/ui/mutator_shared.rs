//! A mutator is not lent to another thread, not even shared.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &Mutator) {
    std::thread::scope(|threads| {
        threads.spawn(|| m.heap().collect());
    });
}

fn main() {}
