//! Every stress mode in every mode with every delivery: results stay right, and the mode did what it says.
//!
//! A row of the table is done as soon as its heap has proved that; `STRIKESLIP_STRESS_MODES_SECONDS` has each take
//! so long at least. With `--nocapture` it prints what each did.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Node, Random, SetOnDrop, all_modes, heap_in};
use strikeslip::gc::events::FaultPath;
use strikeslip::{
    Array, Delivery, Heap, HeapOptions, Local, Mode, Mutator, Scope, Snapshot, StressMode, StressModes,
    StressOptions, VerifyLevel,
};

/// Elements of a mutator's table: more than an object that can move has room for.
const SLOTS: usize = 140_000;
/// Nodes in it at first.
const FIRST_NODES: usize = 8_000;
/// Bytes of garbage behind each of them, so that there is something to compact.
const GARBAGE: usize = 150;
/// How long a row may take. (On a quiet machine most take 0.1 s.)
const MOST: Duration = Duration::from_secs(60);

/// A table of nodes, and in ordinary memory what must be in it.
struct Model<'s> {
    table: Local<'s, Array<Node>>,
    expected: Vec<u64>,
    random: Random,
    /// The value of the next node.
    next: u64,
    /// Running out of memory is legitimate: nothing is collected, or nothing compacted.
    may_run_out: bool,
}

impl<'s> Model<'s> {
    fn new(m: &mut Mutator, s: &Scope<'s>, seed: u64) -> Self {
        let table = m.alloc_array::<Node>(s, SLOTS).expect("room");
        let modes = m.heap().collector().options().stress.modes;
        let may_run_out = m.heap().mode() == Mode::NoGc || modes.contains(StressMode::EvacuateNothing);
        Self { table, expected: vec![0; SLOTS], random: Random(seed), next: 1, may_run_out }
    }

    fn fill(&mut self, m: &mut Mutator, ended: &AtomicBool) {
        for _ in 0..FIRST_NODES {
            if ended.load(Ordering::Relaxed) {
                return;
            }
            self.put(m);
            self.waste(m, GARBAGE);
        }
    }

    /// Allocates garbage.
    fn waste(&self, m: &mut Mutator, bytes: usize) {
        let result = m.scope(|m, inner| m.alloc_zeroed_bytes(inner, bytes).map(|_| ()));
        assert!(result.is_ok() || self.may_run_out, "{result:?}");
    }

    /// Puts a new node somewhere; it refers to itself and to another one, of which it knows the value.
    fn put(&mut self, m: &mut Mutator) {
        let (index, other) = (self.random.below(SLOTS), self.random.below(SLOTS));
        m.scope(|m, inner| {
            let node = match m.alloc::<Node>(inner) {
                Ok(node) => node,
                Err(error) => return assert!(self.may_run_out, "{error}"),
            };
            let (node, table) = (node.get(m), self.table.get(m));
            node.value.set(self.next);
            // Not of the other's other: chains would keep everything.
            let other = table.get(other).filter(|other| other.left.load().is_none());
            node.left.store(m, other);
            node.right.store(m, Some(node));
            table.set(m, index, Some(node));
            self.expected[index] = self.next;
            self.next += 1;
        });
    }

    fn step(&mut self, m: &mut Mutator) {
        let (from, to) = (self.random.below(SLOTS), self.random.below(SLOTS));
        match self.random.below(8) {
            0 | 1 => self.put(m),
            2 => {
                self.table.get(m).set(m, from, None);
                self.expected[from] = 0;
            }
            // The only reference to a node moves, as far as marking can know.
            3..=5 => {
                let table = self.table.get(m);
                let (one, other) = (table.get(from), table.get(to));
                table.set(m, from, other);
                table.set(m, to, one);
                self.expected.swap(from, to);
            }
            6 => m.safepoint(),
            _ => {
                let bytes = self.random.below(2_000);
                self.waste(m, bytes);
            }
        }
        self.check(m, from);
    }

