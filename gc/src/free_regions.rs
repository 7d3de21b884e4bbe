//! Free regions: bitmaps under the space's lock.
//!
//! Run by whoever hands regions out or takes them back: mutators on the slow path of allocation, workers
//! and the controller.
//!
//! Invariant: a region is marked resident here only while it is free; in use, its record says so.

use crate::address::{RegionIndex, WindowIndex};
use crate::geometry::WINDOW_REGIONS;

/// Regions of a window, one bit each.
type WindowBits = [u64; WINDOW_REGIONS / 64];

/// Free regions, and which of them have memory of the system's.
#[derive(Debug)]
pub struct FreeRegions {
    free: Vec<WindowBits>,
    resident: Vec<WindowBits>,
}

const fn bit_of(region: RegionIndex) -> (usize, usize, u64) {
    let in_window = region.index() % WINDOW_REGIONS;
    (region.window().index(), in_window / 64, 1 << (in_window % 64))
}

impl FreeRegions {
    /// All regions of `windows` windows, free and without memory.
    pub fn new(windows: usize) -> Self {
        let all = |bits| vec![[bits; WINDOW_REGIONS / 64]; windows];
        Self { free: all(u64::MAX), resident: all(0) }
    }

    /// Whether a region is free.
    pub fn is_free(&self, region: RegionIndex) -> bool {
        let (window, word, bit) = bit_of(region);
        self.free[window][word] & bit != 0
    }

    /// A region is handed out.
    pub fn take(&mut self, region: RegionIndex) {
        let (window, word, bit) = bit_of(region);
        self.free[window][word] &= !bit;
        self.resident[window][word] &= !bit;
    }

    /// A region comes back, with memory of the system's or without.
    pub fn give_back(&mut self, region: RegionIndex, resident: bool) {
        let (window, word, bit) = bit_of(region);
        self.free[window][word] |= bit;
        if resident {
            self.resident[window][word] |= bit;
        }
    }

    /// A free region's memory was given back to the system.
    pub fn discarded(&mut self, region: RegionIndex) {
        let (window, word, bit) = bit_of(region);
        self.resident[window][word] &= !bit;
    }

    /// The first free region of a window, and the first that is resident, or not, as wanted.
    pub fn first(&self, window: WindowIndex, resident: bool) -> (Option<RegionIndex>, Option<RegionIndex>) {
        let free = &self.free[window.index()];
        let flip = if resident { 0 } else { u64::MAX };
        let wanted = |word: usize| free[word] & (self.resident[window.index()][word] ^ flip);
        let first = |bits: &dyn Fn(usize) -> u64| {
            (0..WINDOW_REGIONS / 64).find(|&word| bits(word) != 0).map(|word| {
                let bit = word as u32 * 64 + bits(word).trailing_zeros();
                RegionIndex(window.0 * WINDOW_REGIONS as u32 + bit)
            })
        };
        (first(&|word| free[word]), first(&wanted))
    }

    /// Free regions of a window, in address order.
    pub fn in_window(&self, window: WindowIndex) -> impl DoubleEndedIterator<Item = RegionIndex> + '_ {
        let first = window.0 * WINDOW_REGIONS as u32;
        (first..first + WINDOW_REGIONS as u32).map(RegionIndex).filter(|&region| self.is_free(region))
    }

    /// Free regions of a window that have memory of the system's.
    pub fn resident_in_window(&self, window: WindowIndex) -> Vec<RegionIndex> {
        let is_resident = |region: &RegionIndex| {
            let (window, word, bit) = bit_of(*region);
            self.resident[window][word] & bit != 0
        };
        self.in_window(window).filter(is_resident).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_region_is_the_one_that_is_wanted() {
        let mut free = FreeRegions::new(2);
        let window = WindowIndex(1);
        let region = |nth: u32| RegionIndex(WINDOW_REGIONS as u32 + nth);
        assert_eq!(free.first(window, true), (Some(region(0)), None));
        (0..4).for_each(|nth| free.take(region(nth)));
        free.give_back(region(2), true);
        free.give_back(region(1), false);
        assert_eq!(free.first(window, true), (Some(region(1)), Some(region(2))));
        assert_eq!(free.first(window, false), (Some(region(1)), Some(region(1))));
        assert_eq!(free.resident_in_window(window), [region(2)]);
        free.discarded(region(2));
        assert_eq!(free.first(window, true), (Some(region(1)), None));
        assert!(!free.is_free(region(0)) && free.is_free(region(2)));
    }

    #[test]
    fn a_region_that_was_handed_out_is_in_no_list() {
        let mut free = FreeRegions::new(1);
        let region = RegionIndex(70);
        free.take(region);
        assert!(!free.in_window(WindowIndex(0)).any(|other| other == region));
        free.give_back(region, true);
        free.take(region);
        free.give_back(region, false);
        assert!(free.resident_in_window(WindowIndex(0)).is_empty());
    }
}
