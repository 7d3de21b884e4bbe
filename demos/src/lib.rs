//! The demo programs of Strikeslip, as a library that the binary `strikeslip` and its tests use.
//!
//! - [`index`]: the main job, a text index in the managed heap.
//! - [`churn`]: three self-checking parts that allocate, discard and re-link.
//! - [`contention`]: what per-VMA locks buy: compaction beside threads that storm `mmap_lock`.
//! - [`soak`]: both of them for long, on heaps with random modes and options.
//! - [`doctor`]: what this machine offers the collector.
//!
//! [`cli`] reads the command line, [`run`] runs a [`workload`] on a heap while [`progress`] and
//! [`noise`] watch, [`report`] prints one screen, [`json`] writes the same for programs.

pub mod churn;
pub mod cli;
pub mod contention;
pub mod corpus;
pub mod doctor;
pub mod index;
pub mod json;
pub mod noise;
pub mod progress;
pub mod random;
pub mod report;
pub mod run;
pub mod soak;
pub mod sync;
#[cfg(test)]
mod testing;
pub mod tokenize;
pub mod units;
pub mod workload;
