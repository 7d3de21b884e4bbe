//! Tables of what was measured: one for each workload with the peers in its rows, and one of the medians with
//! the peers in its columns. Each as text and as Markdown.

use super::measured::{Durations, Measured};
use super::peer::Peer;
use super::work::Work;
use super::{Cell, Results};
use crate::numbers::{Summary, mib};
use crate::table::Table;

/// A table, the headings first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grid(Vec<Vec<String>>);

impl Grid {
    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let headings: Vec<_> = self.0[0].iter().map(String::as_str).collect();
        let mut table = Table::new(&headings);
        self.0[1..].iter().for_each(|row| table.row(row.iter().cloned()));
        table.to_string()
    }

    /// As Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.0[0].len()));
        std::iter::once(line(&self.0[0])).chain([rule]).chain(self.0[1..].iter().map(line)).collect()
    }
}

const NOTHING: &str = "–";

impl Cell {
    fn median(&self, value: impl Fn(&Measured) -> f64) -> f64 {
        Summary::of(self.runs.iter().map(value)).p50
    }

    /// Difference of the slowest and the fastest run, by the median.
    fn spread(&self) -> f64 {
        let wall = Summary::of(self.runs.iter().map(|run| run.wall_seconds));
        (wall.max - wall.min) / wall.p50
    }

    /// Medians of some durations, in milliseconds.
    fn millis(&self, durations: impl Fn(&Measured) -> Option<Durations>, parts: &[Part]) -> String {
        if self.runs.is_empty() || self.runs.iter().any(|run| durations(run).is_none()) {
            return NOTHING.to_owned();
        }
        let part = |part: &Part| {
            significant(
                self.median(|run| durations(run).map_or(0.0, |durations| part(&durations) as f64 / 1e6)),
            )
        };
        parts.iter().map(part).collect::<Vec<_>>().join(" / ")
    }

    fn rate(&self) -> String {
        significant(self.median(|run| run.operations as f64 / run.wall_seconds / 1e3))
    }

    /// What its text is where it ran; why there is none where it failed.
    fn text(&self, text: impl Fn(&Self) -> String) -> String {
        match &self.failure {
            Some(_) if self.runs.is_empty() => "failed".to_owned(),
            _ if self.runs.is_empty() => NOTHING.to_owned(),
            _ => text(self),
        }
    }
}

/// A part of a summary.
type Part = fn(&Durations) -> u64;

const P50: Part = |durations| durations.p50;
const P99: Part = |durations| durations.p99;
const P999: Part = |durations| durations.p999;
const MAX: Part = |durations| durations.max;

/// Three digits that count, at most three behind the point.
fn significant(value: f64) -> String {
    match value {
        value if value >= 99.5 => format!("{value:.0}"),
        value if value >= 9.95 => format!("{value:.1}"),
        value if value >= 0.995 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

/// All that was measured of a workload.
#[must_use]
pub fn of_work(results: &Results, work: Work) -> Grid {
    let mut rows = vec![
        [
            "collector",
            "wall s",
            "spread %",
            "processor s",
            "k op/s",
            "stops",
            "stop p50 / p99 / max, ms",
            "latency p50 / p99 / p99.9 / max, ms",
            "metered p99 / p99.9 / max, ms",
            "waits for memory",
            "longest, ms",
            "peak MiB",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for cell in results.cells.iter().filter(|cell| cell.work == work) {
        let name = cell.peer.name().to_owned();
        if cell.runs.is_empty() {
            rows.push(vec![name, cell.failure.clone().unwrap_or_default()]);
            continue;
        }
        let count = |durations: Option<Durations>| durations.map_or(0.0, |durations| durations.count as f64);
        rows.push(vec![
            name,
            significant(cell.median(|run| run.wall_seconds)),
            format!("{:.0}", cell.spread() * 100.0),
            significant(cell.median(|run| run.processor_seconds)),
            cell.rate(),
            format!("{:.0}", cell.median(|run| count(run.pauses_ns))),
            cell.millis(|run| run.pauses_ns, &[P50, P99, MAX]),
            cell.millis(|run| run.latency_ns, &[P50, P99, P999, MAX]),
            cell.millis(|run| run.metered_ns, &[P99, P999, MAX]),
            format!("{:.0}", cell.median(|run| count(run.memory_waits_ns))),
            cell.millis(|run| run.memory_waits_ns, &[MAX]),
            format!("{:.0}", mib(cell.median(|run| run.peak_rss_bytes as f64) as u64)),
        ]);
    }
    Grid(rows)
}

/// A row of the table of medians: its name, its workload, and what it shows.
type Row = (&'static str, Work, fn(&Cell) -> String);

const ROWS: [Row; 11] = [
    ("stops of the world on the graph, p50 / p99 / max, ms", Work::Graph, |cell| {
        cell.millis(|run| run.pauses_ns, &[P50, P99, MAX])
    }),
    ("binary trees, wall / processor s", Work::Trees, seconds),
    ("GCBench, wall / processor s", Work::Gcbench, seconds),
    ("window, k pushes/s", Work::Lru, Cell::rate),
    ("window, latency p99.9 / max, ms", Work::Lru, |cell| cell.millis(|run| run.latency_ns, &[P999, MAX])),
    ("window paced, p99 / p99.9 / max, ms", Work::LruPaced, |cell| {
        cell.millis(|run| run.latency_ns, &[P99, P999, MAX])
    }),
    ("graph, k op/s", Work::Graph, Cell::rate),
    ("graph, wall / processor s", Work::Graph, seconds),
    ("graph, metered p99.9 / max, ms", Work::Graph, |cell| cell.millis(|run| run.metered_ns, &[P999, MAX])),
    ("graph paced, p99 / p99.9 / max, ms", Work::GraphPaced, |cell| {
        cell.millis(|run| run.latency_ns, &[P99, P999, MAX])
    }),
    ("graph paced, wall / processor s", Work::GraphPaced, seconds),
];

fn seconds(cell: &Cell) -> String {
    let median = |value: fn(&Measured) -> f64| significant(cell.median(value));
    format!("{} / {}", median(|run| run.wall_seconds), median(|run| run.processor_seconds))
}

/// The medians, with a column for each peer.
#[must_use]
pub fn medians(results: &Results) -> Grid {
    let mut peers: Vec<Peer> = vec![];
    for cell in &results.cells {
        if !peers.contains(&cell.peer) {
            peers.push(cell.peer);
        }
    }
    let heading = std::iter::once("work").chain(peers.iter().map(|peer| peer.name()));
    let mut rows = vec![heading.map(str::to_owned).collect::<Vec<_>>()];
    for (name, work, text) in ROWS {
        if !results.cells.iter().any(|cell| cell.work == work) {
            continue;
        }
        let cell = |&peer: &Peer| {
            let cell = results.cells.iter().find(|cell| cell.peer == peer && cell.work == work);
            cell.map_or(NOTHING.to_owned(), |cell| cell.text(text))
        };
        rows.push(std::iter::once(name.to_owned()).chain(peers.iter().map(cell)).collect());
    }
    Grid(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_shown_as_markdown() {
        let grid = Grid(vec![vec!["a".to_owned(), "b".to_owned()], vec!["1".to_owned(), "2".to_owned()]]);
        assert_eq!(grid.markdown(), "| a | b |\n|---|---|\n| 1 | 2 |\n");
    }

    #[test]
    fn figures_have_three_digits() {
        let texts = [0.0123, 0.9999, 1.234, 12.34, 99.96, 1234.5].map(significant);
        assert_eq!(texts, ["0.012", "1.00", "1.23", "12.3", "100", "1234"]);
    }
}
