//! Stress modes: what makes a collector's life harder than programs do, so that tests reach what is rare.
//!
//! Each is an option of any heap ([`StressModes`] in [`crate::options::StressOptions`]), changes no result that a
//! program sees, and counts how often it acted. Where a mode acts, the code asks [`Stress::acts`]; none of these
//! places is on the fast path of allocation, in the barrier's test, or in a load.
//!
//! Asked by whoever does what the mode changes: mutators on slow paths, the controller, workers, and signal
//! handlers. Counting is one relaxed addition.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::HeapError;
use crate::options::named_enum;

named_enum! {
    /// One way to stress the collector.
    StressMode {
        /// A cycle is asked for every so many allocations ([`StressModes::collect_every`]); buffers hold one object.
        CollectAllocations = "collect-allocations",
        /// Each allocation, which is a safepoint, waits for a whole cycle, and cycles follow one another, so that
        /// every other safepoint lies in one too.
        CollectSafepoints = "collect-safepoints",
        /// The first allocation from each distinct call site (16 frames) waits for a whole cycle. Needs glibc.
        CollectSites = "collect-sites",
        /// Workers build nothing: mutators fault in what they touch. What none of them touches for a while is
        /// touched by the controller.
        NoWorkers = "no-workers",
        /// Faults build nothing: mutators wait until workers have installed the page.
        NoMutatorService = "no-mutator-service",
        /// Threads give up the processor, or sleep for a moment, at the steps of the protocols of marking and serving.
        Yields = "yields",
        /// Moving pages is switched off and on again in the middle of cycles.
        ToggleMoves = "toggle-moves",
        /// Freed regions are inaccessible until they are used again: a stale reference ends in `SIGSEGV` where it is used.
        ProtectFreed = "protect-freed",
        /// Memory of freed regions holds [`POISON`] until it is used again.
        PoisonFreed = "poison-freed",
        /// Allocation buffers hold one object: every allocation takes the slow path.
        OneObjectBuffers = "one-object-buffers",
        /// Every cycle evacuates all that can be moved.
        EvacuateAll = "evacuate-all",
        /// No cycle evacuates anything.
        EvacuateNothing = "evacuate-nothing",
        /// Signals hit all threads of the process, some thousand times a second. Uses the signal `SIGRTMIN + 7`.
        SignalStorm = "signal-storm",
        /// Threads attach, allocate a little, and detach, all the time. Done by the crate `strikeslip`.
        ThreadChurn = "thread-churn",
        /// After each cycle the heap's limit is little more than what is in use.
        TightLimit = "tight-limit",
        /// Units of claim are one page, where survivors and root slots go.
        PageUnits = "page-units",
        /// Lists of recorded slots overflow at once: regions are scanned.
        OverflowSlots = "overflow-slots",
        /// Whatever holds slots to be rewritten is taken; nothing is patched in the pause.
        TakeAll = "take-all",
        /// As `take-all`, and whole windows at a time.
        TakeWindows = "take-windows",
        /// Nothing is taken: all is rewritten in the pause.
        TakeNothing = "take-nothing",
        /// Every other `mremap` that takes regions counts as refused. (Alone, little is taken: best with `take-all`.)
        RefuseTakes = "refuse-takes",
        /// A mutator never waits for a claim holder, but builds its page beside it.
        Overtake = "overtake",
    }
}

use StressMode::{
    CollectAllocations, CollectSafepoints, CollectSites, EvacuateAll, EvacuateNothing, NoMutatorService,
    NoWorkers, OneObjectBuffers, Overtake, TakeAll, TakeNothing, TakeWindows,
};

/// What memory of freed regions holds with [`StressMode::PoisonFreed`], word by word: as a reference no address of
/// the machine's, as a header no layout.
pub const POISON: u64 = 0xDEAD_DEAD_DEAD_DEA8;

/// Allocations between two cycles with [`StressMode::CollectAllocations`], unless the text says otherwise.
const COLLECT_EVERY: u32 = 1000;

/// Modes that exclude each other.
const EXCLUSIVE: [(StressMode, StressMode); 7] = [
    (NoWorkers, NoMutatorService),
    (NoMutatorService, Overtake),
    (EvacuateAll, EvacuateNothing),
    (TakeAll, TakeNothing),
    (TakeWindows, TakeNothing),
    (CollectSafepoints, CollectSites),
    (CollectSafepoints, CollectAllocations),
];

