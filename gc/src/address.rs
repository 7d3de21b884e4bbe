//! Addresses and indices, each with a type of its own.
//!
//! A [`ToAddress`] is an address as mutators know it; after the flip its page may not be there yet.
//! A [`FromAddress`] is where the collector reads old contents, and is always there. Indices are
//! *compact*: the aliases between windows are not counted, so one index serves a window and its
//! alias, and side tables have no holes.
//!
//! Invariant: a `ToAddress` inside the heap and the `WordIndex` of it map to each other one to one
//! (`HeapRange`).

use crate::geometry::{
    CHUNK_SHIFT, PAGE_BYTES, PAGE_SHIFT, REGION_BYTES, REGION_CHUNKS, REGION_PAGES, REGION_SHIFT,
    REGION_WORDS, STRIDE_SHIFT, WINDOW_BYTES, WINDOW_REGIONS, WINDOW_SHIFT, WORD_SHIFT,
};

/// A heap address as mutators know it. Collector threads never read through one while its page is
/// not installed.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct ToAddress(usize);

/// Where the collector reads old contents: the address itself for a region whose objects were
/// evacuated, the alias for a region that was taken.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct FromAddress(usize);

macro_rules! address {
    ($name:ident) => {
        impl $name {
            /// The address with this numeric value.
            #[must_use]
            pub const fn new(value: usize) -> Self {
                Self(value)
            }
            /// Numeric value.
            #[must_use]
            pub const fn get(self) -> usize {
                self.0
            }
            /// The address `bytes` further.
            #[must_use]
            pub const fn offset(self, bytes: usize) -> Self {
                Self(self.0 + bytes)
            }
            /// As a pointer. Dereferencing it needs the caller's own argument that the page is there.
            #[must_use]
            pub const fn as_ptr<T>(self) -> *mut T {
                std::ptr::with_exposed_provenance_mut(self.0)
            }
        }
    };
}
address!(ToAddress);
address!(FromAddress);

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// As an index into a side table.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}
index!(
    /// Compact index of a word (8 bytes) of the heap. 32 bits of them span 32 GiB of windows.
    WordIndex
);
index!(
    /// Compact index of a chunk (512 bytes): also the index of its 64 bits in the live map.
    ChunkIndex
);
index!(
    /// Compact index of a page.
    PageIndex
);
index!(
    /// Compact index of a region.
    RegionIndex
);
index!(
    /// Index of a window.
    WindowIndex
);

impl WordIndex {
    /// The chunk this word lies in.
    #[must_use]
    pub const fn chunk(self) -> ChunkIndex {
        ChunkIndex(self.0 >> (CHUNK_SHIFT - WORD_SHIFT))
    }
    /// The bit of this word in its chunk's live-map word.
    #[must_use]
    pub const fn bit(self) -> u32 {
        self.0 & 63
    }
    /// The page this word lies in.
    #[must_use]
    pub const fn page(self) -> PageIndex {
        PageIndex(self.0 >> (PAGE_SHIFT - WORD_SHIFT))
    }
    /// The region this word lies in.
    #[must_use]
    pub const fn region(self) -> RegionIndex {
        RegionIndex(self.0 >> (REGION_SHIFT - WORD_SHIFT))
    }
    /// The word `words` further.
    #[must_use]
    pub const fn offset(self, words: u32) -> Self {
        Self(self.0 + words)
    }
}

impl ChunkIndex {
    /// The first word of the chunk.
    #[must_use]
    pub const fn first_word(self) -> WordIndex {
        WordIndex(self.0 << (CHUNK_SHIFT - WORD_SHIFT))
    }
    /// The region this chunk lies in.
    #[must_use]
    pub const fn region(self) -> RegionIndex {
        RegionIndex(self.0 >> (REGION_SHIFT - CHUNK_SHIFT))
    }
}

impl PageIndex {
    /// The first word of the page.
    #[must_use]
    pub const fn first_word(self) -> WordIndex {
        WordIndex(self.0 << (PAGE_SHIFT - WORD_SHIFT))
    }
    /// The region this page lies in.
    #[must_use]
    pub const fn region(self) -> RegionIndex {
        RegionIndex(self.0 >> (REGION_SHIFT - PAGE_SHIFT))
    }
    /// Position of the page in its region.
    #[must_use]
    pub const fn in_region(self) -> usize {
        self.0 as usize % REGION_PAGES
    }
}

impl RegionIndex {
    /// The first word of the region.
    #[must_use]
    pub const fn first_word(self) -> WordIndex {
        WordIndex(self.0 << (REGION_SHIFT - WORD_SHIFT))
    }
    /// The first chunk of the region.
    #[must_use]
    pub const fn first_chunk(self) -> ChunkIndex {
        ChunkIndex(self.0 << (REGION_SHIFT - CHUNK_SHIFT))
    }
    /// The first page of the region.
    #[must_use]
    pub const fn first_page(self) -> PageIndex {
        PageIndex(self.0 << (REGION_SHIFT - PAGE_SHIFT))
    }
    /// The window this region lies in.
    #[must_use]
    pub const fn window(self) -> WindowIndex {
        WindowIndex(self.0 >> (WINDOW_SHIFT - REGION_SHIFT))
    }
    /// The region after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl WindowIndex {
    /// The regions of the window, in address order.
    pub fn regions(self) -> impl Iterator<Item = RegionIndex> {
        let first = self.0 * WINDOW_REGIONS as u32;
        (first..first + WINDOW_REGIONS as u32).map(RegionIndex)
    }
}

