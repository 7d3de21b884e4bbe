//! Binary trees. Nodes: left, right.

use peers_common::options::Depth;
use peers_common::random::Checksum;
use peers_common::report::Outcome;
use peers_common::timing::Timed;

use crate::heap::Heap;
use crate::object::Object;
use crate::world::WORLD;

fn build(heap: &mut Heap, depth: u32) -> Object {
    if depth == 0 {
        return heap.alloc(2, 0);
    }
    let left = build(heap, depth - 1);
    heap.push(left);
    let right = build(heap, depth - 1);
    heap.push(right);
    let node = heap.alloc(2, 0);
    node.store_first(1, heap.pop());
    node.store_first(0, heap.pop());
    node
}

fn count(node: Object) -> u64 {
    1 + node.load(0).map_or(0, count) + node.load(1).map_or(0, count)
}

pub fn run(heap: &mut Heap, parameters: Depth) -> Outcome {
    let depth = parameters.depth;
    let mut checksum = Checksum::default();
    WORLD.count_pauses();
    let timed = Timed::begin(0, 0, 1);
    let mut operations = count(build(heap, depth + 1));
    checksum.fold(operations);
    let long_lived = build(heap, depth);
    heap.push(long_lived);
    for depth_now in (4..=depth).step_by(2) {
        let trees = 1_u64 << (depth - depth_now + 4);
        let total: u64 = (0..trees).map(|_| count(build(heap, depth_now))).sum();
        checksum.fold(total);
        operations += total;
    }
    let total = count(heap.pop());
    checksum.fold(total);
    Outcome { checksum, operations: operations + total, timings: timed.end() }
}
