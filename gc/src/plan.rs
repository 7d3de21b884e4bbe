//! The plan: verdicts, where each survivor goes, what is rewritten in the pause and what is taken.
//!
//! Run by the controller while mutators run, after marking. Takes [`Marked`], gives [`Plan`].
//!
//! Survivors keep their address order. They are placed in *groups*: the objects that begin in one
//! chunk stay together, so that one offset for each chunk tells where they went. A group never
//! crosses the end of a destination region.
//!
//! Invariants:
//! 1. After the plan, verdict `Evacuate` of a region, its part of the live map, and the tables
//!    `chunk_destination` (its chunks) and `page_source` (destination pages) are complete. They do not
//!    change until reclaim, even when the region's memory is used for something else before.
//! 2. Destination regions are empty and nobody has an address in them.
//! 3. Each slot that holds a reference into an evacuated region lies in an evacuated region, in a
//!    region with verdict `Scan`, in a region that overflowed since, in a root page, in
//!    `Plan::slots`, or in a mutator's slot buffer.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::account::Holding;
use crate::address::{ChunkIndex, PageIndex, RegionIndex, WordIndex};
use crate::barrier::Recorded;
use crate::core::Core;
use crate::geometry::{
    CHUNK_SHIFT, PAGE_SHIFT, REGION_BYTES, REGION_CHUNKS, REGION_WORDS, WORD_BYTES, WORD_SHIFT,
};
use crate::livemap::LiveMap;
use crate::mark::Marked;
use crate::options::Mode;
use crate::region::{Class, Service, Use, Verdict};
use crate::space::{Contents, Role, Space};
use crate::stress::StressMode;

/// Nanoseconds it costs to copy a byte of survivors (about 4 GB/s with reference rewriting).
const COPY_NS_PER_BYTE: f64 = 0.25;
/// Nanoseconds it costs to rewrite one recorded slot.
const SLOT_NS: f64 = 100.0;
/// Nanoseconds it costs to take a region and give it back.
const TAKE_NS: f64 = 60_000.0;
/// Nanoseconds that a reclaimed region is worth in an empty heap: what allocating it afresh would
/// cost. It is worth up to four times as much in a full one.
const RECLAIMED_REGION_NS: f64 = 400_000.0;

/// How hard memory is needed: a plan under pressure evacuates whatever frees anything.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pressure {
    /// Evacuate what is worth it.
    Normal,
    /// A mutator waits for memory.
    High,
    /// Evacuate everything that can be (tests, and measurements of a full evacuation).
    Everything,
}

/// What a cycle will do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Regions to be evacuated, in address order.
    pub evacuated: Vec<RegionIndex>,
    /// Regions their survivors go to, in order of filling.
    pub destinations: Vec<RegionIndex>,
    /// Recorded slots of regions that stay, sorted; each region's record says which are its own.
    pub slots: Vec<WordIndex>,
    /// Regions that stay and have verdict `Patch` or `Scan`.
    pub rewritten: Vec<RegionIndex>,
    /// Regions found free (already given back).
    pub free: usize,
    /// Bytes of survivors.
    pub survivor_bytes: u64,
    /// Bytes found live, or not looked at.
    pub live_bytes: u64,
}

impl Plan {
    /// Whether there is anything to flip.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.evacuated.is_empty()
    }

    /// Units of claim in all destinations and what they read from is counted when placing; this is
    /// log2 of the pages of a destination's unit.
    #[must_use]
    pub fn unit_shift(core: &Core) -> u8 {
        // In stop-the-world mode a task builds a whole destination, and is one reader of its sources.
        let in_pause = core.options.mode == Mode::StopTheWorld;
        if !in_pause && core.stress().acts(StressMode::PageUnits) {
            return 0;
        }
        let whole = in_pause || core.options.huge_pages && core.serving.installer.moves();
        if whole { (REGION_BYTES.trailing_zeros() - PAGE_SHIFT) as u8 } else { 6 }
    }
}

/// Makes the plan, and gives back the regions in which nothing is live.
pub fn concurrent_plan(core: &Core, marked: Marked, pressure: Pressure) -> Plan {
    let mut plan = Plan { live_bytes: marked.live_bytes, ..Plan::default() };
    let (free, candidates) = judge(core, pressure);
    plan.free = free.len();
    plan.live_bytes += bytes_not_traced(core);
    plan.evacuated = worth_evacuating(core, candidates, pressure);
    let mut slots = marked.slots;
    drain_slots(core, &mut slots);
    core.remembered.forget_dead(core);
    // Only now: until here a dead region's slots could not be told from those of its next use.
    slots.retain(|slot| core.space.regions.verdict(slot.region()) != Verdict::Free);
    for region in free {
        for part in core.space.object_regions(region) {
            core.space.free_region(part);
        }
    }
    place(core, &mut plan);
    if !plan.is_empty() {
        core.handshake(&|context| context.hand_over_records());
        drain_slots(core, &mut slots);
        assign_slots(core, &mut plan, slots);
    }
    plan
}

