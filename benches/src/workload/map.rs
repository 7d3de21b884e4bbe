//! A hash map that grows: long chains of inserts, and now and then a table of twice the length that all entries
//! move to. Tables are large objects, entries small ones of which none dies before the whole map does.

use clap::Args;
use serde::{Deserialize, Serialize};
use strikeslip::{Array, Field, Gc, Heap, Local, Mutator, OutOfMemory, Reserved, Scope, Slot, object};
use strikeslip_demos::random::{Random, mix};

use super::{Checksum, Look, Outcome, Task, Workload, on_mutator};
use crate::error::{Error, expect_equal};
use crate::measure::timed::Timed;

/// Parameters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[group(id = "map-parameters")]
pub struct Parameters {
    /// map: inserts into each map
    #[arg(long, default_value_t = 1_000_000)]
    pub inserts: usize,
    /// map: maps, one after the other
    #[arg(long, default_value_t = 4)]
    pub maps: usize,
}

/// The workload.
#[derive(Debug)]
pub struct Maps(pub Parameters);

object! {
    /// An entry.
    struct Entry {
        next: Slot<Entry>,
        key: Field<u64>,
        value: Field<u64>,
    }
}

/// Length of the first table.
const FIRST_LENGTH: usize = 16;
/// Inserts that are timed together.
const BATCH: usize = 100;
/// Chains that are gone through between two safepoints.
const AT_ONCE: usize = 256;

impl Workload for Maps {
    fn run(&self, heap: &Heap, task: &Task) -> Result<Outcome, Error> {
        let Parameters { inserts, maps } = self.0;
        let batches = inserts / BATCH;
        on_mutator(heap, 1, |m| {
            let (mut random, mut checksum) = (Random::new(task.seed, 1), Checksum::default());
            let mut timed = Timed::begin(heap, task.epoch, task.interval_ns, maps * batches);
            for _ in 0..maps {
                m.scope(|m, s| {
                    let mut map = Map::new(m, s)?;
                    for _ in 0..batches {
                        timed.wait(m);
                        for _ in 0..BATCH {
                            map.insert(m, random.below(2 * inserts) as u64, random.next())?;
                        }
                        timed.done();
                    }
                    map.check(m, &mut checksum)
                })?;
            }
            let operations = (maps * batches * BATCH) as u64;
            Ok(Outcome { checksum, operations, mutators: 1, section: timed.end() })
        })
    }

    fn most_live(&self, heap: &Heap, seed: u64, look: Look<'_>) -> Result<(), Error> {
        on_mutator(heap, 1, |m| {
            let mut random = Random::new(seed, 1);
            m.scope(|m, s| {
                let mut map = Map::new(m, s)?;
                for _ in 0..self.0.inserts {
                    map.insert(m, random.below(2 * self.0.inserts) as u64, random.next())?;
                }
                // As when it grows: the old table and one of twice its length.
                let _next = m.alloc_array::<Entry>(s, 2 * map.length)?;
                look(m);
                Ok(())
            })
        })
    }
}

struct Map<'s> {
    table: Local<'s, Array<Entry>>,
    length: usize,
    count: usize,
    /// Of all entries, kept beside the map to check it.
    sum: u64,
}

impl<'s> Map<'s> {
    fn new(m: &mut Mutator, s: &Scope<'s>) -> Result<Self, OutOfMemory> {
        let table = m.alloc_array::<Entry>(s, FIRST_LENGTH)?;
        Ok(Self { table, length: FIRST_LENGTH, count: 0, sum: 0 })
    }

    fn insert(&mut self, m: &mut Mutator, key: u64, value: u64) -> Result<(), OutOfMemory> {
        self.put(m, key, value)?;
        if self.count > self.length { self.grow(m) } else { Ok(()) }
    }

    fn put(&mut self, m: &mut Mutator, key: u64, value: u64) -> Result<(), OutOfMemory> {
        let chain = place(key, self.length);
        let reserved = m.reserve(Reserved::bytes_of::<Entry>())?;
        let m = reserved.mutator();
        let head = self.table.get(m).as_ref().slot(chain);
        self.sum = self.sum.wrapping_add(mix(key ^ value));
        let mut next = head.load();
        while let Some(entry) = next.map(Gc::as_ref) {
            if entry.key.get() == key {
                self.sum = self.sum.wrapping_sub(mix(key ^ entry.value.get()));
                entry.value.set(value);
                return Ok(());
            }
            next = entry.next.load();
        }
        let entry = reserved.alloc::<Entry>();
        entry.key.set(key);
        entry.value.set(value);
        entry.next.store(m, head.load());
        head.store(m, Some(entry));
        self.count += 1;
        Ok(())
    }

    /// Moves all entries to a table of twice the length.
    fn grow(&mut self, m: &mut Mutator) -> Result<(), OutOfMemory> {
        let length = 2 * self.length;
        m.scope(|m, s| {
            let table = m.alloc_array::<Entry>(s, length)?;
            for chain in 0..self.length {
                let mut next = self.table.get(m).as_ref().get(chain);
                while let Some(entry) = next {
                    next = entry.as_ref().next.load();
                    let head = table.get(m).as_ref().slot(place(entry.key.get(), length));
                    entry.next.store(m, head.load());
                    head.store(m, Some(entry));
                }
                if chain % AT_ONCE == 0 {
                    m.safepoint();
                }
            }
            self.table.set(m, table.get(m));
            self.length = length;
            Ok(())
        })
    }

    /// Checks that all entries are there, each in its place, and folds them in.
    fn check(&self, m: &mut Mutator, checksum: &mut Checksum) -> Result<(), Error> {
        let (mut sum, mut count) = (0_u64, 0);
        for chain in 0..self.length {
            let mut next = self.table.get(m).as_ref().get(chain);
            while let Some(entry) = next.map(Gc::as_ref) {
                let key = entry.key.get();
                expect_equal("chain of key", key as usize, chain as u64, place(key, self.length) as u64)?;
                sum = sum.wrapping_add(mix(key ^ entry.value.get()));
                count += 1;
                next = entry.next.load();
            }
            if chain % AT_ONCE == 0 {
                m.safepoint();
            }
        }
        expect_equal("number of entries of chains", self.length, self.count as u64, count)?;
        expect_equal("sum of chains", self.length, self.sum, sum)?;
        checksum.fold(count);
        checksum.fold(sum);
        Ok(())
    }
}

/// The chain of a key.
const fn place(key: u64, length: usize) -> usize {
    mix(key) as usize & (length - 1)
}
