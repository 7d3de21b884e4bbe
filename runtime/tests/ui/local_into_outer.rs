//! A handle of an inner scope is not one of the outer scope.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator) {
    m.scope(|m, outer| {
        let mut kept = m.alloc::<Node>(outer).unwrap();
        m.scope(|m, inner| kept = m.alloc::<Node>(inner).unwrap());
        kept.get(m).value.get()
    });
}

fn main() {}
