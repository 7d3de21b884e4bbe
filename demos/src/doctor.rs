//! `strikeslip doctor`: what this machine offers the collector, and what it would choose. With `--conformance`:
//! whether its kernel follows the rules that the collector rests on.

use std::fmt;

use serde::Serialize;
use strikeslip::Heap;
use strikeslip::gc::sys::conformance::{Outcome, RULES, Verdict};
use strikeslip::gc::sys::probe::{Capabilities, probe};
use strikeslip::gc::sys::sched::kernel_release;

use crate::run::{Settings, options};

/// What was found out.
#[derive(Debug, Serialize)]
pub struct Findings {
    capabilities: Capabilities,
    choice: Choice,
}

/// What a heap with the options of the command line chose.
#[derive(Debug, Serialize)]
struct Choice {
    mode: Option<&'static str>,
    delivery: Option<&'static str>,
    /// One line: the choice and why, or why there is no heap.
    reason: String,
}

/// Probes the machine, and makes a heap to see what it chooses.
#[must_use]
pub fn examine(settings: &Settings) -> Findings {
    let choice = match Heap::new(options(settings)) {
        Ok(heap) => Choice {
            mode: Some(heap.mode().name()),
            delivery: heap.delivery().map(|delivery| delivery.name()),
            reason: heap.choice().to_owned(),
        },
        Err(error) => Choice { mode: None, delivery: None, reason: format!("no heap can be made: {error}") },
    };
    Findings { capabilities: probe(), choice }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.capabilities)?;
        let Choice { mode, delivery, reason } = &self.choice;
        let chosen = [mode.unwrap_or("none"), delivery.unwrap_or("")].join(" ");
        writeln!(f, "\nchosen: {}\n{reason}", chosen.trim_end())
    }
}

/// The rules of the page operations, as the running kernel follows them.
#[derive(Debug, Serialize)]
pub struct Conformance {
    kernel: String,
    rules: Vec<Outcome>,
}

impl Conformance {
    /// Tries all rules.
    #[must_use]
    pub fn examine() -> Self {
        let kernel = kernel_release().map_or_else(|_| "unknown".to_owned(), |(release, _)| release);
        Self { kernel, rules: RULES.iter().map(|rule| rule.examine()).collect() }
    }

    /// Rules that the kernel does not follow.
    #[must_use]
    pub fn different(&self) -> usize {
        self.rules.iter().filter(|outcome| outcome.verdict == Verdict::Different).count()
    }
}

impl fmt::Display for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Linux {}\n", self.kernel)?;
        writeln!(f, "{:<9} {:<13} {:<54} {:<36} seen", "", "operation", "rule", "expected")?;
        for outcome in &self.rules {
            let mark = match outcome.verdict {
                Verdict::AsExpected => "ok",
                Verdict::Different => "DIFFERENT",
                Verdict::NotTried => "not tried",
            };
            let Outcome { operation, condition, expected, seen, note, .. } = outcome;
            let note = if note.is_empty() { String::new() } else { format!("  ({note})") };
            writeln!(f, "{mark:<9} {operation:<13} {condition:<54} {expected:<36} {seen}{note}")?;
        }
        let count = |verdict| self.rules.iter().filter(|outcome| outcome.verdict == verdict).count();
        let [ok, not_tried] = [Verdict::AsExpected, Verdict::NotTried].map(count);
        writeln!(f, "\n{ok} as expected, {} different, {not_tried} not tried", self.different())
    }
}
