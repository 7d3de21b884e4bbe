//! Sizes of the heap's units, and how they relate.
//!
//! Constants only; nothing runs here. A *window* is the unit of mapping, a *region* the unit of
//! decision, a *page* the kernel's unit, a *chunk* the unit of forwarding, a *word* the unit of the
//! live map.

/// log2 of [`WORD_BYTES`].
pub const WORD_SHIFT: u32 = 3;
/// Bytes in a word: objects are aligned to it, and the live map has one bit for each.
pub const WORD_BYTES: usize = 1 << WORD_SHIFT;

/// log2 of [`CHUNK_BYTES`].
pub const CHUNK_SHIFT: u32 = 9;
/// Bytes in a chunk: as many as one 64-bit word of the live map covers.
pub const CHUNK_BYTES: usize = 1 << CHUNK_SHIFT;
/// Words in a chunk.
pub const CHUNK_WORDS: usize = CHUNK_BYTES / WORD_BYTES;

/// log2 of [`PAGE_BYTES`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page, the kernel's smallest unit of mapping.
pub const PAGE_BYTES: usize = 1 << PAGE_SHIFT;

/// log2 of [`REGION_BYTES`].
pub const REGION_SHIFT: u32 = 21;
/// Bytes in a region: the unit of decision, and the size of a huge page.
pub const REGION_BYTES: usize = 1 << REGION_SHIFT;
/// Words in a region.
pub const REGION_WORDS: usize = REGION_BYTES / WORD_BYTES;
/// Pages in a region.
pub const REGION_PAGES: usize = REGION_BYTES / PAGE_BYTES;
/// Chunks in a region.
pub const REGION_CHUNKS: usize = REGION_BYTES / CHUNK_BYTES;

/// log2 of [`WINDOW_BYTES`].
pub const WINDOW_SHIFT: u32 = 30;
/// Bytes in a window: one mapping, 1 GiB-aligned so that `mremap` moves whole page-table levels.
pub const WINDOW_BYTES: usize = 1 << WINDOW_SHIFT;
/// Regions in a window.
pub const WINDOW_REGIONS: usize = WINDOW_BYTES / REGION_BYTES;

/// log2 of [`STRIDE_BYTES`].
pub const STRIDE_SHIFT: u32 = WINDOW_SHIFT + 1;
/// Distance between the beginnings of two windows. The half after each window is its *alias*: the
/// place its regions are moved to when they are taken from the mutators. It also keeps windows
/// apart, so that two of them never become one mapping.
pub const STRIDE_BYTES: usize = 1 << STRIDE_SHIFT;

/// Most windows a heap can have: word indices are 32 bits wide (see `WordIndex`).
pub const MAX_WINDOWS: usize = 1 << (32 - (WINDOW_SHIFT - WORD_SHIFT));

/// Smallest object: a header and one word. The live map needs two words to tell neighbours apart.
pub const MIN_OBJECT_BYTES: usize = 2 * WORD_BYTES;
/// Objects larger than this get regions of their own and are never moved.
pub const LARGE_OBJECT_BYTES: usize = REGION_BYTES / 2;

const _: () = assert!(CHUNK_WORDS == u64::BITS as usize);
const _: () = assert!(MAX_WINDOWS == 32);

/// `bytes` rounded up to whole words.
#[must_use]
pub const fn round_up_to_words(bytes: usize) -> usize {
    (bytes + WORD_BYTES - 1) & !(WORD_BYTES - 1)
}

/// `bytes` rounded up to whole pages.
#[must_use]
pub const fn round_up_to_pages(bytes: usize) -> usize {
    (bytes + PAGE_BYTES - 1) & !(PAGE_BYTES - 1)
}
