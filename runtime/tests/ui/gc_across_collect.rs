//! A raw reference is gone at a collection.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator, node: Local<Node>) -> u64 {
    let raw = node.get(m);
    m.collect();
    raw.value.get()
}

fn main() {}
