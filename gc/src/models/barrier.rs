//! Barrier buffers: what a mutator records comes to the collector, once, and not before it is true; a buffer has one
//! owner.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;

use crate::address::WordIndex;
use crate::barrier::{BUFFER_ENTRIES, BarrierQueues, Recorded, Records};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::model::{assert_finds, check};

struct Exchange {
    queues: BarrierQueues,
    /// A context, and who may use it: the mutator between two safepoints, or a handshake's action.
    records: [Records; 2],
    owner: [Mutex<()>; 2],
}

// SAFETY: models check that the owner's lock is held.
unsafe impl Sync for Exchange {}

impl Exchange {
    fn new() -> Arc<Self> {
        let queues = BarrierQueues::default();
        let records = [Records::new(&queues), Records::new(&queues)];
        Arc::new(Self { queues, records, owner: [Mutex::new(()), Mutex::new(())] })
    }

    /// A mutator that fills its buffer once and begins another.
    fn mutate(&self, mutator: usize) {
        for entry in 0..=BUFFER_ENTRIES {
            let _owner = self.owner[mutator].lock().unwrap();
            let entry = WordIndex((mutator * 16 + entry) as u32);
            // SAFETY: the lock is held.
            unsafe { self.records[mutator].push(&self.queues, Recorded::Shades, entry) };
        }
    }

    fn take_all(&self, taken: &mut Vec<u32>) {
        while let Some(buffer) = self.queues.take(Recorded::Shades) {
            taken.extend(buffer.entries().iter().map(|entry| entry.0));
            self.queues.give_back(buffer);
        }
    }
}

fn hand_over(mutators: usize, locks: bool) {
    let exchange = Exchange::new();
    let threads: Vec<_> = (0..mutators)
        .map(|mutator| {
            let exchange = exchange.clone();
            thread::spawn(move || exchange.mutate(mutator))
        })
        .collect();
    let mut taken = vec![];
    exchange.take_all(&mut taken);
    for mutator in 0..mutators {
        let _owner = locks.then(|| exchange.owner[mutator].lock().unwrap());
        // SAFETY: the lock is held, unless loom is to find that it is not.
        unsafe { exchange.records[mutator].hand_over(&exchange.queues) };
    }
    exchange.take_all(&mut taken);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for records in &exchange.records {
        // SAFETY: the mutators are gone.
        unsafe { records.hand_over(&exchange.queues) };
    }
    exchange.take_all(&mut taken);
    taken.sort_unstable();
    let mutators = 0..mutators as u32;
    let expected: Vec<_> =
        mutators.flat_map(|mutator| (0..3).map(move |entry| mutator * 16 + entry)).collect();
    assert_eq!(taken, expected, "each entry comes once");
}

#[test]
fn each_record_is_handed_over_once() {
    check(2, || hand_over(2, true));
}

#[test]
fn a_hand_over_beside_its_mutator_is_found() {
    assert_finds("Causality violation", 2, || hand_over(1, false));
}

/// A mutator records slots and stores into them, while the collector takes buffers and looks at the slots. `early`: a
/// full buffer is handed over at once.
fn record_and_store(early: bool) {
    let exchange = Exchange::new();
    let slots: Arc<[AtomicU64; BUFFER_ENTRIES + 1]> = Arc::default();
    let mutator = {
        let (exchange, slots) = (exchange.clone(), slots.clone());
        thread::spawn(move || {
            for (nth, slot) in slots.iter().enumerate() {
                // SAFETY: only this thread uses the context.
                unsafe {
                    exchange.records[0].push(&exchange.queues, Recorded::Slots, WordIndex(nth as u32));
                    if early && nth + 1 == BUFFER_ENTRIES {
                        exchange.records[0].hand_over(&exchange.queues);
                    }
                }
                slot.store(1, Ordering::Relaxed);
            }
        })
    };
    while let Some(buffer) = exchange.queues.take(Recorded::Slots) {
        for entry in buffer.entries() {
            assert_eq!(slots[entry.index()].load(Ordering::Relaxed), 1, "a slot was looked at too early");
        }
        exchange.queues.give_back(buffer);
    }
    mutator.join().unwrap();
}

#[test]
fn a_slot_is_not_handed_over_before_its_store() {
    check(2, || record_and_store(false));
}

#[test]
fn handing_over_a_full_buffer_at_once_is_found() {
    assert_finds("a slot was looked at too early", 2, || record_and_store(true));
}
