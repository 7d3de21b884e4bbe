//! A full evacuation of a fragmented heap, beside the floor ([`crate::floor`]) measured in the same
//! run; and what an ordinary cycle copies where most regions are dense.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::{Args, ValueEnum};
use serde::Serialize;
use strikeslip::gc::events::Phase;
use strikeslip::gc::plan::Pressure;
use strikeslip::{Delivery, Heap, Mode};
use strikeslip_demos::noise::{Monitor, Noise};
use strikeslip_demos::units::parse_bytes;

use crate::cli::{Common, HeapKind, heap};
use crate::error::Error;
use crate::floor::{self, Runs};
use crate::fragmented::{Objects, Pattern, Survival, Survivors};
use crate::json::Report;
use crate::measure::recorder::{Cycle, Recorder};
use crate::numbers::{median, mib};
use crate::table::Table;
use crate::warm::warm;

/// Options of the benchmark.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Options {
    /// Bytes of survivors; twice as much is allocated
    #[arg(long, default_value = "1G", value_parser = parse_bytes)]
    pub survivors: u64,
    /// Repetitions of each row, over all rounds
    #[arg(long, default_value_t = 3)]
    pub repetitions: usize,
    /// Kinds of objects
    #[arg(long, value_delimiter = ',', value_enum, default_value = "nodes,scattered,data")]
    pub objects: Vec<Objects>,
    /// Numbers of serving threads
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub workers: Vec<usize>,
    /// Mutator beside
    #[arg(long, value_delimiter = ',', value_enum, default_value = "idle,running")]
    pub mutator: Vec<MutatorKind>,
    /// Mode
    #[arg(long, default_value = "concurrent-move")]
    pub mode: Mode,
    /// Delivery
    #[arg(long, default_value = "inplace")]
    pub delivery: Delivery,
    /// Leave out the dense heap
    #[arg(long)]
    pub no_dense: bool,
    /// Options of all benchmarks
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

/// What a mutator does meanwhile.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MutatorKind {
    /// None is there
    Idle,
    /// One computes, and touches nothing that is missing
    Running,
}

/// A row: one kind of full evacuation.
#[derive(Debug, Serialize)]
struct Row {
    objects: Objects,
    workers: usize,
    mutator: MutatorKind,
    cycles: Vec<Cycle>,
    floor_ns: Vec<u64>,
    noise: Noise,
}

/// A row: an ordinary cycle in a dense heap.
#[derive(Debug, Serialize)]
struct Dense {
    objects: Objects,
    pressure: &'static str,
    cycle: Cycle,
    noise: Noise,
}

#[derive(Debug, Serialize)]
struct Rows {
    full: Vec<Row>,
    dense: Vec<Dense>,
}

/// Most that a full evacuation may take of the floor's time.
const TARGET_RATIO: f64 = 1.5;
/// Share of the live bytes that may be copied where nine of ten regions are dense.
const TARGET_COPIED: f64 = 0.15;
/// Probability of survival in the sparse regions of a dense heap.
const SPARSE: f64 = 0.3;

impl Row {
    fn evacuated(&self) -> f64 {
        median(self.cycles.iter().map(|cycle| cycle.summary.evacuated_bytes as f64))
    }

    fn phase_ms(&self, phase: Phase) -> f64 {
        median(self.cycles.iter().map(|cycle| cycle.phase(phase) as f64 / 1e6))
    }

    fn both_ms(&self) -> f64 {
        median(self.cycles.iter().map(|cycle| cycle.serve_and_reclaim_ns() as f64 / 1e6))
    }

    fn floor_ms(&self) -> f64 {
        median(self.floor_ns.iter().map(|&floor| floor as f64 / 1e6))
    }

    /// Time of steps 7 and 8, of the floor's for as many bytes.
    fn ratio(&self, survivors: u64) -> f64 {
        self.both_ms() / self.floor_ms() * (survivors as f64 / self.evacuated())
    }
}

/// Runs the benchmark and prints its tables.
///
/// # Errors
/// [`Error`].
pub fn run(options: &Options) -> Result<(), Error> {
    if !options.mode.is_concurrent() || options.repetitions == 0 || options.workers.contains(&0) {
        let text = "--mode must be a concurrent one, --repetitions and --workers not 0";
        return Err(Error::Option(text.to_owned()));
    }
    let output = options.common.output()?;
    let full = full(options)?;
    print_full(&full, options);
    let dense = if options.no_dense { vec![] } else { dense(options)? };
    print_dense(&dense);
    Ok(output
        .map_or(Ok(()), |output| output.write(&Report::new("evacuate", options, Rows { full, dense })))?)
}

