//! Binary trees.

use std::hint::black_box;

use peers_common::options::Depth;
use peers_common::random::Checksum;
use peers_common::report::Outcome;
use peers_common::timing::Timed;

struct Node {
    left: Option<Box<Node>>,
    right: Option<Box<Node>>,
}

fn build(depth: u32) -> Box<Node> {
    let child = || (depth > 0).then(|| build(depth - 1));
    Box::new(Node { left: child(), right: child() })
}

fn count(node: &Node) -> u64 {
    1 + node.left.as_deref().map_or(0, count) + node.right.as_deref().map_or(0, count)
}

pub fn run(parameters: Depth) -> Outcome {
    let depth = parameters.depth;
    let mut checksum = Checksum::default();
    let timed = Timed::begin(0, 0, 1);
    let mut operations = count(black_box(&build(depth + 1)));
    checksum.fold(operations);
    let long_lived = black_box(build(depth));
    for depth_now in (4..=depth).step_by(2) {
        let total: u64 =
            (0..1_u64 << (depth - depth_now + 4)).map(|_| count(black_box(&build(depth_now)))).sum();
        checksum.fold(total);
        operations += total;
    }
    let total = count(&long_lived);
    checksum.fold(total);
    Outcome { checksum, operations: operations + total, timings: timed.end() }
}
