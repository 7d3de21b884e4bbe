//! Property test: random programs on object graphs against an oracle, through the safe interface. The programs, the
//! oracle and the interpreter are the collector's (`gc/tests/program`).

mod common;
#[path = "../../gc/tests/program/draw.rs"]
mod draw;
#[path = "../../gc/tests/program/mod.rs"]
mod program;

use std::sync::{Mutex, PoisonError};

use common::all_modes;
use draw::for_programs;
use program::interpreter::{Demand, Machine, OutOfMemory, ThreadTurns, World};
use program::{Collection, GLOBALS, Kind, Program, REGISTERS, Setup};
use strikeslip::gc::plan::Pressure;
use strikeslip::{
    Any, Array, Delivery, Field, Gc, Heap, HeapOptions, Local, Mode, Mutator, Persistent, PinnedBytes, Scope,
    Slot, VerifyLevel, Words, object,
};

object! {
    struct Node {
        left: Slot<Any>,
        right: Slot<Any>,
        value: Field<u64>,
    }
    struct Mixed {
        first: Field<u64>,
        left: Slot<Any>,
        second: Field<u64>,
        right: Slot<Any>,
        third: Field<u64>,
    }
}

/// A mutator. What is empty refers to `nil`.
struct RuntimeMachine<'m, 's> {
    m: &'m mut Mutator,
    nil: Local<'s, Any>,
    registers: [Local<'s, Any>; REGISTERS],
    globals: &'m [Persistent<Any>; GLOBALS],
    demand: &'m Demand<'m>,
}

impl RuntimeMachine<'_, '_> {
    fn unless_nil<'n>(&'n self, object: Gc<'n, Any>) -> Option<Gc<'n, Any>> {
        (!object.ptr_eq(self.nil.get(self.m))).then_some(object)
    }

    fn or_nil<'n>(&'n self, object: Option<Gc<'n, Any>>) -> Gc<'n, Any> {
        object.unwrap_or_else(|| self.nil.get(self.m))
    }
}

fn slot<'n>(holder: Gc<'n, Any>, slot: usize) -> &'n Slot<Any> {
    if let Some(node) = holder.downcast::<Node>() {
        let node = node.as_ref();
        [&node.left, &node.right][slot]
    } else if let Some(mixed) = holder.downcast::<Mixed>() {
        let mixed = mixed.as_ref();
        [&mixed.left, &mixed.right][slot]
    } else {
        holder.downcast::<Array<Any>>().expect("something with references").as_ref().slot(slot)
    }
}

fn field<'n>(holder: Gc<'n, Any>, word: usize) -> Option<&'n Field<u64>> {
    if let Some(node) = holder.downcast::<Node>() {
        Some(&node.as_ref().value)
    } else {
        let mixed = holder.downcast::<Mixed>()?.as_ref();
        Some([&mixed.first, &mixed.second, &mixed.third][word])
    }
}

impl Machine for RuntimeMachine<'_, '_> {
    type Reference<'n>
        = Gc<'n, Any>
    where
        Self: 'n;

    fn allocate(&mut self, kind: Kind, length: usize, into: usize) -> Result<(), OutOfMemory> {
        let register = self.registers[into];
        self.m.scope(|m, s| {
            let made = match kind {
                Kind::Node => m.alloc::<Node>(s).map(|made| made.get(m).erase()),
                Kind::Mixed => m.alloc::<Mixed>(s).map(|made| made.get(m).erase()),
                Kind::Array => m.alloc_array::<Any>(s, length).map(|made| made.get(m).erase()),
                Kind::Data => m.alloc_words(s, length).map(|made| made.get(m).erase()),
                Kind::Pinned => m.alloc_pinned_bytes(s, 8 * length).map(|made| made.get(m).erase()),
            };
            register.set(m, made.map_err(|_| OutOfMemory)?);
            Ok(())
        })
    }

    fn safepoint(&mut self) {
        self.m.safepoint();
    }

    fn blocked(&mut self, wait: &mut dyn FnMut()) {
        self.m.blocked(wait);
    }

    fn request(&mut self, collection: Collection) {
        self.demand.request(collection);
    }

    fn is_pending(&self) -> bool {
        self.demand.is_pending()
    }

    fn wait_for_collection(&mut self) {
        let demand = self.demand;
        self.m.blocked(|| demand.wait());
    }

