//! [`Mutator`]: what an attached thread does with the heap. And why safe code cannot misuse it.
//!
//! # The argument for soundness
//!
//! One sentence has to hold: *no raw reference is used after a safepoint*. Here is how it does.
//!
//! 1. **`&mut` may collect, `&` cannot.** Every method that is a safepoint (allocation, `reserve`,
//!    `safepoint`, `collect`, `blocked`) takes `&mut Mutator`. A [`Gc<'n, T>`](Gc) borrows
//!    `&'n Mutator`, and everything reached through it (`&T`, `&Slot`, what `load` returns) lives no
//!    longer. So the borrow checker ends all of them before the next safepoint.
//! 2. **What outlives a safepoint is a root slot.** A [`Local`] points at a slot of its scope, which
//!    the flip rewrites. It is bound to the scope by an invariant lifetime that only a closure for
//!    *all* lifetimes sees, so it cannot leave; the slot is cleared by the scope's own drop guard.
//! 3. **One mutator for each thread and heap.** `attach` refuses a second, and lends the mutator to a
//!    closure. It is unsized: `mem::swap` and `mem::replace` do not apply to it, so the one that a
//!    closure was lent stays the one whose attachment encloses the closure. It is neither `Send`
//!    nor `Sync`; nor are `Gc`, `Local`, `Scope`, objects, slots and fields.
//! 4. **Heaps cannot be mixed up.** There is no type parameter to tell them apart, but each place
//!    where a mutator meets something else compares: a store, that slot and value lie in the
//!    mutator's heap; `Scope::root`, that the object lies in the scope's; `Local::get`, that the
//!    slot's content lies in the mutator's (a slot holds addresses of its own heap only);
//!    `Persistent`, `Weak` and `WeakTable`, that the heap is the same; allocation, that the scope is the mutator's. Otherwise
//!    they panic, before anything is read or written in the wrong heap.
//! 5. **Objects exist in the heap only.** Nobody outside can make an `ObjectHeader`, so no struct
//!    with slots exists on the stack; a slot that unsafe code zeroed elsewhere is refused by `store`.
//! 6. **No data race.** Slots are atomic (Release and Acquire), scalars and bytes are relaxed
//!    atomics, lengths and types are in headers that never change, and heap bytes are not lent.
//! 7. **No type confusion.** A layout id belongs to one type; `Slot`, `Local` and `Array` are invariant.
//!
//! A fresh object is zero behind its header, and zero is a valid value of each word.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use strikeslip_gc::address::ToAddress;
use strikeslip_gc::context::{Exhausted, MutatorContext};
use strikeslip_gc::error::AllocError;
use strikeslip_gc::geometry::{MIN_OBJECT_BYTES, WORD_BYTES, round_up_to_words};
use strikeslip_gc::layout::Header;

use crate::array::{Array, Words};
use crate::bytes::{Bytes, PinnedBytes, Str};
use crate::handle::{Local, Scope};
use crate::heap::Heap;
use crate::object::Gc;
use crate::persistent::Persistent;
use crate::safepoint::Member;
use crate::shape::{Fixed, Object, Typed};
use crate::weak::Weak;

/// An attached thread's access to the heap.
///
/// Lent by [`Heap::attach`]. The parameter only makes the type unsized, so that two mutators cannot
/// be swapped; write `&mut Mutator`.
pub struct Mutator<Unsized: ?Sized = [()]> {
    member: Arc<Member>,
    heap: Heap,
    /// Belongs to its thread.
    not_send: PhantomData<*const ()>,
    _unsized: Unsized,
}

impl<Unsized: ?Sized> fmt::Debug for Mutator<Unsized> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutator").field("heap", &self.heap).finish_non_exhaustive()
    }
}

impl Mutator<[(); 0]> {
    pub(crate) fn new(heap: Heap, member: Arc<Member>) -> Self {
        Self { member, heap, not_send: PhantomData, _unsized: [] }
    }
}

/// Header and bytes of an object with a tail of `length` elements of `element` bytes.
fn sized_tail<T: Typed>(m: &Mutator, length: usize, element: usize) -> Result<(Header, usize), AllocError> {
    let bytes = length.checked_mul(element).filter(|&bytes| bytes <= isize::MAX as usize);
    match (u32::try_from(length), bytes) {
        (Ok(length), Some(tail)) => {
            let bytes = (round_up_to_words(tail) + WORD_BYTES).max(MIN_OBJECT_BYTES);
            Ok((Header::new(T::layout(), length), bytes))
        }
        _ => Err(AllocError::TooLarge { bytes: bytes.unwrap_or(usize::MAX), most: m.heap.limit_bytes() }),
    }
}

