//! A plain borrow of a field is gone at a safepoint.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator, node: Local<Node>) -> u64 {
    let value = &node.get(m).as_ref().value;
    m.safepoint();
    value.get()
}

fn main() {}
