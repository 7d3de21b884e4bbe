//! The command line of a peer: a workload, its parameters, and what is the same for all.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The command line.
#[derive(Clone, Debug, Parser)]
pub struct Options {
    /// What is the same for all workloads.
    #[command(flatten)]
    pub common: Common,
    /// The workload.
    #[command(subcommand)]
    pub workload: Workload,
}

/// Options of all workloads.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Seed of the random streams
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,
    /// Nanoseconds between intended starts of timed operations; 0: flat out
    #[arg(long, global = true, default_value_t = 0)]
    pub interval_ns: u64,
    /// Writes when operations were complete to this file, as little-endian words of 8 bytes
    #[arg(long, global = true)]
    pub marks: Option<PathBuf>,
    /// Size of the heap, where the peer has one to be sized
    #[arg(long, global = true, default_value_t = 0)]
    pub heap_bytes: usize,
    /// Plan, where the peer has several
    #[arg(long, global = true, default_value = "")]
    pub plan: String,
}

/// A workload and its parameters.
#[derive(Clone, Debug, Subcommand)]
pub enum Workload {
    /// Binary trees
    Trees(Depth),
    /// Boehm's GCBench
    Gcbench(Depth),
    /// A window of buffers
    Lru(Lru),
    /// A mutating graph of objects with random survival
    Graph(Graph),
}

/// Parameters of both tree workloads.
#[derive(Copy, Clone, Debug, Args)]
pub struct Depth {
    /// Depth of the trees
    #[arg(long, default_value_t = 19)]
    pub depth: u32,
}

/// Parameters of the window.
#[derive(Copy, Clone, Debug, Args)]
pub struct Lru {
    /// Buffers in the window
    #[arg(long, default_value_t = 200_000)]
    pub window: usize,
    /// Bytes of a buffer
    #[arg(long, default_value_t = 1024)]
    pub bytes: usize,
    /// Timed pushes
    #[arg(long, default_value_t = 5_000_000)]
    pub pushes: u64,
}

/// Parameters of the graph.
#[derive(Copy, Clone, Debug, Args)]
pub struct Graph {
    /// Trees
    #[arg(long, default_value_t = 400_000)]
    pub slots: usize,
    /// Timed operations
    #[arg(long, default_value_t = 3_000_000)]
    pub operations: u64,
    /// Operations that are timed together
    #[arg(long, default_value_t = 50)]
    pub batch: u64,
}