impl Mutator {
    #[inline]
    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    /// The heap.
    #[inline]
    #[must_use]
    pub fn heap(&self) -> &Heap {
        &self.heap
    }

    /// Runs `f` with a scope for handles, which die with it.
    #[inline]
    pub fn scope<R>(&mut self, f: impl for<'s> FnOnce(&mut Self, &Scope<'s>) -> R) -> R {
        // The scope keeps its own pointer to the member: how it closes does not depend on what `f`
        // does with the reference it is lent.
        let scope = Scope::open(&self.member);
        f(self, &scope)
    }

    /// A safepoint: lets the collector act or stop the world, if it wants to.
    #[inline]
    pub fn safepoint(&mut self) {
        self.member.poll();
    }

    /// Runs `f` while the collector need not wait for this thread. For whatever may take long: locks,
    /// input and output, other threads. Also a safepoint.
    #[inline]
    pub fn blocked<R>(&mut self, f: impl FnOnce() -> R) -> R {
        struct End<'a>(&'a Member);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.end_blocked();
            }
        }
        self.member.begin_blocked();
        let _end = End(&self.member);
        f()
    }

    /// Runs a whole collection that begins after this call, and returns when it is over.
    pub fn collect(&mut self) {
        let heap = self.heap.clone();
        self.blocked(|| heap.collector().collect());
    }

    #[cold]
    #[inline(never)]
    fn wait_for_memory(&mut self, exhausted: Exhausted) -> Result<(), AllocError> {
        match exhausted {
            Exhausted::Wait(need) => {
                let member = Arc::clone(&self.member);
                self.blocked(|| member.gc().wait_for_memory(need))
            }
            Exhausted::Never(error) => Err(error),
        }
    }

    /// Allocates: `take` asks the context for it, again after each wait for memory.
    #[inline]
    fn allocate<R>(
        &mut self,
        mut take: impl FnMut(&MutatorContext) -> Result<R, Exhausted>,
    ) -> Result<R, AllocError> {
        self.safepoint();
        loop {
            match take(self.member.context()) {
                Ok(taken) => return Ok(taken),
                Err(exhausted) => self.wait_for_memory(exhausted)?,
            }
        }
    }

    #[inline]
    fn allocate_object<'s, T: Typed>(
        &mut self,
        scope: &Scope<'s>,
        header: Header,
        bytes: usize,
    ) -> Result<Local<'s, T>, AllocError> {
        assert!(std::ptr::eq(scope.member(), self.member()), "the scope is not of this mutator");
        let address = self.allocate(|context| context.allocate(header, bytes))?;
        scope.push(address)
    }

    /// Allocates an object: null slots, zero fields. A safepoint.
    ///
    /// # Errors
    /// [`AllocError`] says why there is no memory.
    ///
    /// # Panics
    /// If `scope` is another mutator's.
    #[inline]
    pub fn alloc<'s, T: Fixed>(&mut self, scope: &Scope<'s>) -> Result<Local<'s, T>, AllocError> {
        self.allocate_object(scope, Header::new(T::layout(), 0), T::BYTES)
    }

    /// Allocates an array of `length` null references. A safepoint.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), which also says when it panics.
    #[inline]
    pub fn alloc_array<'s, T: Object>(
        &mut self,
        scope: &Scope<'s>,
        length: usize,
    ) -> Result<Local<'s, Array<T>>, AllocError> {
        let (header, bytes) = sized_tail::<Array<T>>(self, length, WORD_BYTES)?;
        self.allocate_object(scope, header, bytes)
    }

    /// Allocates `length` zero words. A safepoint.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), which also says when it panics.
    #[inline]
    pub fn alloc_words<'s>(
        &mut self,
        scope: &Scope<'s>,
        length: usize,
    ) -> Result<Local<'s, Words>, AllocError> {
        let (header, bytes) = sized_tail::<Words>(self, length, WORD_BYTES)?;
        self.allocate_object(scope, header, bytes)
    }

    /// Allocates `length` zero bytes. A safepoint.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), which also says when it panics.
    #[inline]
    pub fn alloc_zeroed_bytes<'s>(
        &mut self,
        scope: &Scope<'s>,
        length: usize,
    ) -> Result<Local<'s, Bytes>, AllocError> {
        let (header, bytes) = sized_tail::<Bytes>(self, length, 1)?;
        self.allocate_object(scope, header, bytes)
    }

    /// Allocates a copy of `bytes`. A safepoint.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), which also says when it panics.
    #[inline]
    pub fn alloc_bytes<'s>(
        &mut self,
        scope: &Scope<'s>,
        bytes: &[u8],
    ) -> Result<Local<'s, Bytes>, AllocError> {
        let copy = self.alloc_zeroed_bytes(scope, bytes.len())?;
        copy.get(self).write(0, bytes);
        Ok(copy)
    }

    /// Allocates a copy of `text`. A safepoint.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), which also says when it panics.
    #[inline]
    pub fn alloc_str<'s>(&mut self, scope: &Scope<'s>, text: &str) -> Result<Local<'s, Str>, AllocError> {
        let (header, bytes) = sized_tail::<Str>(self, text.len(), 1)?;
        let copy: Local<'s, Str> = self.allocate_object(scope, header, bytes)?;
        // Nobody else can reach the string yet, so nobody sees it change.
        copy.get(self).bytes().write(0, text.as_bytes());
        Ok(copy)
    }

    /// Allocates `length` zero bytes that will never be moved. A safepoint.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), which also says when it panics.
    pub fn alloc_pinned_bytes<'s>(
        &mut self,
        scope: &Scope<'s>,
        length: usize,
    ) -> Result<Local<'s, PinnedBytes>, AllocError> {
        assert!(std::ptr::eq(scope.member(), self.member()), "the scope is not of this mutator");
        let (header, bytes) = sized_tail::<PinnedBytes>(self, length, 1)?;
        let address = self.allocate(|context| context.allocate_pinned(header, bytes))?;
        scope.push(address)
    }

    /// One safepoint, then room for `bytes` of small objects in all, which are allocated with no
    /// further safepoint: their raw references can be used together.
    ///
    /// # Errors
    /// [`AllocError`] says why there is no memory; more than an allocation buffer is too large.
    #[inline]
    pub fn reserve(&mut self, bytes: usize) -> Result<Reserved<'_>, AllocError> {
        self.allocate(|context| context.reserve(bytes))?;
        Ok(Reserved { m: self, left: Cell::new(bytes) })
    }

    /// Makes a persistent handle of an object.
    ///
    /// # Panics
    /// If the object is not in this mutator's heap, or the system refuses a page for root slots.
    #[must_use]
    pub fn persistent<T: Object>(&self, object: Gc<'_, T>) -> Persistent<T> {
        Persistent::new(self, object)
    }

    /// Makes a weak reference to an object.
    ///
    /// # Panics
    /// As [`persistent`](Self::persistent).
    #[must_use]
    pub fn weak<T: Object>(&self, object: Gc<'_, T>) -> Weak<T> {
        Weak::new(self, object)
    }
}

