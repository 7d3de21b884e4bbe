//! Whole cycles on the simulated page service, with schedules chosen by `shuttle`.
//!
//! Needs no userfaultfd. A run is told by its seed: options, workload, forced answers, what the page service
//! chooses, and the order in which mutators, workers, the controller and (with delivery by pool) the reader and
//! the pool make their steps. Mutators compare what they read with a model in ordinary memory.
//!
//! `STRIKESLIP_SIMULATION_SEEDS` is how many seeds to try (the default takes some seconds), beginning with
//! `STRIKESLIP_SIMULATION_FIRST`; `STRIKESLIP_SIMULATION_SEED` is the only one. A run that fails, or ends the process, says its seed.

mod simulated;
mod toy_embedder;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Runner, thread};
use strikeslip_gc::extent::Extent;
use strikeslip_gc::options::{Delivery, StressMode, StressModes};
use strikeslip_gc::plan::Pressure;
use strikeslip_gc::simulation::SimulatedHeap;
use strikeslip_gc::stats::Snapshot;
use strikeslip_gc::sys::schedule::{Schedule, Step};

use simulated::{Shuttle, config, random_options, until};
use toy_embedder::Toy;
use toy_embedder::graph::{Graph, Random, Shape, mix};

/// What was seen over all runs: fault paths, and answers that were forced.
#[derive(Debug, Default)]
struct Seen {
    cycles: u64,
    windows_taken: u64,
    /// How often each stress mode acted.
    stress: BTreeMap<&'static str, u64>,
    white_upgrades: u64,
    cleared: u64,
    faults: BTreeMap<String, u64>,
    forced: BTreeMap<String, u64>,
}

impl Seen {
    fn add(&mut self, snapshot: &Snapshot) {
        self.cycles += snapshot.counters.cycles;
        self.windows_taken += snapshot.counters.windows_taken;
        for entry in &snapshot.stress {
            *self.stress.entry(entry.mode.name()).or_default() += entry.acted;
        }
        self.white_upgrades += snapshot.counters.white_upgrades;
        self.cleared += snapshot.counters.weak_slots_cleared;
        for path in &snapshot.fault_paths {
            *self.faults.entry(format!("{:?}", path.path)).or_default() += path.latency_ns.count;
        }
        for forced in &snapshot.forced_answers {
            *self.forced.entry(format!("{} {}", forced.call, forced.answer)).or_default() += forced.count;
        }
    }
}

/// One run under these stress modes, on threads of `shuttle`. Returns what happened, and the digest of the page service's
/// calls.
fn run(seed: u64, modes: StressModes) -> (Snapshot, u64) {
    let mut random = Random(mix(seed));
    let mut options = random_options(&mut random);
    options.stress.modes = modes;
    let mutators = 1 + random.below(4);
    let shape = Shape {
        // The last: more pages than are rewritten in the pause.
        roots: [30, 300, 2000, 10_000, 30_000][random.below(5)],
        live_bytes: options.limit_bytes / (3 * mutators),
        // The first: few objects for many root pages.
        medium_one_in: [2, 6, 12, 50][random.below(4)],
        large_one_in: [0, 100, 400][random.below(3)],
    };
    let steps = 500 + random.below(1500);
    let weak = ([0, 20, 600, 10_000][random.below(4)], [0, 5, 200][random.below(3)]);
    let pool = options.delivery == Some(Delivery::Pool);
    let (toy, heap) = Toy::simulated(options, Arc::new(Shuttle), random.next()).expect("a heap");
    let (toy, running) = (Arc::new(toy), Arc::new(AtomicUsize::new(mutators)));
    let ended = Arc::new(AtomicBool::new(false));
    let mut threads = vec![];
    for nth in 0..mutators as u64 {
        let (toy, running) = (toy.clone(), running.clone());
        threads.push(thread::spawn(move || {
            run_mutator(&toy, seed ^ mix(nth + 1), shape, weak, steps);
            running.fetch_sub(1, Ordering::Relaxed);
        }));
    }
    if pool {
        threads.push(repeat(&heap, &ended, |heap| _ = heap.read_events()));
        threads.push(repeat(&heap, &ended, SimulatedHeap::drain_faults));
    }
    let pressures = [Pressure::Normal, Pressure::High, Pressure::Everything, Pressure::Everything];
    while running.load(Ordering::Relaxed) > 0 {
        // So that there is something to compact.
        for _ in 0..random.below(1000) {
            Shuttle.step(Step::Mutated);
        }
        // A mutator that waits in a blocked state has to be chosen too, whatever its priority.
        thread::yield_now();
        let extent = if random.one_in(2) { Extent::Young } else { Extent::Full };
        heap.collect(pressures[random.below(4)], extent);
    }
    ended.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("a thread that did not panic"));
    (heap.heap.snapshot(), heap.digest())
}

/// A thread that attaches and detaches twice, at any time in a cycle.
fn run_mutator(toy: &Toy, seed: u64, shape: Shape, weak: (usize, usize), steps: usize) {
    for (seed, steps) in [(seed, steps), (mix(seed), steps / 3)] {
        mutate(toy, seed, shape, weak, steps);
        Shuttle.step(Step::Mutated);
    }
}

fn mutate(toy: &Toy, seed: u64, shape: Shape, (weak_slots, ephemerons): (usize, usize), steps: usize) {
    let mutator = toy.attach();
    let mut graph = Graph::new(&mutator, seed, shape).with_weak_slots(weak_slots).with_ephemerons(ephemerons);
    for step in 0..steps {
        // Out of memory is legitimate: large objects need regions side by side.
        let _ = graph.step();
        graph.roam();
        graph.swap_roots();
        graph.step_weak();
        graph.step_ephemeron();
        if step % 256 == 0 {
            graph.check();
        }
    }
    graph.check();
}

