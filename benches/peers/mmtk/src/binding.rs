//! What MMTk asks of a virtual machine.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use mmtk::MMTK;
use mmtk::Mutator;
use mmtk::util::alloc::AllocationError;
use mmtk::util::copy::{CopySemantics, GCWorkerCopyContext};
use mmtk::util::{Address, ObjectReference, OpaquePointer, VMMutatorThread, VMThread, VMWorkerThread};
use mmtk::vm::slot::{SimpleSlot, UnimplementedMemorySlice};
use mmtk::vm::{
    ActivePlan, Collection, GCThreadContext, ObjectModel, ReferenceGlue, RootsWorkFactory, Scanning,
    SlotVisitor, VMBinding, VMGlobalLogBitSpec, VMLocalForwardingBitsSpec, VMLocalForwardingPointerSpec,
    VMLocalLOSMarkNurserySpec, VMLocalMarkBitSpec,
};

use crate::heap::Handles;
use crate::object::Object;
use crate::world::WORLD;

/// The machine.
#[derive(Default, Debug)]
pub struct Machine;

/// MMTk.
pub static MMTK: OnceLock<Box<MMTK<Machine>>> = OnceLock::new();
/// The one mutator, once it is there.
pub static MUTATOR: AtomicPtr<Mutator<Machine>> = AtomicPtr::new(std::ptr::null_mut());
/// Its handles.
pub static HANDLES: Handles = Handles::new();

/// What the mutator's thread is called.
pub fn mutator_thread() -> VMMutatorThread {
    VMMutatorThread(VMThread(OpaquePointer::from_address(Address::from_ref(&MUTATOR))))
}

impl VMBinding for Machine {
    type VMObjectModel = Self;
    type VMScanning = Self;
    type VMCollection = Self;
    type VMActivePlan = Self;
    type VMReferenceGlue = Self;
    type VMSlot = SimpleSlot;
    type VMMemorySlice = UnimplementedMemorySlice;
    const MIN_ALIGNMENT: usize = 8;
}

impl ObjectModel<Self> for Machine {
    const GLOBAL_LOG_BIT_SPEC: VMGlobalLogBitSpec = VMGlobalLogBitSpec::side_first();
    const LOCAL_FORWARDING_POINTER_SPEC: VMLocalForwardingPointerSpec =
        VMLocalForwardingPointerSpec::in_header(0);
    const LOCAL_FORWARDING_BITS_SPEC: VMLocalForwardingBitsSpec = VMLocalForwardingBitsSpec::side_first();
    const LOCAL_MARK_BIT_SPEC: VMLocalMarkBitSpec =
        VMLocalMarkBitSpec::side_after(Self::LOCAL_FORWARDING_BITS_SPEC.as_spec());
    const LOCAL_LOS_MARK_NURSERY_SPEC: VMLocalLOSMarkNurserySpec =
        VMLocalLOSMarkNurserySpec::side_after(Self::LOCAL_MARK_BIT_SPEC.as_spec());
    const UNIFIED_OBJECT_REFERENCE_ADDRESS: bool = true;
    const OBJECT_REF_OFFSET_LOWER_BOUND: isize = 0;

    fn copy(
        from: ObjectReference,
        semantics: CopySemantics,
        context: &mut GCWorkerCopyContext<Self>,
    ) -> ObjectReference {
        let bytes = Object::new(from).size();
        let to = context.alloc_copy(from, bytes, Self::MIN_ALIGNMENT, 0, semantics);
        // SAFETY: both are `bytes` long, and the new one is not in use yet.
        let to = unsafe {
            std::ptr::copy_nonoverlapping::<u8>(from.to_raw_address().to_ptr(), to.to_mut_ptr(), bytes);
            ObjectReference::from_raw_address_unchecked(to)
        };
        context.post_copy(to, bytes, semantics);
        to
    }

    fn copy_to(from: ObjectReference, to: ObjectReference, _region: Address) -> Address {
        let bytes = Object::new(from).size();
        let (from, to) = (from.to_raw_address(), to.to_raw_address());
        // SAFETY: the collector slides objects down in order, so that what is overwritten was copied before;
        // the two may overlap.
        unsafe { std::ptr::copy::<u8>(from.to_ptr(), to.to_mut_ptr(), bytes) };
        to + bytes
    }

