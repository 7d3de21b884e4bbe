//! What ends a benchmark early.

use std::io;
use std::process::ExitCode;

use strikeslip::{AttachError, HeapError, OutOfMemory};
use strikeslip_demos::json::WriteError;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option that cannot work.
    #[error("{0}")]
    Option(String),
    /// The heap cannot be created.
    #[error(transparent)]
    Heap(#[from] HeapError),
    /// A thread cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A socket of the server workload failed.
    #[error("a connection on the loopback interface failed: {0}")]
    Socket(#[source] io::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The heap is too small for the benchmark.
    #[error("the benchmark's heap ran out of memory: {0}")]
    Memory(#[from] OutOfMemory),
    /// The mode asked for is not available.
    #[error("the heap is not in the mode that is to be measured: {0}")]
    Mode(String),
    /// The data is not what was written: a figure would be worth nothing.
    #[error("wrong data: {0}")]
    Wrong(String),
    /// What was to be measured did not happen.
    #[error("nothing to measure: {0}")]
    Nothing(String),
    /// The kernel refused what the floor measurement needs.
    #[error("the floor cannot be measured: {0}")]
    Floor(String),
    /// A run in a process of its own failed.
    #[error("{case}: {reason}")]
    Child {
        /// What was to be run.
        case: String,
        /// What went wrong.
        reason: String,
    },
    /// The report cannot be written.
    #[error(transparent)]
    Report(#[from] WriteError),
    /// Another file cannot be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// Where to.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    /// 2 if what was asked for cannot be done, 1 if something went wrong with it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Option(_) | Self::Report(_) | Self::Mode(_) => ExitCode::from(2),
            Self::Heap(HeapError::BadOption { .. } | HeapError::ModeUnavailable { .. }) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Fails with [`Error::Wrong`] unless two values are equal.
///
/// # Errors
/// Says what differs.
pub fn expect_equal(what: &str, index: usize, expected: u64, found: u64) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Wrong(format!("{what} {index}: {found:#x} instead of {expected:#x}")))
}
