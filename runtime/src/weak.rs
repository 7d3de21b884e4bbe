//! Weak references: [`Weak`], one by one; [`WeakTable`], many side by side; [`EphemeronTable`], pairs of key and value.
//!
//! None keeps its objects, but for the value of a key that lives. What is asked for is a raw reference, as of any handle: it is valid until the next
//! safepoint, and lasts longer if it is rooted. Mutators never wait for the collector here, nor it for them
//! ([`strikeslip_gc::weak`] says how both agree on what is dead).
//!
//! Weak slots lie in pages of their own, which are rewritten lazily when objects move, so that the pause does not grow
//! with their number. Dropping works on any thread, as for [`Persistent`](crate::Persistent).

use std::fmt;
use std::marker::PhantomData;

use strikeslip_gc::error::AllocError;
use strikeslip_gc::roots::{ROOT_SLOTS, RootPage, RootPageKind};

use crate::handle::{RootSlot, no_root_page};
use crate::heap::Heap;
use crate::object::Gc;
use crate::shape::Object;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::{Mutator, safepoint};

/// Loads from a weak slot of `m`'s heap, which holds nothing or the address of a `T`.
#[inline]
fn load<'n, T: Object>(m: &'n Mutator, slot: &AtomicU64) -> Option<Gc<'n, T>> {
    let address = m.member().context().load_weak(slot)?;
    // SAFETY: the caller's slot refers to a `T` in `m`'s heap, which lives now; `m` is borrowed for `'n`, so it reaches
    // no safepoint.
    Some(unsafe { Gc::from_address(address) })
}

#[inline]
fn store<T: Object>(m: &Mutator, slot: &AtomicU64, object: Option<Gc<'_, T>>) {
    match object {
        Some(object) => {
            m.member().check_address(object.address().get(), "the object referred to");
            m.member().context().store_weak(slot, object.address());
        }
        None => slot.store(0, Ordering::Relaxed),
    }
}

/// Runs `clear`, which empties slots, so that no pause rewrites them meanwhile.
fn clear_slots(heap: &Heap, clear: impl FnOnce()) {
    if safepoint::is_running(heap.registry()) {
        clear();
    } else {
        heap.registry().while_not_stopped(clear);
    }
}

/// A reference that does not keep its object. It keeps its heap, and can be used by any thread that has a mutator.
///
/// When the collector finds the object dead, all weak references to it, and to whatever was reachable through it only,
/// become empty at one moment.
///
/// ```
/// use strikeslip::{Field, Heap, HeapOptions, OutOfMemory, object};
///
/// object! { struct Node { value: Field<u64> } }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let heap = Heap::new(HeapOptions { limit_bytes: 32 << 20, ..Default::default() })?;
/// heap.attach(|m| {
///     let weak = m.scope(|m, s| {
///         let node = m.alloc::<Node>(s)?;
///         node.get(m).value.set(7);
///         let weak = m.weak(node.get(m));
///         m.collect(); // the scope's handle keeps the node, which may have moved
///         assert_eq!(weak.upgrade(m).map(|node| node.value.get()), Some(7));
///         Ok::<_, OutOfMemory>(weak)
///     })?;
///     m.collect(); // now nothing does
///     assert!(weak.upgrade(m).is_none());
///     Ok::<_, OutOfMemory>(())
/// })??;
/// # Ok(())
/// # }
/// ```
///
/// What it gives is a raw reference: it ends at the next safepoint.
///
/// ```compile_fail,E0502
/// # use strikeslip::{Field, Heap, HeapOptions, object};
/// # object! { struct Node { value: Field<u64> } }
/// # let heap = Heap::new(HeapOptions::default()).unwrap();
/// # heap.attach(|m| m.scope(|m, s| {
/// # let node = m.alloc::<Node>(s).unwrap();
/// let weak = m.weak(node.get(m));
/// let found = weak.upgrade(m).unwrap();
/// m.safepoint();
/// found.value.get(); // a handle would be needed: `s.root(found)`
/// # })).unwrap();
/// ```
pub struct Weak<T> {
    heap: Heap,
    slot: RootSlot,
    refers_to: PhantomData<*mut T>,
}

// SAFETY: the slot is atomic and lies in a page that the heap keeps; an object is only reached with
// a mutator of the thread that asks.
unsafe impl<T> Send for Weak<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Weak<T> {}

impl<T> fmt::Debug for Weak<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weak({:#x})", self.cell().load(Ordering::Relaxed))
    }
}

impl<T> Weak<T> {
    #[inline]
    fn cell(&self) -> &AtomicU64 {
        // SAFETY: the slot's page is freed with the heap, which `self` keeps.
        unsafe { self.slot.as_ref() }
    }
}

