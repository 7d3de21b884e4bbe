//! Property test: what the plan, forwarding and page building do to a heap, against a naive sliding
//! compactor.
//!
//! Random objects are allocated one behind the other, a random part of them is kept, and everything is
//! evacuated. The naive model knows the old addresses and sizes of the survivors, and predicts the new
//! ones: in address order, those that begin in one chunk together, each such group in the current
//! destination region or, if it does not fit, at the beginning of the next.

mod toy_embedder;

use proptest::prelude::*;
use strikeslip_gc::address::ToAddress;
use strikeslip_gc::geometry::{CHUNK_BYTES, LARGE_OBJECT_BYTES, REGION_BYTES};
use strikeslip_gc::options::{Delivery, HeapOptions, Mode, VerifyLevel};
use strikeslip_gc::plan::Pressure;
use toy_embedder::graph::mix;
use toy_embedder::{Mutator, Toy, layouts};

/// One object to allocate.
#[derive(Clone, Debug)]
struct Wanted {
    bytes: usize,
    is_array: bool,
    lives: bool,
    /// Survivors that its elements refer to, modulo their number.
    references: Vec<(usize, usize)>,
}

/// A survivor as the model knows it.
struct Survivor {
    old: ToAddress,
    bytes: usize,
    /// Word and survivor.
    references: Vec<(usize, usize)>,
    is_array: bool,
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        20 => (2usize..20).prop_map(|words| words * 8),
        8 => (2usize..600).prop_map(|words| words * 8),
        2 => (600usize..20_000).prop_map(|words| words * 8),
        1 => (20_000usize..=LARGE_OBJECT_BYTES / 8).prop_map(|words| words * 8),
    ]
}

/// Stretches of objects of which the same share lives: dense and sparse regions.
fn objects() -> impl Strategy<Value = Vec<Wanted>> {
    let stretch = (prop_oneof![Just(0.0), Just(0.03), Just(0.5), Just(1.0)], 1usize..150);
    prop::collection::vec(stretch, 1..8).prop_flat_map(|stretches| {
        let one = |share: f64| {
            let references = prop::collection::vec((any::<usize>(), any::<usize>()), 0..6);
            (sizes(), any::<bool>(), prop::bool::weighted(share), references).prop_map(
                |(bytes, is_array, lives, references)| Wanted { bytes, is_array, lives, references },
            )
        };
        stretches
            .into_iter()
            .map(|(share, count)| prop::collection::vec(one(share), count))
            .collect::<Vec<_>>()
            .prop_map(|stretches| stretches.concat())
    })
}

/// Allocates all objects; survivors are held by elements of a large array (which does not move) in
/// root 0.
fn build(mutator: &Mutator, wanted: &[Wanted]) -> Vec<Survivor> {
    let holder = mutator.alloc(layouts().array, LARGE_OBJECT_BYTES / 8 + wanted.len()).expect("room");
    mutator.set_root(0, Some(holder));
    let mut survivors = vec![];
    for object in wanted {
        let words = object.bytes / 8 - 1;
        let layout = if object.is_array { layouts().array } else { layouts().data };
        let old = mutator.alloc(layout, words).expect("the heap is large enough");
        if !object.is_array {
            (1..=words).for_each(|word| mutator.set(old, word, mix(old.get() as u64 + word as u64)));
        }
        if object.lives {
            mutator.store(mutator.root(0).expect("the holder"), 1 + survivors.len(), Some(old));
            survivors.push(Survivor {
                old,
                bytes: object.bytes,
                references: vec![],
                is_array: object.is_array,
            });
        }
    }
    let count = survivors.len();
    let living = wanted.iter().filter(|object| object.lives);
    for (nth, object) in living.enumerate().filter(|(_, object)| object.is_array) {
        for &(word, target) in &object.references {
            let (word, target) = (1 + word % (object.bytes / 8 - 1), target % count);
            survivors[nth].references.retain(|&(other, _)| other != word);
            survivors[nth].references.push((word, target));
            mutator.store(survivors[nth].old, word, Some(survivors[target].old));
        }
    }
    survivors
}

