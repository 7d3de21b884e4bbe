//! What the tests share: object types, heaps, and a list to fill and check.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::sync::atomic::{AtomicBool, Ordering};

use strikeslip::{
    Delivery, Field, Gc, Heap, HeapError, HeapOptions, Local, Mode, Mutator, OutOfMemory, Scope, Slot, object,
};

object! {
    /// A node of a list or tree.
    pub struct Node {
        pub left: Slot<Node>,
        pub right: Slot<Node>,
        pub value: Field<u64>,
    }
}

pub fn options() -> HeapOptions {
    HeapOptions { limit_bytes: 64 << 20, ..Default::default() }
}

pub fn heap() -> Heap {
    Heap::new(options()).expect("a heap with default options")
}

/// Runs `f` as a mutator of a heap of its own, in a scope.
pub fn with_scope<R>(f: impl for<'s> FnOnce(&mut Mutator, &Scope<'s>) -> R) -> R {
    heap().attach(|m| m.scope(f)).expect("attached once")
}

/// Every mode with every delivery it can have.
pub fn all_modes() -> Vec<(Mode, Option<Delivery>)> {
    Mode::ALL
        .iter()
        .flat_map(|&mode| match mode.is_concurrent() {
            true => Delivery::ALL.iter().map(|&delivery| (mode, Some(delivery))).collect(),
            false => vec![(mode, None)],
        })
        .collect()
}

/// A list of `length` nodes, linked by `left`, with the values `length - 1` down to 0.
pub fn list<'s>(m: &mut Mutator, s: &Scope<'s>, length: u64) -> Result<Local<'s, Node>, OutOfMemory> {
    let head = m.alloc::<Node>(s)?;
    for value in 1..length {
        m.scope(|m, inner| {
            let node = m.alloc::<Node>(inner)?;
            let node = node.get(m);
            node.value.set(value);
            node.left.store(m, Some(head.get(m)));
            head.set(m, node);
            Ok(())
        })?;
    }
    Ok(head)
}

/// Checks a list that `list` made.
pub fn check_list(head: Gc<'_, Node>, length: u64) {
    let mut next = Some(head);
    for value in (0..length).rev() {
        let node = next.expect("the list is not shorter");
        assert_eq!(node.value.get(), value);
        next = node.as_ref().left.load();
    }
    assert!(next.is_none(), "the list is not longer");
}

/// A small generator of numbers, so that every mode does the same.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// A heap in exactly this mode, or none, with the reason, if the system does not offer it.
pub fn heap_in(mode: Mode, delivery: Option<Delivery>, more: HeapOptions) -> Option<Heap> {
    match Heap::new(HeapOptions { mode, delivery, fall_back: false, ..more }) {
        Ok(heap) => {
            assert_eq!((heap.mode(), heap.delivery()), (mode, delivery));
            Some(heap)
        }
        Err(error @ HeapError::ModeUnavailable { .. }) => {
            eprintln!("not tested: {error}");
            None
        }
        Err(error) => panic!("{mode}: {error}"),
    }
}

/// Also when the program panics: the other thread ends, and the test fails instead of hanging.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