impl<T: Object> Weak<T> {
    pub(crate) fn new(m: &Mutator, object: Gc<'_, T>) -> Self {
        m.member().check_address(object.address().get(), "the object referred to");
        let heap = m.heap().clone();
        let slot = heap.take_weak_slot().unwrap_or_else(|error| no_root_page(error));
        let weak = Self { heap, slot, refers_to: PhantomData };
        weak.set(m, Some(object));
        weak
    }

    fn check_heap(&self, m: &Mutator) {
        assert!(self.heap.is_same(m.heap()), "the weak reference is not of this mutator's heap");
    }

    /// The object, if it was not found dead.
    ///
    /// # Panics
    /// If the weak reference is not of `m`'s heap.
    #[inline]
    #[must_use]
    pub fn upgrade<'n>(&self, m: &'n Mutator) -> Option<Gc<'n, T>> {
        self.check_heap(m);
        load(m, self.cell())
    }

    /// Makes it refer to another object, or to none.
    ///
    /// # Panics
    /// If the weak reference or the object is not of `m`'s heap.
    #[inline]
    pub fn set(&self, m: &Mutator, object: Option<Gc<'_, T>>) {
        self.check_heap(m);
        store(m, self.cell(), object);
    }
}

impl<T> Drop for Weak<T> {
    fn drop(&mut self) {
        clear_slots(&self.heap, || self.cell().store(0, Ordering::Relaxed));
        self.heap.give_weak_slot_back(self.slot);
    }
}

/// A table of weak references, named by number: what caches and tables of interned objects are made of. The numbers
/// are plain data, so objects can hold them in fields.
///
/// All threads that have a mutator can use it at once: each access to a slot is atomic.
///
/// ```
/// use strikeslip::{Field, Heap, HeapOptions, OutOfMemory, WeakTable, object};
///
/// object! { struct Node { value: Field<u64> } }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let heap = Heap::new(HeapOptions { limit_bytes: 32 << 20, ..Default::default() })?;
/// let cache = WeakTable::<Node>::new(&heap, 100)?;
/// heap.attach(|m| {
///     m.scope(|m, s| {
///         let kept = m.alloc::<Node>(s)?;
///         cache.set(m, 42, Some(kept.get(m)));
///         m.scope(|m, inner| {
///             let dropped = m.alloc::<Node>(inner)?;
///             cache.set(m, 43, Some(dropped.get(m)));
///             Ok(())
///         })?;
///         m.collect();
///         assert!(cache.get(m, 42).is_some_and(|node| node == kept.get(m)));
///         assert!(cache.get(m, 43).is_none() && cache.get(m, 44).is_none());
///         Ok::<_, OutOfMemory>(())
///     })
/// })??;
/// # Ok(())
/// # }
/// ```
pub struct WeakTable<T> {
    slots: Slots,
    refers_to: PhantomData<*mut T>,
}

// SAFETY: slots are atomic and lie in pages that the table owns; an object is only reached with a mutator of the thread
// that asks.
unsafe impl<T> Send for WeakTable<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for WeakTable<T> {}

impl<T> fmt::Debug for WeakTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakTable").field("length", &self.slots.length).finish_non_exhaustive()
    }
}

impl<T> WeakTable<T> {
    /// A table of `length` empty slots, of 8 bytes each, in whole pages.
    ///
    /// # Errors
    /// [`AllocError`] if the system refuses pages for root slots.
    pub fn new(heap: &Heap, length: usize) -> Result<Self, AllocError> {
        Ok(Self { slots: Slots::new(heap, RootPageKind::Weak, length)?, refers_to: PhantomData })
    }

    /// Number of slots.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slots.length
    }

    /// Whether it has no slots.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.slots.length == 0
    }
}

impl<T: Object> WeakTable<T> {
    /// The object in a slot, if there is one and it was not found dead.
    ///
    /// # Panics
    /// If the table is not of `m`'s heap, or has no such slot.
    #[inline]
    #[must_use]
    pub fn get<'n>(&self, m: &'n Mutator, index: usize) -> Option<Gc<'n, T>> {
        let [slot] = self.slots.cells(m, index);
        load(m, slot)
    }

    /// Makes a slot refer to an object, or to none.
    ///
    /// # Panics
    /// If the table or the object is not of `m`'s heap, or there is no such slot.
    #[inline]
    pub fn set(&self, m: &Mutator, index: usize, object: Option<Gc<'_, T>>) {
        let [slot] = self.slots.cells(m, index);
        store(m, slot, object);
    }
}

