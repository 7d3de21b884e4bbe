//! What the collector does in a cycle, from the durations of its own phases: marking of small objects, of a list
//! and of wide arrays; the plan; building and installing all destinations; and one fault, by each delivery. The
//! kernel's floor is in `kernel.rs`, the whole evacuation beside it in `strikeslip-bench evacuate`.

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strikeslip::gc::Pressure;
use strikeslip::gc::events::{FaultPath, Phase};
use strikeslip::{
    Array, Delivery, Field, Heap, HeapOptions, Local, Mode, Mutator, OutOfMemory, Scope, Slot, Words, object,
};
use strikeslip_bench::measure::recorder::{Cycle, Recorder};

object! {
    /// 32 bytes with its header.
    struct Node {
        next: Slot<Node>,
        value: Field<u64>,
        spare: Field<u64>,
    }
}

const LIVE_BYTES: usize = 64 << 20;
const NODES: usize = LIVE_BYTES / 32;
/// Nodes of a short list.
const SHORT: usize = 16;

fn heap(delivery: Option<Delivery>) -> (Heap, Arc<Recorder>) {
    let options = HeapOptions {
        limit_bytes: 8 * LIVE_BYTES,
        mode: Mode::ConcurrentMove,
        delivery,
        fall_back: false,
        automatic: false,
        low_weight_marking: false,
        ..HeapOptions::default()
    };
    let heap = Heap::new(options).expect("a heap that moves can be created: see `doctor`");
    let recorder = Recorder::attach(&heap);
    (heap, recorder)
}

/// Runs `times` ordinary collections, and adds up `of` each.
fn cycles(m: &mut Mutator, recorder: &Recorder, times: u64, of: impl Fn(&Cycle) -> Duration) -> Duration {
    let heap = m.heap().clone();
    let mut total = Duration::ZERO;
    for _ in 0..times {
        recorder.forget();
        m.blocked(|| heap.collector().collect_with(Pressure::Normal));
        total += recorder.cycles().iter().map(&of).sum::<Duration>();
    }
    total
}

/// Lists of `length` nodes each, `NODES` nodes in all.
fn lists<'s>(m: &mut Mutator, s: &Scope<'s>, length: usize) -> Result<Local<'s, Array<Node>>, OutOfMemory> {
    let heads = m.alloc_array::<Node>(s, NODES / length)?;
    for at in 0..NODES / length {
        for _ in 0..length {
            m.scope(|m, s| {
                let node = m.alloc::<Node>(s)?.get(m);
                let head = heads.get(m).as_ref().slot(at);
                node.next.store(m, head.load());
                head.store(m, Some(node));
                Ok::<_, OutOfMemory>(())
            })?;
        }
    }
    Ok(heads)
}

/// Arrays of references to the same few objects.
fn arrays<'s>(m: &mut Mutator, s: &Scope<'s>) -> Result<Local<'s, Array<Array<Words>>>, OutOfMemory> {
    const LENGTH: usize = 64 << 10;
    let all = m.alloc_array::<Array<Words>>(s, LIVE_BYTES / 8 / LENGTH)?;
    let leaf = m.alloc_words(s, 3)?;
    for at in 0..LIVE_BYTES / 8 / LENGTH {
        m.scope(|m, s| {
            let array = m.alloc_array::<Words>(s, LENGTH)?;
            (0..LENGTH).for_each(|index| array.get(m).set(m, index, Some(leaf.get(m))));
            all.get(m).set(m, at, Some(array.get(m)));
            Ok::<_, OutOfMemory>(())
        })?;
    }
    Ok(all)
}

fn phase(phase: Phase) -> impl Fn(&Cycle) -> Duration {
    move |cycle| Duration::from_nanos(cycle.phase(phase))
}