/// Bytes that count as live because a young cycle does not look at them.
fn bytes_not_traced(core: &Core) -> u64 {
    let regions = &core.space.regions;
    let old = regions.in_use().filter(|&region| regions.class(region) == Class::Settled);
    old.map(|region| u64::from(regions.record(region).live_bytes.load(Ordering::Relaxed))).sum()
}

/// First verdicts: regions with nothing live, and candidates that could be evacuated.
fn judge(core: &Core, pressure: Pressure) -> (Vec<RegionIndex>, Vec<RegionIndex>) {
    let regions = &core.space.regions;
    let most_live = match pressure {
        Pressure::Normal => core.options.evacuate_below * REGION_BYTES as f64,
        Pressure::High => 0.97 * REGION_BYTES as f64,
        Pressure::Everything => REGION_BYTES as f64,
    };
    let (mut free, mut candidates) = (vec![], vec![]);
    for region in regions.in_use() {
        let usage = regions.usage(region);
        let record = regions.record(region);
        if !matches!(usage, Use::Objects | Use::Pinned | Use::LargeHead)
            || matches!(regions.class(region), Class::Fresh | Class::Settled)
        {
            continue;
        }
        let live = record.live_bytes.load(Ordering::Relaxed);
        let pinned = record.pins.load(Ordering::Relaxed) > 0;
        if live == 0 && !pinned {
            free.push(region);
            for part in core.space.object_regions(region) {
                regions.set_verdict(part, Verdict::Free);
            }
        } else if regions.class(region) == Class::Candidate
            && usage == Use::Objects
            && !pinned
            && f64::from(live) <= most_live
        {
            candidates.push(region);
        }
    }
    (free, candidates)
}

/// Which candidates are worth evacuating: what a region frees against what it costs to copy its
/// survivors and to rewrite the slots that point to them; and whether all of it together is worth
/// taking regions from the mutators.
fn worth_evacuating(core: &Core, mut candidates: Vec<RegionIndex>, pressure: Pressure) -> Vec<RegionIndex> {
    if core.stress().acts(StressMode::EvacuateNothing) {
        return vec![];
    }
    if pressure == Pressure::Everything {
        return candidates;
    }
    let regions = &core.space.regions;
    let occupancy = core.space.used() as f64 / core.space.limit() as f64;
    let region_value = RECLAIMED_REGION_NS * (1.0 + 3.0 * occupancy * occupancy);
    let gain_and_cost = |region: RegionIndex| {
        let record = regions.record(region);
        let live = f64::from(record.live_bytes.load(Ordering::Relaxed));
        let incoming = f64::from(record.incoming.load(Ordering::Relaxed));
        let gain = (1.0 - live / REGION_BYTES as f64) * region_value;
        (gain, live * COPY_NS_PER_BYTE + incoming.min(4096.0) * SLOT_NS * 0.1)
    };
    if pressure == Pressure::Normal {
        candidates.retain(|&region| {
            let (gain, cost) = gain_and_cost(region);
            gain >= cost
        });
        let gain: f64 = candidates.iter().map(|&region| gain_and_cost(region).0).sum();
        let holders = regions
            .in_use()
            .filter(|&region| regions.record(region).slots.load(Ordering::Relaxed) > 0)
            .filter(|region| candidates.binary_search(region).is_err())
            .count();
        if gain < holders as f64 * TAKE_NS && gain < core.space.limit() as f64 * region_value / 50.0 {
            return vec![];
        }
    }
    candidates
}

fn drain_slots(core: &Core, slots: &mut Vec<WordIndex>) {
    while let Some(buffer) = core.barrier.take(Recorded::Slots) {
        core.stats.counters.recorded_slots.fetch_add(buffer.entries().len() as u64, Ordering::Relaxed);
        slots.extend_from_slice(buffer.entries());
        core.barrier.give_back(buffer);
    }
}

