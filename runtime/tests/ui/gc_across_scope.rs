//! A raw reference is gone when a scope is opened: what runs in it may collect.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator, node: Local<Node>) -> u64 {
    let raw = node.get(m);
    m.scope(|_, _| ());
    raw.value.get()
}

fn main() {}
