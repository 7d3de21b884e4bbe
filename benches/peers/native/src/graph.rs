//! A mutating graph: trees whose parts change places, so that what dies together was not allocated
//! together.

use peers_common::options::{Common, Graph};
use peers_common::random::{Checksum, Random};
use peers_common::report::Outcome;
use peers_common::timing::Timed;

struct Node {
    value: u64,
    data: Box<[u8]>,
    children: [Option<Box<Node>>; 2],
}

struct Forest {
    trees: Vec<Option<Box<Node>>>,
    random: Random,
    checksum: Checksum,
}

fn build(random: &mut Random, nodes: u64) -> Option<Box<Node>> {
    if nodes == 0 {
        return None;
    }
    let value = random.next();
    let data = vec![value as u8; 8 * (1 + (value >> 32) as usize % 6)].into_boxed_slice();
    let left = build(random, (nodes - 1) / 2);
    let right = build(random, nodes - 1 - (nodes - 1) / 2);
    Some(Box::new(Node { value, data, children: [left, right] }))
}

/// The node at which a walk ends that takes up to `steps` steps, to the sides that `bits` say; and
/// the bits left.
fn walk(tree: &mut Node, steps: u64, mut bits: u64) -> (&mut Node, u64) {
    let mut node = tree;
    for _ in 0..steps {
        let side = (bits & 1) as usize;
        bits >>= 1;
        if node.children[side].is_none() {
            break;
        }
        node = node.children[side].as_mut().expect("there is a child");
    }
    (node, bits)
}

impl Forest {
    fn operation(&mut self) {
        let bits = self.random.next();
        let at = self.random.below(self.trees.len());
        match bits >> 62 {
            0 | 1 => self.trees[at] = build(&mut self.random, 1 + (bits & 15)),
            2 => self.exchange(bits, at),
            _ => self.read(bits, at),
        }
    }

    /// Lets two subtrees of different trees change places.
    fn exchange(&mut self, bits: u64, at: usize) {
        let mut other = self.random.below(self.trees.len() - 1);
        other += usize::from(other >= at);
        let [a, b] = self.trees.get_disjoint_mut([at, other]).expect("the trees differ");
        let (a, a_bits) = walk(a.as_mut().expect("no tree is empty"), bits & 3, (bits >> 2) & 0xff);
        let (b, b_bits) = walk(b.as_mut().expect("no tree is empty"), (bits >> 16) & 3, (bits >> 18) & 0xff);
        std::mem::swap(&mut a.children[(a_bits & 1) as usize], &mut b.children[(b_bits & 1) as usize]);
        self.checksum.fold(a.value ^ b.value);
    }

    /// Reads what lies on a path.
    fn read(&mut self, bits: u64, at: usize) {
        let (mut steps, mut bits) = (bits & 7, bits >> 3);
        let mut next = self.trees[at].as_deref();
        while let Some(node) = next {
            self.checksum.fold(node.value ^ u64::from(node.data[node.data.len() - 1]));
            if steps == 0 {
                break;
            }
            steps -= 1;
            next = node.children[(bits & 1) as usize].as_deref();
            bits >>= 1;
        }
    }
}

/// Folds in all nodes of a tree, each before its children.
fn check(checksum: &mut Checksum, tree: Option<&Node>) {
    if let Some(node) = tree {
        checksum.fold(node.value);
        checksum.fold(u64::from(node.data[0]) + node.data.len() as u64);
        node.children.iter().for_each(|child| check(checksum, child.as_deref()));
    }
}

pub fn run(parameters: Graph, common: &Common) -> Outcome {
    let Graph { slots, operations, batch } = parameters;
    let mut random = Random::new(common.seed, 1);
    let trees = (0..slots).map(|_| {
        let nodes = 1 + (random.next() & 15);
        build(&mut random, nodes)
    });
    let trees = trees.collect();
    let mut forest = Forest { trees, random, checksum: Checksum::default() };
    for _ in 0..operations / 10 {
        forest.operation();
    }
    let mut timed = Timed::begin(common.interval_ns, operations / batch, 1);
    for _ in 0..operations / batch {
        timed.wait(|| ());
        for _ in 0..batch {
            forest.operation();
        }
        timed.done();
    }
    let timings = timed.end();
    let Forest { trees, mut checksum, .. } = forest;
    trees.iter().for_each(|tree| check(&mut checksum, tree.as_deref()));
    Outcome { checksum, operations: operations / batch * batch, timings }
}
