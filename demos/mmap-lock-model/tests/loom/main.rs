//! Each policy beside each writer, under every schedule with few preemptions:
//! `RUSTFLAGS="--cfg loom" cargo test --profile loom -p mmap-lock-model --test loom`
//!
//! What is checked, by the observers in the library and at the end of each schedule:
//! - nobody uses a VMA that was unmapped, split or changed under it, nor pages that are not in it;
//! - no page operation goes on while mappings change;
//! - an operation is done in whole or not at all, whatever the writer does;
//! - every thread ends: loom finds deadlocks, and loops without end.

#![cfg(loom)]

mod scenario;
mod weakened;

use mmap_lock_model::policy::{
    AttemptOrMmapLock, LockUnderMmapLock, MmapLock, Policy, SequenceUnderMmapLock,
};
use mmap_lock_model::rule::{Options, Rule};
use mmap_lock_model::service::Errno;
use scenario::{Scenario, assert_finds};

/// The policies that are to pass.
const SOUND: [&dyn Policy; 3] = [&MmapLock, &AttemptOrMmapLock, &LockUnderMmapLock];
/// After two writers, the VMA that the first one locked looks locked.
const NARROW: Options = Options { modulus: 2, ..Options::SOUND };

/// A VMA is changed under its user, or its user saw that it had been.
const CHANGED: &[&str] = &["changed under its user", "VMA that was unmapped", "not in the VMA"];

fn says(message: &str, expected: &[&str]) -> bool {
    expected.iter().any(|expected| message.contains(expected))
}

fn check_sound_policies(scenarios: &[Scenario], options: Options) {
    for scenario in scenarios {
        for policy in SOUND {
            scenario.check(policy, options);
        }
    }
}

#[test]
fn every_operation_beside_every_writer() {
    check_sound_policies(&scenario::pairs(), Options::SOUND);
}

#[test]
fn moves_in_opposite_directions_beside_a_writer() {
    check_sound_policies(&scenario::opposite_moves(), Options::SOUND);
}

#[test]
fn a_copy_beside_two_writers() {
    check_sound_policies(&scenario::two_writers(), Options::SOUND);
}

#[test]
fn a_copy_into_what_is_being_mapped() {
    check_sound_policies(&[scenario::copy_beside_map()], Options::SOUND);
}

#[test]
fn an_operation_that_is_tried_again_ends() {
    check_sound_policies(&[scenario::copy_until_done()], Options::SOUND);
}

#[test]
fn an_overflow_is_harmless_for_the_sound_policies() {
    check_sound_policies(&[scenario::copy_after_overflow(), scenario::move_after_overflow()], NARROW);
}

#[test]
fn an_overflow_breaks_the_first_proposal() {
    // The attempt under mmap_lock fails, nobody looks, and the copy goes on without a lock. If nobody changes the
    // VMA meanwhile, a lock that is not held is released.
    let found = scenario::copy_after_overflow().finds(&SequenceUnderMmapLock, NARROW);
    let found = found.expect("the flaw is found");
    assert!(says(&found, CHANGED) || found.contains("released and not held"), "{found}");
}

#[test]
fn without_overflow_the_first_proposal_holds() {
    for scenario in scenario::pairs() {
        scenario.check(&SequenceUnderMmapLock, Options::SOUND);
    }
}

#[test]
fn an_answer_to_try_again_does_not_mend_the_first_proposal() {
    // Until the next writer, no attempt succeeds.
    let attempts = scenario::copies_after_overflow(3);
    let answers = |policy| attempts.answers(policy, NARROW);
    assert_eq!(answers(&weakened::SequenceElseAgain), [Err(Errno::Again); 3]);
    assert_eq!(answers(&LockUnderMmapLock), [Ok(1), Ok(1), Ok(1)]);
}

/// Not in the review: a writer that takes a number that came round for its own does not wait for who locked directly.
#[test]
fn an_overflow_on_the_side_of_writers_breaks_the_second_proposal() {
    let options = Options { writers_wrap: true, ..NARROW };
    let found = scenario::copy_after_overflow().finds(&LockUnderMmapLock, options);
    let found = found.expect("the flaw is found");
    assert!(says(&found, CHANGED), "{found}");
}

/// What is to be found if a rule is left out, whichever scenario finds it first.
const fn without(rule: Rule) -> &'static [&'static str] {
    match rule {
        Rule::RecheckSequence | Rule::WriterWaits | Rule::EndAfterChange | Rule::OrderedSequence => CHANGED,
        Rule::RecheckVma => &["VMA that was unmapped", "not in the VMA"],
        Rule::AnonVma => &["without anon_vma"],
        Rule::RangeInVma => &["not in the VMA"],
        Rule::ChangingLock => &["goes on while mappings change"],
    }
}

#[test]
fn every_rule_is_needed() {
    for rule in Rule::ALL {
        let options = Options::without(rule);
        let in_any = |policy| scenario::pairs().iter().find_map(|scenario| scenario.finds(policy, options));
        let found = SOUND.into_iter().filter_map(|policy| Some((policy.name(), in_any(policy)?)));
        let found: Vec<_> = found.collect();
        assert!(!found.is_empty(), "nothing needs {rule:?}");
        for (policy, message) in found {
            assert!(says(&message, without(rule)), "{rule:?}, policy {policy}: {message}");
        }
    }
}

#[test]
fn a_vma_above_the_page_is_only_told_by_its_range() {
    // Before the series the range was checked after `find_vma`. A page that `vma_lookup` finds needs no such check.
    let options = Options::without(Rule::RangeInVma);
    let scenario = scenario::copy_into_a_hole();
    for policy in [&MmapLock as &dyn Policy, &AttemptOrMmapLock] {
        assert_finds("not in the VMA", &scenario, policy, options);
    }
    scenario.check(&LockUnderMmapLock, options);
}

#[test]
fn what_is_not_locked_is_lost() {
    for policy in [&weakened::NothingLocked as &dyn Policy, &weakened::OnlyTheDestination] {
        let found = scenario::pairs().iter().find_map(|scenario| scenario.finds(policy, Options::SOUND));
        let found = found.unwrap_or_else(|| panic!("{}: nothing is found", policy.name()));
        assert!(says(&found, CHANGED), "{}: {found}", policy.name());
    }
}

#[test]
fn one_vma_locked_twice_and_released_once_stops_the_writer() {
    assert_finds(
        "deadlock",
        &scenario::move_within_beside_protect(),
        &weakened::TwiceTheSame,
        Options::SOUND,
    );
}

/// What v5 of the series mended.
#[test]
fn waiting_for_mmap_lock_with_a_vma_locked_is_a_deadlock() {
    assert_finds(
        "deadlock",
        &scenario::first_move_beside_protect(),
        &weakened::LockEachInTurn,
        Options::SOUND,
    );
    for policy in SOUND {
        scenario::first_move_beside_protect().check(policy, Options::SOUND);
    }
}
