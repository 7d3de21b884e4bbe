//! What mutators do while pauses are measured: allocate what dies at once, keep some of it in chains,
//! read the live set and the roots. Everything read is checked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use strikeslip::{Array, Field, Local, Mutator, OutOfMemory, Scope, Slot, object};
use strikeslip_demos::random::{Random, mix};

use super::roots::Roots;
use crate::error::{Error, expect_equal};
use crate::live::{LiveSet, check_leaf};

object! {
    /// A survivor: refers to the one before it.
    pub(super) struct Survivor {
        previous: Slot<Survivor>,
        number: Field<u64>,
        check: Field<u64>,
    }
}

impl Survivor {
    /// Gives it its number.
    pub(super) fn number_it(&self, number: u64) {
        self.number.set(number);
        self.check.set(mix(number));
    }

    pub(super) fn number(&self) -> u64 {
        self.number.get()
    }

    pub(super) fn check_word(&self) -> u64 {
        self.check.get()
    }
}

/// Chains of survivors: the oldest is dropped when a new one begins.
const CHAINS: usize = 32;
/// Pieces of a chain.
const PIECES: usize = 8;
/// Objects of a piece that die at once, and how many of them come between two survivors.
const PIECE_OBJECTS: usize = 1024;
const GARBAGE_PER_SURVIVOR: usize = 16;
/// Words of an object that dies at once.
const GARBAGE_WORDS: usize = 7;
const PIECE_BYTES: u64 = (PIECE_OBJECTS * (GARBAGE_WORDS + 1) * 8) as u64;
/// Reads between two looks at the clock.
const READS: usize = 64;
/// What a mutator that was held up does not make up for.
const MOST_BEHIND: u64 = 4 << 20;

/// A mutator's task.
#[derive(Debug)]
pub(super) struct Load<'a> {
    pub live: &'a LiveSet,
    pub roots: &'a Roots,
    pub stop: &'a AtomicBool,
    /// Bytes allocated by all mutators.
    pub allocated: &'a AtomicU64,
    /// Bytes a second.
    pub rate: u64,
    pub seed: u64,
}

/// Runs until it is told to stop.
pub(super) fn mutate(m: &mut Mutator, load: &Load<'_>) -> Result<(), Error> {
    let mut random = Random::new(load.seed, 0);
    m.scope(|m, s| {
        let mut chains = Chains::new(m, s)?;
        let begin = Instant::now();
        let mut ahead = 0;
        while !load.stop.load(Ordering::Relaxed) {
            let due = (begin.elapsed().as_nanos() * u128::from(load.rate) / 1_000_000_000) as u64;
            ahead = ahead.max(due.saturating_sub(MOST_BEHIND));
            if ahead < due {
                chains.piece(m, load.roots)?;
                ahead += PIECE_BYTES;
                load.allocated.fetch_add(PIECE_BYTES, Ordering::Relaxed);
            }
            read(m, load, &mut random)?;
        }
        (0..CHAINS).try_for_each(|nth| chains.check(m, nth))
    })
}

fn read(m: &mut Mutator, load: &Load<'_>, random: &mut Random) -> Result<(), Error> {
    for _ in 0..READS {
        let index = random.below(load.live.len());
        check_leaf(load.live.leaf(m, index), index)?;
        load.roots.read(m, random.next() as usize, load.live.len())?;
        m.safepoint();
    }
    Ok(())
}

/// Chains of survivors, the youngest one growing.
struct Chains<'s> {
    heads: Vec<Local<'s, Survivor>>,
    /// Number of the first survivor of each chain.
    first: Vec<u64>,
    /// Old as soon as a cycle has passed: its slots are the ones to be patched.
    registry: Local<'s, Array<Survivor>>,
    youngest: usize,
    pieces: usize,
    next_number: u64,
}

impl<'s> Chains<'s> {
    fn new(m: &mut Mutator, s: &Scope<'s>) -> Result<Self, OutOfMemory> {
        let registry = m.alloc_array::<Survivor>(s, CHAINS)?;
        let heads: Vec<_> = (0..CHAINS).map(|_| m.alloc::<Survivor>(s)).collect::<Result<_, _>>()?;
        heads.iter().for_each(|head| head.get(m).number_it(0));
        Ok(Self { heads, first: vec![0; CHAINS], registry, youngest: 0, pieces: 0, next_number: 1 })
    }

    /// Allocates a piece, and makes the youngest chain longer by its survivors.
    fn piece(&mut self, m: &mut Mutator, roots: &Roots) -> Result<(), Error> {
        if self.pieces == PIECES {
            self.begin_chain(m)?;
        }
        self.pieces += 1;
        for nth in 0..PIECE_OBJECTS {
            m.scope(|m, s| {
                let garbage = m.alloc_words(s, GARBAGE_WORDS)?;
                garbage.get(m).set(nth % GARBAGE_WORDS, nth as u64);
                Ok::<_, OutOfMemory>(())
            })?;
            if nth % GARBAGE_PER_SURVIVOR == 0 {
                self.survivor(m, true)?;
            }
        }
        let head = self.heads[self.youngest].get(m);
        self.registry.get(m).set(m, self.youngest, Some(head));
        if let Some(root) = roots.young(self.next_number as usize / (PIECE_OBJECTS / GARBAGE_PER_SURVIVOR)) {
            root.set(m, head);
        }
        Ok(())
    }

    /// Drops the oldest chain, once it has been checked, and begins another in its place.
    fn begin_chain(&mut self, m: &mut Mutator) -> Result<(), Error> {
        self.pieces = 0;
        self.youngest = (self.youngest + 1) % CHAINS;
        self.check(m, self.youngest)?;
        self.first[self.youngest] = self.next_number;
        self.survivor(m, false)?;
        Ok(())
    }

    fn survivor(&mut self, m: &mut Mutator, linked: bool) -> Result<(), OutOfMemory> {
        let head = self.heads[self.youngest];
        m.scope(|m, s| {
            let new = m.alloc::<Survivor>(s)?.get(m);
            new.number_it(self.next_number);
            if linked {
                new.previous.store(m, Some(head.get(m)));
            }
            head.set(m, new);
            Ok(())
        })?;
        self.next_number += 1;
        Ok(())
    }

    /// Checks a chain from its head to its first survivor.
    fn check(&self, m: &Mutator, nth: usize) -> Result<(), Error> {
        let mut current = Some(self.heads[nth].get(m));
        let mut number = current.map_or(0, |head| head.number.get());
        while let Some(survivor) = current {
            let survivor = survivor.as_ref();
            expect_equal("survivor of chain", nth, number, survivor.number.get())?;
            expect_equal("check word in chain", nth, mix(number), survivor.check.get())?;
            current = survivor.previous.load();
            if current.is_some() {
                number = number.wrapping_sub(1);
            }
        }
        expect_equal("first survivor of chain", nth, self.first[nth], number)
    }
}
