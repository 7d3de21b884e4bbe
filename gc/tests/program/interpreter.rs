//! Runs a program: each operation on a [`Machine`] and on the oracle.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::oracle::{Id, Object, Oracle, mix};
use super::{Collection, Kind, Meanwhile, Operation, Program, REGISTERS};

/// There was no memory.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

/// A context of some embedder. A reference is valid until the next `&mut self`, which may be a safepoint.
pub trait Machine {
    type Reference<'m>: Copy
    where
        Self: 'm;

    /// Allocates a zeroed object into a register.
    fn allocate(&mut self, kind: Kind, length: usize, into: usize) -> Result<(), OutOfMemory>;
    fn safepoint(&mut self);
    /// Runs `wait` in a blocked state.
    fn blocked(&mut self, wait: &mut dyn FnMut());
    /// Asks for a collection.
    fn request(&mut self, collection: Collection);
    /// Whether what this context asked for is still to be done.
    fn is_pending(&self) -> bool;
    /// Waits in a blocked state until it is done.
    fn wait_for_collection(&mut self);

    fn register(&self, register: usize) -> Option<Self::Reference<'_>>;
    fn set_register(&self, register: usize, value: Option<Self::Reference<'_>>);
    fn global(&self, global: usize) -> Option<Self::Reference<'_>>;
    fn set_global(&self, global: usize, value: Option<Self::Reference<'_>>);

    fn load<'m>(&'m self, holder: Self::Reference<'m>, slot: usize) -> Option<Self::Reference<'m>>;
    fn store<'m>(&'m self, holder: Self::Reference<'m>, slot: usize, value: Option<Self::Reference<'m>>);
    fn read(&self, holder: Self::Reference<'_>, word: usize) -> u64;
    fn write(&self, holder: Self::Reference<'_>, word: usize, value: u64);
    /// Kind and length, as far as the heap knows them.
    fn is(&self, object: Self::Reference<'_>, kind: Kind, length: usize) -> bool;
    /// Where it is.
    fn address(&self, object: Self::Reference<'_>) -> usize;

    /// Pins the object in a register. False if this machine cannot.
    fn pin(&mut self, _register: usize) -> bool {
        false
    }
    fn unpin(&mut self, _register: usize) {}
}

/// How contexts wait for their turns.
pub trait Turns: Sync {
    /// Returns when `done` is true.
    fn wait(&self, done: &dyn Fn() -> bool);
    /// Something changed that `done` may tell.
    fn changed(&self);
}

/// Turns of threads of the system's.
#[derive(Default)]
pub struct ThreadTurns {
    lock: Mutex<()>,
    condition: std::sync::Condvar,
}

impl Turns for ThreadTurns {
    fn wait(&self, done: &dyn Fn() -> bool) {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !done() {
            lock = self.condition.wait(lock).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn changed(&self) {
        drop(self.lock.lock());
        self.condition.notify_all();
    }
}

/// Collections that contexts ask for, for embedders that can only wait for one: a thread does that.
pub struct Demand<'t> {
    turns: &'t dyn Turns,
    collection: Mutex<Collection>,
    asked: AtomicUsize,
    done: AtomicUsize,
    ended: AtomicBool,
}

impl<'t> Demand<'t> {
    pub fn new(turns: &'t dyn Turns) -> Self {
        let [asked, done] = [0; 2].map(AtomicUsize::new);
        Self { turns, collection: Mutex::new(Collection::Full), asked, done, ended: AtomicBool::new(false) }
    }

    pub fn request(&self, collection: Collection) {
        *self.collection.lock().unwrap_or_else(PoisonError::into_inner) = collection;
        // Release: pairs with the Acquire in `serve`, which sees the collection.
        self.asked.fetch_add(1, Ordering::Release);
        self.turns.changed();
    }

    pub fn is_pending(&self) -> bool {
        self.done.load(Ordering::Relaxed) < self.asked.load(Ordering::Relaxed)
    }

    pub fn wait(&self) {
        self.turns.wait(&|| !self.is_pending());
    }

    /// The thread: collects until [`Self::end`].
    pub fn serve(&self, collect: impl Fn(Collection)) {
        loop {
            self.turns.wait(&|| self.is_pending() || self.ended.load(Ordering::Relaxed));
            if !self.is_pending() {
                return;
            }
            let asked = self.asked.load(Ordering::Acquire);
            let collection = *self.collection.lock().unwrap_or_else(PoisonError::into_inner);
            collect(collection);
            self.done.store(asked, Ordering::Relaxed);
            self.turns.changed();
        }
    }

    /// Runs `contexts`; when they have ended, in whatever way, the thread ends.
    pub fn end_after<R>(&self, contexts: impl FnOnce() -> R) -> R {
        struct End<'a, 't>(&'a Demand<'t>);
        impl Drop for End<'_, '_> {
            fn drop(&mut self) {
                self.0.ended.store(true, Ordering::Relaxed);
                self.0.turns.changed();
            }
        }
        let _end = End(self);
        contexts()
    }
}

/// What the contexts of a running program share.
pub struct World<'w> {
    program: &'w Program,
    turns: &'w dyn Turns,
    oracle: Mutex<Oracle>,
    /// The turn that is on.
    turn: AtomicUsize,
    failed: AtomicBool,
    collects: bool,
    /// So many times as much is allocated by operations that allocate much.
    factor: usize,
}

impl<'w> World<'w> {
    /// `collects`: running out of memory although little is held would be wrong. `factor`: what allocates much
    /// allocates so many times as much.
    pub fn new(program: &'w Program, turns: &'w dyn Turns, collects: bool, factor: usize) -> Self {
        Self {
            program,
            turns,
            collects,
            factor,
            oracle: Mutex::default(),
            turn: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
        }
    }

    /// The oracle, by whose turn it is.
    pub fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs the turns of `context`. When it returns, this context is done; others may not be.
    pub fn run<M: Machine>(&self, machine: &mut M, context: usize) {
        /// Nobody waits for the turn of one that panicked.
        struct Fail<'a>(&'a World<'a>);
        impl Drop for Fail<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.failed.store(true, Ordering::Relaxed);
                    self.0.turns.changed();
                }
            }
        }
        let _fail = Fail(self);
        for (number, turn) in self.program.turns.iter().enumerate() {
            if turn.context != context {
                continue;
            }
            machine.blocked(&mut || self.wait_for(number));
            if self.failed.load(Ordering::Relaxed) {
                return;
            }
            for (nth, &operation) in turn.operations.iter().enumerate() {
                machine.safepoint();
                let path = mix((number as u64) << 32 | nth as u64);
                Step { machine, world: self, context, path }.perform(operation);
            }
            self.turn.store(number + 1, Ordering::Release);
            self.turns.changed();
        }
    }

    fn wait_for(&self, turn: usize) {
        // Acquire: pairs with the Release in `run`; what the one before did is seen.
        let done = || self.turn.load(Ordering::Acquire) >= turn || self.failed.load(Ordering::Relaxed);
        self.turns.wait(&done);
    }
}

/// A context in its turn.
struct Step<'s, 'w, M> {
    machine: &'s mut M,
    world: &'s World<'w>,
    context: usize,
    /// Where it goes when it roams.
    path: u64,
}

/// The last registers are the interpreter's own while it performs one operation.
const DATA: usize = REGISTERS - 1;
const NEW: usize = REGISTERS - 2;
/// Nodes of a list that are looked at when it is thinned.
const MOST_NODES: usize = 2000;
/// Words that are compared when an object is looked at.
const MOST_WORDS: usize = 200;

impl<M: Machine> Step<'_, '_, M> {
    fn perform(&mut self, operation: Operation) {
        match operation {
            Operation::Allocate { kind, length, into } => _ = self.allocate(kind, length, into),
            Operation::Load { holder, slot, into } => self.load(holder, slot, into),
            Operation::Store { holder, slot, from } => self.store(holder, slot, from),
            Operation::Copy { from, into } => self.copy(from, into),
            Operation::Drop { register } => self.clear(register),
            Operation::Write { holder, word, value } => self.write(holder, word, value),
            Operation::Look { register } => self.look(register),
            Operation::Publish { from, global } => self.publish(from, global),
            Operation::Subscribe { global, into } => self.subscribe(global, into),
            Operation::Grow { register, count, length } => self.grow(register, count, length),
            Operation::Thin { register } => self.thin(register),
            Operation::Waste { count, length } => self.waste(count, length),
            Operation::Pin { register, pinned } => self.pin(register, pinned),
            Operation::Collect { collection, meanwhile } => self.collect(collection, meanwhile),
            Operation::Roam { register, count } => self.roam(register, count),
            Operation::Check => self.check(),
            Operation::Switch { .. } => unreachable!("turns have none"),
        }
    }

    fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.world.oracle()
    }

    fn id(&self, register: usize) -> Option<Id> {
        self.oracle().registers[self.context][register]
    }

    fn set_id(&self, register: usize, id: Option<Id>) {
        self.oracle().registers[self.context][register] = id;
    }

    /// The object that the oracle has in a register, in the heap.
    fn register(&self, register: usize) -> M::Reference<'_> {
        self.machine.register(register).expect("the oracle has an object in this register")
    }

