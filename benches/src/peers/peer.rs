//! The peers: who they are, what they are made of, and how one is started.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;
use serde::Serialize;

use super::ours;
use super::tools::Tools;
use super::work::Parameters;
use crate::run::child;

/// A program to compare with, ours among them.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// This collector, in its best mode
    Strikeslip,
    /// `OpenJDK`'s concurrent, generational collector with load barriers
    Zgc,
    /// `OpenJDK`'s other concurrent collector, generational
    Shenandoah,
    /// `OpenJDK`'s default collector
    G1,
    /// `OpenJDK`'s collector for throughput
    Parallel,
    /// Go's concurrent collector, which does not move objects
    Go,
    /// MMTk's mark-region collector
    Immix,
    /// MMTk's Immix with sticky marks
    StickyImmix,
    /// MMTk's Immix with concurrent marking
    ConcurrentImmix,
    /// MMTk's mark-compact collector of Lisp-2
    MarkCompact,
    /// MMTk's mark-compact collector after the Compressor
    Compressor,
    /// The conservative collector of Boehm, Demers and Weiser
    Bdwgc,
    /// No collector: owners free, with the system's allocator
    Malloc,
    /// No collector: owners free, with mimalloc
    Mimalloc,
}

/// What a peer needs to be built.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kit {
    /// Nothing but this program
    Ours,
    /// A Java compiler and virtual machine
    Java,
    /// The Go toolchain
    Go,
    /// A crate of ours with MMTk
    Mmtk,
    /// A C compiler and libgc
    Bdwgc,
    /// A crate of ours with mimalloc
    Native,
}

impl Kit {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Ours, Self::Java, Self::Go, Self::Mmtk, Self::Bdwgc, Self::Native];
}

/// A run that is to be started.
#[derive(Copy, Clone, Debug)]
pub struct Start<'a> {
    /// The workload.
    pub parameters: &'a Parameters,
    /// Seed of its random streams.
    pub seed: u64,
    /// Size of the heap.
    pub heap_bytes: u64,
    /// The same in multiples of what is live.
    pub factor: f64,
    /// File for the times at which operations were complete.
    pub marks: &'a Path,
    /// File for the virtual machine's log.
    pub log: &'a Path,
}

impl Peer {
    /// The name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strikeslip => "Strikeslip",
            Self::Zgc => "ZGC",
            Self::Shenandoah => "Shenandoah gen.",
            Self::G1 => "G1",
            Self::Parallel => "Parallel",
            Self::Go => "Go",
            Self::Immix => "Immix",
            Self::StickyImmix => "StickyImmix",
            Self::ConcurrentImmix => "ConcurrentImmix",
            Self::MarkCompact => "MarkCompact",
            Self::Compressor => "Compressor",
            Self::Bdwgc => "bdwgc",
            Self::Malloc => "malloc",
            Self::Mimalloc => "mimalloc",
        }
    }

    /// What it needs.
    #[must_use]
    pub const fn kit(self) -> Kit {
        match self {
            Self::Strikeslip => Kit::Ours,
            Self::Zgc | Self::Shenandoah | Self::G1 | Self::Parallel => Kit::Java,
            Self::Go => Kit::Go,
            Self::Immix | Self::StickyImmix | Self::ConcurrentImmix => Kit::Mmtk,
            Self::MarkCompact | Self::Compressor => Kit::Mmtk,
            Self::Bdwgc => Kit::Bdwgc,
            Self::Malloc | Self::Mimalloc => Kit::Native,
        }
    }

    /// Options of the virtual machine that choose the collector.
    const fn machine_options(self) -> &'static [&'static str] {
        match self {
            Self::Zgc => &["-XX:+UseZGC"],
            Self::Shenandoah => &["-XX:+UseShenandoahGC", "-XX:ShenandoahGCMode=generational"],
            Self::G1 => &["-XX:+UseG1GC"],
            Self::Parallel => &["-XX:+UseParallelGC"],
            _ => &[],
        }
    }

    /// The command that runs a workload.
    ///
    /// # Errors
    /// A sentence that says why there is none.
    pub fn command(self, tools: &Tools, start: &Start<'_>) -> Result<Command, String> {
        let heap_bytes = start.heap_bytes.to_string();
        let mut command = match self.kit() {
            Kit::Ours => return child::command(&ours::plan(start)),
            Kit::Java => {
                let mut command = Command::new(tools.java());
                command.args(self.machine_options());
                command.args([format!("-Xms{heap_bytes}"), format!("-Xmx{heap_bytes}")]);
                command.arg(format!("-Xlog:safepoint,gc:file={}:timenanos", start.log.display()));
                command.arg("-cp").arg(tools.java_classes()).arg("Peer");
                command
            }
            Kit::Go => {
                let mut command = Command::new(tools.built("peer-go"));
                // The heap may grow by so many per cent of what was found live.
                command.env("GOGC", format!("{:.0}", (start.factor - 1.0) * 100.0));
                command
            }
            Kit::Mmtk => Command::new(tools.crate_program("peer-mmtk")),
            Kit::Bdwgc => Command::new(tools.built("peer-bdwgc")),
            Kit::Native if self == Self::Malloc => Command::new(tools.crate_program("peer-malloc")),
            Kit::Native => Command::new(tools.crate_program("peer-mimalloc")),
        };
        command.args(start.parameters.arguments(start.seed)).arg("--marks").arg(start.marks);
        if matches!(self.kit(), Kit::Mmtk | Kit::Bdwgc) {
            command.args(["--heap-bytes", &heap_bytes]);
        }
        if self.kit() == Kit::Mmtk {
            command.args(["--plan", self.name()]);
        }
        Ok(command)
    }
}
