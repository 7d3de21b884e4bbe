//! Reports for programs. The file is opened before the benchmark runs, so that a bad path is known
//! at once.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use strikeslip::gc::sys::sched;

use crate::error::Error;

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

/// Where a report goes.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// Opens the file.
    ///
    /// # Errors
    /// [`Error::Report`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(|source| failed(path, source))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes the report.
    ///
    /// # Errors
    /// [`Error::Report`].
    pub fn write(self, report: &impl Serialize) -> Result<(), Error> {
        let mut writer = BufWriter::new(self.file);
        serde_json::to_writer_pretty(&mut writer, report)
            .map_err(std::io::Error::other)
            .and_then(|()| writer.write_all(b"\n"))
            .and_then(|()| writer.flush())
            .map_err(|source| failed(&self.path, source))
    }
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Report { path: path.display().to_string(), source }
}
