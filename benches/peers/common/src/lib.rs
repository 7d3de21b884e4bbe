//! What all peers in Rust share: the random stream, the checksum, the clock, the options and the
//! result line of `benches/WORKLOADS.md`.

pub mod histogram;
pub mod options;
pub mod random;
pub mod report;
pub mod timing;
