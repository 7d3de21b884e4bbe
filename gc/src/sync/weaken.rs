//! Weakening of one place of the code under test: what a model must catch if it has power.
//!
//! Every atomic operation and fence of the facade asks here for its ordering. A place is the line
//! of the call. Models run all their threads on one system thread, so plain thread-locals do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::atomic::Ordering;

/// A line of the code under test.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// File, from the workspace's root or the crate's.
    pub file: &'static str,
    /// Line.
    pub line: u32,
}

thread_local! {
    static PLACES: RefCell<BTreeSet<Place>> = const { RefCell::new(BTreeSet::new()) };
    static WEAKENED: Cell<Option<Place>> = const { Cell::new(None) };
}

/// The ordering to be used instead of `ordering`, at this place.
#[track_caller]
pub(super) fn ordering(ordering: Ordering) -> Ordering {
    if ordering != Ordering::Relaxed && is_weakened(Location::caller()) {
        return Ordering::Relaxed;
    }
    ordering
}

/// Whether the fence at this place is left out.
#[track_caller]
pub(super) fn leaves_out_fence() -> bool {
    is_weakened(Location::caller())
}

fn is_weakened(location: &'static Location<'static>) -> bool {
    let place = Place { file: location.file(), line: location.line() };
    PLACES.with_borrow_mut(|places| places.insert(place));
    WEAKENED.get() == Some(place)
}

/// The places with a strong ordering that were passed on this thread since the last call.
#[must_use]
pub fn take_places() -> BTreeSet<Place> {
    PLACES.take()
}

/// Weakens this place (or none) from now on, on this thread.
pub fn set_weakened(place: Option<Place>) {
    WEAKENED.set(place);
}
