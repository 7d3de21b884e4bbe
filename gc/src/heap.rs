//! The heap: what the embedder calls.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::address::{HeapRange, ToAddress};
use crate::choice::{self, Choice, Faults};
use crate::context::{MemoryNeed, MutatorContext};
use crate::control::{Order, Request};
use crate::core::Core;
use crate::cycle::{self, Pools};
use crate::delivery::{self, FaultQueue, Running};
use crate::embedder::Embedder;
use crate::error::{AllocError, HeapError};
use crate::events::{Listener, Trigger};
use crate::extent::Extent;
use crate::geometry::{PAGE_BYTES, REGION_BYTES, STRIDE_BYTES};
use crate::options::{Delivery, HeapOptions, Mode};
use crate::plan::Pressure;
use crate::roots::RootSpace;
use crate::serve::Serving;
use crate::space::Space;
use crate::stats::{Memory, Snapshot, Statistics};
use crate::stress::StressMode;
use crate::sys::PageService;
use crate::sys::forced::Forcing;
use crate::sys::jitter::Jittering;
use crate::sys::observed::Observed;
use crate::sys::storm::Storm;

/// A heap. Cloning gives another handle of the same heap; it ends with the last one.
#[derive(Clone)]
pub struct Heap(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    choice: Choice,
    controller: Mutex<Option<JoinHandle<()>>>,
    /// The process that created the heap.
    process: u32,
    /// Under stress.
    _storm: Option<Storm>,
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap").field("choice", &self.0.choice.line).field("range", &self.range()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // A child has no controller to wait for.
            return;
        }
        self.core.control.stop();
        if let Some(controller) = self.controller.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The last handle may go away on the controller itself, inside a listener.
            if controller.thread().id() != std::thread::current().id() {
                let _ = controller.join();
            }
        }
    }
}

impl Heap {
    /// Creates a heap and starts its collector threads.
    ///
    /// The mode asked for is probed with real faults. Where it is not available, another one is
    /// chosen (see [`HeapOptions::fall_back`]); [`Heap::choice`] says which, and why.
    ///
    /// # Errors
    /// [`HeapError`].
    pub fn new(options: HeapOptions, embedder: Arc<dyn Embedder>) -> Result<Self, HeapError> {
        let mut options = options.resolved()?;
        check_room(&options)?;
        let stats = Arc::new(Statistics::with_stress(options.stress.modes));
        let mut choice = choice::choose(&options)?;
        let faults = choice.open(&options, &stats)?;
        options.mode = choice.mode;
        options.delivery = choice.delivery;
        options.huge_pages &= choice.huge_pages;
        let space = Arc::new(Space::new(&options, &stats)?);
        let userfault = faults.as_ref().map(|faults| faults.userfault.clone());
        let pages = userfault.map(|service| with_wrappers(service, &options, &stats));
        let serving = Serving::new(space.range.regions(), options.mode, pages);
        let core = Arc::new(Core::new(options, space, stats, serving, embedder));
        let process = std::process::id();
        let storm = match core.stress().is_on(StressMode::SignalStorm) {
            true => Some(Storm::start(core.stats.clone()).map_err(HeapError::Thread)?),
            false => None,
        };
        let heap = Inner { core: core.clone(), choice, controller: Mutex::new(None), process, _storm: storm };
        if core.options.mode != Mode::NoGc {
            let pools = Pools::new(&core.options)?;
            let running = start_delivery(&core, faults, &pools)?;
            let controller = std::thread::Builder::new()
                .name("strikeslip-gc".into())
                .spawn(move || control(&core, &pools, running))
                .map_err(HeapError::Thread)?;
            *heap.controller.lock().unwrap_or_else(PoisonError::into_inner) = Some(controller);
        }
        Ok(Self(Arc::new(heap)))
    }

    /// A heap without threads of its own: a simulation runs its cycles.
    pub(crate) fn without_threads(core: Arc<Core>, choice: Choice) -> Self {
        let process = std::process::id();
        Self(Arc::new(Inner { core, choice, controller: Mutex::new(None), process, _storm: None }))
    }

