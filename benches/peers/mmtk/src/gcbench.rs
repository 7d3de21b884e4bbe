//! GCBench. Nodes: left, right, and the words i and j.

use peers_common::options::Depth;
use peers_common::random::Checksum;
use peers_common::report::Outcome;
use peers_common::timing::Timed;

use crate::heap::Heap;
use crate::object::Object;
use crate::world::WORLD;

const LEFT: usize = 0;
const RIGHT: usize = 1;
const I: usize = 0;
const J: usize = 1;

fn node(heap: &mut Heap) -> Object {
    heap.alloc(2, 16)
}

fn bottom_up(heap: &mut Heap, depth: u32, j: u64) -> Object {
    if depth > 0 {
        let left = bottom_up(heap, depth - 1, j);
        heap.push(left);
        let right = bottom_up(heap, depth - 1, j);
        heap.push(right);
    }
    let node = node(heap);
    node.set_word(I, u64::from(depth));
    node.set_word(J, j);
    if depth > 0 {
        node.store_first(RIGHT, heap.pop());
        node.store_first(LEFT, heap.pop());
    }
    node
}

/// Fills the tree whose root is the last handle.
fn fill(heap: &mut Heap, root: Object, depth: u32, j: u64) {
    root.set_word(I, u64::from(depth));
    root.set_word(J, j);
    if depth == 0 {
        return;
    }
    let handle = heap.push(root);
    for side in [LEFT, RIGHT] {
        let child = node(heap);
        heap.store(heap.get(handle), side, Some(child));
        fill(heap, child, depth - 1, j);
    }
    heap.pop();
}

fn top_down(heap: &mut Heap, depth: u32, j: u64) -> Object {
    let root = node(heap);
    heap.push(root);
    fill(heap, root, depth, j);
    heap.pop()
}

/// Follows one path, left and right in turn, and adds up what lies on it.
fn path(tree: Object) -> u64 {
    let (mut sum, mut side, mut next) = (0, LEFT, Some(tree));
    while let Some(node) = next {
        sum += node.word(I) + node.word(J);
        next = node.load(side);
        side = LEFT + RIGHT - side;
    }
    sum
}

const fn nodes(depth: u32) -> u64 {
    (1 << (depth + 1)) - 1
}

pub fn run(heap: &mut Heap, parameters: Depth) -> Outcome {
    let stretch = parameters.depth;
    let most = stretch - 2;
    let mut checksum = Checksum::default();
    WORLD.count_pauses();
    let timed = Timed::begin(0, 0, 1);
    checksum.fold(path(bottom_up(heap, stretch, 0)));
    let long_lived = top_down(heap, most, 1);
    heap.push(long_lived);
    let length = 2 << stretch;
    let array = heap.alloc(0, 8 * length);
    (0..length).for_each(|index| array.set_word(index, (1.0 / (index as f64 + 1.0)).to_bits()));
    heap.push(array);
    let mut operations = nodes(stretch) + nodes(most);
    for depth in (4..=most).step_by(2) {
        let trees = 2 * nodes(stretch) / nodes(depth);
        (0..trees).for_each(|j| checksum.fold(path(top_down(heap, depth, j))));
        (0..trees).for_each(|j| checksum.fold(path(bottom_up(heap, depth, j))));
        operations += 2 * trees * nodes(depth);
    }
    let array = heap.pop();
    checksum.fold(path(heap.pop()));
    checksum.fold(array.word(1000));
    Outcome { checksum, operations, timings: timed.end() }
}
