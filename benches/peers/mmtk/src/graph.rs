//! A mutating graph: trees whose parts change places, so that what dies together was not allocated together.
//! Nodes: data, left, right, and the word value.

use peers_common::options::{Common, Graph};
use peers_common::random::{Checksum, Random};
use peers_common::report::Outcome;
use peers_common::timing::Timed;

use crate::heap::{Handle, Heap};
use crate::object::Object;
use crate::world::WORLD;

const DATA: usize = 0;
const LEFT: usize = 1;
const RIGHT: usize = 2;

struct Forest {
    trees: Handle,
    slots: usize,
    random: Random,
    checksum: Checksum,
}

/// Builds a tree of at least one node.
fn build(heap: &mut Heap, random: &mut Random, nodes: u64) -> Object {
    let value = random.next();
    let data = heap.alloc(0, 8 * (1 + (value >> 32) as usize % 6));
    data.fill(value as u8);
    let data = heap.push(data);
    let (left, right) = ((nodes - 1) / 2, nodes - 1 - (nodes - 1) / 2);
    let [left, right] = [left, right].map(|nodes| {
        (nodes > 0).then(|| {
            let child = build(heap, random, nodes);
            heap.push(child)
        })
    });
    let node = heap.alloc(3, 8);
    node.set_word(0, value);
    node.store_first(DATA, heap.get(data));
    for (side, child) in [(RIGHT, right), (LEFT, left)] {
        if child.is_some() {
            node.store_first(side, heap.pop());
        }
    }
    heap.pop();
    node
}

fn child(node: Object, bits: u64) -> Option<Object> {
    node.load(LEFT + (bits & 1) as usize)
}

/// The node at which a walk ends that takes up to `steps` steps, to the sides that `bits` say; and the bits left.
fn walk(tree: Object, steps: u64, mut bits: u64) -> (Object, u64) {
    let mut node = tree;
    for _ in 0..steps {
        let next = child(node, bits);
        bits >>= 1;
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    (node, bits)
}

impl Forest {
    fn tree(&self, heap: &Heap, at: usize) -> Object {
        heap.get(self.trees).load(at).expect("no tree is empty")
    }

    fn replace(&mut self, heap: &mut Heap, at: usize, nodes: u64) {
        let tree = build(heap, &mut self.random, nodes);
        heap.store(heap.get(self.trees), at, Some(tree));
    }

    fn operation(&mut self, heap: &mut Heap) {
        let bits = self.random.next();
        let at = self.random.below(self.slots);
        match bits >> 62 {
            0 | 1 => self.replace(heap, at, 1 + (bits & 15)),
            2 => self.exchange(heap, bits, at),
            _ => self.read(heap, bits, at),
        }
    }

    /// Lets two subtrees of different trees change places.
    fn exchange(&mut self, heap: &mut Heap, bits: u64, at: usize) {
        let mut other = self.random.below(self.slots - 1);
        other += usize::from(other >= at);
        let (a, a_bits) = walk(self.tree(heap, at), bits & 3, (bits >> 2) & 0xff);
        let (b, b_bits) = walk(self.tree(heap, other), (bits >> 16) & 3, (bits >> 18) & 0xff);
        let (a_child, b_child) = (child(a, a_bits), child(b, b_bits));
        heap.store(a, LEFT + (a_bits & 1) as usize, b_child);
        heap.store(b, LEFT + (b_bits & 1) as usize, a_child);
        self.checksum.fold(a.word(0) ^ b.word(0));
    }

    /// Reads what lies on a path.
    fn read(&mut self, heap: &Heap, bits: u64, at: usize) {
        let (mut steps, mut bits) = (bits & 7, bits >> 3);
        let mut next = Some(self.tree(heap, at));
        while let Some(node) = next {
            let data = node.load(DATA).expect("a node has data");
            self.checksum.fold(node.word(0) ^ u64::from(data.byte(data.length() - 1)));
            if steps == 0 {
                break;
            }
            steps -= 1;
            next = child(node, bits);
            bits >>= 1;
        }
    }
}

/// Folds in all nodes of a tree, each before its children.
fn check(checksum: &mut Checksum, tree: Option<Object>) {
    if let Some(node) = tree {
        let data = node.load(DATA).expect("a node has data");
        checksum.fold(node.word(0));
        checksum.fold(u64::from(data.byte(0)) + data.length() as u64);
        check(checksum, node.load(LEFT));
        check(checksum, node.load(RIGHT));
    }
}

pub fn run(heap: &mut Heap, parameters: Graph, common: &Common) -> Outcome {
    let Graph { slots, operations, batch } = parameters;
    let trees = heap.alloc(slots, 0);
    let trees = heap.push(trees);
    let mut forest =
        Forest { trees, slots, random: Random::new(common.seed, 1), checksum: Checksum::default() };
    for at in 0..slots {
        let nodes = 1 + (forest.random.next() & 15);
        forest.replace(heap, at, nodes);
    }
    for _ in 0..operations / 10 {
        forest.operation(heap);
    }
    WORLD.count_pauses();
    let mut timed = Timed::begin(common.interval_ns, operations / batch, 1);
    for _ in 0..operations / batch {
        timed.wait(|| heap.poll());
        for _ in 0..batch {
            forest.operation(heap);
        }
        timed.done();
    }
    let timings = timed.end();
    let (trees, mut checksum) = (heap.pop(), forest.checksum);
    (0..slots).for_each(|at| check(&mut checksum, trees.load(at)));
    Outcome { checksum, operations: operations / batch * batch, timings }
}