const _: () = assert!(REGION_CHUNKS * 64 == REGION_WORDS);

/// The range of addresses a heap reserved, and the mapping between addresses and indices.
#[derive(Copy, Clone, Debug)]
pub struct HeapRange {
    base: usize,
    windows: u32,
}

impl HeapRange {
    /// A range of `windows` windows beginning at `base`, which is aligned to a window.
    #[must_use]
    pub const fn new(base: usize, windows: u32) -> Self {
        assert!(base.is_multiple_of(WINDOW_BYTES));
        Self { base, windows }
    }

    /// First address of the range.
    #[must_use]
    pub const fn base(self) -> usize {
        self.base
    }

    /// Number of windows.
    #[must_use]
    pub const fn windows(self) -> u32 {
        self.windows
    }

    /// Number of regions in all windows.
    #[must_use]
    pub const fn regions(self) -> usize {
        self.windows as usize * WINDOW_REGIONS
    }

    /// Whether `address` lies in the range (in a window or in an alias).
    #[inline]
    #[must_use]
    pub const fn contains(self, address: usize) -> bool {
        address.wrapping_sub(self.base) < (self.windows as usize) << STRIDE_SHIFT
    }

    /// Compact index of the word at `address`, which lies in a window or in an alias.
    #[inline]
    #[must_use]
    pub const fn word_at(self, address: usize) -> WordIndex {
        let offset = address.wrapping_sub(self.base);
        let window = offset >> STRIDE_SHIFT;
        let inside = offset & (WINDOW_BYTES - 1);
        WordIndex(((window << (WINDOW_SHIFT - WORD_SHIFT)) | (inside >> WORD_SHIFT)) as u32)
    }

    /// Compact index of the word at a to-space address.
    #[inline]
    #[must_use]
    pub const fn word(self, address: ToAddress) -> WordIndex {
        self.word_at(address.get())
    }

    /// Region of a to-space address.
    #[inline]
    #[must_use]
    pub const fn region(self, address: ToAddress) -> RegionIndex {
        self.word_at(address.get()).region()
    }

    /// To-space address of a word.
    #[inline]
    #[must_use]
    pub const fn address(self, word: WordIndex) -> ToAddress {
        let window = (word.0 >> (WINDOW_SHIFT - WORD_SHIFT)) as usize;
        let inside = (word.index() << WORD_SHIFT) & (WINDOW_BYTES - 1);
        ToAddress(self.base + (window << STRIDE_SHIFT) + inside)
    }

    /// Alias of a word: where it is read once its region was taken.
    #[inline]
    #[must_use]
    pub const fn alias(self, word: WordIndex) -> FromAddress {
        FromAddress(self.address(word).get() + WINDOW_BYTES)
    }

    /// First address of a region.
    #[must_use]
    pub const fn region_address(self, region: RegionIndex) -> ToAddress {
        self.address(region.first_word())
    }

    /// First address of a page.
    #[must_use]
    pub const fn page_address(self, page: PageIndex) -> ToAddress {
        self.address(page.first_word())
    }

    /// First address of a window.
    #[must_use]
    pub const fn window_address(self, window: WindowIndex) -> ToAddress {
        ToAddress(self.base + (window.index() << STRIDE_SHIFT))
    }
}

/// A range of pages in to-space, given to the kernel as one piece.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PageRange {
    /// First address.
    pub start: ToAddress,
    /// Length in bytes, a multiple of [`PAGE_BYTES`].
    pub bytes: usize,
}

impl PageRange {
    /// The range of a whole region.
    #[must_use]
    pub const fn of_region(range: HeapRange, region: RegionIndex) -> Self {
        Self { start: range.region_address(region), bytes: REGION_BYTES }
    }

    /// Number of pages.
    #[must_use]
    pub const fn pages(self) -> usize {
        self.bytes / PAGE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_and_addresses_are_inverse() {
        let range = HeapRange::new(64 << 30, 3);
        for word in [0, 1, 511, (1 << 27) - 1, 1 << 27, (2 << 27) + 12345] {
            let word = WordIndex(word);
            let address = range.address(word);
            assert!(range.contains(address.get()));
            assert_eq!(range.word(address), word);
            assert_eq!(range.word_at(range.alias(word).get()), word);
        }
    }

    #[test]
    fn the_range_ends_after_the_last_alias() {
        let range = HeapRange::new(64 << 30, 2);
        assert!(range.contains((64 << 30) + 4 * WINDOW_BYTES - 1));
        assert!(!range.contains((64 << 30) + 4 * WINDOW_BYTES));
        assert!(!range.contains((64 << 30) - 1));
    }
}
