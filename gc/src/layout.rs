//! Object headers and layouts: all that the collector knows of an object.
//!
//! An object is one header word, then `fixed_words` words of which some are references, then an
//! optional tail of elements. The header names a *layout* and holds the length of the tail. Layouts
//! live in immortal memory outside the heap, so size and reference slots are data: any thread can
//! read them at any time, also while it serves a fault.
//!
//! ```text
//!  63            32 31             0
//! +----------------+----------------+
//! |  tail length   |   layout id    |   header; all zero = no object here
//! +----------------+----------------+
//! ```
//!
//! Invariants: a layout never changes once its id was handed out; id 0 is no layout; id 1 is
//! *filler*, whose tail length counts the words after the header.

use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::geometry::{MIN_OBJECT_BYTES, WORD_BYTES, round_up_to_words};

/// What the elements of an object's tail are.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Tail {
    /// No tail: the size is fixed.
    None,
    /// References, one word each.
    References,
    /// Plain data, elements of 2^n bytes (n at most 3).
    Data(u8),
}

/// Identifies a registered [`Layout`]; the low half of a header.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct LayoutId(u32);

impl LayoutId {
    /// The layout of filler: dead space that keeps a region walkable.
    pub const FILLER: Self = Self(1);

    /// Numeric value.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Sizes and reference slots of a kind of object.
#[derive(Copy, Clone, Debug)]
pub struct Layout {
    fixed_words: u32,
    tail: Tail,
    /// Bit `i`: fixed word `i` (counted after the header) is a reference.
    references: u64,
}

/// Why a layout cannot be registered.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// Reference slots must be among the first 64 fixed words.
    #[error("fixed word {0} cannot be a reference: references must be among the first 64 fixed words")]
    ReferenceTooFar(u32),
    /// A reference slot lies behind the fixed part.
    #[error("fixed word {0} is named as a reference, but the fixed part has fewer words")]
    ReferenceOutside(u32),
    /// Elements of plain data are 1, 2, 4 or 8 bytes.
    #[error("elements of 2^{0} bytes are not supported; 8 bytes is the most")]
    ElementTooLarge(u8),
    /// There is a limit of 2^20 layouts in a process.
    #[error("too many layouts: a process can have {MAX_LAYOUTS}")]
    TooMany,
}

impl Layout {
    /// A layout with `fixed_words` words after the header, of which those numbered in `references`
    /// are references, and a tail.
    ///
    /// # Errors
    /// [`LayoutError`] if a reference is out of range or an element too large.
    pub fn new(fixed_words: u32, references: &[u32], tail: Tail) -> Result<Self, LayoutError> {
        let mut map = 0;
        for &word in references {
            if word >= fixed_words {
                return Err(LayoutError::ReferenceOutside(word));
            }
            if word >= u64::BITS {
                return Err(LayoutError::ReferenceTooFar(word));
            }
            map |= 1 << word;
        }
        match tail {
            Tail::Data(log2) if log2 > 3 => Err(LayoutError::ElementTooLarge(log2)),
            _ => Ok(Self { fixed_words, tail, references: map }),
        }
    }

    /// Bytes of an object of this layout with `length` tail elements, header included. `None` if
    /// that does not fit an address.
    #[must_use]
    pub const fn checked_object_bytes(&self, length: usize) -> Option<usize> {
        let tail = match self.tail {
            Tail::None => 0,
            Tail::References => match length.checked_mul(WORD_BYTES) {
                Some(bytes) => bytes,
                None => return None,
            },
            Tail::Data(log2) => match length.checked_mul(1 << log2) {
                Some(bytes) if bytes <= isize::MAX as usize => round_up_to_words(bytes),
                _ => return None,
            },
        };
        match tail.checked_add((1 + self.fixed_words as usize) * WORD_BYTES) {
            Some(bytes) if bytes < MIN_OBJECT_BYTES => Some(MIN_OBJECT_BYTES),
            other => other,
        }
    }

    /// Bytes of an existing object of this layout.
    #[inline]
    #[must_use]
    pub const fn object_bytes(&self, length: u32) -> usize {
        let tail = match self.tail {
            Tail::None => 0,
            Tail::References => length as usize * WORD_BYTES,
            Tail::Data(log2) => round_up_to_words((length as usize) << log2),
        };
        let bytes = (1 + self.fixed_words as usize) * WORD_BYTES + tail;
        if bytes < MIN_OBJECT_BYTES { MIN_OBJECT_BYTES } else { bytes }
    }

