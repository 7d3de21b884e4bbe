//! A window of buffers: each push takes the place of the oldest. Everything lives equally long, which is what
//! generational collectors hope not to meet.

use clap::Args;
use serde::{Deserialize, Serialize};
use strikeslip::{Array, Heap, Local, Mutator, Scope, Words};

use super::{Checksum, GOLDEN, Look, Outcome, Task, Workload, on_mutator};
use crate::error::{Error, expect_equal};
use crate::measure::timed::Timed;

/// Parameters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[group(id = "lru-parameters")]
pub struct Parameters {
    /// lru: buffers in the window
    #[arg(long, default_value_t = 200_000)]
    pub window: usize,
    /// lru: bytes of a buffer, a multiple of 8
    #[arg(long, default_value_t = 1024, value_parser = whole_words)]
    pub bytes: usize,
    /// lru: timed pushes
    #[arg(long, default_value_t = 5_000_000)]
    pub pushes: u64,
}

fn whole_words(text: &str) -> Result<usize, String> {
    let bytes: usize = text.parse().map_err(|_| "not a number of bytes".to_owned())?;
    if bytes == 0 || !bytes.is_multiple_of(8) || bytes > 16 << 10 {
        return Err("not a multiple of 8 between 8 and 16384".to_owned());
    }
    Ok(bytes)
}

/// The workload.
#[derive(Debug)]
pub struct Lru(pub Parameters);

impl Workload for Lru {
    fn run(&self, heap: &Heap, task: &Task) -> Result<Outcome, Error> {
        let Parameters { pushes, bytes, .. } = self.0;
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                let mut window = Window::filled(m, s, &self.0)?;
                let mut timed = Timed::begin(heap, task.epoch, task.interval_ns, pushes as usize);
                for _ in 0..pushes {
                    timed.wait(m);
                    window.push(m)?;
                    timed.done();
                }
                let section = timed.end();
                let mut checksum = window.checksum;
                for at in 0..self.0.window {
                    let buffer = window.buffers.get(m).as_ref().get(at).expect("the window is full");
                    checksum.fold(u64::from(byte(buffer.as_ref(), bytes - 1)));
                }
                Ok(Outcome { checksum, operations: pushes, mutators: 1, section })
            })
        })
    }

    fn most_live(&self, heap: &Heap, _seed: u64, look: Look<'_>) -> Result<(), Error> {
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                Window::filled(m, s, &self.0)?;
                look(m);
                Ok(())
            })
        })
    }
}

struct Window<'s> {
    buffers: Local<'s, Array<Words>>,
    length: usize,
    bytes: usize,
    pushed: usize,
    checksum: Checksum,
}

impl<'s> Window<'s> {
    fn filled(m: &mut Mutator, s: &Scope<'s>, parameters: &Parameters) -> Result<Self, Error> {
        let &Parameters { window: length, bytes, .. } = parameters;
        let buffers = m.alloc_array::<Words>(s, length)?;
        let mut window = Self { buffers, length, bytes, pushed: 0, checksum: Checksum::default() };
        for _ in 0..length {
            window.push(m)?;
        }
        Ok(window)
    }

    #[inline]
    fn push(&mut self, m: &mut Mutator) -> Result<(), Error> {
        let number = self.pushed;
        self.pushed += 1;
        let reserved = m.reserve(self.bytes + 8)?;
        let (m, buffer) = (reserved.mutator(), reserved.alloc_words(self.bytes / 8));
        buffer.fill(u64::from(contents(number)) * u64::from_ne_bytes([1; 8]));
        let slot = self.buffers.get(m).as_ref().slot(number % self.length);
        let old = slot.load();
        slot.store(m, Some(buffer));
        if let Some(old) = old {
            let found = byte(old.as_ref(), number % self.bytes);
            self.checksum.fold(u64::from(found));
            let expected = contents(number - self.length);
            expect_equal("buffer", number - self.length, expected.into(), found.into())?;
        }
        Ok(())
    }
}

/// All bytes of the buffer with this number.
#[inline]
const fn contents(number: usize) -> u8 {
    ((number as u64).wrapping_mul(GOLDEN) >> 56) as u8
}

#[inline]
fn byte(buffer: &Words, index: usize) -> u8 {
    buffer.get(index / 8).to_ne_bytes()[index % 8]
}