fn marking(c: &mut Criterion) {
    let mut group = c.benchmark_group("collector: mark 64 MiB");
    group.throughput(Throughput::Bytes(LIVE_BYTES as u64));
    for (name, length) in [("small objects in short lists", SHORT), ("one list", NODES)] {
        let (heap, recorder) = heap(None);
        let measured = heap.attach(|m| {
            m.scope(|m, s| {
                let _lists = lists(m, s, length)?;
                m.collect();
                group
                    .bench_function(name, |b| b.iter_custom(|n| cycles(m, &recorder, n, phase(Phase::Mark))));
                if length == SHORT {
                    group.bench_function("the plan, same heap", |b| {
                        b.iter_custom(|n| cycles(m, &recorder, n, phase(Phase::Plan)));
                    });
                }
                Ok::<_, OutOfMemory>(())
            })
        });
        measured.expect("this thread is not attached yet").expect("the heap is large enough");
    }
    let (heap, recorder) = heap(None);
    let measured = heap.attach(|m| {
        m.scope(|m, s| {
            let _arrays = arrays(m, s)?;
            m.collect();
            group.bench_function("wide arrays", |b| {
                b.iter_custom(|n| cycles(m, &recorder, n, phase(Phase::Mark)))
            });
            Ok::<_, OutOfMemory>(())
        })
    });
    measured.expect("this thread is not attached yet").expect("the heap is large enough");
    group.finish();
}

/// One cycle that evacuates what was allocated since the last one, about half of which lives.
fn young_cycle(m: &mut Mutator, table: Local<'_, Array<Node>>) -> Result<(), OutOfMemory> {
    for at in 0..table.get(m).len() {
        m.scope(|m, s| {
            m.alloc::<Node>(s)?;
            let kept = m.alloc::<Node>(s)?.get(m);
            kept.value.set(at as u64);
            table.get(m).set(m, at, Some(kept));
            Ok::<_, OutOfMemory>(())
        })?;
    }
    Ok(())
}

/// Nodes that live in each cycle: 8 MiB.
const SURVIVORS: usize = (8 << 20) / 32;

fn serving(c: &mut Criterion) {
    let mut group = c.benchmark_group("collector: serve 8 MiB of survivors");
    for delivery in [Delivery::InPlace, Delivery::Pool] {
        let (heap, recorder) = heap(Some(delivery));
        let measured = heap.attach(|m| {
            m.scope(|m, s| {
                let table = m.alloc_array::<Node>(s, SURVIVORS)?;
                group.throughput(Throughput::Bytes((SURVIVORS * 32) as u64));
                if delivery == Delivery::InPlace {
                    group.bench_function("build and install, no faults", |b| {
                        b.iter_custom(|times| {
                            let mut total = Duration::ZERO;
                            for _ in 0..times {
                                young_cycle(m, table).expect("garbage is collected");
                                total += cycles(m, &recorder, 1, phase(Phase::Serve));
                            }
                            total
                        });
                    });
                }
                group.throughput(Throughput::Elements(1));
                group.bench_function(format!("one fault, {delivery}"), |b| {
                    b.iter_custom(|times| faults(m, &recorder, table, times));
                });
                Ok::<_, OutOfMemory>(())
            })
        });
        measured.expect("this thread is not attached yet").expect("the heap is large enough");
    }
    group.finish();
}

/// What `times` faults take for which a unit is built or waited for: a mutator goes through all survivors while a
/// cycle runs.
fn faults(m: &mut Mutator, recorder: &Recorder, table: Local<'_, Array<Node>>, times: u64) -> Duration {
    let (sum_before, count_before) = faults_so_far(m);
    loop {
        let (sum, count) = faults_so_far(m);
        let (sum, count) = (sum - sum_before, count - count_before);
        if count >= times {
            return Duration::from_nanos((sum as f64 / count as f64 * times as f64) as u64);
        }
        young_cycle(m, table).expect("garbage is collected");
        recorder.forget();
        m.heap().collector().request_collection();
        while recorder.count() == 0 {
            for at in (0..SURVIVORS).step_by(64) {
                let node = table.get(m).as_ref().get(at).expect("all survivors are there");
                assert_eq!(node.value.get(), at as u64);
                m.safepoint();
            }
        }
    }
}

/// Sum of latencies and number of faults that were not served with zeros or found served.
fn faults_so_far(m: &Mutator) -> (u64, u64) {
    let paths = m.heap().snapshot().fault_paths;
    let served = paths.iter().filter(|entry| !matches!(entry.path, FaultPath::Zero | FaultPath::Present));
    served.fold((0, 0), |(sum, count), entry| (sum + entry.latency_ns.sum, count + entry.latency_ns.count))
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(2))
        .sample_size(10);
    targets = marking, serving
}
criterion_main!(benches);
