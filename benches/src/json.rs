//! Reports of single benchmarks for programs.

use serde::Serialize;

use crate::machine::Machine;

/// A report: what was run where, and the rows of its table.
#[derive(Debug, Serialize)]
pub struct Report<'a, Options, Rows> {
    /// Name of the benchmark.
    pub benchmark: &'a str,
    /// Where it ran.
    #[serde(flatten)]
    pub machine: Machine,
    /// Options in use.
    pub options: &'a Options,
    /// The figures.
    pub rows: Rows,
}

impl<'a, Options: Serialize, Rows: Serialize> Report<'a, Options, Rows> {
    /// A report of a benchmark that ran here.
    #[must_use]
    pub fn new(benchmark: &'a str, options: &'a Options, rows: Rows) -> Self {
        Self { benchmark, machine: Machine::here(), options, rows }
    }
}
