//! What can be chosen when a heap is created.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::HeapError;
use crate::geometry::{MAX_WINDOWS, REGION_BYTES, WINDOW_BYTES};
pub use crate::stress::{StressMode, StressModes};
use crate::sys::observed::PageObserver;

/// Smallest heap limit: a few regions for each role.
pub const MIN_LIMIT_BYTES: usize = 8 * REGION_BYTES;
/// Largest heap limit: allocation, allocation while marking, and destinations need windows each.
pub const MAX_LIMIT_BYTES: usize = (MAX_WINDOWS / 5 * 2) * WINDOW_BYTES;

macro_rules! named_enum {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$vdoc:meta])* $variant:ident = $text:literal $(or $alias:literal)*,)+
    }) => {
        $(#[$doc])*
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// All values, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The value's name on command lines and in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.name()) }
        }
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text $(| $alias)* => Ok(Self::$variant),)+
                    _ => {
                        let names: Vec<_> = Self::ALL.iter().map(|value| value.name()).collect();
                        Err(format!("'{text}' is none of {}", names.join(", ")))
                    }
                }
            }
        }
    };
}
pub(crate) use named_enum;

named_enum! {
    /// How the collector works. All modes give a program identical results.
    Mode {
        /// Never collects; running out of memory is final.
        NoGc = "no-gc",
        /// The same plan and the same page building, all in the pause. Needs nothing of the kernel.
        StopTheWorld = "stop-the-world",
        /// Compacts while mutators run; pages are installed by `UFFDIO_COPY`.
        ConcurrentCopy = "concurrent-copy",
        /// Compacts while mutators run; long runs and whole regions are installed by `UFFDIO_MOVE`.
        ConcurrentMove = "concurrent-move",
    }
}

impl Mode {
    /// Whether compaction runs beside the mutators.
    #[must_use]
    pub const fn is_concurrent(self) -> bool {
        matches!(self, Self::ConcurrentCopy | Self::ConcurrentMove)
    }
}

named_enum! {
    /// How a mutator's fault on a missing page reaches the code that serves it.
    Delivery {
        /// A reader thread takes fault events and hands them to a worker pool. Needs no signals.
        Pool = "pool",
        /// `UFFD_FEATURE_SIGBUS`: the faulting mutator builds and installs its own page.
        InPlace = "inplace",
    }
}

named_enum! {
    /// How much the verifier checks at each phase edge (after marking, plan, flip and compaction). Each level
    /// includes those before it. On command lines also by number; `off` is none of them.
    VerifyLevel {
        /// Nothing.
        Off = "off",
        /// 0: every object, live or dead, has a header, and objects fill each region exactly.
        Headers = "headers" or "0",
        /// 1: region records and counts agree, allocation buffers are zero and their mutators' own, the plan places
        /// every survivor once, in order, and counts who reads it.
        Spaces = "spaces" or "1" or "cheap",
        /// 2: root slots hold objects of this heap, and after the flip none that moved.
        Roots = "roots" or "2",
        /// 3: every object reachable from the roots: header, place, mark; each slot that has to be rewritten is known.
        Reachable = "reachable" or "3",
        /// 4: the live map agrees with an independent second marking, word by word, and so do live bytes.
        LiveMap = "live-map" or "4",
        /// 5: after compaction each live object equals a copy taken before the flip, references mapped.
        Shadow = "shadow" or "5",
    }
}

/// Answers of the kernel that are forced on the collector, to test it: see [`crate::sys::forced`].
///
/// As text: `seed:per-mille`, `seed:per-mille:moves`, or `seed:per-mille:moves:registrations`.
///
/// ```
/// use strikeslip_gc::options::ForcedAnswers;
/// let forced: ForcedAnswers = "7:50".parse().unwrap();
/// assert_eq!(forced, ForcedAnswers { seed: 7, per_mille: 50, ..ForcedAnswers::default() });
/// assert!("7:1001".parse::<ForcedAnswers>().is_err());
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct ForcedAnswers {
    /// Of all that is random about them.
    pub seed: u64,
    /// How many of 1000 requests to install pages get a forced answer: at most 900, so that none is refused
    /// for ever.
    pub per_mille: u16,
    /// After so many MOVEs all further ones are refused (by `EINVAL` if the seed is even, else by `ENOENT`), which
    /// turns moving off.
    pub refuse_moves_after: Option<u64>,
    /// How many of 1000 registrations before a flip are refused: such a cycle ends without one.
    pub refuse_registrations: u16,
}

impl FromStr for ForcedAnswers {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("'{text}' is no number"));
        let parts = text.split(':').map(number).collect::<Result<Vec<_>, _>>()?;
        let (seed, per_mille, refuse_moves_after, registrations) = match *parts {
            [seed, per_mille] => (seed, per_mille, None, 0),
            [seed, per_mille, moves] => (seed, per_mille, Some(moves), 0),
            [seed, per_mille, moves, registrations] => (seed, per_mille, Some(moves), registrations),
            _ => return Err(format!("'{text}' is not seed:per-mille, with :moves or :moves:registrations")),
        };
        let share = |share: u64, most: u16| match u16::try_from(share) {
            Ok(share) if share <= most => Ok(share),
            _ => Err(format!("{share} of 1000 is not between 0 and {most}")),
        };
        let (per_mille, refuse_registrations) = (share(per_mille, 900)?, share(registrations, 1000)?);
        Ok(Self { seed, per_mille, refuse_moves_after, refuse_registrations })
    }
}

