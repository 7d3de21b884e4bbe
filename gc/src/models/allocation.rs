//! Shared regions: mutators cut pieces that nobody else has, and none of a region that was closed.
//!
//! Real is `SharedRegion::cut_piece` and `close`. The heap that gives new regions is a counter under a lock, and a
//! region's record is a cell.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread;

use crate::address::RegionIndex;
use crate::alloc::SharedRegion;
use crate::geometry::REGION_BYTES;
use crate::region::Use;
use crate::sync::UnsafeCell;
use crate::sync::model::{Model, assert_each_ordering_matters, assert_finds};

const HALF: usize = REGION_BYTES / 2;
/// Regions from this one on are of the next class.
const NEXT: usize = 4;

struct Heap {
    shared: SharedRegion,
    /// The next region to be given out.
    next: Mutex<usize>,
    /// Whether a region was prepared.
    records: [UnsafeCell<bool>; 2 * NEXT],
    pieces: Mutex<Vec<(RegionIndex, usize)>>,
}

// SAFETY: loom checks the accesses to records.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

impl Heap {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            shared: SharedRegion::new(Use::Objects),
            next: Mutex::new(0),
            records: Default::default(),
            pieces: Mutex::new(vec![]),
        })
    }

    fn allocate(&self) -> Option<RegionIndex> {
        let mut next = self.next.lock().unwrap();
        // SAFETY: the cell is checked by loom.
        self.records[*next].with_mut(|record| unsafe { *record = true });
        *next += 1;
        Some(RegionIndex(*next as u32 - 1))
    }

    fn cut(&self) -> RegionIndex {
        let piece = self.shared.cut_piece(HALF, || self.allocate()).expect("regions are left");
        self.note(piece)
    }

    fn note(&self, (region, top): (RegionIndex, usize)) -> RegionIndex {
        // SAFETY: the cell is checked by loom.
        self.records[region.index()].with(|record| assert!(unsafe { *record }, "a region not prepared"));
        let mut pieces = self.pieces.lock().unwrap();
        assert!(!pieces.contains(&(region, top)), "a piece is cut twice: {top} of {region:?}, {pieces:?}");
        pieces.push((region, top));
        region
    }
}

/// Two mutators cut three pieces of half a region each.
fn cut_and_refill() {
    let heap = Heap::new();
    let other = thread::spawn({
        let heap = heap.clone();
        move || {
            heap.cut();
            heap.cut();
        }
    });
    heap.cut();
    other.join().unwrap();
    assert_eq!(*heap.next.lock().unwrap(), 2, "no region is lost");
}

/// The controller changes the class of new regions, and closes the shared one: what is cut afterwards lies in
/// regions of that class.
fn change_class(closes: bool) {
    let heap = Heap::new();
    let mutator = thread::spawn({
        let heap = heap.clone();
        move || [(); 2].map(|()| heap.cut())
    });
    *heap.next.lock().unwrap() = NEXT;
    if closes {
        heap.shared.close();
    }
    // The handshake: whoever cuts after it comes after the close.
    assert!(heap.cut().index() >= NEXT, "a piece of a closed region");
    mutator.join().unwrap();
}

#[test]
fn pieces_are_cut_once_and_not_of_closed_regions() {
    let models = [Model::new(3, cut_and_refill), Model::new(3, || change_class(true))];
    assert_each_ordering_matters("alloc.rs", &[], &models);
}

#[test]
fn leaving_the_shared_region_open_is_found() {
    assert_finds("a piece of a closed region", 2, || change_class(false));
}

#[test]
fn cutting_without_looking_who_else_does_is_found() {
    let model = || {
        let heap = Heap::new();
        let region = heap.cut();
        let other = thread::spawn({
            let heap = heap.clone();
            move || heap.cut()
        });
        heap.note((region, HALF));
        other.join().unwrap();
    };
    assert_finds("a piece is cut twice", 2, model);
}