    /// Words between the header and the tail.
    #[inline]
    #[must_use]
    pub const fn fixed_words(&self) -> u32 {
        self.fixed_words
    }

    /// What the tail holds.
    #[inline]
    #[must_use]
    pub const fn tail(&self) -> Tail {
        self.tail
    }

    /// Bit `i`: fixed word `i` is a reference.
    #[inline]
    #[must_use]
    pub const fn references(&self) -> u64 {
        self.references
    }

    /// Whether objects of this layout can hold references at all.
    #[inline]
    #[must_use]
    pub const fn has_references(&self) -> bool {
        self.references != 0 || matches!(self.tail, Tail::References)
    }

    /// Calls `visit` with the word number (header = 0) of each reference slot of an object with
    /// `length` tail elements, as far as it lies in `words`.
    #[inline]
    pub fn for_each_reference(
        &self,
        length: u32,
        words: std::ops::Range<usize>,
        mut visit: impl FnMut(usize),
    ) {
        let mut map = self.references;
        while map != 0 {
            let word = 1 + map.trailing_zeros() as usize;
            map &= map - 1;
            if words.contains(&word) {
                visit(word);
            }
        }
        if self.tail == Tail::References {
            let first = 1 + self.fixed_words as usize;
            let start = first.max(words.start);
            let end = (first + length as usize).min(words.end);
            for word in start..end {
                visit(word);
            }
        }
    }
}

/// The header word of an object.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Header(u64);

impl Header {
    /// The header of an object of `layout` with `length` tail elements.
    #[inline]
    #[must_use]
    pub const fn new(layout: LayoutId, length: u32) -> Self {
        Self(((length as u64) << 32) | layout.0 as u64)
    }

    /// A header from its bits, as read from memory.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits, as written to memory.
    #[inline]
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The header of filler that covers `bytes` (a multiple of the word size, at least one word).
    #[must_use]
    pub const fn filler(bytes: usize) -> Self {
        Self::new(LayoutId::FILLER, (bytes / WORD_BYTES - 1) as u32)
    }

    /// Whether there is no object here.
    #[inline]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 as u32 == 0
    }

    /// Whether this is filler.
    #[inline]
    #[must_use]
    pub const fn is_filler(self) -> bool {
        self.0 as u32 == LayoutId::FILLER.0
    }

    /// Id of the layout.
    #[inline]
    #[must_use]
    pub const fn layout_id(self) -> LayoutId {
        LayoutId(self.0 as u32)
    }

    /// Number of tail elements.
    #[inline]
    #[must_use]
    pub const fn length(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The registered layout. `None` if the bits name no registered layout: not an object's header.
    #[inline]
    #[must_use]
    pub fn checked_layout(self) -> Option<&'static Layout> {
        LAYOUTS.get(self.0 as u32)
    }

    /// The registered layout.
    ///
    /// # Panics
    /// If this is not the header of an object: the heap is corrupt, or the address was wrong.
    #[inline]
    #[must_use]
    pub fn layout(self) -> &'static Layout {
        match self.checked_layout() {
            Some(layout) => layout,
            None => not_a_header(self.0),
        }
    }

    /// Bytes of the object (or filler) that begins with this header.
    ///
    /// # Panics
    /// As [`Header::layout`].
    #[inline]
    #[must_use]
    pub fn object_bytes(self) -> usize {
        if self.is_filler() {
            return (self.length() as usize + 1) * WORD_BYTES;
        }
        self.layout().object_bytes(self.length())
    }
}

#[cold]
#[inline(never)]
fn not_a_header(bits: u64) -> ! {
    panic!("{bits:#018x} is not an object header: no such layout");
}

const MAX_LAYOUTS: usize = 1 << 20;
const BLOCK: usize = 1 << 10;

/// The process's layouts: append-only blocks that are never moved or freed.
struct LayoutTable {
    blocks: [AtomicPtr<[Layout; BLOCK]>; MAX_LAYOUTS / BLOCK],
    count: AtomicU32,
    grow: Mutex<()>,
}

static LAYOUTS: LayoutTable = LayoutTable {
    blocks: [const { AtomicPtr::new(std::ptr::null_mut()) }; MAX_LAYOUTS / BLOCK],
    count: AtomicU32::new(2),
    grow: Mutex::new(()),
};