fn full(options: &Options) -> Result<Vec<Row>, Error> {
    let mut rows = vec![];
    for &objects in &options.objects {
        for &workers in &options.workers {
            let row = |&mutator| Row {
                objects,
                workers,
                mutator,
                cycles: vec![],
                floor_ns: vec![],
                noise: Noise::none(),
            };
            rows.extend(options.mutator.iter().map(row));
        }
    }
    for round in 0..options.repetitions {
        for row in &mut rows {
            options.common.progress(&format!(
                "round {} of {}: {}, {} workers, mutator {:?}",
                round + 1,
                options.repetitions,
                row.objects.name(),
                row.workers,
                row.mutator
            ));
            row.measure(options)?;
        }
    }
    Ok(rows)
}

fn pattern(options: &Options, objects: Objects, survival: Survival) -> Pattern {
    let bytes = match survival {
        Survival::Everywhere(_) => 2 * options.survivors,
        Survival::InStrips { .. } => options.survivors,
    };
    Pattern { objects, survival, bytes, seed: options.common.seed }
}

impl Row {
    fn measure(&mut self, options: &Options) -> Result<(), Error> {
        let pattern = pattern(options, self.objects, Survival::Everywhere(0.5));
        warm(pattern.bytes + pattern.bytes / 2);
        let (cycle, noise) = evacuation(options, pattern, self.workers, self.mutator)?;
        self.cycles.push(cycle);
        let runs = Runs::of(pattern);
        warm(pattern.bytes);
        let monitor = Monitor::start();
        let busy = self.mutator == MutatorKind::Running;
        let floor = floor::measure(&runs, self.workers, busy, !options.common.small_pages)?;
        self.floor_ns.push(u64::try_from(floor.as_nanos()).unwrap_or(u64::MAX));
        self.noise = self.noise.and(noise).and(monitor.finish());
        Ok(())
    }
}

/// Builds a heap, evacuates all of it, checks it. Returns the cycle.
fn evacuation(
    options: &Options,
    pattern: Pattern,
    workers: usize,
    mutator: MutatorKind,
) -> Result<(Cycle, Noise), Error> {
    let (heap, recorder) = heap_for(options, pattern, workers)?;
    let survivors = heap.attach(|m| Survivors::build(m, pattern))??;
    let stop = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        if mutator == MutatorKind::Running {
            scope.spawn(|| {
                heap.attach(|m| {
                    while !stop.load(Ordering::Relaxed) {
                        black_box(());
                        m.safepoint();
                    }
                })
            });
        }
        let result = collect(&heap, &recorder, Pressure::Everything);
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    if !result.0.has_flip() {
        return Err(Error::Nothing("the cycle evacuated nothing".to_owned()));
    }
    heap.attach(|m| survivors.check(m, pattern))??;
    Ok(result)
}

fn heap_for(
    options: &Options,
    pattern: Pattern,
    workers: usize,
) -> Result<(Heap, std::sync::Arc<Recorder>), Error> {
    let (mode, delivery, huge_pages) = (options.mode, Some(options.delivery), !options.common.small_pages);
    heap(HeapKind { limit_bytes: 2 * pattern.bytes + (128 << 20), mode, delivery, workers, huge_pages })
}

/// Runs one cycle.
fn collect(heap: &Heap, recorder: &Recorder, pressure: Pressure) -> Result<(Cycle, Noise), Error> {
    let monitor = Monitor::start();
    heap.collector().collect_with(pressure);
    let noise = monitor.finish();
    let cycle = recorder.cycles().pop();
    let cycle = cycle.ok_or_else(|| Error::Nothing("there was no cycle".to_owned()))?;
    Ok((cycle, noise))
}

