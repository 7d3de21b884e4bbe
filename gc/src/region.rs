//! What is known of each region: side tables of one byte for what is asked often, a record for the
//! rest.
//!
//! - *use*: what the region's memory is for; changed by whoever hands regions out and takes them
//!   back, under the free-region lock.
//! - *class*: how marking and the barrier treat references into it; changed by the controller
//!   between handshakes, and for regions handed out meanwhile under the free-region lock.
//! - *verdict*: what the plan does with it; written by the plan before the flip, cleared by reclaim.
//! - *service*: how a missing page of it is served; written before the flip's end, cleared by reclaim.
//!
//! Relaxed accesses suffice for the byte tables: each change is ordered before its readers' next
//! step by a handshake, the pause or the free-region lock.

use crate::address::RegionIndex;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

macro_rules! byte_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Copy, Clone, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $value,)+ }

        impl $name {
            /// The one that is stored as `byte`.
            #[inline]
            pub(crate) const fn from_byte(byte: u8) -> Self {
                match byte {
                    $($value => Self::$variant,)+
                    _ => unreachable!(),
                }
            }
        }
    };
}

pub(crate) use byte_enum;

byte_enum! {
    /// What a region's memory is used for.
    Use {
        /// Nothing: it can be handed out.
        Free = 0,
        /// Small and medium objects.
        Objects = 1,
        /// Objects that never move.
        Pinned = 2,
        /// The first region of a large object.
        LargeHead = 3,
        /// A further region of a large object.
        LargeTail = 4,
        /// Pages of root slots.
        Roots = 5,
        /// Destination of an evacuation that is not complete yet.
        Destination = 6,
        /// Memory in which workers build pages before they are installed.
        Staging = 7,
    }
}

impl Use {
    /// Whether the region counts against the heap's limit.
    #[must_use]
    pub const fn counts_as_used(self) -> bool {
        matches!(self, Self::Objects | Self::Pinned | Self::LargeHead | Self::LargeTail)
    }
}

byte_enum! {
    /// How marking and the barrier treat references into a region. In the order of age, which
    /// [`is_remembered`](crate::remembered::is_remembered) rests on.
    Class {
        /// No objects.
        Free = 0,
        /// Filled since the last flip: a candidate of the next cycle.
        New = 1,
        /// Filled while marking: its objects are born marked.
        Fresh = 2,
        /// May be evacuated by this cycle: slots that point into it are recorded. In a young cycle, everything
        /// young.
        Candidate = 3,
        /// Marked by this cycle, and not a candidate.
        Traced = 4,
        /// Not looked at by this cycle: its objects count as live.
        Settled = 5,
    }
}

byte_enum! {
    /// What the plan does with a region (design section 5).
    Verdict {
        /// Not touched.
        Stay = 0,
        /// Survivors get new addresses.
        Evacuate = 1,
        /// Stays; its recorded slots are rewritten.
        Patch = 2,
        /// Stays; rewritten by walking its objects, because not all its slots were recorded.
        Scan = 3,
        /// Nothing in it is live.
        Free = 4,
    }
}

byte_enum! {
    /// How a missing page of a region is served.
    Service {
        /// Nobody ever wrote it: zeros.
        Zero = 0,
        /// Built from the regions that were evacuated into it.
        Build = 1,
        /// Returned from the alias after its slots were rewritten.
        Return = 2,
    }
}

/// What is kept for each region besides the byte tables.
#[derive(Debug, Default)]
pub struct RegionRecord {
    /// Bytes from the region's beginning that were handed out. Allocation adds to it.
    pub top: AtomicU32,
    /// Bytes found live by the last marking, or put there by evacuation.
    pub live_bytes: AtomicU32,
    /// What `live_bytes` was when this full cycle began; 0 where objects were young.
    pub was_live: AtomicU32,
    /// Slots of this region recorded in this cycle (approximate: relaxed read-modify-write).
    pub slots: AtomicU32,
    /// Not all slots of this region were recorded.
    pub slots_overflowed: AtomicBool,
    /// Slots recorded in this cycle that point into this region (approximate).
    pub incoming: AtomicU32,
    /// Slots of this region that were put into the remembered set since the last cycle began (approximate).
    pub remembered: AtomicU32,
    /// Not all of them were put there: the next young cycle walks the region.
    pub remembered_overflowed: AtomicBool,
    /// Marking has seen it: the live map tells its objects. If not, all its objects count as live, and lie one
    /// behind the other.
    pub is_mapped: AtomicBool,
    /// How many times objects here were pinned.
    pub pins: AtomicU32,
    /// Of a large object's regions: it was allocated as pinned.
    pub large_pinned: AtomicBool,
    /// Its memory may hold old contents: clear it before use.
    pub dirty: AtomicBool,
    /// Pages that the system has given memory for (see `account`).
    pub pages: AtomicU32,
    /// What they are held for ([`crate::account::Holding`]).
    pub holding: AtomicU8,
    /// The plan is to take it at the flip.
    pub to_be_taken: AtomicBool,
    /// It was taken at the flip: the collector reads it in its alias.
    pub taken: AtomicBool,
    /// Destination units that are not installed yet and read from this (evacuated) region.
    pub readers: AtomicU32,
    /// Units of this region that are not installed yet.
    pub missing_units: AtomicU32,
    /// log2 of the pages in a unit of claim.
    pub unit_shift: AtomicU8,
    /// Of an evacuated region: the next one in evacuation order (`u32::MAX`: none).
    pub next_evacuated: AtomicU32,
    /// Of a destination: the chunk whose objects are the first to go to the next one (`u32::MAX`: none).
    pub sources_end: AtomicU32,
    /// Of a large object's regions: the region it begins in.
    pub head: AtomicU32,
    /// Of a large object's first region: the object's header.
    pub large_header: AtomicU64,
    /// Of a large object's first region: number of regions.
    pub large_regions: AtomicU32,
    /// Beginning of the region's slots in the plan's sorted list.
    pub slots_begin: AtomicU32,
    /// End of the region's slots in the plan's sorted list.
    pub slots_end: AtomicU32,
}

