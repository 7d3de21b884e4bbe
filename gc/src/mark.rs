//! Marking: concurrent, parallel, with work stealing.
//!
//! Run by the marking pool while mutators run (or, in stop-the-world mode, while they do not). Roots
//! are the root pages; the barrier's shades come in as buffers. Marking ends when a handshake has
//! handed over all mutators' buffers and nothing in them was new. That one clean round is enough:
//! an object that a mutator shades during it was reachable, when marking had no grey objects left,
//! only from objects already scanned, and so is marked. Loads from weak slots can resurrect others: that none did is
//! part of what ends marking ([`crate::weak`]).
//!
//! By-products: the live map, live bytes of each region, and the slots that point into candidate
//! regions.
//!
//! Invariants:
//! 1. All barriers are on, and objects are born in fresh regions, before the first root is scanned.
//! 2. No page is missing while marking runs, so to-space addresses can be read.
//! 3. Objects in fresh regions are never scanned: what they hold was shaded when it was stored.
//! 4. In a young cycle, old objects count as live and are not looked at: what they refer to that is young, the
//!    remembered set tells.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use rayon::ThreadPool;

use crate::address::{PageIndex, RegionIndex, ToAddress, WordIndex};
use crate::barrier::Recorded;
use crate::build::for_each_slot;
use crate::core::Core;
use crate::embedder::WorldStopped;
use crate::geometry::{LARGE_OBJECT_BYTES, WORD_BYTES};
use crate::layout::{Header, Tail};
use crate::region::{Class, Regions};
use crate::remembered::OldToYoung;
use crate::roots::root_reference;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{hint, spins, thread};
use crate::sys::schedule::{Schedule, Step};
use crate::sys::{prefetch, sched};
use crate::weak::{self, Upgrades};

/// Elements of a reference array that are scanned as one task.
const ARRAY_PIECE: u32 = 1024;
/// Tasks between two looks at whether somebody waits for memory.
const TASKS_BETWEEN_LOOKS: u32 = 1024;
/// Tasks between two steps of a simulation: small, so that mutators run in between.
const TASKS_BETWEEN_STEPS: u32 = 16;
/// The nice value of marking threads: on few processors, the latency of a concurrent collector is mostly
/// competition for a core. They give it up when a mutator waits for memory.
const LOW_WEIGHT: i32 = 5;
/// Tasks between two looks at whether other markers may lack work.
const TASKS_BETWEEN_SHARES: u32 = 64;
/// Fewer tasks than these are not worth sharing, and more are not given away at once.
const LEAST_SHARED: usize = 16;
const MOST_SHARED: usize = 256;
/// Objects whose headers and marks are being prefetched.
const PREFETCH: usize = 16;

/// What marking found: only the plan can be made of it.
#[derive(Debug, Default)]
pub struct Marked {
    /// Slots that pointed into candidate regions when they were scanned or stored.
    pub slots: Vec<WordIndex>,
    /// Bytes found live.
    pub live_bytes: u64,
}

/// Something to do: an object to visit, or (if `element` is not 0) the rest of an array to scan from
/// element `element`.
#[derive(Copy, Clone, Debug)]
struct Task {
    word: WordIndex,
    element: u32,
}

/// One worker's results, kept over the rounds of a cycle.
#[derive(Debug, Default)]
struct Tally {
    live_bytes: Vec<u32>,
    slots: Vec<WordIndex>,
}

/// Where marking begins.
#[derive(Debug)]
enum Origin {
    /// The slots of a root page.
    Roots(PageIndex),
    /// Slots of old objects.
    Slots(Vec<WordIndex>),
    /// All slots of an old region.
    Region(RegionIndex),
}

/// Remembered slots that are scanned as one task.
const SLOTS_PIECE: usize = 1024;

/// Work and termination shared by the workers of one marking.
#[derive(Debug)]
pub struct Marking<'a> {
    core: &'a Core,
    injector: Injector<Task>,
    origins: Mutex<VecDeque<Origin>>,
    tallies: Vec<Mutex<Tally>>,
    /// The world is stopped, and waits for marking.
    stopped: AtomicBool,
}

