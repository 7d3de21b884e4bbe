//! The barrier against marking: no reachable object is lost; and what leaving out a part of it loses.
//!
//! Real are the shading, the live map, the classes of regions, buffers and queues, the decision what
//! to visit, and the rounds. The heap is a few objects of one slot, in a region of candidates and in
//! a fresh one; a handshake takes each mutator's lock, which the mutator holds between two safepoints
//! (that handshakes are like that is shown by the runtime's model).

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;

use crate::address::{RegionIndex, ToAddress, WordIndex};
use crate::barrier::{self, BarrierQueues, Recorded, Records};
use crate::livemap::LiveMap;
use crate::mark;
use crate::region::{Class, Regions};
use crate::roots::root_reference;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::model::{Model, assert_each_ordering_matters, assert_finds, check};
use crate::weak::Upgrades;

/// Objects of the candidate region: `A`, `B` and `C`; and `F`, which is allocated meanwhile.
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;
pub(super) const C: usize = 2;
const F: usize = 3;

/// What is left out, or done in the wrong order.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum Barrier {
    Whole,
    OldOnly,
    NewOnly,
    /// Objects are born marked while some barriers are still off.
    FreshAtOnce,
    /// The rounds end when nothing was handed over *before* the handshake.
    NoCleanRound,
    /// Stores into root slots are not shaded.
    RootsUnshaded,
    /// Nor are old values.
    RootsUnshadedNewOnly,
    /// Upgrades are counted when the last handshake is over, not before it.
    CountsLate,
    /// Neither upgrades nor stores into root slots are shaded.
    UpgradesUnshaded,
    /// Memory is given back when weak slots are cleared, without a handshake.
    FreesAtOnce,
}

pub(super) struct Context {
    marking: bool,
    records: Records,
}

pub(super) struct Heap {
    variant: Barrier,
    regions: Regions,
    live: LiveMap,
    queues: BarrierQueues,
    /// The objects' slots.
    slots: Vec<AtomicU64>,
    /// Root slots, two of each mutator.
    roots: [[AtomicU64; 2]; 2],
    contexts: [Mutex<Context>; 2],
    /// Weak slots, one of each mutator.
    pub(super) weak: [AtomicU64; 2],
    upgrades: Upgrades,
    /// What an upgrade found dead, by mutator. (No part of the model, as the next.)
    found_dead: std::sync::Mutex<[Option<usize>; 2]>,
    /// The candidate region was given back, and is in use again.
    reused: std::sync::Mutex<bool>,
    /// Where objects are allocated; under the lock of the free regions.
    allocates_fresh: Mutex<bool>,
}

// SAFETY: contexts are used under their locks.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

fn word(object: usize) -> WordIndex {
    let region = RegionIndex(u32::from(object == F));
    region.first_word().offset(4 * object as u32)
}

fn address(object: usize) -> u64 {
    (object as u64 + 1) * 8
}

fn object(address: u64) -> Option<usize> {
    (address != 0).then(|| (address / 8) as usize - 1)
}

fn word_of(address: ToAddress) -> WordIndex {
    word(object(address.get() as u64).expect("an object"))
}

/// What a mutator does between two safepoints.
pub(super) struct Running<'a> {
    heap: &'a Heap,
    mutator: usize,
    context: &'a mut Context,
}

