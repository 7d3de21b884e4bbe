//! A mutator's object graph, and beside it a model of it in ordinary memory.
//!
//! Each operation is done on both; [`Graph::check`] walks them together. The model holds no heap
//! addresses, so nothing the collector does can change it.

use std::collections::HashMap;

use strikeslip_gc::address::ToAddress;
use strikeslip_gc::error::AllocError;
use strikeslip_gc::layout::Header;

use super::{Mutator, layouts};

mod weak;

use weak::WeakSlots;

/// A small generator of pseudo-random numbers (SplitMix64), so that a seed tells the whole run.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[derive(Clone, Debug)]
enum Kind {
    Node,
    Array,
    /// Words that were written have the value `mix(id ^ word)`, or are zero if never touched.
    Data {
        words: usize,
        touched: bool,
    },
}

#[derive(Clone, Debug)]
struct Object {
    id: u64,
    kind: Kind,
    references: Vec<Option<usize>>,
}

impl Object {
    fn bytes(&self) -> usize {
        match self.kind {
            Kind::Node => 32,
            Kind::Array => 8 + 8 * self.references.len(),
            Kind::Data { words, .. } => 8 + 8 * words,
        }
    }
}

/// The graph's roots begin here; the slots before it are the test's.
pub const FIRST_ROOT: usize = 16;

/// How large and how eager a graph is.
#[derive(Copy, Clone, Debug)]
pub struct Shape {
    /// Root slots used.
    pub roots: usize,
    /// Live bytes that the graph is kept below (about).
    pub live_bytes: usize,
    /// One object in this many is of medium size (up to 1 MiB); 0: none.
    pub medium_one_in: usize,
    /// One object in this many is large (up to 5 MiB); 0: none.
    pub large_one_in: usize,
}

/// A graph and its model.
pub struct Graph<'a> {
    mutator: &'a Mutator,
    random: Random,
    shape: Shape,
    objects: Vec<Option<Object>>,
    vacant: Vec<usize>,
    roots: Vec<Option<usize>>,
    bytes: usize,
    next_id: u64,
    weak: WeakSlots,
}

impl<'a> Graph<'a> {
    pub fn new(mutator: &'a Mutator, seed: u64, shape: Shape) -> Self {
        let mut slots = strikeslip_gc::roots::ROOT_SLOTS;
        while slots < shape.roots + FIRST_ROOT {
            mutator.add_roots(strikeslip_gc::roots::RootPageKind::Paged);
            slots += strikeslip_gc::roots::ROOT_SLOTS;
        }
        Self {
            mutator,
            random: Random(seed),
            shape,
            objects: vec![],
            vacant: vec![],
            roots: vec![None; shape.roots],
            bytes: 0,
            next_id: mix(seed),
            weak: WeakSlots::default(),
        }
    }

    /// Some operation; each is a safepoint.
    pub fn step(&mut self) -> Result<(), AllocError> {
        self.mutator.poll();
        match self.random.below(16) {
            0..=4 => self.allocate()?,
            5..=12 => self.store(),
            13 | 14 => self.move_root(),
            _ => self.look(),
        }
        if self.bytes > self.shape.live_bytes {
            self.shrink();
        }
        Ok(())
    }

    fn object(&self, index: usize) -> &Object {
        self.objects[index].as_ref().expect("reachable in the model")
    }

    /// Follows a few random references from a random root, in both worlds.
    fn walk(&mut self) -> Option<(ToAddress, usize)> {
        let root = self.random.below(self.roots.len());
        let mut index = self.roots[root]?;
        let mut address = self.mutator.root(FIRST_ROOT + root).expect("the model has an object here");
        for _ in 0..self.random.below(6) {
            let count = self.object(index).references.len();
            if count == 0 {
                break;
            }
            let nth = self.random.below(count);
            let Some(next) = self.object(index).references[nth] else { break };
            address = self.mutator.load(address, 1 + nth).expect("the model has a reference here");
            index = next;
        }
        Some((address, index))
    }

