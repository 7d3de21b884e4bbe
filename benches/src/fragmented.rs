//! A fragmented heap: objects with references, or of plain data, of which a part is dropped, and how
//! to tell afterwards that every survivor is what it was.
//!
//! The sequence of sizes and of what survives is drawn from a seed ([`Pattern`]), so that the floor
//! measurement ([`crate::floor`]) copies the same runs of bytes as the collector.

use std::hint::black_box;

use clap::ValueEnum;
use serde::Serialize;
use strikeslip::{
    Any, Array, Field, Gc, Local, Mutator, OutOfMemory, Persistent, Scope, Slot, Words, object,
};

use strikeslip_demos::random::{Random, mix};

use crate::error::{Error, expect_equal};

object! {
    /// 32 bytes with its header.
    struct Small {
        first: Slot<Any>,
        number: Field<u64>,
        check: Field<u64>,
    }

    /// 64 bytes with its header.
    struct Medium {
        first: Slot<Any>,
        second: Slot<Any>,
        number: Field<u64>,
        check: Field<u64>,
        spare1: Field<u64>,
        spare2: Field<u64>,
        spare3: Field<u64>,
    }

    /// 96 bytes with its header.
    struct Large {
        first: Slot<Any>,
        second: Slot<Any>,
        third: Slot<Any>,
        number: Field<u64>,
        check: Field<u64>,
        spare1: Field<u64>,
        spare2: Field<u64>,
        spare3: Field<u64>,
        spare4: Field<u64>,
        spare5: Field<u64>,
        spare6: Field<u64>,
    }
}

/// Survivors of a table.
const TABLE: usize = 1024;
/// How many survivors back a reference to something nearby reaches: about 256 KiB.
const NEARBY: usize = 4096;
/// Words of a data object behind its header: 1 KiB with it.
const DATA_WORDS: usize = 127;
const REGION_BYTES: u64 = strikeslip::gc::geometry::REGION_BYTES as u64;

/// What the heap is made of.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objects {
    /// 32, 64 or 96 bytes, with one to three references to others nearby
    Nodes,
    /// The same, with references to others anywhere: each is a cache miss to forward
    Scattered,
    /// 1 KiB of plain data
    Data,
}

impl Objects {
    /// For tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "64 B nodes",
            Self::Scattered => "64 B scattered",
            Self::Data => "1 KiB data",
        }
    }

    /// Draws which survivor number `from` refers to: itself or an earlier one.
    fn target(self, random: &mut Random, from: usize) -> usize {
        let reach = if self == Self::Nodes { NEARBY.min(from + 1) } else { from + 1 };
        from - random.below(reach)
    }
}

/// Which part of the heap survives.
#[derive(Copy, Clone, PartialEq, Debug)]
pub enum Survival {
    /// Each object with this probability.
    Everywhere(f64),
    /// All, but in one strip of a region's length out of `one_in`: there, with this probability.
    InStrips {
        /// One in how many strips is sparse.
        one_in: u64,
        /// Probability of survival in it.
        sparse: f64,
    },
}

/// What a heap is built from; the same seed gives the same heap.
#[derive(Copy, Clone, Debug)]
pub struct Pattern {
    /// Kind of objects.
    pub objects: Objects,
    /// Which survive.
    pub survival: Survival,
    /// Bytes allocated in all, about.
    pub bytes: u64,
    /// Seed.
    pub seed: u64,
}

/// One object to be allocated.
#[derive(Copy, Clone, Debug)]
pub struct Planned {
    /// Bytes, header included.
    pub bytes: u64,
    /// Whether it survives.
    pub survives: bool,
}

impl Pattern {
    /// The objects, in the order of allocation.
    pub fn objects(self) -> impl Iterator<Item = Planned> {
        let mut random = Random::new(self.seed, 0);
        let mut allocated = 0;
        std::iter::from_fn(move || {
            if allocated >= self.bytes {
                return None;
            }
            let drawn = random.next();
            let bytes = match self.objects {
                Objects::Nodes | Objects::Scattered => 32 * (1 + (drawn >> 8) % 3),
                Objects::Data => (DATA_WORDS as u64 + 1) * 8,
            };
            let probability = match self.survival {
                Survival::Everywhere(probability) => probability,
                Survival::InStrips { one_in, sparse } => {
                    if (allocated / REGION_BYTES).is_multiple_of(one_in) { sparse } else { 1.0 }
                }
            };
            allocated += bytes;
            Some(Planned { bytes, survives: ((drawn >> 11) as f64) < probability * (1_u64 << 53) as f64 })
        })
    }
}

/// The survivors, in tables of one directory.
#[derive(Debug)]
pub struct Survivors {
    directory: Persistent<Array<Array<Any>>>,
    count: usize,
    /// Bytes of survivors, their tables not counted.
    pub bytes: u64,
}

impl Survivors {
    /// Builds a heap: allocates all objects of the pattern, and keeps the survivors.
    ///
    /// # Errors
    /// The heap is too small.
    pub fn build(m: &mut Mutator, pattern: Pattern) -> Result<Self, OutOfMemory> {
        let most = pattern.bytes / if pattern.objects == Objects::Data { 1024 } else { 32 };
        m.scope(|m, s| {
            let directory = m.alloc_array::<Array<Any>>(s, most as usize / TABLE + 1)?;
            let mut builder = Builder { directory, count: 0, bytes: 0, random: Random::new(pattern.seed, 1) };
            for planned in pattern.objects() {
                m.scope(|m, s| builder.object(m, s, pattern.objects, planned))?;
            }
            let Builder { count, bytes, .. } = builder;
            Ok(Self { directory: m.persistent(directory.get(m)), count, bytes })
        })
    }

