//! The command `soak`: its options, and where the report goes.

use std::time::Duration;

use clap::Args;

use super::Settings;
use crate::cli::Shared;
use crate::json::{Output, WriteError};

/// Longest run that can be asked for: a year.
const MOST_MINUTES: f64 = 525_600.0;

/// What only this command takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How long rounds are begun
    #[arg(long, default_value = "10", value_parser = parse_minutes, allow_negative_numbers = true)]
    minutes: Duration,
    /// Only the round with this number
    #[arg(long)]
    round: Option<u64>,
}

fn parse_minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number of minutes".to_owned())?;
    if !(0.0..=MOST_MINUTES).contains(&minutes) {
        return Err("not between 0 and a year".to_owned());
    }
    Ok(Duration::from_secs_f64(60.0 * minutes))
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Write(#[from] WriteError),
    #[error("{0} differences, for example: {1}")]
    Differences(u64, String),
}

impl Error {
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Write(_) => 2,
            Self::Differences(..) => 1,
        }
    }
}

/// Runs, and reports.
pub(crate) fn run(arguments: &Arguments, shared: &Shared, output: Option<Output>) -> Result<(), Error> {
    let report = super::run(&Settings {
        seed: shared.seed,
        time: arguments.minutes,
        round: arguments.round,
        quiet: shared.quiet,
    });
    if !shared.quiet {
        print!("{}", report.screen());
    }
    if let Some(output) = output {
        output.write(&report)?;
    }
    match report.differences() {
        0 => Ok(()),
        differences => Err(Error::Differences(differences, report.example().to_owned())),
    }
}
