//! The smallest complete embedder: threads that poll, block, answer handshakes, stop and resume.
//!
//! Used by the integration tests on their own threads. Everything but a mutator's poll is under one
//! lock, which makes it slow and easy to believe.
//!
//! Invariants:
//! 1. A member's context is used by its own thread while its status is `Running`, and otherwise by
//!    the controller, which holds the lock or has stopped the world.
//! 2. A status changes under the lock only.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod graph;

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use strikeslip_gc::address::ToAddress;
use strikeslip_gc::context::{Exhausted, MemoryNeed, MutatorContext};
use strikeslip_gc::embedder::Embedder;
use strikeslip_gc::error::{AllocError, HeapError};
use strikeslip_gc::heap::Heap;
use strikeslip_gc::layout::{Header, Layout, LayoutId, Tail, register_layout};
use strikeslip_gc::options::{Delivery, HeapOptions, Mode};
use strikeslip_gc::roots::{ROOT_SLOTS, RootPage, RootPageKind};
use strikeslip_gc::simulation::SimulatedHeap;
use strikeslip_gc::sys::schedule::{Schedule, Step};
use strikeslip_gc::sys::simulated::SimulatedPages;

/// Every mode that collects, with every delivery.
pub const MODES: [(Mode, Option<Delivery>); 5] = [
    (Mode::StopTheWorld, None),
    (Mode::ConcurrentCopy, Some(Delivery::Pool)),
    (Mode::ConcurrentCopy, Some(Delivery::InPlace)),
    (Mode::ConcurrentMove, Some(Delivery::Pool)),
    (Mode::ConcurrentMove, Some(Delivery::InPlace)),
];

/// The layouts that tests use.
#[derive(Copy, Clone, Debug)]
pub struct Layouts {
    /// Two references (words 1 and 2) and one plain word (3).
    pub node: LayoutId,
    /// An array of references (elements from word 1 on).
    pub array: LayoutId,
    /// Plain words.
    pub data: LayoutId,
}

pub fn layouts() -> Layouts {
    static LAYOUTS: OnceLock<Layouts> = OnceLock::new();
    let make = |fixed, references: &[u32], tail| {
        register_layout(Layout::new(fixed, references, tail).expect("valid")).expect("few layouts")
    };
    *LAYOUTS.get_or_init(|| Layouts {
        node: make(3, &[0, 1], Tail::None),
        array: make(0, &[], Tail::References),
        data: make(0, &[], Tail::Data(3)),
    })
}

type Action = dyn Fn(&MutatorContext) + Sync;

/// The action of a handshake, without its lifetime: `handshake` outlives every use of it.
#[derive(Copy, Clone)]
struct ActionPointer(*const Action);
// SAFETY: it points to something Sync, and is used only while `handshake` waits.
unsafe impl Send for ActionPointer {}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Status {
    Running,
    Blocked,
    Stopped,
}

struct Member {
    context: MutatorContext,
    attention: AtomicBool,
}
// SAFETY: the context is used by one party at a time (invariant 1).
unsafe impl Send for Member {}
// SAFETY: as above.
unsafe impl Sync for Member {}

struct Entry {
    member: Arc<Member>,
    status: Status,
    pending: Option<ActionPointer>,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    stopping: bool,
    /// Mutators that wait to run.
    waiting: usize,
    requested: Option<Instant>,
}

/// What takes the place of the system in a simulation.
struct Simulation {
    heap: Weak<SimulatedHeap>,
    pages: Arc<SimulatedPages>,
    schedule: Arc<dyn Schedule>,
}

impl Simulation {
    fn heap(&self) -> Arc<SimulatedHeap> {
        self.heap.upgrade().expect("the heap outlives its mutators")
    }
}

#[derive(Default)]
struct Registry {
    state: Mutex<State>,
    changed: Condvar,
    simulation: OnceLock<Simulation>,
    /// To report pauses that nobody waited for.
    heap: Mutex<Option<Heap>>,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if let Some(simulation) = self.simulation.get() {
            drop(state);
            simulation.schedule.yield_now();
            return self.lock();
        }
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Before a mutator touches this address.
    fn access(&self, address: usize) {
        let address = ToAddress::new(address);
        if let Some(simulation) = self.simulation.get()
            && simulation.pages.is_missing(address)
        {
            simulation.heap().access(address);
        }
    }

    fn wait_for_memory(&self, heap: &Heap, need: MemoryNeed) -> Result<(), AllocError> {
        match self.simulation.get() {
            Some(simulation) => simulation.heap().wait_for_memory(need),
            None => heap.wait_for_memory(need),
        }
    }

