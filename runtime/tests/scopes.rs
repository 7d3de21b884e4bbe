//! Scopes and handles: what is kept, what is let go, and in which order.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Node, check_list, list, with_scope};
use strikeslip::{Local, Mutator, Scope};

fn node<'s>(m: &mut Mutator, s: &Scope<'s>, value: u64) -> Local<'s, Node> {
    let node = m.alloc::<Node>(s).unwrap();
    node.get(m).value.set(value);
    node
}

/// A handle of the outer scope, made while an inner one is open, outlives the inner one, and its
/// slot is not given to handles that come later. (Slots from one stack would fail this.)
#[test]
fn a_late_handle_of_the_outer_scope_outlives_the_inner_one() {
    with_scope(|m, outer| {
        let early = node(m, outer, 1);
        let late = m.scope(|m, inner| {
            let temporary = node(m, inner, 2);
            let allocated = node(m, outer, 3);
            let rooted = outer.root(temporary.get(m));
            (allocated, rooted)
        });
        let after: Vec<_> = (10..700).map(|value| node(m, outer, value)).collect();
        m.scope(|m, inner| (0..700).for_each(|_| _ = node(m, inner, 0)));
        m.collect();
        assert_eq!(early.get(m).value.get(), 1);
        assert_eq!(late.0.get(m).value.get(), 3);
        assert_eq!(late.1.get(m).value.get(), 2);
        assert!(after.iter().zip(10..).all(|(handle, value)| handle.get(m).value.get() == value));
    });
}

#[test]
fn late_handles_at_several_depths_are_independent() {
    with_scope(|m, one| {
        let from_three = m.scope(|m, two| {
            let (a, b) = m.scope(|m, three| {
                let kept = node(m, three, 33);
                (node(m, one, 31), two.root(kept.get(m)))
            });
            let c = node(m, two, 22);
            m.collect();
            assert_eq!((b.get(m).value.get(), c.get(m).value.get()), (33, 22));
            a
        });
        let more = m.scope(|m, _| node(m, one, 21)); // reuses the late slot of scope two
        m.collect();
        assert_eq!((from_three.get(m).value.get(), more.get(m).value.get()), (31, 21));
    });
}

#[test]
fn scopes_grow_over_many_blocks_and_shrink_again() {
    with_scope(|m, s| {
        for count in [511, 512, 513, 5_000] {
            let sum: u64 = m.scope(|m, inner| {
                let handles: Vec<_> = (0..count).map(|value| node(m, inner, value)).collect();
                m.collect();
                handles.iter().map(|handle| handle.get(m).value.get()).sum()
            });
            assert_eq!(sum, count * (count - 1) / 2);
        }
        let kept = node(m, s, 7);
        m.collect();
        assert_eq!(kept.get(m).value.get(), 7);
    });
}

#[test]
fn deep_recursion_with_a_scope_for_each_call() {
    fn depth(m: &mut Mutator, left: u64) -> u64 {
        m.scope(|m, s| {
            let own = node(m, s, left);
            let below = if left == 0 { 0 } else { depth(m, left - 1) };
            below + own.get(m).value.get()
        })
    }
    with_scope(|m, _| assert_eq!(depth(m, 2_000), 2_000 * 2_001 / 2));
}

#[test]
fn a_panic_closes_the_scopes_it_leaves() {
    with_scope(|m, outer| {
        let kept = node(m, outer, 1);
        for round in 0..300 {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                m.scope(|m, inner| {
                    let _lost = (node(m, inner, 2), node(m, inner, 3));
                    m.scope(|m, _| {
                        node(m, outer, 4); // a late handle, which stays
                        panic!("as intended {round}");
                    });
                });
            }));
            assert!(panicked.is_err());
        }
        m.collect();
        let after = node(m, outer, 5);
        m.scope(|m, inner| _ = node(m, inner, 6));
        assert_eq!((kept.get(m).value.get(), after.get(m).value.get()), (1, 5));
    });
}

/// A closed scope keeps nothing alive: with handles that were not cleared, this would not fit.
#[test]
fn a_closed_scope_lets_go() {
    with_scope(|m, s| {
        for _ in 0..40 {
            m.scope(|m, inner| _ = m.alloc_zeroed_bytes(inner, 4 << 20).unwrap());
            m.scope(|m, inner| m.scope(|m, _| _ = m.alloc_zeroed_bytes(inner, 4 << 20).unwrap()));
        }
        let list = list(m, s, 1_000).unwrap();
        check_list(list.get(m), 1_000);
    });
}

#[test]
fn copies_of_a_handle_are_one_handle() {
    with_scope(|m, s| {
        let (first, second) = (node(m, s, 1), node(m, s, 2));
        let copy = first;
        copy.set(m, second.get(m));
        m.collect();
        assert!(first.get(m) == second.get(m));
        assert_eq!(first.get(m).value.get(), 2);
    });
}