    /// Whether this process inherited the heap by a `fork`. It has neither its memory nor its threads then: an
    /// access to an object ends in `SIGSEGV`, and nothing may be asked of the heap. It may be dropped.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.0.process != std::process::id()
    }

    /// Mode in use.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.core.options.mode
    }

    /// Delivery in use; `None` in modes without faults.
    #[must_use]
    pub fn delivery(&self) -> Option<Delivery> {
        self.0.core.options.delivery
    }

    /// One line: what was chosen and why.
    #[must_use]
    pub fn choice(&self) -> &str {
        &self.0.choice.line
    }

    /// The options in use.
    #[must_use]
    pub fn options(&self) -> &HeapOptions {
        &self.0.core.options
    }

    /// The addresses that references of this heap lie in.
    #[must_use]
    pub fn range(&self) -> HeapRange {
        self.0.core.space.range
    }

    /// Makes the context of a new mutator, on the mutator's thread. Call it under the lock that
    /// excludes handshakes and stops ([`Embedder`], rule 3).
    #[must_use]
    pub fn attach(&self) -> MutatorContext {
        if self.delivery() == Some(Delivery::InPlace) {
            // A thread that blocks SIGBUS would be killed by its first fault.
            sched_unblock();
        }
        MutatorContext::new(self.0.core.clone())
    }

    /// Takes a context out of use. Same lock as for [`Heap::attach`]; the context is dropped after it.
    pub fn detach(&self, context: &MutatorContext) {
        context.retire_buffer();
        context.hand_over_records();
    }

    /// Pages of root slots.
    #[must_use]
    pub fn roots(&self) -> &RootSpace {
        &self.0.core.roots
    }

    /// Waits until there is memory for what an allocation needed. Call it in a blocked state.
    ///
    /// # Errors
    /// [`AllocError::HeapLimit`] if three whole cycles that began since did not free enough.
    pub fn wait_for_memory(&self, need: MemoryNeed) -> Result<(), AllocError> {
        let start = Instant::now();
        let result = self.0.core.control.wait_for_memory(&self.0.core.space, need);
        let waited = start.elapsed();
        self.0.core.stats.memory_wait.record_duration(waited);
        self.0.core.tell(|listener| listener.memory_waited(waited));
        result
    }

    /// Runs a whole (full) collection that begins after this call, and waits for its end. Call it unattached
    /// or in a blocked state.
    pub fn collect(&self) {
        self.collect_with(Pressure::High);
    }

    /// As [`Heap::collect`], with a choice of how much is evacuated.
    pub fn collect_with(&self, pressure: Pressure) {
        if self.mode() != Mode::NoGc {
            self.0.core.control.collect(pressure, Extent::Full);
        }
    }

    /// As [`Heap::collect`], with a young cycle if there can be one: only objects born since the last cycle are
    /// looked at, all others count as live.
    pub fn collect_young(&self) {
        if self.mode() != Mode::NoGc {
            self.0.core.control.collect(Pressure::Normal, Extent::Young);
        }
    }

    /// Asks for a collection and returns at once.
    pub fn request_collection(&self) {
        if self.mode() != Mode::NoGc {
            let request = Request { trigger: Trigger::Explicit, pressure: Pressure::Normal, extent: None };
            self.0.core.control.request(request);
        }
    }

    /// Keeps an object where it is, until [`Heap::unpin`]. `object` gives its address once the plan
    /// can no longer move it: read it from a root slot. May wait for a flip: call it in a blocked
    /// state.
    pub fn pin(&self, object: &dyn Fn() -> ToAddress) -> ToAddress {
        let core = &self.0.core;
        let _gate = core.pin_gate.lock().unwrap_or_else(PoisonError::into_inner);
        let address = object();
        core.pin(address);
        address
    }

    /// Undoes one [`Heap::pin`] of the object at this address.
    pub fn unpin(&self, object: ToAddress) {
        self.0.core.unpin(object);
    }

    /// Reports the end of a pause: the last mutator has resumed ([`Embedder::resume_world`]).
    pub fn pause_ended(&self, requested: Instant) {
        let core = &self.0.core;
        if core.control.is_verification(requested) {
            return;
        }
        let length = requested.elapsed();
        core.stats.pause.record_duration(length);
        core.tell(|listener| listener.pause_ended(length));
    }

    /// Adds a listener for the collector's events.
    pub fn add_listener(&self, listener: Arc<dyn Listener>) {
        self.0.core.add_listener(listener);
    }

    /// Statistics.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.0.core.stats
    }

    /// Memory at this time.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let space = &self.0.core.space;
        let bytes = |regions: usize| (regions * REGION_BYTES) as u64;
        let pages = |pages: usize| (pages * PAGE_BYTES) as u64;
        let last = self.0.core.stats.last_cycle();
        let since = bytes(space.used()).saturating_sub(last.used_after_bytes);
        Memory {
            limit_bytes: bytes(space.limit()),
            used_bytes: bytes(space.used()),
            peak_used_bytes: bytes(space.peak_used()),
            live_bytes: if last.cycle == 0 { bytes(space.used()) } else { last.marked_bytes + since },
            resident_bytes: pages(space.account.pages()),
            peak_resident_bytes: pages(space.account.peak_pages()),
            held: space.account.held(),
            held_at_peak: space.account.at_peak(),
            side_table_bytes: space.side_table_bytes() as u64,
        }
    }

    /// All statistics, as one serialisable value.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let delivery = self.delivery().map(Delivery::name);
        self.0.core.stats.snapshot(self.memory(), self.mode().name(), delivery)
    }
}

