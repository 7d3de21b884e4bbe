//! A handle stays on its thread.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(heap: &Heap, node: Local<Node>) {
    std::thread::scope(|threads| {
        threads.spawn(|| heap.attach(|m| node.get(m).value.get()));
    });
}

fn main() {}
