//! The persistent handles of the pause benchmark. Most refer to leaves of the live set, which the
//! collector leaves where they are; a few, spread over all pages of root slots, to young survivors, so
//! that each cycle has root pages to rewrite.

use strikeslip::{Mutator, OutOfMemory, Persistent, Words};
use strikeslip_demos::random::mix;

use super::load::Survivor;
use crate::error::{Error, expect_equal};
use crate::live::{LiveSet, check_leaf};

/// The handles.
#[derive(Debug)]
pub(super) struct Roots {
    old: Vec<Persistent<Words>>,
    young: Vec<Persistent<Survivor>>,
}

impl Roots {
    /// Makes `count` handles, `young` of them (or all, if that is more) for survivors.
    pub fn new(m: &mut Mutator, set: &LiveSet, count: usize, young: usize) -> Result<Self, OutOfMemory> {
        let every = count.checked_div(young).unwrap_or(usize::MAX).max(1);
        let mut roots = Self { old: Vec::with_capacity(count), young: vec![] };
        for nth in 0..count {
            if nth % every == every - 1 && roots.young.len() < young {
                let root = m.scope(|m, s| {
                    let first = m.alloc::<Survivor>(s)?.get(m);
                    first.number_it(0);
                    Ok(m.persistent(first))
                })?;
                roots.young.push(root);
            } else {
                m.safepoint();
                roots.old.push(m.persistent(set.leaf(m, leaf_of_root(roots.old.len(), set.len()))));
            }
        }
        Ok(roots)
    }

    /// A handle of a survivor, if there is one.
    pub fn young(&self, number: usize) -> Option<&Persistent<Survivor>> {
        self.young.get(number.checked_rem(self.young.len())?)
    }

    /// Reads one handle of each kind and checks what it refers to. The set has `leaves` leaves.
    pub fn read(&self, m: &Mutator, drawn: usize, leaves: usize) -> Result<(), Error> {
        if let Some(nth) = drawn.checked_rem(self.old.len()) {
            check_leaf(self.old[nth].get(m), leaf_of_root(nth, leaves))?;
        }
        self.young(drawn).map_or(Ok(()), |root| check_survivor(root, m, drawn))
    }

    /// Checks what all handles refer to.
    pub fn check(&self, m: &mut Mutator, leaves: usize) -> Result<(), Error> {
        for (nth, root) in self.old.iter().enumerate() {
            check_leaf(root.get(m), leaf_of_root(nth, leaves))?;
            m.safepoint();
        }
        self.young.iter().enumerate().try_for_each(|(nth, root)| check_survivor(root, m, nth))
    }
}

fn check_survivor(root: &Persistent<Survivor>, m: &Mutator, nth: usize) -> Result<(), Error> {
    let survivor = root.get(m);
    expect_equal("survivor of root", nth, mix(survivor.number()), survivor.check_word())
}

/// The leaf that handle `nth` of a set of `len` leaves refers to.
const fn leaf_of_root(nth: usize, len: usize) -> usize {
    (mix(nth as u64) % len as u64) as usize
}
