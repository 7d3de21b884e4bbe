//! What a mutator does all the time: allocate, store references, poll, use handles. Each beside what a
//! Rust program without a collector does instead.
//!
//! The heap collects by itself meanwhile, on its own threads; what it costs the mutator is part of
//! the figure.

use std::alloc::{GlobalAlloc as _, Layout};
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use mimalloc::MiMalloc;
use strikeslip::gc::events::{Listener, Phase};
use strikeslip::{Field, Heap, HeapOptions, Mutator, OutOfMemory, Slot, object};

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
                let begin = Instant::now();
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
    group.bench_function("malloc and free", |b| {
        // SAFETY: what was allocated is freed once.
        b.iter(|| unsafe { libc::free(black_box(libc::malloc(black_box(32)))) });
    });
    group.bench_function("mimalloc", |b| {
        let layout = Layout::new::<[u64; 4]>();
        // SAFETY: the layout is not empty, and what was allocated with it is freed with it, once.
        b.iter(|| unsafe { MiMalloc.dealloc(black_box(MiMalloc.alloc(black_box(layout))), layout) });
    });
    group.finish();
}

/// Whether the collector marks at present.
#[derive(Default)]
struct Marking(AtomicBool);

impl Listener for Marking {
    fn phase_started(&self, phase: Phase) {
        if phase == Phase::Mark {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn phase_ended(&self, phase: Phase, _duration: Duration) {
        if phase == Phase::Mark {
            self.0.store(false, Ordering::Relaxed);
        }
    }
}

/// Stores while the collector marks: a list so long that marking it takes a while.
fn barrier(c: &mut Criterion) {
    const NODES: usize = 4 << 20;
    const AT_ONCE: u32 = 1024;
    let options = HeapOptions { limit_bytes: 1 << 30, automatic: false, ..HeapOptions::default() };
    let heap = Heap::new(options).expect("a heap can be created");
    let marking = Arc::new(Marking::default());
    heap.collector().add_listener(Arc::clone(&marking) as Arc<dyn Listener>);
    let measured = heap.attach(|m| {
        m.scope(|m, s| {
            let list = m.alloc::<Node>(s)?;
            for _ in 0..NODES {
                m.scope(|m, s| {
                    let node = m.alloc::<Node>(s)?.get(m);
                    node.next.store(m, Some(list.get(m)));
                    list.set(m, node);
                    Ok::<_, OutOfMemory>(())
                })?;
            }
            let (from, to) = (m.alloc::<Node>(s)?, m.alloc::<Node>(s)?);
            let stores = |m: &mut Mutator, times: u64| {
                let (mut total, mut done) = (Duration::ZERO, 0);
                while done < times {
                    m.heap().collector().request_collection();
                    while !marking.0.load(Ordering::Relaxed) {
                        m.safepoint();
                    }
                    while marking.0.load(Ordering::Relaxed) && done < times {
                        let begin = Instant::now();
                        for _ in 0..AT_ONCE {
                            black_box(from.get(m)).next.store(m, Some(black_box(to.get(m))));
                        }
                        total += begin.elapsed();
                        done += u64::from(AT_ONCE);
                        m.safepoint();
                    }
                }
                total.mul_f64(times as f64 / done as f64)
            };
            let mut group = c.benchmark_group("references");
            group.bench_function("store, barrier on (marking beside it)", |b| {
                b.iter_custom(|times| stores(m, times))
            });
            group.finish();
            Ok::<_, OutOfMemory>(())
        })
    });
    measured.expect("this thread is not attached yet").expect("the heap is large enough");
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
    targets = allocation, references, barrier, polls
}
criterion_main!(benches);
