//! The report of `run`: all runs as JSON, and what is made of them: tables ([`summary`]), a page with pictures
//! ([`page`]), and a comparison of two reports ([`compare`]).
//!
//! The unit of all of them is the [`Group`]: the runs of one case, of which medians and spreads are given.

pub mod compare;
pub mod overhead;
pub mod page;
pub mod summary;
mod svg;

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::machine::Machine;
use crate::measure::distribution::Distribution;
use crate::numbers::{Summary, median};
use crate::run::result::{Case, Run};

/// Version of the format.
const FORMAT: u32 = 1;

/// A report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the format.
    pub format: u32,
    /// Where everything ran.
    pub machine: Machine,
    /// The command line.
    pub command: Vec<String>,
    /// All runs, in the order in which they ran.
    pub runs: Vec<Run>,
}

impl Report {
    /// A report of runs on this machine.
    #[must_use]
    pub fn new(runs: Vec<Run>) -> Self {
        let command = std::env::args().skip(1).collect();
        Self { format: FORMAT, machine: Machine::here(), command, runs }
    }

    /// Reads one.
    ///
    /// # Errors
    /// The file cannot be read, is no report, or one of another format.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |reason: String| Error::Option(format!("{}: {reason}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let report: Self =
            serde_json::from_str(&text).map_err(|error| failed(format!("is no report: {error}")))?;
        if report.format != FORMAT {
            return Err(failed(format!("has format {}, this program reads {FORMAT}", report.format)));
        }
        Ok(report)
    }

    /// The runs by case, in the order in which cases first ran.
    #[must_use]
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = vec![];
        for run in &self.runs {
            match groups.iter_mut().find(|group| group.case == &run.case) {
                Some(group) => group.runs.push(run),
                None => groups.push(Group { case: &run.case, runs: vec![run] }),
            }
        }
        groups
    }
}

/// The runs of one case.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The case.
    pub case: &'a Case,
    /// Its runs; there is at least one.
    pub runs: Vec<&'a Run>,
}

impl Group<'_> {
    /// A value over all runs.
    pub fn summary(&self, value: impl Fn(&Run) -> f64) -> Summary {
        Summary::of(self.runs.iter().map(|run| value(run)))
    }

    /// The median of a value over all runs.
    pub fn median(&self, value: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(|run| value(run)))
    }

    /// All values of a distribution, over all runs.
    pub fn merged(&self, of: impl Fn(&Run) -> &Distribution) -> Distribution {
        Distribution::merged(self.runs.iter().map(|run| of(run)))
    }

    /// The run with the median wall time: the one to show where one has to do.
    #[must_use]
    pub fn typical(&self) -> &Run {
        let mut runs = self.runs.clone();
        runs.sort_by(|a, b| a.wall_seconds.total_cmp(&b.wall_seconds));
        runs[(runs.len() - 1) / 2]
    }
}