/// Reserved memory, from [`Mutator::reserve`].
#[derive(Debug)]
pub struct Reserved<'n> {
    m: &'n Mutator,
    left: Cell<usize>,
}

impl<'n> Reserved<'n> {
    /// The mutator, to store with. While it is borrowed, nothing can collect.
    #[inline]
    #[must_use]
    pub fn mutator(&self) -> &'n Mutator {
        self.m
    }

    /// Bytes an object of type `T` takes.
    #[inline]
    #[must_use]
    pub const fn bytes_of<T: Fixed>() -> usize {
        T::BYTES
    }

    #[inline]
    fn take(&self, header: Header, bytes: usize) -> ToAddress {
        let left = self.left.get().checked_sub(bytes);
        self.left.set(left.expect("no more is allocated than was reserved"));
        self.m.member().context().allocate(header, bytes).expect("reserved memory is there")
    }

    /// Allocates an object in the reserved memory: null slots, zero fields.
    ///
    /// # Panics
    /// If more is allocated than was reserved.
    #[inline]
    #[must_use]
    pub fn alloc<T: Fixed>(&self) -> Gc<'n, T> {
        let address = self.take(Header::new(T::layout(), 0), T::BYTES);
        // SAFETY: a new `T` in the heap of `m`, which is borrowed for `'n`.
        unsafe { Gc::from_address(address) }
    }

    /// Allocates an array of `length` null references in the reserved memory.
    ///
    /// # Panics
    /// If more is allocated than was reserved.
    #[inline]
    #[must_use]
    pub fn alloc_array<T: Object>(&self, length: usize) -> Gc<'n, Array<T>> {
        let sized = sized_tail::<Array<T>>(self.m, length, WORD_BYTES);
        let (header, bytes) = sized.expect("no more is allocated than was reserved");
        // SAFETY: as in `alloc`.
        unsafe { Gc::from_address(self.take(header, bytes)) }
    }

    /// Allocates `length` zero words in the reserved memory.
    ///
    /// # Panics
    /// If more is allocated than was reserved.
    #[inline]
    #[must_use]
    pub fn alloc_words(&self, length: usize) -> Gc<'n, Words> {
        let sized = sized_tail::<Words>(self.m, length, WORD_BYTES);
        let (header, bytes) = sized.expect("no more is allocated than was reserved");
        // SAFETY: as in `alloc`.
        unsafe { Gc::from_address(self.take(header, bytes)) }
    }
}
