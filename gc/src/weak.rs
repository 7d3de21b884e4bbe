//! Weak slots: references that do not keep their objects.
//!
//! A weak slot lies in a page of root slots ([`RootPageKind::Weak`]) that marking does not scan. When marking has
//! ended, the marking pool clears those that hold objects found dead, while mutators run. The others
//! are rewritten at the flip like any root slot, most of them lazily: the pause does not grow with their number.
//!
//! A load makes a strong reference (an *upgrade*), and so competes with the end of marking. Both agree on one
//! word, [`Upgrades`]:
//! - while it is open, an upgrade of a white object counts itself in it, and shades the object;
//! - the collector reads the count before a handshake, and closes the word after it, if the handshake brought nothing
//!   and nobody was counted meanwhile. If somebody was, marking goes on;
//! - when it is closed, an upgrade of a white object gives nothing.
//!
//! So all weak references to all objects that are not strongly reachable die at one moment, as they must: had one of two
//! dead objects that refer to each other been resurrected, the other would be reachable though its weak slots say that it
//! is not. Mutators never wait.
//!
//! An *ephemeron* is a pair of weak slots: as long as the object of the first, its key, lives, it keeps that of the
//! second, its value. When marking has run dry, the values of keys that are marked are given to it, until there are no
//! more ([`Marking::round`](crate::mark::Marking::round)). Then no white value has a key that lives, and each slot is
//! cleared by itself.
//!
//! Invariants:
//! 1. Once the word is closed, no object that is white gets reachable.
//! 2. After clearing and a handshake, no weak slot holds a white object, and no mutator has read one from there: only
//!    then memory is given back.
//!
//! [`RootPageKind::Weak`]: crate::roots::RootPageKind::Weak

use rayon::ThreadPool;

use crate::address::{PageIndex, ToAddress, WordIndex};
use crate::barrier::is_white;
use crate::core::Core;
use crate::region::Class;
use crate::roots::root_reference;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sys::schedule::Step;

/// What upgrades and the end of marking agree on: the lowest bit says that marking has ended, the others count the
/// upgrades of white objects.
#[derive(Debug, Default)]
pub struct Upgrades(AtomicU64);

const CLOSED: u64 = 1;
const ONE: u64 = 2;

/// The count at one time, to be compared with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Counted(u64);

impl Upgrades {
    /// Lets upgrades resurrect objects again. Before marking begins, while no mutator marks.
    pub fn open(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// How many white objects were upgraded so far.
    #[must_use]
    pub fn count(&self) -> Counted {
        Counted(self.0.load(Ordering::Relaxed))
    }

    /// Ends resurrection, unless somebody was counted since. Whether it did.
    pub fn close(&self, since: Counted) -> bool {
        // Relaxed: who finds it closed was in the handshake, or the stop, before, and so sees all marks.
        self.0.compare_exchange(since.0, since.0 | CLOSED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Loads from a weak slot while the mutator's barrier is on: the object, unless marking has ended and it is white.
    /// One that is white before that is given to `shade`.
    pub fn upgrade(
        &self,
        slot: &AtomicU64,
        is_white: impl Fn(ToAddress) -> bool,
        shade: impl FnOnce(ToAddress),
    ) -> Option<ToAddress> {
        loop {
            let seen = self.0.load(Ordering::Relaxed);
            // Acquire: pairs with the Release in `MutatorContext::store_weak`.
            let object = root_reference(slot.load(Ordering::Acquire))?;
            if !is_white(object) {
                return Some(object);
            }
            if seen & CLOSED != 0 {
                return None;
            }
            // Relaxed: the object comes to the collector by the next handshake.
            if self.0.compare_exchange(seen, seen + ONE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                shade(object);
                return Some(object);
            }
        }
    }
}

/// Calls `visit` with each white object that is the value of a key that lives.
pub(crate) fn for_each_value_to_mark(core: &Core, mut visit: impl FnMut(WordIndex)) {
    let space = &core.space;
    // Acquire: pairs with the Release in `MutatorContext::store_weak`: marking reads the value's header.
    let word = |slot: &AtomicU64| root_reference(slot.load(Ordering::Acquire)).map(|at| space.range.word(at));
    let is_white = |word| is_white(&space.regions, &space.live, word);
    for page in core.roots.ephemeron_pages() {
        for pair in core.roots.slots(page).chunks_exact(2) {
            if let (Some(key), Some(value)) = (word(&pair[0]), word(&pair[1]))
                && is_white(value)
                && !is_white(key)
            {
                visit(value);
            }
        }
        core.serving.step(Step::Marked);
    }
}

/// Clears the weak slots that hold dead objects, and notes the pages whose objects may move. Marking has ended; in
/// concurrent modes `Upgrades` is closed. Returns how many slots were cleared, or nothing if there are no weak slots.
pub fn clear(core: &Core, pool: &ThreadPool) -> Option<u64> {
    let pages: Vec<PageIndex> = core.roots.weak_pages().collect();
    if pages.is_empty() {
        return None;
    }
    let (next, cleared) = (AtomicUsize::new(0), AtomicU64::new(0));
    core.serving.run_workers(pool, pool.current_num_threads().min(pages.len()), &|| {
        // Relaxed: only divides the pages.
        while let Some(&page) = pages.get(next.fetch_add(1, Ordering::Relaxed)) {
            cleared.fetch_add(clear_page(core, page), Ordering::Relaxed);
            core.serving.step(Step::Marked);
        }
    });
    Some(cleared.into_inner())
}

fn clear_page(core: &Core, page: PageIndex) -> u64 {
    let (space, mut cleared, mut holds_candidates) = (&core.space, 0, false);
    for slot in core.roots.slots(page) {
        let value = slot.load(Ordering::Relaxed);
        let Some(object) = root_reference(value) else { continue };
        let word = space.range.word(object);
        if is_white(&space.regions, &space.live, word) {
            // A mutator may have stored another reference meanwhile, which is to a marked object.
            let is_cleared = slot.compare_exchange(value, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            cleared += u64::from(is_cleared);
        } else {
            holds_candidates |= space.regions.class(word.region()) == Class::Candidate;
        }
    }
    if holds_candidates {
        core.roots.note_candidate(space.range.page_address(page).get());
    }
    cleared
}