impl Running<'_> {
    pub(super) fn root(&self, nth: usize) -> Option<usize> {
        object(self.heap.roots[self.mutator][nth].load(Ordering::Relaxed))
    }

    pub(super) fn load(&self, from: usize) -> Option<usize> {
        // As the runtime's loads.
        object(self.heap.slots[from].load(Ordering::Acquire))
    }

    fn shade(&self, object: ToAddress) {
        let heap = self.heap;
        let word = word_of(object);
        if barrier::is_white(&heap.regions, &heap.live, word) {
            // SAFETY: the context's lock is held.
            unsafe { self.context.records.push(&heap.queues, Recorded::Shades, word) };
        }
    }

    /// As `MutatorContext::store`.
    pub(super) fn store(&self, into: usize, value: Option<usize>) {
        let slot = &self.heap.slots[into];
        let new = value.map(|object| ToAddress::new(address(object) as usize));
        if self.context.marking {
            match self.heap.variant {
                Barrier::OldOnly => barrier::shade_both(slot, None, |object| self.shade(object)),
                Barrier::NewOnly | Barrier::RootsUnshadedNewOnly => {
                    new.into_iter().for_each(|object| self.shade(object))
                }
                _ => barrier::shade_both(slot, new, |object| self.shade(object)),
            }
        }
        slot.store(value.map_or(0, address), Ordering::Release);
    }

    /// As `MutatorContext::store_root`.
    pub(super) fn store_root(&self, nth: usize, value: usize) {
        self.heap.roots[self.mutator][nth].store(address(value), Ordering::Release);
        let unshaded = matches!(
            self.heap.variant,
            Barrier::RootsUnshaded | Barrier::RootsUnshadedNewOnly | Barrier::UpgradesUnshaded
        );
        if self.context.marking && !unshaded {
            self.shade(ToAddress::new(address(value) as usize));
        }
    }

    pub(super) fn clear_root(&self, nth: usize) {
        self.heap.roots[self.mutator][nth].store(0, Ordering::Relaxed);
    }

    /// As `MutatorContext::load_weak`, of this mutator's weak slot.
    pub(super) fn upgrade(&self) -> Option<usize> {
        let heap = self.heap;
        let slot = &heap.weak[self.mutator];
        let held = object(slot.load(Ordering::Relaxed))?;
        let found = if self.context.marking {
            let white = |object: ToAddress| barrier::is_white(&heap.regions, &heap.live, word_of(object));
            heap.upgrades.upgrade(slot, white, |object| {
                if heap.variant != Barrier::UpgradesUnshaded {
                    // SAFETY: the context's lock is held.
                    unsafe { self.context.records.push(&heap.queues, Recorded::Shades, word_of(object)) };
                }
            })
        } else {
            root_reference(slot.load(Ordering::Acquire))
        };
        let found = found.and_then(|found| object(found.get() as u64));
        match found {
            Some(_) => assert!(!*heap.reused.lock().unwrap(), "a reference to memory that is in use again"),
            None => heap.found_dead.lock().unwrap()[self.mutator] = Some(held),
        }
        found
    }

    /// Allocates `F`, if a fresh region is what mutators are given now.
    fn allocate_fresh(&self) -> Option<usize> {
        (*self.heap.allocates_fresh.lock().unwrap()).then_some(F)
    }
}

impl Heap {
    pub(super) fn new(variant: Barrier, script: &Script) -> Arc<Self> {
        let queues = BarrierQueues::default();
        let context = || Mutex::new(Context { marking: false, records: Records::new(&queues) });
        let cell = |object: Option<usize>| AtomicU64::new(object.map_or(0, address));
        let heap = Self {
            variant,
            regions: Regions::new(2),
            live: LiveMap::new(1).unwrap(),
            slots: script.slots.map(cell).into(),
            roots: script.roots.map(|roots| roots.map(cell)),
            contexts: [context(), context()],
            allocates_fresh: Mutex::new(false),
            weak: script.weak.map(cell),
            upgrades: Upgrades::default(),
            found_dead: std::sync::Mutex::default(),
            reused: std::sync::Mutex::default(),
            queues,
        };
        heap.regions.set_class(RegionIndex(0), Class::Candidate);
        heap.regions.set_class(RegionIndex(1), Class::Fresh);
        Arc::new(heap)
    }

