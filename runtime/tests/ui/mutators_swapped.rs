//! Two mutators cannot be swapped.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(a: &mut Mutator, b: &mut Mutator) {
    std::mem::swap(a, b);
}

fn main() {}
