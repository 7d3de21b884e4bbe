//! The mutator's view of the heap: allocation, stores with the plan's barrier, and handles.

use std::sync::atomic::{AtomicUsize, Ordering};

use mmtk::memory_manager as mm;
use mmtk::util::Address;
use mmtk::util::alloc::{AllocatorInfo, AllocatorSelector, BumpPointer};
use mmtk::vm::slot::{SimpleSlot, Slot as _};
use mmtk::{AllocationSemantics, BarrierSelector, MMTKBuilder, Mutator, MutatorContext as _};

use crate::binding::{HANDLES, MMTK, MUTATOR, Machine, mutator_thread};
use crate::object::{Object, size};
use crate::world::WORLD;

/// Most handles at a time: three for each level of a tree.
const HANDLES_MOST: usize = 256;
const ALIGNMENT: usize = 8;

/// A stack of references that the collector finds and updates.
#[derive(Debug)]
pub struct Handles {
    slots: [AtomicUsize; HANDLES_MOST],
    depth: AtomicUsize,
}

impl Handles {
    /// An empty one.
    pub const fn new() -> Self {
        Self { slots: [const { AtomicUsize::new(0) }; HANDLES_MOST], depth: AtomicUsize::new(0) }
    }

    /// All that is on it. Run by a worker while the mutator stands still.
    pub fn slots(&self) -> Vec<SimpleSlot> {
        let used = &self.slots[..self.depth.load(Ordering::Relaxed)];
        used.iter().map(|slot| SimpleSlot::from_address(Address::from_ref(slot))).collect()
    }
}

/// The heap, as its one mutator sees it.
#[derive(Debug)]
pub struct Heap {
    mutator: *mut Mutator<Machine>,
    /// Where the allocation pointer lies, for plans whose objects need nothing but its increment.
    bump: Option<*mut BumpPointer>,
    barrier: BarrierSelector,
    /// Objects above this are allocated apart.
    large_bytes: usize,
}

/// A handle: an index into the stack.
#[derive(Copy, Clone, Debug)]
pub struct Handle(usize);

impl Heap {
    /// Starts MMTk, and makes this thread its mutator.
    ///
    /// # Errors
    /// A sentence that says which option is not known.
    pub fn new(plan: &str, heap_bytes: usize) -> Result<Self, String> {
        let mut builder = MMTKBuilder::new_no_env_vars();
        for (name, value) in [("plan", plan), ("gc_trigger", &format!("FixedHeapSize:{heap_bytes}"))] {
            if !builder.set_option(name, value) {
                return Err(format!("no such {name}: {value:?}"));
            }
        }
        let mmtk = MMTK.get_or_init(|| mm::mmtk_init(&builder));
        let mutator = Box::into_raw(mm::bind_mutator(mmtk, mutator_thread()));
        // Release: pairs with the Acquire in `ActivePlan::mutator`.
        MUTATOR.store(mutator, Ordering::Release);
        mm::initialize_collection(mmtk, mutator_thread().0);
        let selector = mm::get_allocator_mapping(mmtk, AllocationSemantics::Default);
        let bump = match (selector, AllocatorInfo::new::<Machine>(selector)) {
            // SAFETY: MMTk says that the pointer lies at this offset in the mutator.
            (AllocatorSelector::Immix(_), AllocatorInfo::BumpPointer { bump_pointer_offset }) => {
                Some(unsafe { mutator.byte_add(bump_pointer_offset).cast() })
            }
            _ => None,
        };
        let constraints = mmtk.get_plan().constraints();
        let (barrier, large_bytes) = (constraints.barrier, constraints.max_non_los_default_alloc_bytes);
        Ok(Self { mutator, bump, barrier, large_bytes })
    }

    /// Allocates an object, whose references are none and whose bytes are 0.
    #[inline]
    pub fn alloc(&mut self, references: usize, bytes: usize) -> Object {
        WORLD.poll();
        let size = size(references, bytes);
        if let Some(bump) = self.bump {
            // SAFETY: it lies in the mutator, which only this thread uses now.
            let bump = unsafe { &mut *bump };
            let (begin, end) = (bump.cursor, bump.cursor + size);
            if end <= bump.limit {
                bump.cursor = end;
                return Object::initialise(begin, references, bytes);
            }
        }
        self.alloc_slow(size, references, bytes)
    }

    #[inline(never)]
    fn alloc_slow(&mut self, size: usize, references: usize, bytes: usize) -> Object {
        let semantics =
            if size > self.large_bytes { AllocationSemantics::Los } else { AllocationSemantics::Default };
        // SAFETY: only this thread uses the mutator, but while it stands still.
        let mutator = unsafe { &mut *self.mutator };
        let address = mm::alloc(mutator, size, ALIGNMENT, 0, semantics);
        let object = Object::initialise(address, references, bytes);
        // SAFETY: as above.
        mm::post_alloc(unsafe { &mut *self.mutator }, object.reference(), size, semantics);
        object
    }

    /// Stores a reference.
    #[inline]
    pub fn store(&mut self, object: Object, index: usize, target: Option<Object>) {
        let (slot, target) = (object.slot(index), target.map(Object::reference));
        // SAFETY: only this thread uses the mutator, but while it stands still.
        let mutator = unsafe { &mut *self.mutator };
        if self.barrier == BarrierSelector::SATBBarrier {
            mutator.barrier().object_reference_write_pre(object.reference(), slot, target);
        }
        match target {
            Some(target) => slot.store(target),
            // SAFETY: the slot lies in a live object, and no reference is a word of 0.
            None => unsafe { slot.as_address().store(0_usize) },
        }
        if self.barrier == BarrierSelector::ObjectBarrier {
            mutator.barrier().object_reference_write_post(object.reference(), slot, target);
        }
    }

    /// A safepoint.
    #[inline]
    pub fn poll(&self) {
        WORLD.poll();
    }

    /// Makes a handle of an object, which is found again after safepoints. Handles end in the order opposite to
    /// their making.
    #[inline]
    pub fn push(&self, object: Object) -> Handle {
        let depth = HANDLES.depth.load(Ordering::Relaxed);
        HANDLES.slots[depth].store(object.reference().to_raw_address().as_usize(), Ordering::Relaxed);
        HANDLES.depth.store(depth + 1, Ordering::Relaxed);
        Handle(depth)
    }

    /// Ends the handle that was made last. Returns its object.
    #[inline]
    pub fn pop(&self) -> Object {
        let depth = HANDLES.depth.load(Ordering::Relaxed) - 1;
        HANDLES.depth.store(depth, Ordering::Relaxed);
        self.get(Handle(depth))
    }

    /// The object of a handle.
    #[inline]
    pub fn get(&self, handle: Handle) -> Object {
        let slot = SimpleSlot::from_address(Address::from_ref(&HANDLES.slots[handle.0]));
        Object::new(slot.load().expect("a handle has an object"))
    }
}
