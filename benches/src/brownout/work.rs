//! The mutator of the brown-out benchmark. It makes survivors and the slots that refer to them, then
//! touches everything at random and notes its progress.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use strikeslip::gc::geometry::REGION_BYTES;
use strikeslip::{Mutator, OutOfMemory};
use strikeslip_demos::random::Random;

use super::Kind;
use crate::error::{Error, expect_equal};
use crate::live::{LiveSet, MIN_WORDS, Shape, TABLE, check_leaf};
use crate::timeline::Timeline;

/// Words of a leaf: 64 bytes with its header.
const WORDS: usize = 7;
const COUNTER: usize = MIN_WORDS - 1;
/// Links of each table. So many tables, with their leaves, lie in a region.
const LINKS: usize = 2;
const TABLES_PER_REGION: usize = REGION_BYTES / (TABLE * (WORDS + 1) * 8 + (TABLE + LINKS + 1) * 8);
/// Garbage allocated with each survivor, so that their regions are worth evacuating.
const GARBAGE_PER_SURVIVOR: usize = 7;
/// Operations between two looks at the clock, and the time between two samples.
const BATCH: u64 = 16;
const SAMPLE_NS: u64 = 50_000;
const SAMPLES: usize = 1 << 18;

/// What the driver wants next.
#[derive(Copy, Clone, Debug)]
pub(super) enum Command {
    /// Make new survivors, and slots that refer to them.
    Prepare,
    /// Run until told to stop, then hand the timeline over.
    Run,
}

/// The mutator's task.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub live: u64,
    pub survivors: u64,
    pub kind: Kind,
    pub seed: u64,
    pub epoch: Instant,
    pub stop: &'a AtomicBool,
    pub commands: Receiver<Command>,
    pub answers: SyncSender<Timeline>,
}

/// Serves the driver until it is gone; then checks everything.
pub(super) fn work(m: &mut Mutator, task: &Task<'_>) -> Result<(), Error> {
    let shape = Shape { bytes: task.live, words: WORDS, links: LINKS, first: 0 };
    let live = LiveSet::build(m, shape, |_| Ok(()))?;
    let mut state = State {
        survivors: None,
        shadow: vec![0; live.len()],
        young_shadow: vec![],
        linked: vec![],
        random: Random::new(task.seed, 0),
        operations: 0,
        live,
    };
    while let Ok(command) = m.blocked(|| task.commands.recv()) {
        match command {
            Command::Prepare => state.prepare(m, task)?,
            Command::Run => {
                let timeline = state.run(m, task)?;
                if m.blocked(|| task.answers.send(timeline)).is_err() {
                    break;
                }
            }
        }
    }
    state.check(m)
}

struct State {
    live: LiveSet,
    survivors: Option<LiveSet>,
    /// What the counter of each leaf must be, its low byte.
    shadow: Vec<u8>,
    young_shadow: Vec<u8>,
    /// Which survivor each link refers to, by table and link.
    linked: Vec<((usize, usize), usize)>,
    random: Random,
    operations: u64,
}

impl State {
    fn prepare(&mut self, m: &mut Mutator, task: &Task<'_>) -> Result<(), Error> {
        self.check_links(m)?;
        // The old ones live until the links to them are gone.
        let first = self.live.len();
        let shape = Shape { bytes: task.survivors, words: WORDS, links: 0, first };
        let young = LiveSet::build(m, shape, |m| {
            (0..GARBAGE_PER_SURVIVOR).try_for_each(|_| {
                m.scope(|m, s| {
                    black_box(m.alloc_words(s, WORDS)?);
                    Ok::<_, OutOfMemory>(())
                })
            })
        })?;
        self.young_shadow = vec![0; young.len()];
        self.linked.clear();
        for place in places(task.kind, self.live.tables()) {
            let index = self.random.below(young.len());
            self.live.set_link(m, place.0, place.1, Some(young.leaf(m, index)));
            self.linked.push((place, index));
            m.safepoint();
        }
        self.survivors = Some(young);
        Ok(())
    }

    fn run(&mut self, m: &mut Mutator, task: &Task<'_>) -> Result<Timeline, Error> {
        let mut timeline = Timeline::with_capacity(SAMPLES);
        let mut last = 0;
        while !task.stop.load(Ordering::Relaxed) {
            for _ in 0..BATCH {
                self.operation(m)?;
                m.safepoint();
            }
            self.operations += BATCH;
            let now = u64::try_from(task.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
            if now - last >= SAMPLE_NS {
                timeline.record(now, self.operations);
                last = now;
            }
        }
        Ok(timeline)
    }

    /// Touches one leaf of all: checks it, and counts in it.
    #[inline]
    fn operation(&mut self, m: &Mutator) -> Result<(), Error> {
        let young = self.survivors.as_ref();
        let index = self.random.below(self.live.len() + young.map_or(0, LiveSet::len));
        let (leaf, shadow) = match index.checked_sub(self.live.len()) {
            None => (self.live.leaf(m, index), &mut self.shadow[index]),
            Some(nth) => {
                let young = young.expect("there are survivors");
                (young.leaf(m, nth), &mut self.young_shadow[nth])
            }
        };
        check_leaf(leaf, index)?;
        let count = leaf.get(COUNTER);
        expect_equal("counter of leaf", index, u64::from(*shadow), count & 0xff)?;
        leaf.set(COUNTER, count + 1);
        *shadow = shadow.wrapping_add(1);
        Ok(())
    }

    fn check_links(&self, m: &mut Mutator) -> Result<(), Error> {
        for &((table, link), index) in &self.linked {
            let leaf = self.live.link(m, table, link);
            let leaf = leaf.ok_or_else(|| Error::Wrong(format!("link {link} of table {table} is gone")))?;
            check_leaf(leaf, self.live.len() + index)?;
            m.safepoint();
        }
        Ok(())
    }

    fn check(&self, m: &mut Mutator) -> Result<(), Error> {
        self.check_links(m)?;
        let young = self.survivors.iter().map(|young| (young, &self.young_shadow, self.live.len()));
        for (set, shadow, first) in std::iter::once((&self.live, &self.shadow, 0)).chain(young) {
            set.check(m, first)?;
            for (index, &expected) in shadow.iter().enumerate() {
                let count = set.leaf(m, index).get(COUNTER);
                expect_equal("counter of leaf", first + index, expected.into(), count & 0xff)?;
                m.safepoint();
            }
        }
        Ok(())
    }
}

/// Tables and links that refer to survivors. In the middle of the set, where regions are full.
fn places(kind: Kind, tables: usize) -> Vec<(usize, usize)> {
    let middle = tables / 2;
    let (some_tables, step, links) = match kind {
        Kind::Survivors => (middle..middle, 1, 0),
        Kind::FewSlots => {
            (middle..(middle + 4 * TABLES_PER_REGION).min(tables), TABLES_PER_REGION / 12, LINKS)
        }
        Kind::FewRegions => (middle..(middle + 7 * TABLES_PER_REGION).min(tables), 1, LINKS),
        Kind::AllRegions => (0..tables, 1, LINKS),
    };
    some_tables.step_by(step).flat_map(|table| (0..links).map(move |link| (table, link))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_as_many_slots_as_they_say() {
        let count = |kind| places(kind, 4096).len();
        assert_eq!(count(Kind::Survivors), 0);
        assert!((50..=256).contains(&count(Kind::FewSlots)));
        assert!(count(Kind::FewRegions) > 2000);
        assert_eq!(count(Kind::AllRegions), 4096 * LINKS);
    }
}
