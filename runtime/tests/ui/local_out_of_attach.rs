//! A handle does not leave its attachment.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(heap: &Heap) {
    let mut kept = None;
    let _ = heap.attach(|m| m.scope(|m, s| kept = m.alloc::<Node>(s).ok()));
    let _used = kept;
}

fn main() {}