/// A thread that does `work` until all else has ended.
fn repeat(
    heap: &Arc<SimulatedHeap>,
    ended: &Arc<AtomicBool>,
    work: fn(&SimulatedHeap),
) -> thread::JoinHandle<()> {
    let (heap, ended) = (heap.clone(), ended.clone());
    thread::spawn(move || until(&ended, || work(&heap)))
}

thread_local! {
    /// The seed of the run at hand, for a process that ends in the middle of it: all threads of `shuttle` run on the
    /// test's thread.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Has the seed written when the collector stops the process.
fn tell_seed_on_abort() {
    extern "C" fn tell(_signal: libc::c_int) {
        let mut line = *b"STRIKESLIP_SIMULATION_SEED=00000000000000000000 repeats this\n";
        let mut seed = SEED.get();
        for digit in line[27..47].iter_mut().rev() {
            *digit = b'0' + (seed % 10) as u8;
            seed /= 10;
        }
        // SAFETY: the line is as long as is said.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler only writes; when it returns, `abort` ends the process.
        unsafe { libc::signal(libc::SIGABRT, tell as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    });
}

/// Runs `seed` under a scheduler. A failure says the seed.
fn simulate(seed: u64, scheduler: impl Scheduler + 'static, seen: &Arc<Mutex<Seen>>) -> u64 {
    simulate_under(StressModes::default(), seed, scheduler, seen)
}

fn simulate_under(
    modes: StressModes,
    seed: u64,
    scheduler: impl Scheduler + 'static,
    seen: &Arc<Mutex<Seen>>,
) -> u64 {
    tell_seed_on_abort();
    SEED.set(seed);
    let all = Arc::new(AtomicU64::new(0));
    let (into, seen) = (all.clone(), seen.clone());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        Runner::new(scheduler, config()).run(move || {
            let (snapshot, digest) = run(seed, modes);
            into.store(mix(into.load(Ordering::Relaxed) ^ digest), Ordering::Relaxed);
            seen.lock().unwrap_or_else(PoisonError::into_inner).add(&snapshot);
        });
    }));
    if let Err(panic) = outcome {
        eprintln!("STRIKESLIP_SIMULATION_SEED={seed} repeats this");
        resume_unwind(panic);
    }
    all.load(Ordering::Relaxed)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The seeds to try: `count`, unless the environment says otherwise.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let one = number("STRIKESLIP_SIMULATION_SEED");
    let first = one.or_else(|| number("STRIKESLIP_SIMULATION_FIRST")).unwrap_or(0);
    let count = one.map_or_else(|| number("STRIKESLIP_SIMULATION_SEEDS").unwrap_or(count), |_| 1);
    first..first + count
}

#[test]
fn random_schedules_agree_with_their_models() {
    let seen = Arc::default();
    for seed in seeds(80) {
        simulate(seed, RandomScheduler::new_from_seed(seed, 1), &seen);
    }
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{seen:#?}");
    if number("STRIKESLIP_SIMULATION_SEED").is_some() {
        return;
    }
    assert!(seen.white_upgrades > 0 && seen.cleared > 0, "weak slots were not put to the test: {seen:?}");
    for path in ["Built", "Returned", "Waited", "Overtaken", "Zero", "Present"] {
        assert!(seen.faults.contains_key(path), "no fault was {path}: {seen:?}");
    }
    let common = ["again", "exists", "no-memory", "partial"];
    let forced = common.iter().flat_map(|answer| [format!("copy {answer}"), format!("move {answer}")]);
    let others = ["move busy", "move invalid", "move missing", "zeropage again", "register no-memory"]
        .map(str::to_owned);
    for forced in forced.chain(others) {
        assert!(seen.forced.contains_key(&forced), "{forced} was not forced: {seen:?}");
    }
}

/// Each thread has a priority, and only a few changes of priorities: finds what needs one thread to be held
/// up for long.
#[test]
fn schedules_by_priority_agree_with_their_models() {
    let seen = Arc::default();
    for seed in seeds(10) {
        // The first run is for counting steps: the changes of the others are spread over as many.
        simulate(seed, PctScheduler::new_from_seed(seed, 4, 4), &seen);
    }
}

/// Stress modes that change what the flip finds to do: small heaps come to it seldom otherwise.
const STRESSED: [&[StressMode]; 4] = [
    &[StressMode::TakeWindows],
    &[StressMode::OverflowSlots],
    &[StressMode::TakeAll, StressMode::RefuseTakes],
    &[StressMode::EvacuateAll, StressMode::PageUnits],
];

#[test]
fn stressed_flips_agree_with_their_models() {
    let seen = Arc::default();
    for seed in seeds(16) {
        let modes = StressModes::of(STRESSED[seed as usize % STRESSED.len()]);
        simulate_under(modes, seed, RandomScheduler::new_from_seed(seed, 1), &seen);
    }
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{seen:#?}");
    if number("STRIKESLIP_SIMULATION_SEED").is_none() {
        for &mode in STRESSED.iter().copied().flatten() {
            assert!(seen.stress.get(mode.name()) > Some(&0), "{mode} did nothing: {seen:?}");
        }
        assert!(seen.windows_taken > 0, "{seen:?}");
    }
}

#[test]
fn a_seed_tells_the_whole_run() {
    let digest = |seed| simulate(seed, RandomScheduler::new_from_seed(seed, 1), &Arc::default());
    for seed in [3, 4] {
        assert_eq!(digest(seed), digest(seed), "seed {seed}");
    }
    assert_ne!(digest(3), digest(4));
}
