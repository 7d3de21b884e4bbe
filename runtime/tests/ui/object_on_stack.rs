//! Objects cannot be built on the stack.
#![allow(unused)]

use strikeslip::{Field, Gc, Heap, Local, Mutator, Scope, Slot, object};

object! { struct Node { next: Slot<Node>, value: Field<u64> } }

fn misuse(template: Node) -> Node {
    Node { __header: strikeslip::shape::ObjectHeader { bits: 0 }, next: template.next, value: template.value }
}

fn main() {}