/// What makes a heap's life harder than it is, for tests. The default is nothing.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct StressOptions {
    /// Answers of the kernel to force.
    pub forced_answers: Option<ForcedAnswers>,
    /// Stress modes: see [`crate::stress`].
    pub modes: StressModes,
}

/// Options of a heap. The default is a concurrent heap of 256 MiB that falls back to
/// [`Mode::StopTheWorld`] where userfaultfd is denied.
#[derive(Clone, Debug)]
pub struct HeapOptions {
    /// Most bytes of memory for objects, whole regions counted. Rounded up to regions.
    pub limit_bytes: usize,
    /// The mode to use, if the system offers it.
    pub mode: Mode,
    /// Whether another mode may be chosen where `mode` is not available.
    pub fall_back: bool,
    /// The delivery to use. `None`: the one that was measured to be faster ([`Delivery::InPlace`]).
    pub delivery: Option<Delivery>,
    /// Threads that build pages after the flip. 0: one less than there are processors, at least one: a
    /// mutator that resumes should find a processor free.
    pub workers: usize,
    /// Threads that mark. 0: as many as processors, at most 4.
    pub mark_workers: usize,
    /// Whether to ask for huge pages for regions (kept by moving whole regions).
    pub huge_pages: bool,
    /// Bytes of a mutator's allocation buffer.
    pub buffer_bytes: usize,
    /// Regions of which at most this share is live are worth evacuating (0 to 1).
    pub evacuate_below: f64,
    /// Most recorded slots that are patched in the pause rather than by taking their regions.
    pub patch_budget: usize,
    /// Hold memory that is free, up to the limit, until mutators use it again or the heap has nothing to do for some
    /// seconds; and give none back while pages are served. If false, free memory goes back to the system in each cycle, so
    /// that little more is held than was in use when it began. That costs: the system has to clear memory that it gives
    /// again, and giving back takes the kernel's `mmap_lock` (`madvise`), so that whoever serves waits for threads of the
    /// program that hold it.
    pub hold_memory: bool,
    /// What the verifier checks.
    pub verify: VerifyLevel,
    /// Start a cycle by itself when the heap fills up. If false, only explicit requests do.
    pub automatic: bool,
    /// Name a mutator that has not reached a safepoint after this many milliseconds.
    pub watchdog_ms: u64,
    /// Whether most cycles are young: they look only at objects born since the last one.
    pub young_cycles: bool,
    /// Whether marking threads lower their own scheduling weight.
    pub low_weight_marking: bool,
    /// For tests.
    pub stress: StressOptions,
    /// Is told of every page operation: for experiments, to time them or to hold them up.
    pub observer: Option<Arc<dyn PageObserver>>,
}

impl Default for HeapOptions {
    fn default() -> Self {
        Self {
            limit_bytes: 256 << 20,
            mode: Mode::ConcurrentMove,
            fall_back: true,
            delivery: None,
            workers: 0,
            mark_workers: 0,
            huge_pages: true,
            buffer_bytes: 32 << 10,
            evacuate_below: 0.75,
            patch_budget: 256,
            hold_memory: true,
            verify: VerifyLevel::Off,
            automatic: true,
            watchdog_ms: 1_000,
            young_cycles: true,
            low_weight_marking: true,
            stress: StressOptions::default(),
            observer: None,
        }
    }
}

impl HeapOptions {
    /// Checks the values, and replaces "choose for me" by numbers.
    ///
    /// # Errors
    /// [`HeapError::BadOption`] names the first option that cannot work.
    pub fn resolved(mut self) -> Result<Self, HeapError> {
        let bad = |option, reason| Err(HeapError::BadOption { option, reason });
        if self.limit_bytes < MIN_LIMIT_BYTES || self.limit_bytes > MAX_LIMIT_BYTES {
            let (least, most) = (MIN_LIMIT_BYTES >> 20, MAX_LIMIT_BYTES >> 20);
            return bad(
                "heap limit",
                format!("{} bytes is not between {least} MiB and {most} MiB", self.limit_bytes),
            );
        }
        if !self.buffer_bytes.is_power_of_two() || !(1 << 10..=256 << 10).contains(&self.buffer_bytes) {
            return bad(
                "buffer bytes",
                format!("{} is not a power of two between 1024 and 262144", self.buffer_bytes),
            );
        }
        if !(0.0..=1.0).contains(&self.evacuate_below) {
            return bad("evacuate below", format!("{} is not between 0 and 1", self.evacuate_below));
        }
        if self.workers > 256 || self.mark_workers > 256 {
            return bad("workers", "more than 256 threads".to_owned());
        }
        if self.stress.forced_answers.is_some_and(|forced| forced.per_mille > 900) {
            return bad("forced answers", "more than 900 of 1000".to_owned());
        }
        self.stress.modes.check()?;
        self.limit_bytes = self.limit_bytes.next_multiple_of(REGION_BYTES);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        if self.workers == 0 {
            self.workers = (processors - 1).max(1);
        }
        if self.mark_workers == 0 {
            self.mark_workers = processors.min(4);
        }
        Ok(self)
    }
}
