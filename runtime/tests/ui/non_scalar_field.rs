//! A field holds a scalar.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

object! { struct Bad { text: Field<String> } }

fn main() {}
