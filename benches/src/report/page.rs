//! The report as one self-contained HTML page: pictures as inline SVG, tables, a style sheet, no scripts.

mod pictures;

use std::fmt::Write as _;

use strikeslip::{Delivery, Mode};

use super::summary::{all_overheads, machine, spread};
use super::svg::escape;
use super::{Group, Report};
use crate::measure::distribution::Distribution;
use crate::numbers::{Summary, mib};
use crate::run::result::{Case, Run};

/// The heap that pictures show, where there are several: the one nearest to this, in multiples of live data.
const SHOWN_FACTOR: f64 = 2.0;

/// Makes the page.
#[must_use]
pub fn page(report: &Report) -> String {
    let groups = report.groups();
    let mut body = String::new();
    // Writing to a string does not fail.
    let _ = write!(body, "<header><h1>Strikeslip: benchmark report</h1><p>{}</p>", escape(&machine(report)));
    let _ = write!(
        body,
        "<p class=\"command\"><code>strikeslip-bench {}</code></p></header>",
        escape(&report.command.join(" "))
    );
    body += include_str!("page/introduction.html");
    for subject in subjects(&groups) {
        section(&mut body, report, &subject);
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Strikeslip: benchmark report</title><style>{}</style></head><body>{body}</body></html>\n",
        include_str!("page/style.css")
    )
}

/// Groups of the same workload at the same pace.
fn subjects<'a>(groups: &[Group<'a>]) -> Vec<Vec<Group<'a>>> {
    let mut all: Vec<Vec<Group<'a>>> = vec![];
    for group in groups {
        let same = |other: &&mut Vec<Group<'a>>| {
            other[0].case.workload == group.case.workload
                && other[0].case.interval_ns == group.case.interval_ns
        };
        match all.iter_mut().find(same) {
            Some(subject) => subject.push(group.clone()),
            None => all.push(vec![group.clone()]),
        }
    }
    all
}

/// Class of the colour of a case: one for each mode and delivery.
fn class(case: &Case) -> &'static str {
    match (case.mode, case.delivery) {
        (Mode::ConcurrentMove, Some(Delivery::Pool)) => "move-pool",
        (Mode::ConcurrentMove, _) => "move-inplace",
        (Mode::ConcurrentCopy, Some(Delivery::Pool)) => "copy-pool",
        (Mode::ConcurrentCopy, _) => "copy-inplace",
        (Mode::StopTheWorld, _) => "stop-the-world",
        (Mode::NoGc, _) => "no-gc",
    }
}

/// Mode and delivery.
fn collector(case: &Case) -> String {
    case.delivery.map_or_else(|| case.mode.to_string(), |delivery| format!("{} · {delivery}", case.mode))
}

fn section(body: &mut String, report: &Report, groups: &[Group<'_>]) {
    let case = groups[0].case;
    let pace = match case.interval_ns {
        0 => "flat out".to_owned(),
        interval => format!("paced, an operation every {} µs", interval as f64 / 1e3),
    };
    let name = case.workload.name();
    let _ = write!(body, "<section id=\"{name}-{}\"><h2>{name} <small>{pace}</small></h2>", case.interval_ns);
    let live = groups.iter().find_map(|group| group.runs[0].live_bytes);
    let checksum = groups[0].runs[0].checksum.as_str();
    let agree = report.runs.iter().filter(|run| run.checksum == checksum).count();
    let _ = write!(body, "<p>{}. ", escape(case.workload.describe()));
    if let Some(live) = live {
        let _ = write!(body, "{:.0} MiB are live when most is. ", mib(live));
    }
    let _ = write!(body, "Checksum <code>{checksum}</code> in all {agree} runs of this work.</p>");
    throughput_table(body, groups);
    pauses_table(body, groups);
    latency_table(body, groups);
    let shown = shown(groups);
    if let Some(factor) = shown[0].case.factor.filter(|_| groups.len() > shown.len()) {
        let _ = write!(body, "<p class=\"note\">Pictures: heap of {factor} × live.</p>");
    }
    legend(body, &shown);
    body.push_str("<div class=\"figures\">");
    for (title, picture) in pictures::all(groups, &shown) {
        let _ = write!(body, "<figure><figcaption>{}</figcaption>{picture}</figure>", escape(&title));
    }
    body.push_str("</div></section>");
}

/// The groups that pictures show: of the heap size nearest to [`SHOWN_FACTOR`], and those without one.
fn shown<'a>(groups: &[Group<'a>]) -> Vec<Group<'a>> {
    let distance = |factor: f64| (factor - SHOWN_FACTOR).abs();
    let nearest = groups
        .iter()
        .filter_map(|group| group.case.factor)
        .min_by(|a, b| distance(*a).total_cmp(&distance(*b)));
    groups
        .iter()
        .filter(|group| group.case.factor.is_none() || group.case.factor == nearest)
        .cloned()
        .collect()
}

