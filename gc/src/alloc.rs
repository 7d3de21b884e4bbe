//! Allocation: regions shared by mutators, from which they cut buffers and medium objects.
//!
//! Run by mutators. Cutting is one compare-and-swap; only a new region takes a lock. The fast path,
//! inside a buffer, is in [`crate::context`].
//!
//! Invariants:
//! 1. Memory handed out is zero, and below its region's `top`.
//! 2. Everything below `top` of a region that is not being allocated in is objects or filler, except
//!    that the rest of a buffer in use is zero.
//! 3. Mutators cut fresh regions (objects born marked) only after every mutator's barrier is on.

use std::sync::PoisonError;

use crate::address::{RegionIndex, ToAddress};
use crate::geometry::{REGION_BYTES, WINDOW_BYTES};
use crate::layout::Header;
use crate::region::Use;
use crate::space::Space;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A region that several mutators cut pieces from.
#[derive(Debug)]
pub struct SharedRegion {
    usage: Use,
    /// `(region + 1) << 32 | bytes cut`, or 0: no region.
    state: AtomicU64,
    refill: Mutex<()>,
}

impl SharedRegion {
    /// Without a region yet; regions get this use.
    #[must_use]
    pub fn new(usage: Use) -> Self {
        Self { usage, state: AtomicU64::new(0), refill: Mutex::new(()) }
    }

    /// Cuts `bytes` of zeroed memory. `None`: no region is left.
    pub fn cut(&self, space: &Space, bytes: usize) -> Option<ToAddress> {
        let (region, top) = self.cut_piece(bytes, || space.allocate_region(self.usage))?;
        space.regions.record(region).top.fetch_max((top + bytes) as u32, Ordering::Relaxed);
        Some(zeroed(space, region, top, bytes))
    }

    /// Cuts a piece of a region: which one, and where it begins. If the region has no room for it, `allocate` gives
    /// a new one.
    pub(crate) fn cut_piece(
        &self,
        bytes: usize,
        allocate: impl Fn() -> Option<RegionIndex>,
    ) -> Option<(RegionIndex, usize)> {
        debug_assert!(bytes <= REGION_BYTES);
        loop {
            // Acquire: pairs with the Release in `refill`, so that the region's record is seen.
            let state = self.state.load(Ordering::Acquire);
            let top = (state & u64::from(u32::MAX)) as usize;
            if state == 0 || top + bytes > REGION_BYTES {
                self.refill(state, &allocate)?;
                continue;
            }
            let new = state + bytes as u64;
            // Relaxed: the piece is private to whoever cuts it.
            if self.state.compare_exchange_weak(state, new, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Some((RegionIndex((state >> 32) as u32 - 1), top));
            }
        }
    }

    /// Replaces the region seen in `state` by a new one.
    fn refill(&self, state: u64, allocate: impl Fn() -> Option<RegionIndex>) -> Option<()> {
        let _guard = self.refill.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state.load(Ordering::Relaxed) != state {
            return Some(());
        }
        let region = allocate()?;
        // Release: pairs with the Acquire in `cut`. A concurrent cut of the old region lost its race
        // if this replaces the state it saw; `close` may have cleared it, which is as good.
        self.state.store((u64::from(region.0) + 1) << 32, Ordering::Release);
        Some(())
    }

    /// Lets go of the region: the next piece comes from a new one.
    pub fn close(&self) {
        let _guard = self.refill.lock().unwrap_or_else(PoisonError::into_inner);
        // A swap rather than a store: loom puts it between two cuts, as hardware does with either.
        self.state.swap(0, Ordering::Relaxed);
    }
}

/// The address of a piece of a region, whose memory is zero then.
fn zeroed(space: &Space, region: RegionIndex, top: usize, bytes: usize) -> ToAddress {
    let address = space.range.region_address(region).offset(top);
    if space.regions.record(region).dirty.load(Ordering::Relaxed) {
        // SAFETY: the piece [top, top + bytes) was cut by this thread alone and lies in a region
        // that is in use, mapped and not registered or served with zeros.
        unsafe { std::ptr::write_bytes(address.as_ptr::<u8>(), 0, bytes) };
    }
    address
}

/// The shared regions of a heap.
#[derive(Debug)]
pub struct SharedRegions {
    /// Buffers of small objects.
    pub small: SharedRegion,
    /// Objects too large for a buffer.
    pub medium: SharedRegion,
    /// Objects that never move.
    pub pinned: SharedRegion,
}

impl Default for SharedRegions {
    /// No regions yet.
    fn default() -> Self {
        Self {
            small: SharedRegion::new(Use::Objects),
            medium: SharedRegion::new(Use::Objects),
            pinned: SharedRegion::new(Use::Pinned),
        }
    }
}

impl SharedRegions {
    /// Lets go of all regions, so that allocation goes on in regions of the current class.
    pub fn close(&self) {
        self.small.close();
        self.medium.close();
        self.pinned.close();
    }
}

/// Allocates a large object. `None`: no run of regions is left.
pub fn allocate_large(space: &Space, header: Header, bytes: usize) -> Option<ToAddress> {
    let regions = bytes.div_ceil(REGION_BYTES);
    let head = space.allocate_run(regions)?;
    space.regions.record(head).large_header.store(header.to_bits(), Ordering::Relaxed);
    for region in (head.0..head.0 + regions as u32).map(RegionIndex) {
        if space.regions.record(region).dirty.swap(false, Ordering::Relaxed) {
            // SAFETY: the region was just handed out to this thread; it is mapped, and nobody else
            // has an address in it.
            unsafe {
                std::ptr::write_bytes(space.range.region_address(region).as_ptr::<u8>(), 0, REGION_BYTES)
            };
        }
    }
    Some(space.range.region_address(head))
}

/// Bytes of the largest object a heap with this limit can hold.
#[must_use]
pub fn largest_object(space: &Space) -> usize {
    (space.most_limit() * REGION_BYTES).min(WINDOW_BYTES)
}