    fn allocate(&mut self, kind: Kind, length: usize, into: usize) -> Result<(), OutOfMemory> {
        if let Err(refused) = self.machine.allocate(kind, kind.length(length), into) {
            let mut oracle = self.oracle();
            oracle.refused += 1;
            let held = oracle.held_bytes() + kind.bytes(length);
            let limit = self.world.program.setup.limit_bytes;
            assert!(
                held > limit / 4 || !self.world.collects,
                "no memory, with {held} of {limit} bytes held at most"
            );
            return Err(refused);
        }
        let mut oracle = self.oracle();
        let id = oracle.make(kind, length);
        let object = self.register(into);
        for (word, value) in oracle.object(id).first_words() {
            assert_eq!(self.machine.read(object, word), 0, "a new {kind:?} is zero");
            self.machine.write(object, word, value);
        }
        oracle.registers[self.context][into] = Some(id);
        Ok(())
    }

    fn load(&self, holder: usize, slot: usize, into: usize) {
        let Some((id, slot)) = self.slot(holder, slot) else { return };
        let value = self.machine.load(self.register(holder), slot);
        let expected = self.oracle().object(id).references[slot];
        assert_eq!(value.is_some(), expected.is_some(), "reference {slot} of {id}");
        self.machine.set_register(into, value);
        self.set_id(into, expected);
    }