    fn check(&self, m: &Mutator, index: usize) {
        let table = self.table.get(m);
        let node = table.get(index);
        assert_eq!(node.map_or(0, |node| node.value.get()), self.expected[index], "element {index}");
        if let Some(node) = node {
            assert!(node.right.load() == Some(node), "a reference to itself follows the object");
            let other = node.left.load().map(|other| other.value.get());
            assert!(other.is_none_or(|other| other < node.value.get()), "it refers to an older node");
        }
    }

    fn check_all(&self, m: &Mutator) {
        (0..SLOTS).for_each(|index| self.check(m, index));
    }
}

fn mutate(heap: &Heap, seed: u64, ended: &AtomicBool) {
    let work = |m: &mut Mutator| {
        m.scope(|m, s| {
            let mut model = Model::new(m, s, seed);
            model.fill(m, ended);
            while !ended.load(Ordering::Relaxed) {
                (0..64).for_each(|_| model.step(m));
            }
            model.check_all(m);
        });
    };
    heap.attach(work).expect("attached once");
}

const LIMIT: usize = 64 << 20;

/// What a row tests: a stress mode, others that make it matter, and what the snapshot must say besides that it acted.
struct Row {
    mode: StressMode,
    with: &'static [StressMode],
    acts_in: fn(Mode) -> bool,
    /// Mutators take faults.
    faults: bool,
    proof: fn(&Snapshot) -> bool,
}

const fn row(mode: StressMode) -> Row {
    Row { mode, with: &[], acts_in: |mode| mode != Mode::NoGc, faults: true, proof: |_| true }
}

/// A mode that acts in concurrent modes only, with others.
const fn concurrent(mode: StressMode, with: &'static [StressMode]) -> Row {
    Row { with, acts_in: Mode::is_concurrent, ..row(mode) }
}

fn faults(snapshot: &Snapshot, path: FaultPath) -> u64 {
    let entry = snapshot.fault_paths.iter().find(|entry| entry.path == path);
    entry.map_or(0, |entry| entry.latency_ns.count)
}

/// Units that were built or returned for a fault.
fn served(snapshot: &Snapshot) -> u64 {
    [FaultPath::Built, FaultPath::Returned, FaultPath::Overtaken]
        .iter()
        .map(|&path| faults(snapshot, path))
        .sum()
}

fn table() -> Vec<Row> {
    use StressMode::*;
    let all_served = |s: &Snapshot| served(s) > 0;
    let none_served = |s: &Snapshot| served(s) == 0 && faults(s, FaultPath::Waited) > 0;
    let both_ways = |s: &Snapshot| s.counters.moved_bytes > 0 && s.counters.copied_bytes > 0;
    vec![
        row(CollectAllocations),
        // Who waits for a cycle takes no fault in it.
        Row { faults: false, ..row(CollectSafepoints) },
        row(CollectSites),
        Row { proof: all_served, ..concurrent(NoWorkers, &[]) },
        Row { proof: none_served, ..concurrent(NoMutatorService, &[]) },
        concurrent(Yields, &[]),
        Row {
            acts_in: |mode| mode == Mode::ConcurrentMove,
            proof: both_ways,
            ..concurrent(ToggleMoves, &[EvacuateAll])
        },
        row(ProtectFreed),
        row(PoisonFreed),
        Row { acts_in: |_| true, ..row(OneObjectBuffers) },
        Row { proof: |s| s.counters.evacuated_bytes > 0, ..row(EvacuateAll) },
        Row { faults: false, proof: |s| s.counters.evacuated_bytes == 0, ..row(EvacuateNothing) },
        Row { acts_in: |_| true, ..row(SignalStorm) },
        Row { acts_in: |_| true, ..row(ThreadChurn) },
        Row { proof: |s| s.memory.limit_bytes < LIMIT as u64, ..row(TightLimit) },
        Row { proof: |s| s.counters.copied_bytes > 0, ..concurrent(PageUnits, &[EvacuateAll]) },
        row(OverflowSlots),
        Row { proof: |s| s.counters.regions_taken > 0, ..concurrent(TakeAll, &[EvacuateAll]) },
        Row { proof: |s| s.counters.windows_taken > 0, ..concurrent(TakeWindows, &[EvacuateAll]) },
        Row {
            proof: |s| s.counters.regions_taken == 0,
            ..concurrent(TakeNothing, &[EvacuateAll, OverflowSlots])
        },
        concurrent(RefuseTakes, &[TakeAll, EvacuateAll]),
        concurrent(Overtake, &[Yields, EvacuateAll]),
    ]
}

