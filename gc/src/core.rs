//! What all parts of a heap share.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use crate::address::ToAddress;
use crate::alloc::SharedRegions;
use crate::barrier::{Barrier, BarrierQueues};
use crate::context::MutatorContext;
use crate::control::Control;
use crate::embedder::Embedder;
use crate::events::{Listener, Listeners};
use crate::extent::Generations;
use crate::options::{HeapOptions, Mode};
use crate::remembered::RememberedSet;
use crate::roots::RootSpace;
use crate::serve::Serving;
use crate::space::Space;
use crate::stats::Statistics;
use crate::stress::{Stress, StressMode};
use crate::weak::Upgrades;

/// The heap's parts. One for each heap, shared by its handles, contexts and threads.
pub struct Core {
    /// Options, resolved; `mode` is the mode in use.
    pub options: HeapOptions,
    /// Memory and side tables.
    pub space: Arc<Space>,
    /// Root slots.
    pub roots: RootSpace,
    /// What loads from weak slots and the end of marking agree on.
    pub upgrades: Upgrades,
    /// The barrier's records.
    pub barrier: BarrierQueues,
    /// Slots that the next young cycle marks from.
    pub remembered: RememberedSet,
    /// Which cycles are young.
    pub generations: Generations,
    /// Regions mutators share.
    pub shared: SharedRegions,
    /// Statistics.
    pub stats: Arc<Statistics>,
    /// When to collect, and who waits for it.
    pub control: Control,
    /// Serving of missing pages.
    pub serving: Serving,
    /// The embedder's threads.
    pub embedder: Arc<dyn Embedder>,
    listeners: Listeners,
    barrier_now: AtomicU8,
    /// Least bytes of an allocation buffer.
    pub(crate) refill_bytes: usize,
    /// Held by the collector from the plan to the flip, and by whoever pins.
    pub pin_gate: Mutex<()>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn new(
        options: HeapOptions,
        space: Arc<Space>,
        stats: Arc<Statistics>,
        serving: Serving,
        embedder: Arc<dyn Embedder>,
    ) -> Self {
        let one_object = stats.stress.modes().have_one_object_buffers();
        Self {
            roots: RootSpace::new(space.clone()),
            upgrades: Upgrades::default(),
            control: Control::new(space.limit())
                .with_restlessness(stats.stress.is_on(StressMode::CollectSafepoints)),
            barrier: BarrierQueues::new(stats.stress.is_on(StressMode::OverflowSlots)),
            refill_bytes: if one_object { 0 } else { options.buffer_bytes },
            shared: SharedRegions::default(),
            listeners: Listeners::default(),
            barrier_now: AtomicU8::new(Self::idle_barrier(&options) as u8),
            remembered: RememberedSet::default(),
            generations: Generations::default(),
            pin_gate: Mutex::new(()),
            options,
            space,
            stats,
            serving,
            embedder,
        }
    }

    /// What makes this heap's life harder.
    #[inline]
    pub(crate) fn stress(&self) -> &Stress {
        &self.stats.stress
    }

    /// The barrier that new contexts begin with. Changed before the handshake that tells the attached
    /// ones; attaching excludes the handshake's enumeration (`Embedder`, rule 3).
    pub(crate) fn barrier_now(&self) -> Barrier {
        Barrier::from_byte(self.barrier_now.load(Ordering::Relaxed))
    }

    pub(crate) fn set_barrier(&self, barrier: Barrier) {
        self.barrier_now.store(barrier as u8, Ordering::Relaxed);
    }

    /// The barrier between two cycles.
    pub(crate) const fn idle_barrier(options: &HeapOptions) -> Barrier {
        if options.young_cycles && !matches!(options.mode, Mode::NoGc) {
            Barrier::Remember
        } else {
            Barrier::Off
        }
    }

    /// Has each mutator act at its next safepoint. In stop-the-world mode the world is stopped, and
    /// what a handshake would do was done.
    pub(crate) fn handshake(&self, action: &(dyn Fn(&MutatorContext) + Sync)) {
        if self.options.mode != Mode::StopTheWorld {
            self.embedder.handshake(action);
            self.stats.counters.handshakes.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn never_collects(&self) -> bool {
        self.options.mode == Mode::NoGc
    }

    pub(crate) fn cycles_begun(&self) -> u64 {
        self.control.cycles_begun()
    }

    /// Called by mutators when they got a region or a buffer: starts a cycle if it is time.
    #[inline]
    pub(crate) fn consider_cycle(&self) {
        if self.space.used() >= self.control.trigger_regions()
            && self.options.automatic
            && !self.never_collects()
        {
            self.control.request_for_occupancy();
        }
    }

    /// Keeps the regions of an object in place. Under the pin gate.
    pub(crate) fn pin(&self, object: ToAddress) {
        for region in self.space.object_regions(self.space.range.region(object)) {
            self.space.regions.record(region).pins.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn unpin(&self, object: ToAddress) {
        for region in self.space.object_regions(self.space.range.region(object)) {
            self.space.regions.record(region).pins.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn add_listener(&self, listener: Arc<dyn Listener>) {
        self.listeners.add(listener);
    }

    /// Tells all listeners. Safe in a signal handler, as far as the listeners are.
    pub(crate) fn tell(&self, event: impl Fn(&dyn Listener)) {
        for listener in self.listeners.current() {
            event(&**listener);
        }
    }
}
