//! The instrument: what is measured while a workload runs.
//!
//! [`timed`] has the clock of the workload's own operations, [`recorder`] listens to the collector and
//! [`faults`] keeps what mutators' faults took; [`observed`] is what both saw during a timed section.
//! [`processor`], [`memory`] and [`sampler`] ask the system. [`distribution`], [`metered`] and [`utilisation`]
//! are formulas. Everything is counted from one epoch, so that events of different sources can be laid
//! side by side.

pub mod distribution;
pub mod faults;
pub mod memory;
pub mod metered;
pub mod observed;
pub mod processor;
pub mod recorder;
pub mod sampler;
pub mod timed;
pub mod utilisation;
