//! Objects with a tail of words: [`Array`] of references and [`Words`] of plain words.
//!
//! Run by mutators. The length is in the header and never changes, so indices are checked against a
//! word that no other mutator writes.

use std::fmt;
use std::marker::PhantomData;

use strikeslip_gc::geometry::WORD_BYTES;
use strikeslip_gc::layout::{LayoutId, Tail};

use crate::object::{Gc, Slot};
use crate::shape::{Object, ObjectHeader, Typed};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::{Mutator, shape};

/// The words behind a header, as atomics.
///
/// # Safety
/// `header` is that of an object in a heap whose tail has `words` words, and its mutator reaches no
/// safepoint during `'a`.
#[inline]
pub(crate) unsafe fn tail_words(header: &ObjectHeader, words: usize) -> &[AtomicU64] {
    let tail = std::ptr::from_ref(header).expose_provenance() + WORD_BYTES;
    // SAFETY: the object lies in heap memory, whose provenance is exposed (`&ObjectHeader` itself
    // covers the header only); the caller answers for the extent and the lifetime.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(tail), words) }
}

/// An object that consists of references to objects of one type, or null.
#[repr(C)]
pub struct Array<T> {
    header: ObjectHeader,
    elements: PhantomData<*mut T>,
}

// SAFETY: a header; the tail is slots of `T`.
unsafe impl<T: Object> Object for Array<T> {}
// SAFETY: `array_layout` is an id for arrays of this element type only, with a tail of references.
unsafe impl<T: Object> Typed for Array<T> {
    fn layout() -> LayoutId {
        T::array_layout()
    }
}

impl<T: Object> Array<T> {
    /// Number of elements.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.get().length() as usize
    }

    /// Whether there are no elements.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All slots. (They are atomics, so this lends no heap bytes.)
    #[inline]
    #[must_use]
    pub fn slots(&self) -> &[Slot<T>] {
        // SAFETY: the tail has `len` words; `&self` comes from a `Gc`, which lives no longer than to
        // the next safepoint.
        let words = unsafe { tail_words(&self.header, self.len()) };
        // SAFETY: `Slot` is a transparent `AtomicU64`, and these words are reference slots.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }

    /// The slot of an element.
    ///
    /// # Panics
    /// If there is no such element.
    #[inline]
    #[must_use]
    pub fn slot(&self, index: usize) -> &Slot<T> {
        &self.slots()[index]
    }

    /// What an element refers to.
    ///
    /// # Panics
    /// If there is no such element.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Gc<'_, T>> {
        self.slot(index).load()
    }

    /// Makes an element refer to `value`.
    ///
    /// # Panics
    /// If there is no such element, or as [`Slot::store`].
    #[inline]
    pub fn set(&self, m: &Mutator, index: usize, value: Option<Gc<'_, T>>) {
        self.slot(index).store(m, value);
    }
}

impl<T> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Array of {}", self.header.get().length())
    }
}

/// An object that consists of plain 64-bit words, read and written relaxed.
#[repr(C)]
pub struct Words {
    header: ObjectHeader,
}

// SAFETY: a header; the tail is plain words.
unsafe impl Object for Words {
    fn array_layout() -> LayoutId {
        crate::__layout_once!(shape::register_tail(Tail::References))
    }
}
// SAFETY: the id is registered here, for this type; elements of 2^3 bytes.
unsafe impl Typed for Words {
    fn layout() -> LayoutId {
        crate::__layout_once!(shape::register_tail(Tail::Data(3)))
    }
}

impl Words {
    /// Number of words.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.get().length() as usize
    }

    /// Whether there are no words.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the tail has `len` words; `&self` comes from a `Gc`, which lives no longer than to
        // the next safepoint.
        unsafe { tail_words(&self.header, self.len()) }
    }

    /// A word.
    ///
    /// # Panics
    /// If there is no such word.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        self.words()[index].load(Ordering::Relaxed)
    }

    /// Changes a word.
    ///
    /// # Panics
    /// If there is no such word.
    #[inline]
    pub fn set(&self, index: usize, value: u64) {
        self.words()[index].store(value, Ordering::Relaxed);
    }

    /// Changes all words.
    #[inline]
    pub fn fill(&self, value: u64) {
        self.words().iter().for_each(|word| word.store(value, Ordering::Relaxed));
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Words of {}", self.len())
    }
}
