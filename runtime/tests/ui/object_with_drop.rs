//! The collector drops nothing.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

object! { struct Bad { value: Field<u64> } }
impl Drop for Bad {
    fn drop(&mut self) {}
}

fn main() {}