    /// Waits until the world runs; whoever is the last to do so ends the pause.
    fn run_again<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        member: &Arc<Member>,
        heap: &Heap,
    ) -> MutexGuard<'a, State> {
        if state.stopping {
            state.waiting += 1;
            while state.stopping {
                state = self.wait(state);
            }
            state.waiting -= 1;
            if state.waiting == 0
                && let Some(requested) = state.requested.take()
            {
                heap.pause_ended(requested);
            }
        }
        state.entry(member).status = Status::Running;
        state
    }
}

impl State {
    fn entry(&mut self, member: &Arc<Member>) -> &mut Entry {
        self.entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.member, member)).expect("attached")
    }

    /// Runs the action that the member is asked for.
    fn answer(&mut self, member: &Arc<Member>) {
        if let Some(action) = self.entry(member).pending.take() {
            // SAFETY: `handshake` waits until nothing is pending, so the action still lives.
            unsafe { (*action.0)(&member.context) };
        }
    }
}

/// The seam.
struct Seam(Arc<Registry>);

// SAFETY: contexts are used by one party at a time (the module's invariants); statuses change under
// the lock, which orders what a mutator did with what the controller does; attaching takes it too.
unsafe impl Embedder for Seam {
    fn handshake(&self, action: &(dyn Fn(&MutatorContext) + Sync)) {
        let registry = &*self.0;
        let mut state = registry.lock();
        // SAFETY: only the lifetime is changed; this function returns when nothing is pending.
        let pointer = ActionPointer(unsafe {
            std::mem::transmute::<&(dyn Fn(&MutatorContext) + Sync), *const Action>(action)
        });
        for entry in &mut state.entries {
            if entry.status == Status::Running {
                entry.pending = Some(pointer);
                entry.member.attention.store(true, Ordering::Relaxed);
            } else {
                action(&entry.member.context);
            }
        }
        while state.entries.iter().any(|entry| entry.pending.is_some()) {
            state = registry.wait(state);
        }
    }

    fn stop_world(&self) {
        let mut state = self.0.lock();
        state.stopping = true;
        for entry in &state.entries {
            entry.member.attention.store(true, Ordering::Relaxed);
        }
        while state.entries.iter().any(|entry| entry.status == Status::Running) {
            state = self.0.wait(state);
        }
    }

    fn for_each_stopped(&self, action: &mut dyn FnMut(&MutatorContext)) {
        self.0.lock().entries.iter().for_each(|entry| action(&entry.member.context));
    }

    fn resume_world(&self, requested: Instant) {
        let mut state = self.0.lock();
        state.stopping = false;
        if state.waiting > 0 {
            state.requested = Some(requested);
        } else if let Some(heap) = &*self.0.heap.lock().unwrap_or_else(PoisonError::into_inner) {
            heap.pause_ended(requested);
        }
        self.0.changed.notify_all();
    }
}

/// A heap with this embedder.
pub struct Toy {
    pub heap: Heap,
    registry: Arc<Registry>,
}