/// The naive sliding compactor: for each survivor (in address order) the destination, counted from 0,
/// and the offset in it.
fn predict(survivors: &[&Survivor]) -> Vec<(usize, usize)> {
    let (mut destination, mut offset) = (0, 0);
    let mut places = vec![];
    for group in survivors.chunk_by(|a, b| a.old.get() / CHUNK_BYTES == b.old.get() / CHUNK_BYTES) {
        if offset + group.iter().map(|object| object.bytes).sum::<usize>() > REGION_BYTES {
            (destination, offset) = (destination + 1, 0);
        }
        for object in group {
            places.push((destination, offset));
            offset += object.bytes;
        }
    }
    places
}

fn check_contents(mutator: &Mutator, survivors: &[Survivor], new: &[ToAddress]) {
    for (survivor, &address) in survivors.iter().zip(new) {
        let words = survivor.bytes / 8 - 1;
        assert_eq!(mutator.header(address).length() as usize, words, "length of {:#x}", survivor.old.get());
        for word in 1..=words {
            let reference = survivor.references.iter().find(|&&(at, _)| at == word);
            let expected = match (survivor.is_array, reference) {
                (false, _) => mix(survivor.old.get() as u64 + word as u64),
                (true, Some(&(_, target))) => new[target].get() as u64,
                (true, None) => 0,
            };
            assert_eq!(mutator.get(address, word), expected, "word {word} of {:#x}", survivor.old.get());
        }
    }
}

fn options(mode: Mode, huge_pages: bool) -> HeapOptions {
    HeapOptions {
        limit_bytes: 256 << 20,
        mode,
        delivery: Some(Delivery::InPlace),
        huge_pages,
        automatic: false,
        verify: VerifyLevel::Spaces,
        fall_back: false,
        workers: 2,
        ..HeapOptions::default()
    }
}

/// Compacts a heap of these objects twice, and compares with the prediction.
fn compact(mode: Mode, huge_pages: bool, wanted: &[Wanted]) {
    let toy = Toy::new(options(mode, huge_pages)).expect("a heap");
    let mutator = toy.attach();
    let survivors = build(&mutator, wanted);
    let holder_bytes = (1 + LARGE_OBJECT_BYTES / 8 + wanted.len()) * 8;
    let live: usize = survivors.iter().map(|survivor| survivor.bytes).sum();
    let mut before: Vec<_> = survivors.iter().map(|survivor| survivor.old).collect();
    for _ in 0..2 {
        mutator.blocked(|| toy.heap.collect_with(Pressure::Everything));
        let holder = mutator.root(0).expect("the holder");
        let load = |nth| mutator.load(holder, 1 + nth).expect("a survivor");
        let new: Vec<_> = (0..survivors.len()).map(load).collect();
        check_contents(&mutator, &survivors, &new);
        let moved: Vec<_> = survivors
            .iter()
            .zip(&before)
            .map(|(survivor, &old)| Survivor {
                old,
                bytes: survivor.bytes,
                references: vec![],
                is_array: survivor.is_array,
            })
            .collect();
        let mut by_address: Vec<_> = moved.iter().zip(&new).collect();
        by_address.sort_by_key(|(survivor, _)| survivor.old);
        let places = predict(&by_address.iter().map(|(survivor, _)| *survivor).collect::<Vec<_>>());
        let mut regions = vec![];
        for ((_, new), (destination, offset)) in by_address.iter().zip(&places) {
            if *destination == regions.len() {
                regions.push(new.get() / REGION_BYTES);
            }
            assert_eq!(
                (new.get() / REGION_BYTES, new.get() % REGION_BYTES),
                (regions[*destination], *offset)
            );
        }
        let summary = toy.heap.snapshot();
        assert_eq!(summary.last_cycle.marked_bytes as usize, live + holder_bytes, "live bytes");
        assert_eq!(summary.last_cycle.evacuated_bytes as usize, live, "survivors' bytes");
        let held = holder_bytes.div_ceil(REGION_BYTES);
        assert_eq!(
            summary.memory.used_bytes as usize,
            (regions.len() + held) * REGION_BYTES,
            "all others are free"
        );
        before = new;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn stop_the_world_slides_as_predicted(wanted in objects()) {
        compact(Mode::StopTheWorld, false, &wanted);
    }

    #[test]
    fn copied_pages_slide_as_predicted(wanted in objects(), huge_pages: bool) {
        compact(Mode::ConcurrentCopy, huge_pages, &wanted);
    }

    #[test]
    fn moved_pages_slide_as_predicted(wanted in objects(), huge_pages: bool) {
        compact(Mode::ConcurrentMove, huge_pages, &wanted);
    }
}
