//! The pictures of one workload at one pace.

use std::fmt::Write as _;

use strikeslip::Mode;

use super::super::summary::all_overheads;
use super::super::svg::{Axis, Plot, Scale, escape};
use super::{Group, class, collector};
use crate::measure::distribution::Distribution;
use crate::numbers::mib;
use crate::run::history::{Bin, History};
use crate::run::result::Run;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const WIDE: f64 = 1150.0;

/// All pictures with their titles: of the groups `shown`; the one of overheads by heap size of all.
pub(super) fn all(groups: &[Group<'_>], shown: &[Group<'_>]) -> Vec<(String, String)> {
    let mut pictures = vec![];
    let mut add = |title: &str, picture: Option<String>| {
        pictures.extend(picture.map(|picture| (title.to_owned(), picture)));
    };
    add("Pauses by percentile", percentiles(shown, |run| &run.pauses_ns));
    add("Latency of operations by percentile", percentiles(shown, |run| &run.latency_ns));
    add("Faults of mutators by percentile", percentiles(shown, |run| &run.fault_ns));
    add("Mutator utilisation: least of all windows of a length", utilisation(shown));
    add("Memory of the process over time", memory(shown));
    add("Processor time by heap size, lower bound of overhead", by_heap(groups));
    for group in shown.iter().filter(|group| group.case.mode != Mode::NoGc) {
        let title = format!("One run of {}: cycles, faults, longest operations", collector(group.case));
        add(&title, Some(timeline(group)));
    }
    pictures
}

/// Nanoseconds, for axes.
fn duration(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{} {unit}", (value * 100.0).round() / 100.0)
}

fn share(value: f64) -> String {
    format!("{} %", (value * 1e6).round() / 1e4)
}

