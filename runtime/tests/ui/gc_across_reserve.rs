//! A raw reference is gone at a reservation.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator, node: Local<Node>) -> u64 {
    let raw = node.get(m);
    let _reserved = m.reserve(64);
    raw.value.get()
}

fn main() {}
