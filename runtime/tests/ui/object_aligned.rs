//! An object is laid out as its layout says.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

object! { #[repr(align(32))] struct Bad { value: Field<u64> } }

fn main() {}
