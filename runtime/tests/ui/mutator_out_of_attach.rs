//! A mutator does not leave its attachment.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(heap: &Heap) {
    let kept = heap.attach(|m| m).unwrap();
    kept.safepoint();
}

fn main() {}
