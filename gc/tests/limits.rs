//! Where a heap ends: each kind of out-of-memory, and systems that refuse userfaultfd or memory.
//!
//! What changes the process for good runs in a child: this test binary again, with one test.

mod child;
mod toy_embedder;

use std::sync::Barrier;

use child::{deny_userfaultfd, in_child};
use strikeslip_gc::error::{AllocError, HeapError};
use strikeslip_gc::geometry::{PAGE_BYTES, REGION_BYTES, WINDOW_BYTES};
use strikeslip_gc::options::{Delivery, HeapOptions, Mode, VerifyLevel};
use strikeslip_gc::plan::Pressure;
use strikeslip_gc::roots::RootPageKind;
use toy_embedder::graph::{Graph, Shape};
use toy_embedder::{Mutator, Toy, layouts};

const LIMIT: usize = 32 << 20;
const MODES: [Mode; 4] = [Mode::NoGc, Mode::StopTheWorld, Mode::ConcurrentCopy, Mode::ConcurrentMove];

fn options(mode: Mode) -> HeapOptions {
    HeapOptions {
        limit_bytes: LIMIT,
        mode,
        fall_back: false,
        verify: VerifyLevel::Spaces,
        ..HeapOptions::default()
    }
}

#[test]
fn an_object_beyond_the_limit_is_too_large() {
    for mode in MODES {
        let toy = Toy::new(options(mode)).expect("a heap");
        let mutator = toy.attach();
        let words = LIMIT / 8;
        let expected = AllocError::TooLarge { bytes: 8 * (words + 1), most: LIMIT };
        assert_eq!(mutator.alloc(layouts().data, words), Err(expected));
        assert_eq!(mutator.alloc_pinned(layouts().data, words), Err(expected));
        let largest =
            mutator.alloc(layouts().data, words - 1).expect("the largest object fits an empty heap");
        mutator.set(largest, words - 1, 1);
    }
}

/// Links nodes with data behind them into root 0 until memory is exhausted.
fn fill(mutator: &Mutator, words: usize) -> (AllocError, usize) {
    for count in 0.. {
        let data = match mutator.alloc(layouts().data, words) {
            Ok(data) => data,
            Err(error) => return (error, count),
        };
        mutator.set_root(1, Some(data));
        let node = match mutator.alloc(layouts().node, 0) {
            Ok(node) => node,
            Err(error) => return (error, count),
        };
        mutator.store(node, 1, mutator.root(0));
        mutator.store(node, 2, mutator.root(1));
        mutator.set_root(0, Some(node));
    }
    unreachable!("memory is finite")
}

#[test]
fn two_threads_reach_the_limit_and_recover_when_roots_are_dropped() {
    for mode in MODES.into_iter().skip(1) {
        for words in [30, 1000, 40_000, 300_000] {
            let toy = Toy::new(options(mode)).expect("a heap");
            let both = Barrier::new(2);
            let used: usize = std::thread::scope(|scope| {
                let thread = || {
                    let mutator = toy.attach();
                    let (error, count) = fill(&mutator, words);
                    assert!(
                        matches!(error, AllocError::HeapLimit { limit: LIMIT, .. }),
                        "{mode}, {words}: {error}"
                    );
                    // Else the other one would go on to fill what this one drops.
                    mutator.blocked(|| both.wait());
                    mutator.set_root(0, None);
                    mutator.set_root(1, None);
                    // The other thread may still hold the rest: what this one dropped is enough.
                    for _ in 0..count / 2 {
                        mutator.alloc(layouts().data, words).expect("dropped memory comes back");
                    }
                    count * (words + 5) * 8
                };
                let threads = [scope.spawn(thread), scope.spawn(thread)];
                threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
            });
            assert!(used > LIMIT / 2, "{mode}, {words} words: only {used} bytes of {LIMIT} could be used");
        }
    }
}