fn percentiles(shown: &[Group<'_>], of: fn(&Run) -> &Distribution) -> Option<String> {
    let control =
        Distribution::merged(shown.iter().flat_map(|group| &group.runs).map(|run| &run.noise.control_ns));
    let all: Vec<_> =
        shown.iter().map(|group| (group, group.merged(of))).filter(|(_, of)| of.count > 0).collect();
    let most = all.iter().map(|(_, of)| of.max).max()?;
    let least = all.iter().map(|(_, of)| of.at(0.0)).min()?;
    let nines = all.iter().map(|(_, of)| (of.count as f64).log10()).fold(1.0, f64::max).ceil();
    let x = Axis { scale: Scale::Nines(nines), label: "share of all", format: share };
    let scale = Scale::log_around(least as f64, most.max(control.max) as f64);
    let mut plot = Plot::new(WIDTH, HEIGHT, x, Axis { scale, label: "", format: duration });
    plot.line("control", "control thread", steps(&control));
    for (group, of) in &all {
        let title =
            format!("{}: {} in all, longest {}", collector(group.case), of.count, duration(of.max as f64));
        plot.line(class(group.case), &title, steps(of));
    }
    Some(plot.finish())
}

/// The curve of a distribution: at each share, the value that it does not exceed.
fn steps(of: &Distribution) -> Vec<(f64, f64)> {
    let mut seen = 0;
    let mut points = vec![];
    for &(value, count) in &of.buckets {
        let value = value.min(of.max) as f64;
        points.push((seen as f64 / of.count as f64, value));
        seen += count;
        points.push((seen as f64 / of.count as f64, value));
    }
    points
}

fn utilisation(shown: &[Group<'_>]) -> Option<String> {
    let collecting: Vec<_> = shown.iter().filter(|group| group.case.mode != Mode::NoGc).collect();
    let longest = collecting
        .iter()
        .filter_map(|group| group.typical().utilisation.last())
        .map(|point| point.window_ns)
        .max()?;
    let x = Axis {
        scale: Scale::log_around(1e5, longest as f64),
        label: "length of the window",
        format: duration,
    };
    let y = Axis { scale: Scale::Linear(1.0), label: "", format: share };
    let mut plot = Plot::new(WIDTH, HEIGHT, x, y);
    for group in collecting {
        let points = &group.typical().utilisation;
        let at = |nth: usize, value: f64| (points[nth].window_ns as f64, value);
        let title = collector(group.case);
        let thin = format!("thin {}", class(group.case));
        plot.line(
            &thin,
            &format!("{title}: minimum"),
            (0..points.len()).map(|nth| at(nth, points[nth].minimum)),
        );
        plot.line(
            class(group.case),
            &format!("{title}: bounded"),
            (0..points.len()).map(|nth| at(nth, points[nth].bounded)),
        );
    }
    Some(plot.finish())
}

fn memory(shown: &[Group<'_>]) -> Option<String> {
    let runs: Vec<_> = shown.iter().map(|group| (group, group.typical())).collect();
    let collecting = || runs.iter().filter(|(group, _)| group.case.mode != Mode::NoGc);
    let samples = || collecting().flat_map(|(_, run)| &run.memory);
    let seconds = samples().map(|sample| sample.at_ns).max()? as f64 / 1e9;
    let most = samples().map(|sample| sample.resident).max()?;
    let x = Axis {
        scale: Scale::Linear(seconds),
        label: "s",
        format: |value| format!("{}", (value * 100.0).round() / 100.0),
    };
    let y =
        Axis { scale: Scale::Linear(mib(most) * 1.05), label: "MiB", format: |value| format!("{value:.0}") };
    let mut plot = Plot::new(WIDTH, HEIGHT, x, y);
    for (group, run) in collecting() {
        let points = run.memory.iter().map(|sample| (sample.at_ns as f64 / 1e9, mib(sample.resident)));
        plot.line(class(group.case), &format!("{}: resident", collector(group.case)), points);
    }
    let limit = mib(collecting().next()?.1.heap_bytes);
    plot.line("limit", &format!("the heap's limit: {limit:.0} MiB"), [(0.0, limit), (seconds, limit)]);
    Some(plot.finish())
}

/// Only where there are several heap sizes.
fn by_heap(groups: &[Group<'_>]) -> Option<String> {
    let overheads = all_overheads(groups);
    let points: Vec<_> = groups
        .iter()
        .zip(overheads)
        .filter_map(|(group, overhead)| Some((group, group.case.factor?, overhead.processor)))
        .collect();
    let most = points.iter().map(|&(_, factor, _)| factor).fold(0.0, f64::max);
    if points.iter().all(|&(_, factor, _)| factor == most) {
        return None;
    }
    let highest = points.iter().map(|&(.., overhead)| overhead).fold(1.0, f64::max);
    let x = Axis {
        scale: Scale::Linear(most * 1.05),
        label: "heap, multiples of live data",
        format: |value| value.to_string(),
    };
    let y = Axis {
        scale: Scale::Linear(highest * 1.1),
        label: "multiples of the baseline",
        format: |value| format!("{value:.1}"),
    };
    let mut plot = Plot::new(WIDTH, HEIGHT, x, y);
    let mut drawn = vec![];
    for (group, ..) in &points {
        let name = collector(group.case);
        if drawn.contains(&name) {
            continue;
        }
        let mut mine: Vec<_> = points.iter().filter(|(other, ..)| collector(other.case) == name).collect();
        mine.sort_by(|a, b| a.1.total_cmp(&b.1));
        plot.line(class(group.case), &name, mine.iter().map(|&&(_, factor, overhead)| (factor, overhead)));
        for &&(_, factor, overhead) in &mine {
            plot.dot(class(group.case), &format!("{name}, {factor} ×: {overhead:.2}"), (factor, overhead));
        }
        drawn.push(name);
    }
    Some(plot.finish())
}

/// Rows of the timeline: top and height.
const CYCLES: (f64, f64) = (8.0, 26.0);
const FAULTS: (f64, f64) = (48.0, 60.0);
const OPERATIONS: (f64, f64) = (122.0, 80.0);
const TIMELINE_HEIGHT: f64 = 240.0;
const LEFT: f64 = 150.0;

/// Cycles with their phases, time in faults, and the longest operation, over a run.
fn timeline(group: &Group<'_>) -> String {
    let run = group.typical();
    let history = &run.history;
    let length = run.wall_seconds * 1e9;
    let x = |ns: f64| LEFT + (ns / length).clamp(0.0, 1.0) * (WIDE - LEFT - 14.0);
    let mut svg = format!(r#"<svg class="wide" viewBox="0 0 {WIDE} {TIMELINE_HEIGHT}" role="img">"#);
    let step = ten_parts(length);
    for tick in (0..=(length / step) as u32).map(|nth| f64::from(nth) * step) {
        let at = x(tick);
        // Writing to a string does not fail.
        let _ = write!(
            svg,
            r#"<path class="grid" d="M{at:.1} 4V206"/><text class="tick" x="{at:.1}" y="222" text-anchor="middle">{}</text>"#,
            duration(tick)
        );
    }
    cycles(&mut svg, history, x);
    bins(&mut svg, ("time in faults", FAULTS), (&history.faults, history.bin_ns), x, |bin| bin.total_ns);
    let operations = (&history.operations[..], history.bin_ns);
    bins(&mut svg, ("longest operation", OPERATIONS), operations, x, |bin| bin.longest_ns);
    let keys =
        [("mark", "marking"), ("plan", "planning"), ("flip", "pause"), ("serve", "serving, reclaiming")];
    for (nth, (class, text)) in keys.iter().enumerate() {
        let left = LEFT + 110.0 * nth as f64;
        let _ = write!(
            svg,
            r#"<rect class="bar {class}" x="{left}" y="229" width="9" height="9"/><text class="key" x="{}" y="237">{text}</text>"#,
            left + 14.0
        );
    }
    svg + "</svg>"
}

/// A step of 1, 2 or 5 times a power of ten that makes about ten parts.
fn ten_parts(length: f64) -> f64 {
    let power = 10_f64.powf((length / 10.0).max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| length / step <= 10.0)
        .unwrap_or(power)
}

fn cycles(svg: &mut String, history: &History, x: impl Fn(f64) -> f64) {
    let (top, height) = CYCLES;
    let _ = write!(
        svg,
        r#"<text class="row" x="{}" y="{}" text-anchor="end">cycles</text>"#,
        LEFT - 10.0,
        top + height / 2.0 + 4.0
    );
    let mut rect = |class: &str, title: &str, begin: u64, length: u64, inset: f64| {
        let (left, right) = (x(begin as f64), x((begin + length) as f64));
        let _ = write!(
            svg,
            r#"<rect class="bar {class}" x="{left:.1}" y="{:.1}" width="{:.1}" height="{:.1}"><title>{}</title></rect>"#,
            top + inset,
            (right - left).max(0.8),
            height - 2.0 * inset,
            escape(title),
        );
    };
    for (nth, cycle) in history.cycles.iter().enumerate() {
        for (phase, begin, length) in &cycle.phases {
            let class = match phase.as_str() {
                "Start" | "Mark" | "Weak" => "mark",
                "Plan" => "plan",
                "Flip" => continue,
                _ => "serve",
            };
            let title = format!("cycle {nth}, {phase}: {}", duration(*length as f64));
            rect(class, &title, *begin, *length, 4.0);
        }
    }
    // On top of all others: they are short.
    for &(end, length) in &history.pauses {
        rect("flip", &format!("pause: {}", duration(length as f64)), end.saturating_sub(length), length, 0.0);
    }
}

fn bins(
    svg: &mut String,
    (name, (top, height)): (&str, (f64, f64)),
    (bins, bin_ns): (&[Bin], u64),
    x: impl Fn(f64) -> f64,
    value: fn(&Bin) -> u64,
) {
    let most = bins.iter().map(value).max().unwrap_or(0);
    let middle = top + height / 2.0;
    let _ = write!(
        svg,
        r#"<text class="row" x="{0}" y="{1}" text-anchor="end">{name}</text>"#,
        LEFT - 10.0,
        middle
    );
    let _ = write!(
        svg,
        r#"<text class="key" x="{0}" y="{1}" text-anchor="end">most: {2}</text>"#,
        LEFT - 10.0,
        middle + 15.0,
        duration(most as f64)
    );
    let _ = write!(svg, r#"<path class="grid" d="M{LEFT} {0}H{1}"/>"#, top + height, WIDE - 14.0);
    for bin in bins {
        let (left, right) = (x((bin.nth * bin_ns) as f64), x(((bin.nth + 1) * bin_ns) as f64));
        let high = (value(bin) as f64 / most.max(1) as f64 * height).max(0.6);
        let title = format!(
            "{} in {}: {} in all, longest {}",
            bin.count,
            duration(bin_ns as f64),
            duration(bin.total_ns as f64),
            duration(bin.longest_ns as f64)
        );
        let _ = write!(
            svg,
            r#"<rect class="bar mark" x="{left:.1}" y="{:.1}" width="{:.1}" height="{high:.1}"><title>{}</title></rect>"#,
            top + height - high,
            (right - left).max(0.8),
            escape(&title),
        );
    }
}
