//! Tables beside the heap: one element for each word, chunk, page or region.
//!
//! Made when a heap is created, cleared between cycles, by one thread at a time for one range.
//!
//! Invariants: memory comes zeroed and only where it is touched, so a table for the largest heap
//! costs nothing until used. Elements are atomics: clearing while others read is not a data race.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

use super::mapping::{advise, map, residency, unmap};
use crate::geometry::{PAGE_BYTES, round_up_to_pages};

/// Only this crate says what may be in a table.
pub(crate) mod sealed {
    /// Implemented beside [`Zeroable`](super::Zeroable).
    pub trait Sealed {}
}

/// An element of a [`SideTable`].
///
/// # Safety
/// All bytes zero is a valid value, the kernel may zero its bytes at any time (so it consists of
/// atomics), and it needs no drop.
pub unsafe trait Zeroable: sealed::Sealed + Send + Sync {
    /// Makes all bytes zero.
    fn set_zero(&self);
}

macro_rules! zeroable {
    ($($type:ty = $zero:literal),+) => {
        $(
            impl sealed::Sealed for $type {}
            // SAFETY: an atomic integer or boolean, for which zero bytes are 0 or false.
            unsafe impl Zeroable for $type {
                fn set_zero(&self) {
                    self.store($zero, Ordering::Relaxed);
                }
            }
        )+
    };
}
zeroable!(
    AtomicBool = false,
    AtomicU8 = 0,
    AtomicU16 = 0,
    AtomicU32 = 0,
    AtomicU64 = 0,
    AtomicUsize = 0,
    AtomicI32 = 0,
    AtomicI64 = 0
);

impl<T: Zeroable, const N: usize> sealed::Sealed for [T; N] {}
// SAFETY: as its elements.
unsafe impl<T: Zeroable, const N: usize> Zeroable for [T; N] {
    fn set_zero(&self) {
        self.iter().for_each(Zeroable::set_zero);
    }
}

/// A fixed number of elements in a mapping of their own, zero at first.
pub struct SideTable<T: Zeroable> {
    base: usize,
    elements: usize,
    _elements: PhantomData<T>,
}

impl<T: Zeroable> SideTable<T> {
    /// A table of `elements` elements.
    ///
    /// # Errors
    /// The system refuses so much address space.
    ///
    /// # Panics
    /// If the table's size overflows `usize`.
    pub fn new(elements: usize) -> io::Result<Self> {
        const { assert!(align_of::<T>() <= PAGE_BYTES && size_of::<T>() > 0) };
        let bytes = elements.checked_mul(size_of::<T>()).expect("size of a side table");
        // SAFETY: the kernel chooses a free address.
        let base =
            unsafe { map(0, round_up_to_pages(bytes).max(PAGE_BYTES), libc::PROT_READ | libc::PROT_WRITE)? };
        Ok(Self { base, elements, _elements: PhantomData })
    }

    /// Bytes of the table that the system has given memory for.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        let bytes = round_up_to_pages(self.elements * size_of::<T>()).max(PAGE_BYTES);
        residency(self.base, bytes).filter(|&is_resident| is_resident).count() * PAGE_BYTES
    }

    /// Makes a range of elements zero, and gives back the memory of the whole pages among them.
    ///
    /// # Panics
    /// If the range is not part of the table.
    pub fn clear(&self, range: Range<usize>) {
        let elements = &self[range.clone()];
        let (start, end) = (self.base + range.start * size_of::<T>(), self.base + range.end * size_of::<T>());
        let (first, last) = (round_up_to_pages(start), end & !(PAGE_BYTES - 1));
        // SAFETY: whole pages of our mapping, all inside the range; the elements may be zeroed at any time.
        if first < last && unsafe { advise(first, last - first, libc::MADV_DONTNEED) }.is_ok() {
            let element_at = |address: usize| (address - start) / size_of::<T>();
            elements[..element_at(first + size_of::<T>() - 1)].iter().for_each(Zeroable::set_zero);
            elements[element_at(last)..].iter().for_each(Zeroable::set_zero);
        } else {
            elements.iter().for_each(Zeroable::set_zero);
        }
    }
}

impl<T: Zeroable> Deref for SideTable<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `elements` elements, page-aligned, valid because zero bytes are,
        // and lives as long as `self`. They are only changed through atomics.
        unsafe { std::slice::from_raw_parts(ptr::with_exposed_provenance(self.base), self.elements) }
    }
}

impl<T: Zeroable> Drop for SideTable<T> {
    fn drop(&mut self) {
        let bytes = round_up_to_pages(self.elements * size_of::<T>()).max(PAGE_BYTES);
        // SAFETY: our mapping, and no reference to an element outlives `self`.
        unsafe { unmap(self.base, bytes) }
    }
}

impl<T: Zeroable> fmt::Debug for SideTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SideTable({} elements at {:#x})", self.elements, self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mapping::resident_pages;

    #[test]
    fn clearing_zeroes_the_range_and_only_it() {
        let table = SideTable::<AtomicU32>::new(10_000).unwrap();
        assert!(table.iter().all(|element| element.load(Ordering::Relaxed) == 0));
        table.iter().for_each(|element| element.store(7, Ordering::Relaxed));
        for range in [3..5, 1000..4500, 5120..6144, 9999..10_000] {
            table.clear(range.clone());
            for (index, element) in table.iter().enumerate() {
                let expected = if range.contains(&index) { 0 } else { 7 };
                assert_eq!(element.swap(7, Ordering::Relaxed), expected, "{index} of {range:?}");
            }
        }
    }

    #[test]
    fn clearing_gives_whole_pages_back() {
        let elements = 64 * PAGE_BYTES / 8;
        let table = SideTable::<AtomicU64>::new(elements).unwrap();
        assert_eq!(resident_pages(table.base, 64 * PAGE_BYTES), 0);
        table.iter().for_each(|element| element.store(1, Ordering::Relaxed));
        assert_eq!(resident_pages(table.base, 64 * PAGE_BYTES), 64);
        table.clear(1..elements - 1);
        assert_eq!(resident_pages(table.base, 64 * PAGE_BYTES), 2);
        assert_eq!(table.iter().map(|element| element.load(Ordering::Relaxed)).sum::<u64>(), 2);
    }

    #[test]
    fn elements_may_straddle_pages() {
        let table = SideTable::<[AtomicU32; 3]>::new(5_000).unwrap();
        table.iter().flatten().for_each(|word| word.store(9, Ordering::Relaxed));
        table.clear(100..3000);
        for (index, element) in table.iter().enumerate() {
            let expected = if (100..3000).contains(&index) { 0 } else { 9 };
            assert!(element.iter().all(|word| word.load(Ordering::Relaxed) == expected), "{index}");
        }
    }

    #[test]
    fn an_empty_table_is_a_table() {
        let table = SideTable::<AtomicU8>::new(0).unwrap();
        table.clear(0..0);
        assert!(table.is_empty());
    }
}
