//! Models: the protocols' own code, run by loom through all schedules with few preemptions.
//!
//! Run with `RUSTFLAGS="--cfg loom"`, see `CONTRIBUTING.md`. Each model also runs with something made wrong, and must
//! find that: in turn the ordering of each line of the protocol
//! ([`assert_each_ordering_matters`](crate::sync::model::assert_each_ordering_matters)), and the order of its
//! steps, or a step left out. The model of safepoints is the runtime's.

mod allocation;
mod barrier;
mod delivery;
mod marking;
mod remembered;
mod roots;
mod serving;
mod weak;
