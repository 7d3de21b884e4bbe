//! The workloads: programs with a fixed seed that check themselves. `benches/WORKLOADS.md` says exactly what
//! each of them does, so that programs in other languages can do the same and get the same checksum.
//!
//! Each runs on mutator threads of its own, which the instrument knows by number and name.

pub mod arrays;
pub mod gcbench;
pub mod graph;
pub mod lru;
pub mod map;
pub mod server;
pub mod strings;
pub mod trees;
pub mod weak;

use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use strikeslip::{Heap, Mutator};

use crate::error::Error;
use crate::measure::faults::set_mutator;
use crate::measure::timed::Section;

/// Names of threads that run mutators begin with this.
pub const MUTATOR_NAME: &str = "mutator";

/// The workloads, by name.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// Binary trees: a long-lived one, and many that die at once
    Trees,
    /// Boehm's GCBench: trees built from the leaves up and from the root down, and an array of numbers
    Gcbench,
    /// A window of buffers, of which the oldest is replaced by each push
    Lru,
    /// Trees that are replaced and that exchange their parts: survival is random
    Graph,
    /// A hash map that grows
    Map,
    /// Large arrays of references
    Arrays,
    /// Strings of mixed sizes
    Strings,
    /// A cache server on the loopback interface, and its clients
    Server,
    /// A weak table of interned entries
    Weak,
}

impl Name {
    /// The name on command lines and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trees => "trees",
            Self::Gcbench => "gcbench",
            Self::Lru => "lru",
            Self::Graph => "graph",
            Self::Map => "map",
            Self::Arrays => "arrays",
            Self::Strings => "strings",
            Self::Server => "server",
            Self::Weak => "weak",
        }
    }

    /// What it does, in a sentence without an end.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Trees => "Binary trees: a long-lived one, and many that die at once",
            Self::Gcbench => "Trees from the leaves up and from the root down, and an array of numbers",
            Self::Lru => "A window of buffers, of which each push replaces the oldest; each push is timed",
            Self::Graph => "Trees that are replaced and exchange their parts at random; batches are timed",
            Self::Map => "Hash maps that grow, one after the other; batches of inserts are timed",
            Self::Arrays => {
                "Large arrays of references, replaced element by element and copied; each is timed"
            }
            Self::Strings => "Strings of mixed sizes, made, joined and read; batches are timed",
            Self::Server => "A cache server on the loopback interface; requests are timed by the clients",
            Self::Weak => "A weak table of interned entries, most of which die; batches of lookups are timed",
        }
    }

    /// Nanoseconds between the intended starts of timed operations where it runs paced; none if it has no
    /// operations that are timed.
    #[must_use]
    pub const fn paced_interval_ns(self) -> Option<u64> {
        match self {
            Self::Trees | Self::Gcbench => None,
            Self::Lru => Some(2_000),
            Self::Graph | Self::Map | Self::Server | Self::Weak => Some(250_000),
            Self::Arrays => Some(100_000),
            Self::Strings => Some(500_000),
        }
    }

    /// The workload with its parameters.
    #[must_use]
    pub fn workload(self, parameters: &Parameters) -> Box<dyn Workload> {
        match self {
            Self::Trees => Box::new(trees::Trees(parameters.trees)),
            Self::Gcbench => Box::new(gcbench::Gcbench(parameters.trees)),
            Self::Lru => Box::new(lru::Lru(parameters.lru)),
            Self::Graph => Box::new(graph::Graph(parameters.graph)),
            Self::Map => Box::new(map::Maps(parameters.map)),
            Self::Arrays => Box::new(arrays::Arrays(parameters.arrays)),
            Self::Strings => Box::new(strings::Strings(parameters.strings)),
            Self::Server => Box::new(server::Server(parameters.server)),
            Self::Weak => Box::new(weak::Weak(parameters.weak)),
        }
    }
}

/// Parameters of all workloads. The defaults are those of `benches/WORKLOADS.md`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
pub struct Parameters {
    /// Of trees and gcbench.
    #[command(flatten)]
    pub trees: trees::Parameters,
    /// Of lru.
    #[command(flatten)]
    pub lru: lru::Parameters,
    /// Of graph.
    #[command(flatten)]
    pub graph: graph::Parameters,
    /// Of map.
    #[command(flatten)]
    pub map: map::Parameters,
    /// Of arrays.
    #[command(flatten)]
    pub arrays: arrays::Parameters,
    /// Of strings.
    #[command(flatten)]
    pub strings: strings::Parameters,
    /// Of server.
    #[command(flatten)]
    pub server: server::Parameters,
    /// Of weak.
    #[command(flatten)]
    pub weak: weak::Parameters,
}

/// How a workload is to run.
#[derive(Copy, Clone, Debug)]
pub struct Task {
    /// Seed of all that is random.
    pub seed: u64,
    /// Nanoseconds between the intended starts of timed operations; 0: flat out.
    pub interval_ns: u64,
    /// What times are counted from.
    pub epoch: Instant,
}

/// What a workload did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of all that was computed; depends on parameters and seed only.
    pub checksum: Checksum,
    /// Operations in the timed section (not always those that are timed singly).
    pub operations: u64,
    /// Mutators that ran in it.
    pub mutators: u8,
    /// The timed section.
    pub section: Section,
}

/// A program that can be measured.
pub trait Workload: Sync {
    /// Runs it.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Wrong`] if it found data that it did not write.
    fn run(&self, heap: &Heap, task: &Task) -> Result<Outcome, Error>;

    /// Builds what is live when most is, and calls `look` then.
    ///
    /// # Errors
    /// [`Error`].
    fn most_live(&self, heap: &Heap, seed: u64, look: Look<'_>) -> Result<(), Error>;
}

/// What is done when most is live.
pub type Look<'a> = &'a mut (dyn FnMut(&mut Mutator) + Send);

/// Runs `body` as mutator `number` (from 1 on), on a thread of its own, and waits for it.
///
/// # Errors
/// Those of `body`, and if the thread cannot be started or attached.
pub fn on_mutator<T: Send>(
    heap: &Heap,
    number: u8,
    body: impl FnOnce(&mut Mutator) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = spawn_mutator(scope, heap, number, body)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Starts a thread that runs `body` as mutator `number`.
///
/// # Errors
/// The system refuses the thread.
pub fn spawn_mutator<'scope, 'env, T: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    heap: &'scope Heap,
    number: u8,
    body: impl FnOnce(&mut Mutator) -> Result<T, Error> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<T, Error>>, Error> {
    let thread = thread::Builder::new().name(format!("{MUTATOR_NAME}-{number}"));
    let run = move || {
        set_mutator(number);
        heap.attach(body)?
    };
    thread.spawn_scoped(scope, run).map_err(Error::Thread)
}

/// A running checksum; the order of what is folded in matters.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Checksum(pub u64);

/// The odd constant of SplitMix64: 2^64 divided by the golden ratio.
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Checksum {
    /// Folds a value in.
    #[inline]
    pub const fn fold(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(GOLDEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_what_is_folded_in_matters() {
        let of = |values: [u64; 2]| {
            let mut checksum = Checksum::default();
            values.iter().for_each(|&value| checksum.fold(value));
            checksum
        };
        assert_ne!(of([1, 2]), of([2, 1]));
        assert_eq!(of([1, 0]), Checksum((GOLDEN.rotate_left(5)).wrapping_mul(GOLDEN)));
    }
}
