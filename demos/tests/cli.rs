//! The command line: reports, exit codes, and what is said about bad input.

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;

use common::{Scratch, report, strikeslip};
use serde_json::Value;

/// Runs the program, which must refuse with one line and exit code 2; returns the line.
fn refused(arguments: &[&str]) -> String {
    let output = strikeslip(arguments);
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{arguments:?}: {errors}");
    assert_eq!(output.stdout, b"", "{arguments:?}");
    errors
}

#[test]
fn bad_values_get_one_clear_line() {
    for (arguments, expected) in [
        (&["--heap", "12x"][..], "12x"),
        (&["--heap", "0"], "heap limit"),
        (&["--heap", "99999999T"], "too large"),
        (&["--mode", "foo"], "none of no-gc, stop-the-world"),
        (&["--delivery", "post"], "none of pool, inplace"),
        (&["--verify", "hard"], "none of off, headers"),
        (&["--verify", "6"], "none of off, headers"),
        (&["--stress", "yields,noise"], "'noise' is none of collect-allocations"),
        (&["--stress", "collect-allocations:none"], "no number of allocations"),
        (&["--stress", "take-all,take-nothing"], "exclude each other"),
        (&["--force-answers", "7"], "seed:per-mille"),
        (&["--force-answers", "7:901"], "between 0 and 900"),
        (&["--mutators", "0"], "--mutators"),
        (&["--workers", "1000"], "workers"),
        (&["--seconds", "-1"], "--seconds"),
        (&["--seconds", "soon"], "--seconds"),
        (&["--seed", "x"], "--seed"),
        (&["index", "/no/such/directory"], "/no/such/directory"),
        (&["index", "/dev/null"], "/dev/null"),
        (&["index", "--documents", "0"], "--documents"),
        (&["--json", "/no/such/directory/report.json"], "/no/such/directory/report.json"),
        (&["--json", "/"], "cannot write /"),
        (&["soak", "--minutes", "-1"], "between 0 and a year"),
        (&["soak", "--minutes", "long"], "not a number of minutes"),
        (&["fly"], "fly"),
    ] {
        let line = refused(arguments);
        assert!(line.starts_with("strikeslip: ") && line.contains(expected), "{arguments:?}: {line}");
    }
}

#[test]
fn the_report_has_the_documented_keys_and_no_others() {
    let of_runs = include_str!("../JSON.md").split("\n## ").next().expect("the first part");
    let documented: BTreeSet<String> = of_runs
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(key, _)| key.to_owned()))
        .collect();
    let scratch = Scratch::new("keys");
    let report = report(&scratch.path("report.json"), &["index", "--documents", "40", "--seconds", "0.2"]);
    let mut found = BTreeSet::new();
    for (key, value) in report.as_object().expect("an object") {
        keys(key, value, &mut found);
    }
    assert_eq!(found, documented);
    for distribution in ["pause_ns", "stopped_ns", "safepoint_ns", "memory_wait_ns", "fault_ns"] {
        for key in ["count", "p50", "p99", "max"] {
            assert!(report[distribution][key].is_u64(), "{distribution}.{key}");
        }
    }
    let compared = if report["compare"].is_null() { None } else { report["compare"]["mode"].as_str() };
    assert_eq!(compared.is_some(), !report["delivery"].is_null(), "concurrent runs are compared");
    assert_eq!(compared.unwrap_or("stop-the-world"), "stop-the-world");
    let files: Vec<_> = fs::read_dir(scratch.path("")).expect("it is there").collect();
    assert_eq!(files.len(), 1, "no temporary file is left");
}

