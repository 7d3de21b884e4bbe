//! The report as one table: a column for each storm.

use std::fmt::Write as _;

use super::figures::{Compaction, Latency, Probe, Sleep, Traced};
use super::prober::Operation;
use super::storms::Storm;
use super::{Report, StormReport};
use crate::units::Nanoseconds;

/// Width of the first column.
const LABEL: usize = 44;
/// Width of a storm's column.
const COLUMN: usize = 13;
/// What stands for a figure that is not known.
const UNKNOWN: &str = "-";

/// A row of a block: what it shows, and the figure.
type Row<F> = (&'static str, fn(&F) -> Option<String>);

/// The table.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut table = Table { report, text: String::new() };
    table.head();
    table.probes();
    table.heap();
    table.summary();
    table.text
}

struct Table<'a> {
    report: &'a Report,
    text: String,
}

impl Table<'_> {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{}", line.trim_end()).expect("writing to a string");
    }

    fn head(&mut self) {
        let Report { kernel, processors, options, notes, .. } = self.report;
        self.line("");
        self.line(&format!(
            "Linux {kernel}, {processors} processors; {} mutators, {} storm threads; medians of {} rounds",
            options.mutators, options.storm_threads, options.rounds
        ));
        if options.what_if_mmap_lock {
            self.line("A MODEL: each page operation also takes a lock of the process's, which storms hold. It shows");
            self.line("how such a lock acts, and says nothing about how fast an old kernel was.");
        }
        notes.iter().for_each(|note| self.line(&format!("({note})")));
    }

    /// A heading with the storms' names.
    fn heading(&mut self, title: &str) {
        let names: String =
            self.report.storms.iter().map(|storm| format!("{:>COLUMN$}", storm.storm)).collect();
        self.line("");
        self.line(&format!("{title:<LABEL$}{names}"));
    }

    /// A row with a figure for each storm. None if it is known of no storm.
    fn row(&mut self, label: &str, figure: impl Fn(&StormReport) -> Option<String>) {
        let figures: Vec<_> = self.report.storms.iter().map(figure).collect();
        if figures.iter().any(Option::is_some) {
            let cells: String = figures
                .into_iter()
                .map(|figure| format!("{:>COLUMN$}", figure.unwrap_or_else(|| UNKNOWN.to_owned())))
                .collect();
            self.line(&format!("  {label:<width$}{cells}", width = LABEL - 2));
        }
    }

    fn probes(&mut self) {
        let rows: [Row<Probe>; 5] = [
            ("One operation at a time: p99", |probe| Some(time(probe.latency_ns.p99))),
            ("  mean", |probe| Some(time(probe.latency_ns.mean))),
            ("  share of their time asleep", |probe| {
                probe.asleep_ns.map(|asleep| percent(asleep, probe.wall_ns))
            }),
            ("  sleeps in 1000 operations", |probe| Some(per_thousand(probe.sleeps, probe.latency_ns.count))),
            ("  mmap_lock acquired in 1000 operations", |probe| {
                let traced = probe.traced.as_ref()?;
                Some(per_thousand(traced.acquisitions(), probe.traced_operations))
            }),
        ];
        for (title, figure) in rows {
            self.heading(title);
            for operation in Operation::ALL {
                let mark = if operation.is_control() { " (mmap_lock)" } else { "" };
                self.row(&format!("{}{mark}", operation.name()), |storm| {
                    storm.probe(operation).and_then(figure)
                });
            }
        }
    }

    fn heap(&mut self) {
        let modes = self.report.storms.first().into_iter().flat_map(|storm| &storm.compaction);
        let modes: Vec<_> = modes.map(|mode| mode.of).collect();
        let rows: [Row<Compaction>; 15] = [
            ("cycles", |figures| Some(figures.cycles.to_string())),
            ("compaction, p50", |figures| Some(time(figures.compaction_ns.p50))),
            ("compaction, max", |figures| Some(time(figures.compaction_ns.max))),
            ("asleep in COPY, MOVE, ZEROPAGE", |figures| {
                Some(percent(figures.page_operations_slept_ns, figures.compaction_total_ns))
            }),
            ("collector asleep in compaction", |figures| {
                share(&figures.collector, figures.collector_traced.as_ref())
            }),
            ("mutators asleep in compaction", |figures| {
                share(&figures.mutators, figures.mutators_traced.as_ref())
            }),
            ("mmap_lock acquired in a compaction", |figures| {
                let both = [figures.collector_traced.as_ref()?, figures.mutators_traced.as_ref()?];
                let acquired: u64 = both.iter().map(|traced| traced.acquisitions()).sum();
                Some((acquired / figures.cycles.max(1)).to_string())
            }),
            ("gives memory back (mmap_lock)", |figures| {
                Some((figures.discards / figures.cycles.max(1)).to_string())
            }),
            ("COPY, p50", |figures| if_any(&figures.copy_ns, figures.copy_ns.p50)),
            ("COPY, p99", |figures| if_any(&figures.copy_ns, figures.copy_ns.p99)),
            ("MOVE, p99", |figures| if_any(&figures.move_ns, figures.move_ns.p99)),
            ("mutator fault, p50", |figures| if_any(&figures.fault_ns, figures.fault_ns.p50)),
            ("mutator fault, p99", |figures| if_any(&figures.fault_ns, figures.fault_ns.p99)),
            ("REGISTER (mmap_lock), max", |figures| Some(time(figures.register_ns.max))),
            ("pause (mremap: mmap_lock), max", |figures| Some(time(figures.pause_ns.max))),
        ];
        for mode in modes {
            self.heading(&format!("The heap, {mode}"));
            for (label, figure) in rows {
                self.row(label, |storm| {
                    let rounds = storm.compaction.iter().find(|rounds| rounds.of == mode)?;
                    figure(&rounds.median)
                });
            }
            self.row("waits for the model's lock", |storm| {
                let rounds = storm.compaction.iter().find(|rounds| rounds.of == mode)?;
                rounds.median.model_wait_ns.map(time)
            });
        }
    }

    /// What to read off: long holds, with and without.
    fn summary(&mut self) {
        let (Some(quiet), Some(storm)) =
            (self.report.beside(Storm::None), self.report.beside(Storm::Protect))
        else {
            return;
        };
        self.line("");
        for operation in Operation::ALL {
            let Some((before, beside)) = quiet.probe(operation).zip(storm.probe(operation)) else { continue };
            self.line(&format!(
                "{:<20} beside mprotect: p99 {:>8}, {:.1} times that without a storm; asleep {}",
                operation.name(),
                time(beside.latency_ns.p99),
                beside.latency_ns.p99 as f64 / before.latency_ns.p99.max(1) as f64,
                beside.asleep_ns.map_or(UNKNOWN.to_owned(), |asleep| percent(asleep, beside.wall_ns)),
            ));
        }
    }
}

fn time(nanoseconds: u64) -> String {
    Nanoseconds(nanoseconds).to_string()
}

fn if_any(latency: &Latency, nanoseconds: u64) -> Option<String> {
    (latency.count > 0).then(|| time(nanoseconds))
}

fn per_thousand(count: u64, of: u64) -> String {
    let per_thousand = count as f64 * 1000.0 / of.max(1) as f64;
    format!("{per_thousand:.*}", usize::from(per_thousand > 0.0 && per_thousand < 10.0))
}

/// The share of their time that threads slept uninterruptibly: by trace events, else as the scheduler counts it,
/// else asleep for whatever reason, which is marked.
fn share(sleep: &Sleep, traced: Option<&Traced>) -> Option<String> {
    match traced.map(|traced| traced.asleep_ns).or(sleep.blocked_ns) {
        Some(asleep) => Some(percent(asleep, sleep.wall_ns)),
        None => sleep.asleep_ns.map(|asleep| format!("<{}", percent(asleep, sleep.wall_ns))),
    }
}

fn percent(part: u64, of: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / of.max(1) as f64)
}
