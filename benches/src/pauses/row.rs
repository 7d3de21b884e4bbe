//! One row: what is measured on heaps of one kind.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;
use strikeslip::gc::events::CycleSummary;
use strikeslip::gc::plan::Pressure;
use strikeslip::{Heap, Mode};
use strikeslip_demos::noise::{Monitor, Noise};

use super::Options;
use super::load::{Load, mutate};
use super::roots::Roots;
use crate::cli::{HeapKind, heap};
use crate::error::Error;
use crate::live::{LiveSet, Shape};
use crate::measure::recorder::{Cycle, Recorder};
use crate::numbers::{Summary, median, size};
use crate::warm::warm;

/// Cycles before the measured ones: the first settles what was built.
const WARM_UP: usize = 3;
/// Attempts for each cycle wanted: a plan may find nothing worth evacuating.
const ATTEMPTS: usize = 4;

/// What a row is about.
#[derive(Copy, Clone, Debug, Serialize)]
pub struct Case {
    /// Mode.
    pub mode: Mode,
    /// Bytes of live data.
    pub live: u64,
    /// Persistent handles.
    pub roots: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} live, {} roots", self.mode, size(self.live), self.roots)
    }
}

/// A row.
#[derive(Debug)]
pub struct Row {
    /// What it is about.
    pub case: Case,
    /// Cycles wanted.
    pub cycles: usize,
    /// What was measured.
    pub samples: Samples,
}

/// What was measured, over all rounds.
#[derive(Debug)]
pub struct Samples {
    cycles: Vec<Cycle>,
    pauses: Vec<u64>,
    /// Cycles in which nothing was worth evacuating.
    without_flip: usize,
    /// Noise meanwhile.
    pub noise: Noise,
}

impl Samples {
    fn micros(&self, value: impl Fn(&Cycle) -> u64) -> impl Iterator<Item = f64> {
        self.cycles.iter().map(move |cycle| value(cycle) as f64 / 1e3)
    }

    /// From the request of the stop until mutators could run.
    pub fn stopped_us(&self) -> impl Iterator<Item = f64> {
        self.micros(|cycle| cycle.summary.stopped_ns)
    }

    /// From the request of the stop until all mutators stood still.
    pub fn safepoint_us(&self) -> impl Iterator<Item = f64> {
        self.micros(|cycle| cycle.summary.safepoint_ns)
    }

    /// From the request of the stop until the last mutator ran.
    pub fn pause_us(&self) -> impl Iterator<Item = f64> {
        self.pauses.iter().map(|&pause| pause as f64 / 1e3)
    }

    /// Median of what the collector says of its cycles.
    #[must_use]
    pub fn median(&self, value: impl Fn(&CycleSummary) -> u64) -> f64 {
        median(self.cycles.iter().map(|cycle| value(&cycle.summary) as f64))
    }
}

/// A row as JSON.
#[derive(Debug, Serialize)]
pub struct RowReport<'a> {
    #[serde(flatten)]
    case: Case,
    stopped_us: Summary,
    safepoint_us: Summary,
    pause_us: Summary,
    without_flip: usize,
    cycles_with_steal: usize,
    noise: Noise,
    cycles: &'a [Cycle],
    pauses_ns: &'a [u64],
}

impl Row {
    /// An empty row.
    #[must_use]
    pub const fn new(case: Case, cycles: usize) -> Self {
        let samples = Samples { cycles: vec![], pauses: vec![], without_flip: 0, noise: Noise::none() };
        Self { case, cycles, samples }
    }

