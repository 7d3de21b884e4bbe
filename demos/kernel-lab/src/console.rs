//! What the guest tells the host: lines on its console, each a mark and JSON, between those of the kernel.
//!
//! Written by the guest's program, read on the host; both are built from this file.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Begins each line that is for the host.
const MARK: &str = "kernel-lab: ";

/// A line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The guest's program has begun.
    Begin {
        /// The kernel's release.
        release: String,
        /// What could not be measured here, and why.
        notes: Vec<String>,
    },
    /// One storm's figures.
    Row(Row),
    /// All is done.
    End,
    /// It failed, for this reason.
    Failed(String),
}

/// Figures of a compaction beside a storm: of each round the mean over its compactions, of these the median.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// What storm threads do.
    pub storm: String,
    /// How many there are.
    pub threads: usize,
    /// Rounds.
    pub rounds: usize,
    /// Compactions, in all rounds.
    pub compactions: u64,
    /// Wall time.
    pub compaction_ns: u64,
    /// Uninterruptible sleep of collector and mutator threads meanwhile, if the kernel counts it.
    pub blocked_ns: Option<u64>,
    /// Their voluntary switches.
    pub switches: Option<u64>,
    /// 99th percentile of `UFFDIO_COPY`.
    pub copy_p99_ns: u64,
    /// 99th percentile of mutators' faults.
    pub fault_p99_ns: u64,
    /// What the storm did, from one compaction to the next.
    pub storm_operations: u64,
    /// Objects that were wrong, in all rounds.
    pub mismatches: u64,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{MARK}{json}")
    }
}

impl Line {
    /// Reads a line of the console. None if it is not for the host.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        // The kernel may have written to the console before it on the same line.
        let (_, json) = line.trim_end().split_once(MARK)?;
        serde_json::from_str(json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let row = Row { storm: "map".into(), blocked_ns: Some(7), ..Row::default() };
        let begin = Line::Begin { release: "6.1.0".into(), notes: vec!["x: \"y\"".into()] };
        for line in [begin, Line::Row(row), Line::End, Line::Failed("two\nlines".into())] {
            let text = line.to_string();
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(Line::parse(&format!("{text}\r\n")), Some(line));
        }
    }

    #[test]
    fn what_the_kernel_writes_is_passed_over() {
        assert_eq!(Line::parse("[    0.1] Linux version 6.1"), None);
        assert_eq!(Line::parse("[    0.1] kernel-lab: no JSON"), None);
        assert_eq!(Line::parse("[    0.1] random: crng\u{7}kernel-lab: \"end\"\r"), Some(Line::End));
    }
}
