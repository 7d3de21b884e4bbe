//! Programs on the toy embedder: on the kernel, and on simulated pages under `shuttle`.

#![allow(dead_code, reason = "a fuzz target uses one of the two")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shuttle::scheduler::Scheduler;
use strikeslip_gc::address::ToAddress;
use strikeslip_gc::extent::Extent;
use strikeslip_gc::layout::{Header, Layout, LayoutId, Tail, register_layout};
use strikeslip_gc::options::{Delivery, ForcedAnswers, HeapOptions, Mode, StressOptions, VerifyLevel};
use strikeslip_gc::plan::Pressure;
use strikeslip_gc::roots::{RootPage, RootPageKind};
use strikeslip_gc::simulation::SimulatedHeap;
use strikeslip_gc::stats::Snapshot;

use crate::program::interpreter::{Demand, Machine, OutOfMemory, ThreadTurns, Turns, World};
use crate::program::{Collection, Kind, Program, Setup};
use crate::simulated::{self, Shuttle};
use crate::toy_embedder::{Mutator, Toy, layouts};

/// How much a collection evacuates, and what it looks at.
const fn order(collection: Collection) -> (Pressure, Extent) {
    match collection {
        Collection::Young => (Pressure::Normal, Extent::Young),
        Collection::Full => (Pressure::High, Extent::Full),
        Collection::Everything => (Pressure::Everything, Extent::Full),
    }
}

/// The heap that a program asks for.
pub fn options(setup: &Setup) -> HeapOptions {
    let forced = ForcedAnswers {
        seed: setup.seed,
        per_mille: setup.forced_per_mille,
        refuse_moves_after: setup.refuse_moves_after,
        refuse_registrations: setup.refuse_registrations,
    };
    let is_forced = forced != ForcedAnswers { seed: setup.seed, ..ForcedAnswers::default() };
    HeapOptions {
        limit_bytes: setup.limit_bytes,
        mode: if setup.moves { Mode::ConcurrentMove } else { Mode::ConcurrentCopy },
        delivery: Some(if setup.pool { Delivery::Pool } else { Delivery::InPlace }),
        fall_back: false,
        workers: setup.workers,
        mark_workers: setup.mark_workers,
        huge_pages: setup.huge_pages,
        buffer_bytes: setup.buffer_bytes,
        evacuate_below: f64::from(setup.evacuate_below_percent) / 100.0,
        patch_budget: setup.patch_budget,
        verify: VerifyLevel::ALL[setup.verify % VerifyLevel::ALL.len()],
        automatic: setup.automatic,
        young_cycles: setup.young_cycles,
        low_weight_marking: false,
        stress: StressOptions { forced_answers: is_forced.then_some(forced), ..StressOptions::default() },
        ..HeapOptions::default()
    }
}

fn mixed() -> LayoutId {
    static MIXED: std::sync::OnceLock<LayoutId> = std::sync::OnceLock::new();
    let layout = || Layout::new(5, &[1, 3], Tail::None).expect("valid");
    *MIXED.get_or_init(|| register_layout(layout()).expect("few layouts"))
}

fn header(kind: Kind, length: usize) -> Header {
    let layout = match kind {
        Kind::Node => layouts().node,
        Kind::Array => layouts().array,
        Kind::Data | Kind::Pinned => layouts().data,
        Kind::Mixed => mixed(),
    };
    Header::new(layout, length as u32)
}

/// How a toy mutator has collections made.
#[derive(Copy, Clone)]
enum Collector<'t> {
    Kernel(&'t Demand<'t>),
    /// With the cycle that was asked for.
    Simulated(&'t SimulatedHeap, u64),
}

/// A toy mutator. A reference is an address, so its layout says where its slots are.
struct ToyMachine<'t> {
    mutator: Mutator,
    globals: &'t RootPage,
    collector: Collector<'t>,
}

