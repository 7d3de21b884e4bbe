//! What the operations answer when nothing runs beside them.

#![cfg(not(loom))]

use mmap_lock_model::policy::{
    AttemptOrMmapLock, LockUnderMmapLock, MmapLock, Policy, SequenceUnderMmapLock,
};
use mmap_lock_model::rule::Options;
use mmap_lock_model::service::{Errno, copy, move_pages};
use mmap_lock_model::space::Space;

const POLICIES: [&dyn Policy; 4] =
    [&MmapLock, &AttemptOrMmapLock, &SequenceUnderMmapLock, &LockUnderMmapLock];

/// VMA A has pages 0 to 3, VMA B pages 8 to 11.
fn space() -> Space {
    let space = Space::new(Options::SOUND);
    space.map(0..4, true);
    space.map(8..12, true);
    space
}

#[test]
fn find_gives_a_vma_above_and_lookup_does_not() {
    let space = space();
    assert_eq!(space.find(5).unwrap().bounds(), 8..12);
    assert!(space.lookup(5).is_none());
    assert_eq!(space.lookup(11).unwrap().bounds(), 8..12);
    assert!(space.find(12).is_none());
}

#[test]
fn a_copy_lies_within_one_vma() {
    for policy in POLICIES {
        let space = space();
        assert_eq!(copy(&space, policy, 1..4, || ()), Ok(3));
        assert_eq!(copy(&space, policy, 3..5, || ()), Err(Errno::Missing), "{}", policy.name());
        assert_eq!(copy(&space, policy, 5..6, || ()), Err(Errno::Missing), "{}", policy.name());
        space.split(2).unwrap();
        space.zap(&(1..4));
        assert_eq!(copy(&space, policy, 1..3, || ()), Err(Errno::Missing), "{}", policy.name());
    }
}

#[test]
fn a_copy_that_meets_a_page_is_done_in_part() {
    for policy in POLICIES {
        let space = space();
        assert_eq!(copy(&space, policy, 2..3, || ()), Ok(1));
        assert_eq!(copy(&space, policy, 0..4, || ()), Ok(2), "{}", policy.name());
        assert_eq!(copy(&space, policy, 0..4, || ()), Err(Errno::Exists), "{}", policy.name());
    }
}

#[test]
fn a_move_takes_pages_and_leaves_what_does_not_fit() {
    for policy in POLICIES {
        let space = space();
        copy(&space, policy, 8..10, || ()).unwrap();
        copy(&space, policy, 1..2, || ()).unwrap();
        assert_eq!(move_pages(&space, policy, 0, 8, 2, || ()), Ok(1), "{}", policy.name());
        assert!(space.has_page(0) && !space.has_page(8) && space.has_page(9));
        assert_eq!(move_pages(&space, policy, 1, 9, 1, || ()), Err(Errno::Exists));
        assert_eq!(move_pages(&space, policy, 2, 8, 1, || ()), Err(Errno::Missing));
        assert_eq!(move_pages(&space, policy, 11, 9, 2, || ()), Err(Errno::Invalid), "the range leaves B");
        assert_eq!(move_pages(&space, policy, 3, 0, 1, || ()), Ok(1), "within one VMA");
        space.protect(8, false, || ()).unwrap();
        assert_eq!(move_pages(&space, policy, 2, 9, 1, || ()), Err(Errno::Invalid), "a read-only source");
    }
}

#[test]
fn a_move_to_a_hole_is_answered_as_it_was_looked_up() {
    let answer = |policy| move_pages(&space(), policy, 5, 0, 1, || ());
    // By `find_vma`, the range does not fit the VMA above; by `vma_lookup`, there is none.
    assert_eq!(answer(&MmapLock), Err(Errno::Invalid));
    assert_eq!(answer(&AttemptOrMmapLock), Err(Errno::Invalid));
    assert_eq!(answer(&LockUnderMmapLock), Err(Errno::Missing));
}

#[test]
fn pages_are_not_put_while_mappings_change() {
    for policy in POLICIES {
        let space = space();
        space.userfault.begin_change();
        assert_eq!(copy(&space, policy, 0..1, || ()), Err(Errno::Again), "{}", policy.name());
        assert_eq!(move_pages(&space, policy, 0, 8, 1, || ()), Err(Errno::Again), "{}", policy.name());
        space.userfault.end_change();
        assert_eq!(copy(&space, policy, 0..1, || ()), Ok(1), "{}", policy.name());
    }
}

#[test]
fn the_first_page_of_a_vma_takes_mmap_lock_and_no_other_does() {
    let reads = |space: &Space| space.counts.reads.load(std::sync::atomic::Ordering::Relaxed);
    for policy in [&AttemptOrMmapLock as &dyn Policy, &LockUnderMmapLock] {
        let space = Space::new(Options::SOUND);
        space.map(0..4, false);
        for page in 0..4 {
            copy(&space, policy, page..page + 1, || ()).unwrap();
            assert_eq!(reads(&space), 1, "{}", policy.name());
        }
    }
}

#[test]
fn unmapped_pages_are_gone() {
    let space = space();
    copy(&space, &LockUnderMmapLock, 0..2, || ()).unwrap();
    space.unmap(3, true).unwrap();
    assert!(!space.has_page(0));
    assert_eq!(copy(&space, &LockUnderMmapLock, 0..1, || ()), Err(Errno::Missing));
    assert_eq!(space.unmap(3, true), Err(Errno::Missing));
    assert_eq!(space.split(8), Err(Errno::Missing), "nothing begins below");
}

#[test]
#[should_panic(expected = "without mmap_lock")]
fn an_anon_vma_is_prepared_under_mmap_lock() {
    let space = space();
    space.prepare_anon_vma(&space.lookup(0).unwrap());
}
