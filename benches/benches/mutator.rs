//! What a mutator does all the time: allocate, store references, poll, use handles. Each beside what a
//! Rust program without a collector does instead.
//!
//! The heap collects by itself meanwhile, on its own threads; what it costs the mutator is part of
//! the figure.

use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use strikeslip::{Field, Heap, HeapOptions, Mutator, Slot, object};

object! {
    /// 32 bytes with its header.
    struct Node {
        next: Slot<Node>,
        value: Field<u64>,
        spare: Field<u64>,
    }
}

/// The same for the system's allocator.
struct Plain {
    _next: Option<Box<Plain>>,
    _values: [u64; 3],
}

/// Runs `f` as a mutator of a heap of 256 MiB.
fn with_mutator(f: impl FnOnce(&mut Mutator)) {
    let heap = Heap::new(HeapOptions::default()).expect("a heap can be created");
    heap.attach(f).expect("this thread is not attached yet");
}

fn allocation(c: &mut Criterion) {
    let mut group = c.benchmark_group("allocate and drop 32 bytes");
    with_mutator(|m| {
        group.bench_function("alloc", |b| {
            b.iter(|| {
                m.scope(|m, s| {
                    black_box(m.alloc::<Node>(s).expect("garbage is collected"));
                });
            });
        });
        group.bench_function("reserve 64, alloc each", |b| {
            b.iter_custom(|times| {
                let begin = std::time::Instant::now();
                for _ in 0..times.div_ceil(64) {
                    let reserved = m.reserve(64 * 32).expect("garbage is collected");
                    (0..64).for_each(|_| {
                        black_box(reserved.alloc::<Node>());
                    });
                }
                // Up to 63 more were allocated than were asked for.
                begin.elapsed() * u32::try_from(times).unwrap_or(u32::MAX)
                    / u32::try_from(times.next_multiple_of(64)).unwrap_or(u32::MAX)
            });
        });
    });
    group.bench_function("Box", |b| {
        b.iter(|| drop(black_box(Box::new(Plain { _next: None, _values: [0; 3] }))));
    });
    group.finish();
}

fn references(c: &mut Criterion) {
    let mut group = c.benchmark_group("references");
    with_mutator(|m| {
        m.scope(|m, s| {
            let from = m.alloc::<Node>(s).expect("the heap is empty");
            let to = m.alloc::<Node>(s).expect("the heap is empty");
            group.bench_function("store, barrier off", |b| {
                let (from, to) = (from.get(m), to.get(m));
                b.iter(|| black_box(from).next.store(m, Some(black_box(to))));
            });
            from.get(m).next.store(m, Some(to.get(m)));
            group.bench_function("load", |b| {
                let from = from.get(m);
                b.iter(|| black_box(black_box(from).as_ref().next.load()));
            });
            group.bench_function("Local::get", |b| b.iter(|| black_box(black_box(from).get(m))));
            let persistent = m.persistent(from.get(m));
            group.bench_function("Persistent::get", |b| b.iter(|| black_box(black_box(&persistent).get(m))));
        });
    });
    group.bench_function("Rc clone and drop", |b| {
        let shared = Rc::new(1_u64);
        b.iter(|| drop(black_box(Rc::clone(black_box(&shared)))));
    });
    group.finish();
}

fn polls(c: &mut Criterion) {
    let mut group = c.benchmark_group("mutator");
    with_mutator(|m| {
        group.bench_function("safepoint", |b| b.iter(|| m.safepoint()));
        group.bench_function("scope, empty", |b| b.iter(|| m.scope(|_, s| _ = black_box(s))));
        group.bench_function("blocked, empty", |b| b.iter(|| m.blocked(|| black_box(()))));
        m.scope(|m, s| {
            let node = m.alloc::<Node>(s).expect("the heap is empty");
            group.bench_function("scope with one handle", |b| {
                b.iter(|| m.scope(|m, s| black_box(s.root(node.get(m)).get(m).value.get())));
            });
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = allocation, references, polls
}
criterion_main!(benches);
