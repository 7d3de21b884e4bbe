//! What a slot gave is gone at a safepoint, like the reference it was reached through.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator, node: Local<Node>) -> bool {
    let next = node.get(m).as_ref().next.load();
    m.safepoint();
    next.is_some()
}

fn main() {}
