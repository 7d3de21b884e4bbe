//! A mutating graph: trees that are replaced at random and whose parts change places, so that what dies
//! together was not allocated together. Objects of 24 to 64 bytes.

use clap::Args;
use serde::{Deserialize, Serialize};
use strikeslip::{Array, Field, Gc, Heap, Local, Mutator, OutOfMemory, Reserved, Scope, Slot, Words, object};
use strikeslip_demos::random::Random;

use super::{Checksum, Look, Outcome, Task, Workload, on_mutator};
use crate::error::{Error, expect_equal};
use crate::measure::timed::Timed;

/// Parameters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[group(id = "graph-parameters")]
pub struct Parameters {
    /// graph: trees
    #[arg(long, default_value_t = 400_000)]
    pub slots: usize,
    /// graph: timed operations [default: 3000000, paced 2000000]
    #[arg(long)]
    pub operations: Option<u64>,
    /// graph: operations that are timed together
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub batch: u64,
}

/// The workload.
#[derive(Debug)]
pub struct Graph(pub Parameters);

object! {
    /// A node, which owns its data and its children.
    struct Node {
        left: Slot<Node>,
        right: Slot<Node>,
        data: Slot<Words>,
        value: Field<u64>,
    }
}

/// Most words of a node's data.
const MOST_WORDS: usize = 6;
/// Most bytes of a node and its data: two headers.
const NODE_BYTES: usize = Reserved::bytes_of::<Node>() + 8 + MOST_WORDS * 8;

impl Workload for Graph {
    fn run(&self, heap: &Heap, task: &Task) -> Result<Outcome, Error> {
        let Parameters { slots, operations, batch } = self.0;
        let operations = operations.unwrap_or(if task.interval_ns == 0 { 3_000_000 } else { 2_000_000 });
        let batches = operations / batch;
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                let mut forest = Forest::new(m, s, slots, task.seed)?;
                for _ in 0..operations / 10 {
                    forest.operation(m)?;
                }
                let mut timed = Timed::begin(heap, task.epoch, task.interval_ns, batches as usize);
                for _ in 0..batches {
                    timed.wait(m);
                    for _ in 0..batch {
                        forest.operation(m)?;
                    }
                    timed.done();
                }
                let section = timed.end();
                let checksum = forest.check(m)?;
                Ok(Outcome { checksum, operations: batches * batch, mutators: 1, section })
            })
        })
    }

    fn most_live(&self, heap: &Heap, seed: u64, look: Look<'_>) -> Result<(), Error> {
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                Forest::new(m, s, self.0.slots, seed)?;
                look(m);
                Ok(())
            })
        })
    }
}

struct Forest<'s> {
    trees: Local<'s, Array<Node>>,
    slots: usize,
    random: Random,
    checksum: Checksum,
}

impl<'s> Forest<'s> {
    fn new(m: &mut Mutator, s: &Scope<'s>, slots: usize, seed: u64) -> Result<Self, OutOfMemory> {
        let trees = m.alloc_array::<Node>(s, slots)?;
        let mut forest = Self { trees, slots, random: Random::new(seed, 1), checksum: Checksum::default() };
        for at in 0..slots {
            let nodes = 1 + (forest.random.next() & 15);
            forest.plant(m, at, nodes)?;
        }
        Ok(forest)
    }

    #[inline]
    fn operation(&mut self, m: &mut Mutator) -> Result<(), OutOfMemory> {
        let bits = self.random.next();
        let at = self.random.below(self.slots);
        match bits >> 62 {
            0 | 1 => return self.plant(m, at, 1 + (bits & 15)),
            2 => self.exchange(m, bits, at),
            _ => self.read(m, bits, at),
        }
        m.safepoint();
        Ok(())
    }

    /// Puts a new tree in the place of another.
    fn plant(&mut self, m: &mut Mutator, at: usize, nodes: u64) -> Result<(), OutOfMemory> {
        let reserved = m.reserve(nodes as usize * NODE_BYTES)?;
        let tree = build(&reserved, &mut self.random, nodes);
        let m = reserved.mutator();
        self.trees.get(m).as_ref().set(m, at, tree);
        Ok(())
    }