/// Where the next group goes.
struct Cursor<'a> {
    core: &'a Core,
    plan: &'a mut Plan,
    unit_shift: u8,
    /// Next word, and the end of the current destination region.
    next: WordIndex,
    end: WordIndex,
    /// Destinations that were opened: those before `plan.destinations[opened]`.
    opened: usize,
    /// Page up to which `page_source` is set in the current destination.
    next_page: PageIndex,
    /// The last unit counted as a reader of the current source region.
    last_unit: Option<u32>,
}

/// Assigns new addresses to the survivors of `plan.evacuated`.
fn place(core: &Core, plan: &mut Plan) {
    let evacuated = std::mem::take(&mut plan.evacuated);
    let nowhere = WordIndex(0);
    let unit_shift = Plan::unit_shift(core);
    let mut cursor = Cursor {
        core,
        plan,
        unit_shift,
        next: nowhere,
        end: nowhere,
        opened: 0,
        next_page: PageIndex(0),
        last_unit: None,
    };
    let mut placed: Option<RegionIndex> = None;
    for region in evacuated {
        let record = core.space.regions.record(region);
        record.readers.store(0, Ordering::Relaxed);
        record.next_evacuated.store(u32::MAX, Ordering::Relaxed);
        if !cursor.has_room_for(region) {
            // No destination is left: the rest stays, and is judged again next time.
            break;
        }
        if let Some(previous) = placed {
            core.space.regions.record(previous).next_evacuated.store(region.0, Ordering::Relaxed);
        }
        cursor.place_region(region);
        core.space.regions.set_verdict(region, Verdict::Evacuate);
        core.space.hold(region, Holding::Evacuated);
        cursor.plan.evacuated.push(region);
        placed = Some(region);
    }
    cursor.close_destination();
    let opened = cursor.opened;
    for unused in plan.destinations.drain(opened..) {
        core.space.free_region(unused);
    }
}

impl Cursor<'_> {
    /// A region's survivors fit, if need be, into the current destination and one more.
    fn has_room_for(&mut self, region: RegionIndex) -> bool {
        let live = self.core.space.regions.record(region).live_bytes.load(Ordering::Relaxed) as usize;
        let unopened = self.plan.destinations.len() - self.opened;
        if unopened > 0 || (self.end.0 - self.next.0) as usize * WORD_BYTES >= live + CHUNK_SLACK_BYTES {
            return true;
        }
        let order = [Role::Old, Role::YoungMarking, Role::Young];
        let empty = self.core.space.allocate_for_collector(Use::Destination, &order, Contents::MustBeEmpty);
        let Some(destination) = empty else {
            return false;
        };
        self.plan.destinations.push(destination);
        true
    }

    fn place_region(&mut self, region: RegionIndex) {
        let live = &self.core.space.live;
        self.last_unit = None;
        let first = region.first_chunk().0;
        let mut group: Option<(ChunkIndex, u32)> = None;
        for chunk in (first..first + REGION_CHUNKS as u32).map(ChunkIndex) {
            let bits = live.chunk(chunk);
            let words = bits.live_words();
            if words == 0 {
                continue;
            }
            let continued = bits.continued_words();
            if let Some((_, group_words)) = &mut group {
                *group_words += continued;
            }
            if bits.starts() != 0 {
                if let Some((begin, group_words)) = group {
                    self.place_group(begin, group_words);
                }
                group = Some((chunk, words - continued));
            }
        }
        if let Some((begin, group_words)) = group {
            self.place_group(begin, group_words);
        }
    }

    /// Places the objects that begin in chunk `begin`, `words` words in all.
    fn place_group(&mut self, begin: ChunkIndex, words: u32) {
        if self.end.0 - self.next.0 < words {
            self.open_next_destination(begin);
        }
        let space = &self.core.space;
        let bits = space.live.chunk(begin);
        // `words_before` counts the words continued from the chunk before, except for the one that
        // `adjustment` makes up for; they belong to an earlier group.
        let counted = bits.continued_words() - LiveMap::adjustment(bits);
        space.chunk_destination[begin.index()].store(self.next.0.wrapping_sub(counted), Ordering::Relaxed);
        let group_end = self.next.offset(words);
        while self.next_page.first_word() < group_end && self.next_page.region() == self.destination() {
            space.page_source[self.next_page.index()].store(begin.0, Ordering::Relaxed);
            self.next_page = PageIndex(self.next_page.0 + 1);
        }
        self.count_reader(begin.region(), group_end);
        self.next = group_end;
        self.plan.survivor_bytes += u64::from(words) * WORD_BYTES as u64;
    }

    /// Counts the destination units that the group `[self.next, end)` touches as readers of `source`.
    fn count_reader(&mut self, source: RegionIndex, end: WordIndex) {
        let unit = |word: WordIndex| word.page().0 >> self.unit_shift;
        let (mut first, last) = (unit(self.next), unit(WordIndex(end.0 - 1)));
        if self.last_unit == Some(first) {
            first += 1;
        }
        if first <= last {
            let readers = &self.core.space.regions.record(source).readers;
            readers.fetch_add(last - first + 1, Ordering::Relaxed);
            self.last_unit = Some(last);
        }
    }

    fn destination(&self) -> RegionIndex {
        self.next.region()
    }

    /// Opens a destination, whose first group begins in chunk `begin`.
    fn open_next_destination(&mut self, begin: ChunkIndex) {
        self.close_destination();
        if let Some(last) = self.opened.checked_sub(1) {
            let record = self.core.space.regions.record(self.plan.destinations[last]);
            record.sources_end.store(begin.0, Ordering::Relaxed);
        }
        let region = self.plan.destinations[self.opened];
        self.opened += 1;
        self.next = region.first_word();
        self.end = WordIndex(self.next.0 + REGION_WORDS as u32);
        self.next_page = region.first_page();
        self.last_unit = None;
        let record = self.core.space.regions.record(region);
        record.unit_shift.store(self.unit_shift, Ordering::Relaxed);
        record.sources_end.store(u32::MAX, Ordering::Relaxed);
        self.core.space.regions.set_service(region, Service::Build);
    }

    /// Notes how far the current destination is filled.
    fn close_destination(&self) {
        let Some(last) = self.opened.checked_sub(1) else { return };
        let region = self.plan.destinations[last];
        let bytes = (self.next.0 - region.first_word().0) << WORD_SHIFT;
        let record = self.core.space.regions.record(region);
        record.top.store(bytes, Ordering::Relaxed);
        record.live_bytes.store(bytes, Ordering::Relaxed);
        let unit_bytes = 1u32 << (u32::from(self.unit_shift) + PAGE_SHIFT);
        record.missing_units.store(bytes.div_ceil(unit_bytes), Ordering::Relaxed);
    }
}