fn legend(body: &mut String, shown: &[Group<'_>]) {
    body.push_str("<ul class=\"legend\">");
    for group in shown {
        let _ = write!(body, "<li class=\"{}\">{}</li>", class(group.case), escape(&collector(group.case)));
    }
    body.push_str("<li class=\"control\">control thread (attached to no heap)</li></ul>");
}

fn throughput_table(body: &mut String, groups: &[Group<'_>]) {
    let mut table = Html::new(&[
        "",
        "heap",
        "wall s",
        "",
        "processor s",
        "mutator",
        "collector",
        "k op/s",
        "overhead: wall",
        "processor",
        "peak RSS MiB",
    ]);
    for (group, overhead) in groups.iter().zip(all_overheads(groups)) {
        let wall = group.summary(|run| run.wall_seconds);
        let seconds = |value: fn(&Run) -> u64| format!("{:.2}", group.median(|run| value(run) as f64 / 1e9));
        table.row(
            group.case,
            vec![
                heap(group),
                format!("{:.3}", wall.p50),
                spread(wall),
                format!("{:.3}", group.median(|run| run.processor_seconds)),
                seconds(|run| run.processor.mutator_ns),
                seconds(|run| run.processor.collector_ns),
                format!("{:.0}", group.median(|run| run.operations as f64 / run.wall_seconds / 1e3)),
                format!("{:.2}", overhead.wall),
                format!("{:.2}", overhead.processor),
                format!("{:.0}", group.median(|run| mib(run.peak_rss_bytes))),
            ],
        );
    }
    table.finish(body, "Throughput, processor time and memory (medians)");
}

fn pauses_table(body: &mut String, groups: &[Group<'_>]) {
    let mut table = Html::new(&[
        "",
        "heap",
        "cycles",
        "young",
        "pause p50",
        "p99",
        "max",
        "of runs",
        "faults",
        "fault p50",
        "p99",
        "max",
        "memory waits",
        "after flip 1 ms",
        "5 ms",
        "20 ms",
        "control max",
    ]);
    for group in groups.iter().filter(|group| group.case.mode != Mode::NoGc) {
        let after = |nth: usize| {
            let share = group.median(|run| run.after_flip.get(nth).map_or(1.0, |after| after.median));
            format!("{:.0} %", share * 100.0)
        };
        let most = group.summary(|run| run.pauses_ns.max as f64);
        let count = |value: fn(&Run) -> u64| format!("{:.0}", group.median(|run| value(run) as f64));
        let mut cells = vec![heap(group), count(|run| run.cycles), count(|run| run.young_cycles)];
        cells.extend(durations(&group.merged(|run| &run.pauses_ns)));
        cells.push(range(most));
        cells.push(count(|run| run.faults));
        cells.extend(durations(&group.merged(|run| &run.fault_ns)));
        cells.push(duration(group.median(|run| run.memory_wait_ns.sum as f64) as u64));
        cells.extend([after(0), after(1), after(2)]);
        cells.push(duration(group.merged(|run| &run.noise.control_ns).max));
        table.row(group.case, cells);
    }
    table.finish(body, "Pauses, faults, waits for memory in a run, utilisation after the flip");
}

fn latency_table(body: &mut String, groups: &[Group<'_>]) {
    if groups.iter().all(|group| group.runs[0].latency_ns.count == 0) {
        return;
    }
    let mut table = Html::new(&[
        "",
        "heap",
        "p50",
        "p99",
        "p99.9",
        "max",
        "of runs",
        "metered 100 ms p99.9",
        "max",
        "metered, all p99.9",
        "max",
    ]);
    for group in groups {
        let latency = group.merged(|run| &run.latency_ns);
        let mut cells = vec![heap(group)];
        cells.extend([latency.p50, latency.p99, latency.p999, latency.max].map(duration));
        cells.push(range(group.summary(|run| run.latency_ns.max as f64)));
        for nth in 0..2 {
            let metered = group.merged(|run| &run.metered_ns[nth]);
            cells.extend([metered.p999, metered.max].map(duration));
        }
        table.row(group.case, cells);
    }
    table.finish(body, "Latency of operations");
}

/// Nanoseconds with three digits and the unit that suits.
fn duration(nanoseconds: u64) -> String {
    let (value, unit) = match nanoseconds as f64 {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

fn heap(group: &Group<'_>) -> String {
    let bytes = format!("{:.0} MiB", mib(group.runs[0].heap_bytes));
    group.case.factor.map_or_else(|| bytes.clone(), |factor| format!("{factor} × ({bytes})"))
}

fn durations(of: &Distribution) -> [String; 3] {
    match of.count {
        0 => std::array::from_fn(|_| "–".to_owned()),
        _ => [of.p50, of.p99, of.max].map(duration),
    }
}

/// The least and the greatest of all runs.
fn range(of: Summary) -> String {
    match of.count {
        0 | 1 => String::new(),
        _ => format!("{} … {}", duration(of.min as u64), duration(of.max as u64)),
    }
}

/// A table in the making.
struct Html {
    columns: usize,
    text: String,
}

impl Html {
    fn new(headings: &[&str]) -> Self {
        let cells: String = headings.iter().map(|heading| format!("<th>{heading}</th>")).collect();
        Self { columns: headings.len(), text: format!("<tr>{cells}</tr>") }
    }

    fn row(&mut self, case: &Case, cells: Vec<String>) {
        debug_assert_eq!(self.columns, cells.len() + 1);
        let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell))).collect();
        let _ = write!(
            self.text,
            "<tr><th class=\"{}\">{}</th>{cells}</tr>",
            class(case),
            escape(&collector(case))
        );
    }

    fn finish(self, body: &mut String, title: &str) {
        let _ =
            write!(body, "<div class=\"table\"><table><caption>{title}</caption>{}</table></div>", self.text);
    }
}
