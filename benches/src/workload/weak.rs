//! A weak table of interned objects: entries live as long as something else refers to them, and are found by key
//! meanwhile. What the clearing of weak slots, resurrection while marking and the rewriting of weak slots cost.

use clap::Args;
use serde::{Deserialize, Serialize};
use strikeslip::{Array, Field, Gc, Heap, Local, Mode, Mutator, Reserved, Scope, Slot, WeakTable, object};
use strikeslip_demos::random::{Random, mix};

use super::{Checksum, Look, Outcome, Task, Workload, on_mutator};
use crate::error::{Error, expect_equal};
use crate::measure::timed::Timed;

/// Parameters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[group(id = "weak-parameters")]
pub struct Parameters {
    /// weak: keys, from 1 on, and weak slots
    #[arg(long, default_value_t = 1_600_000)]
    pub keys: usize,
    /// weak: entries that are kept
    #[arg(long, default_value_t = 400_000)]
    pub kept: usize,
    /// weak: entries that are looked for, and made if they are not found
    #[arg(long, default_value_t = 3_000_000)]
    pub lookups: usize,
}

/// The workload.
#[derive(Debug)]
pub struct Weak(pub Parameters);

object! {
    /// The entry of a key; its parent is that of half the key.
    struct Entry {
        parent: Slot<Entry>,
        key: Field<u64>,
        check: Field<u64>,
    }
}

/// Lookups that are timed together.
const BATCH: usize = 100;
/// Elements that are gone through between two safepoints.
const AT_ONCE: usize = 1024;

impl Workload for Weak {
    fn run(&self, heap: &Heap, task: &Task) -> Result<Outcome, Error> {
        let batches = self.0.lookups / BATCH;
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                let mut all = All::new(m, s, &self.0, task.seed)?;
                let mut timed = Timed::begin(heap, task.epoch, task.interval_ns, batches);
                for _ in 0..batches {
                    timed.wait(m);
                    (0..BATCH).try_for_each(|_| all.look_up(m))?;
                    timed.done();
                }
                let section = timed.end();
                let operations = (batches * BATCH) as u64;
                Ok(Outcome { checksum: all.check(m)?, operations, mutators: 1, section })
            })
        })
    }

    fn most_live(&self, heap: &Heap, seed: u64, look: Look<'_>) -> Result<(), Error> {
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                All::new(m, s, &self.0, seed)?;
                look(m);
                Ok(())
            })
        })
    }
}

struct All<'s> {
    table: WeakTable<Entry>,
    kept: Local<'s, Array<Entry>>,
    /// The keys of what is kept, by place.
    keys: Vec<u32>,
    /// Where each key was kept last, if it still is.
    places: Vec<u32>,
    random: Random,
    checksum: Checksum,
}

impl<'s> All<'s> {
    /// Fills all places.
    fn new(m: &mut Mutator, s: &Scope<'s>, parameters: &Parameters, seed: u64) -> Result<Self, Error> {
        let &Parameters { keys, kept, .. } = parameters;
        let mut all = Self {
            table: WeakTable::new(m.heap(), keys + 1)?,
            kept: m.alloc_array(s, kept)?,
            keys: vec![0; kept],
            places: vec![0; keys + 1],
            random: Random::new(seed, 1),
            checksum: Checksum::default(),
        };
        (0..kept).try_for_each(|place| all.keep(m, place))?;
        Ok(all)
    }

    /// Looks a random key up, and keeps its entry at a random place.
    fn look_up(&mut self, m: &mut Mutator) -> Result<(), Error> {
        let place = self.random.below(self.keys.len());
        self.keep(m, place)
    }

    fn keep(&mut self, m: &mut Mutator, place: usize) -> Result<(), Error> {
        let key = 1 + self.random.below(self.places.len() - 1);
        let reserved;
        let (m, entry) = match self.table.get(m, key) {
            Some(entry) => (&*m, entry),
            None => {
                let missing = key.ilog2() as usize + 1;
                reserved = m.reserve(missing * Reserved::bytes_of::<Entry>())?;
                (reserved.mutator(), self.make(&reserved, key))
            }
        };
        expect_equal("check word of key", key, mix(key as u64), entry.check.get())?;
        let kept = self.kept.get(m).as_ref();
        // While it is kept, it is the only one of its key.
        let last = self.places[key] as usize;
        if self.keys[last] as usize == key {
            expect_equal("entries of key", key, 1, u64::from(kept.get(last) == Some(entry)))?;
        }
        self.check_parent(m, key, entry)?;
        kept.set(m, place, Some(entry));
        (self.keys[place], self.places[key]) = (key as u32, place as u32);
        self.checksum.fold(entry.key.get());
        Ok(())
    }

    /// Makes the entry of `key`, and those of its ancestors that are not there. No safepoint.
    fn make<'n>(&self, reserved: &Reserved<'n>, key: usize) -> Gc<'n, Entry> {
        let m = reserved.mutator();
        let mut parent = None;
        for shift in (0..=key.ilog2()).rev() {
            let key = key >> shift;
            let found = self.table.get(m, key).unwrap_or_else(|| {
                let entry = reserved.alloc::<Entry>();
                entry.key.set(key as u64);
                entry.check.set(mix(key as u64));
                entry.parent.store(m, parent);
                self.table.set(m, key, Some(entry));
                entry
            });
            parent = Some(found);
        }
        parent.expect("a key is at least 1")
    }

    /// What an entry refers to is what is found by key.
    fn check_parent(&self, m: &Mutator, key: usize, entry: Gc<'_, Entry>) -> Result<(), Error> {
        let parent = if key == 1 { None } else { self.table.get(m, key / 2) };
        let same = entry.parent.load() == parent && parent.is_some() == (key > 1);
        expect_equal("parent of key", key, 1, u64::from(same))
    }

    /// Checks and folds all that is kept; then lets go of it: the next collection clears all slots.
    fn check(mut self, m: &mut Mutator) -> Result<Checksum, Error> {
        for place in 0..self.keys.len() {
            let entry = self.kept.get(m).as_ref().get(place).expect("all places are filled");
            expect_equal("key at place", place, self.keys[place].into(), entry.key.get())?;
            expect_equal("check word at place", place, mix(entry.key.get()), entry.check.get())?;
            self.checksum.fold(entry.key.get());
            if place.is_multiple_of(AT_ONCE) {
                m.safepoint();
            }
        }
        for place in 0..self.keys.len() {
            self.kept.get(m).as_ref().set(m, place, None);
        }
        if m.heap().mode() != Mode::NoGc {
            // One may be under way, and have marked all this.
            m.collect();
            let left = (0..self.table.len()).filter(|&key| self.table.get(m, key).is_some()).count();
            expect_equal("entries that nothing refers to, of", self.table.len() - 1, 0, left as u64)?;
        }
        Ok(self.checksum)
    }
}
