//! Large arrays of references: pieces of them are replaced by new leaves, and now and then a whole array
//! by a rotated copy. Each is a large object, with regions of its own. A shadow outside the heap
//! knows every leaf's value.

use strikeslip::{Array, Field, Local, Mutator, OutOfMemory, Scope, object};

use super::{Share, Tally};
use crate::index::Mismatches;
use crate::random::mix;
use crate::workload::RunError;

/// References of an array: more than a MiB of them.
const LENGTH: usize = 150_000;
/// Bytes of an array, which takes a whole region, and its leaves.
const ARRAY_BYTES: u64 = (2 << 20) + 16 * LENGTH as u64;
/// A piece has at least this many references and less than so many times as many.
const PIECE: usize = 64;
const PIECES: usize = 16;
/// One operation in this many replaces a whole array.
const ROTATE_EVERY: usize = 100;

object! {
    /// What the arrays refer to.
    struct Leaf {
        value: Field<u64>,
    }
}

/// An array in the heap, and what its leaves should be.
struct Large<'s> {
    array: Local<'s, Array<Leaf>>,
    shadow: Vec<u64>,
}

pub(super) fn run(m: &mut Mutator, share: &Share<'_>) -> Result<Tally, RunError> {
    let arrays = usize::try_from(share.live_bytes / ARRAY_BYTES).unwrap_or(usize::MAX).max(1);
    let mut random = share.random();
    let mut tally = Tally::default();
    m.scope(|m, s| {
        // The arrays are reached through this one, so that a replaced array has no handle left.
        let all = m.alloc_array::<Array<Leaf>>(s, arrays)?;
        let mut shadows = vec![];
        for at in 0..arrays {
            m.scope(|m, s| {
                let mut large = Large { array: m.alloc_array(s, LENGTH)?, shadow: vec![0; LENGTH] };
                large.fill(m, 0, LENGTH, random.next())?;
                all.get(m).set(m, at, Some(large.array.get(m)));
                shadows.push(large.shadow);
                Ok::<_, OutOfMemory>(())
            })?;
        }
        let mut timer = share.timer();
        while timer.go_on() {
            let at = random.below(arrays);
            let pieces = PIECE + random.below(PIECE * (PIECES - 1));
            let (start, seed) = (random.below(LENGTH - pieces), random.next());
            let rotate = random.one_in(ROTATE_EVERY).then(|| random.below(LENGTH));
            with_array(m, all, at, &mut shadows, |m, s, large| {
                large.check(m, start, pieces, &mut tally.mismatches);
                large.fill(m, start, pieces, seed)?;
                if let Some(by) = rotate {
                    let copy = large.rotated(m, s, by)?;
                    all.get(m).set(m, at, Some(copy.get(m)));
                }
                Ok(())
            })?;
            tally.operations += 1;
            share.meter.count(1);
        }
        for at in 0..arrays {
            with_array(m, all, at, &mut shadows, |m, _, large| {
                large.check(m, 0, LENGTH, &mut tally.mismatches);
                large.fill(m, 0, LENGTH, mix(share.seed ^ at as u64))?;
                tally.checksum = mix(tally.checksum ^ large.check(m, 0, LENGTH, &mut tally.mismatches));
                Ok(())
            })?;
        }
        Ok(tally)
    })
}

/// Runs `body` on one of the arrays.
fn with_array(
    m: &mut Mutator,
    all: Local<'_, Array<Array<Leaf>>>,
    at: usize,
    shadows: &mut [Vec<u64>],
    body: impl for<'s> FnOnce(&mut Mutator, &Scope<'s>, &mut Large<'s>) -> Result<(), OutOfMemory>,
) -> Result<(), OutOfMemory> {
    m.scope(|m, s| {
        let array = s.root(all.get(m).get(at).expect("all places are filled"));
        let mut large = Large { array, shadow: std::mem::take(&mut shadows[at]) };
        let result = body(m, s, &mut large);
        shadows[at] = large.shadow;
        result
    })
}

impl<'s> Large<'s> {
    /// Replaces a piece by new leaves.
    fn fill(&mut self, m: &mut Mutator, start: usize, length: usize, seed: u64) -> Result<(), OutOfMemory> {
        for at in start..start + length {
            let value = mix(seed ^ at as u64);
            m.scope(|m, s| {
                let leaf = m.alloc::<Leaf>(s)?;
                leaf.get(m).value.set(value);
                self.array.get(m).set(m, at, Some(leaf.get(m)));
                Ok::<_, OutOfMemory>(())
            })?;
            self.shadow[at] = value;
        }
        Ok(())
    }

    /// A new array of the same leaves, each `by` places further down.
    fn rotated(
        &mut self,
        m: &mut Mutator,
        s: &Scope<'s>,
        by: usize,
    ) -> Result<Local<'s, Array<Leaf>>, OutOfMemory> {
        let copy = m.alloc_array::<Leaf>(s, LENGTH)?;
        for at in 0..LENGTH {
            if at % 4096 == 0 {
                // So much copying must not keep others waiting.
                m.safepoint();
            }
            copy.get(m).set(m, at, self.array.get(m).get((at + by) % LENGTH));
        }
        self.shadow.rotate_left(by);
        Ok(copy)
    }

    /// Checks a piece; returns a fingerprint of it.
    fn check(&self, m: &mut Mutator, start: usize, length: usize, mismatches: &mut Mismatches) -> u64 {
        let mut fingerprint = 0;
        for at in start..start + length {
            if at % 4096 == 0 {
                m.safepoint();
            }
            let found = self.array.get(m).get(at).map(|leaf| leaf.value.get());
            mismatches.compare(format_args!("leaf {at}"), &found, &Some(self.shadow[at]));
            fingerprint = mix(fingerprint ^ found.unwrap_or(0));
        }
        fingerprint
    }
}
