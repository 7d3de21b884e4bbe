//! Pages of root slots: a scan sees a page's slots cleared, and no page that got a reference into a candidate region is
//! missed at the flip.
//!
//! Real is the set of pages (`PageBits`). A slot is an atomic, and what `allocate` does to a page is a cell.

use std::sync::Arc;

use loom::thread;

use crate::address::PageIndex;
use crate::roots::PageBits;
use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::model::{Model, assert_each_ordering_matters, assert_finds};

const PAGE: PageIndex = PageIndex(3);

struct Roots {
    pages: PageBits,
    cleared: UnsafeCell<bool>,
    slot: AtomicU64,
}

// SAFETY: loom checks the accesses to the cell.
unsafe impl Sync for Roots {}
// SAFETY: as above.
unsafe impl Send for Roots {}

fn roots() -> Arc<Roots> {
    let slot = AtomicU64::new(0);
    Arc::new(Roots { pages: PageBits::new(64), cleared: UnsafeCell::new(false), slot })
}

/// A mutator takes a page into use while marking scans those in use.
fn scan_beside_allocation() {
    let roots = roots();
    let mutator = thread::spawn({
        let roots = roots.clone();
        move || {
            // SAFETY: checked by loom.
            roots.cleared.with_mut(|cleared| unsafe { *cleared = true });
            roots.pages.insert(PAGE);
        }
    });
    for _ in roots.pages.pages(0..1) {
        // SAFETY: checked by loom.
        roots.cleared.with(|cleared| assert!(unsafe { *cleared }));
    }
    mutator.join().unwrap();
}

/// A mutator stores a reference into a candidate region, and notes the page, or the other way round; the controller
/// looks again at the page, which was noted before.
fn note_beside_a_look(stores_first: bool) {
    let roots = roots();
    roots.pages.insert(PAGE);
    let mutator = thread::spawn({
        let roots = roots.clone();
        move || {
            if !stores_first {
                roots.pages.insert(PAGE);
            }
            roots.slot.store(8, Ordering::Relaxed);
            if stores_first {
                roots.pages.insert(PAGE);
            }
        }
    });
    roots.pages.keep_if(PAGE, || roots.slot.load(Ordering::Relaxed) != 0);
    mutator.join().unwrap();
    assert_eq!(roots.pages.pages(0..1).count(), 1, "a page with a reference is not noted");
}

#[test]
fn no_page_is_missed_or_seen_too_early() {
    let models = [Model::new(3, scan_beside_allocation), Model::new(3, || note_beside_a_look(true))];
    assert_each_ordering_matters("roots.rs", &[], &models);
}

#[test]
fn noting_a_page_before_the_store_is_found() {
    assert_finds("is not noted", 3, || note_beside_a_look(false));
}
