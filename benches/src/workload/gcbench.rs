//! GCBench (Ellis, Kovac and Boehm): trees built from the leaves up and from the root down, beside a long-lived
//! tree and a long-lived array of numbers.

use strikeslip::{Field, Gc, Heap, Local, Mutator, OutOfMemory, Reserved, Scope, Slot, object};

use super::trees::{AT_ONCE, Parameters, nodes};
use super::{Checksum, Look, Outcome, Task, Workload, on_mutator};
use crate::error::{Error, expect_equal};
use crate::measure::timed::Timed;

/// The workload.
#[derive(Debug)]
pub struct Gcbench(pub Parameters);

object! {
    /// A node.
    struct Node {
        left: Slot<Node>,
        right: Slot<Node>,
        i: Field<u64>,
        j: Field<u64>,
    }
}

impl Workload for Gcbench {
    fn run(&self, heap: &Heap, task: &Task) -> Result<Outcome, Error> {
        let (stretch, most) = (self.0.depth, self.0.depth - 2);
        on_mutator(heap, 1, |m| {
            let mut checksum = Checksum::default();
            let timed = Timed::begin(heap, task.epoch, 0, 0);
            checksum.fold(short_lived(m, stretch, 0, Direction::Up)?);
            let mut operations = nodes(stretch) + nodes(most);
            m.scope(|m, s| {
                let long_lived = m.alloc::<Node>(s)?;
                top_down(m, long_lived, most, 1)?;
                let array = m.alloc_words(s, 2 << stretch)?;
                let numbers = array.get(m);
                (0..2 << stretch)
                    .for_each(|index| numbers.set(index, (1.0 / (index as f64 + 1.0)).to_bits()));
                for depth in (4..=most).step_by(2) {
                    let trees = 2 * nodes(stretch) / nodes(depth);
                    for j in 0..trees {
                        checksum.fold(short_lived(m, depth, j, Direction::Down)?);
                    }
                    for j in 0..trees {
                        checksum.fold(short_lived(m, depth, j, Direction::Up)?);
                    }
                    operations += 2 * trees * nodes(depth);
                }
                let sum = path(long_lived.get(m).as_ref());
                expect_equal("sum of the long-lived tree of depth", most as usize, expected(most, 1), sum)?;
                checksum.fold(sum);
                checksum.fold(array.get(m).get(1000));
                Ok::<_, Error>(())
            })?;
            Ok(Outcome { checksum, operations, mutators: 1, section: timed.end() })
        })
    }

    fn most_live(&self, heap: &Heap, _seed: u64, look: Look<'_>) -> Result<(), Error> {
        let (stretch, most) = (self.0.depth, self.0.depth - 2);
        on_mutator(heap, 1, |m| {
            m.scope(|m, s| {
                let tree = place(m, s)?;
                bottom_up(m, tree, stretch, 0)?;
                look(m);
                Ok::<_, Error>(())
            })?;
            m.scope(|m, s| {
                let long_lived = m.alloc::<Node>(s)?;
                top_down(m, long_lived, most, 1)?;
                let _array = m.alloc_words(s, 2 << stretch)?;
                let short_lived = place(m, s)?;
                bottom_up(m, short_lived, most, 0)?;
                look(m);
                Ok(())
            })
        })
    }
}

#[derive(Copy, Clone)]
enum Direction {
    Up,
    Down,
}

/// Builds a tree and adds up a path in it.
fn short_lived(m: &mut Mutator, depth: u32, j: u64, direction: Direction) -> Result<u64, Error> {
    let sum = m.scope(|m, s| {
        let tree = place(m, s)?;
        match direction {
            Direction::Up => bottom_up(m, tree, depth, j)?,
            Direction::Down => top_down(m, tree, depth, j)?,
        }
        Ok::<_, OutOfMemory>(path(tree.get(m).as_ref()))
    })?;
    expect_equal("sum of a tree of depth", depth as usize, expected(depth, j), sum)?;
    Ok(sum)
}

/// A handle for a tree: the root, for [`top_down`], or what [`bottom_up`] will replace.
fn place<'s>(m: &mut Mutator, s: &Scope<'s>) -> Result<Local<'s, Node>, OutOfMemory> {
    m.alloc::<Node>(s)
}