    fn get_reference_when_copied_to(_from: ObjectReference, to: Address) -> ObjectReference {
        // SAFETY: the collector asks for an address at which an object will begin.
        unsafe { ObjectReference::from_raw_address_unchecked(to) }
    }

    fn get_current_size(object: ObjectReference) -> usize {
        Object::new(object).size()
    }

    fn get_size_when_copied(object: ObjectReference) -> usize {
        Object::new(object).size()
    }

    fn get_align_when_copied(_object: ObjectReference) -> usize {
        Self::MIN_ALIGNMENT
    }

    fn get_align_offset_when_copied(_object: ObjectReference) -> usize {
        0
    }

    fn get_type_descriptor(_reference: ObjectReference) -> &'static [i8] {
        &[]
    }

    fn ref_to_object_start(object: ObjectReference) -> Address {
        object.to_raw_address()
    }

    fn ref_to_header(object: ObjectReference) -> Address {
        object.to_raw_address()
    }

    fn dump_object(object: ObjectReference) {
        eprintln!("{object} of {} bytes", Object::new(object).size());
    }
}

impl Scanning<Self> for Machine {
    fn scan_object<V: SlotVisitor<SimpleSlot>>(_: VMWorkerThread, object: ObjectReference, visitor: &mut V) {
        let object = Object::new(object);
        (0..object.references()).for_each(|index| visitor.visit_slot(object.slot(index)));
    }

    fn notify_initial_thread_scan_complete(_partial_scan: bool, _: VMWorkerThread) {}

    fn scan_roots_in_mutator_thread(
        _: VMWorkerThread,
        _mutator: &'static mut Mutator<Self>,
        mut factory: impl RootsWorkFactory<SimpleSlot>,
    ) {
        factory.create_process_roots_work(HANDLES.slots());
    }

    fn scan_vm_specific_roots(_: VMWorkerThread, _factory: impl RootsWorkFactory<SimpleSlot>) {}

    fn supports_return_barrier() -> bool {
        false
    }

    fn prepare_for_roots_re_scanning() {}
}

impl Collection<Self> for Machine {
    fn stop_all_mutators<F: FnMut(&'static mut Mutator<Self>)>(_: VMWorkerThread, mut visitor: F) {
        WORLD.stop();
        visitor(Self::mutator(mutator_thread()));
    }

    fn resume_mutators(_: VMWorkerThread) {
        WORLD.resume();
    }

    fn block_for_gc(_: VMMutatorThread) {
        WORLD.stand_still();
    }

    fn spawn_gc_thread(_: VMThread, context: GCThreadContext<Self>) {
        let GCThreadContext::Worker(worker) = context;
        std::thread::spawn(move || {
            let thread = VMWorkerThread(VMThread(OpaquePointer::from_address(Address::from_ref(&*worker))));
            worker.run(thread, MMTK.get().expect("MMTk starts its workers"));
        });
    }

    fn out_of_memory(_: VMThread, error: AllocationError) {
        eprintln!("peer: out of memory: {error:?}");
        std::process::exit(1);
    }
}

impl ActivePlan<Self> for Machine {
    fn is_mutator(thread: VMThread) -> bool {
        thread == mutator_thread().0
    }

    fn mutator(_: VMMutatorThread) -> &'static mut Mutator<Self> {
        // SAFETY: MMTk asks for it while the mutator stands still, or on its thread; it is never freed.
        // Acquire: pairs with the Release in `Heap::new`.
        unsafe { &mut *MUTATOR.load(Ordering::Acquire) }
    }

    fn mutators<'a>() -> Box<dyn Iterator<Item = &'a mut Mutator<Self>> + 'a> {
        Box::new(std::iter::once(Self::mutator(mutator_thread())))
    }

    fn number_of_mutators() -> usize {
        1
    }
}

/// There are no weak references and no finalizers.
impl ReferenceGlue<Self> for Machine {
    type FinalizableType = ObjectReference;

    fn clear_referent(_: ObjectReference) {}

    fn get_referent(_: ObjectReference) -> Option<ObjectReference> {
        None
    }

    fn set_referent(_: ObjectReference, _: ObjectReference) {}

    fn enqueue_references(_: &[ObjectReference], _: VMWorkerThread) {}
}
