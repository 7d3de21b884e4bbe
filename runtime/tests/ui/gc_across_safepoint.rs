//! A raw reference is gone at a safepoint.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator, node: Local<Node>) -> u64 {
    let raw = node.get(m);
    m.safepoint();
    raw.value.get()
}

fn main() {}
