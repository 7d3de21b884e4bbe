//! `strikeslip doctor`: what this machine offers the collector, and what it would choose.

use std::fmt;

use serde::Serialize;
use strikeslip::Heap;
use strikeslip::gc::sys::probe::{Capabilities, probe};

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
