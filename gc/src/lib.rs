//! An embeddable garbage collector that compacts while the program runs, without read barriers.
//!
//! A mutator reads an object by a plain load, always. To let the collector move objects beside it all
//! the same, addresses change at one moment, the *flip*, in a pause whose length does not depend on
//! what the heap holds; and the pages behind the new addresses come later. A mutator that touches one
//! that is not there yet faults, and the fault is served by building that page and installing it with
//! `UFFDIO_COPY` or `UFFDIO_MOVE` ([userfaultfd]). What barriers do in other collectors at every
//! load, the processor's page tables do here, and only for pages that moved.
//!
//! # Lineage
//!
//! The Compressor (Kermany and Petrank, PLDI 2006) has the idea: a bitmap of live words and one offset
//! for each block of them give every object's new address by a population count, so pages can be
//! built in any order, by whoever needs them, without forwarding pointers. It protects pages with
//! `mprotect`. Android's runtime (ART's concurrent mark-compact) replaced that by userfaultfd.
//! Here, besides, what need not move is left alone: only regions worth it are evacuated, the pages
//! of all others stay mapped and are never missed.
//!
//! # The cycle
//!
//! | step | mutators | who | what | file |
//! |---|---|---|---|---|
//! | 1 start | run | controller, two handshakes | candidates are named; barriers go on; then objects are born marked | `cycle.rs` |
//! | 2 mark | run | marking pool | live map, live bytes, slots that point into candidates | `mark.rs` |
//! | 3 finish | run | controller, handshakes | mutators' buffers, until nothing in them is new | `cycle.rs` |
//! | 4 weak | run | marking pool, controller, a handshake | weak slots that hold dead objects are cleared | `weak.rs` |
//! | 5 plan | run | controller, handshakes | verdicts, new addresses; dead regions are given back | `plan.rs` |
//! | 5 prepare | run | controller, a handshake | what is patched, what is taken; destinations are registered | `flip.rs` |
//! | 6 **flip** | **stopped** | controller | roots and few slots rewritten, regions with many taken away | `flip.rs` |
//! | 7 serve | run | serving pool, faulting mutators | missing pages are built and installed | `serve.rs` |
//! | 8 reclaim | run | serving pool, controller | evacuated memory back, first as staging; registration ends | `reclaim.rs` |
//!
//! Each stage takes a value that only the one before can make (`Marking`, `Marked`, `Plan`,
//! `Preparation`, `Compacting`), so the compiler checks their order. `cycle.rs` is the only file that
//! knows it.
//!
//! # Embedding
//!
//! Two doors. [`embedder::Embedder`] is what you supply: four methods about your threads.
//! [`heap::Heap`] is what you call; [`context::MutatorContext`] is the collector's side of each of your
//! threads (allocation, the write barrier), [`roots`] where references are kept from one safepoint to
//! the next, and [`layout`] how objects look. Two rules carry everything:
//!
//! 1. *No foreign code while a fault is served.* Sizes and reference slots are data: a header word names a
//!    layout in immortal memory. No callback could lock, allocate, or touch a missing page.
//! 2. *Collector threads never touch a page that is not installed.* They read old contents by
//!    [`address::FromAddress`], which is another type than the mutators' [`address::ToAddress`].
//!
//! The crate `strikeslip` is such an embedder, with a safe API.
//!
//! # Modules
//!
//! | | |
//! |---|---|
//! | doors | [`heap`], [`embedder`], [`context`], [`roots`], [`layout`] |
//! | what can be chosen, seen, and go wrong | [`options`], [`stress`], [`events`], [`stats`], [`error`] |
//! | addresses | [`address`], [`geometry`] |
//! | the kernel | [`sys`] |
//!
//! The others are public for the workspace's tests and benchmarks, hidden here, and no part of the
//! interface. In the order of the data:
//!
//! | | |
//! |---|---|
//! | memory | `space` (windows), `free_regions`, `region` (records), `alloc` (buffers) |
//! | marking | `barrier`, `mark`, `livemap`, `remembered` (for young cycles), `extent` (whether a cycle is one), `weak` (slots that keep nothing) |
//! | deciding | `plan`, `forward` |
//! | flip | `flip` |
//! | serving | `serve`, `page_state` (the protocol), `build` (contents), `install`, `staging`, `delivery` |
//! | the end | `reclaim`, `verify` |
//! | tests | `simulation` (cycles without userfaultfd, chosen schedules), `models` (protocols under loom) |
//! | around it | `core` (what all share), `control` (when), `cycle` (the order), `choice` (mode), `sync` (atomics and locks, also for models) |
//!
//! `ARCHITECTURE.md` has the whole picture and the invariants by number.
//!
//! [userfaultfd]: https://docs.kernel.org/admin-guide/mm/userfaultfd.html

pub mod account;
pub mod address;
pub mod context;
pub mod embedder;
pub mod error;
pub mod events;
pub mod geometry;
pub mod heap;
pub mod layout;
pub mod options;
pub mod roots;
pub mod stats;
pub mod stress;
pub mod sys;

#[doc(hidden)]
pub mod alloc;
#[doc(hidden)]
pub mod barrier;
#[doc(hidden)]
pub mod build;
#[doc(hidden)]
pub mod choice;
#[doc(hidden)]
pub mod control;
#[doc(hidden)]
pub mod core;
#[doc(hidden)]
pub mod cycle;
#[doc(hidden)]
pub mod delivery;
#[doc(hidden)]
pub mod extent;
#[doc(hidden)]
pub mod flip;
#[doc(hidden)]
pub mod forward;
#[doc(hidden)]
pub mod free_regions;
#[doc(hidden)]
pub mod gather;
#[doc(hidden)]
pub mod install;
#[doc(hidden)]
pub mod livemap;
#[doc(hidden)]
pub mod mark;
#[doc(hidden)]
pub mod page_state;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod reclaim;
#[doc(hidden)]
pub mod region;
#[doc(hidden)]
pub mod remembered;
#[doc(hidden)]
pub mod residency;
#[doc(hidden)]
pub mod serve;
#[doc(hidden)]
pub mod simulation;
#[doc(hidden)]
pub mod space;
#[doc(hidden)]
pub mod staging;
#[doc(hidden)]
pub mod sync;
#[doc(hidden)]
pub mod verify;
#[doc(hidden)]
pub mod weak;

#[cfg(all(test, loom))]
mod models;

pub use extent::Extent;
pub use plan::Pressure;