    pub(super) fn run(&self, mutator: usize, section: impl FnOnce(&mut Running<'_>)) {
        let context = &mut *self.contexts[mutator].lock().unwrap();
        section(&mut Running { heap: self, mutator, context });
    }

    fn handshake(&self, action: impl Fn(&mut Context)) {
        self.contexts.iter().for_each(|context| action(&mut context.lock().unwrap()));
    }

    fn hand_over(&self) {
        // SAFETY: the context's lock is held.
        self.handshake(|context| unsafe { context.records.hand_over(&self.queues) });
    }

    fn discover(&self, address: u64, work: &mut Vec<usize>) {
        if let Some(object) = object(address)
            && mark::needs_visit(&self.regions, word(object))
        {
            work.push(object);
        }
    }

    /// As `Marking::round`, by one worker.
    fn round(&self, roots: &mut bool) {
        let mut work = vec![];
        if std::mem::take(roots) {
            for slot in self.roots.iter().flatten() {
                self.discover(slot.load(Ordering::Acquire), &mut work);
                self.drain(&mut work);
            }
        }
        while let Some(buffer) = self.queues.take(Recorded::Shades) {
            work.extend(buffer.entries().iter().map(|word| word.0 as usize / 4));
            self.queues.give_back(buffer);
            self.drain(&mut work);
        }
    }

    fn drain(&self, work: &mut Vec<usize>) {
        while let Some(object) = work.pop() {
            if self.live.mark(word(object), 2) {
                self.discover(self.slots[object].load(Ordering::Acquire), work);
            }
        }
    }

    /// Steps 1 to 3 of the cycle.
    pub(super) fn mark(&self) {
        let at_once = self.variant == Barrier::FreshAtOnce;
        *self.allocates_fresh.lock().unwrap() = at_once;
        self.handshake(|context| context.marking = true);
        if !at_once {
            *self.allocates_fresh.lock().unwrap() = true;
            self.handshake(|_| ());
        }
        let mut roots = true;
        if self.variant == Barrier::NoCleanRound {
            self.round(&mut roots);
            return;
        }
        let has_news = || !self.queues.is_empty(Recorded::Shades);
        if self.variant == Barrier::CountsLate {
            loop {
                self.round(&mut roots);
                self.hand_over();
                if !has_news() && self.upgrades.close(self.upgrades.count()) {
                    return;
                }
            }
        }
        if !mark::until_clean(&self.upgrades, || self.round(&mut roots), || self.hand_over(), has_news) {
            self.end_stopped(&mut roots);
        }
    }

    /// As `Marking::finish_stopped`.
    fn end_stopped(&self, roots: &mut bool) {
        let stopped = self.contexts.each_ref().map(|context| context.lock().unwrap());
        // SAFETY: the contexts' locks are held.
        stopped.iter().for_each(|context| unsafe { context.records.hand_over(&self.queues) });
        self.round(roots);
        assert!(self.upgrades.close(self.upgrades.count()), "an upgrade while the world is stopped");
    }

    /// Step 4, and what the plan does with a region in which nothing is live.
    pub(super) fn clear_and_free(&self) {
        let is_live = |object: usize| self.live.is_marked(word(object));
        for slot in &self.weak {
            let value = slot.load(Ordering::Relaxed);
            if object(value).is_some_and(|object| object != F && !is_live(object)) {
                let _ = slot.compare_exchange(value, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
        if self.variant != Barrier::FreesAtOnce {
            self.handshake(|_| ());
        }
        if ![A, B, C].into_iter().any(is_live) {
            *self.reused.lock().unwrap() = true;
            self.regions.set_class(RegionIndex(0), Class::Fresh);
        }
    }

    /// What is reachable is marked, and nobody was told that it is dead.
    pub(super) fn assert_nothing_lost(&self) {
        let mut reachable: Vec<_> =
            self.roots.iter().flatten().filter_map(|root| object(root.load(Ordering::Relaxed))).collect();
        for _ in 0..self.slots.len() {
            reachable.extend(
                reachable.clone().iter().filter_map(|&from| object(self.slots[from].load(Ordering::Relaxed))),
            );
        }
        for object in reachable {
            assert!(object == F || self.live.is_marked(word(object)), "object {object} is lost");
            let dead = *self.found_dead.lock().unwrap();
            assert!(!dead.contains(&Some(object)), "object {object} was found dead, and is reachable");
        }
    }
}

pub(super) type Section = fn(&mut Running<'_>);

/// The heap at the beginning, and what the mutators do.
pub(super) struct Script {
    pub(super) slots: [Option<usize>; 4],
    pub(super) roots: [[Option<usize>; 2]; 2],
    pub(super) weak: [Option<usize>; 2],
    pub(super) sections: [&'static [Section]; 2],
}

/// `A → B → C`, and both mutators have `A`.
const CHAIN: Script = Script {
    slots: [Some(B), Some(C), None, None],
    roots: [[Some(A), None], [Some(A), None]],
    weak: [None; 2],
    sections: [&[], &[]],
};

/// Both mutators have `A`, and the second has `C`.
const APART: Script = Script {
    slots: [None; 4],
    roots: [[Some(A), None], [Some(A), Some(C)]],
    weak: [None; 2],
    sections: [&[], &[]],
};

/// Marks while two mutators run their sections.
pub(super) fn mark_beside(variant: Barrier, script: &'static Script) {
    let heap = Heap::new(variant, script);
    let mutators: Vec<_> = (0..2)
        .map(|mutator| {
            let heap = heap.clone();
            let sections = script.sections[mutator];
            thread::spawn(move || sections.iter().for_each(|section| heap.run(mutator, section)))
        })
        .collect();
    heap.mark();
    if script.weak != [None; 2] {
        heap.clear_and_free();
    }
    mutators.into_iter().for_each(|mutator| mutator.join().unwrap());
    heap.assert_nothing_lost();
}

/// One mutator moves `C` from `B` into `A`, which drops `B`, and lets go of `A`; the other keeps what it
/// finds in `A`, and cuts it off.
static MOVE: Script = Script {
    sections: [
        &[|m| {
            let Some(b) = m.load(A) else { return };
            let Some(c) = m.load(b) else { return };
            m.store(A, Some(c));
            m.clear_root(0);
        }],
        &[
            |m| {
                if let Some(found) = m.load(A) {
                    m.store_root(1, found);
                    m.store(A, None);
                }
            },
            |m| m.clear_root(0),
        ],
    ],
    ..CHAIN
};

/// One mutator takes `B` out of `A`, then `C` out of `B`, into root slots; the other clears the slots.
static STEAL: Script = Script {
    sections: [
        &[
            |m| {
                if let Some(b) = m.load(A) {
                    m.store_root(1, b);
                    m.clear_root(0);
                }
            },
            |m| {
                if let Some(c) = m.root(1).and_then(|b| m.load(b)) {
                    m.store_root(0, c);
                    m.clear_root(1);
                }
            },
        ],
        &[|m| {
            if let Some(b) = m.load(A) {
                m.store(b, None);
                m.store(A, None);
            }
        }],
    ],
    ..CHAIN
};

/// One mutator publishes a fresh object in `A`; the other puts `C`, which it alone has, into it.
static FRESH: Script = Script {
    sections: [
        &[|m| {
            if let Some(fresh) = m.allocate_fresh() {
                m.store(A, Some(fresh));
            }
        }],
        &[|m| {
            if let (Some(F), Some(c)) = (m.load(A), m.root(1)) {
                m.store(F, Some(c));
                m.clear_root(1);
            }
        }],
    ],
    ..APART
};

/// One mutator hides `C`, which it alone has, in `A`; the other takes what it finds there.
static HIDE: Script = Script {
    sections: [
        &[|m| {
            if let Some(c) = m.load(A) {
                m.store_root(1, c);
                m.store(A, None);
            }
        }],
        &[|m| {
            if let Some(c) = m.root(1) {
                m.store(A, Some(c));
                m.clear_root(1);
            }
        }],
    ],
    ..APART
};

/// A mutator moves `C` from one root slot to another.
static SHUFFLE: Script = Script {
    sections: [
        &[],
        &[|m| {
            if let Some(c) = m.root(1) {
                m.store_root(0, c);
                m.clear_root(1);
            }
        }],
    ],
    ..APART
};

static ALL: [&Script; 5] = [&MOVE, &STEAL, &FRESH, &HIDE, &SHUFFLE];

#[test]
fn nothing_is_lost() {
    for script in ALL {
        check(2, move || mark_beside(Barrier::Whole, script));
    }
}

/// Stores into root slots are shaded, so whatever a mutator takes out of the heap is grey before its next
/// safepoint, and what is put into the heap is shaded too: no black slot ever holds a white object. The old
/// value is shaded besides; what depends on it is a barrier that does not shade root slots.
#[test]
fn shading_the_old_value_matters_only_if_root_slots_are_not_shaded() {
    for script in ALL {
        check(2, move || mark_beside(Barrier::NewOnly, script));
    }
    assert_finds("is lost", 2, || mark_beside(Barrier::RootsUnshadedNewOnly, &STEAL));
}

#[test]
fn shading_the_old_value_only_loses_an_object() {
    assert_finds("is lost", 3, || mark_beside(Barrier::OldOnly, &HIDE));
}

#[test]
fn unshaded_root_slots_lose_an_object() {
    assert_finds("is lost", 2, || mark_beside(Barrier::RootsUnshaded, &SHUFFLE));
}

#[test]
fn one_handshake_at_the_start_loses_an_object() {
    assert_finds("is lost", 2, || mark_beside(Barrier::FreshAtOnce, &FRESH));
}

#[test]
fn ending_without_a_clean_round_loses_an_object() {
    assert_finds("is lost", 2, || mark_beside(Barrier::NoCleanRound, &HIDE));
}

/// Two workers: when both are idle, all is done, and each sees what the other did.
fn workers_run_dry() {
    struct Work {
        queue: [Mutex<Vec<u32>>; 2],
        active: AtomicUsize,
        done: AtomicU64,
    }
    fn run(work: &Work, me: usize) {
        loop {
            while let Some(task) = take(work, me) {
                // A task of 2 or more makes two smaller ones.
                work.done.fetch_add(1, Ordering::Relaxed);
                work.queue[me].lock().unwrap().extend((task >= 2).then_some(task / 2));
            }
            if !mark::wait_for_work(&work.active, None, || {
                work.queue.iter().any(|q| !q.lock().unwrap().is_empty())
            }) {
                break;
            }
        }
        assert_eq!(work.done.load(Ordering::Relaxed), 2, "a worker ends while there is work");
    }
    fn take(work: &Work, me: usize) -> Option<u32> {
        let mine = work.queue[me].lock().unwrap().pop();
        mine.or_else(|| work.queue[1 - me].lock().unwrap().pop())
    }
    let work = Arc::new(Work {
        queue: [Mutex::new(vec![2]), Mutex::new(vec![])],
        active: AtomicUsize::new(2),
        done: AtomicU64::new(0),
    });
    let other = thread::spawn({
        let work = work.clone();
        move || run(&work, 1)
    });
    run(&work, 0);
    other.join().unwrap();
}

#[test]
fn workers_end_when_nothing_is_left() {
    // What is read of objects and root slots lies in heap memory.
    let elsewhere = ["slot.load(", "slot_cell.load("];
    assert_each_ordering_matters("mark.rs", &elsewhere, &[Model::new(2, workers_run_dry)]);
}
