//! The report as a picture (SVG): how long one operation in a hundred takes at least, by operation and storm, and
//! below it how much of their time threads slept.
//!
//! Times are on a logarithmic axis: what matters are factors of a thousand.

use std::fmt::Write as _;

use super::figures::{Compaction, Probe};
use super::prober::Operation;
use super::storms::Storm;
use super::{Report, StormReport};
use crate::units::Nanoseconds;

const WIDTH: f64 = 960.0;
/// Where the axis begins and ends.
const LEFT: f64 = 270.0;
const RIGHT: f64 = 920.0;
/// Height of a row, and of a storm's line in it.
const ROW: f64 = 76.0;
const LINE: f64 = 13.0;
/// The axis, in powers of ten of nanoseconds.
const LEAST: f64 = 2.0;
const MOST: f64 = 8.0;

const STYLE: &str = "text{font-family:sans-serif;fill:#222}.title{font-size:21px;font-weight:bold}\
    .text{font-size:14px}.small{font-size:12px;fill:#555}.head{font-size:14px;font-weight:bold}\
    .value{font-size:11px;fill:#333}";

const fn color(storm: Storm) -> &'static str {
    match storm {
        Storm::None => "#777777",
        Storm::Spin => "#b0a030",
        Storm::Map => "#3b7dc4",
        Storm::Protect => "#c8372d",
        Storm::Thread => "#3f9a5a",
    }
}

const fn legend(storm: Storm) -> &'static str {
    match storm {
        Storm::None => "nothing else runs",
        Storm::Spin => "control: a thread that only computes",
        Storm::Map => "a thread maps and unmaps small areas",
        Storm::Protect => "a thread changes the protection of a large area",
        Storm::Thread => "a thread starts threads",
    }
}

/// The picture.
#[must_use]
pub fn svg(report: &Report) -> String {
    let mut picture = Picture { report, body: String::new(), y: 0.0 };
    picture.title();
    picture.legend();
    let (locked, controls): (Vec<_>, Vec<_>) =
        Operation::ALL.into_iter().partition(|operation| !operation.is_control());
    picture.axis(controls.len() + locked.len());
    picture.group("These lock one mapping only", "#eef6ee", &locked);
    picture.group("These still take mmap_lock, which such a thread holds", "#fbeeee", &controls);
    picture.y += 20.0;
    picture.sleep();
    let height = picture.y + 20.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\">\n<style>{STYLE}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{}</svg>\n",
        picture.body
    )
}

struct Picture<'a> {
    report: &'a Report,
    body: String,
    /// Where the next thing is drawn.
    y: f64,
}

