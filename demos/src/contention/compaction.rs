//! One run of the collector beside a storm: mutators read and replace objects of a real heap, which is compacted
//! again and again.
//!
//! Everything is measured while a [`Recorder`] is on: page operations and faults by whoever makes them (in signal
//! handlers too), sleep and trace events while pages are missing, by the controller at both ends of the phase.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use strikeslip::gc::events::{FaultPath, Listener, Phase};
use strikeslip::gc::stats::{KernelCall, LatencyHistogram};
use strikeslip::gc::sys::observed::PageObserver;
use strikeslip::gc::sys::sched::thread_id;
use strikeslip::{Array, Heap, HeapOptions, Local, Mode, Mutator, OutOfMemory, Words};

use super::figures::{Compaction, Latency, Traced};
use super::prober::voluntary_switches;
use super::queue_lock::QueueLock;
use super::storms::{Running, Storm};
use super::threads::{self, Group};
use super::tracefs::Tracer;
use super::{Failure, Options};
use crate::random::{Random, mix};
use crate::workload::{Meter, RunError, run_mutators};

/// Names of the threads that build and install pages begin so (the kernel keeps 15 bytes).
const COLLECTOR_THREADS: [&str; 2] = ["strikeslip-serv", "strikeslip-read"];
/// Collections before anything is measured: the heap's memory has been used once then.
const WARM_UP: usize = 2;
/// The heap's limit is so many times what is live.
const ROOM: usize = 4;
/// Fewest words of an object ..
const FEWEST_WORDS: usize = 2;
/// .. up to less than so many more.
const MORE_WORDS: usize = 62;
/// Bytes of an object on average, with its place in the table.
const OBJECT_BYTES: usize = 16 + 8 * (FEWEST_WORDS + MORE_WORDS / 2);
/// One in so many operations replaces an object, the others read one.
const REPLACE_ONE_IN: usize = 4;

/// What a run is about.
#[derive(Copy, Clone, Debug)]
pub(super) struct Setting<'a> {
    pub options: &'a Options,
    pub mode: Mode,
    pub storm: Storm,
    pub time: Duration,
    pub model: Option<&'a Arc<QueueLock>>,
    pub tracer: Option<&'a Arc<Tracer>>,
}

/// Receives what happens, and keeps it while it is on.
#[derive(Debug, Default)]
struct Recorder {
    on: AtomicBool,
    cycles: AtomicU64,
    compaction: LatencyHistogram,
    copy: LatencyHistogram,
    moved: LatencyHistogram,
    register: LatencyHistogram,
    /// COPY, MOVE and ZEROPAGE together, and those of them in which the thread slept.
    installing: LatencyHistogram,
    slept: LatencyHistogram,
    fault: LatencyHistogram,
    pause: LatencyHistogram,
    operation: LatencyHistogram,
    mismatches: AtomicU64,
    model: Option<Arc<QueueLock>>,
    watch: Mutex<Option<Watch>>,
}

/// Whether the operation takes the lock of one mapping (before Linux 6.9, `mmap_lock`).
const fn is_installing(call: KernelCall) -> bool {
    matches!(call, KernelCall::Copy | KernelCall::Move | KernelCall::Zeropage)
}

/// What is sampled at both ends of a compaction.
#[derive(Debug)]
struct Watch {
    collector: Group,
    mutators: Group,
    tracer: Option<Arc<Tracer>>,
}

impl Recorder {
    fn record(&self, histogram: &LatencyHistogram, duration: Duration) {
        if self.on.load(Ordering::Relaxed) {
            histogram.record_duration(duration);
        }
    }

    /// The model's lock, if this operation would take it.
    fn lock_of(&self, call: KernelCall) -> Option<&QueueLock> {
        self.model.as_deref().filter(|_| is_installing(call))
    }

    fn watched(&self, act: impl FnOnce(&mut Watch)) {
        if self.on.load(Ordering::Relaxed) {
            let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(watch) = watch.as_mut() {
                act(watch);
            }
        }
    }
}

impl PageObserver for Recorder {
    fn operation_begins(&self, call: KernelCall) -> u64 {
        let switches = voluntary_switches().unwrap_or(0);
        if let Some(lock) = self.lock_of(call) {
            lock.read();
        }
        switches
    }

