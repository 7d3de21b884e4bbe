//! When a cycle starts, and who waits for one.
//!
//! Mutators ask (on the slow path of allocation, when they run out, explicitly) and the controller
//! thread answers. Policy: a cycle starts when so much of the heap is used that, at the rate seen in
//! the last cycle until a mutator had to wait, what is left lasts for a whole cycle, with a margin; but not before a
//! quarter of what was left is used.
//!
//! Everything but the trigger level is under one mutex; cycles are rare.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::context::MemoryNeed;
use crate::error::AllocError;
use crate::events::Trigger;
use crate::extent::Extent;
use crate::geometry::REGION_BYTES;
use crate::plan::Pressure;
use crate::space::Space;

/// Free memory after which time without a cycle is given back to the system.
const IDLE: Duration = Duration::from_secs(5);

/// Complete cycles under pressure that must not have helped before memory counts as exhausted. One is
/// not enough: what it freed may have gone to other threads, and what they dropped meanwhile only the
/// next one finds.
const CYCLES_BEFORE_LIMIT: u64 = 3;

/// So many times what they did mutators may have wanted to allocate.
const MOST_HINDERED: f64 = 8.0;

/// A cycle that somebody wants.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Why.
    pub trigger: Trigger,
    /// How hard memory is needed.
    pub pressure: Pressure,
    /// What the cycle is to look at. `None`: what seems best.
    pub extent: Option<Extent>,
}

impl Request {
    /// What answers both: who wants a young cycle is served by a full one too.
    fn join(self, other: Self) -> Self {
        let stronger = if self.pressure <= other.pressure { other } else { self };
        let extent = match (self.extent, other.extent) {
            (Some(one), Some(two)) => Some(one.max(two)),
            (Some(Extent::Full), None) | (None, Some(Extent::Full)) => Some(Extent::Full),
            _ => None,
        };
        Self { extent, ..stronger }
    }
}

#[derive(Debug, Default)]
struct State {
    requested: Option<Request>,
    /// A mutator waits for memory. Not a request like others: the cycle under way may bring it.
    exhausted: bool,
    stopping: bool,
    begun: u64,
    completed: u64,
    /// When the last cycle began, and after what time of it a mutator first waited for memory.
    began: Option<Instant>,
    exhausted_after: Option<Duration>,
    /// The number of the last complete full cycle that was made under pressure.
    completed_under_pressure: u64,
}

/// Requests for cycles.
#[derive(Debug)]
pub struct Control {
    state: Mutex<State>,
    /// The controller waits here.
    wanted: Condvar,
    /// Those wait here who need memory, or a complete cycle.
    progress: Condvar,
    begun: AtomicU64,
    trigger_regions: AtomicUsize,
    occupancy_requested: AtomicBool,
    /// A mutator waits for memory: marking goes on at full weight.
    urgent: AtomicBool,
    /// When the verifier last asked for a stop.
    verification: Mutex<Option<Instant>>,
    /// Cycles follow one another without being asked for (a stress mode).
    restless: bool,
}

/// What the controller is to do next.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Run a cycle.
    Collect(Request),
    /// Nothing happened for a while: give memory back.
    Idle,
    /// End.
    Stop,
}

