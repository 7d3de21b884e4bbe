//! Nor does a plain borrow of an object leave the thread.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &Mutator, node: Local<Node>) {
    let object: &Node = node.get(m).as_ref();
    std::thread::scope(|threads| {
        threads.spawn(move || object.value.get());
    });
}

fn main() {}
