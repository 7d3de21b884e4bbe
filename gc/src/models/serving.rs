//! Serving: units are installed once, nobody sleeps for ever, sources are kept while they are read; and the end of
//! service against late faults.
//!
//! Real is all of `page_state`. A page's contents, sources and the plan's tables are cells, which loom watches; the
//! kernel's side of a registered page is a replica (`kernel`).

mod end;
mod kernel;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as PlainCount;
use std::time::Duration;

use loom::thread;

use crate::page_state::{self, Claim, ServingState, UnitState};
use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use crate::sync::model::{Model, assert_each_ordering_matters, assert_finds};

struct Unit {
    serving: ServingState,
    /// The unit that mutators need, and another one.
    states: [AtomicU8; 2],
    /// The unit's contents, in the kernel's sense.
    page: UnsafeCell<u32>,
    installs: PlainCount,
    /// What an installing thread does when it lets go of the sources.
    released: [UnsafeCell<u32>; 2],
}

// SAFETY: loom checks the accesses to cells.
unsafe impl Sync for Unit {}
// SAFETY: as above.
unsafe impl Send for Unit {}

impl Unit {
    fn new() -> Arc<Self> {
        let unit = Self {
            serving: ServingState::default(),
            states: [AtomicU8::new(0), AtomicU8::new(0)],
            page: UnsafeCell::new(0),
            installs: PlainCount::new(0),
            released: [UnsafeCell::new(0), UnsafeCell::new(0)],
        };
        unit.serving.begin(|| ());
        unit.serving.set_missing(2);
        Arc::new(unit)
    }

    fn install(&self) -> Option<()> {
        // SAFETY: the cell is checked by loom.
        self.page.with_mut(|page| unsafe { *page = 7 });
        self.installs.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn release(&self, unit: usize) {
        // SAFETY: the cell is checked by loom.
        self.released[unit].with_mut(|released| unsafe { *released += 1 });
    }

    fn read(&self) {
        // SAFETY: the cell is checked by loom.
        self.page.with(|page| assert_eq!(unsafe { *page }, 7, "a page that is not there"));
    }

    /// What a faulting mutator does (`serve_page`), and the access that it tries again.
    fn touch(&self) {
        let installed = || page_state::state(&self.states[0]) == UnitState::Installed;
        if !installed() {
            match self.serving.serve(&self.states[0], || self.install(), |_| self.release(0)) {
                Claim::Mine | Claim::Installed => {}
                Claim::Others => assert!(self.serving.wait(Duration::MAX, installed)),
            }
        }
        self.read();
    }

    fn serve_other(&self) {
        let _ = self.serving.serve(&self.states[1], || None::<()>, |_| self.release(1));
    }
}

/// Two mutators and a worker, which is the controller too: the unit is installed once, all see its page,
/// nobody sleeps on, and at the end all is released.
fn install_and_wait() {
    let unit = Unit::new();
    let mutators: Vec<_> = (0..2)
        .map(|_| {
            let unit = unit.clone();
            thread::spawn(move || unit.touch())
        })
        .collect();
    unit.serve_other();
    unit.serving.wait(Duration::MAX, || unit.serving.is_complete());
    unit.read();
    // SAFETY: the cells are checked by loom.
    unit.released.iter().for_each(|cell| cell.with(|released| assert_eq!(unsafe { *released }, 1)));
    assert_eq!(unit.installs.load(Ordering::Relaxed), 1);
    mutators.into_iter().for_each(|mutator| mutator.join().unwrap());
}

/// Two mutators need the same unit, and no other unit is ever installed.
fn wait_for_one_unit() {
    let unit = Unit::new();
    let other = thread::spawn({
        let unit = unit.clone();
        move || unit.touch()
    });
    unit.touch();
    other.join().unwrap();
}

#[test]
fn announcing_before_installing_is_found() {
    let model = || {
        let unit = Unit::new();
        let mutator = thread::spawn({
            let unit = unit.clone();
            move || unit.touch()
        });
        let _ = unit.serving.serve(&unit.states[0], || None::<()>, |_| ());
        let _ = unit.install();
        mutator.join().unwrap();
    };
    assert_finds("Causality violation", 2, model);
}

struct Evacuation {
    serving: ServingState,
    units: [AtomicU8; 2],
    /// One source that both units are built from.
    source: UnsafeCell<u32>,
    readers: AtomicU32,
}

// SAFETY: loom checks the accesses to cells.
unsafe impl Sync for Evacuation {}
// SAFETY: as above.
unsafe impl Send for Evacuation {}

impl Evacuation {
    fn build(&self) {
        // SAFETY: the cell is checked by loom.
        self.source.with(|source| assert_eq!(unsafe { *source }, 1, "built from what is gone"));
    }

    fn release(&self) {
        if page_state::done_reading(&self.readers) {
            // It becomes staging, which somebody writes to.
            // SAFETY: the cell is checked by loom.
            self.source.with_mut(|source| unsafe { *source = 2 });
        }
    }

    fn hold(&self, unit: usize) -> Claim {
        let build = || {
            self.build();
            Some(())
        };
        self.serving.serve(&self.units[unit], build, |_| self.release())
    }

    /// A mutator whose patience is over at once.
    fn overtake(&self, unit: usize) {
        let installed = || page_state::state(&self.units[unit]) == UnitState::Installed;
        let overtaken = !installed() && self.serving.visit(&self.units[unit], || self.build()).is_some();
        if !overtaken {
            self.serving.wait(Duration::MAX, installed);
        }
    }
}

fn guests(units: usize) {
    let evacuation = Arc::new(Evacuation {
        serving: ServingState::default(),
        units: [AtomicU8::new(0), AtomicU8::new(0)],
        source: UnsafeCell::new(1),
        readers: AtomicU32::new(units as u32),
    });
    evacuation.serving.begin(|| ());
    evacuation.serving.set_missing(units);
    let mut threads: Vec<_> = (1..units)
        .map(|unit| {
            let evacuation = evacuation.clone();
            thread::spawn(move || assert_eq!(evacuation.hold(unit), Claim::Mine))
        })
        .collect();
    threads.push({
        let evacuation = evacuation.clone();
        thread::spawn(move || evacuation.overtake(0))
    });
    assert_eq!(evacuation.hold(0), Claim::Mine);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn looking_at_the_unit_before_being_counted_as_guest_is_found() {
    let model = || {
        let evacuation = Arc::new(Evacuation {
            serving: ServingState::default(),
            units: [AtomicU8::new(0), AtomicU8::new(0)],
            source: UnsafeCell::new(1),
            readers: AtomicU32::new(1),
        });
        evacuation.serving.begin(|| ());
        evacuation.serving.set_missing(1);
        let guest = thread::spawn({
            let evacuation = evacuation.clone();
            move || {
                let claimed = AtomicU8::new(UnitState::Claimed as u8);
                if page_state::state(&evacuation.units[0]) == UnitState::Claimed {
                    // Counted only now, and looks at nothing that changes.
                    evacuation.serving.visit(&claimed, || evacuation.build());
                }
            }
        });
        let _ = evacuation.hold(0);
        guest.join().unwrap();
    };
    assert_finds("built from what is gone", 3, model);
}

#[test]
fn units_are_installed_once_nobody_sleeps_on_and_sources_are_kept() {
    let mut models = vec![
        Model::new(2, install_and_wait),
        Model::new(3, wait_for_one_unit),
        Model::new(3, || guests(1)),
        Model::new(2, || guests(2)),
    ];
    models.extend(end::models());
    assert_each_ordering_matters("page_state.rs", &[], &models);
}
