//! Misuses that only show when the program runs: each must panic before it does any harm.

mod common;

use common::{Node, heap};
use strikeslip::{Heap, Local, Mutator, Scope, Slot};

/// Runs `f` with a mutator, scope and node of each of two heaps.
fn with_two_heaps(
    f: impl for<'a, 'b> FnOnce(
        (&mut Mutator, &Scope<'a>, Local<'a, Node>),
        (&mut Mutator, &Scope<'b>, Local<'b, Node>),
    ),
) {
    let (a, b): (Heap, Heap) = (heap(), heap());
    a.attach(|ma| {
        ma.scope(|ma, sa| {
            let na = ma.alloc::<Node>(sa).unwrap();
            b.attach(|mb| {
                mb.scope(|mb, sb| {
                    let nb = mb.alloc::<Node>(sb).unwrap();
                    f((ma, sa, na), (mb, sb, nb));
                });
            })
            .unwrap();
        });
    })
    .unwrap();
}

#[test]
#[should_panic(expected = "the object stored is not in this mutator's heap")]
fn an_object_of_another_heap_is_stored() {
    with_two_heaps(|(ma, _, na), (mb, _, nb)| na.get(ma).left.store(ma, Some(nb.get(mb))));
}

#[test]
#[should_panic(expected = "the slot stored to is not in this mutator's heap")]
fn a_slot_is_stored_to_with_another_heaps_mutator() {
    with_two_heaps(|(ma, _, na), (mb, _, nb)| na.get(ma).left.store(mb, Some(nb.get(mb))));
}

#[test]
#[should_panic(expected = "the slot stored to is not in this mutator's heap")]
fn null_is_stored_with_another_heaps_mutator() {
    with_two_heaps(|(ma, _, na), (mb, ..)| na.get(ma).left.store(mb, None));
}

#[test]
#[should_panic(expected = "the handle's object is not in this mutator's heap")]
fn a_handle_is_read_with_another_heaps_mutator() {
    with_two_heaps(|(_, _, na), (mb, ..)| _ = na.get(mb));
}

#[test]
#[should_panic(expected = "the handle's object is not in this mutator's heap")]
fn a_handle_is_changed_with_another_heaps_mutator() {
    with_two_heaps(|(_, _, na), (mb, _, nb)| na.set(mb, nb.get(mb)));
}

#[test]
#[should_panic(expected = "the object rooted is not in this mutator's heap")]
fn a_handle_is_changed_to_an_object_of_another_heap() {
    with_two_heaps(|(ma, _, na), (mb, _, nb)| na.set(ma, nb.get(mb)));
}

#[test]
#[should_panic(expected = "the object rooted is not in this mutator's heap")]
fn an_object_is_rooted_in_another_heaps_scope() {
    with_two_heaps(|(_, sa, _), (mb, _, nb)| _ = sa.root(nb.get(mb)));
}

#[test]
#[should_panic(expected = "the scope is not of this mutator")]
fn an_object_is_allocated_into_another_heaps_scope() {
    with_two_heaps(|(_, sa, _), (mb, ..)| _ = mb.alloc::<Node>(sa));
}

#[test]
#[should_panic(expected = "the scope is not of this mutator")]
fn pinned_bytes_are_allocated_into_another_heaps_scope() {
    with_two_heaps(|(_, sa, _), (mb, ..)| _ = mb.alloc_pinned_bytes(sa, 8));
}

#[test]
#[should_panic(expected = "the object rooted is not in this mutator's heap")]
fn a_persistent_handle_is_made_of_another_heaps_object() {
    with_two_heaps(|(ma, ..), (mb, _, nb)| _ = ma.persistent(nb.get(mb)));
}

#[test]
#[should_panic(expected = "the persistent handle is not of this mutator's heap")]
fn a_persistent_handle_is_read_with_another_heaps_mutator() {
    with_two_heaps(|(ma, _, na), (mb, ..)| _ = ma.persistent(na.get(ma)).get(mb));
}

#[test]
#[should_panic(expected = "the object rooted is not in this mutator's heap")]
fn a_persistent_handle_is_changed_to_an_object_of_another_heap() {
    with_two_heaps(|(ma, _, na), (mb, _, nb)| ma.persistent(na.get(ma)).set(ma, nb.get(mb)));
}

/// A slot outside any heap can only be made by unsafe code. A reference in it would not be seen by
/// the collector.
#[test]
#[should_panic(expected = "the slot stored to is not in this mutator's heap")]
fn a_slot_outside_any_heap_is_stored_to() {
    common::with_scope(|m, s| {
        // SAFETY: zero is a null slot.
        let stray: Slot<Node> = unsafe { std::mem::zeroed() };
        assert!(stray.load().is_none());
        let node = m.alloc::<Node>(s).unwrap();
        stray.store(m, Some(node.get(m)));
    });
}

#[test]
#[should_panic(expected = "no more is allocated than was reserved")]
fn more_is_allocated_than_was_reserved() {
    common::with_scope(|m, _| {
        let reserved = m.reserve(40).unwrap();
        _ = (reserved.alloc::<Node>(), reserved.alloc::<Node>());
    });
}

#[test]
#[should_panic(expected = "call Mutator::collect")]
fn a_running_mutator_waits_for_itself() {
    let heap = heap();
    heap.attach(|_| heap.collect()).unwrap();
}

#[test]
#[should_panic(expected = "index out of bounds")]
fn an_element_behind_the_end_is_read() {
    common::with_scope(|m, s| {
        let array = m.alloc_array::<Node>(s, 3).unwrap();
        _ = array.get(m).get(3);
    });
}

#[test]
#[should_panic(expected = "2 bytes at 7 are not inside an object of 8 bytes")]
fn bytes_behind_the_end_are_written() {
    common::with_scope(|m, s| {
        let bytes = m.alloc_zeroed_bytes(s, 8).unwrap();
        bytes.get(m).write(7, &[1, 2]);
    });
}
