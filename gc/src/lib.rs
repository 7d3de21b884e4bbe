//! strikeslip-gc (essay to come).
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
pub mod sys;
