//! A scope does not leave its closure.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(m: &mut Mutator) {
    let mut kept = None;
    m.scope(|_, s| kept = Some(s));
    let _used = kept;
}

fn main() {}
