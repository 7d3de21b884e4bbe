//! The brown-out: how fast a mutator is in the first milliseconds after the flip, when it touches the
//! whole live set at random. It is the worst case, for it soon wants whatever is missing.
//!
//! Three kinds of cycles, of which the third is what a collector that takes everything does every time:
//! survivors only (no slot to rewrite outside of what is evacuated), a few regions with slots to be
//! rewritten, and slots in all regions. Speeds are relative to the same mutator's before the cycle
//! (nothing runs but it) and before the flip (marking runs beside it).

mod work;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use strikeslip::{Delivery, Heap, Mode};
use strikeslip_demos::noise::{Monitor, Noise};
use strikeslip_demos::units::parse_bytes;

use self::work::{Command, Task, work};
use crate::cli::{Common, HeapKind, heap};
use crate::error::Error;
use crate::json::Report;
use crate::measure::recorder::{Cycle, Recorder};
use crate::numbers::{Summary, median};
use crate::table::Table;
use crate::timeline::Timeline;
use crate::warm::warm;

/// Options of the benchmark.
#[derive(Clone, Debug, Args, Serialize)]
pub struct Options {
    /// Cycles of each row
    #[arg(long, default_value_t = 20)]
    pub cycles: usize,
    /// Bytes of the live set
    #[arg(long, default_value = "256M", value_parser = parse_bytes)]
    pub live: u64,
    /// Bytes of survivors in each cycle
    #[arg(long, default_value = "8M", value_parser = parse_bytes)]
    pub survivors: u64,
    /// Kinds of cycles
    #[arg(
        long,
        value_delimiter = ',',
        value_enum,
        default_value = "survivors,few-slots,few-regions,all-regions"
    )]
    pub kinds: Vec<Kind>,
    /// Deliveries
    #[arg(long, value_delimiter = ',', default_value = "inplace,pool")]
    pub deliveries: Vec<Delivery>,
    /// Mode
    #[arg(long, default_value = "concurrent-move")]
    pub mode: Mode,
    /// Serving threads; 0: as many as processors
    #[arg(long, default_value_t = 0)]
    pub workers: usize,
    /// Options of all benchmarks
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

/// Which slots refer to survivors, besides those of other survivors and of roots.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// None
    Survivors,
    /// A hundred in four regions, few enough to be patched in the pause
    FewSlots,
    /// All links of about eight regions, too many to be patched in the pause
    FewRegions,
    /// All links of all regions
    AllRegions,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Survivors => "survivors only",
            Self::FewSlots => "few slots",
            Self::FewRegions => "few regions",
            Self::AllRegions => "all regions",
        })
    }
}

/// Times after the flip, in milliseconds, that speeds are given for.
const AFTER_MS: [u64; 3] = [1, 5, 20];
/// Time before the flip or the cycle that they are relative to.
const BEFORE_MS: u64 = 20;
const MS: u64 = 1_000_000;
/// Cycles before the measured ones: they settle what was built.
const WARM_UP: usize = 3;

/// What was measured in one cycle.
#[derive(Clone, Debug, Serialize)]
struct Sample {
    /// Operations per millisecond before the cycle.
    normal: f64,
    /// Speeds after the flip, relative to the time before the cycle.
    after: [f64; AFTER_MS.len()],
    /// Relative to the time before the flip.
    after_to_marking: [f64; AFTER_MS.len()],
    /// Longest time without progress in the first 20 ms after the stop was requested.
    longest_gap_us: f64,
    faults: u64,
    cycle: Cycle,
}

/// A row of the table.
#[derive(Debug, Serialize)]
struct Row {
    kind: Kind,
    delivery: Delivery,
    samples: Vec<Sample>,
    without_flip: usize,
    noise: Noise,
}

