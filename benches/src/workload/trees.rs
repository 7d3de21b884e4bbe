//! Binary trees: a large one that dies at once, a long-lived one, and many short-lived ones of rising depth.

use clap::Args;
use serde::{Deserialize, Serialize};
use strikeslip::{Gc, Heap, Local, Mutator, OutOfMemory, Reserved, Scope, Slot, object};

use super::{Checksum, Look, Outcome, Task, Workload, on_mutator};
use crate::error::{Error, expect_equal};
use crate::measure::timed::Timed;

/// Parameters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[group(id = "trees-parameters")]
pub struct Parameters {
    /// trees, gcbench: depth of the trees
    #[arg(long, default_value_t = 19, value_parser = clap::value_parser!(u32).range(6..=26))]
    pub depth: u32,
}

/// The workload.
#[derive(Debug)]
pub struct Trees(pub Parameters);

object! {
    /// A node.
    struct Node {
        left: Slot<Node>,
        right: Slot<Node>,
    }
}

/// Trees up to this depth are allocated with one safepoint.
pub(super) const AT_ONCE: u32 = 5;

/// Nodes of a tree of this depth.
pub(super) const fn nodes(depth: u32) -> u64 {
    (1 << (depth + 1)) - 1
}

impl Workload for Trees {
    fn run(&self, heap: &Heap, task: &Task) -> Result<Outcome, Error> {
        let depth = self.0.depth;
        on_mutator(heap, 1, |m| {
            let mut checksum = Checksum::default();
            let timed = Timed::begin(heap, task.epoch, 0, 0);
            let mut operations = build_and_count(m, depth + 1)?;
            checksum.fold(operations);
            m.scope(|m, s| {
                let long_lived = build(m, s, depth)?;
                for short_depth in (4..=depth).step_by(2) {
                    let trees = 1_u64 << (depth - short_depth + 4);
                    let mut total = 0;
                    for _ in 0..trees {
                        total += build_and_count(m, short_depth)?;
                    }
                    expect_equal(
                        "nodes of trees of depth",
                        short_depth as usize,
                        trees * nodes(short_depth),
                        total,
                    )?;
                    checksum.fold(total);
                    operations += total;
                }
                let total = count(long_lived.get(m).as_ref());
                checksum.fold(total);
                operations += total;
                Ok::<_, Error>(())
            })?;
            Ok(Outcome { checksum, operations, mutators: 1, section: timed.end() })
        })
    }

    fn most_live(&self, heap: &Heap, _seed: u64, look: Look<'_>) -> Result<(), Error> {
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                let _tree = build(m, s, self.0.depth + 1)?;
                look(m);
                Ok(())
            })
        })
    }
}

fn build_and_count(m: &mut Mutator, depth: u32) -> Result<u64, OutOfMemory> {
    m.scope(|m, s| Ok(count(build(m, s, depth)?.get(m).as_ref())))
}

fn build<'s>(m: &mut Mutator, s: &Scope<'s>, depth: u32) -> Result<Local<'s, Node>, OutOfMemory> {
    let tree = m.alloc::<Node>(s)?;
    build_into(m, tree, depth)?;
    Ok(tree)
}

/// Makes `into` refer to a new tree, of which the children are allocated before their parent.
fn build_into(m: &mut Mutator, into: Local<'_, Node>, depth: u32) -> Result<(), OutOfMemory> {
    if depth <= AT_ONCE {
        let reserved = m.reserve(nodes(depth) as usize * Reserved::bytes_of::<Node>())?;
        into.set(reserved.mutator(), build_at_once(&reserved, depth));
        return Ok(());
    }
    m.scope(|m, s| {
        // Places for the children: until they are there, whatever `into` refers to.
        let children = [s.root(into.get(m)), s.root(into.get(m))];
        for child in children {
            build_into(m, child, depth - 1)?;
        }
        let reserved = m.reserve(Reserved::bytes_of::<Node>())?;
        let m = reserved.mutator();
        into.set(m, node_above(&reserved, children.map(|child| child.get(m))));
        Ok(())
    })
}

fn build_at_once<'n>(reserved: &Reserved<'n>, depth: u32) -> Gc<'n, Node> {
    if depth == 0 {
        return reserved.alloc::<Node>();
    }
    let children = [build_at_once(reserved, depth - 1), build_at_once(reserved, depth - 1)];
    node_above(reserved, children)
}

fn node_above<'n>(reserved: &Reserved<'n>, [left, right]: [Gc<'n, Node>; 2]) -> Gc<'n, Node> {
    let (m, node) = (reserved.mutator(), reserved.alloc::<Node>());
    node.left.store(m, Some(left));
    node.right.store(m, Some(right));
    node
}

fn count(node: &Node) -> u64 {
    let child = |slot: &Slot<Node>| slot.load().map_or(0, |child| count(&child));
    1 + child(&node.left) + child(&node.right)
}
