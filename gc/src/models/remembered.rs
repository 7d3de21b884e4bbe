//! The remembered set when a cycle starts: no slot of an old object that got a reference to a young one is missed, be it
//! recorded or in a region that overflowed.
//!
//! Real are the count and the overflow of a region, buffers and queues. The heap is one old region with a few slots; a
//! handshake takes the mutator's lock, which it holds between two safepoints.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;

use crate::address::WordIndex;
use crate::barrier::{Barrier, BarrierQueues, Recorded, Records};
use crate::region::RegionRecord;
use crate::remembered::has_room;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::model::{assert_finds, check};

const SLOTS: usize = 3;
/// Slots recorded before the region overflows.
const MOST: u32 = 1;

/// What the controller does in the wrong order.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Start {
    Right,
    /// The overflow flag is read and cleared before the handshake, and the region walked after it.
    LooksTooEarly,
    /// Buffers are taken without a handshake.
    TakesTooEarly,
}

struct Heap {
    record: RegionRecord,
    slots: [AtomicU64; SLOTS],
    queues: BarrierQueues,
    records: Records,
    /// The mutator's barrier, and the slots it stored into while marking: shaded.
    context: Mutex<(Barrier, Vec<usize>)>,
}

// SAFETY: the context's records are used under its lock.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

impl Heap {
    fn new() -> Arc<Self> {
        let queues = BarrierQueues::default();
        let records = Records::new(&queues);
        let context = Mutex::new((Barrier::Remember, vec![]));
        Arc::new(Self {
            record: RegionRecord::default(),
            slots: Default::default(),
            queues,
            records,
            context,
        })
    }

    /// Stores a young object into each slot, with a safepoint in between.
    fn mutate(&self) {
        for (nth, slot) in self.slots.iter().enumerate() {
            let mut context = self.context.lock().unwrap();
            if context.0 == Barrier::Mark {
                context.1.push(nth);
            } else if has_room(&self.record, MOST) {
                // SAFETY: the lock is held.
                unsafe { self.records.push(&self.queues, Recorded::Remembered, WordIndex(nth as u32)) };
            }
            slot.store(1, Ordering::Relaxed);
        }
    }

    fn is_young(&self, slot: usize) -> bool {
        self.slots[slot].load(Ordering::Relaxed) != 0
    }

    /// The start of a young cycle, as in `cycle.rs` and `RememberedSet::begin`. Returns the slots that marking begins
    /// with.
    fn start(&self, start: Start) -> Vec<usize> {
        let mut found = vec![];
        let mut overflowed = false;
        if start == Start::TakesTooEarly {
            self.take(&mut found);
        }
        if start == Start::LooksTooEarly {
            overflowed = self.read_overflow();
        }
        {
            let mut context = self.context.lock().unwrap();
            if start != Start::TakesTooEarly {
                // SAFETY: the lock is held.
                unsafe { self.records.hand_over(&self.queues) };
            }
            context.0 = Barrier::Mark;
        }
        self.take(&mut found);
        if start != Start::LooksTooEarly {
            overflowed = self.read_overflow();
        }
        if overflowed {
            found.extend((0..SLOTS).filter(|&slot| self.is_young(slot)));
        }
        found
    }

    fn read_overflow(&self) -> bool {
        self.record.remembered.store(0, Ordering::Relaxed);
        self.record.remembered_overflowed.swap(false, Ordering::Relaxed)
    }

    fn take(&self, found: &mut Vec<usize>) {
        while let Some(buffer) = self.queues.take(Recorded::Remembered) {
            found
                .extend(buffer.entries().iter().map(|slot| slot.index()).filter(|&slot| self.is_young(slot)));
            self.queues.give_back(buffer);
        }
    }
}

fn start_beside_a_mutator(start: Start) {
    let heap = Heap::new();
    let mutator = {
        let heap = heap.clone();
        thread::spawn(move || heap.mutate())
    };
    let mut found = heap.start(start);
    mutator.join().unwrap();
    found.extend(&heap.context.lock().unwrap().1);
    assert!((0..SLOTS).all(|slot| found.contains(&slot)), "a slot is missed: {found:?}");
}

#[test]
fn no_slot_is_missed_when_a_cycle_starts() {
    check(3, || start_beside_a_mutator(Start::Right));
}

#[test]
fn reading_the_overflow_before_the_handshake_is_found() {
    assert_finds("a slot is missed", 3, || start_beside_a_mutator(Start::LooksTooEarly));
}

#[test]
fn taking_buffers_without_their_mutators_is_found() {
    assert_finds("a slot is missed", 3, || start_beside_a_mutator(Start::TakesTooEarly));
}
