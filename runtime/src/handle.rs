//! Handles: [`Scope`] and [`Local`], and the stack of root slots they use.
//!
//! Each mutator has a handle stack: a chain of pages of root slots that the collector owns, the
//! first `Hot` (rewritten in the pause, since the mutator touches it at once), further ones `Paged`.
//! A scope remembers where the stack stood, and puts it back there.
//!
//! A handle of an *outer* scope may be made while an inner scope is open. Its slot must not come
//! from the stack, for the inner scope would pop it. Such *late* slots come from a pool, and the
//! outer scope lists them.
//!
//! Invariants, which the collector's concurrent scan and [`Local`] rely on:
//! - a slot of an open scope's handle holds an object's address, never 0;
//! - a slot that is free holds 0: a scope clears its slots when it closes, also by a panic (it is a
//!   drop guard that the user never owns);
//! - only the mutator's own thread uses the stack, and scopes of a mutator close in reverse order:
//!   they are lent to closures.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use strikeslip_gc::address::ToAddress;
use strikeslip_gc::error::AllocError;
use strikeslip_gc::roots::{RootPage, RootPageKind, RootSpace};

use crate::Mutator;
use crate::object::Gc;
use crate::safepoint::Member;
use crate::shape::Object;
use crate::sync::atomic::{AtomicU64, Ordering};

/// A root slot. Valid until its page is given back.
pub(crate) type RootSlot = NonNull<AtomicU64>;

/// Root slots handed out singly, in any order.
#[derive(Debug)]
pub(crate) struct SlotPool {
    kind: RootPageKind,
    pages: Vec<RootPage>,
    free: Vec<RootSlot>,
}

// SAFETY: a `RootSlot` is a pointer to an atomic in a page that the pool owns.
unsafe impl Send for SlotPool {}

impl SlotPool {
    pub(crate) const fn new(kind: RootPageKind) -> Self {
        Self { kind, pages: vec![], free: vec![] }
    }

    /// A slot, which holds 0.
    pub(crate) fn take(&mut self, roots: &RootSpace) -> Result<RootSlot, AllocError> {
        if self.free.is_empty() {
            let page = roots.allocate(self.kind)?;
            self.free.extend(page.slots().iter().rev().map(NonNull::from));
            self.pages.push(page);
        }
        Ok(self.free.pop().expect("a new page has free slots"))
    }

    /// Takes a slot back, which holds 0 again.
    pub(crate) fn give_back(&mut self, slot: RootSlot) {
        self.free.push(slot);
    }

    /// Gives all pages back. No slot is used any more.
    pub(crate) fn release(&mut self, roots: &RootSpace) {
        self.free.clear();
        self.pages.drain(..).for_each(|page| roots.free(page));
    }
}

/// A place in the handle stack.
#[derive(Copy, Clone, Debug)]
struct Mark {
    block: usize,
    next: *const AtomicU64,
}

/// A mutator's handle stack.
#[derive(Debug)]
pub(crate) struct HandleStack {
    /// The next slot of the current block, and the end of that block.
    next: Cell<*const AtomicU64>,
    end: Cell<*const AtomicU64>,
    block: Cell<usize>,
    /// Number of open scopes.
    depth: Cell<usize>,
    blocks: RefCell<Vec<RootPage>>,
    late: RefCell<SlotPool>,
}

impl HandleStack {
    pub(crate) fn new(roots: &RootSpace) -> Result<Self, AllocError> {
        let first = roots.allocate(RootPageKind::Hot)?;
        let slots = first.slots().as_ptr_range();
        Ok(Self {
            next: Cell::new(slots.start),
            end: Cell::new(slots.end),
            block: Cell::new(0),
            depth: Cell::new(0),
            blocks: RefCell::new(vec![first]),
            late: RefCell::new(SlotPool::new(RootPageKind::Paged)),
        })
    }

    /// Gives all pages back: the mutator detaches, and no scope is open.
    pub(crate) fn release(&self, roots: &RootSpace) {
        debug_assert_eq!(self.depth.get(), 0);
        self.blocks.borrow_mut().drain(..).for_each(|page| roots.free(page));
        self.late.borrow_mut().release(roots);
    }

