//! The experiment `contention`: a short run of it, and its options.

use std::fs;
use std::time::Duration;

use strikeslip::Mode;
use strikeslip_demos::contention::prober::Operation;
use strikeslip_demos::contention::storms::Storm;
use strikeslip_demos::contention::{Options, run};

use common::{Scratch, strikeslip};

mod common;

#[test]
fn mutators_take_faults_while_a_heap_is_compacted_beside_storms() {
    let options = Options {
        storms: vec![Storm::None, Storm::Map, Storm::Protect],
        storm_threads: 1,
        mutators: 2,
        live_bytes: 24 << 20,
        protect_bytes: 16 << 20,
        time: Duration::from_millis(1800),
        rounds: 1,
        ..Options::default()
    };
    let mut told = 0;
    let report = run(&options, &mut |_| told += 1).expect("the experiment runs where faults can be served");
    assert_eq!(told, 9);
    assert_eq!(report.mismatches(), 0);
    for storm in &report.storms {
        assert_eq!(storm.compaction.len(), 2, "{:?}", report.notes);
        for rounds in &storm.compaction {
            let figures = &rounds.median;
            assert!(figures.cycles > 0 && figures.compaction_ns.count == figures.cycles);
            assert!(figures.mutator_operation_ns.count > 0);
            let by_mode = if rounds.of == Mode::ConcurrentMove { &figures.move_ns } else { &figures.copy_ns };
            assert!(by_mode.count > 0 && by_mode.p50 <= by_mode.p99 && by_mode.p99 <= by_mode.max);
            assert_eq!(figures.storm_operations > 0, storm.storm != Storm::None);
            assert!(figures.collector.wall_ns > 0, "no thread of the collector was found");
            assert!(figures.mutators.asleep_ns.is_some());
        }
        for operation in Operation::ALL {
            let probe = storm.probe(operation).expect("this kernel has every operation");
            assert!(probe.latency_ns.count > 0 && probe.wall_ns > 0);
            if let Some(traced) = &probe.traced {
                let acquired = traced.acquisitions();
                // The first operation on a mapping may take it.
                let expected = if operation.is_control() { probe.traced_operations } else { 0 };
                assert!(acquired.abs_diff(expected) <= expected / 100 + 8, "{operation:?}: {probe:?}");
            }
        }
    }
    for mode in 0..2 {
        let faults = report.storms.iter().map(|storm| storm.compaction[mode].median.fault_ns.count);
        assert!(faults.sum::<u64>() > 0, "mutators took no fault, so nothing was shown");
    }
    let line = report.line();
    assert!(!line.contains('\n'));
    let parsed: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
    assert_eq!(parsed["storms"][1]["storm"], "map");
    assert!(parsed["storms"][2]["compaction"][0]["median"]["fault_ns"]["p99"].is_u64());
}

#[test]
fn bad_options_are_one_line_and_exit_code_2() {
    for (arguments, word) in [
        (&["--storms", "none,hail"][..], "hail"),
        (&["--storm-threads", "0"], "storm-threads"),
        (&["--storm-threads", "2000"], "1000 threads"),
        (&["--rounds", "0"], "rounds"),
        (&["--live", "12x"], "live"),
        (&["--live", "1"], "heap limit"),
        (&["--live", "9000000T"], "heap limit"),
        (&["--protect", "1.5G"], "protect"),
        (&["--protect", "1T"], "most that is protected"),
        (&["--seconds", "-1"], "seconds"),
    ] {
        let output = strikeslip(&[&["contention", "--quiet"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
        assert!(error.contains(word), "{arguments:?}: {error}");
    }
}

#[test]
fn the_program_prints_a_table_and_writes_a_report() {
    let scratch = Scratch::new("contention");
    let json = scratch.path("report.json");
    let arguments =
        ["contention", "--seconds", "0.2", "--rounds", "1", "--storms", "none,spin", "--live", "8M"];
    let file = ["--json", json.to_str().expect("a path in UTF-8")];
    let output = strikeslip(&[&arguments[..], &file, &["--what-if-mmap-lock"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("round 1 of 1, storm spin: single operations"), "progress is shown: {errors}");
    let table = String::from_utf8_lossy(&output.stdout);
    for word in ["A MODEL", "UFFDIO_COPY", "UFFDIO_WRITEPROTECT (mmap_lock)", "mutator fault, p99", "spin"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(json).expect("a report")).expect("JSON");
    assert_eq!(report["options"]["what_if_mmap_lock"], true);
    assert!(report["storms"][0]["compaction"][0]["median"]["model_wait_ns"].is_u64());
}
