//! Very short runs of each workload: they compute what `benches/WORKLOADS.md` says, in every mode.

use std::path::Path;
use std::process::{Command, Output};

/// Workload, parameters, checksum: from the tables of `benches/WORKLOADS.md`.
const KNOWN: [(&str, &[&str], &str); 5] = [
    ("trees", &["--depth", "8"], "b5c6ed7f77d08efe"),
    ("gcbench", &["--depth", "10"], "112cce8c4fdd7577"),
    ("lru", &["--window", "100", "--bytes", "64", "--pushes", "1000"], "6218c67af64b7154"),
    ("graph", &["--slots", "100", "--operations", "2000"], "432b31bfccffcfc0"),
    ("graph", &["--slots", "100", "--operations", "2000", "--seed", "2"], "741de897427fcb0c"),
];

fn bench(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_strikeslip-bench")).args(arguments).output();
    output.expect("the program can be started")
}

/// Runs the program, and returns the report that it wrote.
fn report(name: &str, arguments: &[&str]) -> serde_json::Value {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let file = file.to_str().expect("a path in UTF-8");
    let output = bench(&[&["run", "--quiet", "--json", file], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(file).expect("the report was written");
    serde_json::from_str(&text).expect("the report is JSON")
}

#[test]
fn workloads_compute_what_their_specification_says() {
    let specification = include_str!("../WORKLOADS.md");
    for (workload, parameters, checksum) in KNOWN {
        assert!(specification.contains(checksum), "{checksum} is not in WORKLOADS.md");
        let modes = [
            "--modes",
            "no-gc,stop-the-world,concurrent-copy,concurrent-move",
            "--deliveries",
            "pool,inplace",
        ];
        let heap = ["--heap", "16M"];
        let report = report(
            &format!("known-{workload}.json"),
            &[&[workload], parameters, &modes[..], &heap[..]].concat(),
        );
        let runs = report["rows"].as_array().expect("runs");
        assert_eq!(runs.len(), 6);
        for run in runs {
            assert_eq!(run["checksum"], checksum, "{}", run["case"]);
        }
    }
}
