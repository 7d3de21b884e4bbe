//! The program: a row for each storm and policy, and one line if it is asked for what cannot be.

#![cfg(not(loom))]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mmap-lock-model")).args(arguments).output().expect("it can be run")
}

#[test]
fn a_table_of_the_four_is_printed() {
    let output = run(&["0.01", "--storms", "1"]);
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    for storm in ["spinner only", "map/unmap", "thread start/exit", "mprotect, 2 ms"] {
        for policy in 1..=4 {
            let begin = format!("{storm:<18} {policy} ");
            assert_eq!(table.lines().filter(|line| line.starts_with(&begin)).count(), 1, "{begin}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    for arguments in
        [&["x"][..], &["0"], &["-1"], &["nan"], &["1", "--storms", "0"], &["1", "2"], &["--what"]]
    {
        let output = run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(errors.lines().count(), 1, "{arguments:?}: {errors}");
        assert!(errors.starts_with("mmap-lock-model: "), "{arguments:?}: {errors}");
    }
}