impl<'a> Marking<'a> {
    /// Prepares marking of everything reachable from the root pages in use now, and, in a young cycle, from old
    /// objects.
    #[must_use]
    pub fn new(core: &'a Core, workers: usize, old_to_young: &OldToYoung) -> Self {
        let regions = core.space.range.regions();
        let tally = || Mutex::new(Tally { live_bytes: vec![0; regions], ..Tally::default() });
        let slots = old_to_young.slots.chunks(SLOTS_PIECE).map(|slots| Origin::Slots(slots.to_vec()));
        let walked = old_to_young.regions.iter().copied().map(Origin::Region);
        let origins = core.roots.pages_in_use().map(Origin::Roots).chain(slots).chain(walked).collect();
        Self {
            core,
            injector: Injector::new(),
            origins: Mutex::new(origins),
            tallies: (0..workers).map(|_| tally()).collect(),
            stopped: AtomicBool::new(false),
        }
    }

    /// One round: marks until no work is left that the workers know of, and no ephemeron has a value to be marked.
    pub fn round(&self, pool: &ThreadPool) {
        loop {
            self.drain(pool);
            let mut found = false;
            weak::for_each_value_to_mark(self.core, |word| {
                found = true;
                self.injector.push(Task { word, element: 0 });
            });
            if !found {
                return;
            }
        }
    }

    fn drain(&self, pool: &ThreadPool) {
        let count = self.tallies.len();
        let deques: Vec<_> = (0..count).map(|_| Worker::new_lifo()).collect();
        let stealers: Vec<_> = deques.iter().map(Worker::stealer).collect();
        let active = AtomicUsize::new(count);
        let markers = Mutex::new(deques.into_iter().zip(&self.tallies));
        self.core.serving.run_workers(pool, count, &|| {
            let next = markers.lock().unwrap_or_else(PoisonError::into_inner).next();
            let (deque, tally) = next.expect("one for each worker");
            let tally = &mut *tally.lock().unwrap_or_else(PoisonError::into_inner);
            let pending = VecDeque::with_capacity(PREFETCH + 1);
            let low_weight = self.takes_low_weight() && sched::set_weight(LOW_WEIGHT);
            let (marking, stack, stealers) = (self, VecDeque::with_capacity(MOST_SHARED), &*stealers);
            let mut marker = Marker { marking, stack, deque, stealers, tally, pending, low_weight };
            marker.run(&active);
            marker.take_full_weight();
        });
    }

    fn takes_low_weight(&self) -> bool {
        let options = &self.core.options;
        let urgent = self.core.control.is_urgent() || self.stopped.load(Ordering::Relaxed);
        options.low_weight_marking && options.mode.is_concurrent() && !urgent
    }

    /// The last of marking, with the world stopped: nobody shades or resurrects anything meanwhile.
    pub fn finish_stopped(&self, pool: &ThreadPool, _world: &WorldStopped) {
        let core = self.core;
        self.stopped.store(true, Ordering::Relaxed);
        core.embedder.for_each_stopped(&mut |context| context.hand_over_records());
        if self.has_news() {
            self.round(pool);
        }
        let closed = core.upgrades.close(core.upgrades.count());
        assert!(closed, "an upgrade while the world is stopped");
        core.stats.counters.marking_stops.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether mutators handed over objects to be marked.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.core.barrier.is_empty(Recorded::Shades)
    }

    /// Ends marking: publishes live bytes, collects the recorded slots.
    #[must_use]
    pub fn finish(self) -> Marked {
        let core = self.core;
        let mut marked = Marked::default();
        for tally in self.tallies {
            let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
            for (region, &bytes) in tally.live_bytes.iter().enumerate() {
                if bytes > 0 {
                    let record = core.space.regions.record(RegionIndex(region as u32));
                    record.live_bytes.fetch_add(bytes, Ordering::Relaxed);
                    marked.live_bytes += u64::from(bytes);
                }
            }
            marked.slots.extend(tally.slots);
        }
        marked
    }
}

