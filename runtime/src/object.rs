//! References and the words of objects: [`Gc`], [`Slot`], [`Field`], [`Any`].
//!
//! All of this is run by mutators. Reading is a plain load: there is no read barrier, because
//! addresses change in the flip only, when no mutator holds a [`Gc`].
//!
//! Invariants:
//! - a `Gc<'n, T>` is the address of a `T` in a heap whose mutator on this thread is running, and
//!   reaches no safepoint during `'n`;
//! - a [`Slot`] that is not null lies in the same heap as the object it refers to: `store` checks
//!   both, and no slot outside a heap can be anything but null;
//! - all words but the header are accessed atomically, since other mutators may access them too.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use strikeslip_gc::address::ToAddress;
use strikeslip_gc::layout::LayoutId;

use crate::Mutator;
use crate::shape::{Object, ObjectHeader, Typed};
use crate::sync::atomic::{AtomicU64, Ordering};

/// A raw reference to an object: an address, no more.
///
/// It borrows the mutator (`&'n Mutator`), so it is gone before anything that takes
/// `&mut Mutator`, that is, before anything that may collect. To keep an object longer, root it
/// ([`Scope::root`](crate::Scope::root)) or store it in a slot of another object.
///
/// Two are equal if they refer to the same object.
pub struct Gc<'n, T> {
    object: &'n T,
    /// Neither `Send` nor `Sync`, whatever `T` is: it belongs to this thread's mutator.
    not_send: PhantomData<*const ()>,
}

impl<T> Clone for Gc<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Gc<'_, T> {}

impl<T> Deref for Gc<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        self.object
    }
}

impl<T> PartialEq for Gc<'_, T> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.ptr_eq(*other)
    }
}
impl<T> Eq for Gc<'_, T> {}

impl<T: fmt::Debug> fmt::Debug for Gc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.object.fmt(f)
    }
}

impl<'n, T> Gc<'n, T> {
    /// # Safety
    /// `address` is that of a `T` in a heap whose mutator on this thread is running and reaches no
    /// safepoint during `'n`.
    #[inline]
    pub(crate) unsafe fn from_address(address: ToAddress) -> Self {
        // SAFETY: the caller's promise. All memory of a `T` but its header may be changed by others,
        // and consists of atomics.
        Self { object: unsafe { &*address.as_ptr::<T>() }, not_send: PhantomData }
    }

    #[inline]
    pub(crate) fn address(self) -> ToAddress {
        ToAddress::new(std::ptr::from_ref(self.object).expose_provenance())
    }

    /// The object, for as long as the mutator is borrowed. (By `Deref`, a borrow lasts only as long
    /// as the variable that holds the `Gc`; walking a list needs this one:
    /// `cur = cur.as_ref().next.load()`.)
    #[inline]
    #[must_use]
    #[allow(clippy::should_implement_trait, clippy::wrong_self_convention)] // by value, for `'n`
    pub fn as_ref(self) -> &'n T {
        self.object
    }

    /// Whether both refer to the same object.
    #[inline]
    #[must_use]
    pub fn ptr_eq<U>(self, other: Gc<'_, U>) -> bool {
        std::ptr::addr_eq(self.object, other.object)
    }
}

impl<'n, T: Object> Gc<'n, T> {
    /// The same reference, with the object's type forgotten.
    #[inline]
    #[must_use]
    pub fn erase(self) -> Gc<'n, Any> {
        // SAFETY: every object begins with a header, which is all that `Any` has; `'n` is the same.
        unsafe { Gc::from_address(self.address()) }
    }
}

/// An object of any type. What it is can be asked by [`Gc::downcast`].
#[derive(Debug)]
#[repr(C)]
pub struct Any {
    header: ObjectHeader,
}

// SAFETY: nothing but a header.
unsafe impl Object for Any {
    fn array_layout() -> LayoutId {
        crate::__layout_once!(crate::shape::register_tail(strikeslip_gc::layout::Tail::References))
    }
}

impl<'n> Gc<'n, Any> {
    /// Whether the object is a `T`.
    #[inline]
    #[must_use]
    pub fn is<T: Typed>(self) -> bool {
        self.header.get().layout_id() == T::layout()
    }

