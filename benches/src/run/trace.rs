//! A trace of one run in the format of Chrome's `trace_event`, which Perfetto (ui.perfetto.dev) shows: cycles and
//! their phases, pauses, faults and waits by mutator, slow operations, memory.

use std::path::Path;

use serde_json::{Value, json};
use strikeslip::gc::events::Phase;
use strikeslip_demos::json::Output;

use super::once::Seen;
use crate::error::Error;
use crate::measure::distribution::Distribution;
use crate::measure::recorder::Delay;

/// Rows of the trace; those of mutators follow.
const CYCLES: u32 = 1;
const PAUSES: u32 = 2;
const OPERATIONS: u32 = 3;
const MUTATORS: u32 = 10;
/// Operations are shown if they are slower than this share of all.
const SLOW: f64 = 0.99;

/// Writes the trace of a run.
///
/// # Errors
/// [`Error::Report`].
pub(super) fn write(path: &Path, title: &str, seen: &Seen) -> Result<(), Error> {
    let trace = json!({ "displayTimeUnit": "ns", "traceEvents": events(title, seen) });
    Ok(Output::open(path)?.write_line(&trace)?)
}

fn events(title: &str, seen: &Seen) -> Vec<Value> {
    let mut events = vec![name("process_name", 0, title)];
    for (row, text) in [(CYCLES, "collector: cycles"), (PAUSES, "pauses"), (OPERATIONS, "slow operations")] {
        events.push(name("thread_name", row, text));
    }
    for number in 0..=seen.outcome.mutators {
        let text =
            if number == 0 { "faults served by workers".to_owned() } else { format!("mutator {number}") };
        events.push(name("thread_name", MUTATORS + u32::from(number), &text));
    }
    cycles(seen, &mut events);
    let delay = |row, name: &str, delay: &Delay| {
        span(row, name, delay.end_ns - delay.length_ns.min(delay.end_ns), delay.length_ns)
    };
    let observed = &seen.observed;
    events.extend(observed.pauses.iter().map(|pause| delay(PAUSES, "pause", pause)));
    let row = |mutator: u8| MUTATORS + u32::from(mutator);
    events
        .extend(observed.memory_waits.iter().map(|wait| delay(row(wait.mutator), "waits for memory", wait)));
    events.extend(observed.faults.iter().map(|fault| {
        let begin = fault.end_ns.saturating_sub(fault.latency_ns);
        span(row(fault.mutator), &format!("fault: {:?}", fault.path), begin, fault.latency_ns)
    }));
    let operations = &seen.outcome.section.operations;
    let slow = Distribution::of(seen.outcome.section.latencies()).at(SLOW);
    let slow = operations.iter().filter(|(start, end)| end.saturating_sub(*start) > slow);
    events.extend(slow.map(|&(start, end)| span(OPERATIONS, "operation", start, end.saturating_sub(start))));
    events.extend(seen.memory.iter().map(|sample| {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let args =
            json!({ "resident": mib(sample.resident), "held": mib(sample.held), "used": mib(sample.used) });
        json!({ "ph": "C", "pid": 1, "name": "memory, MiB", "ts": micros(sample.at_ns), "args": args })
    }));
    events
}

fn cycles(seen: &Seen, events: &mut Vec<Value>) {
    for cycle in &seen.observed.cycles {
        let mut whole = span(
            CYCLES,
            &format!("cycle {}", cycle.summary.cycle),
            cycle.started,
            cycle.ended - cycle.started,
        );
        whole["args"] = serde_json::to_value(&cycle.summary).unwrap_or_default();
        events.push(whole);
        for phase in Phase::ALL {
            let begin = cycle.phase_begins[phase as usize];
            if begin != 0 {
                events.push(span(CYCLES, &format!("{phase:?}"), begin, cycle.phase(phase)));
            }
        }
    }
}

fn name(kind: &str, row: u32, text: &str) -> Value {
    json!({ "ph": "M", "pid": 1, "tid": row, "name": kind, "args": { "name": text } })
}

fn span(row: u32, name: &str, begin_ns: u64, length_ns: u64) -> Value {
    json!({ "ph": "X", "pid": 1, "tid": row, "name": name, "ts": micros(begin_ns), "dur": micros(length_ns) })
}

/// The format's unit.
fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}
