//! Objects cannot be copied to the stack.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

object! { #[derive(Clone)] struct Bad { value: Field<u64> } }

fn main() {}