/// All regions of a heap.
#[derive(Debug)]
pub struct Regions {
    uses: Box<[AtomicU8]>,
    classes: Box<[AtomicU8]>,
    verdicts: Box<[AtomicU8]>,
    services: Box<[AtomicU8]>,
    records: Box<[RegionRecord]>,
}

fn bytes(count: usize) -> Box<[AtomicU8]> {
    (0..count).map(|_| AtomicU8::new(0)).collect()
}

impl Regions {
    /// Tables for `count` free regions.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            uses: bytes(count),
            classes: bytes(count),
            verdicts: bytes(count),
            services: bytes(count),
            records: (0..count).map(|_| RegionRecord::default()).collect(),
        }
    }

    /// What the region is used for.
    #[inline]
    #[must_use]
    pub fn usage(&self, region: RegionIndex) -> Use {
        Use::from_byte(self.uses[region.index()].load(Ordering::Relaxed))
    }

    /// Sets what the region is used for.
    pub fn set_usage(&self, region: RegionIndex, usage: Use) {
        self.uses[region.index()].store(usage as u8, Ordering::Relaxed);
    }

    /// The region's class.
    #[inline]
    #[must_use]
    pub fn class(&self, region: RegionIndex) -> Class {
        Class::from_byte(self.classes[region.index()].load(Ordering::Relaxed))
    }

    /// Sets the region's class.
    pub fn set_class(&self, region: RegionIndex, class: Class) {
        self.classes[region.index()].store(class as u8, Ordering::Relaxed);
    }

    /// Number of the region's class: cheaper to compare than the class itself.
    #[inline]
    #[must_use]
    pub fn age(&self, region: RegionIndex) -> u8 {
        self.classes[region.index()].load(Ordering::Relaxed)
    }

    /// The table of ages, as long as the heap has regions.
    #[must_use]
    pub const fn ages(&self) -> *const AtomicU8 {
        self.classes.as_ptr()
    }

    /// The region's verdict.
    #[inline]
    #[must_use]
    pub fn verdict(&self, region: RegionIndex) -> Verdict {
        Verdict::from_byte(self.verdicts[region.index()].load(Ordering::Relaxed))
    }

    /// Whether the region's verdict is [`Verdict::Evacuate`]: forwarding asks it of each reference.
    #[inline]
    #[must_use]
    pub fn is_evacuated(&self, region: RegionIndex) -> bool {
        self.verdicts[region.index()].load(Ordering::Relaxed) == Verdict::Evacuate as u8
    }

    /// Sets the region's verdict.
    pub fn set_verdict(&self, region: RegionIndex, verdict: Verdict) {
        self.verdicts[region.index()].store(verdict as u8, Ordering::Relaxed);
    }

    /// How a missing page of the region is served.
    #[inline]
    #[must_use]
    pub fn service(&self, region: RegionIndex) -> Service {
        Service::from_byte(self.services[region.index()].load(Ordering::Relaxed))
    }

    /// Sets how a missing page of the region is served.
    pub fn set_service(&self, region: RegionIndex, service: Service) {
        self.services[region.index()].store(service as u8, Ordering::Relaxed);
    }

    /// Whether something in the region must stay where it is, and be there all the time.
    #[must_use]
    pub fn is_pinned(&self, region: RegionIndex) -> bool {
        let record = self.record(region);
        self.usage(region) == Use::Pinned
            || record.pins.load(Ordering::Relaxed) > 0
            || record.large_pinned.load(Ordering::Relaxed)
    }

    /// The region's record.
    #[inline]
    #[must_use]
    pub fn record(&self, region: RegionIndex) -> &RegionRecord {
        &self.records[region.index()]
    }

    /// All regions that are in use (not [`Use::Free`]), in address order.
    pub fn in_use(&self) -> impl Iterator<Item = RegionIndex> + '_ {
        (0..self.uses.len() as u32).map(RegionIndex).filter(|&region| self.usage(region) != Use::Free)
    }
}
