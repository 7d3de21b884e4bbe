//! The programs in every mode and delivery on the running kernel: right results, the same in all of
//! them, and faults really taken by mutators.

mod common;

use common::{Scratch, report};
use serde_json::Value;

/// Mode and delivery.
const ALL: [(&str, Option<&str>); 6] = [
    ("no-gc", None),
    ("stop-the-world", None),
    ("concurrent-copy", Some("inplace")),
    ("concurrent-copy", Some("pool")),
    ("concurrent-move", Some("inplace")),
    ("concurrent-move", Some("pool")),
];

/// Runs a program in every mode and delivery; returns the checksum, which is the same in all.
fn in_all_modes(name: &str, program: &[&str]) -> String {
    let scratch = Scratch::new(name);
    let mut checksums = vec![];
    for (mode, delivery) in ALL {
        let mut arguments = program.to_vec();
        arguments.extend(["--no-compare", "--verify", "cheap", "--mode", mode]);
        arguments.extend(delivery.iter().flat_map(|delivery| ["--delivery", delivery]));
        let report = report_with_faults(&scratch, &arguments, mode);
        check(&report, mode, delivery);
        checksums.push(report["workload"]["checksum"].as_str().expect("a string").to_owned());
    }
    checksums.dedup();
    assert_eq!(checksums.len(), 1, "the same results in every mode and delivery");
    checksums.remove(0)
}

/// Runs the program until a mutator took a fault, if it is to take any: on a busy machine the workers
/// may have installed everything before a mutator runs again. The results do not depend on how long it
/// runs.
fn report_with_faults(scratch: &Scratch, arguments: &[&str], mode: &str) -> Value {
    let mut last = report(&scratch.path("report.json"), arguments);
    for _ in 0..5 {
        let fell_back = last["mode"] != mode;
        if fell_back || !mode.starts_with("concurrent") || last["mutator_faults"].as_u64() > Some(0) {
            break;
        }
        last = report(&scratch.path("report.json"), arguments);
    }
    last
}

fn check(report: &Value, mode: &str, delivery: Option<&str>) {
    let number = |value: &Value| value.as_u64().expect("a number");
    assert_eq!(number(&report["workload"]["mismatches"]), 0, "{mode} {delivery:?}");
    assert!(number(&report["workload"]["operations"]) > 0);
    if (report["mode"].as_str(), report["delivery"].as_str()) != (Some(mode), delivery) {
        // Denied here, so it fell back: then it must say so.
        assert_eq!(report["mode"], "stop-the-world", "{}", report["choice"]);
        return;
    }
    let (cycles, faults) = (number(&report["cycles"]), number(&report["mutator_faults"]));
    match mode {
        "no-gc" => assert_eq!((cycles, faults), (0, 0)),
        "stop-the-world" => assert!(cycles > 0 && faults == 0, "{cycles} cycles, {faults} faults"),
        _ => assert!(cycles > 0 && faults > 0, "{mode} {delivery:?}: {cycles} cycles, {faults} faults"),
    }
}

#[test]
fn the_index_is_right_and_the_same_in_every_mode() {
    let program = ["index", "--documents", "600", "--seconds", "2", "--seed", "11"];
    let checksum = in_all_modes("index", &program);
    let scratch = Scratch::new("index-seed");
    let other = ["index", "--documents", "600", "--seconds", "0.2", "--seed", "12", "--no-compare"];
    assert_ne!(checksum, report(&scratch.path("report.json"), &other)["workload"]["checksum"]);
}

#[test]
fn churn_is_right_and_the_same_in_every_mode() {
    in_all_modes("churn", &["churn", "--seconds", "3", "--seed", "11", "--mutators", "3"]);
}
