//! A graph's weak slots and ephemerons: each refers to objects that are, or once were, in the graph.
//!
//! What is reachable in the model must be found, at its address. What is not may still be found, whole, until the
//! collector has looked; then its slot is empty for good.

use std::collections::HashMap;

use strikeslip_gc::address::ToAddress;
use strikeslip_gc::roots::{ROOT_SLOTS, RootPageKind};

use super::{FIRST_ROOT, Graph, Object};

/// The slots, and what each was given last, unless that was found dead.
#[derive(Default)]
pub(super) struct WeakSlots {
    first: usize,
    held: Vec<Option<Held>>,
    /// The first slot of ephemerons, and key and value of each.
    first_pair: usize,
    pairs: Vec<Option<[Held; 2]>>,
}

#[derive(Clone)]
struct Held {
    index: usize,
    object: Object,
}

impl Graph<'_> {
    /// Adds weak slots.
    #[must_use]
    pub fn with_weak_slots(mut self, count: usize) -> Self {
        let pages = (0..count.div_ceil(ROOT_SLOTS)).map(|_| self.mutator.add_roots(RootPageKind::Weak));
        let first = pages.collect::<Vec<_>>().first().copied().unwrap_or(0);
        self.weak.first = first;
        self.weak.held = vec![None; count];
        self
    }

    /// Adds ephemerons, at most a page of them.
    #[must_use]
    pub fn with_ephemerons(mut self, count: usize) -> Self {
        assert!(count <= ROOT_SLOTS / 2);
        self.weak.first_pair = self.mutator.add_roots(RootPageKind::Ephemerons);
        self.weak.pairs = vec![None; count];
        self
    }

    /// Makes or loads a random ephemeron, if there are any. No safepoint.
    pub fn step_ephemeron(&mut self) {
        if self.weak.pairs.is_empty() {
            return;
        }
        let nth = self.random.below(self.weak.pairs.len());
        if self.random.one_in(3) {
            self.look_at_pair(nth);
            return;
        }
        let (Some(key), Some(value)) = (self.walk(), self.walk()) else { return };
        self.mutator.set_ephemeron(self.weak.first_pair + 2 * nth, key.0, value.0);
        let held = |(_, index): (ToAddress, usize)| Held { index, object: self.object(index).clone() };
        self.weak.pairs[nth] = Some([held(key), held(value)]);
    }

    fn look_at_pair(&mut self, nth: usize) {
        let slot = self.weak.first_pair + 2 * nth;
        let key = self.mutator.weak(slot);
        let Some(pair) = self.weak.pairs[nth].clone() else {
            assert_eq!(key, None, "the key of ephemeron {nth} has come back");
            return;
        };
        let Some(key) = key else {
            let is_there = self.is_in_model(&pair[0]) && self.reached()[pair[0].index];
            assert!(!is_there, "ephemeron {nth}: key {} is reachable", pair[0].object.id);
            self.weak.pairs[nth] = None;
            return;
        };
        self.check_contents(key, &pair[0].object);
        let value = self.mutator.weak(slot + 1).expect("a key that lives keeps its value");
        self.check_contents(value, &pair[1].object);
        // Reachable through it only, perhaps.
        if self.is_in_model(&pair[1]) && self.random.one_in(3) {
            let root = self.random.below(self.roots.len());
            self.roots[root] = Some(pair[1].index);
            self.mutator.set_root(FIRST_ROOT + root, Some(value));
        }
    }

    /// The values of keys that were reached.
    pub(super) fn values_of(&self, reached: &[bool], stack: &mut Vec<usize>) {
        for [key, value] in self.weak.pairs.iter().flatten() {
            if self.is_in_model(key) && reached[key.index] && !reached[value.index] {
                assert!(self.is_in_model(value), "the model has forgotten the value of a key that it has");
                stack.push(value.index);
            }
        }
    }

    /// Each ephemeron whose key the graph has leads to its value.
    fn check_pairs(&self, found: &HashMap<usize, ToAddress>) {
        for (nth, pair) in self.weak.pairs.iter().enumerate() {
            let Some([key, value]) = pair else { continue };
            let slot = self.weak.first_pair + 2 * nth;
            let (Some(&there), true) = (found.get(&key.index), self.is_in_model(key)) else { continue };
            assert_eq!(self.mutator.weak(slot), Some(there), "key {} of ephemeron {nth}", key.object.id);
            let address = self.mutator.weak(slot + 1).expect("a key that lives keeps its value");
            self.check_contents(address, &value.object);
            if let Some(&there) = found.get(&value.index) {
                assert_eq!(address, there, "value {} of ephemeron {nth}", value.object.id);
            }
        }
    }

    /// Fills or loads a random weak slot, if there are any. No safepoint.
    pub fn step_weak(&mut self) {
        if self.weak.held.is_empty() {
            return;
        }
        let nth = self.random.below(self.weak.held.len());
        if self.random.one_in(2) {
            let Some((address, index)) = self.walk() else { return };
            self.mutator.set_weak(self.weak.first + nth, Some(address));
            self.weak.held[nth] = Some(Held { index, object: self.object(index).clone() });
        } else {
            self.upgrade(nth);
        }
    }

    /// Loads from a weak slot, and may make the object a root again.
    fn upgrade(&mut self, nth: usize) {
        let found = self.mutator.weak(self.weak.first + nth);
        let Some(held) = self.weak.held[nth].clone() else {
            assert_eq!(found, None, "weak slot {nth} has come back");
            return;
        };
        let Some(address) = found else {
            let is_there = self.is_in_model(&held) && self.reached()[held.index];
            assert!(!is_there, "weak slot {nth}: object {} is reachable", held.object.id);
            self.weak.held[nth] = None;
            return;
        };
        self.check_contents(address, &held.object);
        if self.is_in_model(&held) && self.random.one_in(3) {
            let root = self.random.below(self.roots.len());
            self.roots[root] = Some(held.index);
            self.mutator.set_root(FIRST_ROOT + root, Some(address));
        }
    }

    /// Whether the model still has the object, reachable or not, with all that it refers to.
    fn is_in_model(&self, held: &Held) -> bool {
        self.objects[held.index].as_ref().is_some_and(|object| object.id == held.object.id)
    }

    /// Each weak slot leads to its object, if the graph has it.
    pub(super) fn check_weak_slots(&self, found: &HashMap<usize, ToAddress>) {
        self.check_pairs(found);
        for (nth, held) in self.weak.held.iter().enumerate() {
            let address = self.mutator.weak(self.weak.first + nth);
            let Some(held) = held else {
                assert_eq!(address, None, "weak slot {nth} has come back");
                continue;
            };
            match found.get(&held.index) {
                Some(&there) if self.is_in_model(held) => {
                    assert_eq!(address, Some(there), "weak slot {nth} of object {}", held.object.id);
                }
                _ => address.into_iter().for_each(|address| self.check_contents(address, &held.object)),
            }
        }
    }
}
