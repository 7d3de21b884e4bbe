//! A seeded random stress test over all options.
//!
//! Each round draws options, mutators and workload from its seed, runs for a moment while one thread
//! demands collections, and compares every mutator's graph with its model. `STRIKESLIP_STRESS_SECONDS`
//! makes it run longer than the suite does, `STRIKESLIP_STRESS_SEED` repeats it from one seed (for that round alone with 0 seconds).

mod toy_embedder;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use strikeslip_gc::options::{
    Delivery, ForcedAnswers, HeapOptions, Mode, StressMode, StressModes, StressOptions, VerifyLevel,
};
use strikeslip_gc::plan::Pressure;
use strikeslip_gc::roots::{RootPage, RootPageKind};
use strikeslip_gc::stats::CounterValues;

use toy_embedder::graph::{Graph, Random, Shape, mix};
use toy_embedder::{Mutator, Toy, layouts};

fn random_options(random: &mut Random) -> HeapOptions {
    let pick = |random: &mut Random, of: &[usize]| of[random.below(of.len())];
    HeapOptions {
        limit_bytes: (32 + random.below(96)) << 20,
        mode: [Mode::ConcurrentMove, Mode::ConcurrentCopy, Mode::ConcurrentMove, Mode::StopTheWorld]
            [random.below(4)],
        fall_back: false,
        delivery: Some(Delivery::ALL[random.below(2)]),
        workers: pick(random, &[1, 1, 2, 4]),
        mark_workers: pick(random, &[1, 2, 4]),
        huge_pages: random.one_in(2),
        buffer_bytes: pick(random, &[1 << 10, 4 << 10, 32 << 10, 256 << 10]),
        evacuate_below: [0.1, 0.5, 0.75, 1.0][random.below(4)],
        patch_budget: pick(random, &[0, 0, 1, 256, 1 << 20]),
        verify: VerifyLevel::ALL[random.below(7)],
        automatic: !random.one_in(4),
        low_weight_marking: random.one_in(2),
        young_cycles: !random.one_in(4),
        hold_memory: random.one_in(3),
        stress: StressOptions { forced_answers: random_answers(random), modes: random_modes(random) },
        ..HeapOptions::default()
    }
}

/// In half of the rounds up to three stress modes are on.
fn random_modes(random: &mut Random) -> StressModes {
    if random.one_in(2) {
        return StressModes::default();
    }
    loop {
        let modes: Vec<_> = (0..3).map(|_| StressMode::ALL[random.below(StressMode::ALL.len())]).collect();
        let modes = StressModes::of(&modes[..1 + random.below(3)]);
        let stress = StressOptions { modes, ..StressOptions::default() };
        // Some exclude each other. With a whole cycle for each allocation, a round would be over before it began.
        let too_slow = modes.contains(StressMode::CollectSafepoints);
        if !too_slow && (HeapOptions { stress, ..HeapOptions::default() }).resolved().is_ok() {
            return modes;
        }
    }
}

/// In half of the rounds rare answers of the kernel are forced; in some of these no MOVE is done after a
/// while.
fn random_answers(random: &mut Random) -> Option<ForcedAnswers> {
    let (seed, per_mille) = (random.next(), [20, 100, 400][random.below(3)]);
    let refuse_moves_after = random.one_in(4).then(|| random.below(5000) as u64);
    random.one_in(2).then_some(ForcedAnswers {
        seed,
        per_mille,
        refuse_moves_after,
        refuse_registrations: 50,
    })
}

/// A root slot that graphs do not use.
const SPARE_ROOT: usize = 0;

/// References that all mutators swap around in a large array: each refers to a node that names itself.
struct Shared {
    page: RootPage,
    length: usize,
}

impl Shared {
    fn new(mutator: &Mutator, length: usize) -> Self {
        let page = mutator.heap.roots().allocate(RootPageKind::Paged).expect("room for roots");
        let array = mutator.alloc(layouts().array, length).expect("room for the array");
        mutator.publish(&page, 0, array);
        Self { page, length }
    }

    /// Swaps within one stretch, so that a region's list of slots overflows now and then.
    fn step(&self, mutator: &Mutator, random: &mut Random) {
        let (from, to) = (random.below(self.length), random.below(self.length));
        if random.one_in(8) {
            let id = random.next() | 1;
            let Ok(node) = mutator.alloc(layouts().node, 0) else { return };
            mutator.set(node, 3, id);
            mutator.set_root(SPARE_ROOT, Some(node));
            let Ok(data) = mutator.alloc(layouts().data, 1 + (id % 64) as usize) else { return };
            mutator.set(data, 1, mix(id));
            let node = mutator.root(SPARE_ROOT).expect("just set");
            mutator.store(node, 1, Some(data));
            mutator.store(mutator.subscribe(&self.page, 0).expect("the array"), 1 + to, Some(node));
            mutator.set_root(SPARE_ROOT, None);
        } else {
            mutator.poll();
            let array = mutator.subscribe(&self.page, 0).expect("the array");
            let value = mutator.load(array, 1 + from);
            mutator.store(array, 1 + to, value);
            mutator.store(array, 1 + from, None);
            self.look(mutator, value);
        }
    }