impl Picture<'_> {
    fn add(&mut self, element: &str) {
        writeln!(self.body, "{element}").expect("writing to a string");
    }

    fn text(&mut self, class: &str, x: f64, y: f64, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.add(&format!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn title(&mut self) {
        let Report { kernel, processors, options, .. } = self.report;
        let title = if options.what_if_mmap_lock {
            "A model: what if page operations took a lock of the whole process"
        } else {
            "What waits for mmap_lock, and what does not"
        };
        self.text("title", 24.0, 36.0, "start", title);
        let run = format!(
            "Linux {kernel}, {processors} processors, storms of {} thread(s), medians of {} round(s)",
            options.storm_threads, options.rounds
        );
        self.text("small", 24.0, 58.0, "start", &run);
        self.y = 84.0;
    }

    fn legend(&mut self) {
        for nth in 0..self.report.storms.len() {
            let storm = self.report.storms[nth].storm;
            let (x, y) = (24.0 + 440.0 * (nth % 2) as f64, self.y + 20.0 * (nth / 2) as f64);
            let fill = color(storm);
            self.add(&format!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"5\" fill=\"{fill}\"/>",
                x + 5.0,
                y - 4.0
            ));
            self.text("text", x + 18.0, y, "start", legend(storm));
        }
        self.y += 20.0 * self.report.storms.len().div_ceil(2) as f64 + 14.0;
    }

    /// Labels and lines of the axis of time, over `rows` rows and two headings.
    fn axis(&mut self, rows: usize) {
        let heading =
            "Time of one operation: 99 of 100 take less than the dot, the longest the end of the line";
        self.text("head", 24.0, self.y, "start", heading);
        self.y += 26.0;
        let bottom = self.y + rows as f64 * ROW + 60.0;
        for (power, label) in
            [(2, "0.1 µs"), (3, "1 µs"), (4, "10 µs"), (5, "0.1 ms"), (6, "1 ms"), (7, "10 ms"), (8, "0.1 s")]
        {
            let x = place(10_u64.pow(power));
            self.text("small", x, self.y, "middle", label);
            self.add(&format!(
                "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" stroke=\"#dddddd\"/>",
                self.y + 6.0
            ));
        }
        self.y += 12.0;
    }

    fn group(&mut self, heading: &str, fill: &str, operations: &[Operation]) {
        let height = operations.len() as f64 * ROW + 22.0;
        self.add(&format!(
            "<rect x=\"16\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{fill}\" fill-opacity=\"0.6\"/>",
            self.y,
            WIDTH - 32.0
        ));
        self.text("head", 24.0, self.y + 17.0, "start", heading);
        self.y += 24.0;
        for &operation in operations {
            self.text("text", 24.0, self.y + ROW / 2.0, "start", operation.name());
            for nth in 0..self.report.storms.len() {
                self.operation(operation, nth);
            }
            self.y += ROW;
        }
        self.y += 6.0;
    }

    fn operation(&mut self, operation: Operation, nth: usize) {
        let storm = &self.report.storms[nth];
        let Some(probe) = storm.probe(operation) else { return };
        let (latency, fill) = (probe.latency_ns.clone(), color(storm.storm));
        let y = self.y + 8.0 + nth as f64 * LINE;
        let (dot, end) = (place(latency.p99), place(latency.max));
        self.add(&format!(
            "<line x1=\"{dot:.1}\" y1=\"{y:.1}\" x2=\"{end:.1}\" y2=\"{y:.1}\" stroke=\"{fill}\" stroke-opacity=\"0.35\"/>"
        ));
        self.add(&format!("<circle cx=\"{dot:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{fill}\"/>"));
        self.text("value", dot - 9.0, y + 4.0, "end", &Nanoseconds(latency.p99).to_string());
    }

    /// Bars: how much of their time threads slept, in single operations and in compactions.
    fn sleep(&mut self) {
        let heading =
            "Share of the time that threads slept: in these operations, and in compactions of the heap";
        self.text("head", 24.0, self.y, "start", heading);
        self.y += 22.0;
        for operation in Operation::ALL {
            self.bars(operation.name(), |storm| asleep_in(storm.probe(operation)?));
        }
        let modes: Vec<_> = self.report.storms.iter().take(1).flat_map(|storm| &storm.compaction).collect();
        let modes: Vec<_> = modes.iter().map(|mode| mode.of).collect();
        for mode in modes {
            self.bars(&format!("the heap, {mode}"), |storm| {
                asleep(&storm.compaction.iter().find(|rounds| rounds.of == mode)?.median)
            });
        }
        self.pauses();
    }

    /// A bar for each storm.
    fn bars(&mut self, label: &str, share: impl Fn(&StormReport) -> Option<f64>) {
        self.text("text", 24.0, self.y + 14.0, "start", label);
        for nth in 0..self.report.storms.len() {
            let storm = &self.report.storms[nth];
            let (storm, share) = (storm.storm, share(storm));
            self.bar(storm, self.y + nth as f64 * LINE, share);
        }
        self.y += self.report.storms.len() as f64 * LINE + 12.0;
    }

    fn bar(&mut self, storm: Storm, y: f64, share: Option<f64>) {
        let Some(share) = share else { return self.text("value", LEFT, y + 10.0, "start", "not known") };
        let width = (RIGHT - LEFT - 60.0) * share.clamp(0.0, 1.0);
        self.add(&format!(
            "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
            width.max(1.0),
            LINE - 3.0,
            color(storm)
        ));
        self.text("value", LEFT + width + 6.0, y + 9.0, "start", &format!("{:.1} %", 100.0 * share));
    }

    /// What is left: registering and taking still take the lock.
    fn pauses(&mut self) {
        let longest = |storm: &StormReport| {
            storm.compaction.iter().map(|rounds| rounds.median.pause_ns.max).max().unwrap_or(0)
        };
        let of = |storm| self.report.beside(storm).map(longest);
        if let (Some(quiet), Some(storm)) = (of(Storm::None), of(Storm::Protect)) {
            let (quiet, storm) = (Nanoseconds(quiet), Nanoseconds(storm));
            let line = format!(
                "What is left: mremap and UFFDIO_REGISTER take mmap_lock for writing. Longest pause {quiet} -> {storm}."
            );
            self.text("text", 24.0, self.y + 16.0, "start", &line);
            self.y += 24.0;
        }
    }
}

/// Where a time lies on the axis.
fn place(nanoseconds: u64) -> f64 {
    let power = (nanoseconds.max(1) as f64).log10().clamp(LEAST, MOST);
    LEFT + (RIGHT - LEFT) * (power - LEAST) / (MOST - LEAST)
}

/// The share of its time that the prober slept in an operation.
fn asleep_in(probe: &Probe) -> Option<f64> {
    Some(probe.asleep_ns? as f64 / probe.wall_ns.max(1) as f64)
}

/// The share of their time that collector and mutators slept uninterruptibly: by trace events, else as the
/// scheduler counts it.
fn asleep(figures: &Compaction) -> Option<f64> {
    let traced = figures.collector_traced.as_ref().zip(figures.mutators_traced.as_ref());
    let traced = traced.map(|(collector, mutators)| collector.asleep_ns + mutators.asleep_ns);
    let counted = figures.collector.blocked_ns.zip(figures.mutators.blocked_ns);
    let asleep = traced.or(counted.map(|(collector, mutators)| collector + mutators))?;
    Some(asleep as f64 / (figures.collector.wall_ns + figures.mutators.wall_ns).max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_placed_on_the_axis() {
        assert_eq!((place(1), place(100), place(u64::MAX)), (LEFT, LEFT, RIGHT));
        assert!((place(100_000) - (LEFT + RIGHT) / 2.0).abs() < 1e-6);
    }
}
