//! Objects: a header word, references, then bytes. The header has the number of references in its lower half and
//! the number of bytes in its upper half.
//!
//! Invariant: an [`Object`] is used only between two safepoints (allocations and polls). What has to outlive one is
//! kept in the mutator's handles, where the collector finds and updates it.

use mmtk::util::{Address, ObjectReference};
use mmtk::vm::slot::SimpleSlot;

const WORD: usize = 8;

/// The address of an object, until the next safepoint.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Object(ObjectReference);

/// Size of an object.
pub const fn size(references: usize, bytes: usize) -> usize {
    WORD + WORD * references + bytes.next_multiple_of(WORD)
}

impl Object {
    /// The object that a reference refers to.
    pub const fn new(reference: ObjectReference) -> Self {
        Self(reference)
    }

    /// Makes memory that is zero an object.
    pub fn initialise(address: Address, references: usize, bytes: usize) -> Self {
        // SAFETY: the allocator returned this address for an object of this size; it is not 0, and aligned.
        unsafe {
            address.store((references | bytes << 32) as u64);
            Self(ObjectReference::from_raw_address_unchecked(address))
        }
    }

    /// As MMTk knows it.
    pub const fn reference(self) -> ObjectReference {
        self.0
    }

    fn header(self) -> u64 {
        // SAFETY: an object begins with its header.
        unsafe { self.0.to_raw_address().load() }
    }

    /// Number of references.
    pub fn references(self) -> usize {
        (self.header() & 0xffff_ffff) as usize
    }

    /// Number of bytes behind the references.
    pub fn length(self) -> usize {
        (self.header() >> 32) as usize
    }

    /// Size in all.
    pub fn size(self) -> usize {
        size(self.references(), self.length())
    }

    /// Where a reference is stored.
    pub fn slot(self, index: usize) -> SimpleSlot {
        debug_assert!(index < self.references());
        SimpleSlot::from_address(self.0.to_raw_address() + WORD * (1 + index))
    }

    /// What a reference refers to.
    pub fn load(self, index: usize) -> Option<Self> {
        mmtk::vm::slot::Slot::load(&self.slot(index)).map(Self)
    }

    /// Stores a reference into an object that was allocated after the last safepoint, which needs no barrier.
    pub fn store_first(self, index: usize, target: Self) {
        mmtk::vm::slot::Slot::store(&self.slot(index), target.0);
    }

    fn data(self) -> Address {
        self.0.to_raw_address() + WORD * (1 + self.references())
    }

    /// A word of the bytes.
    pub fn word(self, index: usize) -> u64 {
        debug_assert!(WORD * (index + 1) <= self.length());
        // SAFETY: within the object's bytes, which are aligned to words.
        unsafe { (self.data() + WORD * index).load() }
    }

    /// Sets a word of the bytes.
    pub fn set_word(self, index: usize, value: u64) {
        debug_assert!(WORD * (index + 1) <= self.length());
        // SAFETY: within the object's bytes, which are aligned to words.
        unsafe { (self.data() + WORD * index).store(value) }
    }

    /// One of the bytes.
    pub fn byte(self, index: usize) -> u8 {
        debug_assert!(index < self.length());
        // SAFETY: within the object's bytes.
        unsafe { (self.data() + index).load() }
    }

    /// Sets all bytes to one value.
    pub fn fill(self, value: u8) {
        // SAFETY: these are the object's bytes.
        unsafe { self.data().to_mut_ptr::<u8>().write_bytes(value, self.length()) }
    }
}