/// Runs the benchmark and prints its table.
///
/// # Errors
/// [`Error`].
pub fn run(options: &Options) -> Result<(), Error> {
    if !options.mode.is_concurrent() || options.cycles == 0 {
        return Err(Error::Option("--mode must be a concurrent one, and --cycles not 0".to_owned()));
    }
    let output = options.common.output()?;
    let mut rows = vec![];
    for &delivery in &options.deliveries {
        for &kind in &options.kinds {
            options.common.progress(&format!("{kind}, {delivery}"));
            rows.push(measure(options, kind, delivery)?);
        }
    }
    print(&rows);
    Ok(output.map_or(Ok(()), |output| output.write(&Report::new("brownout", options, rows)))?)
}

fn measure(options: &Options, kind: Kind, delivery: Delivery) -> Result<Row, Error> {
    let limit_bytes = options.live + options.live / 2 + 24 * options.survivors + (128 << 20);
    warm(limit_bytes);
    let (mode, workers, huge_pages) = (options.mode, options.workers, !options.common.small_pages);
    let kind_of_heap = HeapKind { limit_bytes, mode, delivery: Some(delivery), workers, huge_pages };
    let (heap, recorder) = heap(kind_of_heap)?;
    let (to_mutator, commands) = sync_channel(0);
    let (answers, from_mutator) = sync_channel(0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (heap, recorder, stop) = (&heap, &recorder, &stop);
        let mutator = scope.spawn(move || {
            let task = Task {
                live: options.live,
                survivors: options.survivors,
                kind,
                seed: options.common.seed,
                epoch: recorder.epoch(),
                stop,
                commands,
                answers,
            };
            heap.attach(|m| work(m, &task))?
        });
        let driver = Driver { heap, recorder, stop, commands: to_mutator, answers: from_mutator };
        let row = driver.row(options, kind, delivery);
        // Without its channel, the mutator ends.
        drop(driver);
        stop.store(true, Ordering::Relaxed);
        mutator.join().expect("the mutator does not panic")?;
        row
    })
}

/// The mutator ended; its own error says why.
fn mutator_gone<T>(_: T) -> Error {
    Error::Nothing("the mutator ended early".to_owned())
}

struct Driver<'a> {
    heap: &'a Heap,
    recorder: &'a Arc<Recorder>,
    stop: &'a AtomicBool,
    commands: SyncSender<Command>,
    answers: Receiver<Timeline>,
}

impl Driver<'_> {
    fn row(&self, options: &Options, kind: Kind, delivery: Delivery) -> Result<Row, Error> {
        let mut row = Row { kind, delivery, samples: vec![], without_flip: 0, noise: Noise::none() };
        for _ in 0..WARM_UP {
            let _ = self.cycle()?;
        }
        let monitor = Monitor::start();
        for _ in 0..options.cycles * 2 {
            match self.cycle()? {
                Some(sample) => row.samples.push(sample),
                None => row.without_flip += 1,
            }
            if row.samples.len() == options.cycles {
                break;
            }
        }
        row.noise = monitor.finish();
        if row.samples.is_empty() {
            return Err(Error::Nothing(format!("no cycle of {} had a flip ({kind})", row.without_flip)));
        }
        Ok(row)
    }

    /// One cycle: the mutator prepares, runs, and hands over what it did. `None` if there was no flip.
    fn cycle(&self) -> Result<Option<Sample>, Error> {
        self.commands.send(Command::Prepare).map_err(mutator_gone)?;
        self.stop.store(false, Ordering::Relaxed);
        self.commands.send(Command::Run).map_err(mutator_gone)?;
        thread::sleep(Duration::from_millis(BEFORE_MS + 10));
        let faults = || self.heap.snapshot().counters.mutator_faults;
        let (before, faults_before) = (self.recorder.count(), faults());
        self.heap.collector().request_collection();
        let cycle = self.recorder.wait_for(before + 1, Duration::from_secs(60));
        let cycle = cycle.ok_or_else(|| Error::Nothing("a cycle did not end within 60 s".to_owned()))?;
        let faults = faults() - faults_before;
        let last = cycle.resumed.max(cycle.started) + (AFTER_MS[2] + 5) * MS;
        thread::sleep(Duration::from_nanos(last.saturating_sub(self.recorder.now())));
        self.stop.store(true, Ordering::Relaxed);
        let timeline = self.answers.recv().map_err(mutator_gone)?;
        if !cycle.has_flip() {
            return Ok(None);
        }
        sample(&timeline, cycle, faults).map(Some)
    }
}