impl Control {
    /// For a heap of `limit` regions: the first cycle starts when half of it is used.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            wanted: Condvar::new(),
            progress: Condvar::new(),
            begun: AtomicU64::new(0),
            trigger_regions: AtomicUsize::new((limit / 2).max(1)),
            occupancy_requested: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            verification: Mutex::new(None),
            restless: false,
        }
    }

    /// The same, with cycles that follow one another without being asked for, if `restless`.
    #[must_use]
    pub fn with_restlessness(self, restless: bool) -> Self {
        Self { restless, ..self }
    }

    /// Whether a mutator waits for memory.
    #[inline]
    pub fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Relaxed)
    }

    /// Whether this stop was for the verifier only, which is not counted as a pause.
    pub fn is_verification(&self, requested: Instant) -> bool {
        *self.verification.lock().unwrap_or_else(PoisonError::into_inner) == Some(requested)
    }

    /// See [`Self::is_verification`].
    pub fn set_verification(&self, requested: Instant) {
        *self.verification.lock().unwrap_or_else(PoisonError::into_inner) = Some(requested);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Used regions from which on a cycle is wanted.
    #[inline]
    pub fn trigger_regions(&self) -> usize {
        self.trigger_regions.load(Ordering::Relaxed)
    }

    /// Cycles that have begun.
    pub fn cycles_begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Asks for a cycle because the heap fills up.
    pub fn request_for_occupancy(&self) {
        if !self.occupancy_requested.swap(true, Ordering::Relaxed) {
            self.request(Request { trigger: Trigger::Occupancy, pressure: Pressure::Normal, extent: None });
        }
    }

    /// Asks for a cycle that begins after this call.
    pub fn request(&self, request: Request) {
        self.raise(&mut self.lock(), request);
    }

    fn raise(&self, state: &mut State, request: Request) {
        state.requested = Some(state.requested.map_or(request, |before| before.join(request)));
        self.wanted.notify_one();
    }

    /// Asks for a cycle that begins after this call. Returns its number, for [`Self::is_complete`].
    pub(crate) fn ask(&self, pressure: Pressure, extent: Extent) -> u64 {
        let mut state = self.lock();
        self.raise(&mut state, Request { trigger: Trigger::Explicit, pressure, extent: Some(extent) });
        state.begun + 1
    }

    /// Whether this cycle is complete.
    pub(crate) fn is_complete(&self, cycle: u64) -> bool {
        self.lock().completed >= cycle
    }

    /// Asks for a cycle and waits until it is complete.
    pub fn collect(&self, pressure: Pressure, extent: Extent) {
        let wanted = self.ask(pressure, extent);
        let mut state = self.lock();
        while state.completed < wanted && !state.stopping {
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until `space` has what is needed.
    ///
    /// # Errors
    /// [`AllocError::HeapLimit`] when [`CYCLES_BEFORE_LIMIT`] whole cycles that began after the need
    /// arose, the last of them with memory known to be short, have not freed enough.
    pub fn wait_for_memory(&self, space: &Space, need: MemoryNeed) -> Result<(), AllocError> {
        let mut state = self.lock();
        loop {
            if let Some(answer) = self.look_for_memory(&mut state, space, need) {
                return answer;
            }
            // Memory comes back region by region, without the lock: look again soon.
            let (next, _) = self
                .progress
                .wait_timeout(state, Duration::from_millis(1))
                .unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }

    /// What [`Self::wait_for_memory`] would return now. `None`: it would wait.
    pub(crate) fn try_for_memory(&self, space: &Space, need: MemoryNeed) -> Option<Result<(), AllocError>> {
        self.look_for_memory(&mut self.lock(), space, need)
    }

    /// `None`: a cycle was asked for, or goes on and gives memory back.
    fn look_for_memory(
        &self,
        state: &mut State,
        space: &Space,
        need: MemoryNeed,
    ) -> Option<Result<(), AllocError>> {
        if need.for_cycle {
            if state.completed > need.cycles_begun || state.stopping {
                return Some(Ok(()));
            }
            if state.begun <= need.cycles_begun && state.requested.is_none() {
                let request = Request { trigger: Trigger::Explicit, pressure: Pressure::High, extent: None };
                self.raise(state, request);
            }
            return None;
        }
        let regions = need.bytes.div_ceil(REGION_BYTES);
        if space.has_run(regions) {
            // Compaction gives memory back, or ends: no cycle needs to be asked for.
            return if space.waits_for_compaction(regions) { None } else { Some(Ok(())) };
        }
        if state.completed_under_pressure >= need.cycles_begun + CYCLES_BEFORE_LIMIT {
            if space.loosen_limit(regions) {
                return None;
            }
            let limit = space.limit() * REGION_BYTES;
            return Some(Err(AllocError::HeapLimit { bytes: need.bytes, limit }));
        }
        self.urgent.store(true, Ordering::Relaxed);
        if !std::mem::replace(&mut state.exhausted, true) {
            self.wanted.notify_one();
        }
        if state.begun > state.completed && state.exhausted_after.is_none() {
            state.exhausted_after = state.began.map(|began| began.elapsed());
        }
        None
    }

    /// The controller: waits for something to do.
    pub fn next_order(&self) -> Order {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return Order::Stop;
            }
            if let Some(request) = self.begin(&mut state) {
                return Order::Collect(request);
            }
            let (next, timeout) =
                self.wanted.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() && state.requested.is_none() && !state.exhausted && !state.stopping {
                return Order::Idle;
            }
        }
    }

    /// The cycle that was asked for begins.
    fn begin(&self, state: &mut State) -> Option<Request> {
        let restless = Request { trigger: Trigger::Explicit, pressure: Pressure::High, extent: None };
        let exhausted = Request { trigger: Trigger::Exhausted, pressure: Pressure::High, extent: None };
        let exhausted = std::mem::take(&mut state.exhausted).then_some(exhausted);
        let requested = [state.requested.take(), exhausted].into_iter().flatten().reduce(Request::join);
        let requested = requested.or_else(|| self.restless.then_some(restless))?;
        state.begun += 1;
        (state.began, state.exhausted_after) = (Some(Instant::now()), None);
        self.begun.store(state.begun, Ordering::Relaxed);
        Some(requested)
    }

    /// The controller, where it must not wait: the cycle that was asked for, if any.
    pub(crate) fn try_next_order(&self) -> Option<Request> {
        self.begin(&mut self.lock())
    }

    /// The controller: a cycle is complete.
    pub fn completed(&self, pressure: Pressure, extent: Extent) {
        let mut state = self.lock();
        state.completed = state.begun;
        // Whoever still has no memory says so again.
        state.exhausted = false;
        if pressure != Pressure::Normal && extent == Extent::Full {
            state.completed_under_pressure = state.begun;
        }
        self.occupancy_requested.store(false, Ordering::Relaxed);
        self.urgent.store(false, Ordering::Relaxed);
        self.progress.notify_all();
    }

    /// The controller: memory came back.
    pub fn memory_freed(&self) {
        self.progress.notify_all();
    }

    /// Ends the controller, and everybody's waiting.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.wanted.notify_all();
        self.progress.notify_all();
    }

    /// How many regions mutators would have allocated during the cycle that ends, had none waited for memory, from how
    /// many they did.
    pub fn wanted_by_mutators(&self, allocated: usize) -> usize {
        let state = self.lock();
        let (Some(began), Some(until)) = (state.began, state.exhausted_after) else { return allocated };
        let hindered = began.elapsed().as_secs_f64() / until.as_secs_f64().max(1e-6);
        (allocated as f64 * hindered.min(MOST_HINDERED)) as usize
    }

    /// Sets when the next cycle starts, from what the last one left and needed: `used` regions are in
    /// use now, and `allocated` were allocated from its beginning until its memory was back.
    pub fn set_trigger(&self, limit: usize, used: usize, allocated: usize) {
        let free = limit.saturating_sub(used);
        let margin = allocated + allocated / 2 + (limit / 16).max(2);
        let trigger = limit.saturating_sub(margin).max(used + free / 4).min(limit.saturating_sub(1));
        self.trigger_regions.store(trigger.max(used + 1), Ordering::Relaxed);
    }
}
