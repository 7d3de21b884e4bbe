//! No handle can be read in a blocked region: it takes the mutator.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator, node: Local<Node>) -> u64 {
    m.blocked(|| node.get(m).value.get())
}

fn main() {}
