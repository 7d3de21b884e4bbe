//! A callee that may collect cannot be called while the caller holds a raw reference.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn callee(m: &mut Mutator) {
    m.safepoint();
}
fn misuse(m: &mut Mutator, node: Local<Node>) -> u64 {
    let raw = node.get(m);
    callee(m);
    raw.value.get()
}

fn main() {}
