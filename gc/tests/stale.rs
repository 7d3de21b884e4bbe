//! Stale references, used on purpose: what stress modes make of them.

mod child;
mod toy_embedder;

use std::os::unix::process::ExitStatusExt;

use strikeslip_gc::address::ToAddress;
use strikeslip_gc::options::{Delivery, HeapOptions, Mode, StressMode, StressModes, StressOptions};
use strikeslip_gc::plan::Pressure;
use strikeslip_gc::stress::POISON;
use toy_embedder::{MODES, Toy, layouts};

/// What the object holds.
const CONTENTS: u64 = 0x1234_5678;

/// Reads an object's contents where it was before a cycle that moved it.
fn read_stale(mode: Mode, delivery: Option<Delivery>, stress: StressMode) -> u64 {
    let modes = StressModes::of(&[stress]);
    let options = HeapOptions {
        limit_bytes: 64 << 20,
        mode,
        delivery,
        fall_back: false,
        stress: StressOptions { modes, ..StressOptions::default() },
        ..HeapOptions::default()
    };
    let toy = Toy::new(options).expect("a heap");
    let mutator = toy.attach();
    let node = mutator.alloc(layouts().node, 0).expect("room");
    mutator.set(node, 3, CONTENTS);
    mutator.set_root(0, Some(node));
    mutator.blocked(|| toy.heap.collect_with(Pressure::Everything));
    let moved = mutator.root(0).expect("the node");
    assert_eq!(mutator.get(moved, 3), CONTENTS);
    assert_ne!(node, moved, "it was evacuated");
    read(node.offset(3 * 8))
}

fn read(stale: ToAddress) -> u64 {
    // SAFETY: the address lies in the heap's range, which is mapped; that it is stale is what is tested.
    unsafe { stale.as_ptr::<u64>().read_volatile() }
}

#[test]
fn freed_memory_is_poisoned() {
    let found = MODES.map(|(mode, delivery)| read_stale(mode, delivery, StressMode::PoisonFreed));
    // Memory that was given back to the system reads as zeros.
    assert!(found.iter().all(|&word| word == POISON || word == 0), "{found:x?}");
    assert!(found.contains(&POISON), "{found:x?}");
}

/// In a child, which has to die by a read of a stale reference.
fn dies(test: &str, mode: Mode, delivery: Option<Delivery>) {
    if child::is_child() {
        let word = read_stale(mode, delivery, StressMode::ProtectFreed);
        unreachable!("{mode}: {word:#x} was read");
    }
    let status = child::run(test).status;
    assert_eq!(status.signal(), Some(libc::SIGSEGV), "{status}");
}

#[test]
fn a_stale_reference_dies_where_it_is_used() {
    dies("a_stale_reference_dies_where_it_is_used", Mode::StopTheWorld, None);
}

#[test]
fn a_stale_reference_dies_with_pages_that_are_copied() {
    let delivery = Some(Delivery::Pool);
    dies("a_stale_reference_dies_with_pages_that_are_copied", Mode::ConcurrentCopy, delivery);
}

#[test]
fn a_stale_reference_dies_with_pages_that_are_moved() {
    let delivery = Some(Delivery::InPlace);
    dies("a_stale_reference_dies_with_pages_that_are_moved", Mode::ConcurrentMove, delivery);
}