impl Drop for Toy {
    fn drop(&mut self) {
        *self.registry.heap.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Toy {
    pub fn new(options: HeapOptions) -> Result<Self, HeapError> {
        let registry = Arc::new(Registry::default());
        let heap = Heap::new(options, Arc::new(Seam(registry.clone())))?;
        *registry.heap.lock().unwrap_or_else(PoisonError::into_inner) = Some(heap.clone());
        Ok(Self { heap, registry })
    }

    /// A heap whose page service is simulated, for mutators on the schedule's threads.
    pub fn simulated(
        options: HeapOptions,
        schedule: Arc<dyn Schedule>,
        seed: u64,
    ) -> Result<(Self, Arc<SimulatedHeap>), HeapError> {
        let registry = Arc::new(Registry::default());
        let seam = Arc::new(Seam(registry.clone()));
        let simulated = Arc::new(SimulatedHeap::new(options, seam, schedule.clone(), seed)?);
        let (heap, pages) = (Arc::downgrade(&simulated), simulated.pages().clone());
        let simulation = Simulation { heap, pages, schedule };
        assert!(registry.simulation.set(simulation).is_ok(), "the registry is new");
        let heap = simulated.heap.clone();
        *registry.heap.lock().unwrap_or_else(PoisonError::into_inner) = Some(heap.clone());
        Ok((Self { heap, registry }, simulated))
    }

    /// Makes the calling thread a mutator.
    pub fn attach(&self) -> Mutator {
        let mut state = self.registry.lock();
        while state.stopping {
            state = self.registry.wait(state);
        }
        let member = Arc::new(Member { context: self.heap.attach(), attention: AtomicBool::new(false) });
        state.entries.push(Entry { member: member.clone(), status: Status::Running, pending: None });
        drop(state);
        let mutator = Mutator {
            heap: self.heap.clone(),
            registry: self.registry.clone(),
            member,
            pages: RefCell::default(),
        };
        mutator.add_roots(RootPageKind::Hot);
        mutator
    }
}

/// A mutator. Its references live in numbered root slots: the first [`ROOT_SLOTS`] in its hot page.
pub struct Mutator {
    pub heap: Heap,
    registry: Arc<Registry>,
    member: Arc<Member>,
    pages: RefCell<Vec<RootPage>>,
}

impl Drop for Mutator {
    fn drop(&mut self) {
        for page in self.pages.take() {
            self.registry.access(page.slots().as_ptr().addr());
            page.slots().iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
            self.heap.roots().free(page);
        }
        let mut state = self.registry.lock();
        state.answer(&self.member);
        while state.stopping {
            // Stopped like any other until the world runs.
            state.entry(&self.member).status = Status::Stopped;
            self.registry.changed.notify_all();
            state = self.registry.run_again(state, &self.member, &self.heap);
        }
        self.heap.detach(&self.member.context);
        state.entries.retain(|entry| !Arc::ptr_eq(&entry.member, &self.member));
        drop(state);
        self.registry.changed.notify_all();
    }
}

impl Mutator {
    /// Adds a page of root slots; returns the number of its first slot.
    pub fn add_roots(&self, kind: RootPageKind) -> usize {
        let access = |address: ToAddress| self.registry.access(address.get());
        let page = self.heap.roots().allocate_with(kind, access).expect("the root window is not full");
        let mut pages = self.pages.borrow_mut();
        pages.push(page);
        (pages.len() - 1) * ROOT_SLOTS
    }

    /// Frees the last page of root slots.
    pub fn drop_roots(&self) {
        let page = self.pages.borrow_mut().pop().expect("a page");
        self.registry.access(page.slots().as_ptr().addr());
        page.slots().iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
        self.heap.roots().free(page);
    }

    /// A safepoint.
    pub fn poll(&self) {
        if let Some(simulation) = self.registry.simulation.get() {
            simulation.schedule.step(Step::Mutated);
        }
        if self.member.attention.load(Ordering::Relaxed) {
            self.answer();
        }
    }

    #[cold]
    fn answer(&self) {
        let mut state = self.registry.lock();
        self.member.attention.store(false, Ordering::Relaxed);
        state.answer(&self.member);
        if state.stopping {
            state.entry(&self.member).status = Status::Stopped;
            self.registry.changed.notify_all();
            state = self.registry.run_again(state, &self.member, &self.heap);
        }
        drop(state);
        self.registry.changed.notify_all();
    }

    /// Runs `work`, which does not touch the heap, in a blocked state.
    pub fn blocked<R>(&self, work: impl FnOnce() -> R) -> R {
        let mut state = self.registry.lock();
        state.answer(&self.member);
        state.entry(&self.member).status = Status::Blocked;
        drop(state);
        self.registry.changed.notify_all();
        let result = work();
        drop(self.registry.run_again(self.registry.lock(), &self.member, &self.heap));
        result
    }

    /// Allocates an object of `layout` with `length` tail elements. A safepoint.
    pub fn alloc(&self, layout: LayoutId, length: usize) -> Result<ToAddress, AllocError> {
        self.alloc_with(layout, length, MutatorContext::allocate)
    }

    /// Allocates an object that never moves. A safepoint.
    pub fn alloc_pinned(&self, layout: LayoutId, length: usize) -> Result<ToAddress, AllocError> {
        self.alloc_with(layout, length, MutatorContext::allocate_pinned)
    }

    fn alloc_with(
        &self,
        layout: LayoutId,
        length: usize,
        allocate: impl Fn(&MutatorContext, Header, usize) -> Result<ToAddress, Exhausted>,
    ) -> Result<ToAddress, AllocError> {
        self.poll();
        let header = Header::new(layout, length as u32);
        loop {
            match allocate(&self.member.context, header, header.object_bytes()) {
                Ok(object) => return Ok(object),
                Err(Exhausted::Never(error)) => return Err(error),
                Err(Exhausted::Wait(need)) => {
                    self.blocked(|| self.registry.wait_for_memory(&self.heap, need))?;
                }
            }
        }
    }

    /// A root slot, there to be used.
    fn root_slot<'a>(&self, pages: &'a [RootPage], slot: usize) -> &'a AtomicU64 {
        self.present(&pages[slot / ROOT_SLOTS].slots()[slot % ROOT_SLOTS])
    }

