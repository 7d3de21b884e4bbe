//! A raw reference stays on its thread.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &Mutator, node: Local<Node>) {
    let raw = node.get(m);
    std::thread::scope(|threads| {
        threads.spawn(move || raw.value.get());
    });
}

fn main() {}