    fn look(&self, mutator: &Mutator, value: Option<strikeslip_gc::address::ToAddress>) {
        let Some(node) = value else { return };
        assert_eq!(mutator.header(node).layout_id(), layouts().node, "a shared element is a node");
        let data = mutator.load(node, 1).expect("a shared node has data");
        assert_eq!(mutator.get(data, 1), mix(mutator.get(node, 3)), "a shared node's data");
    }

    fn check(&self, mutator: &Mutator) {
        let array = mutator.subscribe(&self.page, 0).expect("the array");
        (0..self.length).for_each(|nth| self.look(mutator, mutator.load(array, 1 + nth)));
    }
}

/// One round. Returns what was counted.
fn round(seed: u64, length: Duration) -> CounterValues {
    let mut random = Random(seed);
    let options = random_options(&mut random);
    let limit = options.limit_bytes;
    let concurrent = options.mode.is_concurrent();
    let mutators = 1 + random.below(6);
    let shared_length = [1000, 100_000, 500_000][random.below(3)];
    let shape = Shape {
        roots: [8, 100, 5000][random.below(3)],
        live_bytes: limit / (3 * mutators),
        medium_one_in: [0, 20, 200][random.below(3)],
        large_one_in: [0, 2000, 200][random.below(3)],
    };
    let attaching = random.one_in(3);
    let weak_slots = [0, 100, 20_000][random.below(3)];
    let context = format!(
        "seed {seed}: {mutators} mutators, {shape:?}, {weak_slots} weak slots, shared {shared_length}, {options:?}"
    );
    if std::env::var_os("STRIKESLIP_STRESS_SECONDS").is_some() {
        println!("{context}");
    }
    let toy = Toy::new(options).expect(&context);
    let ended = AtomicBool::new(false);
    let steps = AtomicU64::new(0);
    let shared = Shared::new(&toy.attach(), shared_length);
    std::thread::scope(|scope| {
        for nth in 0..mutators as u64 {
            let (toy, shared, ended, steps) = (&toy, &shared, &ended, &steps);
            scope.spawn(move || {
                let graph = (seed ^ mix(nth + 1), shape, weak_slots);
                run_mutator(toy, shared, ended, steps, graph);
            });
        }
        if attaching {
            scope.spawn(|| come_and_go(&toy, &shared, &ended, seed));
        }
        let started = Instant::now();
        let pressures = [Pressure::Normal, Pressure::High, Pressure::Everything];
        while started.elapsed() < length {
            match random.below(6) {
                nth @ 0..3 => toy.heap.collect_with(pressures[nth]),
                _ => toy.heap.collect_young(),
            }
            std::thread::sleep(Duration::from_micros(random.below(3000) as u64));
        }
        ended.store(true, Ordering::Relaxed);
    });
    let snapshot = toy.heap.snapshot();
    assert!(snapshot.counters.cycles > 0 && steps.into_inner() > 0, "{context}: {snapshot:?}");
    assert!(concurrent || snapshot.counters.mutator_faults == 0, "{context}: faults without userfaultfd");
    snapshot.counters
}

fn run_mutator(
    toy: &Toy,
    shared: &Shared,
    ended: &AtomicBool,
    steps: &AtomicU64,
    (seed, shape, weak_slots): (u64, Shape, usize),
) {
    let mutator = toy.attach();
    let mut random = Random(mix(seed));
    let mut graph = Graph::new(&mutator, seed, shape).with_weak_slots(weak_slots);
    while !ended.load(Ordering::Relaxed) {
        for _ in 0..256 {
            // Out of memory is legitimate here: many mutators keep a third of a small heap live.
            let _ = graph.step();
            shared.step(&mutator, &mut random);
            graph.step_weak();
            steps.fetch_add(1, Ordering::Relaxed);
        }
        if random.one_in(20) {
            graph.check();
        }
    }
    graph.check();
    shared.check(&mutator);
}

/// Mutators that attach, allocate a little, and detach.
fn come_and_go(toy: &Toy, shared: &Shared, ended: &AtomicBool, seed: u64) {
    let mut random = Random(seed);
    while !ended.load(Ordering::Relaxed) {
        let mutator = toy.attach();
        for _ in 0..random.below(200) {
            shared.step(&mutator, &mut random);
        }
    }
}

#[test]
fn random_options_and_workloads_agree_with_their_models() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("STRIKESLIP_STRESS_SECONDS").unwrap_or(12);
    let mut seed = number("STRIKESLIP_STRESS_SEED").unwrap_or(1);
    let (mut cycles, mut young, mut remembered, mut faults) = (0, 0, 0, 0);
    let started = Instant::now();
    loop {
        let counters = round(seed, Duration::from_millis(700));
        cycles += counters.cycles;
        young += counters.young_cycles;
        remembered += counters.remembered_slots;
        faults += counters.mutator_faults;
        seed += 1;
        let enough = cycles > 20 && young > 0 && remembered > 0 && faults > 0;
        // On a machine with much else to do, it may take longer until something was shown.
        let least = Duration::from_secs(seconds);
        if started.elapsed() >= least && (enough || seconds == 0 || started.elapsed() >= 10 * least) {
            break;
        }
    }
    let seen = format!(
        "{cycles} cycles, {young} of them young; {remembered} remembered slots, {faults} mutator faults"
    );
    println!("{seen}, up to seed {seed}");
    assert!(seconds == 0 || (cycles > 20 && young > 0 && remembered > 0 && faults > 0), "{seen}");
}