fn sample(timeline: &Timeline, cycle: Cycle, faults: u64) -> Result<Sample, Error> {
    let speed = |begin, end| {
        let error = || Error::Nothing("the mutator's timeline does not cover the cycle".to_owned());
        timeline.speed(begin, end).ok_or_else(error)
    };
    let normal = speed(cycle.started - BEFORE_MS * MS, cycle.started)?;
    let marking = speed(cycle.requested - BEFORE_MS * MS, cycle.requested)?;
    let mut after = [0.0; AFTER_MS.len()];
    for (speed_after, ms) in after.iter_mut().zip(AFTER_MS) {
        *speed_after = speed(cycle.resumed, cycle.resumed + ms * MS)?;
    }
    let longest_gap_us = timeline.longest_gap(cycle.requested, cycle.resumed + AFTER_MS[2] * MS) as f64 / 1e3;
    Ok(Sample {
        normal,
        after: after.map(|after| after / normal),
        after_to_marking: after.map(|after| after / marking),
        longest_gap_us,
        faults,
        cycle,
    })
}

fn print(rows: &[Row]) {
    let mut table = Table::new(&[
        "cycle",
        "delivery",
        "n",
        "normal op/ms",
        "1 ms %",
        "5 ms %",
        "20 ms %",
        "(of marking) 1",
        "5",
        "20",
        "5 ms % p10",
        "longest gap µs",
        "all back µs",
        "stopped µs",
        "taken",
        "slots",
        "faults",
        "steal ms",
        "control gap µs",
    ]);
    for row in rows {
        let of = |value: &dyn Fn(&Sample) -> f64| median(row.samples.iter().map(value));
        let whole = |value: f64| format!("{value:.0}");
        let percent = |value: f64| format!("{:.1}", value * 100.0);
        let mut cells =
            vec![row.kind.to_string(), row.delivery.name().to_owned(), row.samples.len().to_string()];
        cells.push(whole(of(&|sample| sample.normal)));
        cells.extend((0..AFTER_MS.len()).map(|nth| percent(of(&|sample| sample.after[nth]))));
        cells.extend((0..AFTER_MS.len()).map(|nth| percent(of(&|sample| sample.after_to_marking[nth]))));
        let worst = Summary::of(row.samples.iter().map(|sample| -sample.after[1]));
        cells.push(percent(-worst.p90));
        cells.push(whole(of(&|sample| sample.longest_gap_us)));
        cells.push(whole(of(&|sample| sample.cycle.summary.serve_ns as f64 / 1e3)));
        cells.push(whole(of(&|sample| sample.cycle.summary.stopped_ns as f64 / 1e3)));
        cells.push(whole(of(&|sample| sample.cycle.summary.regions_taken as f64)));
        cells.push(whole(of(&|sample| sample.cycle.summary.slots_patched as f64)));
        cells.push(whole(of(&|sample| sample.faults as f64)));
        cells.extend(row.noise.cells());
        table.row(cells);
    }
    println!(
        "\nspeed after the flip, % of before the cycle (and of the last {BEFORE_MS} ms of marking)\n\n{table}"
    );
    for row in rows.iter().filter(|row| row.kind != Kind::AllRegions) {
        let speed = median(row.samples.iter().map(|sample| sample.after[1])) * 100.0;
        let met = if speed >= 90.0 { "met" } else { "NOT met" };
        println!("{}, {}: first 5 ms at {speed:.1} % (target: 90): {met}", row.kind, row.delivery);
    }
}