    fn operation_ended(&self, call: KernelCall, switches: u64, took: Duration) {
        if let Some(lock) = self.lock_of(call) {
            lock.read_done();
        }
        if is_installing(call) && self.on.load(Ordering::Relaxed) {
            self.installing.record_duration(took);
            if voluntary_switches().is_ok_and(|now| now > switches) {
                self.slept.record_duration(took);
            }
        }
        match call {
            KernelCall::Copy => self.record(&self.copy, took),
            KernelCall::Move => self.record(&self.moved, took),
            KernelCall::Register | KernelCall::Unregister => self.record(&self.register, took),
            _ => {}
        }
    }
}

/// Forwards the heap's events: the heap keeps its listeners as `Arc<dyn Listener>`.
impl Listener for Recorder {
    fn phase_started(&self, phase: Phase) {
        if phase == Phase::Serve {
            self.watched(|watch| {
                watch.collector.begin();
                watch.mutators.begin();
                watch.tracer.iter().for_each(|tracer| tracer.turn(true));
            });
        }
    }

    fn phase_ended(&self, phase: Phase, duration: Duration) {
        if phase == Phase::Serve {
            self.watched(|watch| {
                watch.tracer.iter().for_each(|tracer| tracer.turn(false));
                watch.collector.end();
                watch.mutators.end();
            });
            // Together: a cycle that began before the measurement, or moved nothing, is none of them.
            if self.on.load(Ordering::Relaxed) {
                self.cycles.fetch_add(1, Ordering::Relaxed);
                self.compaction.record_duration(duration);
            }
        }
    }

    fn pause_ended(&self, since_request: Duration) {
        self.record(&self.pause, since_request);
    }

    fn fault_served(&self, _path: FaultPath, latency: Duration) {
        self.record(&self.fault, latency);
    }
}

/// What mutators and the driver share.
#[derive(Debug, Default)]
struct Stage {
    ready: AtomicUsize,
    stop: AtomicBool,
    threads: Mutex<Vec<i32>>,
}

/// Runs the collector beside the storm.
pub(super) fn run(setting: &Setting<'_>) -> Result<Compaction, Failure> {
    let recorder = Arc::new(Recorder { model: setting.model.cloned(), ..Recorder::default() });
    let Options { live_bytes, mutators, workers, delivery, .. } = *setting.options;
    let heap = Heap::new(HeapOptions {
        limit_bytes: live_bytes.saturating_mul(ROOM),
        mode: setting.mode,
        fall_back: false,
        delivery,
        workers,
        hold_memory: !setting.options.give_back,
        observer: Some(recorder.clone()),
        ..HeapOptions::default()
    })?;
    heap.collector().add_listener(recorder.clone());
    let (stage, meter) = (Stage::default(), Meter::default());
    let waited_before = setting.model.map(|lock| lock.waited_ns());
    let (mutated, driven) = thread::scope(|scope| {
        let running = scope.spawn(|| {
            run_mutators(&heap, mutators, &meter, |m, number| mutate(m, setting, number, &recorder, &stage))
        });
        let driven = drive(setting, &heap, &recorder, &stage, &meter);
        stage.stop.store(true, Ordering::Relaxed);
        (running.join(), driven)
    });
    mutated.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let driven = driven?;
    let waited = setting.model.zip(waited_before).map(|(lock, before)| lock.waited_ns() - before);
    Ok(figures(&recorder, driven, waited))
}

/// What the driver saw.
#[derive(Debug, Default)]
struct Driven {
    storm_operations: u64,
    discards: u64,
    /// Of collector and mutators.
    traced: Option<[Traced; 2]>,
}

/// Collects again and again while the storm rages.
fn drive(
    setting: &Setting<'_>,
    heap: &Heap,
    recorder: &Recorder,
    stage: &Stage,
    meter: &Meter,
) -> Result<Driven, Failure> {
    let options = setting.options;
    while stage.ready.load(Ordering::Relaxed) < options.mutators {
        if meter.failed() {
            return Ok(Driven::default());
        }
        thread::sleep(Duration::from_millis(1));
    }
    (0..WARM_UP).for_each(|_| heap.collect());
    let storm = Running::start(setting.storm, options.storm_threads, options.protect_bytes, setting.model)
        .map_err(Failure::Storm)?;
    let collector: Vec<_> = COLLECTOR_THREADS.iter().flat_map(|prefix| threads::named(prefix)).collect();
    let mutators = stage.threads.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let groups = [collector, mutators];
    let tracer = setting.tracer.filter(|tracer| tracer.watch(groups.iter().flatten().copied()).is_ok());
    *recorder.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(Watch {
        collector: Group::new(&groups[0]),
        mutators: Group::new(&groups[1]),
        tracer: tracer.cloned(),
    });
    let (end, before) = (Instant::now() + setting.time, storm.operations());
    let discards_before = discards(heap);
    recorder.on.store(true, Ordering::Relaxed);
    loop {
        heap.collect();
        if Instant::now() >= end || meter.failed() {
            break;
        }
    }
    recorder.on.store(false, Ordering::Relaxed);
    if storm.has_failed() {
        return Err(Failure::Storm(std::io::Error::other("the system refuses what the storm does")));
    }
    let counts = tracer.and_then(|tracer| tracer.counts(&groups).ok());
    Ok(Driven {
        storm_operations: storm.operations() - before,
        discards: discards(heap) - discards_before,
        traced: counts.and_then(|counts| counts.try_into().ok()),
    })
}

