//! Each policy under every schedule with at most two preemptions:
//! `RUSTFLAGS="--cfg loom" cargo test -p mmap-lock-model --release --test loom`

#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use mmap_lock_model::policy::{
    AttemptOrMmapLock, LockEachInTurn, LockUnderMmapLock, MmapLock, Policy, SequenceUnderMmapLock,
};
use mmap_lock_model::service::{copy, move_page};
use mmap_lock_model::space::{Errno, Space, Width};

const SOUND: [&dyn Policy; 3] = [&MmapLock, &AttemptOrMmapLock, &LockUnderMmapLock];
/// After two writers, the VMA that the first one locked looks locked.
const NARROW: Width = Width { modulus: 2, writers_wrap: false };

fn check(scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(scenario);
}

fn space(width: Width, touched: bool) -> Arc<Space> {
    let space = Space::new(width);
    space.map(0, 4, touched);
    space.map(8, 4, touched);
    assert!(space.put_page(8));
    Arc::new(space)
}

fn with<R: 'static>(space: &Arc<Space>, work: impl FnOnce(&Space) -> R + 'static) -> thread::JoinHandle<R> {
    let space = Arc::clone(space);
    thread::spawn(move || work(&space))
}

#[test]
fn a_copy_and_an_unmap() {
    for policy in SOUND {
        for touched in [true, false] {
            check(move || {
                let space = space(Width::ENDLESS, touched);
                let copying = with(&space, move |space| copy(space, policy, 0, || ()));
                space.unmap(0, true).unwrap();
                let answer = copying.join().unwrap();
                assert!(matches!(answer, Ok(()) | Err(Errno::Missing | Errno::Again)), "{answer:?}");
            });
        }
    }
}

#[test]
fn a_copy_and_a_split() {
    for policy in SOUND {
        check(move || {
            let space = space(Width::ENDLESS, true);
            let copying = with(&space, move |space| copy(space, policy, 3, || ()));
            space.split(2).unwrap();
            assert_eq!(copying.join().unwrap(), Ok(()));
            assert!(!space.lookup(3).unwrap().contains(0, 1));
        });
    }
}

#[test]
fn two_moves_in_opposite_directions_and_a_writer() {
    for policy in SOUND {
        check(move || {
            let space = space(Width::ENDLESS, true);
            let there = with(&space, move |space| move_page(space, policy, 0, 8, || ()));
            let back = with(&space, move |space| move_page(space, policy, 8, 0, || ()));
            space.protect(0, true, || ()).unwrap();
            let answers = (there.join().unwrap(), back.join().unwrap());
            assert_eq!(answers.0, Ok(()));
            assert!(matches!(answers.1, Ok(()) | Err(Errno::Missing)), "{answers:?}");
        });
    }
}

#[test]
fn a_move_within_one_vma_and_a_protect() {
    for policy in SOUND {
        check(move || {
            let space = space(Width::ENDLESS, true);
            let moving = with(&space, move |space| move_page(space, policy, 9, 8, || ()));
            space.protect(8, false, || ()).unwrap();
            assert!(matches!(moving.join().unwrap(), Ok(()) | Err(Errno::Invalid)));
        });
    }
}

/// A VMA that looks locked because the number came round, a copy into it, and an unmap of it.
fn overflow(policy: &'static dyn Policy, width: Width) {
    check(move || {
        let space = space(width, true);
        space.protect(0, true, || ()).unwrap();
        space.protect(8, true, || ()).unwrap();
        assert!(space.lock_under_rcu(0).is_none(), "the number has come round");
        let copying = with(&space, move |space| copy(space, policy, 0, || ()));
        space.unmap(0, false).unwrap();
        let answer = copying.join().unwrap();
        assert!(matches!(answer, Ok(()) | Err(Errno::Missing)), "{answer:?}");
    });
}

#[test]
fn an_overflow_is_harmless_for_the_sound_policies() {
    SOUND.into_iter().for_each(|policy| overflow(policy, NARROW));
}

#[test]
#[should_panic(expected = "VMA")]
fn an_overflow_breaks_the_first_proposal() {
    overflow(&SequenceUnderMmapLock, NARROW);
}

/// Not in the review: a writer that takes the number for its own does not wait for who locked directly.
#[test]
#[should_panic(expected = "VMA")]
fn an_overflow_on_the_side_of_writers_breaks_the_second_proposal() {
    overflow(&LockUnderMmapLock, Width { modulus: 2, writers_wrap: true });
}

/// What v5 of the series mended.
#[test]
#[should_panic(expected = "deadlock")]
fn waiting_for_the_second_vma_with_the_first_one_locked_is_a_deadlock() {
    check(|| {
        // Without an anon_vma each attempt fails, and mmap_lock is needed for both.
        let space = space(Width::ENDLESS, false);
        let moving = with(&space, |space| move_page(space, &LockEachInTurn, 0, 8, || ()));
        space.protect(0, true, || ()).unwrap();
        assert_eq!(moving.join().unwrap(), Ok(()));
    });
}
