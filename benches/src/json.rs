//! Reports of single benchmarks for programs.

use serde::Serialize;
use strikeslip::gc::sys::sched;

/// A report: what was run where, and the rows of its table.
#[derive(Debug, Serialize)]
pub struct Report<'a, Options, Rows> {
    /// Name of the benchmark.
    pub benchmark: &'a str,
    /// The kernel's release.
    pub kernel: String,
    /// Processors that this process may use.
    pub processors: usize,
    /// Options in use.
    pub options: &'a Options,
    /// The figures.
    pub rows: Rows,
}

impl<'a, Options: Serialize, Rows: Serialize> Report<'a, Options, Rows> {
    /// A report of a benchmark that ran here.
    #[must_use]
    pub fn new(benchmark: &'a str, options: &'a Options, rows: Rows) -> Self {
        let kernel = sched::kernel_release().map_or_else(|error| error.to_string(), |(release, _)| release);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { benchmark, kernel, processors, options, rows }
    }
}