    /// Follows a few random references, and checks some of the objects found. No safepoint.
    pub fn roam(&mut self) {
        let _ = self.walk();
        if self.random.one_in(4) {
            self.look();
        }
    }

    fn random_object(&mut self) -> Object {
        let (random, shape) = (&mut self.random, &self.shape);
        let words = if shape.large_one_in > 0 && random.one_in(shape.large_one_in) {
            (140 << 10) + random.below(500 << 10)
        } else if shape.medium_one_in > 0 && random.one_in(shape.medium_one_in) {
            1 << (8 + random.below(9))
        } else {
            1 + random.below(40)
        };
        let (kind, references) = match random.below(4) {
            0 if words <= 40 => (Kind::Data { words, touched: true }, 0),
            0 => (Kind::Data { words, touched: random.one_in(2) }, 0),
            1 => (Kind::Array, words),
            _ if words > 40 => (Kind::Array, words),
            _ => (Kind::Node, 2),
        };
        self.next_id += 1;
        Object { id: self.next_id, kind, references: vec![None; references] }
    }

    fn header(object: &Object) -> Header {
        match object.kind {
            Kind::Node => Header::new(layouts().node, 0),
            Kind::Array => Header::new(layouts().array, object.references.len() as u32),
            Kind::Data { words, .. } => Header::new(layouts().data, words as u32),
        }
    }

    fn allocate(&mut self) -> Result<(), AllocError> {
        let object = self.random_object();
        let header = Self::header(&object);
        let address = self.mutator.alloc(header.layout_id(), header.length() as usize)?;
        match object.kind {
            Kind::Node => self.mutator.set(address, 3, object.id),
            Kind::Data { words, touched: true } => {
                (1..=words).for_each(|word| self.mutator.set(address, word, mix(object.id ^ word as u64)));
            }
            Kind::Array | Kind::Data { .. } => {}
        }
        self.bytes += object.bytes();
        let index = self.vacant.pop().unwrap_or(self.objects.len());
        if index == self.objects.len() {
            self.objects.push(None);
        }
        self.objects[index] = Some(object);
        // Some keep what the root held before, so that chains and trees grow.
        let root = self.random.below(self.roots.len());
        if !self.object(index).references.is_empty() && !self.random.one_in(3) {
            let nth = self.random.below(self.object(index).references.len());
            self.set_reference(
                (address, index),
                nth,
                self.mutator.root(FIRST_ROOT + root).zip(self.roots[root]),
            );
        }
        self.roots[root] = Some(index);
        self.mutator.set_root(FIRST_ROOT + root, Some(address));
        Ok(())
    }

    fn set_reference(
        &mut self,
        (address, index): (ToAddress, usize),
        nth: usize,
        value: Option<(ToAddress, usize)>,
    ) {
        self.mutator.store(address, 1 + nth, value.map(|(address, _)| address));
        self.objects[index].as_mut().expect("reachable").references[nth] = value.map(|(_, index)| index);
    }

    /// Stores a random reference (or none) into a random object, deleting what was there.
    fn store(&mut self) {
        let Some(holder) = self.walk() else { return };
        let count = self.object(holder.1).references.len();
        if count == 0 {
            return;
        }
        let value = if self.random.one_in(8) { None } else { self.walk() };
        let nth = self.random.below(count);
        self.set_reference(holder, nth, value);
    }

    /// Moves a reference from somewhere inside to a root: it may now be the only one.
    fn move_root(&mut self) {
        let found = self.walk();
        let root = self.random.below(self.roots.len());
        self.roots[root] = found.map(|(_, index)| index);
        self.mutator.set_root(FIRST_ROOT + root, found.map(|(address, _)| address));
    }