/// Calls so far by which the heap gave memory back.
fn discards(heap: &Heap) -> u64 {
    heap.snapshot().ioctls.iter().filter(|call| call.call == "discard").map(|call| call.count).sum()
}

fn figures(recorder: &Recorder, driven: Driven, model_wait_ns: Option<u64>) -> Compaction {
    let Driven { storm_operations, discards, traced } = driven;
    let watch = recorder.watch.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (collector, mutators) =
        watch.map(|watch| (watch.collector.total(), watch.mutators.total())).unwrap_or_default();
    let [collector_traced, mutators_traced] = traced.map_or([None, None], |traced| traced.map(Some));
    Compaction {
        cycles: recorder.cycles.load(Ordering::Relaxed),
        compaction_ns: Latency::of(&recorder.compaction),
        compaction_total_ns: recorder.compaction.percentiles().sum,
        copy_ns: Latency::of(&recorder.copy),
        move_ns: Latency::of(&recorder.moved),
        register_ns: Latency::of(&recorder.register),
        page_operations: recorder.installing.percentiles().count,
        page_operations_slept: recorder.slept.percentiles().count,
        page_operations_slept_ns: recorder.slept.percentiles().sum,
        discards,
        fault_ns: Latency::of(&recorder.fault),
        pause_ns: Latency::of(&recorder.pause),
        mutator_operation_ns: Latency::of(&recorder.operation),
        mismatches: recorder.mismatches.load(Ordering::Relaxed),
        collector,
        mutators,
        collector_traced,
        mutators_traced,
        model_wait_ns,
        storm_operations,
    }
}

/// A mutator: fills its table, then reads and replaces objects until it is told to stop.
fn mutate(
    m: &mut Mutator,
    setting: &Setting<'_>,
    number: usize,
    recorder: &Recorder,
    stage: &Stage,
) -> Result<(), RunError> {
    let options = setting.options;
    let places = (options.live_bytes / options.mutators / OBJECT_BYTES).max(1);
    let mut random = Random::new(options.seed, number as u64);
    stage.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread_id());
    m.scope(|m, s| {
        let table = m.alloc_array::<Words>(s, places)?;
        for at in 0..places {
            replace(m, &table, at, random.next())?;
        }
        stage.ready.fetch_add(1, Ordering::Relaxed);
        while !stage.stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            let at = random.below(places);
            if random.one_in(REPLACE_ONE_IN) {
                replace(m, &table, at, random.next())?;
            } else {
                m.safepoint();
                if !is_whole(m, &table, at) {
                    recorder.mismatches.fetch_add(1, Ordering::Relaxed);
                }
            }
            recorder.record(&recorder.operation, begin.elapsed());
        }
        Ok(())
    })
}

/// Puts a new object into a place: its first word is `seed`, from which its length and its last word follow.
fn replace(
    m: &mut Mutator,
    table: &Local<'_, Array<Words>>,
    at: usize,
    seed: u64,
) -> Result<(), OutOfMemory> {
    m.scope(|m, s| {
        let length = length(seed);
        let words = m.alloc_words(s, length)?;
        words.get(m).set(0, seed);
        words.get(m).set(length - 1, mix(seed));
        table.get(m).set(m, at, Some(words.get(m)));
        Ok(())
    })
}

fn is_whole(m: &Mutator, table: &Local<'_, Array<Words>>, at: usize) -> bool {
    table.get(m).as_ref().get(at).is_some_and(|words| {
        let seed = words.get(0);
        words.len() == length(seed) && words.get(words.len() - 1) == mix(seed)
    })
}

const fn length(seed: u64) -> usize {
    FEWEST_WORDS + (seed % MORE_WORDS as u64) as usize
}