/// A table of ephemerons, named by number: pairs of objects, of which the key keeps the value as long as it lives
/// itself, and neither is kept by the table. With it, data can be attached to objects from outside: the value may
/// refer to its key, and both die all the same.
///
/// All threads that have a mutator can use it at once. A pair is not stored or loaded in one piece: if two threads
/// store into one slot, it may get the key of one and the value of the other.
///
/// ```
/// use strikeslip::{EphemeronTable, Field, Heap, HeapOptions, OutOfMemory, Slot, object};
///
/// object! {
///     struct Person { number: Field<u64> }
///     struct Note { about: Slot<Person>, text: Field<u64> }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let heap = Heap::new(HeapOptions { limit_bytes: 32 << 20, ..Default::default() })?;
/// let notes = EphemeronTable::<Person, Note>::new(&heap, 10)?;
/// heap.attach(|m| {
///     m.scope(|m, s| {
///         let person = m.alloc::<Person>(s)?;
///         m.scope(|m, inner| {
///             let note = m.alloc::<Note>(inner)?;
///             note.get(m).about.store(m, Some(person.get(m)));
///             note.get(m).text.set(7);
///             notes.set(m, 0, Some((person.get(m), note.get(m))));
///             Ok(())
///         })?;
///         m.collect(); // the person keeps the note
///         assert!(notes.get(m, 0).is_some_and(|(key, note)| key == person.get(m) && note.text.get() == 7));
///         Ok::<_, OutOfMemory>(())
///     })?;
///     m.collect(); // the note does not keep the person
///     assert!(notes.get(m, 0).is_none());
///     Ok::<_, OutOfMemory>(())
/// })??;
/// # Ok(())
/// # }
/// ```
pub struct EphemeronTable<K, V> {
    slots: Slots,
    refers_to: PhantomData<(*mut K, *mut V)>,
}

// SAFETY: as for `WeakTable`.
unsafe impl<K, V> Send for EphemeronTable<K, V> {}
// SAFETY: as above.
unsafe impl<K, V> Sync for EphemeronTable<K, V> {}

impl<K, V> fmt::Debug for EphemeronTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EphemeronTable").field("length", &self.len()).finish_non_exhaustive()
    }
}

impl<K, V> EphemeronTable<K, V> {
    /// A table of `length` empty pairs, of 16 bytes each, in whole pages.
    ///
    /// # Errors
    /// [`AllocError`] if the system refuses pages for root slots.
    pub fn new(heap: &Heap, length: usize) -> Result<Self, AllocError> {
        Ok(Self { slots: Slots::new(heap, RootPageKind::Ephemerons, 2 * length)?, refers_to: PhantomData })
    }

    /// Number of pairs.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slots.length / 2
    }

    /// Whether it has no pairs.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.slots.length == 0
    }
}

impl<K: Object, V: Object> EphemeronTable<K, V> {
    /// Key and value of a pair, if there is one and its key was not found dead.
    ///
    /// # Panics
    /// If the table is not of `m`'s heap, or has no such pair.
    #[inline]
    #[must_use]
    pub fn get<'n>(&self, m: &'n Mutator, index: usize) -> Option<(Gc<'n, K>, Gc<'n, V>)> {
        let [key, value] = self.slots.cells(m, index);
        // The key first: if it lives, so does the value.
        Some((load(m, key)?, load(m, value)?))
    }

    /// Makes a pair of key and value, or empties it.
    ///
    /// # Panics
    /// If the table or an object is not of `m`'s heap, or there is no such pair.
    pub fn set(&self, m: &Mutator, index: usize, pair: Option<(Gc<'_, K>, Gc<'_, V>)>) {
        let cells: &[AtomicU64; 2] = self.slots.cells(m, index);
        match pair {
            Some((key, value)) => {
                for object in [key.address(), value.address()] {
                    m.member().check_address(object.get(), "the object referred to");
                }
                m.member().context().store_ephemeron(cells, key.address(), value.address());
            }
            None => cells.iter().for_each(|slot| slot.store(0, Ordering::Relaxed)),
        }
    }
}

/// The slots of a table: whole pages.
struct Slots {
    heap: Heap,
    pages: Vec<RootPage>,
    length: usize,
}

impl Slots {
    fn new(heap: &Heap, kind: RootPageKind, length: usize) -> Result<Self, AllocError> {
        let mut slots = Self { heap: heap.clone(), pages: vec![], length };
        for _ in 0..length.div_ceil(ROOT_SLOTS) {
            slots.pages.push(heap.collector().roots().allocate(kind)?);
        }
        Ok(slots)
    }

    /// The slots of entry `index`, where each has `N`, a power of 2.
    #[inline]
    fn cells<const N: usize>(&self, m: &Mutator, index: usize) -> &[AtomicU64; N] {
        assert!(self.heap.is_same(m.heap()), "the weak table is not of this mutator's heap");
        assert!(index < self.length / N, "slot {index} of a weak table of {}", self.length / N);
        let first = N * index;
        let slots = &self.pages[first / ROOT_SLOTS].slots()[first % ROOT_SLOTS..];
        slots.first_chunk().expect("an entry lies in one page")
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let roots = self.heap.collector().roots();
        for page in self.pages.drain(..) {
            // A pause between two pages is none of our business.
            clear_slots(&self.heap, || page.slots().iter().for_each(|slot| slot.store(0, Ordering::Relaxed)));
            roots.free(page);
        }
    }
}