/// A set of stress modes.
///
/// As text: their names with commas between them; `collect-allocations:N` says how many allocations.
///
/// ```
/// use strikeslip_gc::stress::{StressMode, StressModes};
/// let modes: StressModes = "collect-allocations:50,yields".parse().unwrap();
/// assert!(modes.contains(StressMode::Yields) && modes.collect_every() == 50);
/// assert_eq!(modes.to_string(), "collect-allocations:50,yields");
/// assert!("yields,noise".parse::<StressModes>().is_err());
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Default)]
pub struct StressModes {
    bits: u32,
    /// 0: the default.
    every: u32,
}

impl StressModes {
    /// These modes.
    #[must_use]
    pub fn of(modes: &[StressMode]) -> Self {
        Self { bits: modes.iter().fold(0, |bits, &mode| bits | 1 << mode as u32), every: 0 }
    }

    /// The same, with a cycle asked for every `allocations` allocations.
    #[must_use]
    pub const fn with_collect_every(self, allocations: u32) -> Self {
        Self { bits: self.bits | 1 << CollectAllocations as u32, every: allocations }
    }

    /// Allocations between two cycles with [`StressMode::CollectAllocations`].
    #[must_use]
    pub const fn collect_every(self) -> u32 {
        if self.every == 0 { COLLECT_EVERY } else { self.every }
    }

    /// Whether a mode is in the set.
    #[inline]
    #[must_use]
    pub const fn contains(self, mode: StressMode) -> bool {
        self.bits & 1 << mode as u32 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// The modes, in order.
    pub fn iter(self) -> impl Iterator<Item = StressMode> {
        StressMode::ALL.iter().copied().filter(move |&mode| self.contains(mode))
    }

    /// Whether allocation buffers hold one object.
    #[must_use]
    pub fn have_one_object_buffers(self) -> bool {
        [OneObjectBuffers, CollectAllocations, CollectSafepoints, CollectSites]
            .iter()
            .any(|&mode| self.contains(mode))
    }

    /// Checks that the modes go together, and can be had on this system.
    pub(crate) fn check(self) -> Result<(), HeapError> {
        let bad = |reason| Err(HeapError::BadOption { option: "stress", reason });
        for (one, other) in EXCLUSIVE {
            if self.contains(one) && self.contains(other) {
                return bad(format!("{one} and {other} exclude each other"));
            }
        }
        if self.contains(CollectSites) && !crate::sys::call_site::is_known() {
            return bad(format!("{CollectSites} needs glibc"));
        }
        Ok(())
    }
}

impl FromStr for StressModes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut modes = Self::default();
        for name in text.split(',') {
            match name.split_once(':') {
                Some((name, number)) if name == CollectAllocations.name() => {
                    let every = number.parse().ok().filter(|&every| every > 0);
                    modes = modes.with_collect_every(
                        every.ok_or_else(|| format!("'{number}' is no number of allocations"))?,
                    );
                }
                _ => modes.bits |= Self::of(&[name.parse()?]).bits,
            }
        }
        Ok(modes)
    }
}

impl fmt::Display for StressModes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, mode) in self.iter().enumerate() {
            f.write_str(if nth == 0 { "" } else { "," })?;
            f.write_str(mode.name())?;
            if mode == CollectAllocations && self.every != 0 {
                write!(f, ":{}", self.every)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for StressModes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StressModes({self})")
    }
}

impl Serialize for StressModes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How often a stress mode that is on has acted.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StressCount {
    /// The mode.
    pub mode: StressMode,
    /// How often it changed what would have happened.
    pub acted: u64,
}

/// The stress modes of a heap, and what they have done.
#[derive(Debug, Default)]
pub struct Stress {
    modes: StressModes,
    acted: [AtomicU64; StressMode::ALL.len()],
    allocations: AtomicU64,
    sites: Mutex<HashSet<u64>>,
}

impl Stress {
    /// Modes that have not acted yet.
    #[must_use]
    pub fn new(modes: StressModes) -> Self {
        Self { modes, ..Self::default() }
    }

    /// The modes that are on.
    #[must_use]
    pub const fn modes(&self) -> StressModes {
        self.modes
    }

    /// Whether a mode is on. If so, it counts as acting.
    #[inline]
    pub fn acts(&self, mode: StressMode) -> bool {
        let is_on = self.modes.contains(mode);
        if is_on {
            self.add(mode, 1);
        }
        is_on
    }