    fn register(&self, register: usize) -> Option<Gc<'_, Any>> {
        self.unless_nil(self.registers[register].get(self.m))
    }

    fn set_register(&self, register: usize, value: Option<Gc<'_, Any>>) {
        self.registers[register].set(self.m, self.or_nil(value));
    }

    fn global(&self, global: usize) -> Option<Gc<'_, Any>> {
        self.unless_nil(self.globals[global].get(self.m))
    }

    fn set_global(&self, global: usize, value: Option<Gc<'_, Any>>) {
        self.globals[global].set(self.m, self.or_nil(value));
    }

    fn load<'m>(&'m self, holder: Gc<'m, Any>, number: usize) -> Option<Gc<'m, Any>> {
        slot(holder, number).load()
    }

    fn store<'m>(&'m self, holder: Gc<'m, Any>, number: usize, value: Option<Gc<'m, Any>>) {
        slot(holder, number).store(self.m, value);
    }

    fn read(&self, holder: Gc<'_, Any>, word: usize) -> u64 {
        if let Some(field) = field(holder, word) {
            return field.get();
        }
        if let Some(words) = holder.downcast::<Words>() {
            return words.get(word);
        }
        let mut bytes = [0; 8];
        holder.downcast::<PinnedBytes>().expect("something with words").copy_to(8 * word, &mut bytes);
        u64::from_ne_bytes(bytes)
    }

    fn write(&self, holder: Gc<'_, Any>, word: usize, value: u64) {
        if let Some(field) = field(holder, word) {
            field.set(value);
        } else if let Some(words) = holder.downcast::<Words>() {
            words.set(word, value);
        } else {
            let pinned = holder.downcast::<PinnedBytes>().expect("something with words");
            pinned.write(8 * word, &value.to_ne_bytes());
        }
    }

    fn is(&self, object: Gc<'_, Any>, kind: Kind, length: usize) -> bool {
        match kind {
            Kind::Node => object.is::<Node>(),
            Kind::Mixed => object.is::<Mixed>(),
            Kind::Array => object.downcast::<Array<Any>>().is_some_and(|array| array.len() == length),
            Kind::Data => object.downcast::<Words>().is_some_and(|words| words.len() == length),
            Kind::Pinned => object.downcast::<PinnedBytes>().is_some_and(|bytes| bytes.len() == 8 * length),
        }
    }

    fn address(&self, object: Gc<'_, Any>) -> usize {
        std::ptr::from_ref(object.as_ref()).addr()
    }
}

fn options(setup: &Setup, mode: Mode, delivery: Option<Delivery>) -> HeapOptions {
    HeapOptions {
        limit_bytes: setup.limit_bytes,
        mode,
        delivery,
        fall_back: false,
        workers: setup.workers,
        mark_workers: setup.mark_workers,
        huge_pages: setup.huge_pages,
        buffer_bytes: setup.buffer_bytes,
        patch_budget: setup.patch_budget,
        verify: VerifyLevel::ALL[setup.verify % VerifyLevel::ALL.len()],
        automatic: setup.automatic,
        young_cycles: setup.young_cycles,
        ..HeapOptions::default()
    }
}

/// What came of programs.
#[derive(Debug, Default)]
struct Sums {
    cycles: u64,
    faults: u64,
    compared: usize,
}

fn work(m: &mut Mutator, s: &Scope<'_>, world: &World<'_>, context: usize, shared: &Shared<'_>) {
    let nil = s.root(shared.nil.get(m));
    let registers = [(); REGISTERS].map(|()| s.root(shared.nil.get(m)));
    let Shared { globals, demand, .. } = shared;
    world.run(&mut RuntimeMachine { m, nil, registers, globals, demand }, context);
}

/// What the contexts share.
struct Shared<'d> {
    nil: Persistent<Any>,
    globals: [Persistent<Any>; GLOBALS],
    demand: Demand<'d>,
}

fn run(program: &Program, heap: &Heap) -> usize {
    let turns = ThreadTurns::default();
    let world = World::new(program, &turns, heap.mode() != Mode::NoGc, 4);
    let shared = heap.attach(|m| {
        m.scope(|m, s| {
            let nil = m.alloc::<Node>(s).expect("room for an object");
            let persistent = || m.persistent(nil.get(m).erase());
            Shared {
                nil: persistent(),
                globals: [(); GLOBALS].map(|()| persistent()),
                demand: Demand::new(&turns),
            }
        })
    });
    let shared = shared.expect("attached once");
    std::thread::scope(|threads| {
        threads.spawn(|| {
            shared.demand.serve(|collection| match collection {
                Collection::Young => heap.collector().collect_young(),
                Collection::Full => heap.collect(),
                Collection::Everything => heap.collector().collect_with(Pressure::Everything),
            });
        });
        shared.demand.end_after(|| {
            std::thread::scope(|threads| {
                for context in 0..program.setup.contexts {
                    let (world, shared) = (&world, &shared);
                    threads.spawn(move || {
                        heap.attach(|m| m.scope(|m, s| work(m, s, world, context, shared)))
                            .expect("attached once");
                    });
                }
            });
        });
    });
    world.oracle().compared
}

/// So often are programs drawn until a mutator takes a fault.
const ATTEMPTS: usize = 10;

#[test]
fn programs_agree_with_the_oracle() {
    for (mode, delivery) in all_modes() {
        let sums = Mutex::new(Sums::default());
        // More of them, if by chance no mutator took a fault.
        for _ in 0..ATTEMPTS {
            for_programs(6, 100, |program| {
                let heap = Heap::new(options(&program.setup, mode, delivery)).expect("a heap");
                let compared = run(program, &heap);
                let snapshot = heap.snapshot();
                let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
                sums.cycles += snapshot.counters.cycles;
                sums.faults += snapshot.counters.mutator_faults;
                sums.compared += compared;
            });
            let faults = sums.lock().unwrap_or_else(PoisonError::into_inner).faults;
            if faults > 0 || !mode.is_concurrent() {
                break;
            }
        }
        let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!("{mode}, {delivery:?}: {sums:?}");
        assert!(sums.compared > 0 && (mode == Mode::NoGc || sums.cycles > 0), "{sums:?}");
        assert!(!mode.is_concurrent() || sums.faults > 0, "{sums:?}");
    }
}
