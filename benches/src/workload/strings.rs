//! String churn: strings of 8 to 2047 bytes that are made, put together from others, and read. Sizes are mixed and
//! survival is random, which is what fragments a heap that does not move anything.

use clap::Args;
use serde::{Deserialize, Serialize};
use strikeslip::{Array, Bytes, Heap, Local, Mutator, OutOfMemory, Scope};
use strikeslip_demos::random::Random;

use super::{Checksum, Look, Outcome, Task, Workload, on_mutator};
use crate::error::{Error, expect_equal};
use crate::measure::timed::Timed;

/// Parameters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[group(id = "strings-parameters")]
pub struct Parameters {
    /// strings: strings
    #[arg(long, default_value_t = 300_000)]
    pub strings: usize,
    /// strings: operations, timed by the hundred
    #[arg(long, default_value_t = 3_000_000)]
    pub string_operations: usize,
}

/// The workload.
#[derive(Debug)]
pub struct Strings(pub Parameters);

/// Operations that are timed together.
const BATCH: usize = 100;
/// No string is longer.
const MOST_BYTES: usize = 2047;

impl Workload for Strings {
    fn run(&self, heap: &Heap, task: &Task) -> Result<Outcome, Error> {
        let Parameters { strings, string_operations } = self.0;
        let batches = string_operations / BATCH;
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                let mut table = Table::new(m, s, strings, task.seed)?;
                let mut timed = Timed::begin(heap, task.epoch, task.interval_ns, batches);
                for _ in 0..batches {
                    timed.wait(m);
                    for _ in 0..BATCH {
                        table.operation(m)?;
                    }
                    timed.done();
                }
                let section = timed.end();
                for at in 0..strings {
                    table.read(m, at)?;
                    m.safepoint();
                }
                let operations = (batches * BATCH) as u64;
                Ok(Outcome { checksum: table.checksum, operations, mutators: 1, section })
            })
        })
    }

    fn most_live(&self, heap: &Heap, seed: u64, look: Look<'_>) -> Result<(), Error> {
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                Table::new(m, s, self.0.strings, seed)?;
                look(m);
                Ok(())
            })
        })
    }
}

struct Table<'s> {
    strings: Local<'s, Array<Bytes>>,
    /// Of the bytes of each string, kept beside the heap to check it.
    sums: Vec<u64>,
    random: Random,
    buffer: [u8; MOST_BYTES + 1],
    checksum: Checksum,
}

impl<'s> Table<'s> {
    fn new(m: &mut Mutator, s: &Scope<'s>, count: usize, seed: u64) -> Result<Self, OutOfMemory> {
        let strings = m.alloc_array::<Bytes>(s, count)?;
        let (random, checksum) = (Random::new(seed, 1), Checksum::default());
        let mut table = Self { strings, sums: vec![0; count], random, buffer: [0; MOST_BYTES + 1], checksum };
        (0..count).try_for_each(|at| table.fresh(m, at))?;
        Ok(table)
    }

    fn operation(&mut self, m: &mut Mutator) -> Result<(), Error> {
        let bits = self.random.next();
        let at = self.random.below(self.sums.len());
        match bits % 4 {
            0 | 1 => self.fresh(m, at)?,
            2 => self.join(m, at)?,
            _ => {
                self.read(m, at)?;
                m.safepoint();
            }
        }
        Ok(())
    }

    /// A new string: small ones are more frequent than large ones.
    fn fresh(&mut self, m: &mut Mutator, at: usize) -> Result<(), OutOfMemory> {
        let bits = self.random.next();
        let least = 8_usize << (bits % 8);
        let length = (least + (bits >> 8) as usize % least).min(MOST_BYTES);
        self.buffer[..length].fill((bits >> 56) as u8);
        self.buffer[length / 2] = (bits >> 48) as u8;
        self.put(m, at, length)
    }

    /// The first half of one string and the second half of another, in the place of the first.
    fn join(&mut self, m: &mut Mutator, at: usize) -> Result<(), OutOfMemory> {
        let other = self.random.below(self.sums.len());
        let strings = self.strings.get(m).as_ref();
        let [first, second] = [at, other].map(|at| strings.get(at).expect("all strings are there"));
        let (head, tail) = (first.len() / 2, second.len() / 2);
        let length = head + second.len() - tail;
        first.copy_to(0, &mut self.buffer[..head]);
        second.copy_to(tail, &mut self.buffer[head..length]);
        self.put(m, at, length)
    }

    fn put(&mut self, m: &mut Mutator, at: usize, length: usize) -> Result<(), OutOfMemory> {
        let bytes = &self.buffer[..length];
        self.sums[at] = sum(bytes);
        m.scope(|m, s| {
            let string = m.alloc_bytes(s, bytes)?;
            self.strings.get(m).as_ref().set(m, at, Some(string.get(m)));
            Ok(())
        })
    }

    /// Reads a whole string, checks it and folds it in.
    fn read(&mut self, m: &Mutator, at: usize) -> Result<(), Error> {
        let string = self.strings.get(m).as_ref().get(at).expect("all strings are there");
        let bytes = &mut self.buffer[..string.len()];
        string.copy_to(0, bytes);
        let found = sum(bytes);
        expect_equal("sum of string", at, self.sums[at], found)?;
        self.checksum.fold(found);
        self.checksum.fold(string.len() as u64);
        Ok(())
    }
}

/// The sum of bytes, each times its place.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().zip(1..).map(|(&byte, place)| u64::from(byte) * place).sum()
}