    /// Whether a mode is on.
    #[inline]
    #[must_use]
    pub const fn is_on(&self, mode: StressMode) -> bool {
        self.modes.contains(mode)
    }

    /// Counts: a mode that is on acted so many times.
    pub fn add(&self, mode: StressMode, times: u64) {
        self.acted[mode as usize].fetch_add(times, Ordering::Relaxed);
    }

    /// Every other time: whether a mode is on and acts now.
    pub fn acts_by_turns(&self, mode: StressMode, turn: &AtomicU64) -> bool {
        self.is_on(mode) && turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) && self.acts(mode)
    }

    /// How often each mode that is on has acted.
    #[must_use]
    pub fn entries(&self) -> Vec<StressCount> {
        let acted = |mode: StressMode| self.acted[mode as usize].load(Ordering::Relaxed);
        self.modes.iter().map(|mode| StressCount { mode, acted: acted(mode) }).collect()
    }

    /// An allocation on the slow path: what it has to do first.
    pub(crate) fn at_allocation(&self) -> AtAllocation {
        if self.modes.is_empty() {
            return AtAllocation::GoOn;
        }
        if self.is_on(CollectAllocations) {
            let nth = self.allocations.fetch_add(1, Ordering::Relaxed) + 1;
            if nth.is_multiple_of(self.modes.collect_every().into()) && self.acts(CollectAllocations) {
                return AtAllocation::AskForCycle;
            }
        }
        let new_site = || {
            let site = crate::sys::call_site::call_site();
            self.sites.lock().unwrap_or_else(PoisonError::into_inner).insert(site)
        };
        let waits =
            self.acts(CollectSafepoints) || self.is_on(CollectSites) && new_site() && self.acts(CollectSites);
        if waits { AtAllocation::WaitForCycle } else { AtAllocation::GoOn }
    }
}

/// What an allocation on the slow path has to do first.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) enum AtAllocation {
    /// Nothing.
    GoOn,
    /// Ask for a cycle.
    AskForCycle,
    /// Wait for a whole cycle.
    WaitForCycle,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_read_and_written_by_its_name() {
        let all: Vec<_> = StressMode::ALL.iter().map(|mode| mode.name()).collect();
        assert!(all.len() >= 16);
        let modes: StressModes = all.join(",").parse().unwrap();
        assert!(StressMode::ALL.iter().all(|&mode| modes.contains(mode)));
        assert_eq!(modes.to_string(), all.join(","));
        for bad in ["", "yields,", "yields:3", "collect-allocations:0", "collect-allocations:x"] {
            assert!(bad.parse::<StressModes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_that_contradict_each_other_are_refused() {
        for (one, other) in EXCLUSIVE {
            assert!(StressModes::of(&[one, other]).check().is_err(), "{one}, {other}");
            assert!(StressModes::of(&[one]).check().is_ok() && StressModes::of(&[other]).check().is_ok());
        }
    }

    #[test]
    fn a_mode_counts_how_often_it_acted() {
        let stress = Stress::new(StressModes::of(&[StressMode::Yields]).with_collect_every(3));
        let turn = AtomicU64::new(0);
        let asked = (0..9).filter(|_| stress.at_allocation() == AtAllocation::AskForCycle).count();
        let by_turns = (0..9).filter(|_| stress.acts_by_turns(StressMode::Yields, &turn)).count();
        assert!(!stress.acts(Overtake));
        assert_eq!((asked, by_turns), (3, 5));
        let count = |mode, acted| StressCount { mode, acted };
        assert_eq!(stress.entries(), [count(CollectAllocations, 3), count(StressMode::Yields, 5)]);
        assert_eq!(Stress::default().at_allocation(), AtAllocation::GoOn);
    }

    #[test]
    fn a_call_site_is_new_once() {
        let stress = Stress::new(StressModes::of(&[CollectSites]));
        let new = |stress: &Stress| stress.at_allocation() == AtAllocation::WaitForCycle;
        let twice: Vec<_> = (0..2).map(|_| new(&stress)).collect();
        assert_eq!(twice, [true, false]);
        assert!(new(&stress), "another place");
    }

    #[test]
    fn poison_is_neither_reference_nor_header() {
        assert!(crate::layout::Header::from_bits(POISON).checked_layout().is_none());
        assert!(POISON.is_multiple_of(8) && POISON >> 47 != 0 && POISON >> 47 != (1 << 17) - 1);
    }
}
