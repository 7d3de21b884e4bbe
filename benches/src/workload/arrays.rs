//! Large arrays of references: their elements are replaced one by one, and now and then a whole array by a copy.
//! What marking and the write barrier make of many slots in few objects.

use clap::Args;
use serde::{Deserialize, Serialize};
use strikeslip::{Array, Field, Heap, Local, Mutator, OutOfMemory, Reserved, Scope, object};
use strikeslip_demos::random::{Random, mix};

use super::{Checksum, Look, Outcome, Task, Workload, on_mutator};
use crate::error::{Error, expect_equal};
use crate::measure::timed::Timed;

/// Parameters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[group(id = "arrays-parameters")]
pub struct Parameters {
    /// arrays: arrays
    #[arg(long, default_value_t = 32)]
    pub arrays: usize,
    /// arrays: elements of an array
    #[arg(long, default_value_t = 100_000)]
    pub length: usize,
    /// arrays: timed operations, each of which replaces 64 elements or one array
    #[arg(long, default_value_t = 100_000)]
    pub replacements: usize,
}

/// The workload.
#[derive(Debug)]
pub struct Arrays(pub Parameters);

object! {
    /// An element.
    struct Cell {
        value: Field<u64>,
        check: Field<u64>,
    }
}

/// Elements that an operation replaces.
const ELEMENTS: usize = 64;
/// One operation in so many replaces an array.
const ARRAY_EVERY: u64 = 128;
/// Elements that are gone through between two safepoints.
const AT_ONCE: usize = 1024;

impl Workload for Arrays {
    fn run(&self, heap: &Heap, task: &Task) -> Result<Outcome, Error> {
        let operations = self.0.replacements;
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                let mut all = All::new(m, s, &self.0, task.seed)?;
                let mut timed = Timed::begin(heap, task.epoch, task.interval_ns, operations);
                for _ in 0..operations {
                    timed.wait(m);
                    all.operation(m)?;
                    timed.done();
                }
                let section = timed.end();
                let checksum = all.check(m)?;
                Ok(Outcome { checksum, operations: operations as u64, mutators: 1, section })
            })
        })
    }

    fn most_live(&self, heap: &Heap, seed: u64, look: Look<'_>) -> Result<(), Error> {
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                All::new(m, s, &self.0, seed)?;
                let _copy = m.alloc_array::<Cell>(s, self.0.length)?;
                look(m);
                Ok(())
            })
        })
    }
}

struct All<'s> {
    arrays: Local<'s, Array<Array<Cell>>>,
    parameters: Parameters,
    random: Random,
    checksum: Checksum,
}

impl<'s> All<'s> {
    fn new(m: &mut Mutator, s: &Scope<'s>, parameters: &Parameters, seed: u64) -> Result<Self, OutOfMemory> {
        let arrays = m.alloc_array::<Array<Cell>>(s, parameters.arrays)?;
        let (random, checksum) = (Random::new(seed, 1), Checksum::default());
        let mut all = Self { arrays, parameters: *parameters, random, checksum };
        for nth in 0..parameters.arrays {
            m.scope(|m, s| {
                let array = m.alloc_array::<Cell>(s, parameters.length)?;
                all.arrays.get(m).as_ref().set(m, nth, Some(array.get(m)));
                (0..parameters.length).try_for_each(|index| all.replace(m, array, index).map(drop))
            })?;
        }
        Ok(all)
    }

    fn operation(&mut self, m: &mut Mutator) -> Result<(), Error> {
        let bits = self.random.next();
        let nth = self.random.below(self.parameters.arrays);
        m.scope(|m, s| {
            let array = s.root(self.arrays.get(m).as_ref().get(nth).expect("all arrays are there"));
            if bits.is_multiple_of(ARRAY_EVERY) {
                return Ok(self.copy(m, array, nth)?);
            }
            for _ in 0..ELEMENTS {
                let index = self.random.below(self.parameters.length);
                let (value, check) = self.replace(m, array, index)?.expect("all elements are there");
                expect_equal("check word of element", index, mix(value), check)?;
                self.checksum.fold(value);
            }
            Ok(())
        })
    }

    /// Puts a new element in its place; returns what the old one held.
    #[inline]
    fn replace(
        &mut self,
        m: &mut Mutator,
        array: Local<'_, Array<Cell>>,
        index: usize,
    ) -> Result<Option<(u64, u64)>, OutOfMemory> {
        let reserved = m.reserve(Reserved::bytes_of::<Cell>())?;
        let (m, cell) = (reserved.mutator(), reserved.alloc::<Cell>());
        let value = self.random.next();
        cell.value.set(value);
        cell.check.set(mix(value));
        let slot = array.get(m).as_ref().slot(index);
        let old = slot.load().map(|old| (old.value.get(), old.check.get()));
        slot.store(m, Some(cell));
        Ok(old)
    }

    /// Replaces an array by a copy.
    fn copy(&self, m: &mut Mutator, from: Local<'_, Array<Cell>>, nth: usize) -> Result<(), OutOfMemory> {
        m.scope(|m, s| {
            let to = m.alloc_array::<Cell>(s, self.parameters.length)?;
            for begin in (0..self.parameters.length).step_by(AT_ONCE) {
                let (from, to) = (from.get(m).as_ref(), to.get(m).as_ref());
                for index in begin..self.parameters.length.min(begin + AT_ONCE) {
                    to.set(m, index, from.get(index));
                }
                m.safepoint();
            }
            self.arrays.get(m).as_ref().set(m, nth, Some(to.get(m)));
            Ok(())
        })
    }

    /// Checks all elements, and folds them in.
    fn check(mut self, m: &mut Mutator) -> Result<Checksum, Error> {
        for nth in 0..self.parameters.arrays {
            for index in 0..self.parameters.length {
                let array = self.arrays.get(m).as_ref().get(nth).expect("all arrays are there");
                let cell = array.as_ref().get(index).expect("all elements are there");
                expect_equal("check word of element", index, mix(cell.value.get()), cell.check.get())?;
                self.checksum.fold(cell.value.get());
                if index.is_multiple_of(AT_ONCE) {
                    m.safepoint();
                }
            }
        }
        Ok(self.checksum)
    }
}