    /// Exchanges two roots: what one held may be reachable from the other only. No safepoint.
    pub fn swap_roots(&mut self) {
        let (one, other) = (self.random.below(self.roots.len()), self.random.below(self.roots.len()));
        self.roots.swap(one, other);
        let object = self.mutator.root(FIRST_ROOT + one);
        self.mutator.set_root(FIRST_ROOT + one, self.mutator.root(FIRST_ROOT + other));
        self.mutator.set_root(FIRST_ROOT + other, object);
    }

    /// Checks one object.
    fn look(&mut self) {
        if let Some((address, index)) = self.walk() {
            self.check_object(address, index);
        }
    }

    fn check_object(&self, address: ToAddress, index: usize) {
        let object = self.object(index);
        self.check_contents(address, object);
        for (nth, reference) in object.references.iter().enumerate() {
            let found = self.mutator.load(address, 1 + nth);
            assert_eq!(found.is_some(), reference.is_some(), "reference {nth} of {}", object.id);
        }
    }

    /// Checks an object's header and plain words.
    fn check_contents(&self, address: ToAddress, object: &Object) {
        let header = self.mutator.header(address);
        assert_eq!(header, Self::header(object), "header of object {} at {:#x}", object.id, address.get());
        match object.kind {
            Kind::Node => assert_eq!(self.mutator.get(address, 3), object.id, "a node's contents"),
            Kind::Data { words, touched } => {
                for word in 1..=words {
                    let expected = if touched { mix(object.id ^ word as u64) } else { 0 };
                    assert_eq!(
                        self.mutator.get(address, word),
                        expected,
                        "word {word} of {words} of {}",
                        object.id
                    );
                }
            }
            Kind::Array => {}
        }
    }

    /// Drops roots until about half of what is allowed is left.
    fn shrink(&mut self) {
        while self.bytes > self.shape.live_bytes / 2 {
            for _ in 0..1 + self.roots.len() / 4 {
                let root = self.random.below(self.roots.len());
                self.roots[root] = None;
                self.mutator.set_root(FIRST_ROOT + root, None);
            }
            self.prune();
        }
    }

    /// Which objects are reachable in the model.
    fn reached(&self) -> Vec<bool> {
        let mut reached = vec![false; self.objects.len()];
        let mut stack: Vec<_> = self.roots.iter().flatten().copied().collect();
        loop {
            while let Some(index) = stack.pop() {
                if !std::mem::replace(&mut reached[index], true) {
                    stack.extend(self.object(index).references.iter().flatten());
                }
            }
            self.values_of(&reached, &mut stack);
            if stack.is_empty() {
                return reached;
            }
        }
    }

    /// Forgets what is not reachable in the model.
    fn prune(&mut self) {
        let reached = self.reached();
        self.bytes = 0;
        for (index, reached) in reached.into_iter().enumerate() {
            if !reached && self.objects[index].take().is_some() {
                self.vacant.push(index);
            }
            self.bytes += self.objects[index].as_ref().map_or(0, Object::bytes);
        }
    }

    /// Compares the whole graph with its model; also that identity is kept: one object of the model is
    /// one object of the heap. No safepoint.
    pub fn check(&self) -> usize {
        let mut found: HashMap<usize, ToAddress> = HashMap::new();
        let mut stack = vec![];
        for (root, index) in self.roots.iter().enumerate() {
            let address = self.mutator.root(FIRST_ROOT + root);
            assert_eq!(address.is_some(), index.is_some(), "root {root}");
            stack.extend(address.zip(*index));
        }
        while let Some((address, index)) = stack.pop() {
            if let Some(&before) = found.get(&index) {
                assert_eq!(before, address, "two addresses of one object");
                continue;
            }
            found.insert(index, address);
            self.check_object(address, index);
            for (nth, reference) in self.object(index).references.iter().enumerate() {
                stack.extend(self.mutator.load(address, 1 + nth).zip(*reference));
            }
        }
        self.check_weak_slots(&found);
        found.len()
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.roots.fill(None);
        (0..self.roots.len()).for_each(|root| self.mutator.set_root(FIRST_ROOT + root, None));
        self.prune();
    }
}
