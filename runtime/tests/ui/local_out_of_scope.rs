//! A handle does not leave its scope.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator) -> Local<'_, Node> {
    m.scope(|m, s| m.alloc::<Node>(s).unwrap())
}

fn main() {}