    /// Number of survivors.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Checks every survivor and every reference.
    ///
    /// # Errors
    /// [`Error::Wrong`] names the first that is not what it was.
    pub fn check(&self, m: &mut Mutator, pattern: Pattern) -> Result<(), Error> {
        let mut random = Random::new(pattern.seed, 1);
        for index in 0..self.count {
            let object = survivor(self.directory.get(m).as_ref(), index);
            match pattern.objects {
                Objects::Nodes | Objects::Scattered => {
                    check_node(object, index, pattern.objects, &mut random)?
                }
                Objects::Data => check_data(object, index)?,
            }
            m.safepoint();
        }
        Ok(())
    }
}

fn survivor(directory: &Array<Array<Any>>, index: usize) -> Gc<'_, Any> {
    let table = directory.get(index / TABLE).expect("all tables exist").as_ref();
    table.get(index % TABLE).expect("all survivors exist")
}

struct Builder<'s> {
    directory: Local<'s, Array<Array<Any>>>,
    count: usize,
    bytes: u64,
    /// Draws what references refer to.
    random: Random,
}

impl Builder<'_> {
    fn object(
        &mut self,
        m: &mut Mutator,
        s: &Scope<'_>,
        objects: Objects,
        planned: Planned,
    ) -> Result<(), OutOfMemory> {
        let number = self.count as u64;
        let object = match (objects, planned.bytes) {
            (Objects::Data, _) => {
                let data = m.alloc_words(s, DATA_WORDS)?.get(m);
                (0..DATA_WORDS).for_each(|word| data.set(word, mix(number + word as u64)));
                data.erase()
            }
            (_, 32) => m.alloc::<Small>(s)?.get(m).erase(),
            (_, 64) => m.alloc::<Medium>(s)?.get(m).erase(),
            (_, _) => m.alloc::<Large>(s)?.get(m).erase(),
        };
        let object = s.root(object);
        if !planned.survives {
            black_box(object);
            return Ok(());
        }
        if self.count.is_multiple_of(TABLE) {
            let table = m.alloc_array::<Any>(s, TABLE)?;
            self.directory.get(m).set(m, self.count / TABLE, Some(table.get(m)));
        }
        let directory = self.directory.get(m).as_ref();
        directory.get(self.count / TABLE).expect("made before").set(
            m,
            self.count % TABLE,
            Some(object.get(m)),
        );
        self.link(m, directory, objects, object.get(m));
        self.count += 1;
        self.bytes += planned.bytes;
        Ok(())
    }

    /// Numbers a node, and gives it its references: to earlier survivors.
    fn link(&mut self, m: &Mutator, directory: &Array<Array<Any>>, objects: Objects, object: Gc<'_, Any>) {
        let Some(node) = Node::of(object) else { return };
        let (number, check) = node.number_and_check();
        number.set(self.count as u64);
        check.set(mix(self.count as u64));
        for slot in node.slots() {
            slot.store(m, Some(survivor(directory, objects.target(&mut self.random, self.count))));
        }
    }
}

/// A node of any size.
enum Node<'n> {
    Small(Gc<'n, Small>),
    Medium(Gc<'n, Medium>),
    Large(Gc<'n, Large>),
}

impl<'n> Node<'n> {
    fn of(object: Gc<'n, Any>) -> Option<Self> {
        let small = || object.downcast().map(Self::Small);
        let medium = || object.downcast().map(Self::Medium);
        small().or_else(medium).or_else(|| object.downcast().map(Self::Large))
    }

    fn number_and_check(&self) -> (&'n Field<u64>, &'n Field<u64>) {
        match self {
            Self::Small(node) => (&node.as_ref().number, &node.as_ref().check),
            Self::Medium(node) => (&node.as_ref().number, &node.as_ref().check),
            Self::Large(node) => (&node.as_ref().number, &node.as_ref().check),
        }
    }

    fn slots(&self) -> impl Iterator<Item = &'n Slot<Any>> {
        let slots = match self {
            Self::Small(node) => [Some(&node.as_ref().first), None, None],
            Self::Medium(node) => [Some(&node.as_ref().first), Some(&node.as_ref().second), None],
            Self::Large(node) => {
                let node = node.as_ref();
                [Some(&node.first), Some(&node.second), Some(&node.third)]
            }
        };
        slots.into_iter().flatten()
    }
}

fn node(object: Gc<'_, Any>, index: usize) -> Result<Node<'_>, Error> {
    Node::of(object).ok_or_else(|| Error::Wrong(format!("survivor {index} is not a node")))
}

fn check_node(object: Gc<'_, Any>, index: usize, objects: Objects, random: &mut Random) -> Result<(), Error> {
    let checked = node(object, index)?;
    let (number, check) = checked.number_and_check();
    expect_equal("number of survivor", index, index as u64, number.get())?;
    expect_equal("check word of survivor", index, mix(index as u64), check.get())?;
    for slot in checked.slots() {
        let target = slot.load().ok_or_else(|| Error::Wrong(format!("survivor {index} lost a reference")))?;
        let (number, _) = node(target, index)?.number_and_check();
        expect_equal("reference of survivor", index, objects.target(random, index) as u64, number.get())?;
    }
    Ok(())
}

fn check_data(object: Gc<'_, Any>, index: usize) -> Result<(), Error> {
    let data = object.downcast::<Words>();
    let data = data.ok_or_else(|| Error::Wrong(format!("survivor {index} is not of plain words")))?;
    expect_equal("length of survivor", index, DATA_WORDS as u64, data.len() as u64)?;
    (0..DATA_WORDS).try_for_each(|word| {
        expect_equal("word of survivor", index, mix(index as u64 + word as u64), data.get(word))
    })
}
