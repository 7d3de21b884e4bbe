//! The report: what one run writes, the program reads again, compares and shows.

mod common;

use std::fs;

use common::{bench, path, report};
use strikeslip_bench::report::compare::compare;
use strikeslip_bench::report::{Report, page};

const GRAPH: [&str; 7] = ["graph", "--slots", "2000", "--operations", "60000", "--heap", "16M"];

#[test]
fn a_report_is_read_as_it_was_written() {
    let modes = ["--modes", "stop-the-world,concurrent-move,no-gc", "--runs", "2"];
    let json = report("round-trip.json", &[&GRAPH[..], &modes[..]].concat());
    let read = Report::read(path("round-trip.json").as_ref()).expect("the program reads its own reports");
    assert_eq!(serde_json::to_value(&read).expect("it can be written"), json);
    let groups = read.groups();
    assert_eq!(groups.iter().map(|group| group.runs.len()).collect::<Vec<_>>(), [2, 2, 2]);
    for run in &read.runs {
        assert_eq!((run.operations, run.latency_ns.count, run.mutators), (60_000, 1_200, 1));
        assert!(run.wall_seconds > 0.0 && run.processor.mutator_ns > 0 && run.bytes.allocated > 1 << 20);
        assert!(run.peak_rss_bytes > 1 << 20 && !run.memory.is_empty() && run.noise.control_ns.count > 0);
        assert_eq!(run.history.operations.iter().map(|bin| bin.count).sum::<u64>(), 1_200);
    }
    let stopped = &groups[0].runs[0];
    assert!(stopped.cycles > 0 && stopped.pauses_ns.count > 0);
    assert!(stopped.utilisation[0].minimum < 0.5, "a pause takes all of a short window");
    let without = &groups[2].runs[0];
    assert_eq!((without.cycles, without.pauses_ns.count, without.processor.collector_ns), (0, 0, 0));
    assert!(without.utilisation.iter().all(|point| point.minimum == 1.0));

    let html = page::page(&read);
    for part in
        ["<h2>graph", "stop-the-world", "concurrent-move · inplace", "Latency of operations", "</html>"]
    {
        assert!(html.contains(part), "no {part}");
    }
    assert!(!html.contains("http") && !html.contains("<script"), "it needs nothing but itself");
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
}

#[test]
fn reports_are_compared_case_by_case() {
    let json = path("compared.json");
    report("compared.json", &[&GRAPH[..], &["--modes", "stop-the-world", "--runs", "2"]].concat());
    let before = Report::read(json.as_ref()).expect("a report");
    let mut after = before.clone();
    for run in &mut after.runs {
        run.wall_seconds *= 10.0;
        run.processor_seconds /= 10.0;
    }
    let text = compare(&before, &after).expect("they have a case in common");
    let line = |name: &str| text.lines().find(|line| line.contains(name)).expect("a line for each figure");
    assert!(line("wall s").contains("10.00") && line("wall s").ends_with("WORSE"), "{text}");
    assert!(line("processor s").contains("0.10") && line("processor s").ends_with("better"), "{text}");
    assert!(line("peak RSS").contains("1.00"), "{text}");

    after.runs[0].checksum = "0".to_owned();
    assert!(compare(&before, &after).expect_err("other results").to_string().contains("checksum 0"));
    after.runs.clear();
    assert!(compare(&before, &after).is_err(), "nothing in common");

    let output = bench(&["compare", &json, &json]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("wall s"));
}

#[test]
fn a_trace_has_cycles_pauses_and_faults() {
    let trace = path("trace.json");
    let arguments = ["--modes", "concurrent-move", "--trace", &trace];
    report("traced.json", &[&GRAPH[..], &arguments[..]].concat());
    let text = fs::read_to_string(&trace).expect("the trace was written");
    let trace: serde_json::Value = serde_json::from_str(&text).expect("a trace is JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    assert!(named("pause") > 0 && named("Mark") > 0 && named("memory, MiB") > 0);
    let spans = events.iter().filter(|event| event["ph"] == "X");
    assert!(spans.into_iter().all(|span| span["dur"].as_f64().is_some_and(|length| length >= 0.0)));
}

#[test]
fn what_cannot_be_done_is_said_in_a_line() {
    let cases: [&[&str]; 5] = [
        &["run", "nothing"],
        &["run", "graph", "--heap", "16M", "--modes", "no-gc,stop-the-world", "--trace", "trace.json"],
        &["run", "trees", "--heap", "1M"],
        &["compare", "/nonexistent/a.json", "/nonexistent/b.json"],
        &["run", "trees", "--heap", "16M", "--json", "/nonexistent/report.json"],
    ];
    for arguments in cases {
        let output = bench(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
    }
}
