//! What can go wrong, each in one line.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine is not one that this works on.
    #[error("this takes a Debian system on x86-64: {0}")]
    Machine(String),
    /// A command that is needed is not there.
    #[error("{command} is missing: {hint}")]
    Missing {
        /// The command.
        command: &'static str,
        /// Where it comes from.
        hint: &'static str,
    },
    /// No package fits.
    #[error(
        "no package is named {pattern}: Debian 12 (bookworm with bookworm-security) has both kernels; was apt-get update run?"
    )]
    NoPackage {
        /// What was looked for.
        pattern: String,
    },
    /// A package does not have what it should.
    #[error("package {package} has no {file}")]
    Contents {
        /// The package.
        package: String,
        /// What was looked for.
        file: &'static str,
    },
    /// A command failed.
    #[error("{command}: {reason}")]
    Command {
        /// What was run.
        command: String,
        /// Its last line on standard error, or its status.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The guest did not end in time.
    #[error("{kernel} did not end within {} s; its console is in {}", limit.as_secs(), log.display())]
    TimedOut {
        /// The kernel.
        kernel: String,
        /// The time it was given.
        limit: Duration,
        /// Where its console is.
        log: PathBuf,
    },
    /// The guest ended without its last line.
    #[error("{kernel} ended without a result: {reason}; its console is in {}", log.display())]
    Guest {
        /// The kernel.
        kernel: String,
        /// What it said.
        reason: String,
        /// Where its console is.
        log: PathBuf,
    },
    /// The user said no.
    #[error("nothing was done")]
    Declined,
}

impl Error {
    /// For `map_err`: that this happened to a file.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |error| Self::File { path, error }
    }

    /// 2 if what was asked for cannot be done, 1 if it went wrong.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::TimedOut { .. } | Self::Guest { .. } => 1,
            _ => 2,
        }
    }
}