/// A group that does not fit leaves at most this much of a destination empty, besides the group.
const CHUNK_SLACK_BYTES: usize = (1 << CHUNK_SHIFT) + crate::geometry::LARGE_OBJECT_BYTES;

/// Keeps the slots that hold references into evacuated regions, and gives the regions they lie in
/// their verdicts.
fn assign_slots(core: &Core, plan: &mut Plan, mut slots: Vec<WordIndex>) {
    let space = &core.space;
    slots.retain(|&slot| slot_needs_rewriting(space, slot));
    slots.sort_unstable();
    slots.dedup();
    let mut begin = 0;
    while begin < slots.len() {
        let region = slots[begin].region();
        let length = slots[begin..].partition_point(|slot| slot.region() == region);
        let record = space.regions.record(region);
        record.slots_begin.store(begin as u32, Ordering::Relaxed);
        record.slots_end.store((begin + length) as u32, Ordering::Relaxed);
        if space.regions.verdict(region) == Verdict::Stay {
            space.regions.set_verdict(region, Verdict::Patch);
        }
        begin += length;
    }
    // What overflows from here on is found by the flip.
    while core.barrier.take_overflowed().is_some() {}
    for region in space.regions.in_use() {
        let stays = matches!(space.regions.verdict(region), Verdict::Stay | Verdict::Patch);
        if stays && space.regions.record(region).slots_overflowed.load(Ordering::Relaxed) {
            space.regions.set_verdict(region, Verdict::Scan);
            let _ = core.stress().acts(StressMode::OverflowSlots);
        }
        if matches!(space.regions.verdict(region), Verdict::Patch | Verdict::Scan) {
            plan.rewritten.push(region);
        }
    }
    plan.slots = slots;
}

/// Whether a recorded slot still matters: it stays where it is and holds a reference into an
/// evacuated region. Later stores are recorded anew.
pub fn slot_needs_rewriting(space: &Space, slot: WordIndex) -> bool {
    if space.regions.verdict(slot.region()) == Verdict::Evacuate {
        return false;
    }
    // SAFETY: no page is missing before the flip, and the slot lies in a region that is in use.
    let cell = unsafe { &*space.range.address(slot).as_ptr::<AtomicU64>() };
    let value = cell.load(Ordering::Relaxed) as usize;
    value != 0 && space.regions.verdict(space.range.word_at(value).region()) == Verdict::Evacuate
}
