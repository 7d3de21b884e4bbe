//! Running the program.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the program.
pub fn bench(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_strikeslip-bench")).args(arguments).output();
    output.expect("the program can be started")
}

/// A file for this test.
pub fn path(name: &str) -> String {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).to_str().expect("a path in UTF-8").to_owned()
}

/// Runs workloads, and returns the report that was written.
pub fn report(name: &str, arguments: &[&str]) -> serde_json::Value {
    let file = path(name);
    let output = bench(&[&["run", "--quiet", "--json", &file], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(file).expect("the report was written");
    serde_json::from_str(&text).expect("the report is JSON")
}