    /// The object in a register, and one of its slots, if it has any.
    fn slot(&self, holder: usize, slot: usize) -> Option<(Id, usize)> {
        let id = self.id(holder)?;
        let slots = self.oracle().object(id).references.len();
        (slots > 0).then(|| (id, slot * slots.div_ceil(256).max(1) % slots))
    }

    fn store(&self, holder: usize, slot: usize, from: Option<usize>) {
        let Some((id, slot)) = self.slot(holder, slot) else { return };
        let value = from.and_then(|from| self.machine.register(from));
        self.machine.store(self.register(holder), slot, value);
        let value = from.and_then(|from| self.id(from));
        self.oracle().object_mut(id).references[slot] = value;
    }

    fn copy(&self, from: usize, into: usize) {
        self.machine.set_register(into, self.machine.register(from));
        self.set_id(into, self.id(from));
    }

    fn clear(&self, register: usize) {
        self.machine.set_register(register, None);
        self.set_id(register, None);
    }

    fn write(&self, holder: usize, word: usize, value: u64) {
        let Some(id) = self.id(holder) else { return };
        let mut oracle = self.oracle();
        let object = oracle.object_mut(id);
        let words = object.kind.words(object.length);
        if words > 0 {
            let word = word * words.div_ceil(256).max(1) % words;
            self.machine.write(self.register(holder), word, value);
            object.write(word, value);
        }
    }

    fn publish(&self, from: Option<usize>, global: usize) {
        self.machine.set_global(global, from.and_then(|from| self.machine.register(from)));
        let id = from.and_then(|from| self.id(from));
        self.oracle().globals[global] = id;
    }

    fn subscribe(&self, global: usize, into: usize) {
        let (value, id) = (self.machine.global(global), self.oracle().globals[global]);
        assert_eq!(value.is_some(), id.is_some(), "global {global}");
        self.machine.set_register(into, value);
        self.set_id(into, id);
    }

    fn grow(&mut self, register: usize, count: usize, length: usize) {
        for _ in 0..count * self.world.factor {
            if self.allocate(Kind::Data, length, DATA).is_err() || self.allocate(Kind::Node, 0, NEW).is_err()
            {
                break;
            }
            // In the interpreter's own registers, a list is lost as soon as it is made.
            self.store(NEW, 0, Some(register));
            self.store(NEW, 1, Some(DATA));
            self.copy(NEW, register);
        }
        self.clear(DATA);
        self.clear(NEW);
    }

    fn thin(&mut self, register: usize) {
        self.copy(register, NEW);
        for _ in 0..MOST_NODES {
            if self.slot(NEW, 0).is_none() {
                break;
            }
            self.load(NEW, 0, DATA);
            if self.slot(DATA, 0).is_none() {
                break;
            }
            self.load(DATA, 0, DATA);
            self.store(NEW, 0, Some(DATA));
            self.copy(DATA, NEW);
            self.machine.safepoint();
        }
        self.clear(DATA);
        self.clear(NEW);
    }

    fn waste(&mut self, count: usize, length: usize) {
        for _ in 0..count * self.world.factor {
            if self.allocate(Kind::Data, length, DATA).is_err() {
                break;
            }
        }
        self.clear(DATA);
    }

