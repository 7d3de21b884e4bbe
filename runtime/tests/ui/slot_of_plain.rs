//! A slot refers to an object.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

object! { struct Bad { number: Slot<u64> } }

fn main() {}
