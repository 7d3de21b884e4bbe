//! Limits of a process: descriptors and mappings.

use std::fs::File;
use std::io;
use std::time::Duration;

use strikeslip_gc::error::HeapError;
use strikeslip_gc::geometry::PAGE_BYTES;
use strikeslip_gc::options::{Delivery, Mode};

use super::denied::{instead, refusal};
use super::load::{CONCURRENT, calls, heap_in, options, under_load, wait_until};
use crate::child::{in_child, mappings, open_files};
use crate::toy_embedder::Toy;

/// Opens files until there is no descriptor left.
fn no_descriptors() -> Vec<File> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls use the structure given; the limit is this child's own.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = 64;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    let files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    assert!(File::open("/dev/null").is_err());
    files
}

#[test]
fn without_a_descriptor_the_world_is_stopped_until_there_is_one() {
    if !in_child("resources::without_a_descriptor_the_world_is_stopped_until_there_is_one") {
        return;
    }
    let mode = Mode::ConcurrentMove;
    let mut files = no_descriptors();
    // Before anything was probed.
    for delivery in [None, Some(Delivery::Pool), Some(Delivery::InPlace)] {
        let reason = refusal(mode, delivery);
        assert!(reason.contains("Too many open files"), "{reason}");
        let toy = instead(mode, delivery);
        assert_eq!(toy.heap.mode(), Mode::StopTheWorld, "{}", toy.heap.choice());
        under_load(&toy, 2, |_| {});
    }
    files.truncate(files.len() - 8);
    // What was refused before is not refused for good.
    for (mode, delivery) in CONCURRENT {
        let free = open_files();
        let toy = heap_in(mode, delivery);
        // A running heap needs no further ones.
        let taken: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        under_load(&toy, 2, |_| std::thread::sleep(Duration::from_millis(100)));
        // And now that it is known that it works.
        let reason = refusal(mode, Some(delivery));
        assert!(reason.contains("Too many open files"), "{reason}");
        assert_eq!(instead(mode, Some(delivery)).heap.mode(), Mode::StopTheWorld);
        drop((taken, toy));
        assert_eq!(open_files(), free);
    }
}

/// Mappings that the process has for nothing.
struct Fill {
    base: usize,
    /// Pages that are mappings of their own.
    pages: usize,
}

const FILL_PAGES: usize = 1 << 20;

impl Fill {
    /// Has the process use up its mappings but about `left`.
    fn new(left: usize) -> Self {
        // SAFETY: the kernel chooses a free address.
        let base = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(std::ptr::null_mut(), FILL_PAGES * PAGE_BYTES, libc::PROT_NONE, flags, -1, 0)
        };
        assert_ne!(base, libc::MAP_FAILED);
        let mut fill = Self { base: base.addr(), pages: 0 };
        while fill.protect(fill.pages, libc::PROT_READ) {
            fill.pages += 2;
            assert!(fill.pages < FILL_PAGES, "vm.max_map_count is too large for this test");
        }
        fill.give_back(left);
        fill
    }

    /// Gives every other page another protection: two mappings more or less.
    fn protect(&self, page: usize, protection: i32) -> bool {
        let at = std::ptr::without_provenance_mut(self.base + page * PAGE_BYTES);
        // SAFETY: a page of this fill's mapping, which nobody uses.
        unsafe { libc::mprotect(at, PAGE_BYTES, protection) == 0 }
    }

    fn give_back(&mut self, mappings: usize) {
        let keep = self.pages.saturating_sub(mappings);
        while self.pages > keep {
            self.pages -= 2;
            assert!(self.protect(self.pages, libc::PROT_NONE), "{}", io::Error::last_os_error());
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        // SAFETY: this fill's mapping, which nobody uses.
        unsafe { libc::munmap(std::ptr::without_provenance_mut(self.base), FILL_PAGES * PAGE_BYTES) };
    }
}

#[test]
fn a_heap_without_room_for_mappings_is_an_error() {
    if !in_child("resources::a_heap_without_room_for_mappings_is_an_error") {
        return;
    }
    drop(heap_in(Mode::ConcurrentMove, Delivery::Pool));
    let mut fill = Fill::new(0);
    let (mut refused, mut made) = (0, 0);
    for _ in 0..30 {
        fill.give_back(16);
        let before = open_files();
        match Toy::new(options(Mode::ConcurrentMove, Some(Delivery::Pool))) {
            Err(HeapError::Reserve { source, .. }) => {
                assert_eq!(source.raw_os_error(), Some(libc::ENOMEM), "{source}");
                assert_eq!(made, 0, "less room was enough before");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
            Ok(_) => made += 1,
        }
        assert_eq!(open_files(), before);
    }
    assert!(refused > 3 && made > 3, "{refused} refused, {made} made");
}

#[test]
fn cycles_go_on_without_room_for_mappings() {
    if !in_child("resources::cycles_go_on_without_room_for_mappings") {
        return;
    }
    for (mode, delivery) in CONCURRENT {
        let toy = heap_in(mode, delivery);
        under_load(&toy, 2, |_| {
            wait_until("taken regions", || toy.heap.snapshot().counters.regions_taken > 0);
            let refused = || calls(&toy, "mremap", "no-memory");
            // Too little for the two that taking may need, enough for a large allocation of somebody's.
            let fill = Fill::new(2);
            wait_until("refused takes", || refused() > 2);
            let cycles = toy.heap.snapshot().counters.cycles;
            wait_until("cycles", || toy.heap.snapshot().counters.cycles > cycles + 3);
            drop(fill);
            let taken = toy.heap.snapshot().counters.regions_taken;
            wait_until("taken regions again", || toy.heap.snapshot().counters.regions_taken > taken);
        });
    }
    assert!(mappings() < 1000, "what was closed without a mapping was mapped again");
}