#[test]
fn without_collection_the_limit_is_final() {
    let toy = Toy::new(options(Mode::NoGc)).expect("a heap");
    let mutator = toy.attach();
    let (error, count) = fill(&mutator, 1000);
    assert!(matches!(error, AllocError::HeapLimit { limit: LIMIT, .. }), "{error}");
    assert!(count * 8000 > LIMIT / 10 * 9, "{count} objects fit");
    mutator.set_root(0, None);
    assert!(matches!(mutator.alloc(layouts().data, 100_000), Err(AllocError::HeapLimit { .. })));
    assert_eq!(toy.heap.snapshot().counters.cycles, 0);
}

#[test]
fn a_full_root_window_is_an_error_until_a_page_is_freed() {
    // A child: the window's page tables are some megabytes that stay.
    if !in_child("a_full_root_window_is_an_error_until_a_page_is_freed") {
        return;
    }
    let toy = Toy::new(options(Mode::NoGc)).expect("a heap");
    let roots = toy.heap.roots();
    let mut pages = vec![];
    let error = loop {
        match roots.allocate(RootPageKind::Paged) {
            Ok(page) => {
                let address = page.slots().as_ptr().cast_mut().cast();
                // SAFETY: the page is this test's, and as empty before as after.
                assert_eq!(unsafe { libc::madvise(address, PAGE_BYTES, libc::MADV_DONTNEED) }, 0);
                pages.push(page);
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error, AllocError::SystemRefused { bytes: PAGE_BYTES });
    // All but the region of hot pages.
    assert_eq!(pages.len(), (WINDOW_BYTES - REGION_BYTES) / PAGE_BYTES);
    roots.free(pages.pop().expect("many pages"));
    assert!(roots.allocate(RootPageKind::Paged).is_ok());
    assert!(roots.allocate(RootPageKind::Paged).is_err());
}

#[test]
fn a_system_that_refuses_address_space_is_an_error() {
    if !in_child("a_system_that_refuses_address_space_is_an_error") {
        return;
    }
    let limit = libc::rlimit { rlim_cur: 3 << 30, rlim_max: 3 << 30 };
    // SAFETY: the structure is valid, and the limit is this child's own.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    for mode in MODES {
        match Toy::new(options(mode)) {
            Err(HeapError::Reserve { bytes, source }) => {
                assert!(bytes > 3 << 30, "{mode}: {bytes}");
                assert_eq!(source.raw_os_error(), Some(libc::ENOMEM), "{mode}: {source}");
            }
            Err(error) => panic!("{mode}: {error}"),
            Ok(_) => panic!("{mode}: a heap in 3 GiB of address space"),
        }
    }
}

#[test]
fn without_userfaultfd_the_world_is_stopped_instead() {
    if !in_child("without_userfaultfd_the_world_is_stopped_instead") {
        return;
    }
    deny_userfaultfd(libc::EPERM);
    for mode in [Mode::ConcurrentCopy, Mode::ConcurrentMove] {
        for delivery in [None, Some(Delivery::Pool), Some(Delivery::InPlace)] {
            match Toy::new(HeapOptions { delivery, ..options(mode) }) {
                Err(HeapError::ModeUnavailable { mode: refused, reason }) => {
                    assert_eq!(refused, mode);
                    assert!(!reason.is_empty() && !reason.contains('\n'), "one line: {reason}");
                }
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("{mode} without userfaultfd"),
            }
            let toy =
                Toy::new(HeapOptions { delivery, fall_back: true, ..options(mode) }).expect("another mode");
            assert_eq!((toy.heap.mode(), toy.heap.delivery()), (Mode::StopTheWorld, None));
            let choice = toy.heap.choice();
            assert!(choice.contains(mode.name()) && choice.contains("stop-the-world"), "{choice}");
            let mutator = toy.attach();
            let shape = Shape { roots: 50, live_bytes: 4 << 20, medium_one_in: 50, large_one_in: 0 };
            let mut graph = Graph::new(&mutator, 11, shape);
            for _ in 0..5 {
                (0..2000).for_each(|_| graph.step().expect("room"));
                mutator.blocked(|| toy.heap.collect_with(Pressure::Everything));
                assert!(graph.check() > 0);
            }
            let counters = toy.heap.snapshot().counters;
            assert!(counters.cycles >= 5 && counters.evacuated_bytes > REGION_BYTES as u64, "{counters:?}");
            assert_eq!(counters.mutator_faults, 0);
        }
    }
}