fn sched_unblock() {
    let _was_blocked = crate::sys::sigbus::unblock_current_thread();
}

impl Pools {
    pub(crate) fn new(options: &HeapOptions) -> Result<Self, HeapError> {
        let builder = |name: &'static str, threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(move |nth| format!("strikeslip-{name}-{nth}"))
        };
        let failed = |error: rayon::ThreadPoolBuildError| HeapError::Thread(std::io::Error::other(error));
        let mark = builder("mark", options.mark_workers).build().map_err(failed)?;
        let serve = builder("serve", options.workers).build().map_err(failed)?;
        Ok(Self { mark, serve: Arc::new(serve), faults: Arc::new(FaultQueue::default()) })
    }
}

/// The service, observed, with answers forced on it and delays between its steps, if the options say so.
pub(crate) fn with_wrappers(
    service: Arc<dyn PageService>,
    options: &HeapOptions,
    stats: &Arc<Statistics>,
) -> Arc<dyn PageService> {
    let service: Arc<dyn PageService> = match &options.observer {
        Some(observer) => Arc::new(Observed::new(service, observer.clone())),
        None => service,
    };
    let service: Arc<dyn PageService> = match options.stress.forced_answers {
        Some(answers) => Arc::new(Forcing::new(service, answers, stats.clone())),
        None => service,
    };
    // A simulation has a schedule of its own.
    match stats.stress.is_on(StressMode::Yields) && service.schedule().is_none() {
        true => Arc::new(Jittering::new(service, stats.clone())),
        false => service,
    }
}

/// Mappings that a heap needs beside those of its windows and threads.
const FEW_MAPPINGS: usize = 64;
/// Mappings of a thread: its stack and its alternate stack, each with a guard, and what its allocator adds.
const THREAD_MAPPINGS: usize = 6;
/// Mappings of a window while regions of it are taken: where more were needed, it is taken whole.
const WINDOW_MAPPINGS: usize = 16;

/// Whether there is room for the heap's mappings. Found out first, because a thread that starts cannot report
/// that there is none for its alternate stack.
fn check_room(options: &HeapOptions) -> Result<(), HeapError> {
    let windows = Space::windows_for(options.limit_bytes);
    let threads = 3 + options.workers + options.mark_workers;
    let mappings = FEW_MAPPINGS + windows * WINDOW_MAPPINGS + threads * THREAD_MAPPINGS;
    crate::sys::mapping::room_for(mappings)
        .map_err(|source| HeapError::Reserve { bytes: windows * STRIDE_BYTES, source })
}

fn start_delivery(
    core: &Arc<Core>,
    faults: Option<Faults>,
    pools: &Pools,
) -> Result<Option<Running>, HeapError> {
    let Some(faults) = faults else { return Ok(None) };
    let running = match faults.reader {
        Some(reader) => {
            delivery::start_pool(core, reader, &pools.faults, &pools.serve).map_err(HeapError::Thread)?
        }
        None => delivery::start_in_place(core).map_err(|error| HeapError::ModeUnavailable {
            mode: core.options.mode,
            reason: error.to_string(),
        })?,
    };
    Ok(Some(running))
}

/// A panic in the collector is a broken invariant: mutators would wait for ever, or read what is not
/// there. The panic's message has been printed; the process ends.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            crate::sys::die(format_args!("strikeslip: the collector cannot go on"));
        }
    }
}

/// The controller thread.
fn control(core: &Arc<Core>, pools: &Pools, _delivery: Option<Running>) {
    let _abort = AbortOnPanic;
    if core.stress().is_on(StressMode::NoWorkers) {
        // It touches missing pages, as mutators do.
        sched_unblock();
    }
    loop {
        match core.control.next_order() {
            Order::Collect(request) => {
                let extent = cycle::run(core, pools, request);
                core.control.completed(request.pressure, extent);
            }
            Order::Idle => core.space.trim(core.space.used() + 1),
            Order::Stop => return,
        }
    }
}
