//! A raw reference is gone at an allocation.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse<'s>(m: &mut Mutator, s: &Scope<'s>, node: Local<Node>) -> u64 {
    let raw = node.get(m);
    let _other = m.alloc::<Node>(s);
    raw.value.get()
}

fn main() {}
