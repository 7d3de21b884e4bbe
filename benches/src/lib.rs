//! Benchmarks of the collector, as a library that the binary `strikeslip-bench` uses.
//!
//! - [`run`]: [`workload`]s over a matrix of modes, heap sizes and paces, with all that [`measure`] can see of
//!   them, and their [`report`].
//! - [`pauses`]: the one pause of a cycle, with different amounts of live data and of roots.
//! - [`brownout`]: the speed of mutators in the first milliseconds after the flip.
//! - [`evacuate`]: a full evacuation, beside the floor that the kernel and the memory set
//!   ([`floor`]), and how little of a dense heap is copied.
//! - [`peers`]: the same workloads on other collectors, beside ours.
//!
//! All of them check the data they work on: a figure is printed only after every object was found
//! as it was left. Memory is warmed first ([`warm`]), and beside each figure stands what else
//! delayed threads meanwhile. The Criterion benchmarks in `benches/benches` measure what a mutator does all
//! the time, what the collector does in a cycle, and the kernel's floor; [`baseline`] makes a table of them.

pub mod baseline;
pub mod brownout;
pub mod cli;
pub mod error;
pub mod evacuate;
pub mod floor;
pub mod fragmented;
pub mod json;
pub mod live;
pub mod machine;
pub mod measure;
pub mod numbers;
pub mod pauses;
pub mod peers;
pub mod report;
pub mod run;
pub mod table;
pub mod timeline;
pub mod warm;
pub mod workload;