fn dense(options: &Options) -> Result<Vec<Dense>, Error> {
    let mut rows = vec![];
    for &objects in &options.objects {
        for (pressure, name) in [(Pressure::Normal, "normal"), (Pressure::High, "high")] {
            options.common.progress(&format!("dense heap, {}, pressure {name}", objects.name()));
            let pattern = pattern(options, objects, Survival::InStrips { one_in: 10, sparse: SPARSE });
            warm(pattern.bytes);
            let (heap, recorder) = heap_for(options, pattern, 0)?;
            let survivors = heap.attach(|m| Survivors::build(m, pattern))??;
            let (cycle, noise) = collect(&heap, &recorder, pressure)?;
            heap.attach(|m| survivors.check(m, pattern))??;
            rows.push(Dense { objects, pressure: name, cycle, noise });
        }
    }
    Ok(rows)
}

fn print_full(rows: &[Row], options: &Options) {
    let mut table = Table::new(&[
        "objects",
        "workers",
        "mutator",
        "n",
        "evacuated MiB",
        "serve ms",
        "reclaim ms",
        "GB/s",
        "floor ms",
        "floor GB/s",
        "ratio",
        "mark ms",
        "plan ms",
        "stopped µs",
        "steal ms",
        "control gap µs",
    ]);
    let floor_bytes = |row: &Row| Runs::of(pattern(options, row.objects, Survival::Everywhere(0.5))).bytes;
    let mut worst: f64 = 0.0;
    for row in rows {
        let survivors = floor_bytes(row);
        let ratio = row.ratio(survivors);
        worst = worst.max(ratio);
        let stopped = median(row.cycles.iter().map(|cycle| cycle.summary.stopped_ns as f64 / 1e3));
        let mut cells = vec![
            row.objects.name().to_owned(),
            row.workers.to_string(),
            format!("{:?}", row.mutator).to_lowercase(),
            row.cycles.len().to_string(),
            format!("{:.0}", mib(row.evacuated() as u64)),
        ];
        cells.push(format!("{:.0}", row.phase_ms(Phase::Serve)));
        cells.push(format!("{:.0}", row.phase_ms(Phase::Reclaim)));
        cells.push(format!("{:.2}", row.evacuated() / row.both_ms() / 1e6));
        cells.push(format!("{:.0}", row.floor_ms()));
        cells.push(format!("{:.2}", survivors as f64 / row.floor_ms() / 1e6));
        cells.push(format!("{ratio:.2}"));
        cells.push(format!("{:.0}", row.phase_ms(Phase::Mark)));
        cells.push(format!("{:.0}", row.phase_ms(Phase::Plan)));
        cells.push(format!("{stopped:.0}"));
        cells.extend(row.noise.cells());
        table.row(cells);
    }
    println!(
        "\nfull evacuation of a heap that is half garbage; floor: gather + MOVE 2 MiB of the same runs\n\n{table}"
    );
    let met = if worst <= TARGET_RATIO { "met" } else { "NOT met" };
    println!("greatest ratio {worst:.2} (target: {TARGET_RATIO}): {met}");
}

fn print_dense(rows: &[Dense]) {
    if rows.is_empty() {
        return;
    }
    let headings = [
        "objects",
        "pressure",
        "live MiB",
        "copied MiB",
        "copied %",
        "regions",
        "free",
        "steal ms",
        "control gap µs",
    ];
    let mut table = Table::new(&headings);
    for row in rows {
        let summary = &row.cycle.summary;
        let mut cells = vec![row.objects.name().to_owned(), row.pressure.to_owned()];
        cells.push(format!("{:.0}", mib(summary.marked_bytes)));
        cells.push(format!("{:.1}", mib(summary.evacuated_bytes)));
        cells.push(format!("{:.1}", copied(row) * 100.0));
        cells.push(summary.regions_evacuated.to_string());
        cells.push(summary.regions_free.to_string());
        cells.extend(row.noise.cells());
        table.row(cells);
    }
    let sparse = SPARSE * 100.0;
    println!("\none cycle of a heap with nine of ten regions dense, the tenth {sparse:.0} % live\n\n{table}");
    let worst = rows.iter().map(copied).fold(0.0, f64::max);
    let met = if worst < TARGET_COPIED { "met" } else { "NOT met" };
    println!(
        "copied at most {:.1} % of live (target: below {:.0}): {met}",
        worst * 100.0,
        TARGET_COPIED * 100.0
    );
}

fn copied(row: &Dense) -> f64 {
    row.cycle.summary.evacuated_bytes as f64 / row.cycle.summary.marked_bytes as f64
}
