//! Draws programs, and shrinks those that fail. `STRIKESLIP_PROGRAMS` is how many to draw for each test.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestError, TestRunner};

use crate::program::{HEADER_BYTES, OPERATION_BYTES, Program};

fn cases(count: u32) -> u32 {
    let text = std::env::var("STRIKESLIP_PROGRAMS").ok();
    text.map_or(count, |text| text.parse().unwrap_or_else(|_| panic!("{text} is no number")))
}

/// Operations by code, more often those that make much to collect.
fn operation() -> impl Strategy<Value = [u8; OPERATION_BYTES]> {
    let code =
        prop_oneof![12 => 0u8..20, 2 => Just(13), 1 => Just(14), 1 => Just(15), 2 => Just(17), 1 => Just(19)];
    (code, any::<[u8; 3]>()).prop_map(|(code, [a, b, c])| [code, a, b, c])
}

/// Programs as bytes.
fn program(operations: usize) -> impl Strategy<Value = Vec<u8>> {
    let operations = prop::collection::vec(operation(), 1..operations);
    (any::<[u8; HEADER_BYTES]>(), operations)
        .prop_map(|(header, operations)| header.into_iter().chain(operations.into_iter().flatten()).collect())
}

/// Runs `count` programs of up to so many operations. One that fails is shrunk, printed, and written as bytes.
pub fn for_programs(count: u32, operations: usize, run: impl Fn(&Program)) {
    let config = ProptestConfig {
        cases: cases(count),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    };
    let failed = TestRunner::new(config).run(&program(operations), |bytes| {
        let program = Program::decode(&bytes);
        let ran = catch_unwind(AssertUnwindSafe(|| run(&program)));
        ran.map_err(|_| TestCaseError::fail("it panicked"))
    });
    if let Err(TestError::Fail(reason, bytes)) = failed {
        let path = std::env::temp_dir().join(format!("strikeslip-program-{}", std::process::id()));
        let written = std::fs::write(&path, &bytes).map(|()| path);
        panic!("{reason}: {:?}\nas bytes: {written:?}", Program::decode(&bytes));
    }
    failed.expect("programs can be drawn");
}
