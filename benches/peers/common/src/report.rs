//! The result line.

use std::fs;
use std::io;

use crate::histogram::Histogram;
use crate::options::{Common, Workload};
use crate::random::Checksum;
use crate::timing::{Timings, peak_resident_bytes};

/// What a workload hands back.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of all that the workload computed.
    pub checksum: Checksum,
    /// Operations in the timed section.
    pub operations: u64,
    /// Of the timed section.
    pub timings: Timings,
}

fn parameters(workload: &Workload) -> (&'static str, String) {
    match workload {
        Workload::Trees(o) => ("trees", format!("\"depth\":{}", o.depth)),
        Workload::Gcbench(o) => ("gcbench", format!("\"depth\":{}", o.depth)),
        Workload::Lru(o) => {
            ("lru", format!("\"window\":{},\"bytes\":{},\"pushes\":{}", o.window, o.bytes, o.pushes))
        }
        Workload::Graph(o) => {
            ("graph", format!("\"slots\":{},\"operations\":{},\"batch\":{}", o.slots, o.operations, o.batch))
        }
    }
}

fn summary(histogram: &Histogram) -> String {
    if histogram.count() == 0 {
        return "null".to_owned();
    }
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| histogram.at(share));
    format!(
        "{{\"count\":{},\"p50\":{p50},\"p99\":{p99},\"p99.9\":{p999},\"max\":{}}}",
        histogram.count(),
        histogram.max()
    )
}

/// Prints the result line and writes the marks, if they are asked for.
///
/// # Errors
/// The marks cannot be written.
pub fn report(workload: &Workload, common: &Common, outcome: &Outcome, pauses: &Histogram) -> io::Result<()> {
    if let Some(path) = &common.marks {
        let bytes: Vec<u8> = outcome.timings.marks.iter().flat_map(|mark| mark.to_le_bytes()).collect();
        fs::write(path, bytes)?;
    }
    let (name, parameters) = parameters(workload);
    println!(
        "{{\"workload\":\"{name}\",\"parameters\":{{\"seed\":{},\"interval_ns\":{},{parameters}}},\
         \"checksum\":\"{:016x}\",\"operations\":{},\"wall_seconds\":{:.6},\"processor_seconds\":{:.6},\
         \"latency_ns\":{},\"pauses_ns\":{},\"peak_rss_bytes\":{}}}",
        common.seed,
        common.interval_ns,
        outcome.checksum.0,
        outcome.operations,
        outcome.timings.wall_seconds,
        outcome.timings.processor_seconds,
        summary(&outcome.timings.latency),
        summary(pauses),
        peak_resident_bytes(),
    );
    Ok(())
}