    /// The row as JSON.
    #[must_use]
    pub fn report(&self) -> RowReport<'_> {
        let samples = &self.samples;
        RowReport {
            case: self.case,
            stopped_us: Summary::of(samples.stopped_us()),
            safepoint_us: Summary::of(samples.safepoint_us()),
            pause_us: Summary::of(samples.pause_us()),
            without_flip: samples.without_flip,
            cycles_with_steal: samples.cycles.iter().filter(|cycle| cycle.steal_ticks > 0).count(),
            noise: samples.noise,
            cycles: &samples.cycles,
            pauses_ns: &samples.pauses,
        }
    }

    /// Measures `cycles` cycles on a fresh heap.
    ///
    /// # Errors
    /// [`Error`], also if the heap's contents are wrong afterwards.
    pub fn measure(&mut self, options: &Options, round: usize, cycles: usize) -> Result<(), Error> {
        let Case { mode, live, roots } = self.case;
        let limit_bytes = live + live / 4 + 8 * options.young + (256 << 20);
        warm(limit_bytes);
        let (delivery, huge_pages) = (Some(options.delivery), !options.common.small_pages);
        let (heap, recorder) = heap(HeapKind { limit_bytes, mode, delivery, workers: 0, huge_pages })?;
        let words = options.object as usize / 8 - 1;
        let shape = Shape { bytes: live, words, links: 0, first: 0 };
        let set = heap.attach(|m| LiveSet::build(m, shape, |_| Ok(())))??;
        let handles = heap.attach(|m| Roots::new(m, &set, roots, options.young_roots))??;
        let (stop, allocated) = (AtomicBool::new(false), AtomicU64::new(0));
        let load = |nth| Load {
            live: &set,
            roots: &handles,
            stop: &stop,
            allocated: &allocated,
            rate: options.rate / options.mutators as u64,
            seed: options.common.seed.wrapping_add((round * options.mutators + nth) as u64),
        };
        thread::scope(|scope| {
            let heap = &heap;
            let mutators: Vec<_> = (0..options.mutators)
                .map(|nth| {
                    let load = load(nth);
                    scope.spawn(move || heap.attach(|m| mutate(m, &load))?)
                })
                .collect();
            let is_running = || mutators.iter().all(|mutator| !mutator.is_finished());
            let driver = Driver { heap, recorder: &recorder, allocated: &allocated, young: options.young };
            let driven = self.drive(&driver, cycles, &is_running);
            stop.store(true, Ordering::Relaxed);
            mutators.into_iter().try_for_each(|mutator| mutator.join().expect("a mutator does not panic"))?;
            driven
        })?;
        heap.attach(|m| {
            set.check(m, 0)?;
            handles.check(m, set.len())
        })?
    }

    fn drive(
        &mut self,
        driver: &Driver<'_>,
        cycles: usize,
        is_running: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        (0..WARM_UP).for_each(|_| driver.cycle(is_running));
        driver.recorder.forget();
        let monitor = Monitor::start();
        let flips = || driver.recorder.cycles().iter().filter(|cycle| cycle.has_flip()).count();
        for _ in 0..cycles * ATTEMPTS {
            driver.cycle(is_running);
            if flips() >= cycles {
                break;
            }
        }
        self.samples.noise = self.samples.noise.and(monitor.finish());
        let (flips, others): (Vec<_>, Vec<_>) =
            driver.recorder.cycles().into_iter().partition(Cycle::has_flip);
        if flips.is_empty() && is_running() {
            return Err(Error::Nothing(format!("{} cycles and no flip ({})", others.len(), self.case)));
        }
        self.samples.cycles.extend(flips);
        self.samples.without_flip += others.len();
        self.samples.pauses.extend(driver.recorder.pauses());
        Ok(())
    }
}

struct Driver<'a> {
    heap: &'a Heap,
    recorder: &'a Recorder,
    allocated: &'a AtomicU64,
    young: u64,
}

impl Driver<'_> {
    /// Waits until enough was allocated, and runs an ordinary cycle.
    fn cycle(&self, is_running: &dyn Fn() -> bool) {
        let enough = self.allocated.load(Ordering::Relaxed) + self.young;
        while self.allocated.load(Ordering::Relaxed) < enough && is_running() {
            thread::sleep(Duration::from_millis(1));
        }
        self.heap.collector().collect_with(Pressure::Normal);
    }
}
