//! Objects that consist of bytes: [`Bytes`], [`PinnedBytes`], [`Str`].
//!
//! Run by mutators. Bytes are never lent as a slice, for two reasons. Other mutators may write them,
//! so a `&[u8]` would be a data race; and after a flip their pages may be missing, so a system call
//! that is given their address may fail with `EFAULT`. They are copied in and out instead.
//!
//! Invariant: the tail is accessed as whole words, atomically and relaxed; the parts of words at the
//! ends of a range by compare-and-exchange. Accesses of different sizes to the same word would not
//! be allowed to race.

use std::fmt;
use std::ops::{Deref, Range};

use strikeslip_gc::geometry::WORD_BYTES;
use strikeslip_gc::layout::{LayoutId, Tail};

use crate::array::tail_words;
use crate::shape::{self, Object, ObjectHeader, Typed};
use crate::sync::atomic::{AtomicU64, Ordering};

macro_rules! byte_objects {
    ($($name:ident)+) => {$(
        // SAFETY: a header; the tail is plain bytes.
        unsafe impl Object for $name {
            fn array_layout() -> LayoutId {
                crate::__layout_once!(shape::register_tail(Tail::References))
            }
        }
        // SAFETY: the id is registered here, for this type; elements of 2^0 bytes.
        unsafe impl Typed for $name {
            fn layout() -> LayoutId {
                crate::__layout_once!(shape::register_tail(Tail::Data(0)))
            }
        }
    )+};
}
byte_objects!(Bytes PinnedBytes Str);

/// An object that consists of bytes.
#[repr(C)]
pub struct Bytes {
    header: ObjectHeader,
}

impl Bytes {
    /// Number of bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.get().length() as usize
    }

    /// Whether there are no bytes.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: a tail of bytes is rounded up to whole words; `&self` comes from a `Gc`, which
        // lives no longer than to the next safepoint.
        unsafe { tail_words(&self.header, self.len().div_ceil(WORD_BYTES)) }
    }

    /// A byte.
    ///
    /// # Panics
    /// If there is no such byte.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> u8 {
        self.check(index, 1);
        self.words()[index / WORD_BYTES].load(Ordering::Relaxed).to_ne_bytes()[index % WORD_BYTES]
    }

    /// Changes a byte.
    ///
    /// # Panics
    /// If there is no such byte.
    #[inline]
    pub fn set(&self, index: usize, byte: u8) {
        self.write(index, &[byte]);
    }

    /// Copies `into.len()` bytes, from byte `offset` on, into a buffer.
    ///
    /// # Panics
    /// If there are not so many bytes.
    pub fn copy_to(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        let mut rest = into;
        self.for_each_word(offset, rest.len(), |word, part| {
            let (chunk, behind) = std::mem::take(&mut rest).split_at_mut(part.len());
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[part]);
            rest = behind;
            true
        });
    }

    /// Overwrites bytes, from byte `offset` on.
    ///
    /// # Panics
    /// If there are not so many bytes.
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.check(offset, from.len());
        let mut rest = from;
        self.for_each_word(offset, from.len(), |word, part| {
            let (chunk, behind) = rest.split_at(part.len());
            rest = behind;
            if let Ok(whole) = chunk.try_into() {
                word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
                return true;
            }
            let patched = |old: u64| {
                let mut bytes = old.to_ne_bytes();
                bytes[part.clone()].copy_from_slice(chunk);
                Some(u64::from_ne_bytes(bytes))
            };
            // Never fails: the closure always returns a value.
            let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, patched);
            true
        });
    }

    /// Whether the bytes are these.
    #[must_use]
    pub fn eq_bytes(&self, other: &[u8]) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let mut rest = other;
        self.for_each_word(0, other.len(), |word, part| {
            let (chunk, behind) = rest.split_at(part.len());
            rest = behind;
            word.load(Ordering::Relaxed).to_ne_bytes()[part] == *chunk
        })
    }

    /// A copy of the bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = vec![];
        self.append_to(&mut copy);
        copy
    }

    fn append_to(&self, buffer: &mut Vec<u8>) {
        buffer.reserve(self.len());
        self.for_each_word(0, self.len(), |word, part| {
            buffer.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[part]);
            true
        });
    }

    #[inline]
    fn check(&self, offset: usize, length: usize) {
        let end = offset.checked_add(length);
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "{length} bytes at {offset} are not inside an object of {} bytes",
            self.len()
        );
    }

    /// Calls `visit` for each word of a checked range, with the part of the word that lies in it,
    /// until it returns false. Returns whether it never did.
    #[inline]
    fn for_each_word(
        &self,
        offset: usize,
        length: usize,
        mut visit: impl FnMut(&AtomicU64, Range<usize>) -> bool,
    ) -> bool {
        let end = offset + length;
        let words = &self.words()[offset / WORD_BYTES..end.div_ceil(WORD_BYTES).max(offset / WORD_BYTES)];
        let mut at = offset;
        words.iter().all(|word| {
            let first = at % WORD_BYTES;
            let last = (first + (end - at)).min(WORD_BYTES);
            at += last - first;
            visit(word, first..last)
        })
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes of {}", self.len())
    }
}

/// [`Bytes`] that are never moved: their address may be given to others, for as long as the object
/// is rooted.
///
/// Pinned does not mean resident: while a collection runs, its page may be missing for a short
/// time. A thread that touches it is served, but a system call may fail with `EFAULT` under
/// [`Delivery::InPlace`](crate::Delivery::InPlace).
#[derive(Debug)]
#[repr(transparent)]
pub struct PinnedBytes {
    bytes: Bytes,
}

impl PinnedBytes {
    /// Address of the first byte. Using it is `unsafe`, and excludes other accesses meanwhile.
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        let tail = std::ptr::from_ref(self).expose_provenance() + WORD_BYTES;
        std::ptr::with_exposed_provenance_mut(tail)
    }
}

impl Deref for PinnedBytes {
    type Target = Bytes;
    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// A string. It never changes.
#[repr(transparent)]
pub struct Str {
    bytes: Bytes,
}

impl Str {
    /// The bytes, to be filled by whoever allocated the string, with UTF-8 of its length.
    #[inline]
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Number of bytes (in UTF-8).
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the string is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the string is this one.
    #[must_use]
    pub fn eq_str(&self, other: &str) -> bool {
        self.bytes.eq_bytes(other.as_bytes())
    }

    /// Appends a copy to `buffer`.
    pub fn push_to(&self, buffer: &mut String) {
        // SAFETY: the object was filled with the bytes of a whole `str` before it could be reached,
        // and nothing changes them, so the buffer stays UTF-8.
        self.bytes.append_to(unsafe { buffer.as_mut_vec() });
    }
}

/// `to_string` is a copy.
impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = String::new();
        self.push_to(&mut copy);
        f.pad(&copy)
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = String::new();
        self.push_to(&mut copy);
        fmt::Debug::fmt(&copy, f)
    }
}
