//! A handle has one type: another could be stored through a copy of it.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(node: Local<Node>) {
    let _any: Local<strikeslip::Any> = node;
}

fn main() {}