impl ToyMachine<'_> {
    fn is_mixed(&self, object: ToAddress) -> bool {
        self.mutator.header(object).layout_id() == mixed()
    }

    /// The word of a reference slot.
    fn slot(&self, object: ToAddress, slot: usize) -> usize {
        if self.is_mixed(object) { 2 + 2 * slot } else { 1 + slot }
    }

    /// The word of a plain word.
    fn word(&self, object: ToAddress, word: usize) -> usize {
        let layout = self.mutator.header(object).layout_id();
        if layout == layouts().node {
            3
        } else if layout == mixed() {
            1 + 2 * word
        } else {
            1 + word
        }
    }
}

impl Machine for ToyMachine<'_> {
    type Reference<'m>
        = ToAddress
    where
        Self: 'm;

    fn allocate(&mut self, kind: Kind, length: usize, into: usize) -> Result<(), OutOfMemory> {
        let layout = header(kind, length).layout_id();
        let allocated = match kind {
            Kind::Pinned => self.mutator.alloc_pinned(layout, length),
            _ => self.mutator.alloc(layout, length),
        };
        self.mutator.set_root(into, Some(allocated.map_err(|_| OutOfMemory)?));
        Ok(())
    }

    fn safepoint(&mut self) {
        self.mutator.poll();
    }

    fn blocked(&mut self, wait: &mut dyn FnMut()) {
        self.mutator.blocked(wait);
    }

    fn request(&mut self, collection: Collection) {
        match &mut self.collector {
            Collector::Kernel(demand) => demand.request(collection),
            Collector::Simulated(heap, cycle) => {
                let (pressure, extent) = order(collection);
                *cycle = heap.request(pressure, extent);
            }
        }
    }

    fn is_pending(&self) -> bool {
        match self.collector {
            Collector::Kernel(demand) => demand.is_pending(),
            Collector::Simulated(heap, cycle) => {
                // Whoever asks again and again lets the controller go on, whatever its priority.
                shuttle::thread::yield_now();
                !heap.is_complete(cycle)
            }
        }
    }

    fn wait_for_collection(&mut self) {
        self.mutator.blocked(|| match self.collector {
            Collector::Kernel(demand) => demand.wait(),
            Collector::Simulated(heap, cycle) => {
                while !heap.is_complete(cycle) {
                    shuttle::thread::yield_now();
                }
            }
        });
    }

    fn register(&self, register: usize) -> Option<ToAddress> {
        self.mutator.root(register)
    }

    fn set_register(&self, register: usize, value: Option<ToAddress>) {
        self.mutator.set_root(register, value);
    }

    fn global(&self, global: usize) -> Option<ToAddress> {
        self.mutator.subscribe(self.globals, global)
    }

    fn set_global(&self, global: usize, value: Option<ToAddress>) {
        match value {
            Some(value) => self.mutator.publish(self.globals, global, value),
            None => self.mutator.withdraw(self.globals, global),
        }
    }

    fn load(&self, holder: ToAddress, slot: usize) -> Option<ToAddress> {
        self.mutator.load(holder, self.slot(holder, slot))
    }

    fn store(&self, holder: ToAddress, slot: usize, value: Option<ToAddress>) {
        self.mutator.store(holder, self.slot(holder, slot), value);
    }

    fn read(&self, holder: ToAddress, word: usize) -> u64 {
        self.mutator.get(holder, self.word(holder, word))
    }

    fn write(&self, holder: ToAddress, word: usize, value: u64) {
        self.mutator.set(holder, self.word(holder, word), value);
    }

    fn is(&self, object: ToAddress, kind: Kind, length: usize) -> bool {
        self.mutator.header(object) == header(kind, length)
    }

    fn address(&self, object: ToAddress) -> usize {
        object.get()
    }

    fn pin(&mut self, register: usize) -> bool {
        // In a simulation nobody may hold a lock while another one has its turn.
        let pins = matches!(self.collector, Collector::Kernel(_));
        if pins {
            let object = || self.mutator.root(register).expect("an object to pin");
            self.mutator.blocked(|| self.mutator.heap.pin(&object));
        }
        pins
    }

    fn unpin(&mut self, register: usize) {
        self.mutator.heap.unpin(self.mutator.root(register).expect("a pinned object"));
    }
}

