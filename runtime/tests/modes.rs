//! The same program in every mode with every delivery: same results, and in concurrent modes
//! mutators that took faults. (A test in which nobody faults proves nothing.)

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Node, Random, SetOnDrop, all_modes, check_list, heap_in, list, options};
use strikeslip::{
    Array, Heap, HeapOptions, Local, Mode, Mutator, Scope, StressMode, StressModes, StressOptions,
    VerifyLevel,
};

const SLOTS: usize = 20_000;

/// Replaces, links and drops nodes at random, and keeps a plain map of what must be there. By turns
/// a collection is waited for, or only asked for: then this goes on beside it.
fn churn(m: &mut Mutator, s: &Scope<'_>, random: &mut Random, collect_every: usize, steps: usize) {
    let table = m.alloc_array::<Node>(s, SLOTS).unwrap();
    let mut expected: HashMap<usize, u64> = HashMap::new();
    for step in 0..steps {
        m.scope(|m, inner| {
            let (index, other, value) = (random.below(SLOTS), random.below(SLOTS), step as u64 + 1);
            match random.below(8) {
                0 => {
                    table.get(m).set(m, index, None);
                    expected.remove(&index);
                }
                1..=5 => {
                    let node = m.alloc::<Node>(inner).unwrap();
                    let (node, table) = (node.get(m), table.get(m));
                    node.value.set(value);
                    node.left.store(m, table.get(other));
                    node.right.store(m, Some(node));
                    table.set(m, index, Some(node));
                    expected.insert(index, value);
                }
                // Cuts chains, so that most nodes die.
                6 => table.get(m).get(index).into_iter().for_each(|node| node.left.store(m, None)),
                _ => _ = m.alloc_zeroed_bytes(inner, random.below(3_000)).unwrap(),
            }
        });
        if step % collect_every == collect_every - 1 {
            match step / collect_every % 3 {
                0 => m.collect(),
                _ => m.heap().collector().request_collection(),
            }
        }
        if step % 1_000 == 0 {
            check_table(&table.get(m), &expected);
        }
    }
    check_table(&table.get(m), &expected);
}

fn check_table(table: &Array<Node>, expected: &HashMap<usize, u64>) {
    for index in 0..SLOTS {
        let node = table.get(index);
        assert_eq!(node.map(|node| node.value.get()), expected.get(&index).copied(), "element {index}");
        if let Some(node) = node {
            assert!(node.right.load() == Some(node), "a reference to itself follows the object");
        }
    }
}

/// Runs a program while another thread asks for collections: a mutator that itself waits for one takes no
/// fault in it.
fn under_collections(heap: &Heap, program: impl Fn(&Heap)) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        if heap.mode().is_concurrent() {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    heap.collector().request_collection();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let _end = SetOnDrop(&done);
        program(heap);
    });
}

/// Runs a program in every mode; in concurrent modes again, if by chance no mutator took a fault. On a busy machine the
/// workers may always be done before a mutator gets a processor: so then it is mutators that build, as long as they do.
fn run_all(more: &HeapOptions, program: impl Fn(&Heap)) {
    let stress =
        StressOptions { modes: StressModes::of(&[StressMode::NoWorkers]), ..StressOptions::default() };
    let without_workers = HeapOptions { stress, ..more.clone() };
    for (mode, delivery) in all_modes() {
        let begin = Instant::now();
        for options in std::iter::once(more).chain(std::iter::repeat(&without_workers)) {
            let Some(heap) = heap_in(mode, delivery, options.clone()) else { break };
            under_collections(&heap, &program);
            let counters = heap.snapshot().counters;
            assert!(mode == Mode::NoGc || counters.cycles > 0, "{mode} {delivery:?}: {counters:?}");
            if !mode.is_concurrent() || counters.mutator_faults > 0 {
                break;
            }
            let patience = begin.elapsed() < Duration::from_secs(30);
            assert!(patience, "{mode} {delivery:?}: no mutator took a fault: {counters:?}");
        }
    }
}

#[test]
fn one_mutator_changes_a_graph_under_collections() {
    run_all(&options(), |heap| {
        heap.attach(|m| m.scope(|m, s| churn(m, s, &mut Random(1), 2_000, 40_000))).unwrap();
    });
}

#[test]
fn one_mutator_under_the_verifier() {
    let more = HeapOptions { verify: VerifyLevel::Shadow, ..options() };
    run_all(&more, |heap| {
        heap.attach(|m| m.scope(|m, s| churn(m, s, &mut Random(2), 1_000, 10_000))).unwrap();
    });
}

#[test]
fn three_mutators_change_graphs_under_collections() {
    run_all(&options(), |heap| {
        std::thread::scope(|threads| {
            for seed in 0..3 {
                threads.spawn(move || {
                    heap.attach(|m| m.scope(|m, s| churn(m, s, &mut Random(seed), 3_000, 12_000))).unwrap();
                });
            }
        });
    });
}

/// More garbage than the heap can hold: the collector starts by itself, and nobody runs out.
#[test]
fn garbage_is_collected_without_being_asked() {
    let more = HeapOptions { limit_bytes: 32 << 20, ..options() };
    for (mode, delivery) in all_modes().into_iter().filter(|&(mode, _)| mode != Mode::NoGc) {
        let Some(heap) = heap_in(mode, delivery, more.clone()) else { continue };
        heap.attach(|m| {
            m.scope(|m, s| {
                let kept = list(m, s, 20_000).unwrap();
                for _ in 0..200_000 {
                    m.scope(|m, inner| _ = m.alloc_zeroed_bytes(inner, 1_000).unwrap());
                }
                check_list(kept.get(m), 20_000);
            });
        })
        .unwrap();
        assert!(heap.snapshot().counters.cycles > 0, "{mode}: {:?}", heap.snapshot().counters);
    }
}

/// After a flip a long list is walked at once: its pages are missing, and are served to the walker.
#[test]
fn a_long_list_is_walked_right_after_a_flip() {
    run_all(&options(), |heap| {
        heap.attach(|m| {
            m.scope(|m, s| {
                for _ in 0..3 {
                    m.scope(|m, inner| {
                        let head = m.alloc::<Node>(inner).unwrap();
                        extend_sparsely(m, &head);
                        request_and_walk(m, &head);
                    });
                }
                check_list(list(m, s, 100).unwrap().get(m), 100);
            });
        })
        .unwrap();
    });
}

const SPARSE: u64 = 20_000;

/// Puts nodes with the values 1 to `SPARSE` before the first one, with garbage between them, so that
/// evacuating them pays.
fn extend_sparsely(m: &mut Mutator, head: &Local<'_, Node>) {
    for value in 1..=SPARSE {
        m.scope(|m, inner| {
            _ = m.alloc_zeroed_bytes(inner, 500).unwrap();
            let node = m.alloc::<Node>(inner).unwrap();
            let node = node.get(m);
            node.value.set(value);
            node.left.store(m, Some(head.get(m)));
            head.set(m, node);
        });
    }
}

/// Walks the list from the request of a collection to its end.
fn request_and_walk(m: &mut Mutator, head: &Local<'_, Node>) {
    let heap = m.heap().clone();
    let cycles = || heap.snapshot().counters.cycles;
    let (before, begin) = (cycles(), Instant::now());
    heap.collector().request_collection();
    loop {
        let mut next = Some(head.get(m));
        let mut sum = 0;
        while let Some(node) = next {
            sum += node.value.get();
            next = node.as_ref().left.load();
        }
        assert_eq!(sum, (0..=SPARSE).sum());
        m.safepoint();
        if cycles() > before || heap.mode() == Mode::NoGc {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "the collection does not end");
    }
}
