//! Binary trees: a forest of long-lived ones that are replaced now and then, and short-lived ones in
//! between. A tree's contents follow from its seed, so its sum is known without the heap.

use strikeslip::{Field, Gc, Local, Mutator, OutOfMemory, Scope, Slot, object};

use super::{Share, Tally};
use crate::random::mix;
use crate::workload::RunError;

/// Depth of long-lived trees: 2047 nodes.
const DEPTH: u32 = 10;
/// Bytes of such a tree.
const TREE_BYTES: u64 = ((2 << DEPTH) - 1) * 32;
/// One operation in this many replaces a long-lived tree.
const REPLACE_EVERY: usize = 4;

object! {
    /// A node.
    struct Tree {
        left: Slot<Tree>,
        right: Slot<Tree>,
        value: Field<u64>,
    }
}

pub(super) fn run(m: &mut Mutator, share: &Share<'_>) -> Result<Tally, RunError> {
    let trees = usize::try_from(share.live_bytes / TREE_BYTES).unwrap_or(usize::MAX).max(1);
    let mut random = share.random();
    let mut tally = Tally::default();
    m.scope(|m, s| {
        let forest = m.alloc_array::<Tree>(s, trees)?;
        // What each tree was grown from.
        let mut seeds: Vec<u64> = (0..trees).map(|_| random.next()).collect();
        for (at, &seed) in seeds.iter().enumerate() {
            plant(m, forest, at, seed)?;
        }
        let mut timer = share.timer();
        while timer.go_on() {
            if random.one_in(REPLACE_EVERY) {
                let at = random.below(trees);
                check(m, forest, at, seeds[at], &mut tally);
                seeds[at] = random.next();
                plant(m, forest, at, seeds[at])?;
            } else {
                let (depth, seed) = (4 + random.below(5) as u32, random.next());
                let found = m.scope(|m, s| Ok::<_, OutOfMemory>(sum(grow(m, s, depth, seed)?.get(m))))?;
                let what = format_args!("sum of a tree of depth {depth}");
                tally.mismatches.compare(what, &found, &expected(depth, seed));
            }
            tally.operations += 1;
            share.meter.count(1);
        }
        for (at, &previous) in seeds.iter().enumerate() {
            check(m, forest, at, previous, &mut tally);
            let seed = mix(share.seed ^ at as u64);
            plant(m, forest, at, seed)?;
            let found = check(m, forest, at, seed, &mut tally);
            tally.checksum = mix(tally.checksum ^ found);
        }
        Ok(tally)
    })
}

/// Puts a new tree in its place in the forest.
fn plant(m: &mut Mutator, forest: Local<'_, Forest>, at: usize, seed: u64) -> Result<(), OutOfMemory> {
    m.scope(|m, s| {
        let tree = grow(m, s, DEPTH, seed)?;
        forest.get(m).set(m, at, Some(tree.get(m)));
        Ok(())
    })
}

type Forest = strikeslip::Array<Tree>;

fn grow<'s>(m: &mut Mutator, s: &Scope<'s>, depth: u32, seed: u64) -> Result<Local<'s, Tree>, OutOfMemory> {
    let node = m.alloc::<Tree>(s)?;
    node.get(m).value.set(seed);
    if depth > 0 {
        // A scope of their own, so that there are never more handles than twice the depth.
        m.scope(|m, s| {
            let left = grow(m, s, depth - 1, left_seed(seed))?;
            let right = grow(m, s, depth - 1, right_seed(seed))?;
            node.get(m).left.store(m, Some(left.get(m)));
            node.get(m).right.store(m, Some(right.get(m)));
            Ok::<_, OutOfMemory>(())
        })?;
    }
    Ok(node)
}

const fn left_seed(seed: u64) -> u64 {
    mix(seed.wrapping_add(1))
}

const fn right_seed(seed: u64) -> u64 {
    mix(seed.wrapping_add(2))
}

/// The sum of a tree, in which every node's place counts.
fn sum(tree: Gc<'_, Tree>) -> u64 {
    combine(tree.value.get(), tree.left.load().map_or(0, sum), tree.right.load().map_or(0, sum))
}

/// What [`sum`] must be.
fn expected(depth: u32, seed: u64) -> u64 {
    match depth {
        0 => combine(seed, 0, 0),
        _ => combine(seed, expected(depth - 1, left_seed(seed)), expected(depth - 1, right_seed(seed))),
    }
}

const fn combine(value: u64, left: u64, right: u64) -> u64 {
    value.wrapping_add(left.wrapping_mul(3)).wrapping_add(right.wrapping_mul(5))
}

/// Checks a tree of the forest; returns its sum.
fn check(m: &Mutator, forest: Local<'_, Forest>, at: usize, seed: u64, tally: &mut Tally) -> u64 {
    let found = forest.get(m).get(at).map_or(0, sum);
    tally.mismatches.compare(format_args!("sum of tree {at}"), &found, &expected(DEPTH, seed));
    found
}