    /// The object as a `T`, if it is one.
    #[inline]
    #[must_use]
    pub fn downcast<T: Typed>(self) -> Option<Gc<'n, T>> {
        // SAFETY: a layout id belongs to one type only, so this is a `T`; `'n` is the same.
        self.is::<T>().then(|| unsafe { Gc::from_address(self.address()) })
    }
}

/// A reference in an object: the address of a `T`, or null. Slots exist in objects only.
#[repr(transparent)]
pub struct Slot<T> {
    bits: AtomicU64,
    /// Invariant in `T`, and neither `Send` nor `Sync`.
    refers_to: PhantomData<*mut T>,
}

impl<T: Object> Slot<T> {
    /// What the slot refers to.
    #[inline]
    #[must_use]
    pub fn load(&self) -> Option<Gc<'_, T>> {
        // Acquire: pairs with the Release of `store`, on any thread; what was written to the object
        // before it was stored here is seen through the reference.
        match self.bits.load(Ordering::Acquire) {
            0 => None,
            // SAFETY: a slot that is not null lies in a heap, and refers to a `T` in the same heap
            // (invariants above). `&self` into that heap is only to be had from a `Gc` and lives no
            // longer, so the mutator reaches no safepoint meanwhile.
            address => Some(unsafe { Gc::from_address(ToAddress::new(address as usize)) }),
        }
    }

    /// Makes the slot refer to `value`.
    ///
    /// # Panics
    /// If the slot or `value` is not in `m`'s heap.
    #[inline]
    pub fn store(&self, m: &Mutator, value: Option<Gc<'_, T>>) {
        let member = m.member();
        member.check_address(std::ptr::from_ref(self).addr(), "the slot stored to");
        let value = value.map(|value| {
            member.check_address(value.address().get(), "the object stored");
            value.address()
        });
        // SAFETY: the slot and the value lie in the context's heap, as checked; a `Slot` in a heap
        // is a reference slot of an object there, and `m` is running, since it is borrowed.
        unsafe { member.context().store(&self.bits, value) }
    }

    /// Whether the slot refers to nothing.
    #[inline]
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.bits.load(Ordering::Relaxed) == 0
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.bits.load(Ordering::Relaxed))
    }
}

mod sealed {
    pub trait Sealed {}
}

/// What a [`Field`] may hold: the scalar types up to a word. Sealed.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a scalar, so it cannot be in a `Field`")]
pub trait Scalar: sealed::Sealed + Copy + fmt::Debug + 'static {
    /// As a word.
    #[doc(hidden)]
    fn to_word(self) -> u64;
    /// From a word that `to_word` returned.
    #[doc(hidden)]
    fn from_word(word: u64) -> Self;
}

macro_rules! scalars {
    ($($type:ty: |$value:ident| $to:expr, |$word:ident| $from:expr;)+) => {$(
        impl sealed::Sealed for $type {}
        impl Scalar for $type {
            #[inline]
            fn to_word(self) -> u64 { let $value = self; $to }
            #[inline]
            fn from_word($word: u64) -> Self { $from }
        }
    )+};
}
scalars! {
    u8: |value| value.into(), |word| word as u8;
    u16: |value| value.into(), |word| word as u16;
    u32: |value| value.into(), |word| word as u32;
    u64: |value| value, |word| word;
    usize: |value| value as u64, |word| word as usize;
    i8: |value| value as u64, |word| word as i8;
    i16: |value| value as u64, |word| word as i16;
    i32: |value| value as u64, |word| word as i32;
    i64: |value| value as u64, |word| word as i64;
    isize: |value| value as u64, |word| word as isize;
    bool: |value| value.into(), |word| word != 0;
    f32: |value| value.to_bits().into(), |word| f32::from_bits(word as u32);
    f64: |value| value.to_bits(), |word| f64::from_bits(word);
}

/// A scalar in an object: one word, read and written relaxed.
#[repr(transparent)]
pub struct Field<T: Scalar> {
    bits: AtomicU64,
    not_sync: PhantomData<*mut T>,
}

impl<T: Scalar> Field<T> {
    /// The value.
    #[inline]
    #[must_use]
    pub fn get(&self) -> T {
        T::from_word(self.bits.load(Ordering::Relaxed))
    }

    /// Changes the value.
    #[inline]
    pub fn set(&self, value: T) {
        self.bits.store(value.to_word(), Ordering::Relaxed);
    }
}

impl<T: Scalar> fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