    #[inline]
    fn mark(&self) -> Mark {
        Mark { block: self.block.get(), next: self.next.get() }
    }

    #[inline]
    fn push(&self, roots: &RootSpace) -> Result<RootSlot, AllocError> {
        if self.next.get() == self.end.get() {
            self.next_block(roots)?;
        }
        let slot = self.next.get();
        // SAFETY: `next` is before `end`, so it is a slot of the current block, and one further is
        // at most that block's end.
        unsafe {
            self.next.set(slot.add(1));
            Ok(NonNull::new_unchecked(slot.cast_mut()))
        }
    }

    #[cold]
    fn next_block(&self, roots: &RootSpace) -> Result<(), AllocError> {
        let mut blocks = self.blocks.borrow_mut();
        if self.block.get() + 1 == blocks.len() {
            blocks.push(roots.allocate(RootPageKind::Paged)?);
        }
        self.enter_block(&blocks, self.block.get() + 1);
        Ok(())
    }

    fn enter_block(&self, blocks: &[RootPage], block: usize) {
        let slots = blocks[block].slots().as_ptr_range();
        self.block.set(block);
        self.next.set(slots.start);
        self.end.set(slots.end);
    }

    /// Clears and pops all slots pushed since `mark`.
    #[inline]
    fn pop_to(&self, mark: Mark, roots: &RootSpace) {
        if self.block.get() != mark.block {
            self.pop_blocks(mark.block, roots);
        }
        let mut slot = mark.next;
        while slot != self.next.get() {
            // SAFETY: from `mark.next` up to `next` are slots of one block, all in use.
            unsafe {
                (*slot).store(0, Ordering::Relaxed);
                slot = slot.add(1);
            }
        }
        self.next.set(mark.next);
    }

    /// Clears the slots of the blocks after `to`, and makes that one, which is full, the current one.
    #[cold]
    fn pop_blocks(&self, to: usize, roots: &RootSpace) {
        let mut blocks = self.blocks.borrow_mut();
        for block in (to + 1..=self.block.get()).rev() {
            let start = blocks[block].slots().as_ptr();
            // SAFETY: `next` and `start` belong to the same block (see `enter_block`).
            let used = unsafe { self.next.get().offset_from(start) };
            blocks[block].slots()[..used.unsigned_abs()]
                .iter()
                .for_each(|slot| slot.store(0, Ordering::Relaxed));
            self.enter_block(&blocks, block - 1);
            self.next.set(self.end.get());
        }
        // One empty block is kept, for a scope that straddles the edge is often opened again.
        let kept = (to + 2).min(blocks.len());
        blocks.drain(kept..).for_each(|page| roots.free(page));
    }
}

/// A scope of handles: those created in it die with it.
///
/// Made by [`Mutator::scope`].
pub struct Scope<'s> {
    member: NonNull<Member>,
    mark: Mark,
    /// How many scopes were open when this one was opened, itself included.
    depth: usize,
    /// Slots taken from the pool while an inner scope was open.
    late: RefCell<Vec<RootSlot>>,
    /// Invariant, so that handles cannot be given to a scope that lives longer.
    lifetime: PhantomData<Cell<&'s ()>>,
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl<'s> Scope<'s> {
    /// Opens a scope of a mutator, which stays attached until the scope is dropped. Scopes of a
    /// mutator are dropped in reverse order.
    #[inline]
    pub(crate) fn open(member: &Member) -> Self {
        let handles = &member.handles;
        handles.depth.set(handles.depth.get() + 1);
        Self {
            member: NonNull::from(member),
            mark: handles.mark(),
            depth: handles.depth.get(),
            late: RefCell::new(Vec::new()),
            lifetime: PhantomData,
        }
    }

    #[inline]
    pub(crate) fn member(&self) -> &Member {
        // SAFETY: the mutator stays attached, and its member alive, until the scope is dropped.
        unsafe { self.member.as_ref() }
    }

    /// Makes a handle of an object.
    ///
    /// # Panics
    /// If the object is not in this scope's heap, or the system refuses a page for root slots.
    #[inline]
    pub fn root<T: Object>(&self, object: Gc<'_, T>) -> Local<'s, T> {
        self.member().check_address(object.address().get(), "the object rooted");
        self.push(object.address()).unwrap_or_else(|error| no_root_page(error))
    }

    /// Makes a handle of the object at `address`: a `T` in this scope's heap, whose mutator is
    /// running.
    #[inline]
    pub(crate) fn push<T>(&self, address: ToAddress) -> Result<Local<'s, T>, AllocError> {
        let member = self.member();
        let slot = if self.depth == member.handles.depth.get() {
            member.handles.push(member.roots())?
        } else {
            self.push_late()?
        };
        let local = Local { slot, scope: PhantomData };
        local.put(member, address);
        Ok(local)
    }

    #[cold]
    fn push_late(&self) -> Result<RootSlot, AllocError> {
        let member = self.member();
        let slot = member.handles.late.borrow_mut().take(member.roots())?;
        self.late.borrow_mut().push(slot);
        Ok(slot)
    }

    #[cold]
    fn pop_late(&mut self) {
        let slots = std::mem::take(self.late.get_mut());
        let mut pool = self.member().handles.late.borrow_mut();
        for slot in slots {
            // SAFETY: the pool's pages live until the mutator detaches.
            unsafe { slot.as_ref() }.store(0, Ordering::Relaxed);
            pool.give_back(slot);
        }
    }
}

