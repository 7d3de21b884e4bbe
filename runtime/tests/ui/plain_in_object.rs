//! Objects consist of slots and fields.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

object! { struct Bad { plain: u64 } }

fn main() {}
