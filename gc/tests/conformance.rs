//! The contract of the page operations on the running kernel: every rule as expected, or not to be tried here.
//!
//! One test, alone in its process, runs all rules one after another: one of them forks, which shares every page.

use strikeslip_gc::sys::conformance::{RULES, Rule, Verdict};
use strikeslip_gc::sys::sched::kernel_release;

#[test]
fn the_kernel_answers_as_the_rules_say() {
    for (nth, rule) in RULES.iter().enumerate() {
        let same = |other: &Rule| (other.operation, other.condition) == (rule.operation, rule.condition);
        assert_eq!(RULES.iter().position(same), Some(nth), "{rule:?} is there once");
    }
    let (release, version) = kernel_release().expect("the system tells its release");
    let outcomes: Vec<_> = RULES.iter().map(|rule| rule.examine()).collect();
    for outcome in &outcomes {
        println!("{release}: {}, {}: {}", outcome.operation, outcome.condition, outcome.seen);
    }
    let different: Vec<_> = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Different).collect();
    assert!(different.is_empty(), "Linux {release}: {different:#?}");
    // Without a privilege few rules are left out; where the kernel has no MOVE, those about it.
    let left_out: Vec<_> = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::NotTried).collect();
    let about_move = RULES.iter().filter(|rule| rule.operation == "MOVE").count();
    let most = 4 + if version < (6, 8) { about_move } else { 0 };
    assert!(left_out.len() <= most, "{left_out:#?}");
}