    fn collect(&mut self, collection: Collection, meanwhile: Meanwhile) {
        self.machine.request(collection);
        match meanwhile {
            Meanwhile::GoOn => {}
            Meanwhile::Wait => self.machine.wait_for_collection(),
            Meanwhile::Roam(register) => {
                while self.machine.is_pending() {
                    self.machine.safepoint();
                    self.roam(register, 40);
                }
            }
        }
    }

    /// Follows references, always on along other ones, looks at what it finds, and stores again what is there.
    fn roam(&mut self, register: usize, count: usize) {
        self.copy(register, NEW);
        for _ in 0..count {
            self.path = mix(self.path);
            let at = self.path as usize % 1009;
            let Some((_, slot)) = self.slot(NEW, at) else { break };
            self.load(NEW, at, DATA);
            self.store(NEW, at, Some(DATA));
            if self.id(DATA).is_some() {
                self.look(DATA);
                // Data leads nowhere: stay where there is another way, and else go on.
                if self.slot(DATA, 0).is_some() {
                    self.copy(DATA, NEW);
                }
            } else if slot == 0 {
                self.copy(register, NEW);
            }
            self.machine.safepoint();
        }
        self.clear(DATA);
        self.clear(NEW);
    }

    fn pin(&mut self, register: usize, pinned: bool) {
        let Some(id) = self.id(register) else { return };
        if pinned {
            if self.machine.pin(register) {
                let at = self.machine.address(self.register(register));
                let mut oracle = self.oracle();
                let object = oracle.object_mut(id);
                object.pins += 1;
                object.pinned_at = Some(at);
            }
        } else if self.oracle().object(id).pins > 0 {
            self.machine.unpin(register);
            let mut oracle = self.oracle();
            let object = oracle.object_mut(id);
            object.pins -= 1;
            object.pinned_at = object.pinned_at.filter(|_| object.pins > 0);
        }
    }

    fn look(&self, register: usize) {
        let Some(id) = self.id(register) else { return };
        let mut oracle = self.oracle();
        oracle.compared += 1;
        let object = oracle.object(id);
        // Of a large object not everything, each time.
        let step = object.kind.words(object.length).div_ceil(MOST_WORDS).max(1);
        self.compare(self.register(register), object, step);
    }

    /// Compares every `step`-th word.
    fn compare(&self, found: M::Reference<'_>, object: &Object, step: usize) {
        let Object { id, kind, length, .. } = *object;
        assert!(self.machine.is(found, kind, length), "object {id} is no {kind:?} of length {length}");
        for word in (0..kind.words(length)).step_by(step) {
            let (found, expected) = (self.machine.read(found, word), object.word(word));
            assert_eq!(found, expected, "word {word} of {id}, a {kind:?} of length {length}");
        }
        if let Some(at) = object.pinned_at {
            assert_eq!(self.machine.address(found), at, "the pinned object {id} was moved");
        }
    }

    /// Compares everything, and that each object of the oracle is one object of the heap.
    fn check(&self) {
        let machine = &*self.machine;
        let mut oracle = self.oracle();
        let mut addresses: HashMap<Id, usize> = HashMap::new();
        // Whether this is to be looked at: an object that was not met yet.
        let mut is_new = |found: Option<M::Reference<'_>>, id: Option<Id>, what: &dyn Fn() -> String| {
            assert_eq!(found.is_some(), id.is_some(), "{}", what());
            let Some((found, id)) = found.zip(id) else { return false };
            let address = machine.address(found);
            let before = addresses.insert(id, address);
            assert!(before.is_none_or(|before| before == address), "two addresses of object {id}");
            before.is_none()
        };
        let mut stack = vec![];
        for (register, &id) in oracle.registers[self.context].iter().enumerate() {
            let found = machine.register(register);
            if is_new(found, id, &|| format!("register {register}")) {
                stack.extend(found.zip(id));
            }
        }
        for (global, &id) in oracle.globals.iter().enumerate() {
            let found = machine.global(global);
            if is_new(found, id, &|| format!("global {global}")) {
                stack.extend(found.zip(id));
            }
        }
        while let Some((holder, id)) = stack.pop() {
            let object = oracle.object(id);
            self.compare(holder, object, 1);
            for (slot, &id) in object.references.iter().enumerate() {
                let found = machine.load(holder, slot);
                if is_new(found, id, &|| format!("reference {slot} of {}", object.id)) {
                    stack.extend(found.zip(id));
                }
            }
        }
        let different: HashSet<_> = addresses.values().collect();
        assert_eq!(different.len(), addresses.len(), "one address of two objects");
        oracle.compared += addresses.len();
    }
}
