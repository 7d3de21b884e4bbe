//! The end of service against late faults: nobody reads tables that change, nobody waits for ever. And its
//! beginning: nobody claims a unit before the flip.

use std::sync::Arc;

use loom::thread;

use super::kernel::Kernel;
use crate::page_state::{self, Claim, ServingState};
use crate::sync::UnsafeCell;
use crate::sync::atomic::AtomicU8;
use crate::sync::model::{Model, assert_finds};

/// A heap with one page, and the tables that whoever serves it reads.
struct Heap {
    kernel: Kernel,
    serving: ServingState,
    /// The plan's tables: written only while nobody is inside.
    table: UnsafeCell<u32>,
}

// SAFETY: loom checks the accesses to cells.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

impl Heap {
    fn write_table(&self) {
        // SAFETY: the cell is checked by loom.
        self.table.with_mut(|table| unsafe { *table += 1 });
    }

    /// What `serve_fault` does.
    fn serve_fault(&self, late: impl FnOnce()) {
        let serve = || {
            // SAFETY: the cell is checked by loom.
            self.table.with(|table| assert_eq!(unsafe { *table }, 1));
            self.kernel.zero();
        };
        self.serving.serve_fault(serve, late);
    }
}

fn late_fault(wakes: bool) {
    let heap =
        Arc::new(Heap { kernel: Kernel::new(), serving: ServingState::default(), table: UnsafeCell::new(0) });
    let mutator = thread::spawn({
        let heap = heap.clone();
        move || heap.kernel.access()
    });
    let reader = thread::spawn({
        let heap = heap.clone();
        move || {
            while heap.kernel.next_event() {
                heap.serve_fault(|| {
                    if wakes {
                        heap.kernel.wake();
                    }
                });
            }
        }
    });
    heap.serving.begin(|| heap.write_table());
    heap.serving.set_missing(0);
    heap.kernel.unregister();
    heap.serving.end();
    heap.write_table();
    mutator.join().unwrap();
    heap.kernel.end();
    reader.join().unwrap();
}

#[test]
fn a_late_fault_that_nobody_wakes_is_found() {
    assert_finds("deadlock", 2, || late_fault(false));
}

#[test]
fn writing_tables_while_somebody_is_inside_is_found() {
    let model = || {
        let heap = Arc::new(Heap {
            kernel: Kernel::new(),
            serving: ServingState::default(),
            table: UnsafeCell::new(0),
        });
        heap.serving.begin(|| heap.write_table());
        let server = thread::spawn({
            let heap = heap.clone();
            move || heap.serve_fault(|| ())
        });
        // Not waiting for who is inside.
        heap.write_table();
        server.join().unwrap();
    };
    assert_finds("Causality violation", 2, model);
}

/// A unit, and the plan that it is built by.
struct Planned {
    serving: ServingState,
    unit: AtomicU8,
    plan: UnsafeCell<u32>,
}

// SAFETY: loom checks the accesses to cells.
unsafe impl Sync for Planned {}
// SAFETY: as above.
unsafe impl Send for Planned {}

/// An event of the last cycle is read so late that its page belongs to a unit of this one, which is planned until
/// the flip.
fn event_of_the_last_cycle(looks: bool) {
    let heap = Arc::new(Planned {
        serving: ServingState::default(),
        unit: AtomicU8::new(0),
        plan: UnsafeCell::new(0),
    });
    let build = |heap: &Planned| {
        // SAFETY: the cell is checked by loom.
        heap.plan.with(|plan| assert_eq!(unsafe { *plan }, 1));
        None::<()>
    };
    heap.serving.begin(|| ());
    let reader = thread::spawn({
        let heap = heap.clone();
        move || {
            let serve = || {
                if !looks || heap.serving.is_flipped() {
                    heap.serving.serve(&heap.unit, || build(&heap), |_| ());
                }
            };
            heap.serving.serve_fault(serve, || ());
        }
    });
    // SAFETY: the cell is checked by loom.
    heap.plan.with_mut(|plan| unsafe { *plan = 1 });
    heap.serving.set_missing(1);
    let claim = heap.serving.serve(&heap.unit, || build(&heap), |_| ());
    heap.serving.wait(std::time::Duration::MAX, || heap.serving.is_complete());
    assert!(claim != Claim::Mine || page_state::claim(&heap.unit) == Claim::Installed);
    heap.serving.end();
    reader.join().unwrap();
}

#[test]
fn serving_a_unit_before_the_flip_is_found() {
    assert_finds("Causality violation", 2, || event_of_the_last_cycle(false));
}

pub(super) fn models() -> [Model; 2] {
    [Model::new(2, || late_fault(true)), Model::new(3, || event_of_the_last_cycle(true))]
}