    /// In a simulation, serves the fault that the access of `cell` would be.
    fn present<'a>(&self, cell: &'a AtomicU64) -> &'a AtomicU64 {
        self.registry.access(std::ptr::from_ref(cell).addr());
        cell
    }

    /// Puts a reference (or none) into a root slot.
    pub fn set_root(&self, slot: usize, object: Option<ToAddress>) {
        let pages = self.pages.borrow();
        let slot = self.root_slot(&pages, slot);
        match object {
            Some(object) => self.member.context.store_root(slot, object),
            None => slot.store(0, Ordering::Relaxed),
        }
    }

    /// The reference in a root slot.
    pub fn root(&self, slot: usize) -> Option<ToAddress> {
        let value = self.root_slot(&self.pages.borrow(), slot).load(Ordering::Relaxed);
        (value != 0).then(|| ToAddress::new(value as usize))
    }

    /// Puts a reference (or none) into a slot of a weak page.
    pub fn set_weak(&self, slot: usize, object: Option<ToAddress>) {
        let pages = self.pages.borrow();
        let slot = self.root_slot(&pages, slot);
        match object {
            Some(object) => self.member.context.store_weak(slot, object),
            None => slot.store(0, Ordering::Relaxed),
        }
    }

    /// Makes an ephemeron of a slot with an even number and the one behind it.
    pub fn set_ephemeron(&self, slot: usize, key: ToAddress, value: ToAddress) {
        let pages = self.pages.borrow();
        self.present(&pages[slot / ROOT_SLOTS].slots()[slot % ROOT_SLOTS]);
        let pair = pages[slot / ROOT_SLOTS].slots()[slot % ROOT_SLOTS..].first_chunk().expect("a pair");
        self.member.context.store_ephemeron(pair, key, value);
    }

    /// The object that a slot of a weak page refers to, if it lives.
    pub fn weak(&self, slot: usize) -> Option<ToAddress> {
        self.member.context.load_weak(self.root_slot(&self.pages.borrow(), slot))
    }

    /// Puts a reference into a slot of a page that mutators share.
    pub fn publish(&self, page: &RootPage, slot: usize, object: ToAddress) {
        self.member.context.store_root(self.present(&page.slots()[slot]), object);
    }

    /// Empties a slot of a page that mutators share.
    pub fn withdraw(&self, page: &RootPage, slot: usize) {
        self.present(&page.slots()[slot]).store(0, Ordering::Relaxed);
    }

    /// Loads a reference from a page that mutators share.
    pub fn subscribe(&self, page: &RootPage, slot: usize) -> Option<ToAddress> {
        // Acquire: pairs with the Release in `MutatorContext::store_root`.
        let value = self.present(&page.slots()[slot]).load(Ordering::Acquire);
        (value != 0).then(|| ToAddress::new(value as usize))
    }

    /// Word `word` (header = 0) of an object.
    fn cell(&self, object: ToAddress, word: usize) -> &AtomicU64 {
        // SAFETY: tests pass a reference that they loaded since the last safepoint, and a word inside
        // the object; words are accessed atomically only.
        self.present(unsafe { &*object.offset(word * 8).as_ptr::<AtomicU64>() })
    }

    /// Stores a reference through the barrier.
    pub fn store(&self, object: ToAddress, word: usize, value: Option<ToAddress>) {
        // SAFETY: as in `cell`; tests name words that the layout has as references.
        unsafe { self.member.context.store(self.cell(object, word), value) };
    }

    /// Loads a reference.
    pub fn load(&self, object: ToAddress, word: usize) -> Option<ToAddress> {
        // Acquire: pairs with the Release in `MutatorContext::store`.
        let value = self.cell(object, word).load(Ordering::Acquire);
        (value != 0).then(|| ToAddress::new(value as usize))
    }

    /// Reads a plain word.
    pub fn get(&self, object: ToAddress, word: usize) -> u64 {
        self.cell(object, word).load(Ordering::Relaxed)
    }

    /// Writes a plain word.
    pub fn set(&self, object: ToAddress, word: usize, value: u64) {
        self.cell(object, word).store(value, Ordering::Relaxed);
    }

    /// The object's header.
    pub fn header(&self, object: ToAddress) -> Header {
        Header::from_bits(self.get(object, 0))
    }

    /// Whether the collector marks at present.
    pub fn is_marking(&self) -> bool {
        self.member.context.is_marking()
    }
}