/// What came of a program.
#[derive(Debug)]
pub struct Outcome {
    pub snapshot: Snapshot,
    /// Objects that were compared with the oracle.
    pub compared: usize,
    /// Allocations for which there was no memory.
    pub refused: usize,
}

/// Runs a program on the kernel.
pub fn run(program: &Program, options: HeapOptions) -> Outcome {
    let toy = Toy::new(options).expect("a heap");
    let globals = toy.heap.roots().allocate(RootPageKind::Paged).expect("room for roots");
    let turns = ThreadTurns::default();
    let world = World::new(program, &turns, toy.heap.mode() != Mode::NoGc, 4);
    let demand = Demand::new(&turns);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            demand.serve(|collection| match order(collection) {
                (_, Extent::Young) => toy.heap.collect_young(),
                (pressure, Extent::Full) => toy.heap.collect_with(pressure),
            });
        });
        demand.end_after(|| {
            std::thread::scope(|scope| {
                for context in 0..program.setup.contexts {
                    let (toy, globals, world, demand) = (&toy, &globals, &world, &demand);
                    scope.spawn(move || {
                        let collector = Collector::Kernel(demand);
                        world.run(&mut ToyMachine { mutator: toy.attach(), globals, collector }, context);
                    });
                }
            });
        });
    });
    let oracle = world.oracle();
    Outcome { snapshot: toy.heap.snapshot(), compared: oracle.compared, refused: oracle.refused }
}

/// Turns of threads of `shuttle`'s: who waits is not chosen.
#[derive(Default)]
struct SimulatedTurns {
    lock: shuttle::sync::Mutex<()>,
    condition: shuttle::sync::Condvar,
}

impl Turns for SimulatedTurns {
    fn wait(&self, done: &dyn Fn() -> bool) {
        let mut lock = self.lock.lock().expect("nobody panics with it");
        while !done() {
            lock = self.condition.wait(lock).expect("nobody panics with it");
        }
    }

    fn changed(&self) {
        drop(self.lock.lock());
        self.condition.notify_all();
    }
}

/// Runs a program on simulated pages, in an order that `scheduler` chooses. Everything depends on the program and
/// the scheduler.
pub fn simulate(
    program: &Program,
    scheduler: impl Scheduler + 'static,
    seen: impl Fn(Outcome) + Send + Sync + 'static,
) {
    let program = program.clone();
    shuttle::Runner::new(scheduler, simulated::config()).run(move || seen(run_simulated(&program)));
}

fn run_simulated(program: &Program) -> Outcome {
    let setup = program.setup;
    let (toy, heap) = Toy::simulated(options(&setup), Arc::new(Shuttle), setup.seed).expect("a heap");
    let globals = toy.heap.roots().allocate_with(RootPageKind::Paged, |_| {}).expect("room for roots");
    let turns = SimulatedTurns::default();
    let world = World::new(program, &turns, true, 1);
    let ended = AtomicBool::new(false);
    shuttle::thread::scope(|scope| {
        // The controller, and the threads of a pool.
        scope.spawn(|| simulated::until(&ended, || _ = heap.collect_if_asked()));
        if setup.pool {
            scope.spawn(|| simulated::until(&ended, || _ = heap.read_events()));
            scope.spawn(|| simulated::until(&ended, || heap.drain_faults()));
        }
        shuttle::thread::scope(|scope| {
            for context in 0..setup.contexts {
                let (toy, globals, world, heap) = (&toy, &globals, &world, &*heap);
                scope.spawn(move || {
                    let collector = Collector::Simulated(heap, 0);
                    world.run(&mut ToyMachine { mutator: toy.attach(), globals, collector }, context);
                });
            }
        });
        ended.store(true, Ordering::Relaxed);
    });
    let oracle = world.oracle();
    Outcome { snapshot: heap.heap.snapshot(), compared: oracle.compared, refused: oracle.refused }
}
