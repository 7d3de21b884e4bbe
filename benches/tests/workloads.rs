//! Very short runs of each workload: they compute what `benches/WORKLOADS.md` says, in every mode, and in every
//! mode the same.

mod common;

use common::report;

/// Workload, parameters, checksum: from the tables of `benches/WORKLOADS.md`.
const KNOWN: [(&[&str], &str); 10] = [
    (&["trees", "--depth", "8"], "b5c6ed7f77d08efe"),
    (&["gcbench", "--depth", "10"], "112cce8c4fdd7577"),
    (&["lru", "--window", "100", "--bytes", "64", "--pushes", "1000"], "6218c67af64b7154"),
    (&["graph", "--slots", "100", "--operations", "2000"], "432b31bfccffcfc0"),
    (&["graph", "--slots", "100", "--operations", "2000", "--seed", "2"], "741de897427fcb0c"),
    (&["map", "--inserts", "10000", "--maps", "3"], "b5a62763b4eb38e1"),
    (&["arrays", "--arrays", "4", "--length", "2000", "--replacements", "3000"], "c5411f1fbecc1440"),
    (&["strings", "--strings", "2000", "--string-operations", "20000"], "8b908b22c28df8bd"),
    (&["server", "--places", "2000", "--requests", "1000"], "75134f4a7f8073d9"),
    (&["weak", "--keys", "20000", "--kept", "4000", "--lookups", "100000"], "852ad151dcecd527"),
];

#[test]
fn workloads_compute_what_their_specification_says() {
    let specification = include_str!("../WORKLOADS.md");
    for (nth, (arguments, checksum)) in KNOWN.iter().enumerate() {
        assert!(specification.contains(checksum), "{checksum} is not in WORKLOADS.md");
        let matrix = [
            "--heap",
            "24M",
            "--modes",
            "no-gc,stop-the-world,concurrent-copy,concurrent-move",
            "--deliveries",
            "pool,inplace",
        ];
        let report = report(&format!("known-{nth}.json"), &[arguments, &matrix[..]].concat());
        let runs = report["runs"].as_array().expect("runs");
        assert_eq!(runs.len(), 6);
        for run in runs {
            assert_eq!(run["checksum"], *checksum, "{}", run["case"]);
        }
    }
}

#[test]
fn a_paced_run_takes_as_long_as_its_pace() {
    let pace = ["--interval-ns", "1000000", "--heap", "16M", "--modes", "concurrent-move"];
    let report =
        report("paced.json", &[&["graph", "--slots", "500", "--operations", "15000"], &pace[..]].concat());
    let run = &report["runs"][0];
    // 300 batches, the last of which is intended to start 299 ms after the begin.
    assert_eq!(run["latency_ns"]["count"], 300);
    assert!(run["wall_seconds"].as_f64().expect("a number") >= 0.299);
}

#[test]
fn heaps_are_multiples_of_what_is_live() {
    let factors = ["--factors", "2,3", "--modes", "stop-the-world"];
    let report =
        report("factors.json", &[&["lru", "--window", "20000", "--pushes", "1000"], &factors[..]].concat());
    let runs = report["runs"].as_array().expect("runs");
    let number = |run: &serde_json::Value, key: &str| run[key].as_u64().expect("a number");
    let live = number(&runs[0], "live_bytes");
    // The buffers with their headers, and the window.
    let least = 20_000 * (1024 + 8 + 8);
    assert!((least..least + least / 10).contains(&live), "{live}");
    assert_eq!([number(&runs[0], "heap_bytes"), number(&runs[1], "heap_bytes")], [2 * live, 3 * live]);
}
