//! A heap whose page service is simulated: whole cycles without userfaultfd, one thread at a time, in an order
//! that a [`Schedule`] chooses.
//!
//! For tests. Everything is the collector's own but three things: the page service
//! ([`SimulatedPages`]), the threads (the schedule's run markers and workers; whoever calls
//! [`SimulatedHeap::collect`] is the controller), and the mutators' faults: a simulated mutator calls
//! [`SimulatedHeap::access`] before it touches memory, where a real one would fault.
//!
//! Invariant: one thread of the schedule runs at a time, and none gives up its turn while it holds a lock.

use std::io;
use std::sync::Arc;

use crate::address::ToAddress;
use crate::choice::Choice;
use crate::context::MemoryNeed;
use crate::control::Request;
use crate::core::Core;
use crate::cycle::{self, Pools};
use crate::embedder::Embedder;
use crate::error::{AllocError, HeapError};
use crate::events::Trigger;
use crate::extent::Extent;
use crate::heap::{Heap, with_wrappers};
use crate::options::{Delivery, HeapOptions};
use crate::plan::Pressure;
use crate::reclaim::release_drained;
use crate::serve::{Serving, serve_fault};
use crate::space::Space;
use crate::stats::Statistics;
use crate::sys::schedule::{Schedule, Step};
use crate::sys::simulated::SimulatedPages;

/// A heap on a simulated page service.
#[derive(Debug)]
pub struct SimulatedHeap {
    /// The heap, as the embedder uses it. Its `collect` and `wait_for_memory` would wait for ever: use those of this
    /// type.
    pub heap: Heap,
    core: Arc<Core>,
    pools: Pools,
    pages: Arc<SimulatedPages>,
    schedule: Arc<dyn Schedule>,
}

impl SimulatedHeap {
    /// Creates a heap. Nothing is probed: all concurrent modes are available. `seed` is for what the page service
    /// chooses.
    ///
    /// # Errors
    /// An option is bad (stop-the-world mode has nothing to simulate), or the system refuses address space
    /// or the marking thread.
    pub fn new(
        options: HeapOptions,
        embedder: Arc<dyn Embedder>,
        schedule: Arc<dyn Schedule>,
        seed: u64,
    ) -> Result<Self, HeapError> {
        let mut options = options.resolved()?;
        if !options.mode.is_concurrent() {
            return Err(HeapError::BadOption {
                option: "mode",
                reason: "there is nothing to simulate".into(),
            });
        }
        let delivery = *options.delivery.get_or_insert(Delivery::InPlace);
        let stats = Arc::new(Statistics::with_stress(options.stress.modes));
        // Pages come one by one, so that the kernel can tell which were touched.
        let small_pages = HeapOptions { huge_pages: false, ..options.clone() };
        let space = Arc::new(Space::new(&small_pages, &stats)?);
        let reserve = |source: io::Error| HeapError::Reserve { bytes: 0, source };
        let pages = SimulatedPages::new(space.range, schedule.clone(), seed).map_err(reserve)?;
        let pages = Arc::new(pages);
        let service = with_wrappers(pages.clone(), &options, &stats);
        let serving = Serving::new(space.range.regions(), options.mode, Some(service));
        let line = format!("{}, simulated", options.mode);
        let (mode, huge_pages) = (options.mode, options.huge_pages);
        let choice = Choice { mode, delivery: Some(delivery), huge_pages, line };
        // Not used: the schedule runs workers and markers.
        let pools = Pools::new(&HeapOptions { workers: 1, mark_workers: 1, ..options.clone() })?;
        let core = Arc::new(Core::new(options, space, stats, serving, embedder));
        let heap = Heap::without_threads(core.clone(), choice);
        Ok(Self { heap, core, pools, pages, schedule })
    }

    /// Runs a whole cycle on the calling thread, which stands for the controller.
    pub fn collect(&self, pressure: Pressure, extent: Extent) {
        self.core.control.request(Request { trigger: Trigger::Explicit, pressure, extent: Some(extent) });
        self.collect_if_asked();
    }

    /// As [`Self::collect`], if a mutator or the heap's occupancy asked for a cycle. Whether one did.
    pub fn collect_if_asked(&self) -> bool {
        let Some(request) = self.core.control.try_next_order() else { return false };
        let extent = cycle::run(&self.core, &self.pools, request);
        self.core.control.completed(request.pressure, extent);
        true
    }

    /// Asks for a cycle, which begins when a thread calls [`Self::collect_if_asked`]. Returns its number.
    #[must_use]
    pub fn request(&self, pressure: Pressure, extent: Extent) -> u64 {
        self.core.control.ask(pressure, extent)
    }

    /// Whether the cycle of this number is complete.
    #[must_use]
    pub fn is_complete(&self, cycle: u64) -> bool {
        self.core.control.is_complete(cycle)
    }

    /// The page service: tells which pages are missing.
    #[must_use]
    pub const fn pages(&self) -> &Arc<SimulatedPages> {
        &self.pages
    }

    /// Before an access of a mutator: if the page is missing, serves the fault, or has it served.
    pub fn access(&self, address: ToAddress) {
        while self.pages.is_missing(address) {
            if self.heap.delivery() == Some(Delivery::Pool) {
                self.pages.sleep(address);
            } else {
                self.schedule.step(Step::Faulted);
                serve_fault(&self.core, address);
            }
        }
    }

    /// What the reader of fault events does; with [`Delivery::Pool`] some thread does it again and again. Whether
    /// there were events.
    pub fn read_events(&self) -> bool {
        let mut found = false;
        while let Some(address) = self.pages.read_event() {
            self.pools.faults.accept(&self.core, address);
            found = true;
        }
        found
    }

    /// What the pool does with faults that were read.
    pub fn drain_faults(&self) {
        self.pools.faults.drain(&self.core);
        release_drained(&self.core);
    }

    /// As `Heap::wait_for_memory`, while other threads run.
    ///
    /// # Errors
    /// [`AllocError::HeapLimit`] if three whole cycles that began since did not free enough.
    pub fn wait_for_memory(&self, need: MemoryNeed) -> Result<(), AllocError> {
        loop {
            if let Some(answer) = self.core.control.try_for_memory(&self.core.space, need) {
                return answer;
            }
            self.schedule.yield_now();
        }
    }

    /// A number that depends on all that was asked of the page service, and what it answered.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.pages.digest()
    }
}