/// Adds the path of `value`, or those of its parts where the documentation lists them.
fn keys(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    let parts = ["bytes", "workload", "workload.index"];
    match value.as_object().filter(|_| parts.contains(&path)) {
        Some(object) => {
            if path == "workload.index" {
                found.insert(path.to_owned());
            }
            object.iter().for_each(|(key, value)| keys(&format!("{path}.{key}"), value, found));
        }
        None => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn a_directory_is_indexed_but_for_what_is_no_text() {
    let scratch = Scratch::new("directory");
    for number in 0..30 {
        scratch.file(
            &format!("tree/{}/{number}.txt", number % 3),
            format!("text {number}, words ärger").repeat(50),
        );
    }
    scratch.file("tree/binary", b"some\0thing");
    scratch.file("tree/latin1", b"\xe4rger und anderes");
    scratch.file("tree/empty", "");
    File::create(scratch.path("tree/huge")).and_then(|file| file.set_len(17 << 20)).expect("a sparse file");
    symlink(scratch.path("tree"), scratch.path("tree/0/loop")).expect("a link");
    let listener = std::os::unix::net::UnixListener::bind(scratch.path("tree/socket")).expect("a socket");

    let tree = scratch.path("tree");
    let tree = tree.to_str().expect("UTF-8");
    let report = report(&scratch.path("report.json"), &["index", tree, "--seconds", "0.5", "--no-compare"]);
    drop(listener);
    assert_eq!(report["workload"]["index"]["documents"], 30);
    assert_eq!(report["workload"]["mismatches"], 0);
    let skipped = serde_json::json!({
        "binary": 1, "invalid_utf8": 1, "unreadable": 1, "huge": 1, "links": 1, "empty": 1, "no_room": 0
    });
    assert_eq!(report["skipped"], skipped);
}

#[test]
fn a_directory_without_text_is_refused() {
    let scratch = Scratch::new("no-text");
    scratch.file("empty/binary", b"\0");
    let line = refused(&["index", scratch.path("empty").to_str().expect("UTF-8")]);
    assert!(line.contains("nothing to index") && line.contains("1 binary"), "{line}");
}

#[test]
fn what_does_not_fit_is_left_out() {
    let scratch = Scratch::new("room");
    for number in 0..40 {
        // Different words in every file: each costs a dictionary entry.
        let text: String = (0..4_000).map(|word| format!("w{number}x{word} ")).collect();
        scratch.file(&format!("{number:02}.txt"), text);
    }
    let report_file = Scratch::new("room-report");
    let directory = scratch.path("");
    let arguments =
        ["index", directory.to_str().expect("UTF-8"), "--heap", "24M", "--seconds", "0.5", "--no-compare"];
    let report = report(&report_file.path("report.json"), &arguments);
    let (documents, left_out) = (&report["workload"]["index"]["documents"], &report["skipped"]["no_room"]);
    assert_eq!(report["workload"]["mismatches"], 0);
    assert!(documents.as_u64() > Some(0) && left_out.as_u64() > Some(0), "{documents} in, {left_out} out");
}

#[test]
fn running_out_of_memory_is_one_clear_line() {
    let output = strikeslip(&["--heap", "16M", "--seconds", "0.5", "--quiet", "--no-compare"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(
        errors.starts_with("strikeslip: out of memory: heap limit of 16777216 bytes reached"),
        "{errors}"
    );
}

#[test]
fn the_doctor_says_what_it_found_and_what_would_be_chosen() {
    let scratch = Scratch::new("doctor");
    let file = scratch.path("doctor.json");
    let output = strikeslip(&["doctor", "--json", file.to_str().expect("UTF-8")]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    assert!(text.contains("kernel") && text.contains("chosen: "), "{text}");
    let report: Value =
        serde_json::from_str(&fs::read_to_string(file).expect("it was written")).expect("JSON");
    assert!(report["capabilities"]["kernel"].is_object());
    assert!(report["choice"]["mode"].is_string(), "{}", report["choice"]);
}

#[test]
fn the_screen_shows_both_runs() {
    let output = strikeslip(&["index", "--documents", "40", "--seconds", "0.2"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for label in ["mode · delivery", "cycles", "time to safepoint", "mutator faults", "queries", "checksum"]
    {
        assert!(text.lines().any(|line| line.starts_with(label)), "{label} in:\n{text}");
    }
}

#[test]
fn the_doctor_tries_the_rules_of_the_page_operations() {
    let scratch = Scratch::new("conformance");
    let file = scratch.path("conformance.json");
    let arguments = ["doctor", "--conformance", "--json", file.to_str().expect("UTF-8")];
    let output = strikeslip(&arguments);
    let table = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{table}");
    let report: Value = serde_json::from_str(&fs::read_to_string(file).expect("a report")).expect("JSON");
    let rules = report["rules"].as_array().expect("a list of rules");
    assert!(rules.len() > 40 && rules.iter().any(|rule| rule["verdict"] == "as-expected"));
    for rule in rules {
        let condition = rule["condition"].as_str().expect("a condition");
        assert!(table.contains(condition), "{condition}: {table}");
        assert_ne!(rule["verdict"], "different", "{rule}");
    }
}