    fn tree<'n>(&self, m: &'n Mutator, at: usize) -> &'n Node {
        self.trees.get(m).as_ref().get(at).expect("no tree is empty").as_ref()
    }

    /// Lets two subtrees of different trees change places.
    fn exchange(&mut self, m: &Mutator, bits: u64, at: usize) {
        let mut other = self.random.below(self.slots - 1);
        other += usize::from(other >= at);
        let (a, a_bits) = walk(self.tree(m, at), bits & 3, (bits >> 2) & 0xff);
        let (b, b_bits) = walk(self.tree(m, other), (bits >> 16) & 3, (bits >> 18) & 0xff);
        let (a_child, b_child) = (child(a, a_bits), child(b, b_bits));
        let (from_a, from_b) = (a_child.load(), b_child.load());
        a_child.store(m, from_b);
        b_child.store(m, from_a);
        self.checksum.fold(a.value.get() ^ b.value.get());
    }

    /// Reads what lies on a path.
    fn read(&mut self, m: &Mutator, bits: u64, at: usize) {
        let (mut steps, mut bits) = (bits & 7, bits >> 3);
        let mut next = Some(self.tree(m, at));
        while let Some(node) = next {
            self.checksum.fold(node.value.get() ^ (data(node).get(data(node).len() - 1) >> 56));
            if steps == 0 {
                break;
            }
            steps -= 1;
            next = child(node, bits).load().map(Gc::as_ref);
            bits >>= 1;
        }
    }

    /// Checks all nodes, each before its children, and folds them in.
    fn check(mut self, m: &mut Mutator) -> Result<Checksum, Error> {
        for at in 0..self.slots {
            let mut pending = vec![self.tree(m, at)];
            while let Some(node) = pending.pop() {
                let (value, data) = (node.value.get(), data(node));
                expect_equal("length of data in tree", at, words(value) as u64, data.len() as u64)?;
                for index in 0..data.len() {
                    expect_equal("data in tree", at, pattern(value), data.get(index))?;
                }
                self.checksum.fold(value);
                self.checksum.fold((data.get(0) & 0xff) + 8 * data.len() as u64);
                pending
                    .extend([&node.right, &node.left].iter().filter_map(|slot| slot.load()).map(Gc::as_ref));
            }
            m.safepoint();
        }
        Ok(self.checksum)
    }
}

/// Number of words of the data of a node with this value.
const fn words(value: u64) -> usize {
    1 + (value >> 32) as usize % MOST_WORDS
}

/// Each word of the data of a node with this value.
const fn pattern(value: u64) -> u64 {
    (value & 0xff) * u64::from_ne_bytes([1; 8])
}

fn build<'n>(reserved: &Reserved<'n>, random: &mut Random, nodes: u64) -> Option<Gc<'n, Node>> {
    if nodes == 0 {
        return None;
    }
    let value = random.next();
    let data = reserved.alloc_words(words(value));
    data.fill(pattern(value));
    let left = build(reserved, random, (nodes - 1) / 2);
    let right = build(reserved, random, nodes - 1 - (nodes - 1) / 2);
    let (m, node) = (reserved.mutator(), reserved.alloc::<Node>());
    node.value.set(value);
    node.data.store(m, Some(data));
    // A fresh node has no children.
    if left.is_some() {
        node.left.store(m, left);
    }
    if right.is_some() {
        node.right.store(m, right);
    }
    Some(node)
}

#[inline]
const fn child(node: &Node, bits: u64) -> &Slot<Node> {
    if bits & 1 == 0 { &node.left } else { &node.right }
}

#[inline]
fn data(node: &Node) -> &Words {
    node.data.load().expect("every node has data").as_ref()
}

/// The node at which a walk ends that takes up to `steps` steps, to the sides that `bits` say; and the bits left.
fn walk(tree: &Node, steps: u64, mut bits: u64) -> (&Node, u64) {
    let mut node = tree;
    for _ in 0..steps {
        let next = child(node, bits);
        bits >>= 1;
        match next.load() {
            Some(next) => node = next.as_ref(),
            None => break,
        }
    }
    (node, bits)
}