/// Makes `into` refer to a new tree, of which the children are allocated before their parent.
fn bottom_up(m: &mut Mutator, into: Local<'_, Node>, depth: u32, j: u64) -> Result<(), OutOfMemory> {
    if depth <= AT_ONCE {
        let reserved = m.reserve(nodes(depth) as usize * Reserved::bytes_of::<Node>())?;
        into.set(reserved.mutator(), bottom_up_at_once(&reserved, depth, j));
        return Ok(());
    }
    m.scope(|m, s| {
        // Places for the children: until they are there, whatever `into` refers to.
        let children = [s.root(into.get(m)), s.root(into.get(m))];
        for child in children {
            bottom_up(m, child, depth - 1, j)?;
        }
        let reserved = m.reserve(Reserved::bytes_of::<Node>())?;
        let m = reserved.mutator();
        into.set(m, node_above(&reserved, depth, j, children.map(|child| child.get(m))));
        Ok(())
    })
}

fn bottom_up_at_once<'n>(reserved: &Reserved<'n>, depth: u32, j: u64) -> Gc<'n, Node> {
    if depth == 0 {
        let leaf = reserved.alloc::<Node>();
        fill(leaf.as_ref(), 0, j);
        return leaf;
    }
    let children = [bottom_up_at_once(reserved, depth - 1, j), bottom_up_at_once(reserved, depth - 1, j)];
    node_above(reserved, depth, j, children)
}

fn node_above<'n>(
    reserved: &Reserved<'n>,
    depth: u32,
    j: u64,
    [left, right]: [Gc<'n, Node>; 2],
) -> Gc<'n, Node> {
    let (m, node) = (reserved.mutator(), reserved.alloc::<Node>());
    node.left.store(m, Some(left));
    node.right.store(m, Some(right));
    fill(node.as_ref(), depth, j);
    node
}

/// Fills a node in, and gives it its subtrees: each child is allocated and filled in before the next.
fn top_down(m: &mut Mutator, node: Local<'_, Node>, depth: u32, j: u64) -> Result<(), OutOfMemory> {
    if depth <= AT_ONCE {
        let reserved = m.reserve((nodes(depth) - 1) as usize * Reserved::bytes_of::<Node>())?;
        top_down_at_once(&reserved, node.get(reserved.mutator()), depth, j);
        return Ok(());
    }
    fill(node.get(m).as_ref(), depth, j);
    for side in [Side::Left, Side::Right] {
        m.scope(|m, s| {
            let child = m.alloc::<Node>(s)?;
            side.of(node.get(m).as_ref()).store(m, Some(child.get(m)));
            top_down(m, child, depth - 1, j)
        })?;
    }
    Ok(())
}

fn top_down_at_once<'n>(reserved: &Reserved<'n>, node: Gc<'n, Node>, depth: u32, j: u64) {
    fill(node.as_ref(), depth, j);
    if depth > 0 {
        for side in [Side::Left, Side::Right] {
            let child = reserved.alloc::<Node>();
            side.of(node.as_ref()).store(reserved.mutator(), Some(child));
            top_down_at_once(reserved, child, depth - 1, j);
        }
    }
}

fn fill(node: &Node, depth: u32, j: u64) {
    node.i.set(u64::from(depth));
    node.j.set(j);
}

#[derive(Copy, Clone)]
enum Side {
    Left,
    Right,
}

impl Side {
    const fn of(self, node: &Node) -> &Slot<Node> {
        match self {
            Self::Left => &node.left,
            Self::Right => &node.right,
        }
    }
}

/// Follows one path, left and right in turn, and adds up what lies on it.
fn path(tree: &Node) -> u64 {
    let (mut sum, mut side, mut next) = (0, Side::Left, Some(tree));
    while let Some(node) = next {
        sum += node.i.get() + node.j.get();
        next = side.of(node).load().map(Gc::as_ref);
        side = if matches!(side, Side::Left) { Side::Right } else { Side::Left };
    }
    sum
}

/// What [`path`] has to find.
fn expected(depth: u32, j: u64) -> u64 {
    u64::from(depth * (depth + 1) / 2) + u64::from(depth + 1) * j
}
