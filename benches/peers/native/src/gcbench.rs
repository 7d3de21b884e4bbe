//! GCBench: trees built from the leaves up, and from the root down.

use std::hint::black_box;

use peers_common::options::Depth;
use peers_common::random::Checksum;
use peers_common::report::Outcome;
use peers_common::timing::Timed;

#[derive(Default)]
struct Node {
    left: Option<Box<Node>>,
    right: Option<Box<Node>>,
    i: u64,
    j: u64,
}

fn bottom_up(depth: u32, j: u64) -> Box<Node> {
    let child = || (depth > 0).then(|| bottom_up(depth - 1, j));
    Box::new(Node { left: child(), right: child(), i: u64::from(depth), j })
}

fn top_down(node: &mut Node, depth: u32, j: u64) {
    node.i = u64::from(depth);
    node.j = j;
    if depth > 0 {
        top_down(node.left.insert(Box::default()), depth - 1, j);
        top_down(node.right.insert(Box::default()), depth - 1, j);
    }
}

/// Follows one path, left and right in turn, and adds up what lies on it.
fn path(tree: &Node) -> u64 {
    let (mut sum, mut left, mut next) = (0, true, Some(tree));
    while let Some(node) = next {
        sum += node.i + node.j;
        next = if left { node.left.as_deref() } else { node.right.as_deref() };
        left = !left;
    }
    sum
}

const fn nodes(depth: u32) -> u64 {
    (1 << (depth + 1)) - 1
}

pub fn run(parameters: Depth) -> Outcome {
    let stretch = parameters.depth;
    let most = stretch - 2;
    let mut checksum = Checksum::default();
    let timed = Timed::begin(0, 0, 1);
    checksum.fold(path(black_box(&bottom_up(stretch, 0))));
    let mut long_lived = Box::<Node>::default();
    top_down(&mut long_lived, most, 1);
    let array: Vec<f64> = (0..2 << stretch).map(|index| 1.0 / (index as f64 + 1.0)).collect();
    let mut operations = nodes(stretch) + nodes(most);
    for depth in (4..=most).step_by(2) {
        let trees = 2 * nodes(stretch) / nodes(depth);
        for j in 0..trees {
            let mut tree = Box::<Node>::default();
            top_down(&mut tree, depth, j);
            checksum.fold(path(black_box(&tree)));
        }
        for j in 0..trees {
            checksum.fold(path(black_box(&bottom_up(depth, j))));
        }
        operations += 2 * trees * nodes(depth);
    }
    checksum.fold(path(&long_lived));
    checksum.fold(black_box(array)[1000].to_bits());
    Outcome { checksum, operations, timings: timed.end() }
}