/// Idle until there is work (true) or all workers are idle (false).
pub(crate) fn wait_for_work(
    active: &AtomicUsize,
    schedule: Option<&dyn Schedule>,
    has_work: impl Fn() -> bool,
) -> bool {
    // AcqRel: pairs with itself and the Acquire below: whoever sees the count reach 0 sees all that was
    // marked.
    active.fetch_sub(1, Ordering::AcqRel);
    let mut rounds = 0;
    loop {
        // Acquire: as above.
        if active.load(Ordering::Acquire) == 0 {
            return false;
        }
        if has_work() {
            // Relaxed: what a count of 0 tells comes from those who left.
            active.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        rounds += 1;
        match schedule {
            Some(schedule) => schedule.yield_now(),
            None if rounds < spins(100) => hint::spin_loop(),
            None if rounds < spins(120) => thread::yield_now(),
            // Work may not come for long: what is left may be a list. A processor is worth more to others.
            None => thread::nap(),
        }
    }
}

/// Whether an object that a reference was found to has to be visited, if it is not marked. Whether it is, is asked
/// when its mark has come into the cache.
#[inline]
pub(crate) fn needs_visit(regions: &Regions, word: WordIndex) -> bool {
    match regions.class(word.region()) {
        Class::Fresh | Class::Settled => false,
        Class::Free => panic!("reference to word {:#x} in a free region: the heap is corrupt", word.0),
        Class::New | Class::Candidate | Class::Traced => true,
    }
}

/// Handshakes that upgrades may spoil before marking ends with the world stopped.
const SPOILED_MAX: u32 = if cfg!(loom) { 2 } else { 8 };

/// Rounds of marking until a handshake brings nothing new, and no white object was upgraded meanwhile. False
/// if upgrades spoiled so many handshakes that marking might not end.
pub(crate) fn until_clean(
    upgrades: &Upgrades,
    mut round: impl FnMut(),
    mut hand_over: impl FnMut(),
    has_news: impl Fn() -> bool,
) -> bool {
    let mut spoiled = 0;
    while spoiled < SPOILED_MAX {
        round();
        // Before the handshake: who was counted earlier has shaded the object when it is over.
        let counted = upgrades.count();
        hand_over();
        if !has_news() && upgrades.close(counted) {
            return true;
        }
        spoiled += u32::from(upgrades.count() != counted);
    }
    false
}

struct Marker<'a> {
    marking: &'a Marking<'a>,
    /// This marker's own tasks. Taking one from the deque, where others may steal it, costs a full fence, for which all
    /// loads under way have to be there: and marking is little but loads.
    stack: VecDeque<Task>,
    /// What it shares: the tasks that it found first, and so those with the most behind them.
    deque: Worker<Task>,
    stealers: &'a [Stealer<Task>],
    tally: &'a mut Tally,
    /// Tasks whose headers are on their way into the cache.
    pending: VecDeque<Task>,
    /// This thread has given up weight.
    low_weight: bool,
}

