//! A listener that keeps exact values of every cycle: when it began, when its flip ended, when each phase
//! began and how long it took; and pauses, waits for memory and, if asked to, faults.
//!
//! Its methods run on the controller's thread, but `pause_ended` on the last mutator's, `memory_waited` on
//! the one that waited, and `fault_served` in signal handlers. A cycle's record is complete once
//! `cycle_ended` was told.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use strikeslip::Heap;
use strikeslip::gc::events::{CycleSummary, FaultPath, Listener, Phase, Trigger};
use strikeslip::gc::sys::sched;

use super::faults::{FaultLog, mutator};
use super::timed::nanoseconds_since;

/// One cycle. Times are nanoseconds since the recorder was made.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cycle {
    /// What the collector says of it.
    pub summary: CycleSummary,
    /// When it began.
    pub started: u64,
    /// When the stop for its flip was requested; 0 if there was no flip.
    pub requested: u64,
    /// When mutators could run again.
    pub resumed: u64,
    /// When it ended.
    pub ended: u64,
    /// When its phases began; 0 for those that it did not have.
    pub phase_begins: [u64; Phase::ALL.len()],
    /// Durations of its phases.
    pub phase_ns: [u64; Phase::ALL.len()],
    /// Ticks stolen by the hypervisor meanwhile.
    pub steal_ticks: u64,
}

impl Cycle {
    /// Whether anything was evacuated.
    #[must_use]
    pub const fn has_flip(&self) -> bool {
        self.requested != 0
    }

    /// Duration of a phase.
    #[must_use]
    pub const fn phase(&self, phase: Phase) -> u64 {
        self.phase_ns[phase as usize]
    }

    /// Steps 7 and 8: from the flip until all pages are there, and reclaiming.
    #[must_use]
    pub const fn serve_and_reclaim_ns(&self) -> u64 {
        self.phase(Phase::Serve) + self.phase(Phase::Reclaim)
    }
}

/// Something that held a mutator up. Times are nanoseconds since the recorder was made.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Delay {
    /// When it ended.
    pub end_ns: u64,
    /// How long it lasted.
    pub length_ns: u64,
    /// The mutator that it ended for.
    pub mutator: u8,
}

#[derive(Debug, Default)]
struct State {
    current: Cycle,
    steal_before: u64,
    cycles: Vec<Cycle>,
    pauses: Vec<Delay>,
    memory_waits: Vec<Delay>,
}

/// The listener.
#[derive(Debug)]
pub struct Recorder {
    epoch: Instant,
    state: Mutex<State>,
    ended: Condvar,
    faults: Option<FaultLog>,
}

impl Recorder {
    /// Makes one and adds it to a heap.
    #[must_use]
    pub fn attach(heap: &Heap) -> Arc<Self> {
        Self::attach_at(heap, Instant::now(), None)
    }

    /// Makes one that counts time from `epoch` and keeps faults in `faults`, and adds it to a heap.
    #[must_use]
    pub fn attach_at(heap: &Heap, epoch: Instant, faults: Option<FaultLog>) -> Arc<Self> {
        let recorder = Arc::new(Self { epoch, state: Mutex::default(), ended: Condvar::new(), faults });
        heap.collector().add_listener(Arc::clone(&recorder) as Arc<dyn Listener>);
        recorder
    }

    /// Nanoseconds since the recorder was made.
    #[must_use]
    pub fn now(&self) -> u64 {
        nanoseconds_since(self.epoch)
    }

    /// The instant that times are counted from.
    #[must_use]
    pub const fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Number of complete cycles.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().cycles.len()
    }

    /// Waits until `count` cycles are complete, and returns the last of them. `None` if that takes
    /// longer than `limit`.
    #[must_use]
    pub fn wait_for(&self, count: usize, limit: Duration) -> Option<Cycle> {
        let state = self.lock();
        let (state, _) = self
            .ended
            .wait_timeout_while(state, limit, |state| state.cycles.len() < count)
            .unwrap_or_else(PoisonError::into_inner);
        state.cycles.get(count - 1).cloned()
    }

    /// Forgets what was recorded so far.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.cycles.clear();
        state.pauses.clear();
        state.memory_waits.clear();
    }

    /// The cycles.
    #[must_use]
    pub fn cycles(&self) -> Vec<Cycle> {
        self.lock().cycles.clone()
    }

    /// The pauses, from the request to the last mutator's resumption.
    #[must_use]
    pub fn pauses(&self) -> Vec<u64> {
        self.lock().pauses.iter().map(|pause| pause.length_ns).collect()
    }

    /// The pauses, with their times.
    #[must_use]
    pub fn pause_delays(&self) -> Vec<Delay> {
        self.lock().pauses.clone()
    }

    /// How long mutators waited for memory, each time.
    #[must_use]
    pub fn memory_waits(&self) -> Vec<Delay> {
        self.lock().memory_waits.clone()
    }

    /// The log of faults, if there is one.
    #[must_use]
    pub const fn faults(&self) -> Option<&FaultLog> {
        self.faults.as_ref()
    }

    fn delay(&self, length: Duration) -> Delay {
        Delay { end_ns: self.now(), length_ns: nanoseconds(length), mutator: mutator() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener for Recorder {
    fn cycle_started(&self, _cycle: u64, _trigger: Trigger) {
        let (now, steal) = (self.now(), sched::steal_ticks().unwrap_or(0));
        let mut state = self.lock();
        state.current = Cycle { started: now, ..Cycle::default() };
        state.steal_before = steal;
    }

    fn phase_started(&self, phase: Phase) {
        let now = self.now();
        let current = &mut self.lock().current;
        if current.phase_begins[phase as usize] == 0 {
            current.phase_begins[phase as usize] = now;
        }
        if phase == Phase::Flip {
            current.requested = now;
        }
    }

    fn phase_ended(&self, phase: Phase, duration: Duration) {
        // The plan is told twice: what follows it needs its result.
        self.lock().current.phase_ns[phase as usize] += nanoseconds(duration);
    }

    fn pause_ended(&self, since_request: Duration) {
        let pause = self.delay(since_request);
        self.lock().pauses.push(pause);
    }

    fn fault_served(&self, path: FaultPath, latency: Duration) {
        if let Some(faults) = &self.faults {
            faults.add(self.now(), nanoseconds(latency), path);
        }
    }

    fn memory_waited(&self, waited: Duration) {
        let wait = self.delay(waited);
        self.lock().memory_waits.push(wait);
    }

    fn cycle_ended(&self, summary: &CycleSummary) {
        let (now, steal) = (self.now(), sched::steal_ticks().unwrap_or(0));
        let mut state = self.lock();
        let mut cycle = std::mem::take(&mut state.current);
        cycle.summary = summary.clone();
        cycle.resumed = cycle.requested + summary.stopped_ns;
        cycle.ended = now;
        cycle.steal_ticks = steal.saturating_sub(state.steal_before);
        state.cycles.push(cycle);
        drop(state);
        self.ended.notify_all();
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
