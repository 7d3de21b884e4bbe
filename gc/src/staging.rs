//! Staging: memory in which units are built before they are installed.
//!
//! A *piece* of staging is a run of pages, up to a region. With MOVE its pages leave for the
//! destination, so the best staging is the memory of evacuated regions that all their readers are
//! done with: no allocation, no zeroing, nothing given back and asked for again. A few regions are
//! reserved for the beginning, when nothing is drained yet.
//!
//! Used by workers and by faulting mutators in signal handlers: bounded lock-free queues, no
//! allocation.
//!
//! Invariants:
//! 1. A piece is held by one thread at a time.
//! 2. A drained region is in `drained`, or became staging, or was handed to [`Staging::surplus`],
//!    exactly once.

use crossbeam_queue::ArrayQueue;

use crate::account::Holding;
use crate::address::{FromAddress, RegionIndex};
use crate::geometry::{PAGE_BYTES, REGION_BYTES, REGION_PAGES};
use crate::space::Space;

/// Where a piece's memory comes from, and so what becomes of it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Origin {
    /// Reserved when the heap was planned: stays staging for the whole cycle.
    Reserved,
    /// An evacuated region: freed when its pages have left.
    Drained,
}

/// A run of pages to build in.
#[derive(Debug)]
pub struct Piece {
    region: RegionIndex,
    address: FromAddress,
    /// Pages of the region already used.
    used: usize,
    /// Some of these did not leave.
    has_remnants: bool,
    origin: Origin,
}

impl Piece {
    /// Where to build.
    #[must_use]
    pub const fn address(&self) -> FromAddress {
        self.address.offset(self.used * PAGE_BYTES)
    }

    const fn fits(&self, pages: usize) -> bool {
        self.used + pages <= REGION_PAGES
    }
}

/// What became of the pages of a piece.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum After {
    /// They are still there.
    Kept,
    /// They were moved to a destination.
    Moved,
    /// The same, but for some that are still there.
    MovedInPart,
}

/// The staging of a heap.
#[derive(Debug)]
pub struct Staging {
    pieces: ArrayQueue<Piece>,
    drained: ArrayQueue<RegionIndex>,
    /// Drained regions whose memory has left.
    emptied: ArrayQueue<RegionIndex>,
    /// Drained regions whose memory has left in part.
    remnants: ArrayQueue<RegionIndex>,
}

impl Staging {
    /// For a heap of `regions` regions.
    #[must_use]
    pub fn new(regions: usize) -> Self {
        Self {
            pieces: ArrayQueue::new(512),
            drained: ArrayQueue::new(regions),
            emptied: ArrayQueue::new(regions),
            remnants: ArrayQueue::new(regions),
        }
    }

    /// Adds a reserved region.
    pub fn reserve(&self, space: &Space, region: RegionIndex) {
        let address = space.from_space(region.first_word());
        let piece = Piece { region, address, used: 0, has_remnants: false, origin: Origin::Reserved };
        self.pieces.push(piece).expect("fewer regions are reserved than the queue holds");
    }

    /// Adds an evacuated region that nobody reads any more.
    pub fn drained(&self, space: &Space, region: RegionIndex) {
        space.hold(region, Holding::Drained);
        if space.is_partly_resident(region) {
            // Building in it would ask for pages that were just given back.
            self.remnants.push(region).expect("each region is drained once, and all fit");
            return;
        }
        self.drained.push(region).expect("each region is drained once, and all fit");
    }

    /// Takes staging for `pages` pages. `None`: all of it is in use at this moment.
    #[must_use]
    pub fn take(&self, space: &Space, pages: usize) -> Option<Piece> {
        // A begun drained region first, then a whole one; reserved staging costs new memory.
        for _ in 0..self.pieces.len() {
            let piece = self.pieces.pop()?;
            if piece.origin == Origin::Drained && piece.fits(pages) {
                return Some(piece);
            }
            self.put(piece);
        }
        if let Some(region) = self.drained.pop() {
            let address = space.from_space(region.first_word());
            // Its pages may have holes, which building fills.
            space.fill(region);
            return Some(Piece { region, address, used: 0, has_remnants: false, origin: Origin::Drained });
        }
        let mut piece = self.pieces.pop()?;
        if !piece.fits(pages) {
            // Reserved, or what a short unit left of a drained region. The pages before have left: new ones take
            // their place.
            piece.used = 0;
        }
        if piece.used == 0 {
            space.fill(piece.region);
        }
        Some(piece)
    }

    /// Gives a piece back after `pages` of its pages were used.
    pub fn give_back(&self, space: &Space, mut piece: Piece, pages: usize, after: After) {
        match after {
            After::Kept => self.put(piece),
            After::Moved | After::MovedInPart => {
                piece.used += pages;
                piece.has_remnants |= after == After::MovedInPart;
                space.remove_pages(piece.region, pages);
                if piece.fits(pages) {
                    self.put(piece);
                } else if piece.origin == Origin::Reserved {
                    piece.used = 0;
                    self.put(piece);
                } else {
                    let queue = if piece.has_remnants || piece.used < REGION_PAGES {
                        &self.remnants
                    } else {
                        &self.emptied
                    };
                    queue.push(piece.region).expect("each region is emptied once, and all fit");
                }
            }
        }
    }

    fn put(&self, piece: Piece) {
        self.pieces.push(piece).expect("pieces are never more than workers, mutators and reserves");
    }

    /// Drained regions that are not needed as staging: beyond `keep` of them.
    #[must_use]
    pub fn surplus(&self, keep: usize) -> Option<RegionIndex> {
        if self.drained.len() > keep { self.drained.pop() } else { None }
    }

    /// A drained region whose memory has left.
    #[must_use]
    pub fn emptied(&self) -> Option<RegionIndex> {
        self.emptied.pop()
    }

    /// A drained region whose memory has left in part.
    #[must_use]
    pub fn remnants(&self) -> Option<RegionIndex> {
        self.remnants.pop()
    }

    /// Takes all staging back at the end of a cycle: calls `free` with each region of it, and
    /// whether (part of) its memory may have left.
    pub fn take_all(&self, mut free: impl FnMut(RegionIndex)) {
        while let Some(piece) = self.pieces.pop() {
            free(piece.region);
        }
        for queue in [&self.drained, &self.emptied, &self.remnants] {
            std::iter::from_fn(|| queue.pop()).for_each(&mut free);
        }
    }
}

const _: () = assert!(REGION_BYTES == REGION_PAGES * PAGE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::HeapOptions;
    use crate::region::Use;
    use crate::space::{Contents, Role};

    /// Units differ in length: the last one of a destination is shorter.
    #[test]
    fn what_is_left_of_a_drained_region_may_be_too_short_for_a_unit() {
        let options = HeapOptions { limit_bytes: 16 << 20, huge_pages: false, ..HeapOptions::default() };
        let space = Space::new(&options.resolved().unwrap(), &std::sync::Arc::default()).unwrap();
        let region =
            space.allocate_for_collector(Use::Staging, &[Role::Young], Contents::MayBeDirty).unwrap();
        let staging = Staging::new(space.range.regions());
        staging.drained(&space, region);
        for pages in [64, 64, 64, 64, 64, 64, 64, 20, 64, 64] {
            let piece = staging.take(&space, pages).expect("one is there, and nobody holds it");
            assert!(piece.fits(pages), "{piece:?} for {pages} pages");
            staging.give_back(&space, piece, pages, After::Moved);
        }
        let mut all = vec![];
        staging.take_all(|region| all.push(region));
        assert_eq!(all, [region]);
    }
}