impl Drop for Scope<'_> {
    #[inline]
    fn drop(&mut self) {
        let member = self.member();
        debug_assert_eq!(member.handles.depth.get(), self.depth);
        member.handles.depth.set(self.depth - 1);
        member.handles.pop_to(self.mark, member.roots());
        if !self.late.get_mut().is_empty() {
            self.pop_late();
        }
    }
}

#[cold]
#[inline(never)]
pub(crate) fn no_root_page(error: AllocError) -> ! {
    panic!("no memory for a page of root slots: {error}");
}

/// A handle: keeps an object alive, and follows it when it gets a new address. Copies are the same
/// handle.
///
/// It lives as long as its [`Scope`], and is used with the mutator that made it.
pub struct Local<'s, T> {
    slot: RootSlot,
    /// Invariant in both; neither `Send` nor `Sync`, by the slot's pointer.
    scope: PhantomData<(Cell<&'s ()>, *mut T)>,
}

impl<T> Clone for Local<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Local<'_, T> {}

impl<T> fmt::Debug for Local<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Local({:#x})", self.cell().load(Ordering::Relaxed))
    }
}

impl<T> Local<'_, T> {
    #[inline]
    fn cell(&self) -> &AtomicU64 {
        // SAFETY: the slot is in use until the scope of `'s` closes; its page is freed after that.
        unsafe { self.slot.as_ref() }
    }

    #[inline]
    fn put(&self, member: &Member, address: ToAddress) {
        member.context().store_root(self.cell(), address);
    }
}

impl<T: Object> Local<'_, T> {
    /// The object.
    ///
    /// # Panics
    /// If the handle is not of `m`'s heap.
    #[inline]
    #[must_use]
    pub fn get<'n>(&self, m: &'n Mutator) -> Gc<'n, T> {
        // Relaxed: this thread wrote it, or the collector did while this thread was stopped.
        let address = self.cell().load(Ordering::Relaxed) as usize;
        // A handle's slot holds an address in the handle's own heap, so this also checks the slot.
        m.member().check_address(address, "the handle's object");
        // SAFETY: an open scope's slot holds the address of a `T`, in `m`'s heap as checked; `m` is
        // borrowed for `'n`, so it is running and reaches no safepoint. It is the mutator of this
        // thread and so of this handle: a thread has one for each heap.
        unsafe { Gc::from_address(ToAddress::new(address)) }
    }

    /// Makes the handle (and its copies) refer to another object.
    ///
    /// # Panics
    /// If the handle or the object is not of `m`'s heap.
    #[inline]
    pub fn set(&self, m: &Mutator, object: Gc<'_, T>) {
        let member = m.member();
        member.check_address(self.cell().load(Ordering::Relaxed) as usize, "the handle's object");
        member.check_address(object.address().get(), "the object rooted");
        self.put(member, object.address());
    }
}
