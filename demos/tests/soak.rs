//! The command `soak`: a round, its report, and that a seed and a number repeat it.

mod common;

use std::collections::BTreeSet;

use common::{Scratch, report};
use serde_json::Value;

fn round(scratch: &Scratch, number: &str) -> Value {
    let arguments = ["soak", "--minutes", "0", "--seed", "3", "--round", number];
    report(&scratch.path("report.json"), &arguments)
}

#[test]
fn a_round_is_run_checked_and_reported() {
    let scratch = Scratch::new("soak");
    let report = round(&scratch, "2");
    let part = include_str!("../JSON.md").split("\n## ").find(|part| part.starts_with("The report of soak"));
    let part = part.expect("it is documented");
    let lines = part.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let keys = lines.flat_map(|(keys, _)| keys.split(", ").map(|key| key.trim_matches('`')));
    let documented: BTreeSet<&str> = keys.map(|key| key.split('.').next().expect("a key")).collect();
    let found: BTreeSet<&str> = report.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(found, documented);
    assert_eq!((&report["rounds"], &report["differences"]), (&Value::from(1), &Value::from(0)), "{report}");
    assert!(report["operations"].as_u64() > Some(0) && report["verified_bytes"]["by_checksum"].is_u64());
    let process = &report["process"];
    assert_eq!(process["at_start"]["threads"], process["at_end"]["threads"]);
    // The same heap, and so the same mode.
    let again = round(&scratch, "2");
    let modes =
        |report: &Value| report["modes"].as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(modes(&report), modes(&again));
}
