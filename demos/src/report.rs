//! One screen about a run, with the run it is compared with beside it.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use strikeslip::gc::stats::Percentiles;

use crate::run::Finished;
use crate::units::{Bytes, Nanoseconds};
use crate::workload::IndexFigures;

/// Width of the first column.
const LABEL: usize = 32;
/// Width of the columns of figures.
const FIGURE: usize = 36;

/// A line of the table.
type Row = (String, String);

/// The screen.
#[must_use]
pub fn screen(main: &Finished, compare: Option<&Finished>) -> String {
    let mut text = format!("\n{}\n\n", main.choice);
    let rows = rows(main);
    let other = compare.map(self::rows).unwrap_or_default();
    for (label, figure) in &rows {
        let beside = other.iter().find(|(known, _)| known == label).map_or("", |(_, figure)| figure);
        let line = format!("{label:<LABEL$}{figure:<FIGURE$}{beside}");
        writeln!(text, "{}", line.trim_end()).expect("writing to a string");
    }
    for finished in std::iter::once(main).chain(compare) {
        let mismatches = &finished.outcome.mismatches;
        for example in &mismatches.examples {
            writeln!(text, "mismatch ({}): {example}", finished.snapshot.mode).expect("writing to a string");
        }
    }
    text
}

fn rows(finished: &Finished) -> Vec<Row> {
    let mut rows = vec![];
    collector_rows(finished, &mut rows);
    fault_rows(finished, &mut rows);
    memory_rows(finished, &mut rows);
    if let Some(index) = &finished.outcome.index {
        index_rows(index, finished, &mut rows);
    }
    workload_rows(finished, &mut rows);
    rows
}

fn push(rows: &mut Vec<Row>, label: &str, figure: String) {
    rows.push((label.to_owned(), figure));
}

fn collector_rows(finished: &Finished, rows: &mut Vec<Row>) {
    let snapshot = &finished.snapshot;
    let mode = match snapshot.delivery {
        Some(delivery) => format!("{} · {delivery}", snapshot.mode),
        None => snapshot.mode.to_owned(),
    };
    push(rows, "mode · delivery", mode);
    let (counters, without) = (&snapshot.counters, snapshot.counters.cycles_without_flip);
    let cycles = format!("{} ({} young, {without} without flip)", counters.cycles, counters.young_cycles);
    push(rows, "cycles", cycles);
    push(rows, "", "p50 / p99 / max".to_owned());
    push(rows, "stopped (until they may run)", percentiles(&snapshot.stopped_ns));
    push(rows, "pause (until the last runs)", percentiles(&snapshot.pause_ns));
    push(rows, "time to safepoint", percentiles(&snapshot.safepoint_ns));
    push(rows, "waits for memory", counted(&snapshot.memory_wait_ns));
    let steal = match finished.noise.steal_ns {
        Some(steal) => Nanoseconds(steal).to_string(),
        None => "not known".to_owned(),
    };
    push(
        rows,
        "noise: steal / control gap",
        format!("{steal} / {}", Nanoseconds(finished.noise.control_gap_ns)),
    );
}

fn fault_rows(finished: &Finished, rows: &mut Vec<Row>) {
    push(rows, "mutator faults", counted(&finished.snapshot.fault_ns));
    for entry in &finished.snapshot.fault_paths {
        push(rows, &format!("  {:?}", entry.path).to_lowercase(), counted(&entry.latency_ns));
    }
}

fn memory_rows(finished: &Finished, rows: &mut Vec<Row>) {
    let (counters, memory) = (&finished.snapshot.counters, &finished.snapshot.memory);
    let outcome = &finished.outcome;
    push(rows, "allocated", Bytes(counters.allocated_bytes).to_string());
    push(rows, "evacuated", Bytes(counters.evacuated_bytes).to_string());
    push(rows, "  moved without copying", Bytes(counters.moved_bytes).to_string());
    push(rows, "  copied", Bytes(counters.copied_bytes).to_string());
    if counters.built_in_place_bytes > 0 {
        push(rows, "  built in place", Bytes(counters.built_in_place_bytes).to_string());
    }
    let patched = format!("{} slots / {}", counters.patched_slots, Bytes(counters.patched_bytes));
    push(rows, "patched in pause / taken", patched);
    let used = format!("{} / {}", Bytes(outcome.used_before_bytes), Bytes(outcome.used_after_bytes));
    push(rows, "heap before / after last cycle", used);
    let heap = format!("{} / {}", Bytes(memory.live_bytes), Bytes(memory.limit_bytes));
    push(rows, "live / limit", heap);
    let peak = format!("{} / {}", Bytes(memory.peak_used_bytes), Bytes(memory.peak_resident_bytes));
    push(rows, "peak used / resident", peak);
    let held = &memory.held_at_peak;
    let parts = [
        ("objects", held.objects),
        ("evacuated", held.evacuated + held.drained),
        ("destinations", held.destinations),
        ("staging", held.staging + held.copied),
        ("free", held.free),
    ];
    let parts = parts.into_iter().filter(|&(_, bytes)| bytes > 0);
    let parts: Vec<_> = parts.map(|(name, bytes)| format!("{name} {}", Bytes(bytes))).collect();
    push(rows, "  held at the peak", parts.join(", "));
}

fn index_rows(index: &IndexFigures, finished: &Finished, rows: &mut Vec<Row>) {
    let seconds = finished.outcome.time.as_secs_f64().max(f64::MIN_POSITIVE);
    let size = format!("{} documents, {} words", index.documents, index.words);
    push(rows, "index", size);
    let (time, bytes) = (index.build.0.as_secs_f64().max(f64::MIN_POSITIVE), index.build.1);
    push(rows, "built", rates(index.documents, bytes, time));
    push(rows, "replaced", rates(index.replaced.0, index.replaced.1, seconds));
    let queries = index.query_ns.len();
    let hits = 100.0 * index.cached as f64 / queries.max(1) as f64;
    push(rows, "queries", format!("{:.0}/s, {hits:.0} % cached", queries as f64 / seconds));
    push(rows, "  p50 / p99 / p99.9 / max", query_percentiles(&index.query_ns));
    push(rows, "documents checked meanwhile", index.checked.to_string());
}

fn workload_rows(finished: &Finished, rows: &mut Vec<Row>) {
    let outcome = &finished.outcome;
    let seconds = outcome.time.as_secs_f64();
    let rate = outcome.operations as f64 / seconds.max(f64::MIN_POSITIVE);
    push(rows, "operations", format!("{} in {seconds:.1} s, {rate:.0}/s", outcome.operations));
    push(rows, "checksum", format!("{:016x}", outcome.checksum));
    push(rows, "mismatches", outcome.mismatches.count.to_string());
}

fn rates(documents: u64, bytes: u64, seconds: f64) -> String {
    let (documents, megabytes) = (documents as f64 / seconds, bytes as f64 / 1e6 / seconds);
    format!("{documents:.0} documents/s, {megabytes:.1} MB/s")
}

fn percentiles(values: &Percentiles) -> String {
    if values.count == 0 {
        return "none".to_owned();
    }
    format!("{} / {} / {}", Nanoseconds(values.p50), Nanoseconds(values.p99), Nanoseconds(values.max))
}

fn counted(values: &Percentiles) -> String {
    if values.count == 0 {
        return "none".to_owned();
    }
    format!("{}: {}", values.count, percentiles(values))
}

fn query_percentiles(values: &Histogram<u64>) -> String {
    let at = |quantile| Nanoseconds(values.value_at_quantile(quantile));
    format!("{} / {} / {} / {}", at(0.5), at(0.99), at(0.999), Nanoseconds(values.max()))
}
