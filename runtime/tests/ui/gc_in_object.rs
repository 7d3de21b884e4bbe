//! Objects refer to each other by slots, not by raw references.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

object! { struct Bad { raw: Gc<'static, Node> } }

fn main() {}