impl LayoutTable {
    #[inline]
    fn get(&self, id: u32) -> Option<&'static Layout> {
        // Relaxed: ids travel in headers, and whoever publishes an object publishes them after
        // `register` returned; the Acquire on the block pairs with the Release in `register`.
        if id <= LayoutId::FILLER.0 || id >= self.count.load(Ordering::Relaxed) {
            return None;
        }
        // Acquire: pairs with the Release store of the block in `register`.
        let block = self.blocks[id as usize / BLOCK].load(Ordering::Acquire);
        if block.is_null() {
            return None;
        }
        // SAFETY: a non-null block was leaked by `register` with all entries initialised, and the
        // entry of a handed-out id is never written again.
        Some(unsafe { &(*block)[id as usize % BLOCK] })
    }

    fn register(&self, layout: Layout) -> Result<LayoutId, LayoutError> {
        let guard = self.grow.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let id = self.count.load(Ordering::Relaxed);
        if id as usize >= MAX_LAYOUTS {
            return Err(LayoutError::TooMany);
        }
        let slot = &self.blocks[id as usize / BLOCK];
        let mut block = slot.load(Ordering::Relaxed);
        if block.is_null() {
            let empty = Layout { fixed_words: 0, tail: Tail::None, references: 0 };
            block = Box::into_raw(Box::new([empty; BLOCK]));
        }
        // SAFETY: only the holder of `grow` writes, and the entry of an id that was not handed out
        // yet has no readers.
        unsafe { (*block)[id as usize % BLOCK] = layout };
        // Release: pairs with the Acquire in `get`; the entry is written before it can be reached.
        slot.store(block, Ordering::Release);
        // Release: as above, for readers that are given the id by other means than a header.
        self.count.store(id + 1, Ordering::Release);
        drop(guard);
        Ok(LayoutId(id))
    }
}

/// Registers a layout in immortal memory and names it. Layouts are shared by all heaps of the
/// process and are never freed, so register each kind of object once.
///
/// # Errors
/// [`LayoutError::TooMany`] if the table is full.
///
/// ```
/// use strikeslip_gc::layout::{Header, Layout, Tail, register_layout};
/// let pair = register_layout(Layout::new(2, &[0, 1], Tail::None)?)?;
/// assert_eq!(Header::new(pair, 0).object_bytes(), 24);
/// # Ok::<(), strikeslip_gc::layout::LayoutError>(())
/// ```
pub fn register_layout(layout: Layout) -> Result<LayoutId, LayoutError> {
    LAYOUTS.register(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_from_the_header() {
        let node = register_layout(Layout::new(3, &[0, 1], Tail::None).unwrap()).unwrap();
        let bytes = register_layout(Layout::new(0, &[], Tail::Data(0)).unwrap()).unwrap();
        let table = register_layout(Layout::new(1, &[0], Tail::References).unwrap()).unwrap();
        assert_eq!(Header::new(node, 0).object_bytes(), 32);
        assert_eq!(Header::new(bytes, 0).object_bytes(), 16, "no object is smaller than two words");
        assert_eq!(Header::new(bytes, 9).object_bytes(), 24);
        assert_eq!(Header::new(table, 4).object_bytes(), 48);
        assert_eq!(Header::filler(64).object_bytes(), 64);
        assert_eq!(Header::filler(8).object_bytes(), 8);
    }

    #[test]
    fn references_are_visited_within_the_range() {
        let layout = Layout::new(3, &[0, 2], Tail::References).unwrap();
        let all = |words| {
            let mut seen = vec![];
            layout.for_each_reference(3, words, |word| seen.push(word));
            seen
        };
        assert_eq!(all(0..usize::MAX), [1, 3, 4, 5, 6]);
        assert_eq!(all(2..5), [3, 4]);
        assert_eq!(all(6..7), [6]);
    }

    #[test]
    fn impossible_layouts_are_refused() {
        assert_eq!(Layout::new(2, &[2], Tail::None).unwrap_err(), LayoutError::ReferenceOutside(2));
        assert_eq!(Layout::new(70, &[64], Tail::None).unwrap_err(), LayoutError::ReferenceTooFar(64));
        assert!(Layout::new(0, &[], Tail::Data(4)).is_err());
        assert_eq!(Layout::new(0, &[], Tail::Data(3)).unwrap().checked_object_bytes(usize::MAX), None);
    }
}