#[test]
fn each_mode_has_a_row() {
    let rows = table();
    assert!(StressMode::ALL.iter().all(|&mode| rows.iter().any(|row| row.mode == mode)));
}

/// How long each row takes at least.
fn least() -> Duration {
    let seconds = std::env::var("STRIKESLIP_STRESS_MODES_SECONDS").ok();
    Duration::from_secs_f64(seconds.map_or(0.0, |text| text.parse().expect("a number of seconds")))
}

fn options(row: &Row, verify: VerifyLevel) -> HeapOptions {
    let modes = StressModes::of(&[&[row.mode], row.with].concat());
    HeapOptions {
        limit_bytes: LIMIT,
        // So that there are claims of others to overtake.
        workers: if row.mode == StressMode::Overtake { 3 } else { 1 },
        verify,
        stress: StressOptions { modes, ..StressOptions::default() },
        ..HeapOptions::default()
    }
}

/// Runs two mutators until the heap has proved what the row says.
fn run(row: &Row, mode: Mode, delivery: Option<Delivery>, verify: VerifyLevel) -> Option<Snapshot> {
    let heap = heap_in(mode, delivery, options(row, verify))?;
    let acted =
        |snapshot: &Snapshot| snapshot.stress.iter().any(|count| count.mode == row.mode && count.acted > 0);
    let proved = |s: &Snapshot| {
        mode == Mode::NoGc
            || s.counters.cycles >= 3
                && (!(row.acts_in)(mode) || acted(s) && (row.proof)(s))
                && (!row.faults || !mode.is_concurrent() || s.counters.mutator_faults > 0)
    };
    let ended = AtomicBool::new(false);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let _end = SetOnDrop(&ended);
        let mutators = [1, 2].map(|seed| {
            scope.spawn({
                let (heap, ended) = (&heap, &ended);
                move || mutate(heap, seed, ended)
            })
        });
        let runs = |thread: &std::thread::ScopedJoinHandle<'_, ()>| !thread.is_finished();
        while mutators.iter().all(runs) && (begin.elapsed() < least() || !proved(&heap.snapshot())) {
            assert!(begin.elapsed() < MOST, "{}, {mode} {delivery:?}: {:?}", row.mode, heap.snapshot());
            heap.collector().request_collection();
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let snapshot = heap.snapshot();
    assert_eq!(mode.is_concurrent(), heap.delivery().is_some());
    Some(snapshot)
}

#[test]
fn every_mode_in_every_mode_and_delivery() {
    let (mut cycles, mut faults, mut bytes, mut runs) = (0, 0, 0, 0);
    for (nth, row) in table().iter().enumerate() {
        for (mode, delivery) in all_modes() {
            let begin = Instant::now();
            let level = VerifyLevel::ALL[1 + (nth + runs) % (VerifyLevel::ALL.len() - 1)];
            let Some(snapshot) = run(row, mode, delivery, level) else { continue };
            let counters = snapshot.counters;
            let delivery = delivery.map_or("", Delivery::name);
            println!(
                "{:20} {mode:16} {delivery:8} verify {level:9}: {:4} cycles, {:6} faults, {:?}, {:.1} s",
                row.mode.name(),
                counters.cycles,
                counters.mutator_faults,
                snapshot.stress.iter().map(|count| count.acted).collect::<Vec<_>>(),
                begin.elapsed().as_secs_f64()
            );
            cycles += counters.cycles;
            faults += counters.mutator_faults;
            bytes += counters.verified_bytes + counters.compared_bytes;
            runs += 1;
        }
    }
    println!("{runs} runs: {cycles} cycles, {faults} mutator faults, {bytes} bytes verified, nothing wrong");
    assert!(runs > 0 && cycles > 0 && bytes > 0);
}