impl Marker<'_> {
    fn run(&mut self, active: &AtomicUsize) {
        let mut tasks = 0_u32;
        loop {
            while let Some(task) = self.next() {
                self.perform(task);
                tasks = tasks.wrapping_add(1);
                if tasks.is_multiple_of(TASKS_BETWEEN_STEPS) {
                    self.marking.core.serving.step(Step::Marked);
                }
                if tasks.is_multiple_of(TASKS_BETWEEN_SHARES) {
                    self.share();
                }
                if tasks.is_multiple_of(TASKS_BETWEEN_LOOKS) && self.marking.core.control.is_urgent() {
                    self.take_full_weight();
                }
            }
            if !wait_for_work(active, self.marking.core.serving.schedule(), || self.has_work()) {
                return;
            }
        }
    }

    /// Gives away half of its tasks if it has shared none, or none is left of them.
    fn share(&mut self) {
        if self.stealers.len() > 1 && self.stack.len() >= LEAST_SHARED && self.deque.is_empty() {
            let count = (self.stack.len() / 2).min(MOST_SHARED);
            self.stack.drain(..count).for_each(|task| self.deque.push(task));
        }
    }

    fn take_full_weight(&mut self) {
        if std::mem::take(&mut self.low_weight) {
            // It was possible to give it up, so it is possible to take it back.
            let _ = sched::set_weight(0);
        }
    }

    /// The oldest prefetched task; keeps up to `PREFETCH` of them under way.
    fn next(&mut self) -> Option<Task> {
        while self.pending.len() < PREFETCH {
            let Some(task) = self.stack.pop_back().or_else(|| self.deque.pop()) else { break };
            let space = &self.marking.core.space;
            prefetch(space.range.address(task.word).as_ptr::<u64>());
            space.live.prefetch(task.word.chunk());
            self.pending.push_back(task);
        }
        self.pending.pop_front().or_else(|| self.find())
    }

    /// Work from elsewhere: roots and old objects, mutators' shades, the injector, other workers.
    fn find(&mut self) -> Option<Task> {
        let marking = self.marking;
        // A loop: many root pages may hold nothing.
        loop {
            let origin = marking.origins.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(origin) = origin {
                match origin {
                    Origin::Roots(page) => self.scan_roots(page),
                    Origin::Slots(slots) => slots.into_iter().for_each(|slot| self.scan_slot(slot)),
                    Origin::Region(region) => {
                        for_each_slot(&marking.core.space, region, |slot| self.scan_slot(slot));
                    }
                }
            } else if let Some(buffer) = marking.core.barrier.take(Recorded::Shades) {
                let shaded = buffer.entries().len() as u64;
                marking.core.stats.counters.shaded_objects.fetch_add(shaded, Ordering::Relaxed);
                buffer.entries().iter().for_each(|&word| self.discover(word));
                marking.core.barrier.give_back(buffer);
            } else {
                return self.steal();
            }
            if let Some(task) = self.stack.pop_back() {
                return Some(task);
            }
        }
    }

    fn scan_roots(&mut self, page: PageIndex) {
        let core = self.marking.core;
        let mut holds_candidates = false;
        for slot in core.roots.slots(page) {
            // Acquire: pairs with the Release in `MutatorContext::store_root`.
            if let Some(object) = root_reference(slot.load(Ordering::Acquire)) {
                let word = core.space.range.word(object);
                holds_candidates |= core.space.regions.class(word.region()) == Class::Candidate;
                self.discover(word);
            }
        }
        if holds_candidates {
            core.roots.note_candidate(core.space.range.page_address(page).get());
        }
    }

    fn steal(&self) -> Option<Task> {
        loop {
            let mut retry = false;
            let from_injector = self.marking.injector.steal_batch_and_pop(&self.deque);
            let attempts = std::iter::once(from_injector)
                .chain(self.stealers.iter().map(|stealer| stealer.steal_batch_and_pop(&self.deque)));
            for attempt in attempts {
                match attempt {
                    Steal::Success(task) => return Some(task),
                    Steal::Retry => retry = true,
                    Steal::Empty => {}
                }
            }
            if !retry {
                return None;
            }
        }
    }

    fn has_work(&self) -> bool {
        self.stealers.iter().any(|stealer| !stealer.is_empty()) || !self.marking.injector.is_empty()
    }

    fn perform(&mut self, task: Task) {
        let space = &self.marking.core.space;
        if task.element == 0 && space.live.is_marked(task.word) {
            return;
        }
        let address = space.range.address(task.word);
        // SAFETY: no page is missing while marking (invariant 2), and a task's word is the first of
        // an object (it came from a reference). A header does not change once it was published.
        let header = Header::from_bits(unsafe { address.as_ptr::<u64>().read() });
        if task.element != 0 {
            self.scan_array(task.word, header, task.element);
            return;
        }
        let bytes = header.object_bytes();
        let is_new = if bytes > LARGE_OBJECT_BYTES {
            space.live.mark_large(task.word)
        } else {
            space.live.mark(task.word, (bytes / WORD_BYTES) as u32)
        };
        if is_new {
            self.tally.live_bytes[task.word.region().index()] += bytes as u32;
            self.scan(task.word, header);
        }
    }

    fn scan(&mut self, word: WordIndex, header: Header) {
        let layout = header.layout();
        let mut map = layout.references();
        while map != 0 {
            self.scan_slot(word.offset(1 + map.trailing_zeros()));
            map &= map - 1;
        }
        if layout.tail() == Tail::References {
            self.scan_array(word, header, 0);
        }
    }

    /// Scans a piece of an array's tail and leaves the rest for whoever has time.
    fn scan_array(&mut self, word: WordIndex, header: Header, element: u32) {
        let layout = header.layout();
        let end = header.length().min(element.saturating_add(ARRAY_PIECE));
        if end < header.length() {
            self.marking.injector.push(Task { word, element: end });
        }
        let tail = word.offset(1 + layout.fixed_words());
        for element in element..end {
            self.scan_slot(tail.offset(element));
        }
    }

    #[inline]
    fn scan_slot(&mut self, slot: WordIndex) {
        let space = &self.marking.core.space;
        // SAFETY: the slot lies in an object that is being scanned; no page is missing (invariant 2).
        let slot_cell = unsafe { &*space.range.address(slot).as_ptr::<AtomicU64>() };
        // Acquire: pairs with the Release in `MutatorContext::store`.
        let value = slot_cell.load(Ordering::Acquire);
        if value == 0 {
            return;
        }
        let target = space.range.word(ToAddress::new(value as usize));
        if self.marking.core.barrier.wants_slot(space, slot.region(), target.region()) {
            self.tally.slots.push(slot);
        }
        self.discover(target);
    }

    /// Adds an object to the work unless it is marked.
    #[inline]
    fn discover(&mut self, word: WordIndex) {
        let space = &self.marking.core.space;
        if needs_visit(&space.regions, word) {
            self.stack.push_back(Task { word, element: 0 });
        }
    }
}
