//! The oracle: the object graph in ordinary memory, without addresses.

use std::collections::BTreeMap;

use super::{GLOBALS, Kind, MOST_CONTEXTS, REGISTERS};

/// Names an object of the oracle.
pub type Id = usize;

/// An object as it must be.
#[derive(Clone, Debug)]
pub struct Object {
    pub id: Id,
    pub kind: Kind,
    pub length: usize,
    pub references: Vec<Option<Id>>,
    /// Plain words that were written since the object was made.
    written: BTreeMap<usize, u64>,
    /// How often it was pinned more than unpinned, and where.
    pub pins: usize,
    pub pinned_at: Option<usize>,
}

/// The output function of `SplitMix64`.
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Object {
    /// In objects with many words only some are written when they are made: the pages between are never touched.
    fn stride(&self) -> usize {
        if self.kind.words(self.length) <= 4096 { 1 } else { 1021 }
    }

    /// The plain words that are written when the object is made, with their values.
    pub fn first_words(&self) -> impl Iterator<Item = (usize, u64)> {
        let (id, words) = (self.id as u64, self.kind.words(self.length));
        (0..words).step_by(self.stride()).map(move |word| (word, mix(id << 24 ^ word as u64)))
    }

    /// What a plain word must be.
    pub fn word(&self, word: usize) -> u64 {
        match self.written.get(&word) {
            Some(&value) => value,
            None if word.is_multiple_of(self.stride()) => mix((self.id as u64) << 24 ^ word as u64),
            None => 0,
        }
    }

    pub fn write(&mut self, word: usize, value: u64) {
        self.written.insert(word, value);
    }

    pub const fn bytes(&self) -> usize {
        self.kind.bytes(self.length)
    }
}

/// All objects, and who refers to them.
#[derive(Debug, Default)]
pub struct Oracle {
    objects: Vec<Object>,
    pub registers: [[Option<Id>; REGISTERS]; MOST_CONTEXTS],
    pub globals: [Option<Id>; GLOBALS],
    /// Allocations that were refused for want of memory.
    pub refused: usize,
    /// Objects that were compared.
    pub compared: usize,
}

impl Oracle {
    /// A new object, to which nobody refers.
    pub fn make(&mut self, kind: Kind, length: usize) -> Id {
        let id = self.objects.len();
        let length = kind.length(length);
        self.objects.push(Object {
            id,
            kind,
            length,
            references: vec![None; kind.references(length)],
            written: BTreeMap::new(),
            pins: 0,
            pinned_at: None,
        });
        id
    }

    pub fn object(&self, id: Id) -> &Object {
        &self.objects[id]
    }

    pub fn object_mut(&mut self, id: Id) -> &mut Object {
        &mut self.objects[id]
    }

    /// Bytes of everything that is reachable, and of the regions that pinned objects may keep.
    pub fn held_bytes(&self) -> usize {
        let region = strikeslip_gc::geometry::REGION_BYTES;
        let mut reached = vec![false; self.objects.len()];
        let roots = self.registers.iter().flatten().chain(&self.globals);
        let mut stack: Vec<_> = roots.flatten().copied().collect();
        let mut bytes = 0;
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut reached[id], true) {
                let object = self.object(id);
                let is_large = object.bytes() > region / 2;
                let stays = object.kind == Kind::Pinned || object.pins > 0;
                bytes += object.bytes() + if is_large || stays { region } else { 0 };
                stack.extend(object.references.iter().flatten());
            }
        }
        bytes
    }
}
